//! Where work is done that keeps its thread: reads of a disk, long scans.

use std::io;

/// Who does such work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blocking {
    /// Threads that are kept for it: those that carry heartbeats go on meanwhile.
    Pool,
    /// The caller's own thread. For a simulation, which has only that one, and whose time stands still meanwhile.
    Inline,
}

impl Blocking {
    /// Does `work`. The error is that it panicked.
    pub async fn run<T: Send + 'static>(self, work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
        match self {
            Blocking::Pool => match tokio::task::spawn_blocking(work).await {
                Ok(done) => Ok(done),
                // The runtime is being taken down, and this task with it.
                Err(stopped) if stopped.is_cancelled() => std::future::pending().await,
                Err(panicked) => Err(io::Error::other(panicked)),
            },
            Blocking::Inline => {
                tokio::task::yield_now().await;
                Ok(work())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn both_do_it_and_only_one_leaves_the_thread() {
        let here = std::thread::current().id();
        let there = || std::thread::current().id();
        assert_ne!(Blocking::Pool.run(there).await.unwrap(), here);
        assert_eq!(Blocking::Inline.run(there).await.unwrap(), here);
        let error = Blocking::Pool.run(|| panic!("on purpose")).await.unwrap_err();
        assert!(error.to_string().contains("on purpose"), "{error}");
    }
}
