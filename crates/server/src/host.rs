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
            fatal: Arc::new(exit),
        }
    }
}

fn exit(text: &str) {
    tracing::error!(text, "fatal: the process stops");
    eprintln!("holdfast: fatal: {text}");
    std::process::exit(EXIT_FATAL);
}
