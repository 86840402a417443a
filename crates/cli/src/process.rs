//! Processes: signals, pid files, and a child that does not outlive its parent. The only file of this crate with
//! `unsafe`: the standard library has no call for signals to another process or for the parent-death signal.

use std::io::{self, Write};
use std::path::Path;

/// Asks a process to end (SIGTERM).
pub const TERMINATE: i32 = libc::SIGTERM;
/// Ends a process at once (SIGKILL).
pub const KILL: i32 = libc::SIGKILL;

/// Sends a signal. A process that is gone is an error of kind `NotFound`.
#[expect(unsafe_code, reason = "kill(2)")]
pub fn signal(pid: u32, signal: i32) -> io::Result<()> {
    let pid = libc::pid_t::try_from(pid).map_err(io::Error::other)?;
    if pid <= 1 {
        // 0 and -1 would mean whole groups.
        return Err(io::Error::other("not a process to signal"));
    }
    // SAFETY: takes two integers and touches no memory of ours.
    let failed = unsafe { libc::kill(pid, signal) } != 0;
    match failed {
        false => Ok(()),
        true => {
            let error = io::Error::last_os_error();
            let gone = error.raw_os_error() == Some(libc::ESRCH);
            Err(if gone {
                io::Error::from(io::ErrorKind::NotFound)
            } else {
                error
            })
        }
    }
}

/// Lets the child get SIGTERM when the thread that starts it ends, even by kill -9 of its process.
#[expect(unsafe_code, reason = "prctl(2) between fork and exec")]
pub fn tie_to_parent(command: &mut tokio::process::Command) {
    let parent = std::process::id();
    let tie = move || {
        // SAFETY: prctl and getppid are async-signal-safe and touch no memory of ours.
        let (tied, now) = unsafe {
            (
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM),
                libc::getppid(),
            )
        };
        if tied != 0 {
            return Err(io::Error::last_os_error());
        }
        // The parent may have died before the call above.
        if u32::try_from(now) != Ok(parent) {
            return Err(io::Error::from_raw_os_error(libc::ESRCH));
        }
        Ok(())
    };
    // SAFETY: `tie` runs between fork and exec and makes only the two calls above; it neither allocates nor locks.
    unsafe { command.pre_exec(tie) };
}

/// Writes a process id whole: a reader sees the old content, the new, or no file.
pub fn write_pid(path: &Path, pid: u32) -> io::Result<()> {
    let fresh = path.with_extension(format!("new-{}", std::process::id()));
    let mut file = std::fs::File::create(&fresh)?;
    writeln!(file, "{pid}")?;
    file.sync_all()?;
    std::fs::rename(&fresh, path)
}

/// The process id in a file, if there is one.
pub fn read_pid(path: &Path) -> Option<u32> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// Removes a pid file unless it names another process by now.
pub fn remove_pid(path: &Path, pid: u32) {
    if read_pid(path) == Some(pid) {
        let _ = std::fs::remove_file(path);
    }
}

/// Whether `pid` runs (and is no zombie) with `word` among its arguments.
pub fn runs_with(pid: u32, word: &Path) -> bool {
    let Ok(line) = std::fs::read(format!("/proc/{pid}/cmdline")) else {
        return false;
    };
    line.split(|byte| *byte == 0)
        .any(|argument| argument == word.as_os_str().as_encoded_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pid_files_are_replaced_whole_and_removed_by_their_owner_only() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("pid");
        assert_eq!(read_pid(&path), None);
        write_pid(&path, 17).expect("written");
        write_pid(&path, 18).expect("written");
        assert_eq!(read_pid(&path), Some(18));
        remove_pid(&path, 17);
        assert_eq!(read_pid(&path), Some(18));
        remove_pid(&path, 18);
        assert!(!path.exists());
        assert_eq!(std::fs::read_dir(dir.path()).expect("listed").count(), 0);
    }

    #[test]
    fn whole_groups_are_never_signalled() {
        assert!(signal(0, 0).is_err() && signal(1, 0).is_err() && signal(u32::MAX, 0).is_err());
        assert!(signal(std::process::id(), 0).is_ok());
    }
}
