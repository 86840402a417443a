//! Faults planted on purpose, to see whether the tests find them: each is a bug that such systems have had. A build has
//! them only if it asks for them (`HOLDFAST_PLANTED=1 cargo build`); then one at a time can be chosen by its name.
//! `docs/reliability.md` tells which were found, and how fast.
//!
//! Must never: do anything in a build that did not ask.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Whether this build has them.
pub const BUILT: bool = option_env!("HOLDFAST_PLANTED").is_some();

/// The chosen one, by its place in [`ALL`]; past the end: none.
static CHOSEN: AtomicUsize = AtomicUsize::new(usize::MAX);

/// Names them once: as values, as words, in one order.
macro_rules! planted {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// One of them.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Planted {
            $($(#[$doc])* $variant,)*
        }

        /// All of them, with their names.
        pub const ALL: &[(Planted, &str)] = &[$((Planted::$variant, $name),)*];
    };
}

planted! {
    /// An append is told as done before it is synced.
    AckBeforeSync = "ack-before-sync",
    /// A vote is given before it is synced.
    VoteNotSynced = "vote-not-synced",
    /// Data and the position they belong to are committed one after the other.
    AppliedApart = "applied-apart",
    /// A leader answers reads without asking whether it still leads.
    StaleRead = "stale-read",
    /// A follower says that it has what it was sent, and takes it in later.
    FollowerAcksEarly = "follower-acks-early",
    /// A write that was forwarded is sent once more.
    ForwardTwice = "forward-twice",
    /// Some changes do not get a revision of their own.
    RevisionStuck = "revision-stuck",
    /// A range loses all its keys but the last when it is deleted.
    LastKeySpared = "last-key-spared",
    /// A transaction takes a key for unchanged that was changed.
    CompareIgnored = "compare-ignored",
    /// A replica leaves out a change that the others make.
    ReplicaDiffers = "replica-differs",
    /// A watcher is not told of some changes.
    WatchGap = "watch-gap",
    /// A watcher is told of some changes twice.
    WatchTwice = "watch-twice",
    /// The pair before a put is not told.
    PreviousForgotten = "previous-forgotten",
    /// A lease ends after half of its time.
    LeaseEarly = "lease-early",
    /// Leases run on the time of day.
    LeaseByWallClock = "lease-by-wall-clock",
    /// Leases stand still for a while after each change of leader.
    LeaseReset = "lease-reset",
    /// A watcher is told of a later change before an earlier one.
    WatchReordered = "watch-reordered",
    /// What retries are recognised by is not in a state that is sent to another node.
    SessionsNotSent = "sessions-not-sent",
    /// A leader takes an append for acknowledged whose answer did not come.
    QuorumMiscounted = "quorum-miscounted",
    /// A log is cut for the running process alone.
    CutNotPersisted = "cut-not-persisted",
    /// Compaction takes some of what is live.
    CompactedAlive = "compacted-alive",
    /// A change of members that a leader refuses while it hands over is tried again at once, for ever.
    MembershipSpin = "membership-spin",
    /// A group's clock wakes before its time, and goes round until it has come.
    EarlyTick = "early-tick",
}

/// Chooses one for this process. An error if this build has none, or not that one.
pub fn choose(name: &str) -> Result<(), String> {
    if !BUILT {
        return Err("this build has no planted faults: build it with HOLDFAST_PLANTED=1".into());
    }
    let names = || ALL.iter().map(|(_, name)| *name);
    let found = names().position(|known| known == name);
    let place = found.ok_or_else(|| {
        format!(
            "no fault is named {name}; there are: {}",
            names().collect::<Vec<_>>().join(", ")
        )
    })?;
    CHOSEN.store(place, Ordering::Relaxed);
    Ok(())
}

/// Whether this one was chosen. Always false, and nothing is left of what it guards, in a build without them.
#[inline]
pub fn is(planted: Planted) -> bool {
    BUILT
        && ALL
            .get(CHOSEN.load(Ordering::Relaxed))
            .is_some_and(|(chosen, _)| *chosen == planted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_that_did_not_ask_has_none() {
        assert_eq!(choose("stale-read").is_ok(), BUILT);
        assert_eq!(is(Planted::StaleRead), BUILT);
        assert!(choose("no-such-fault").is_err());
    }
}
