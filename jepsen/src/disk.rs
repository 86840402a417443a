//! The disk of one controller: small, in memory, gone with the run. Behind what the controller sees stands a file system
//! of our own, which loses what was not synced, fails, dawdles and flips bits when told to.
//!
//! ```text
//! node-N/          a file system in memory, of a limited size
//!        data/     what the controller sees: FUSE
//!        behind/   what is there
//!        kept/     what was removed or replaced, until that is synced
//!        ballast   fills the disk
//! ```

mod files;
pub mod trouble;
mod undo;
mod wire;

use std::ffi::CString;
use std::fs::File;
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use rustix::mount::{MountFlags, mount};

use crate::system;
use files::Files;
use trouble::Trouble;
use wire::{REQUEST, Reply, Request};
use workload::numbers::Numbers;

/// Threads of a disk: one that dawdles over a sync does not hold up the others.
const THREADS: usize = 3;

/// A disk is filled at once but for so much, and then bit by bit: others write meanwhile.
const COARSE: u64 = 4 << 20;
/// The bits.
const FINE: usize = 64 << 10;

/// A disk.
#[derive(Debug)]
pub struct Disk {
    dir: PathBuf,
    data: PathBuf,
    files: Arc<Files>,
}

impl Disk {
    /// Makes the disk of a node, of so many bytes, below a folder.
    pub fn new(below: &Path, node: u64, seed: u64, bytes: u64) -> Result<Disk> {
        let dir = below.join(format!("node-{node}"));
        std::fs::create_dir_all(&dir).context("cannot make a folder for a disk")?;
        let size = format!("size={bytes},mode=0755");
        system::run(
            "mount",
            &["-t", "tmpfs", "-o", &size, "tmpfs", &dir.to_string_lossy()],
        )?;
        let [data, behind, kept] = ["data", "behind", "kept"].map(|name| dir.join(name));
        for made in [&data, &behind, &kept] {
            std::fs::create_dir(made).context("cannot make a folder on a disk")?;
        }
        let files = Arc::new(Files::new(behind, kept, Trouble::new(seed, node)));
        serve(&files, &data)?;
        Ok(Disk { dir, data, files })
    }

    /// The folder that the controller is given.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// Loses what was not synced. The process that wrote it is dead. Returns how many writes and changes of names.
    pub fn lose_power(&self, numbers: &mut Numbers) -> (u64, u64) {
        self.files.lose_power(numbers)
    }

    /// Works again.
    pub fn regain_power(&self) {
        self.files.regain_power();
    }

    /// Changes what goes wrong, or looks at it.
    pub fn trouble<T>(&self, change: impl FnOnce(&mut Trouble) -> T) -> T {
        change(&mut self.files.trouble.lock())
    }

    /// Fills the disk but for so many bytes.
    pub fn fill(&self, spare: u64) -> Result<()> {
        let free = self.free()?;
        let mut file = File::create(self.ballast()).context("cannot fill a disk")?;
        let most = free.saturating_sub(spare + COARSE);
        if most > 0 {
            let whole = rustix::fs::FallocateFlags::empty();
            rustix::fs::fallocate(&file, whole, 0, most).context("cannot fill a disk")?;
            file.seek(SeekFrom::End(0)).context("cannot fill a disk")?;
        }
        while self.free()? > spare {
            match file.write_all(&[0; FINE]) {
                Err(error) if error.kind() == ErrorKind::StorageFull => break,
                written => written.context("cannot fill a disk")?,
            }
        }
        Ok(())
    }

    /// Bytes that are left.
    pub fn free(&self) -> Result<u64> {
        let space = rustix::fs::statvfs(&self.dir).context("cannot look at a disk")?;
        Ok(space.f_bavail * space.f_frsize)
    }

    /// Takes the ballast away.
    pub fn empty(&self) -> Result<()> {
        match std::fs::remove_file(self.ballast()) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error).context("cannot empty a disk"),
            _ => Ok(()),
        }
    }

    fn ballast(&self) -> PathBuf {
        self.dir.join("ballast")
    }
}

/// Mounts the files and serves them until the mount is gone, which is when this process ends.
fn serve(files: &Arc<Files>, at: &Path) -> Result<()> {
    let device = File::options().read(true).write(true).open("/dev/fuse");
    let device = Arc::new(device.context("/dev/fuse is needed")?);
    let data = format!(
        "fd={},rootmode=40000,user_id=0,group_id=0,allow_other",
        device.as_raw_fd()
    );
    let data = CString::new(data).context("mount options")?;
    mount(
        "holdfast-disk",
        at,
        "fuse",
        MountFlags::empty(),
        Some(data.as_c_str()),
    )
    .context("cannot mount a disk")?;
    for _ in 0..THREADS {
        let (files, device) = (files.clone(), device.clone());
        std::thread::Builder::new()
            .name("disk".into())
            .spawn(move || attend(&files, &device))
            .context("cannot start a disk")?;
    }
    Ok(())
}

/// One request after the other.
fn attend(files: &Files, device: &File) {
    let mut bytes = vec![0; REQUEST];
    loop {
        let length = match (&*device).read(&mut bytes) {
            Ok(length) => length,
            // Interrupted, or the request was withdrawn before it was read.
            Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::NotFound) => continue,
            Err(_) => return,
        };
        let Some((head, request)) = Request::new(&bytes[..length]) else {
            return;
        };
        let message = match files.answer(head, request) {
            Ok(None) => continue,
            Ok(Some(reply)) => reply.message(head.unique, 0),
            Err(error) => Reply::done().message(head.unique, error.raw_os_error().unwrap_or(libc::EIO)),
        };
        // Whoever asked may be gone by now.
        let _ = (&*device).write(&message);
    }
}
