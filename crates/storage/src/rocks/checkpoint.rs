//! Copies of one partition's state: frozen here by hard links, or received from elsewhere.
//!
//! A copy carries a file `CONTENTS` that lists the others with sizes and hashes, so that an incomplete or damaged copy
//! is told from a whole one. It is made when the files are first asked for: most copies are only taken to purge the
//! log. Tables never change, so each is hashed once per generation.

use std::any::Any;
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use rocksdb::DB;
use xxhash_rust::xxh3::Xxh3Default;

use super::files;
use super::generation::{Generation, read_applied, verify};
use super::options::{Shared, rocks_error};
use crate::{Applied, Checkpoint, CheckpointFile, Incoming, damaged, misuse, other_format};

const CONTENTS: &str = "CONTENTS";
/// Before the version in the first line of CONTENTS.
const CONTENTS_KIND: &str = "holdfast-checkpoint ";
const CONTENTS_FORMAT: u8 = 1;

/// A directory that goes away with its owner.
struct Scratch {
    dir: PathBuf,
    keep: bool,
    _shared: Arc<Shared>,
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if !self.keep
            && let Err(error) = files::remove_dir(&self.dir)
        {
            tracing::warn!(dir = %self.dir.display(), %error, "a copy stays until the next start");
        }
    }
}

pub(super) struct RocksCheckpoint {
    scratch: Scratch,
    applied: Applied,
    shared: Arc<Shared>,
    files: Mutex<Option<Vec<CheckpointFile>>>,
    hashes: Arc<Hashes>,
}

/// Hashes of tables, by name. Names are not used twice within a generation.
#[derive(Default)]
pub(super) struct Hashes(Mutex<BTreeMap<String, u64>>);

impl Hashes {
    fn of(&self, dir: &Path, name: &str) -> io::Result<u64> {
        let table = name.ends_with(".sst");
        if table && let Some(hash) = self.0.lock().get(name) {
            return Ok(*hash);
        }
        let hash = hash_file(&dir.join(name))?;
        if table {
            self.0.lock().insert(name.to_owned(), hash);
        }
        Ok(hash)
    }

    /// Forgets tables that are no more.
    fn keep(&self, names: &[String]) {
        self.0.lock().retain(|name, _| names.contains(name));
    }
}

fn hash_file(path: &Path) -> io::Result<u64> {
    let mut file = File::open(path)?;
    let mut hasher = Xxh3Default::new();
    let mut buffer = vec![0; 256 << 10];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hasher.digest()),
            read => hasher.update(&buffer[..read]),
        }
    }
}

impl RocksCheckpoint {
    /// Flushes, and links all tables of `generation` into `dir`.
    pub(super) fn take(
        shared: &Arc<Shared>,
        generation: &Generation,
        dir: PathBuf,
    ) -> io::Result<RocksCheckpoint> {
        let failed =
            |error: rocksdb::Error| rocks_error(generation.dir(), "cannot freeze the state in", &error);
        let scratch = Scratch {
            dir,
            keep: false,
            _shared: shared.clone(),
        };
        let dir = &scratch.dir;
        let maker = rocksdb::checkpoint::Checkpoint::new(&generation.db).map_err(failed)?;
        maker.create_checkpoint(dir).map_err(failed)?;
        dir.parent().map_or(Ok(()), files::sync_dir)?;
        let applied = open_copy(shared, dir)?.1;
        Ok(RocksCheckpoint {
            scratch,
            applied,
            shared: shared.clone(),
            files: Mutex::default(),
            hashes: generation.hashes(),
        })
    }

    /// What is damaged here would be refused by every receiver, without an end: it is found before it is sent. The hashes
    /// are of what is on the disk, so each block is verified beside them.
    fn describe_all(&self) -> io::Result<Vec<CheckpointFile>> {
        let dir = &self.scratch.dir;
        verify(&open_copy(&self.shared, dir)?.0, dir)?;
        let names: Vec<String> = files::names(dir)?
            .into_iter()
            .filter(|name| belongs(name))
            .collect();
        files::write_sealed(
            &dir.join(CONTENTS),
            describe(dir, &names, &self.hashes)?.as_bytes(),
        )?;
        self.hashes.keep(&names);
        let mut listed = Vec::new();
        for name in names.into_iter().chain([CONTENTS.to_owned()]) {
            let size_bytes = fs::metadata(dir.join(&name))?.len();
            listed.push(CheckpointFile { name, size_bytes });
        }
        listed.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(listed)
    }
}

impl Checkpoint for RocksCheckpoint {
    fn applied(&self) -> Applied {
        self.applied.clone()
    }

    fn list(&self) -> io::Result<Vec<CheckpointFile>> {
        let mut files = self.files.lock();
        if let Some(listed) = &*files {
            return Ok(listed.clone());
        }
        let listed = self.describe_all()?;
        *files = Some(listed.clone());
        Ok(listed)
    }

    fn read(&self, name: &str, offset: u64, len: usize) -> io::Result<Bytes> {
        if !self.list()?.iter().any(|file| file.name == name) {
            return Err(io::Error::new(
                io::ErrorKind::NotFound,
                format!("the checkpoint has no file {name:?}"),
            ));
        }
        let file = File::open(self.scratch.dir.join(name))?;
        let left = usize::try_from(file.metadata()?.len().saturating_sub(offset)).unwrap_or(usize::MAX);
        let mut data = vec![0; left.min(len)];
        file.read_exact_at(&mut data, offset)?;
        Ok(data.into())
    }
}

/// A copy being received. See the crate's [`Incoming`].
pub(super) struct RocksIncoming {
    scratch: Scratch,
    shared: Arc<Shared>,
    sizes: BTreeMap<String, u64>,
    writing: Option<(String, File)>,
    finished: bool,
}

impl RocksIncoming {
    pub(super) fn begin(shared: &Arc<Shared>, dir: PathBuf) -> io::Result<RocksIncoming> {
        fs::create_dir(&dir)?;
        let scratch = Scratch {
            dir,
            keep: false,
            _shared: shared.clone(),
        };
        Ok(RocksIncoming {
            scratch,
            shared: shared.clone(),
            sizes: BTreeMap::new(),
            writing: None,
            finished: false,
        })
    }

    pub(super) fn dir(&self) -> &Path {
        &self.scratch.dir
    }

    /// Moves the finished copy to `to`, durably.
    pub(super) fn rename(mut self, to: &Path) -> io::Result<()> {
        if !self.finished {
            return Err(misuse("a copy is finished before it is installed"));
        }
        fs::rename(&self.scratch.dir, to)?;
        self.scratch.keep = true;
        to.parent().map_or(Ok(()), files::sync_dir)
    }

    fn check_contents(&self) -> io::Result<()> {
        let dir = &self.scratch.dir;
        let content = files::read_sealed(&dir.join(CONTENTS))?
            .ok_or_else(|| damaged("the copy is incomplete: it has no CONTENTS"))?;
        let names: Vec<String> = self
            .sizes
            .keys()
            .filter(|name| *name != CONTENTS)
            .cloned()
            .collect();
        let expected = String::from_utf8_lossy(&content);
        let first = expected.lines().next().unwrap_or_default();
        match first.strip_prefix(CONTENTS_KIND) {
            Some(format) if format != CONTENTS_FORMAT.to_string() => {
                return Err(other_format("the copy", format, CONTENTS_FORMAT));
            }
            Some(_) | None => {}
        }
        let found = describe(dir, &names, &Hashes::default())?;
        if expected == found {
            return Ok(());
        }
        let differs = |a: &str, b: &str| {
            a.lines()
                .find(|line| !b.lines().any(|other| other == *line))
                .map(str::to_owned)
        };
        let wanted = differs(&expected, &found).unwrap_or_else(|| "nothing".into());
        let got = differs(&found, &expected).unwrap_or_else(|| "nothing".into());
        Err(damaged(format!(
            "the copy is incomplete or damaged: CONTENTS lists {wanted:?}, received {got:?}"
        )))
    }
}

impl Incoming for RocksIncoming {
    fn write(&mut self, name: &str, offset: u64, data: &[u8]) -> io::Result<()> {
        if name != CONTENTS && !belongs(name) {
            return Err(misuse(format!("{name:?} is not a file of a checkpoint")));
        }
        let size = self.sizes.entry(name.to_owned()).or_default();
        if *size != offset {
            return Err(misuse(format!("{name}: writing at {offset}, expected {size}")));
        }
        self.finished = false;
        let file = match self.writing.take() {
            Some((open, file)) if open == name => file,
            _ => OpenOptions::new()
                .create(true)
                .append(true)
                .open(self.scratch.dir.join(name))?,
        };
        file.write_all_at(data, offset)?;
        *size += data.len() as u64;
        self.writing = Some((name.to_owned(), file));
        Ok(())
    }

    fn finish(&mut self) -> io::Result<Applied> {
        self.writing = None;
        self.check_contents()?;
        for name in self.sizes.keys() {
            File::open(self.scratch.dir.join(name))?.sync_all()?;
        }
        files::sync_dir(&self.scratch.dir)?;
        let (db, applied) = open_copy(&self.shared, &self.scratch.dir)?;
        verify(&db, &self.scratch.dir)?;
        self.finished = true;
        Ok(applied)
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any + Send> {
        self
    }
}

/// Whether a file is part of a copy: tables and what names them, never a lock, an info log or a path.
fn belongs(name: &str) -> bool {
    let plain = name
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || byte == b'.' || byte == b'-');
    let known = name == "CURRENT" || name.starts_with("MANIFEST-") || name.starts_with("OPTIONS-");
    plain && (known || name.ends_with(".sst"))
}

fn describe(dir: &Path, names: &[String], hashes: &Hashes) -> io::Result<String> {
    let mut text = format!("{CONTENTS_KIND}{CONTENTS_FORMAT}\n");
    for name in names {
        let size = fs::metadata(dir.join(name))?.len();
        let hash = hashes.of(dir, name)?;
        text.push_str(&format!("{name} {size} {hash:016x}\n"));
    }
    Ok(text)
}

fn open_copy(shared: &Shared, dir: &Path) -> io::Result<(DB, Applied)> {
    let db = DB::open_for_read_only(&shared.copy()?, dir, false)
        .map_err(|error| rocks_error(dir, "cannot open the copy in", &error))?;
    match read_applied(&db, dir)? {
        Some(applied) => Ok((db, applied)),
        None => Err(damaged(format!(
            "the copy in {} has no position: nothing was committed",
            dir.display()
        ))),
    }
}
