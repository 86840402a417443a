//! The files of a disk: each request is carried out on a folder behind it, what is not synced is remembered, and what is
//! to go wrong goes wrong.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirEntryExt, FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::trouble::{Fails, Trouble};
use super::undo::{Journal, Name};
use super::wire::{Head, Reply, Request, SET_MODE, SET_SIZE, opcode};

/// The number of the topmost folder.
const ROOT: u64 = 1;

/// An open file, or a folder as it was when it was opened.
#[derive(Debug)]
enum Open {
    File(Arc<File>),
    Folder(Vec<(u64, u32, OsString)>),
}

#[derive(Debug, Default)]
struct State {
    /// Where each file or folder was seen last: its folder, its name there.
    places: HashMap<u64, (u64, OsString)>,
    open: HashMap<u64, (u64, Open)>,
    next: u64,
    kept: u64,
    journal: Journal,
}

/// All of them.
#[derive(Debug)]
pub struct Files {
    behind: PathBuf,
    kept: PathBuf,
    state: Mutex<State>,
    /// What goes wrong.
    pub trouble: Mutex<Trouble>,
}

/// What comes of a request: `None` if it wants no reply.
pub type Answer = io::Result<Option<Reply>>;

fn error(number: i32) -> io::Error {
    io::Error::from_raw_os_error(number)
}

/// A request that the kernel would not send.
fn malformed() -> io::Error {
    error(libc::EINVAL)
}

impl Files {
    /// Files in the folder `behind`; what was removed but may come back waits in `kept`, on the same device.
    pub fn new(behind: PathBuf, kept: PathBuf, trouble: Trouble) -> Files {
        Files {
            behind,
            kept,
            state: Mutex::default(),
            trouble: Mutex::new(trouble),
        }
    }

    /// The power is lost: what the journal says is undone. Returns how many writes and changes of names were lost.
    pub fn lose_power(&self, numbers: &mut workload::numbers::Numbers) -> (u64, u64) {
        let mut state = self.state.lock();
        self.trouble.lock().off = true;
        state.places.clear();
        state.journal.lose(numbers)
    }

    /// The power is back.
    pub fn regain_power(&self) {
        self.trouble.lock().off = false;
    }

    /// Carries out one request.
    pub fn answer(&self, head: Head, mut request: Request<'_>) -> Answer {
        let body = &mut request;
        let reply = match head.opcode {
            opcode::INIT => self.init(body),
            opcode::LOOKUP => self.lookup(head.node, body.name().ok_or_else(malformed)?),
            opcode::GETATTR => self.attributes(head.node),
            opcode::SETATTR => self.set_attributes(head.node, body),
            opcode::OPEN => self.open(head.node),
            opcode::CREATE => self.create(head.node, body),
            opcode::READ => self.read(body),
            opcode::WRITE => self.write(head.node, body),
            opcode::FSYNC => self.sync(|journal| journal.synced(head.node)),
            opcode::FSYNCDIR => self.sync(|journal| journal.synced_folder(head.node)),
            opcode::RELEASE | opcode::RELEASEDIR => self.release(body),
            opcode::OPENDIR => self.open_folder(head.node),
            opcode::READDIR => self.list(body),
            opcode::MKDIR => self.make_folder(head.node, body),
            opcode::UNLINK | opcode::RMDIR => self.remove(head.node, body.name().ok_or_else(malformed)?),
            opcode::RENAME | opcode::RENAME2 => self.rename(head, body),
            opcode::LINK => self.link(head.node, body),
            opcode::STATFS => Ok(Reply::space(&rustix::fs::statvfs(&self.behind)?)),
            opcode::FLUSH | opcode::DESTROY => Ok(Reply::done()),
            opcode::FORGET | opcode::BATCH_FORGET | opcode::INTERRUPT => return Ok(None),
            opcode::FALLOCATE => Err(error(libc::EOPNOTSUPP)),
            _ => Err(error(libc::ENOSYS)),
        };
        reply.map(Some).inspect_err(|error| {
            if error.kind() == ErrorKind::StorageFull {
                self.trouble.lock().count.full += 1;
            }
        })
    }

    fn init(&self, body: &mut Request<'_>) -> io::Result<Reply> {
        body.skip(8).ok_or_else(malformed)?;
        Ok(Reply::init(body.u32().ok_or_else(malformed)?))
    }

    /// Nothing changes while the power is off.
    fn powered(&self) -> io::Result<()> {
        match self.trouble.lock().off {
            true => Err(error(libc::EIO)),
            false => Ok(()),
        }
    }

    fn path(&self, state: &State, node: u64) -> io::Result<PathBuf> {
        let (mut names, mut at) = (Vec::new(), node);
        while at != ROOT {
            let (folder, name) = state.places.get(&at).ok_or_else(|| error(libc::ENOENT))?;
            names.push(name);
            at = *folder;
        }
        Ok(names
            .iter()
            .rev()
            .fold(self.behind.clone(), |path, name| path.join(name)))
    }

    fn found(
        &self,
        state: &mut State,
        folder: u64,
        name: &OsStr,
        path: &Path,
    ) -> io::Result<(u64, Metadata)> {
        let of = path.symlink_metadata()?;
        state.places.insert(of.ino(), (folder, name.to_owned()));
        Ok((of.ino(), of))
    }

    fn lookup(&self, folder: u64, name: &OsStr) -> io::Result<Reply> {
        let mut state = self.state.lock();
        let path = self.path(&state, folder)?.join(name);
        let (node, of) = self.found(&mut state, folder, name, &path)?;
        Ok(Reply::entry(node, &of))
    }

    /// A file that was removed but is still open has no path, but attributes.
    fn metadata(&self, state: &State, node: u64) -> io::Result<Metadata> {
        let open = state.open.values().find_map(|(of, open)| match open {
            Open::File(file) if *of == node => Some(file),
            _ => None,
        });
        match open {
            Some(file) => file.metadata(),
            None => self.path(state, node)?.symlink_metadata(),
        }
    }

    fn attributes(&self, node: u64) -> io::Result<Reply> {
        let state = self.state.lock();
        Ok(Reply::attribute(node, &self.metadata(&state, node)?))
    }

    fn set_attributes(&self, node: u64, body: &mut Request<'_>) -> io::Result<Reply> {
        self.powered()?;
        let which = body.u32().ok_or_else(malformed)?;
        body.skip(12).ok_or_else(malformed)?;
        let size = body.u64().ok_or_else(malformed)?;
        body.skip(8 * 4 + 3 * 4).ok_or_else(malformed)?;
        let mode = body.u32().ok_or_else(malformed)?;
        let mut state = self.state.lock();
        let path = self.path(&state, node)?;
        if which & SET_SIZE != 0 {
            let file = Arc::new(OpenOptions::new().read(true).write(true).open(&path)?);
            let longer = size > file.metadata()?.len();
            state.journal.bytes(node, &file, size, u64::from(longer))?;
            file.set_len(size)?;
        }
        if which & SET_MODE != 0 {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode & 0o7777))?;
        }
        Ok(Reply::attribute(node, &path.symlink_metadata()?))
    }

    fn keep(&self, state: &mut State, node: u64, open: Open) -> u64 {
        state.next += 1;
        let handle = state.next;
        state.open.insert(handle, (node, open));
        handle
    }

    fn open(&self, node: u64) -> io::Result<Reply> {
        let mut state = self.state.lock();
        let path = self.path(&state, node)?;
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        let handle = self.keep(&mut state, node, Open::File(Arc::new(file)));
        Ok(Reply::done().opened(handle))
    }

    fn create(&self, folder: u64, body: &mut Request<'_>) -> io::Result<Reply> {
        self.powered()?;
        body.skip(4).ok_or_else(malformed)?;
        let mode = body.u32().ok_or_else(malformed)?;
        body.skip(8).ok_or_else(malformed)?;
        let name = body.name().ok_or_else(malformed)?;
        let mut state = self.state.lock();
        let path = self.path(&state, folder)?.join(name);
        let made = !path.try_exists()?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(mode & 0o7777)
            .open(&path)?;
        let (node, of) = self.found(&mut state, folder, name, &path)?;
        if made {
            state.journal.name(vec![folder], Name::Made(path));
        }
        let handle = self.keep(&mut state, node, Open::File(Arc::new(file)));
        let Reply(entry) = Reply::entry(node, &of);
        Ok(Reply(entry).opened(handle))
    }

    fn file(&self, handle: u64) -> io::Result<Arc<File>> {
        match self.state.lock().open.get(&handle) {
            Some((_, Open::File(file))) => Ok(file.clone()),
            _ => Err(error(libc::EBADF)),
        }
    }

    fn read(&self, body: &mut Request<'_>) -> io::Result<Reply> {
        let handle = body.u64().ok_or_else(malformed)?;
        let mut offset = body.u64().ok_or_else(malformed)?;
        let size = body.u32().ok_or_else(malformed)?;
        let file = self.file(handle)?;
        if self.trouble.lock().strikes(Fails::Read) {
            return Err(error(libc::EIO));
        }
        let (mut bytes, mut length) = (vec![0; size as usize], 0);
        while length < bytes.len() {
            match file.read_at(&mut bytes[length..], offset)? {
                0 => break,
                read => {
                    length += read;
                    offset += read as u64;
                }
            }
        }
        bytes.truncate(length);
        self.trouble.lock().flip(&mut bytes);
        Ok(Reply(bytes))
    }

    fn write(&self, node: u64, body: &mut Request<'_>) -> io::Result<Reply> {
        let handle = body.u64().ok_or_else(malformed)?;
        let offset = body.u64().ok_or_else(malformed)?;
        let size = body.u32().ok_or_else(malformed)?;
        body.skip(20).ok_or_else(malformed)?;
        let bytes = body.bytes(size as usize).ok_or_else(malformed)?;
        let file = self.file(handle)?;
        if self.trouble.lock().strikes(Fails::Write) {
            return Err(error(libc::EIO));
        }
        // Under the lock: a power loss comes before this write or after it.
        let mut state = self.state.lock();
        self.powered()?;
        state.journal.bytes(node, &file, offset, u64::from(size))?;
        file.write_all_at(bytes, offset)?;
        Ok(Reply::written(size))
    }

    fn sync(&self, durable: impl FnOnce(&mut Journal)) -> io::Result<Reply> {
        let (struck, held_up) = {
            let mut trouble = self.trouble.lock();
            (trouble.strikes(Fails::Sync), trouble.held_up())
        };
        if held_up > Duration::ZERO {
            wait(held_up);
        }
        if struck {
            return Err(error(libc::EIO));
        }
        let mut state = self.state.lock();
        self.powered()?;
        durable(&mut state.journal);
        Ok(Reply::done())
    }

    fn release(&self, body: &mut Request<'_>) -> io::Result<Reply> {
        let handle = body.u64().ok_or_else(malformed)?;
        self.state.lock().open.remove(&handle);
        Ok(Reply::done())
    }

    fn open_folder(&self, node: u64) -> io::Result<Reply> {
        let mut state = self.state.lock();
        let mut entries = Vec::new();
        for entry in std::fs::read_dir(self.path(&state, node)?)? {
            let entry = entry?;
            // As in struct dirent.
            let kind = if entry.file_type()?.is_dir() { 4 } else { 8 };
            entries.push((entry.ino(), kind, entry.file_name()));
        }
        let handle = self.keep(&mut state, node, Open::Folder(entries));
        Ok(Reply::folder(handle))
    }

    fn list(&self, body: &mut Request<'_>) -> io::Result<Reply> {
        let handle = body.u64().ok_or_else(malformed)?;
        let from = body.u64().ok_or_else(malformed)?;
        let room = body.u32().ok_or_else(malformed)?;
        let state = self.state.lock();
        let Some((_, Open::Folder(entries))) = state.open.get(&handle) else {
            return Err(error(libc::EBADF));
        };
        let mut reply = Reply::done();
        for (at, (node, kind, name)) in entries.iter().enumerate().skip(from as usize) {
            if !reply.list(*node, at as u64 + 1, *kind, name, room as usize) {
                break;
            }
        }
        Ok(reply)
    }

    fn make_folder(&self, folder: u64, body: &mut Request<'_>) -> io::Result<Reply> {
        self.powered()?;
        body.skip(8).ok_or_else(malformed)?;
        let name = body.name().ok_or_else(malformed)?;
        let mut state = self.state.lock();
        let path = self.path(&state, folder)?.join(name);
        std::fs::create_dir(&path)?;
        let (node, of) = self.found(&mut state, folder, name, &path)?;
        state.journal.name(vec![folder], Name::Made(path));
        Ok(Reply::entry(node, &of))
    }

    /// Moves something away, to where it can come back from.
    fn set_aside(&self, state: &mut State, path: &Path) -> io::Result<PathBuf> {
        state.kept += 1;
        let kept = self.kept.join(state.kept.to_string());
        std::fs::rename(path, &kept)?;
        Ok(kept)
    }

    fn remove(&self, folder: u64, name: &OsStr) -> io::Result<Reply> {
        self.powered()?;
        let mut state = self.state.lock();
        let from = self.path(&state, folder)?.join(name);
        if from.symlink_metadata()?.is_dir() && std::fs::read_dir(&from)?.next().is_some() {
            return Err(error(libc::ENOTEMPTY));
        }
        let kept = self.set_aside(&mut state, &from)?;
        state.journal.name(vec![folder], Name::Removed { from, kept });
        Ok(Reply::done())
    }

    fn rename(&self, head: Head, body: &mut Request<'_>) -> io::Result<Reply> {
        self.powered()?;
        let folder = body.u64().ok_or_else(malformed)?;
        if head.opcode == opcode::RENAME2 && body.u64().ok_or_else(malformed)? as u32 != 0 {
            return Err(malformed());
        }
        let old = body.name().ok_or_else(malformed)?;
        let new = body.name().ok_or_else(malformed)?;
        let mut state = self.state.lock();
        let from = self.path(&state, head.node)?.join(old);
        let to = self.path(&state, folder)?.join(new);
        let replaced = to.symlink_metadata().is_ok();
        let kept = replaced.then(|| self.set_aside(&mut state, &to)).transpose()?;
        std::fs::rename(&from, &to)?;
        self.found(&mut state, folder, new, &to)?;
        let name = Name::Renamed { from, to, kept };
        state.journal.name(vec![head.node, folder], name);
        Ok(Reply::done())
    }

    fn link(&self, folder: u64, body: &mut Request<'_>) -> io::Result<Reply> {
        self.powered()?;
        let node = body.u64().ok_or_else(malformed)?;
        let name = body.name().ok_or_else(malformed)?;
        let mut state = self.state.lock();
        let path = self.path(&state, folder)?.join(name);
        std::fs::hard_link(self.path(&state, node)?, &path)?;
        let of = path.symlink_metadata()?;
        state.journal.name(vec![folder], Name::Made(path));
        Ok(Reply::entry(node, &of))
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "this thread belongs to the disk, and nothing here is simulated"
)]
fn wait(time: Duration) {
    std::thread::sleep(time);
}
