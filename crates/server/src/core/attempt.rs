//! What one attempt at one node came to, and how that travels between nodes. The one question that matters after a
//! failure is whether the request may be sent again.

use machine::outcome::Refusal;
use raft::{ProposeError, ReadError, RequestError};
use tonic::{Code, Status};
use types::{NodeId, PartitionId};

use super::ServerError;
use super::admission::RETRY_MS;

/// A failed attempt.
#[derive(Debug, Clone, PartialEq)]
pub enum Failed {
    /// Nothing was done: find the leader again. `leader` if the other side knew it.
    Again {
        /// A hint.
        leader: Option<NodeId>,
        /// What happened.
        text: String,
    },
    /// It may have been done. Reads may be sent again, writes only if they are deduplicated.
    Unknown(String),
    /// The answer is final.
    Final(ServerError),
}

impl Failed {
    /// From a proposal to the local replica.
    pub fn propose(partition: PartitionId, error: ProposeError) -> Failed {
        match error {
            ProposeError::NotLeader { leader } => Failed::Again {
                leader,
                text: "the leader changed".into(),
            },
            ProposeError::Busy => Failed::Final(ServerError::Busy {
                partition,
                retry_ms: RETRY_MS,
            }),
            ProposeError::TooLarge => Failed::Final(ServerError::TooLarge {
                text: "the command does not fit a log entry".into(),
            }),
            ProposeError::Unknown(text) => Failed::Unknown(text),
            ProposeError::Stopped => Failed::Again {
                leader: None,
                text: "the replica here stopped".into(),
            },
        }
    }

    /// From a read point of the local replica.
    pub fn read(error: ReadError) -> Failed {
        match error {
            ReadError::NotLeader { leader } => Failed::Again {
                leader,
                text: "the leader changed".into(),
            },
            ReadError::Deadline(text) => Failed::Unknown(text),
            ReadError::Stopped => Failed::Again {
                leader: None,
                text: "the replica here stopped".into(),
            },
        }
    }

    /// From another node.
    pub fn request(partition: PartitionId, node: NodeId, error: RequestError) -> Failed {
        match error {
            RequestError::NotSent(text) => Failed::Again {
                leader: None,
                text: format!("node {node}: {text}"),
            },
            RequestError::Unknown(text) => Failed::Unknown(format!("node {node}: {text}")),
            RequestError::Refused { code, text } => Failed::from_wire(partition, code, text),
        }
    }

    /// For the node that asked. [`Failed::from_wire`] undoes it.
    pub fn to_wire(&self) -> Status {
        match self {
            Failed::Again { leader, text } => {
                Status::failed_precondition(format!("{} {text}", leader.map_or(0, |node| node.0)))
            }
            Failed::Unknown(text) => Status::deadline_exceeded(text.clone()),
            Failed::Final(error) => match error {
                ServerError::Busy { .. } => Status::resource_exhausted("busy"),
                ServerError::TooLarge { text } => Status::out_of_range(text.clone()),
                ServerError::NoSpace { text } => Status::aborted(text.clone()),
                ServerError::Corrupt { text, .. } => Status::data_loss(text.clone()),
                ServerError::Invalid { text } => Status::invalid_argument(text.clone()),
                ServerError::Timeout { text } => Status::deadline_exceeded(text.clone()),
                ServerError::Unavailable { text } => Status::failed_precondition(format!("0 {text}")),
                ServerError::NoLeader { text, .. } => Status::failed_precondition(format!("0 {text}")),
                ServerError::UnknownPartition { .. } => Status::not_found(error.to_string()),
                ServerError::Refused(refusal) => {
                    Status::already_exists(format!("{} {} {}", refusal.kind, refusal.detail, refusal.text))
                }
                // Names are settled before anything is forwarded.
                ServerError::UnknownNamespace { .. } | ServerError::Internal { .. } => {
                    Status::internal(error.to_string())
                }
            },
        }
    }

    /// From the error of a node that was asked.
    pub fn from_wire(partition: PartitionId, code: Code, text: String) -> Failed {
        match code {
            Code::FailedPrecondition => {
                match text.split_once(' ').map(|(n, rest)| (n.parse::<u64>(), rest)) {
                    Some((Ok(node), rest)) => Failed::Again {
                        leader: Some(NodeId(node)).filter(|node| node.0 != 0),
                        text: rest.to_owned(),
                    },
                    _ => Failed::Again { leader: None, text },
                }
            }
            Code::ResourceExhausted => Failed::Final(ServerError::Busy {
                partition,
                retry_ms: RETRY_MS,
            }),
            Code::OutOfRange => Failed::Final(ServerError::TooLarge { text }),
            Code::Aborted => Failed::Final(ServerError::NoSpace { text }),
            Code::DataLoss => Failed::Final(ServerError::Corrupt { partition, text }),
            Code::AlreadyExists => Failed::Final(refusal(&text)),
            Code::InvalidArgument => Failed::Final(ServerError::Invalid { text }),
            Code::NotFound => Failed::Again { leader: None, text },
            Code::Internal | Code::Unimplemented => Failed::Final(ServerError::Internal { text }),
            // Everything else says nothing about what happened there.
            _ => Failed::Unknown(text),
        }
    }
}

fn refusal(text: &str) -> ServerError {
    let mut parts = text.splitn(3, ' ');
    let kind = parts.next().and_then(|kind| kind.parse().ok());
    let detail = parts.next().and_then(|detail| detail.parse().ok());
    match (kind, detail, parts.next()) {
        (Some(kind), Some(detail), Some(text)) => ServerError::Refused(Refusal {
            kind,
            detail,
            text: text.to_owned(),
        }),
        _ => ServerError::Internal {
            text: text.to_owned(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(failed: Failed) {
        let status = failed.to_wire();
        assert_eq!(
            Failed::from_wire(PartitionId(3), status.code(), status.message().to_owned()),
            failed
        );
    }

    #[test]
    fn failures_survive_the_wire() {
        check(Failed::Again {
            leader: Some(NodeId(7)),
            text: "the leader changed".into(),
        });
        check(Failed::Again {
            leader: None,
            text: "starting".into(),
        });
        check(Failed::Final(ServerError::Refused(Refusal {
            kind: 16,
            text: "lags 3 behind".into(),
            detail: 3,
        })));
        check(Failed::Unknown("no answer".into()));
        check(Failed::Final(ServerError::Busy {
            partition: PartitionId(3),
            retry_ms: RETRY_MS,
        }));
        check(Failed::Final(ServerError::NoSpace {
            text: "1 byte".into(),
        }));
        check(Failed::Final(ServerError::TooLarge { text: "2 MiB".into() }));
        check(Failed::Final(ServerError::Corrupt {
            partition: PartitionId(3),
            text: "block".into(),
        }));
        check(Failed::Final(ServerError::Invalid { text: "no".into() }));
    }

    #[test]
    fn only_what_surely_did_not_happen_is_sent_again() {
        for code in [
            Code::Unavailable,
            Code::Cancelled,
            Code::Unknown,
            Code::DeadlineExceeded,
        ] {
            assert!(
                matches!(
                    Failed::from_wire(PartitionId(1), code, String::new()),
                    Failed::Unknown(_)
                ),
                "{code}"
            );
        }
    }
}
