//! What the machine may read: an ordered map of records, at one point in time. `storage` implements it.

use std::ops::ControlFlow;

use bytes::Bytes;

/// The records could not be read. Never a refusal of a command.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot read the partition's records: {text}")]
pub struct ViewError {
    text: String,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Senseless,
    Unreachable,
    Damaged,
}

impl ViewError {
    /// They do not make sense: every replica may find the same.
    pub fn new(text: impl Into<String>) -> ViewError {
        ViewError {
            text: text.into(),
            kind: Kind::Senseless,
        }
    }

    /// The disk did not give them, whatever they are. Only a store can tell.
    pub fn unreachable(text: impl Into<String>) -> ViewError {
        ViewError {
            text: text.into(),
            kind: Kind::Unreachable,
        }
    }

    /// This copy is not what was written. Only a store can tell.
    pub fn damaged(text: impl Into<String>) -> ViewError {
        ViewError {
            text: text.into(),
            kind: Kind::Damaged,
        }
    }

    /// Whether this copy is known to be damaged, so that another one may be whole.
    pub fn is_damage(&self) -> bool {
        self.kind == Kind::Damaged
    }

    /// Whether the disk failed, so that what is there may be whole.
    pub fn is_unreachable(&self) -> bool {
        self.kind == Kind::Unreachable
    }
}

/// Why a batch was not applied. Either way the node stops serving the partition: going on would let replicas differ.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// The records could not be read.
    #[error(transparent)]
    View(#[from] ViewError),
    /// The log holds something that only a newer build understands.
    #[error("this build does not understand the log: {0}")]
    Unsupported(String),
}

/// A record met by [`View::scan`]; `Break` ends the scan.
pub type Visit<'a> = &'a mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>;

/// Ordered records, bytewise.
pub trait View {
    /// The value stored under `key`.
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, ViewError>;

    /// Calls `visit` for each record with `from <= key < to`, ascending, or descending if `reverse`.
    fn scan(&self, from: &[u8], to: &[u8], reverse: bool, visit: Visit<'_>) -> Result<(), ViewError>;
}

#[cfg(test)]
mod tests {
    use super::ViewError;

    #[test]
    fn damage_is_told_from_what_makes_no_sense() {
        assert!(ViewError::damaged("a block").is_damage());
        assert!(ViewError::unreachable("a disk").is_unreachable());
        let senseless = ViewError::new("a record");
        assert!(!senseless.is_damage() && !senseless.is_unreachable());
        let said = ViewError::damaged("a block").to_string();
        assert_eq!(said, "cannot read the partition's records: a block");
    }
}
