//! What a controller stands on: the outside, its disk, and the end of its process.

use std::sync::Arc;

use env::Env;
use storage::rocks::{DirDisk, Options};
use storage::{Disk, Fatal};

use crate::config::Config;

/// Exit code after a failure that must not be survived (failed sync, broken promise); the text is on stderr.
pub const EXIT_FATAL: i32 = 70;

/// Where a controller lives.
#[derive(Clone)]
pub struct Host {
    /// Clock, randomness, network, threads.
    pub env: Env,
    /// What lasts.
    pub disk: Arc<dyn Disk>,
    /// Says why and ends the process at once: no promise can be kept any more.
    pub fatal: Fatal,
}

impl Host {
    /// The configured data directory, in this process.
    pub fn production(config: &Config, env: Env) -> Host {
        let options = Options {
            cache_bytes: config.storage.cache_bytes,
            state_buffers_bytes: config.storage.write_buffers_bytes,
            ..Options::default()
        };
        Host {
            env,
            disk: Arc::new(DirDisk::new(&config.node.data_dir, options)),
            fatal: Arc::new(|text: &str| exit(text)),
        }
    }
}

/// Neither stream is buffered here. Not by `std::process::exit`: that runs what C++ has registered for the end of the
/// process, and RocksDB's part of it waits for compactions, while the node goes on answering its peers.
#[expect(unsafe_code, reason = "_exit(2)")]
fn exit(text: &str) -> ! {
    tracing::error!(text, "fatal: the process stops");
    eprintln!("holdfast: fatal: {text}");
    // SAFETY: it takes a number, touches nothing of this process, and does not return.
    unsafe { libc::_exit(EXIT_FATAL) }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    const CHILD: &str = "HOLDFAST_HOST_CHILD";

    /// What C++ registers for the end of a process stands in here: it would end with another code.
    #[expect(unsafe_code, reason = "_exit(2)")]
    extern "C" fn at_exit() {
        // SAFETY: as in `exit`.
        unsafe { libc::_exit(1) }
    }

    /// The child's whole life. Does nothing when run as an ordinary test.
    #[test]
    #[expect(unsafe_code, reason = "atexit(3)")]
    fn child_process() {
        if std::env::var_os(CHILD).is_some() {
            // SAFETY: the function lives as long as the process, and unwinds nothing.
            unsafe {
                libc::atexit(at_exit);
            }
            exit("on purpose");
        }
    }

    #[test]
    fn a_fatal_end_waits_for_nothing() {
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", "host::tests::child_process", "--nocapture"]);
        let ended = child.env(CHILD, "1").output().unwrap();
        assert_eq!(ended.status.code(), Some(EXIT_FATAL), "{ended:?}");
        let said = String::from_utf8_lossy(&ended.stderr);
        assert!(said.contains("holdfast: fatal: on purpose"), "{said}");
    }
}
