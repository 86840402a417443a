//! Small files of `key value` lines with a checksum.

use std::fmt::Display;
use std::path::{Path, PathBuf};

use storage::Disk;
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

    /// The same, where less room is meant.
    pub(super) fn number_as<T: TryFrom<u64>>(&self, key: &str, radix: u32) -> Result<T, IdentityError> {
        let number = self.number(key, radix)?;
        T::try_from(number).map_err(|_| self.damaged(&format!("'{key}' is too large: {number}")))
    }

    /// What is in it cannot be.
    pub(super) fn damaged(&self, text: &str) -> IdentityError {
        damaged(&self.path, text)
    }

    /// Reads a file; `None` if there is none.
    pub(super) fn read(disk: &dyn Disk, name: &str) -> Result<Option<Record>, IdentityError> {
        let path = &disk.place().join(name);
        let text = match disk.read(name) {
            Ok(Some(bytes)) => String::from_utf8(bytes).map_err(|_| damaged(path, "not text"))?,
            Ok(None) => return Ok(None),
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
        if kind != name {
            return Err(damaged(path, &format!("it is the file {kind:?} of a node")));
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

    /// Replaces a file.
    pub(super) fn write(&self, disk: &dyn Disk, name: &str) -> Result<(), IdentityError> {
        let mut body = format!("holdfast {} {FORMAT}\n", self.kind);
        for (key, value) in &self.lines {
            body.push_str(&format!("{key} {value}\n"));
        }
        let text = format!("{body}checksum {:016x}\n", xxh3_64(body.as_bytes()));
        disk.replace(name, text.as_bytes())
            .map_err(|source| IdentityError::Io {
                doing: "write",
                path: disk.place().join(name),
                source,
            })
    }
}

fn damaged(path: &Path, text: &str) -> IdentityError {
    IdentityError::Damaged {
        path: path.to_owned(),
        text: text.to_owned(),
    }
}
