//! What a judge says.

use crate::history::Malformed;

/// One of three. Only the first is a pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict<V> {
    /// The history keeps the promise.
    Valid,
    /// It does not, and this shows it.
    Violated(V),
    /// It could not be decided: too much to search, or evidence is missing.
    Unknown(String),
}

impl<V> Verdict<V> {
    /// Whether it is a pass.
    pub fn is_valid(&self) -> bool {
        matches!(self, Verdict::Valid)
    }

    /// Whether the promise was broken.
    pub fn is_violated(&self) -> bool {
        matches!(self, Verdict::Violated(_))
    }
}

/// What no client could have seen is no evidence.
impl<V> From<Malformed> for Verdict<V> {
    fn from(malformed: Malformed) -> Self {
        Verdict::Unknown(malformed.to_string())
    }
}
