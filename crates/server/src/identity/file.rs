//! Small files of `key value` lines with a checksum, replaced atomically and synced.

use std::fmt::Display;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::xxh3_64;

use super::{FORMAT, IdentityError};

/// One file's lines.
#[derive(Debug)]
pub(super) struct Record {
    path: PathBuf,
    kind: String,
    lines: Vec<(String, String)>,
}

impl Record {
    pub(super) fn new(kind: &str) -> Record {
        Record {
            path: PathBuf::new(),
            kind: kind.to_owned(),
            lines: Vec::new(),
        }
    }

    pub(super) fn set(&mut self, key: &str, value: impl Display) {
        self.lines.push((key.to_owned(), value.to_string()));
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.lines.iter().any(|(name, _)| name == key)
    }

    pub(super) fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.lines
            .iter()
            .filter(move |(name, _)| name == key)
            .map(|(_, value)| value.as_str())
    }

    pub(super) fn number(&self, key: &str, radix: u32) -> Result<u64, IdentityError> {
        let value = self
            .all(key)
            .next()
            .and_then(|value| u64::from_str_radix(value, radix).ok());
        value.ok_or_else(|| damaged(&self.path, &format!("'{key}' is missing or no number")))
    }

    /// Reads a file; `None` if there is none.
    pub(super) fn read(path: &Path) -> Result<Option<Record>, IdentityError> {
        let text = match std::fs::read(path) {
            Ok(bytes) => String::from_utf8(bytes).map_err(|_| damaged(path, "not text"))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => {
                return Err(IdentityError::Io {
                    doing: "read",
                    path: path.to_owned(),
                    source,
                });
            }
        };
        // The format stands first and is never under the checksum's rules of another version.
        let head = text.lines().next().unwrap_or_default();
        let format = head
            .strip_prefix("holdfast ")
            .and_then(|rest| rest.rsplit_once(' '));
        let Some((kind, format)) = format.and_then(|(kind, n)| Some((kind, n.parse::<u64>().ok()?))) else {
            return Err(damaged(path, "the first line is not that of a holdfast file"));
        };
        if format != FORMAT {
            return Err(IdentityError::Version {
                path: path.to_owned(),
                found: format,
            });
        }
        let Some((body, sum)) = text.trim_end().rsplit_once("\nchecksum ") else {
            return Err(damaged(path, "no checksum: cut short?"));
        };
        if u64::from_str_radix(sum, 16).ok() != Some(xxh3_64(format!("{body}\n").as_bytes())) {
            return Err(damaged(path, "checksum does not match"));
        }
        let lines = body.lines().skip(1).filter_map(|line| line.split_once(' '));
        let lines = lines
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect();
        Ok(Some(Record {
            path: path.to_owned(),
            kind: kind.to_owned(),
            lines,
        }))
    }

    /// Replaces a file: new content synced beside it, renamed over it, directory synced.
    pub(super) fn write(&self, path: &Path) -> Result<(), IdentityError> {
        let mut body = format!("holdfast {} {FORMAT}\n", self.kind);
        for (key, value) in &self.lines {
            body.push_str(&format!("{key} {value}\n"));
        }
        let text = format!("{body}checksum {:016x}\n", xxh3_64(body.as_bytes()));
        let replace = || -> io::Result<()> {
            let beside = path.with_extension("new");
            let mut file = File::create(&beside)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            std::fs::rename(&beside, path)?;
            sync_parent(path)
        };
        replace().map_err(|source| IdentityError::Io {
            doing: "write",
            path: path.to_owned(),
            source,
        })
    }
}

/// Removes a file if it is there, durably.
pub(super) fn remove(path: &Path) -> Result<(), IdentityError> {
    match std::fs::remove_file(path).and_then(|()| sync_parent(path)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(IdentityError::Io {
            doing: "remove",
            path: path.to_owned(),
            source: error,
        }),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

fn damaged(path: &Path, text: &str) -> IdentityError {
    IdentityError::Damaged {
        path: path.to_owned(),
        text: text.to_owned(),
    }
}
