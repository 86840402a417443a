//! What etcd's lock and election services have in common: a key per session under a prefix, ordered by creation.
//! The oldest key holds; the others wait until every older one is deleted.

use std::sync::Arc;

use bytes::Bytes;
use etcd_client::proto::{
    PbCompare, PbDeleteRequest, PbEvent, PbKeyValue, PbPutRequest, PbRangeRequest, PbRangeResponse,
    PbTargetUnion, PbTxnOpRequest, PbTxnOpResponse, PbTxnRequest, PbTxnRequestOp,
};
use futures::StreamExt;
use machine::outcome::TxnDone;
use tonic::{Code, Status};

use super::{Etcd, check, convert};
use crate::core::KeySpace;
use crate::service::error;
use crate::watch::Source;
use crate::watch::stream::{self, Create, Options, Request, Responses};

/// TTL of a session that the server grants, in seconds: etcd's `concurrency` default.
const SESSION_TTL_S: i64 = 60;

/// A key that waits or holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Candidate {
    /// The key.
    pub key: Vec<u8>,
    /// Its creation; it is another candidate if this differs.
    pub create_revision: i64,
    /// Whether it was there before.
    pub existing: Option<PbKeyValue>,
    /// Create revision of the oldest key under the prefix, if there was one.
    pub oldest: Option<i64>,
    /// Revision of the answer.
    pub header: etcd_client::proto::PbResponseHeader,
}

/// `name/`, under which the candidates' keys are.
pub(super) fn prefix(name: &[u8]) -> Vec<u8> {
    [name, b"/"].concat()
}

/// First key after everything that begins with `prefix` (which ends in `/`).
fn prefix_end(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    end
}

/// Reads the oldest key under the prefix.
pub(super) fn oldest(prefix: &[u8]) -> PbRangeRequest {
    PbRangeRequest {
        key: prefix.to_vec(),
        range_end: prefix_end(prefix),
        limit: 1,
        sort_order: 1,
        sort_target: 2,
        ..PbRangeRequest::default()
    }
}

fn op(request: PbTxnOpRequest) -> PbTxnRequestOp {
    PbTxnRequestOp {
        request: Some(request),
    }
}

fn created_at(key: &[u8], revision: i64) -> PbCompare {
    PbCompare {
        result: 0,
        target: 1,
        key: key.to_vec(),
        range_end: Vec::new(),
        target_union: Some(PbTargetUnion::CreateRevision(revision)),
    }
}

/// Plain errors of etcd's lock and election servers reach clients with this code, whatever they were inside.
pub(super) fn unknown(text: impl Into<String>) -> Status {
    Status::new(Code::Unknown, text)
}

/// As [`unknown`], for the requests such a server makes by itself. Failures of the way there keep their codes, so
/// that clients try elsewhere; an earlier step may have been done.
fn outward(status: Status) -> Status {
    match status.code() {
        Code::Unavailable | Code::Internal | Code::DataLoss | Code::DeadlineExceeded => {
            error::after_write(status)
        }
        _ => unknown(status.message()),
    }
}

impl Etcd {
    /// The session's lease: the one given, or a new one.
    pub(super) async fn session(&self, space: &KeySpace, lease: i64) -> Result<i64, Status> {
        if lease != 0 {
            return Ok(lease);
        }
        Ok(self.grant(space, 0, SESSION_TTL_S).await.map_err(outward)?.id)
    }

    /// Puts the session's key under the prefix, unless it is there.
    pub(super) async fn stand(
        &self,
        space: &KeySpace,
        prefix: &[u8],
        lease: i64,
        value: Vec<u8>,
    ) -> Result<Candidate, Status> {
        let key = [prefix, format!("{lease:x}").as_bytes()].concat();
        let put = PbPutRequest {
            key: key.clone(),
            value,
            lease,
            ..PbPutRequest::default()
        };
        let get = PbRangeRequest {
            key: key.clone(),
            ..PbRangeRequest::default()
        };
        let oldest = op(PbTxnOpRequest::RequestRange(oldest(prefix)));
        let txn = PbTxnRequest {
            compare: vec![created_at(&key, 0)],
            success: vec![op(PbTxnOpRequest::RequestPut(put)), oldest.clone()],
            failure: vec![op(PbTxnOpRequest::RequestRange(get)), oldest],
        };
        check::size(&txn)?;
        check::txn(&txn)?;
        let (header, done) = self.write_txn(space, txn).await.map_err(outward)?;
        let created = done.succeeded;
        let mut ranges = ranges(header, done).into_iter();
        let existing = if created {
            None
        } else {
            ranges.next().and_then(|r| r.kvs.into_iter().next())
        };
        let oldest = ranges
            .next()
            .and_then(|r| r.kvs.first().map(|kv| kv.create_revision));
        let create_revision = existing.as_ref().map_or(header.revision, |kv| kv.create_revision);
        Ok(Candidate {
            key,
            create_revision,
            existing,
            oldest,
            header,
        })
    }

    /// Returns once no key under the prefix is older than `create_revision`.
    pub(super) async fn wait_for_turn(
        &self,
        space: &KeySpace,
        prefix: &[u8],
        create_revision: i64,
    ) -> Result<(), Status> {
        loop {
            let before = PbRangeRequest {
                key: prefix.to_vec(),
                range_end: prefix_end(prefix),
                limit: 1,
                sort_order: 2,
                sort_target: 2,
                max_create_revision: create_revision - 1,
                ..PbRangeRequest::default()
            };
            let found = self.read_range(space, before).await.map_err(outward)?;
            let Some(kv) = found.kvs.into_iter().next() else {
                return Ok(());
            };
            let from = found.header.map_or(0, |header| header.revision) + 1;
            self.wait_for_delete(space, kv.key, from).await?;
        }
    }

    /// Returns when the key was deleted, or may have been: the caller looks again.
    async fn wait_for_delete(&self, space: &KeySpace, key: Vec<u8>, from: i64) -> Result<(), Status> {
        let create = Create {
            key: key.into(),
            start_revision: from,
            no_put: true,
            ..Create::default()
        };
        let mut watched = Watched::new(self, space, create);
        watched.next().await.map(drop)
    }

    /// Deletes the candidate's key, unless it is another one's by now.
    pub(super) async fn stand_down(
        &self,
        space: &KeySpace,
        key: Vec<u8>,
        create_revision: i64,
    ) -> Result<TxnHeader, Status> {
        let delete = PbDeleteRequest {
            key: key.clone(),
            ..PbDeleteRequest::default()
        };
        let txn = PbTxnRequest {
            compare: vec![created_at(&key, create_revision)],
            success: vec![op(PbTxnOpRequest::RequestDeleteRange(delete))],
            failure: Vec::new(),
        };
        check::txn(&txn)?;
        let (header, _) = self.write_txn(space, txn).await.map_err(outward)?;
        Ok(header)
    }

    /// Writes a new value to the candidate's key; `None` if the key is not its own any more.
    pub(super) async fn restate(
        &self,
        space: &KeySpace,
        key: Vec<u8>,
        create_revision: i64,
        lease: i64,
        value: Vec<u8>,
    ) -> Result<Option<TxnHeader>, Status> {
        let put = PbPutRequest {
            key: key.clone(),
            value,
            lease,
            ..PbPutRequest::default()
        };
        let txn = PbTxnRequest {
            compare: vec![created_at(&key, create_revision)],
            success: vec![op(PbTxnOpRequest::RequestPut(put))],
            failure: Vec::new(),
        };
        check::size(&txn)?;
        check::txn(&txn)?;
        let (header, done) = self.write_txn(space, txn).await.map_err(outward)?;
        Ok(done.succeeded.then_some(header))
    }
}

/// Header of a transaction.
pub(super) type TxnHeader = etcd_client::proto::PbResponseHeader;

fn ranges(header: TxnHeader, done: TxnDone) -> Vec<PbRangeResponse> {
    let responses = convert::txn_response(header, done).responses;
    let range = |response| match response {
        Some(PbTxnOpResponse::ResponseRange(range)) => Some(range),
        Some(_) | None => None,
    };
    responses
        .into_iter()
        .filter_map(|op| range(op.response))
        .collect()
}

/// A watch of the server itself.
pub(super) struct Watched {
    responses: Responses,
}

impl Watched {
    /// Begins it.
    pub(super) fn new(etcd: &Etcd, space: &KeySpace, create: Create) -> Watched {
        let source: Arc<dyn Source> = etcd.core.clone();
        let requests = futures::stream::iter([Ok(Request::Create(create))]).chain(futures::stream::pending());
        let responses = stream::open(
            etcd.core.hub(),
            source,
            space.clone(),
            Options::default(),
            Box::pin(requests),
        );
        Watched { responses }
    }

    /// The next events; none if the watch was cancelled, after which it says nothing more.
    pub(super) async fn next(&mut self) -> Result<Vec<PbEvent>, Status> {
        let mut events = Vec::new();
        while let Some(chunk) = self.responses.recv().await {
            let mut ended = false;
            for frame in chunk? {
                let response = frame
                    .into_response()
                    .map_err(|error| Status::internal(error.to_string()))?;
                ended |= response.canceled;
                events.extend(response.events);
            }
            if ended || !events.is_empty() {
                return Ok(events);
            }
        }
        Err(Status::unavailable("the watch ended"))
    }
}

/// Takes a candidate back if the request that made it ends, or its client goes away, before its turn came.
pub(super) struct Standing {
    etcd: Etcd,
    space: KeySpace,
    key: Bytes,
    create_revision: i64,
    armed: bool,
}

impl Standing {
    /// Watches over a candidate.
    pub(super) fn new(etcd: &Etcd, space: &KeySpace, candidate: &Candidate) -> Standing {
        Standing {
            etcd: etcd.clone(),
            space: space.clone(),
            key: Bytes::copy_from_slice(&candidate.key),
            create_revision: candidate.create_revision,
            armed: true,
        }
    }

    /// Its turn came.
    pub(super) fn keep(mut self) {
        self.armed = false;
    }
}

impl Drop for Standing {
    fn drop(&mut self) {
        if !self.armed {
            return;
        }
        let (etcd, space) = (self.etcd.clone(), self.space.clone());
        let (key, create_revision) = (self.key.to_vec(), self.create_revision);
        tokio::spawn(async move {
            if let Err(error) = etcd.stand_down(&space, key, create_revision).await {
                tracing::debug!(%error, "a waiting key stays until its lease ends");
            }
        });
    }
}
