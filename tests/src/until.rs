//! Waiting for a condition, with a deadline and a name: no test sleeps for luck.

use std::future::Future;
use std::time::Duration;

use anyhow::{Result, bail};
use tokio::time::{Instant, MissedTickBehavior, interval};

/// Polls `check` until it gives `Ok(Some(_))`; fails with the last thing it said.
pub async fn until<T, F, Fut>(what: &str, limit: Duration, mut check: F) -> Result<T>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<Option<T>>>,
{
    let end = Instant::now() + limit;
    let mut ticker = interval(Duration::from_millis(50));
    ticker.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last = String::from("not yet");
    while Instant::now() < end {
        match check().await {
            Ok(Some(value)) => return Ok(value),
            Ok(None) => {}
            Err(error) => last = format!("{error:#}"),
        }
        ticker.tick().await;
    }
    bail!("{what}: still not so after {limit:?} ({last})")
}
