//! Judges recorded histories: what clients asked of the system, when, and what came of it.
//!
//! Two judges that share nothing but the history look at the key-value store: [`revision`] replays the writes in the
//! order of the revisions that the answers carry, in n log n, and so looks at everything; [`linear`] searches for any
//! order at all and trusts no answer's revision. A verdict is one of three, and what could not be decided is no pass.
//!
//! Must never: do I/O, ask for the time or for randomness. The same history gives the same verdict.

pub mod append;
pub mod bank;
pub mod counter;
pub mod edn;
pub mod history;
pub mod lease;
pub mod linear;
pub mod lock;
#[cfg(test)]
mod numbers;
pub mod page;
pub mod register;
pub mod revision;
pub mod set;
pub mod transitions;
pub mod unique;
mod verdict;
pub mod watch;

pub use verdict::Verdict;
