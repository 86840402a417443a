//! What must hold after each step, one file each. To add one: write the file, and name it in [`all`].

use std::sync::Arc;

use crate::controller::Controller;

mod one_leader;

/// What an invariant looks at.
pub struct Seen<'a> {
    /// Simulated time.
    pub now_ms: u64,
    /// All controllers.
    pub controllers: &'a [Arc<Controller>],
}

/// A property of every reachable state, or of every two states of which one follows the other.
pub trait Invariant {
    /// In a few words.
    fn name(&self) -> &'static str;
    /// What is wrong, if something is.
    fn check(&mut self, seen: &Seen<'_>) -> Result<(), String>;
}

/// All of them, of a new run.
pub fn all() -> Vec<Box<dyn Invariant>> {
    vec![Box::<one_leader::OneLeader>::default()]
}
