//! The small files in memory, and the disk as a controller sees it.

use std::any::Any;
use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Weak};

use super::disk::MemoryDisk;
use crate::disk::{Disk, Finish, OpenError, Owner, Stores};
use crate::{Fatal, damaged};

/// Content by name. Nothing is ever half replaced, and nothing replaced is lost: that is the contract.
#[derive(Default)]
pub(super) struct Files {
    contents: BTreeMap<String, Vec<u8>>,
    locked: Weak<()>,
    owner: Option<Owner>,
}

impl Files {
    /// The process is gone, and its lock with it.
    pub(super) fn unlock(&mut self) {
        self.locked = Weak::new();
    }
}

impl Disk for MemoryDisk {
    fn place(&self) -> &Path {
        Path::new("memory")
    }

    fn lock(&self) -> io::Result<Box<dyn Any + Send + Sync>> {
        self.with_any(|disk| {
            if disk.files.locked.strong_count() > 0 {
                return Err(io::Error::from(io::ErrorKind::ResourceBusy));
            }
            let lock = Arc::new(());
            disk.files.locked = Arc::downgrade(&lock);
            Ok(Box::new(lock) as Box<dyn Any + Send + Sync>)
        })
    }

    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        Ok(self.with_any(|disk| disk.files.contents.get(name).cloned()))
    }

    fn replace(&self, name: &str, content: &[u8]) -> io::Result<()> {
        self.with_any(|disk| match disk.sync_error() {
            Some(error) => Err(io::Error::other(error)),
            None => {
                disk.files.contents.insert(name.to_owned(), content.to_vec());
                Ok(())
            }
        })
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.with_any(|disk| match disk.sync_error() {
            Some(error) => Err(io::Error::other(error)),
            None => {
                disk.files.contents.remove(name);
                Ok(())
            }
        })
    }

    fn has_log(&self) -> bool {
        self.with_any(|disk| disk.files.owner.is_some())
    }

    fn is_used(&self) -> bool {
        self.has_log()
    }

    /// Whatever is durable at once calls back at once, on the caller's thread; `_finish` has nothing to do.
    fn open(self: Arc<Self>, owner: Owner, _finish: Finish, fatal: Fatal) -> Result<Stores, OpenError> {
        let found = self.with_any(|disk| *disk.files.owner.get_or_insert(owner));
        if found != owner {
            return Err(OpenError {
                what: "the log",
                source: damaged(format!(
                    "it belongs to node {} of cluster {}",
                    found.node, found.cluster
                )),
            });
        }
        Ok(Stores {
            log: self.log(fatal),
            partitions: self.stores(),
        })
    }
}
