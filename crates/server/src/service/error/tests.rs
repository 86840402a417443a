//! Every error has etcd's code and text.

use super::*;
use types::PartitionId;

fn check(error: ServerError, code: Code, text: &str) {
    let status = Status::from(error);
    assert_eq!((status.code(), status.message()), (code, text));
}

fn check_refusal(kind: RefusalKind, code: Code, text: &str) {
    let refusal = Refusal {
        kind: kind as i32,
        text: "why".into(),
        detail: 0,
    };
    check(ServerError::Refused(refusal), code, text);
}

#[test]
fn refusals_have_etcds_codes_and_texts() {
    use RefusalKind as K;
    let table = [
        (
            K::Compacted,
            Code::OutOfRange,
            "etcdserver: mvcc: required revision has been compacted",
        ),
        (
            K::FutureRevision,
            Code::OutOfRange,
            "etcdserver: mvcc: required revision is a future revision",
        ),
        (
            K::LeaseNotFound,
            Code::NotFound,
            "etcdserver: requested lease not found",
        ),
        (
            K::LeaseExists,
            Code::FailedPrecondition,
            "etcdserver: lease already exists",
        ),
        (
            K::LeaseTtlTooLarge,
            Code::OutOfRange,
            "etcdserver: too large lease TTL",
        ),
        (K::KeyNotFound, Code::InvalidArgument, "etcdserver: key not found"),
        (
            K::EmptyKey,
            Code::InvalidArgument,
            "etcdserver: key is not provided",
        ),
        (
            K::DuplicateKey,
            Code::InvalidArgument,
            "etcdserver: duplicate key given in txn request",
        ),
        (
            K::TooManyOperations,
            Code::InvalidArgument,
            "etcdserver: too many operations in txn request",
        ),
        (
            K::NoSpace,
            Code::ResourceExhausted,
            "etcdserver: mvcc: database space exceeded",
        ),
        (K::Invalid, Code::InvalidArgument, "why"),
        (K::SessionExpired, Code::FailedPrecondition, "why"),
        (K::LimitReached, Code::ResourceExhausted, "why"),
        (K::AlreadyExists, Code::AlreadyExists, "why"),
        (K::NotFound, Code::NotFound, "why"),
        (K::Stale, Code::FailedPrecondition, "why"),
    ];
    for (kind, code, text) in table {
        check_refusal(kind, code, text);
    }
}

#[test]
fn server_errors_have_etcds_codes_and_texts() {
    let partition = PartitionId(3);
    let text = || "x\ny".to_owned();
    check(
        ServerError::NoLeader {
            partition,
            text: text(),
        },
        Code::Unavailable,
        "etcdserver: no leader",
    );
    let busy = ServerError::Busy {
        partition,
        retry_ms: 7,
    };
    assert_eq!(
        Status::from(busy.clone())
            .metadata()
            .get(RETRY_AFTER_MS)
            .map(|v| v.as_bytes()),
        Some(&b"7"[..])
    );
    check(busy, Code::ResourceExhausted, "etcdserver: too many requests");
    check(
        ServerError::Timeout { text: text() },
        Code::Unavailable,
        "etcdserver: request timed out",
    );
    check(
        ServerError::TooLarge { text: text() },
        Code::InvalidArgument,
        "etcdserver: request is too large",
    );
    let full = ServerError::NoSpace { text: text() };
    assert_eq!(
        Status::from(full.clone())
            .metadata()
            .get(DETAIL)
            .map(|v| v.as_bytes()),
        Some(&b"no space: x?y"[..])
    );
    check(
        full,
        Code::ResourceExhausted,
        "etcdserver: mvcc: database space exceeded",
    );
    check(
        ServerError::Corrupt {
            partition,
            text: text(),
        },
        Code::DataLoss,
        "etcdserver: corrupt cluster",
    );
    let unknown = ServerError::UnknownNamespace { name: "a".into() };
    check(unknown, Code::NotFound, "namespace 'a' does not exist");
}

#[test]
fn a_session_that_cannot_tell_is_marked_so() {
    let marked = |kind: RefusalKind| {
        let refusal = Refusal {
            kind: kind as i32,
            text: "session 7 is at seq 90, 3 is too late".into(),
            detail: 90,
        };
        refused(&refusal).metadata().contains_key(SESSION_EXPIRED)
    };
    assert!(marked(RefusalKind::SessionExpired) && !marked(RefusalKind::Stale));
}

#[test]
fn only_what_did_nothing_is_marked_so() {
    let marked = |error: ServerError| Status::from(error).metadata().contains_key(NOT_SENT);
    let text = || "why".to_owned();
    let no_leader = ServerError::NoLeader {
        partition: PartitionId(3),
        text: text(),
    };
    let unavailable = ServerError::Unavailable { text: text() };
    assert!(marked(no_leader.clone()) && marked(unavailable.clone()));
    assert!(!marked(ServerError::Timeout { text: text() }));
    assert!(!marked(no_leader.clone().after_write()) && !marked(unavailable.after_write()));
    let status = after_write(Status::from(no_leader));
    assert!(!status.metadata().contains_key(NOT_SENT));
    assert_eq!(status.message(), NO_LEADER.text);
}
