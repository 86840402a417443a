//! The kernel's FUSE protocol, as much of it as controllers need: requests taken apart, replies put together. All numbers
//! are in this machine's order.
//!
//! Written out here because the libraries for it change the features of `libc`, for which the whole workspace, RocksDB
//! with it, would be compiled a second time; and it is small.

use std::ffi::OsStr;
use std::fs::Metadata;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;

/// Largest payload of a read or write.
pub const LARGEST: usize = 1 << 20;
/// Bytes that a request may have at most.
pub const REQUEST: usize = LARGEST + 4096;

/// Numbers of requests.
pub mod opcode {
    pub const LOOKUP: u32 = 1;
    pub const FORGET: u32 = 2;
    pub const GETATTR: u32 = 3;
    pub const SETATTR: u32 = 4;
    pub const MKDIR: u32 = 9;
    pub const UNLINK: u32 = 10;
    pub const RMDIR: u32 = 11;
    pub const RENAME: u32 = 12;
    pub const LINK: u32 = 13;
    pub const OPEN: u32 = 14;
    pub const READ: u32 = 15;
    pub const WRITE: u32 = 16;
    pub const STATFS: u32 = 17;
    pub const RELEASE: u32 = 18;
    pub const FSYNC: u32 = 20;
    pub const FLUSH: u32 = 25;
    pub const INIT: u32 = 26;
    pub const OPENDIR: u32 = 27;
    pub const READDIR: u32 = 28;
    pub const RELEASEDIR: u32 = 29;
    pub const FSYNCDIR: u32 = 30;
    pub const CREATE: u32 = 35;
    pub const INTERRUPT: u32 = 36;
    pub const DESTROY: u32 = 38;
    pub const BATCH_FORGET: u32 = 42;
    pub const FALLOCATE: u32 = 43;
    pub const RENAME2: u32 = 45;
}

/// Which attributes a request sets.
pub const SET_MODE: u32 = 1;
pub const SET_SIZE: u32 = 1 << 3;

/// Files are read and written without the kernel's cache: what is lost or damaged is so at once.
const DIRECT_IO: u32 = 1;

/// What the requests begin with.
#[derive(Debug, Clone, Copy)]
pub struct Head {
    /// What is asked.
    pub opcode: u32,
    /// Names the request in its reply.
    pub unique: u64,
    /// The file or folder that it is about.
    pub node: u64,
}

/// A request, read from the front.
#[derive(Debug)]
pub struct Request<'a> {
    rest: &'a [u8],
}

impl<'a> Request<'a> {
    /// Takes the head off.
    pub fn new(bytes: &'a [u8]) -> Option<(Head, Request<'a>)> {
        let mut request = Request { rest: bytes };
        let _length = request.u32()?;
        let opcode = request.u32()?;
        let unique = request.u64()?;
        let node = request.u64()?;
        // Who asks: of no interest.
        request.skip(16)?;
        Some((Head { opcode, unique, node }, request))
    }

    /// Passes over so many bytes.
    pub fn skip(&mut self, bytes: usize) -> Option<()> {
        self.bytes(bytes).map(drop)
    }

    /// Takes so many bytes.
    pub fn bytes(&mut self, bytes: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(bytes)?;
        self.rest = rest;
        Some(taken)
    }

    /// Takes a number.
    pub fn u32(&mut self) -> Option<u32> {
        self.bytes(4)?.try_into().ok().map(u32::from_ne_bytes)
    }

    /// Takes a large number.
    pub fn u64(&mut self) -> Option<u64> {
        self.bytes(8)?.try_into().ok().map(u64::from_ne_bytes)
    }

    /// Takes a name, which ends with a zero.
    pub fn name(&mut self) -> Option<&'a OsStr> {
        let end = self.rest.iter().position(|byte| *byte == 0)?;
        let name = self.bytes(end)?;
        self.skip(1)?;
        Some(OsStr::from_bytes(name))
    }
}

/// A reply without its head.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Reply(pub Vec<u8>);

impl Reply {
    /// Nothing but that it was done.
    pub fn done() -> Reply {
        Reply::default()
    }

    fn u16(mut self, value: u16) -> Reply {
        self.0.extend(value.to_ne_bytes());
        self
    }

    fn u32(mut self, value: u32) -> Reply {
        self.0.extend(value.to_ne_bytes());
        self
    }

    fn u64(mut self, value: u64) -> Reply {
        self.0.extend(value.to_ne_bytes());
        self
    }

    fn zeros(mut self, bytes: usize) -> Reply {
        self.0.resize(self.0.len() + bytes, 0);
        self
    }

    /// What is agreed upon at the beginning: protocol 7.31.
    pub fn init(readahead: u32) -> Reply {
        // Reads at a time, large writes, folders looked into at a time, requests of many pages.
        let flags = 1 | 1 << 5 | 1 << 18 | 1 << 22;
        let reply = Reply::default().u32(7).u32(31).u32(readahead).u32(flags);
        let reply = reply.u16(64).u16(48).u32(LARGEST as u32).u32(1);
        reply.u16((LARGEST / 4096) as u16).u16(0).zeros(32)
    }

    fn attributes(self, node: u64, of: &Metadata) -> Reply {
        let reply = self.u64(node).u64(of.size()).u64(of.blocks());
        let reply = reply
            .u64(of.atime() as u64)
            .u64(of.mtime() as u64)
            .u64(of.ctime() as u64);
        let reply = reply.u32(of.atime_nsec() as u32).u32(of.mtime_nsec() as u32);
        let reply = reply.u32(of.ctime_nsec() as u32).u32(of.mode());
        let reply = reply.u32(of.nlink() as u32).u32(of.uid()).u32(of.gid());
        reply.u32(0).u32(4096).u32(0)
    }

    /// A file or folder that was found or made. The kernel is to ask again each time.
    pub fn entry(node: u64, of: &Metadata) -> Reply {
        Reply::default().u64(node).zeros(32).attributes(node, of)
    }

    /// Attributes alone.
    pub fn attribute(node: u64, of: &Metadata) -> Reply {
        Reply::default().zeros(16).attributes(node, of)
    }

    /// An open file.
    pub fn opened(self, handle: u64) -> Reply {
        self.u64(handle).u32(DIRECT_IO).u32(0)
    }

    /// An open folder.
    pub fn folder(handle: u64) -> Reply {
        Reply::default().u64(handle).zeros(8)
    }

    /// So many bytes were written.
    pub fn written(bytes: u32) -> Reply {
        Reply::default().u32(bytes).u32(0)
    }

    /// How full the disk is.
    pub fn space(of: &rustix::fs::StatVfs) -> Reply {
        let reply = Reply::default().u64(of.f_blocks).u64(of.f_bfree).u64(of.f_bavail);
        let reply = reply.u64(of.f_files).u64(of.f_ffree).u32(of.f_bsize as u32);
        reply.u32(255).u32(of.f_frsize as u32).zeros(28)
    }

    /// One more entry of a folder, if there is room for it within so many bytes. `next`: where to go on after it.
    pub fn list(&mut self, node: u64, next: u64, kind: u32, name: &OsStr, room: usize) -> bool {
        let length = (24 + name.len()).next_multiple_of(8);
        if self.0.len() + length > room {
            return false;
        }
        let entry = Reply::default()
            .u64(node)
            .u64(next)
            .u32(name.len() as u32)
            .u32(kind);
        self.0.extend(entry.0);
        self.0.extend(name.as_bytes());
        self.0.resize(self.0.len() + length - 24 - name.len(), 0);
        true
    }

    /// The whole message. `error`: 0, or a positive number of the C library's.
    pub fn message(self, unique: u64, error: i32) -> Vec<u8> {
        let length = 16 + self.0.len() as u32;
        let mut message = Reply::default().u32(length).u32((-error) as u32).u64(unique).0;
        message.extend(self.0);
        message
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_come_apart_and_replies_have_the_kernel_s_sizes() {
        let mut bytes = Vec::new();
        bytes.extend(48_u32.to_ne_bytes());
        bytes.extend(opcode::LOOKUP.to_ne_bytes());
        bytes.extend(7_u64.to_ne_bytes());
        bytes.extend(1_u64.to_ne_bytes());
        bytes.extend([0; 16]);
        bytes.extend(b"name\0");
        let (head, mut request) = Request::new(&bytes).expect("whole");
        assert_eq!((head.opcode, head.unique, head.node), (opcode::LOOKUP, 7, 1));
        assert_eq!(request.name(), Some(OsStr::new("name")));
        assert_eq!(request.u32(), None);
        assert!(Request::new(&bytes[..30]).is_none());

        let here = std::fs::metadata(".").expect("there");
        assert_eq!(Reply::init(0).0.len(), 64);
        assert_eq!(Reply::entry(2, &here).0.len(), 128);
        assert_eq!(Reply::attribute(2, &here).0.len(), 104);
        assert_eq!(Reply::done().opened(1).0.len(), 16);
        assert_eq!(Reply::folder(1).0.len(), 16);
        let space = rustix::fs::statvfs(".").expect("there");
        assert_eq!(Reply::space(&space).0.len(), 80);
        let mut list = Reply::done();
        assert!(list.list(2, 1, 8, OsStr::new("abc"), 100));
        assert_eq!(list.0.len(), 32);
        assert!(!list.list(2, 1, 8, OsStr::new("abc"), 60));
        let message = Reply::written(3).message(9, 0);
        assert_eq!(message[..4], 24_u32.to_ne_bytes());
    }
}
