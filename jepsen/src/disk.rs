//! The disk of one controller.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::system;

/// A disk: small, in memory, and gone with the run.
#[derive(Debug)]
pub struct Disk {
    data: PathBuf,
}

impl Disk {
    /// Makes the disk of a node, of so many bytes, below a folder.
    pub fn new(below: &Path, node: u64, bytes: u64) -> Result<Disk> {
        let dir = below.join(format!("node-{node}"));
        std::fs::create_dir_all(&dir).context("cannot make a folder for a disk")?;
        let dir_text = dir.to_string_lossy();
        let size = format!("size={bytes},mode=0755");
        system::run("mount", &["-t", "tmpfs", "-o", &size, "tmpfs", &dir_text])?;
        let data = dir.join("data");
        std::fs::create_dir_all(&data).context("cannot make a folder on a disk")?;
        Ok(Disk { data })
    }

    /// The folder that the controller is given.
    pub fn data(&self) -> &Path {
        &self.data
    }
}
