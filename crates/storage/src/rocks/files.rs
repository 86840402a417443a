//! File steps that must survive a power cut: each names what it makes durable.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use crate::{damaged, seal};

/// Makes the names in `dir` durable.
pub(super) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Creates `dir` and what is above it, durably below `root`.
pub(super) fn create_dir(root: &Path, dir: &Path) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    let mut at = Some(dir);
    while let Some(path) = at.filter(|path| path.starts_with(root)) {
        sync_dir(path)?;
        at = path.parent();
    }
    Ok(())
}

/// Writes a small checksummed file so that after a crash it has either the old or the new content.
pub(super) fn write_sealed(path: &Path, content: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("tmp");
    let mut file = File::create(&temporary)?;
    file.write_all(&seal::sealed(content))?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    path.parent().map_or(Ok(()), sync_dir)
}

/// Reads what [`write_sealed`] wrote; `None` if there is no such file.
pub(super) fn read_sealed(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    match seal::unseal(&bytes) {
        Some(content) => Ok(Some(content.to_vec())),
        None => Err(damaged(format!("{} fails its checksum", path.display()))),
    }
}

/// Removes a directory if it is there.
pub(super) fn remove_dir(dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// Names in `dir`, sorted; none if it does not exist.
pub(super) fn names(dir: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut names = Vec::new();
    for entry in entries {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}
