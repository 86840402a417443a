//! The production disk: a directory.
//!
//! ```text
//! DIR/LOCK         held by the running process
//! DIR/NAME         small files, replaced by renaming
//! DIR/log          the log's database
//! DIR/partitions   the partitions' databases
//! ```

use std::any::Any;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Log, Options, Partitions};
use crate::disk::{Disk, Finish, OpenError, Owner, Stores};
use crate::lock::DirLock;
use crate::{Fatal, partitions_path};

/// A directory, which need not be there yet.
pub struct DirDisk {
    path: PathBuf,
    options: Options,
}

impl DirDisk {
    /// The directory at `path`; its stores get `options`.
    pub fn new(path: &Path, options: Options) -> DirDisk {
        DirDisk {
            path: path.to_owned(),
            options,
        }
    }

    fn log(&self) -> PathBuf {
        self.path.join("log")
    }
}

impl Disk for DirDisk {
    fn place(&self) -> &Path {
        &self.path
    }

    fn lock(&self) -> io::Result<Box<dyn Any + Send + Sync>> {
        Ok(Box::new(DirLock::acquire(&self.path)?))
    }

    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        match std::fs::read(self.path.join(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            read => read.map(Some),
        }
    }

    fn replace(&self, name: &str, content: &[u8]) -> io::Result<()> {
        let path = self.path.join(name);
        let beside = path.with_extension("new");
        let mut file = File::create(&beside)?;
        file.write_all(content)?;
        file.sync_all()?;
        std::fs::rename(&beside, path)?;
        self.sync()
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        match std::fs::remove_file(self.path.join(name)) {
            Ok(()) => self.sync(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn has_log(&self) -> bool {
        self.log().join("CURRENT").exists()
    }

    fn is_used(&self) -> bool {
        self.log().exists() || partitions_path(&self.path).exists()
    }

    fn open(self: Arc<Self>, owner: Owner, finish: Finish, fatal: Fatal) -> Result<Stores, OpenError> {
        let options = Options {
            owner: Some(owner),
            finish: Some(finish),
            ..self.options.clone()
        };
        let failed = |what| move |source| OpenError { what, source };
        let log = Log::open(&self.log(), options.clone(), fatal).map_err(failed("the log"))?;
        let partitions = Partitions::open(&partitions_path(&self.path), options)
            .map_err(failed("the partitions' state"))?;
        Ok(Stores { log, partitions })
    }
}

impl DirDisk {
    fn sync(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }
}
