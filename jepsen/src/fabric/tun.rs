//! One TUN device: what its host sends is read here, what is written here its host receives. With
//! `unsafe`, since the standard library has no ioctl.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;

/// Makes the device `name` in the namespace of this process, and keeps it as long as the file is open. It may be moved
/// to another namespace; the file goes on carrying its packets.
pub fn open(name: &str) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open("/dev/net/tun")?;
    attach(&file, name)?;
    Ok(file)
}

#[expect(unsafe_code, reason = "ioctl(2): TUNSETIFF")]
fn attach(file: &File, name: &str) -> io::Result<()> {
    // The kernel's struct ifreq: a name, ended by a zero, then the flags.
    let mut request = [0_u8; 40];
    if name.len() >= libc::IFNAMSIZ {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "the name is too long",
        ));
    }
    request[..name.len()].copy_from_slice(name.as_bytes());
    let flags = (libc::IFF_TUN | libc::IFF_NO_PI) as u16;
    request[libc::IFNAMSIZ..libc::IFNAMSIZ + 2].copy_from_slice(&flags.to_ne_bytes());
    // SAFETY: the descriptor is open, and the kernel reads and writes 40 bytes at most, which `request` has.
    match unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, request.as_mut_ptr()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
