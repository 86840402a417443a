//! One process per data directory: an advisory lock, and the text of RocksDB's own lock made readable.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

/// Holds a directory for this process until dropped.
#[derive(Debug)]
pub struct DirLock {
    _file: File,
    path: PathBuf,
}

impl DirLock {
    /// Locks `dir/LOCK`, creating both if needed. `ResourceBusy` if another process holds it.
    pub fn acquire(dir: &Path) -> io::Result<DirLock> {
        create_dir(dir)?;
        let path = dir.join("LOCK");
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)?;
        match file.try_lock() {
            Ok(()) => Ok(DirLock { _file: file, path }),
            Err(TryLockError::WouldBlock) => Err(in_use(dir)),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// The locked file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Creates `dir` and what is above it, so that a power cut takes none of the names away that lead to it.
pub(crate) fn create_dir(dir: &Path) -> io::Result<()> {
    let holders = holders_of_new(dir);
    std::fs::create_dir_all(dir)?;
    holders
        .iter()
        .try_for_each(|holder| File::open(holder)?.sync_all())
}

/// The directories that hold the names which are to be created, innermost first.
fn holders_of_new(dir: &Path) -> Vec<&Path> {
    let missing = dir.ancestors().take_while(|path| !path.exists());
    let holders = missing.filter_map(Path::parent);
    holders
        .map(|holder| match holder.as_os_str().is_empty() {
            true => Path::new("."),
            false => holder,
        })
        .collect()
}

/// The error for a directory that someone else has open.
pub(crate) fn in_use(dir: &Path) -> io::Error {
    let text = format!(
        "{} is in use: another holdfast process has it open, stop that one first",
        dir.display()
    );
    io::Error::new(io::ErrorKind::ResourceBusy, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_directory_that_gets_a_name_is_synced() {
        let root = tempfile::tempdir().unwrap();
        let (at, dir) = (root.path(), root.path().join("a/b/c"));
        assert_eq!(
            holders_of_new(&dir),
            [at.join("a/b"), at.join("a"), at.to_owned()]
        );
        create_dir(&dir).unwrap();
        assert!(dir.is_dir());
        assert!(holders_of_new(&dir).is_empty());
        assert_eq!(holders_of_new(Path::new("not-there")), [Path::new(".")]);
        assert_eq!(holders_of_new(Path::new("not-there/b")).len(), 2);
    }

    #[test]
    fn second_lock_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let held = DirLock::acquire(dir.path()).unwrap();
        let error = DirLock::acquire(dir.path()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ResourceBusy);
        assert!(error.to_string().contains(&dir.path().display().to_string()));
        drop(held);
        DirLock::acquire(dir.path()).unwrap();
    }
}
