//! Progress of what takes long, on stderr: of a task in the cluster a bar on a terminal and plain lines else; of an
//! answer that does not come, what is waited for.

use crate::failure::{Failure, Result};
use client::{ProgressStream, v1};
use indicatif::{ProgressBar, ProgressStyle};
use std::future::Future;
use std::io::IsTerminal;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// What takes no longer is done in silence.
pub const SILENCE: Duration = Duration::from_secs(1);
/// Between one word of waiting and the next.
pub const AGAIN: Duration = Duration::from_secs(5);

/// Says what is waited for, once that takes long.
pub struct Waiting {
    begun: Instant,
    next: Instant,
}

impl Waiting {
    /// Begins now.
    pub fn new() -> Waiting {
        let begun = Instant::now();
        Waiting {
            begun,
            next: begun + SILENCE,
        }
    }

    /// Does `work`, of which `what` is said.
    pub async fn on<T>(&mut self, what: &str, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                biased;
                done = &mut work => return done,
                () = sleep_until(self.next) => {
                    eprintln!("waiting for {what} ({} s)", self.begun.elapsed().as_secs());
                    self.next = Instant::now() + AGAIN;
                }
            }
        }
    }
}

/// Follows a task to its end. Ctrl-C stops looking; the task goes on in the cluster.
pub async fn follow(what: &str, mut stream: ProgressStream) -> Result {
    let view = View::new(what);
    loop {
        let step = tokio::select! {
            step = stream.next() => step,
            _ = tokio::signal::ctrl_c() => {
                view.end();
                return Err(Failure::unavailable(format!("{what}: no longer watched"))
                    .advise("it goes on in the cluster; the same command joins it again"));
            }
        };
        match step {
            Ok(Some(step)) => view.step(&step),
            Ok(None) => {
                view.end();
                return Ok(());
            }
            Err(error) => {
                view.end();
                return Err(error.into());
            }
        }
    }
}

enum View {
    Bar(ProgressBar),
    Lines(String),
}

impl View {
    fn new(what: &str) -> View {
        if !std::io::stderr().is_terminal() {
            return View::Lines(what.to_owned());
        }
        let bar = ProgressBar::new(0);
        if let Ok(style) = ProgressStyle::with_template("{prefix} [{bar:30}] {pos}/{len} {msg}") {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_prefix(what.to_owned());
        View::Bar(bar)
    }

    fn step(&self, step: &v1::Progress) {
        match self {
            View::Bar(bar) => {
                bar.set_length(u64::from(step.total));
                bar.set_position(u64::from(step.done));
                bar.set_message(step.text.clone());
            }
            View::Lines(what) => eprintln!("{what}: {}/{} {}", step.done, step.total, step.text),
        }
    }

    fn end(&self) {
        match self {
            View::Bar(bar) => bar.finish_and_clear(),
            View::Lines(_) => {}
        }
    }
}
