//! Tokio, as openraft uses it, but for one thing: a sleep that is over at once ends at once. Tokio's timers count whole
//! milliseconds, and openraft pauses for one microsecond between two reports of its log's progress: each such pause
//! would take a thousand times as long, on leaders and followers, whenever two writes finish close together.
//!
//! And one more: the groups of a process tick together. Each group has a timer of its own that goes off many times a
//! second, at moments that openraft spreads on purpose; hundreds of groups would never let an idle process sleep, and
//! would send their heartbeats one by one instead of many in one message.

use std::fmt::{self, Debug};
use std::future::{Future, Ready, ready};
use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::future::Either;
use openraft::impls::TokioRuntime;
use openraft::{AsyncRuntime, Instant, OptionalSend};
use types::planted::{self, Planted};

/// A sleep no longer than this does not reach a timer: openraft's pause between two reports.
const BRIEF: Duration = Duration::from_micros(1);

/// How early [`Planted::EarlyTick`] wakes.
const EARLY: Duration = Duration::from_micros(20);

/// Looks at the clock while a brief sleep goes by: more than fit into it.
const LOOKS: usize = 256;

type Moment = <TokioRuntime as AsyncRuntime>::Instant;

/// Time between two moments at which groups tick, in microseconds.
static TICK_US: AtomicU64 = AtomicU64::new(1);

/// The first such moment.
static ORIGIN: OnceLock<Moment> = OnceLock::new();

/// From now on, groups of this process tick at moments that are `every` apart. Timers belong to the process: of several
/// nodes in one, the last decides.
pub(crate) fn tick_together(every: Duration) {
    TICK_US.store((every.as_micros() as u64).max(1), Ordering::Relaxed);
}

/// The first moment that is not before `deadline`, of those that are `every_us` apart.
fn common(deadline: Moment, every_us: u64) -> Moment {
    let origin = *ORIGIN.get_or_init(Moment::now);
    let since_us = deadline.saturating_duration_since(origin).as_micros() as u64;
    deadline.max(origin + Duration::from_micros(since_us.next_multiple_of(every_us)))
}

/// Whether a deadline has come, waiting for one that is very near. Never says so of one that has not: openraft's clock of
/// a group, woken early, would go round and tick until the time is there.
fn is_over(deadline: Moment) -> bool {
    for _ in 0..LOOKS {
        let now = Moment::now();
        if deadline <= now {
            return true;
        }
        if deadline > now + BRIEF {
            return false;
        }
        std::hint::spin_loop();
    }
    // Time stands still, as it does in a simulation while something runs.
    false
}

/// See the module.
pub struct Runtime(TokioRuntime);

impl Debug for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl AsyncRuntime for Runtime {
    type JoinError = <TokioRuntime as AsyncRuntime>::JoinError;
    type JoinHandle<T: OptionalSend + 'static> = <TokioRuntime as AsyncRuntime>::JoinHandle<T>;
    type Sleep = Either<Ready<()>, <TokioRuntime as AsyncRuntime>::Sleep>;
    type Instant = <TokioRuntime as AsyncRuntime>::Instant;
    type TimeoutError = <TokioRuntime as AsyncRuntime>::TimeoutError;
    type Timeout<R, T: Future<Output = R> + OptionalSend> = <TokioRuntime as AsyncRuntime>::Timeout<R, T>;
    type ThreadLocalRng = <TokioRuntime as AsyncRuntime>::ThreadLocalRng;
    type Mpsc = <TokioRuntime as AsyncRuntime>::Mpsc;
    type Watch = <TokioRuntime as AsyncRuntime>::Watch;
    type Oneshot = <TokioRuntime as AsyncRuntime>::Oneshot;
    type Mutex<T: OptionalSend + 'static> = <TokioRuntime as AsyncRuntime>::Mutex<T>;

    fn spawn<T>(future: T) -> Self::JoinHandle<T::Output>
    where
        T: Future + OptionalSend + 'static,
        T::Output: OptionalSend + 'static,
    {
        TokioRuntime::spawn(future)
    }

    fn sleep(duration: Duration) -> Self::Sleep {
        if duration <= BRIEF {
            return Either::Left(ready(()));
        }
        Either::Right(TokioRuntime::sleep(duration))
    }

    fn sleep_until(deadline: Self::Instant) -> Self::Sleep {
        let early = planted::is(Planted::EarlyTick) && deadline <= Moment::now() + EARLY;
        if early || is_over(deadline) {
            return Either::Left(ready(()));
        }
        Either::Right(TokioRuntime::sleep_until(common(
            deadline,
            TICK_US.load(Ordering::Relaxed),
        )))
    }

    fn timeout<R, F: Future<Output = R> + OptionalSend>(
        duration: Duration,
        future: F,
    ) -> Self::Timeout<R, F> {
        TokioRuntime::timeout(duration, future)
    }

    fn timeout_at<R, F: Future<Output = R> + OptionalSend>(
        deadline: Self::Instant,
        future: F,
    ) -> Self::Timeout<R, F> {
        TokioRuntime::timeout_at(deadline, future)
    }

    fn is_panic(join_error: &Self::JoinError) -> bool {
        TokioRuntime::is_panic(join_error)
    }

    fn thread_rng() -> Self::ThreadLocalRng {
        TokioRuntime::thread_rng()
    }

    fn new(threads: usize) -> Self {
        Runtime(TokioRuntime::new(threads))
    }

    fn block_on<F, T>(&mut self, future: F) -> T
    where
        F: Future<Output = T>,
    {
        self.0.block_on(future)
    }

    fn spawn_blocking<F, T>(f: F) -> impl Future<Output = Result<T, io::Error>> + Send
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        TokioRuntime::spawn_blocking(f)
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn what_is_over_at_once_ends_at_once_and_nothing_else() {
        let lengths = [1, 10, 2_000_000].map(Duration::from_micros);
        let ended = |sleep: <Runtime as AsyncRuntime>::Sleep| sleep.now_or_never().is_some();
        assert_eq!(lengths.map(Runtime::sleep).map(ended), [true, false, false]);
        let now = <Runtime as AsyncRuntime>::Instant::now();
        let ends = lengths.map(|length| now + length);
        assert_eq!(ends.map(Runtime::sleep_until).map(ended), [true, false, false]);
    }

    /// The sleep that is tested here.
    const UNTIL: fn(Moment) -> <Runtime as AsyncRuntime>::Sleep = Runtime::sleep_until;

    #[tokio::test]
    async fn no_sleep_ends_before_its_deadline() {
        for ns in 1..5000 {
            let deadline = Moment::now() + Duration::from_nanos(ns);
            let ended = UNTIL(deadline).now_or_never().is_some();
            assert!(!ended || Moment::now() >= deadline, "{ns} ns");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_brief_sleep_passes_where_time_stands_still_meanwhile() {
        let deadline = Moment::now() + Duration::from_nanos(770);
        assert!(!is_over(deadline));
        UNTIL(deadline).await;
        assert!(Moment::now() >= deadline);
    }

    #[test]
    fn deadlines_of_one_period_fall_together_and_none_comes_early() {
        let origin = *ORIGIN.get_or_init(Moment::now);
        for (ms, expected) in [(1, 100), (99, 100), (100, 100), (101, 200)] {
            let deadline = origin + Duration::from_millis(ms);
            let moment = common(deadline, 100_000);
            assert_eq!(moment, origin + Duration::from_millis(expected), "{ms} ms");
        }
    }
}
