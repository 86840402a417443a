//! Errors, named by what the caller should do next. The only file that reads gRPC codes.

use proto::metadata;
use std::fmt;
use std::time::Duration;
use tonic::{Code, Status};

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The request itself is wrong: change it.
    Invalid,
    /// It speaks of something that does not exist: look at what does.
    NotFound,
    /// It is understood, and not allowed in the cluster's present state: look, wait or decide otherwise. Nothing
    /// was done.
    Refused,
    /// The cluster was too busy and did nothing: try again later.
    Retry,
    /// No controller could be asked, or none could answer: look at endpoints and controllers. Nothing was done.
    Unavailable,
    /// Time ran out or the connection broke after the request was sent: it may have been done. Look, then decide.
    Unknown,
    /// The session has expired, or gone too far beyond the request's number, so that the fate of an earlier send can
    /// no longer be told: look, then decide.
    SessionExpired,
    /// The caller may not do this.
    Denied,
    /// The server does not know this call: upgrade it, or do without.
    Unsupported,
    /// Data is damaged: look at the controllers' logs before anything else.
    Corrupt,
    /// A fault in Holdfast: report it.
    Internal,
}

impl ErrorKind {
    /// One sentence for people.
    pub fn advice(self) -> &'static str {
        match self {
            ErrorKind::Invalid => "change the request",
            ErrorKind::NotFound => "look at what exists, then name that",
            ErrorKind::Refused => "nothing was done; look at the cluster's state, then decide",
            ErrorKind::Retry => "nothing was done; try again in a moment",
            ErrorKind::Unavailable => {
                "nothing was done; check that the endpoints are right and enough controllers run"
            }
            ErrorKind::Unknown => "it may or may not have been done; look before you repeat it",
            ErrorKind::SessionExpired => "an earlier send may have been done; look before you repeat it",
            ErrorKind::Denied => "ask for the permission",
            ErrorKind::Unsupported => "this controller is older than the client; upgrade it",
            ErrorKind::Corrupt => "look at the controllers' logs before anything else",
            ErrorKind::Internal => "this is a fault in Holdfast; keep the controllers' logs and report it",
        }
    }

    fn of(status: &Status) -> ErrorKind {
        match status.code() {
            Code::InvalidArgument | Code::OutOfRange => ErrorKind::Invalid,
            Code::NotFound => ErrorKind::NotFound,
            Code::FailedPrecondition | Code::Aborted if is_session_expired(status) => {
                ErrorKind::SessionExpired
            }
            Code::FailedPrecondition | Code::Aborted | Code::AlreadyExists => ErrorKind::Refused,
            Code::ResourceExhausted => ErrorKind::Retry,
            Code::Unavailable if is_not_sent(status) => ErrorKind::Unavailable,
            Code::Ok | Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Unknown => {
                ErrorKind::Unknown
            }
            Code::PermissionDenied | Code::Unauthenticated => ErrorKind::Denied,
            Code::Unimplemented => ErrorKind::Unsupported,
            Code::DataLoss => ErrorKind::Corrupt,
            Code::Internal if is_broken_connection(status) => ErrorKind::Unknown,
            Code::Internal => ErrorKind::Internal,
        }
    }
}

/// Why a call failed.
#[derive(Clone, Debug, thiserror::Error)]
pub struct Error {
    /// What to do next.
    pub kind: ErrorKind,
    /// The call, by its name in `holdfast.v1`.
    pub operation: &'static str,
    /// The server's sentence, or what happened on the way to it.
    pub message: String,
    /// Who said so, if anyone was reached.
    pub endpoint: Option<String>,
    /// The server's hint on when to try again.
    pub retry_after: Option<Duration>,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.operation, self.message)?;
        match &self.endpoint {
            Some(endpoint) => write!(f, " (from {endpoint})"),
            None => Ok(()),
        }
    }
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, operation: &'static str, message: impl Into<String>) -> Error {
        Error {
            kind,
            operation,
            message: message.into(),
            endpoint: None,
            retry_after: None,
        }
    }

    pub(crate) fn from_status(operation: &'static str, endpoint: &str, status: &Status) -> Error {
        Error {
            kind: ErrorKind::of(status),
            operation,
            message: sentence(status),
            endpoint: Some(endpoint.to_owned()),
            retry_after: retry_after(status),
        }
    }

    /// Whether the same request, with the same session number, may be sent again.
    pub(crate) fn may_retry(&self) -> bool {
        match self.kind {
            ErrorKind::Retry | ErrorKind::Unavailable | ErrorKind::Unknown => true,
            ErrorKind::Invalid
            | ErrorKind::NotFound
            | ErrorKind::Refused
            | ErrorKind::SessionExpired
            | ErrorKind::Denied
            | ErrorKind::Unsupported
            | ErrorKind::Corrupt
            | ErrorKind::Internal => false,
        }
    }
}

fn is_not_sent(status: &Status) -> bool {
    status.metadata().contains_key(metadata::NOT_SENT)
}

fn is_session_expired(status: &Status) -> bool {
    status.metadata().contains_key(metadata::SESSION_EXPIRED)
}

/// Whether the connection, rather than the server's code, ended the call: tonic reports some of these as internal.
pub(crate) fn is_broken_connection(status: &Status) -> bool {
    let from_below = std::error::Error::source(status).is_some();
    from_below
        && matches!(
            status.code(),
            Code::Unavailable | Code::Unknown | Code::Internal | Code::Cancelled
        )
}

fn retry_after(status: &Status) -> Option<Duration> {
    let value = status.metadata().get(metadata::RETRY_AFTER_MS)?.to_str().ok()?;
    value.parse().ok().map(Duration::from_millis)
}

/// The server's words, or the whole chain of what broke below gRPC.
fn sentence(status: &Status) -> String {
    if !is_broken_connection(status) {
        // The text may be etcd's, for programs; the detail is for people.
        let detail = status.metadata().get(metadata::DETAIL);
        return match detail.and_then(|detail| detail.to_str().ok()) {
            Some(detail) => detail.to_owned(),
            None if status.message().is_empty() => format!("{:?}", status.code()),
            None => status.message().to_owned(),
        };
    }
    chain(std::error::Error::source(status).unwrap_or(status))
}

/// An error with its causes, each once.
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let part = cause.to_string();
        if !text.contains(&part) {
            text.push_str(": ");
            text.push_str(&part);
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marked(text: &str) -> Status {
        let mut status = Status::failed_precondition(text);
        let mark = "1".parse().expect("ascii");
        status.metadata_mut().insert(metadata::SESSION_EXPIRED, mark);
        status
    }

    #[test]
    fn codes_become_next_steps() {
        for (status, kind) in [
            (Status::invalid_argument("x"), ErrorKind::Invalid),
            (Status::not_found("x"), ErrorKind::NotFound),
            (Status::already_exists("x"), ErrorKind::Refused),
            (Status::failed_precondition("generation is 3"), ErrorKind::Refused),
            (
                marked("session 7 is unknown or has expired"),
                ErrorKind::SessionExpired,
            ),
            (
                marked("session 7 is at seq 90, 3 is too late"),
                ErrorKind::SessionExpired,
            ),
            (Status::resource_exhausted("busy"), ErrorKind::Retry),
            (Status::unavailable("no leader"), ErrorKind::Unknown),
            (Status::deadline_exceeded("late"), ErrorKind::Unknown),
            (Status::unimplemented("auth"), ErrorKind::Unsupported),
            (Status::data_loss("checksum"), ErrorKind::Corrupt),
            (Status::internal("bug"), ErrorKind::Internal),
        ] {
            assert_eq!(Error::from_status("Op", "a:1", &status).kind, kind, "{status:?}");
        }
    }

    #[test]
    fn hints_are_read() {
        let mut status = Status::unavailable("etcdserver: no leader");
        for (key, value) in [
            (metadata::NOT_SENT, "1"),
            (metadata::RETRY_AFTER_MS, "250"),
            (metadata::DETAIL, "partition 3 has no leader"),
        ] {
            status.metadata_mut().insert(key, value.parse().expect("ascii"));
        }
        let error = Error::from_status("Op", "a:1", &status);
        assert_eq!(error.kind, ErrorKind::Unavailable);
        assert_eq!(error.retry_after, Some(Duration::from_millis(250)));
        assert_eq!(error.to_string(), "Op: partition 3 has no leader (from a:1)");
    }

    #[test]
    fn only_safe_errors_are_retried() {
        for (kind, retried) in [
            (ErrorKind::Unknown, true),
            (ErrorKind::Retry, true),
            (ErrorKind::Unavailable, true),
            (ErrorKind::SessionExpired, false),
            (ErrorKind::Refused, false),
        ] {
            assert_eq!(Error::new(kind, "Op", "x").may_retry(), retried, "{kind:?}");
        }
    }
}
