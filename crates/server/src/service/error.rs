//! The one place that maps errors to gRPC. etcd's kinds keep etcd's codes and texts, since clients match on them;
//! what Holdfast knows beyond that goes into metadata (`proto::metadata`), never into the text.

use machine::outcome::{Refusal, RefusalKind};
use proto::metadata::{DETAIL, NOT_SENT, RETRY_AFTER_MS, SESSION_EXPIRED};
use tonic::metadata::MetadataValue;
use tonic::{Code, Status};

use crate::core::ServerError;

/// An error that etcd defines: its code and its text (`rpctypes` of etcd 3.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EtcdError {
    /// gRPC code.
    pub code: Code,
    /// Text that clients match on.
    pub text: &'static str,
}

const fn etcd(code: Code, text: &'static str) -> EtcdError {
    EtcdError { code, text }
}

/// etcd `ErrGRPCEmptyKey`.
pub const EMPTY_KEY: EtcdError = etcd(Code::InvalidArgument, "etcdserver: key is not provided");
/// etcd `ErrGRPCKeyNotFound`.
pub const KEY_NOT_FOUND: EtcdError = etcd(Code::InvalidArgument, "etcdserver: key not found");
/// etcd `ErrGRPCValueProvided`.
pub const VALUE_PROVIDED: EtcdError = etcd(Code::InvalidArgument, "etcdserver: value is provided");
/// etcd `ErrGRPCLeaseProvided`.
pub const LEASE_PROVIDED: EtcdError = etcd(Code::InvalidArgument, "etcdserver: lease is provided");
/// etcd `ErrGRPCTooManyOps`.
pub const TOO_MANY_OPS: EtcdError = etcd(
    Code::InvalidArgument,
    "etcdserver: too many operations in txn request",
);
/// etcd `ErrGRPCDuplicateKey`.
pub const DUPLICATE_KEY: EtcdError = etcd(
    Code::InvalidArgument,
    "etcdserver: duplicate key given in txn request",
);
/// etcd `ErrGRPCInvalidSortOption`.
pub const INVALID_SORT: EtcdError = etcd(Code::InvalidArgument, "etcdserver: invalid sort option");
/// etcd `ErrGRPCCompacted`.
pub const COMPACTED: EtcdError = etcd(
    Code::OutOfRange,
    "etcdserver: mvcc: required revision has been compacted",
);
/// etcd `ErrGRPCFutureRev`.
pub const FUTURE_REVISION: EtcdError = etcd(
    Code::OutOfRange,
    "etcdserver: mvcc: required revision is a future revision",
);
/// etcd `ErrGRPCNoSpace`.
pub const NO_SPACE: EtcdError = etcd(
    Code::ResourceExhausted,
    "etcdserver: mvcc: database space exceeded",
);
/// etcd `ErrGRPCLeaseNotFound`.
pub const LEASE_NOT_FOUND: EtcdError = etcd(Code::NotFound, "etcdserver: requested lease not found");
/// etcd `ErrGRPCLeaseExist`.
pub const LEASE_EXISTS: EtcdError = etcd(Code::FailedPrecondition, "etcdserver: lease already exists");
/// etcd `ErrGRPCLeaseTTLTooLarge`.
pub const LEASE_TTL_TOO_LARGE: EtcdError = etcd(Code::OutOfRange, "etcdserver: too large lease TTL");
/// etcd `ErrGRPCRequestTooLarge`.
pub const TOO_LARGE: EtcdError = etcd(Code::InvalidArgument, "etcdserver: request is too large");
/// etcd `ErrGRPCRequestTooManyRequests`.
pub const TOO_MANY_REQUESTS: EtcdError = etcd(Code::ResourceExhausted, "etcdserver: too many requests");
/// etcd `ErrGRPCNoLeader`.
pub const NO_LEADER: EtcdError = etcd(Code::Unavailable, "etcdserver: no leader");
/// etcd `ErrGRPCTimeout`.
pub const TIMEOUT: EtcdError = etcd(Code::Unavailable, "etcdserver: request timed out");
/// etcd `ErrGRPCCorrupt`.
pub const CORRUPT: EtcdError = etcd(Code::DataLoss, "etcdserver: corrupt cluster");
/// etcd `ErrGRPCMemberNotFound`.
pub const MEMBER_NOT_FOUND: EtcdError = etcd(Code::NotFound, "etcdserver: member not found");
/// etcd `ErrGRPCBadLeaderTransferee`.
pub const BAD_TRANSFEREE: EtcdError = etcd(Code::FailedPrecondition, "etcdserver: bad leader transferee");
/// etcd `ErrGRPCTimeoutDueToLeaderFail` as MoveLeader answers it.
pub const TRANSFER_TIMEOUT: EtcdError = etcd(
    Code::Unavailable,
    "etcdserver: request timed out, leader transfer took too long",
);

impl EtcdError {
    /// The error, with a sentence in [`DETAIL`] unless it is empty.
    pub fn status(self, detail: &str) -> Status {
        let mut status = Status::new(self.code, self.text);
        if let Some(value) = ascii(detail) {
            status.metadata_mut().insert(DETAIL, value);
        }
        status
    }
}

impl From<EtcdError> for Status {
    fn from(error: EtcdError) -> Status {
        error.status("")
    }
}

fn ascii(text: &str) -> Option<MetadataValue<tonic::metadata::Ascii>> {
    if text.is_empty() {
        return None;
    }
    let clean: String = text
        .chars()
        .map(|c| if (' '..='~').contains(&c) { c } else { '?' })
        .collect();
    MetadataValue::try_from(clean).ok()
}

/// Says that nothing was done.
fn not_sent(mut status: Status) -> Status {
    status
        .metadata_mut()
        .insert(NOT_SENT, MetadataValue::from_static("1"));
    status
}

/// The failure of a later step of a request whose earlier step may have changed something.
pub fn after_write(mut status: Status) -> Status {
    status.metadata_mut().remove(NOT_SENT);
    status
}

impl From<ServerError> for Status {
    fn from(error: ServerError) -> Status {
        let text = error.to_string();
        match error {
            ServerError::UnknownNamespace { .. } | ServerError::UnknownPartition { .. } => {
                Status::not_found(text)
            }
            ServerError::NoLeader { .. } => not_sent(NO_LEADER.status(&text)),
            ServerError::Busy { retry_ms, .. } => {
                let mut status = TOO_MANY_REQUESTS.status(&text);
                let wait = MetadataValue::from(retry_ms);
                status.metadata_mut().insert(RETRY_AFTER_MS, wait);
                status
            }
            ServerError::Timeout { .. } => TIMEOUT.status(&text),
            ServerError::TooLarge { .. } => TOO_LARGE.status(&text),
            ServerError::NoSpace { .. } => NO_SPACE.status(&text),
            ServerError::Unavailable { .. } => not_sent(Status::unavailable(text)),
            ServerError::Corrupt { .. } => CORRUPT.status(&text),
            ServerError::Refused(refusal) => refused(&refusal),
            ServerError::Invalid { text } => Status::invalid_argument(text),
            ServerError::Internal { .. } => Status::internal(text),
        }
    }
}

/// The status of a refusal by the state machine.
pub fn refused(refusal: &Refusal) -> Status {
    let text = refusal.text.as_str();
    let kind = RefusalKind::try_from(refusal.kind).unwrap_or(RefusalKind::Unspecified);
    let plain = |code: Code| Status::new(code, text);
    match kind {
        RefusalKind::Compacted => COMPACTED.status(text),
        RefusalKind::FutureRevision => FUTURE_REVISION.status(text),
        RefusalKind::LeaseNotFound => LEASE_NOT_FOUND.status(text),
        RefusalKind::LeaseExists => LEASE_EXISTS.status(text),
        RefusalKind::LeaseTtlTooLarge => LEASE_TTL_TOO_LARGE.status(text),
        RefusalKind::KeyNotFound => KEY_NOT_FOUND.status(text),
        RefusalKind::EmptyKey => EMPTY_KEY.status(text),
        RefusalKind::DuplicateKey => DUPLICATE_KEY.status(text),
        RefusalKind::TooManyOperations => TOO_MANY_OPS.status(text),
        RefusalKind::NoSpace => NO_SPACE.status(text),
        RefusalKind::Invalid => plain(Code::InvalidArgument),
        RefusalKind::SessionExpired => {
            let mut status = plain(Code::FailedPrecondition);
            let mark = MetadataValue::from_static("1");
            status.metadata_mut().insert(SESSION_EXPIRED, mark);
            status
        }
        RefusalKind::LimitReached => plain(Code::ResourceExhausted),
        RefusalKind::AlreadyExists => plain(Code::AlreadyExists),
        RefusalKind::NotFound => plain(Code::NotFound),
        RefusalKind::Stale => plain(Code::FailedPrecondition),
        RefusalKind::Unspecified => {
            Status::internal(format!("refusal of unknown kind {}: {text}", refusal.kind))
        }
    }
}

#[cfg(test)]
mod tests;
