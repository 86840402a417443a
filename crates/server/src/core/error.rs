//! What can go wrong between a request and its partition; a closed list that `service::error` maps to gRPC.

use machine::outcome::Refusal;
use types::PartitionId;

/// Why a request got no answer.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ServerError {
    /// No namespace of that name.
    #[error("namespace '{name}' does not exist")]
    UnknownNamespace {
        /// As asked for.
        name: String,
    },
    /// No such partition.
    #[error("partition {partition} does not exist")]
    UnknownPartition {
        /// As asked for.
        partition: PartitionId,
    },
    /// Nobody leads the partition within the deadline. Nothing was done by this step; see
    /// [`ServerError::after_write`].
    #[error("partition {partition} has no leader: {text}")]
    NoLeader {
        /// Which.
        partition: PartitionId,
        /// What was last seen.
        text: String,
    },
    /// Overloaded: refused early, nothing was done; try again after `retry_ms`.
    #[error("too many requests for partition {partition}, retry after {retry_ms} ms")]
    Busy {
        /// Which.
        partition: PartitionId,
        /// Hint.
        retry_ms: u64,
    },
    /// The deadline passed, or the connection broke, with the request on its way: whether it was done is *unknown*.
    #[error("request timed out, its outcome is unknown: {text}")]
    Timeout {
        /// What was being waited for.
        text: String,
    },
    /// The request is larger than a limit.
    #[error("request is too large: {text}")]
    TooLarge {
        /// The limit and the size.
        text: String,
    },
    /// The leader's disk is nearly full: writes are refused before it is.
    #[error("no space: {text}")]
    NoSpace {
        /// Which node and how much is left.
        text: String,
    },
    /// This node cannot serve now (starting, stopping, not yet a member, recovering). Nothing was done by this step;
    /// see [`ServerError::after_write`].
    #[error("unavailable: {text}")]
    Unavailable {
        /// Why.
        text: String,
    },
    /// The partition's state here cannot be read.
    #[error("partition {partition} is damaged here: {text}")]
    Corrupt {
        /// Which.
        partition: PartitionId,
        /// What was found.
        text: String,
    },
    /// The state machine refused; nothing changed.
    #[error("refused: {}", .0.text)]
    Refused(Refusal),
    /// The request makes no sense.
    #[error("invalid request: {text}")]
    Invalid {
        /// Why.
        text: String,
    },
    /// A defect.
    #[error("internal error: {text}")]
    Internal {
        /// For a report.
        text: String,
    },
}

impl ServerError {
    /// As the failure of a request whose earlier step has changed something: nobody may take it for one of which
    /// nothing was done.
    pub fn after_write(self) -> ServerError {
        match self {
            ServerError::NoLeader { text, .. } | ServerError::Unavailable { text } => {
                ServerError::Timeout { text }
            }
            ServerError::Busy { .. } => ServerError::Timeout {
                text: self.to_string(),
            },
            ServerError::UnknownNamespace { .. }
            | ServerError::UnknownPartition { .. }
            | ServerError::Timeout { .. }
            | ServerError::TooLarge { .. }
            | ServerError::NoSpace { .. }
            | ServerError::Corrupt { .. }
            | ServerError::Refused(_)
            | ServerError::Invalid { .. }
            | ServerError::Internal { .. } => self,
        }
    }
}
