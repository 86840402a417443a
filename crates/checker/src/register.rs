//! A register: read, write, compare and set, delete. What etcd-like stores are tested with first, one key at a time.

use serde::{Deserialize, Serialize};

use crate::linear::Model;

/// What is asked of a register.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ask {
    /// What is in it?
    Read,
    /// Put this in.
    Write(u64),
    /// Put `to` in if `from` is.
    Cas {
        /// What it must hold; `None`: nothing.
        from: Option<u64>,
        /// What it is to hold.
        to: u64,
    },
    /// Empty it.
    Delete,
}

/// What it answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// To a read.
    Value(Option<u64>),
    /// To a write or a delete.
    Done,
    /// To a compare and set: whether it was set.
    Swapped(bool),
}

/// The register as it should be.
#[derive(Debug, Clone, Copy, Default)]
pub struct Register;

impl Model for Register {
    type Ask = Ask;
    type Answer = Answer;
    type State = Option<u64>;

    fn initial(&self) -> Option<u64> {
        None
    }

    fn step(&self, state: &Option<u64>, ask: &Ask, answer: Option<&Answer>) -> Option<Option<u64>> {
        let (next, right) = match ask {
            Ask::Read => (*state, Answer::Value(*state)),
            Ask::Write(value) => (Some(*value), Answer::Done),
            Ask::Delete => (None, Answer::Done),
            Ask::Cas { from, to } if from == state => (Some(*to), Answer::Swapped(true)),
            Ask::Cas { .. } => (*state, Answer::Swapped(false)),
        };
        answer.is_none_or(|answer| *answer == right).then_some(next)
    }
}
