//! etcd's `KV` service.

use std::pin::Pin;

use etcd_client::proto::{
    PbCompactionRequest, PbCompactionResponse, PbDeleteRequest, PbDeleteResponse, PbKvService, PbPutRequest,
    PbPutResponse, PbRangeRequest, PbRangeResponse, PbRangeStreamResponse, PbTxnRequest, PbTxnResponse,
};
use futures::Stream;
use machine::command::{Body, Compact, CompactStep};
use machine::outcome::{Done, TxnDone};
use machine::query::{Ask, Told};
use tonic::{Request, Response, Status, async_trait};
use types::limits;

use super::{Etcd, check, convert, mismatch, told};
use crate::core::KeySpace;
use crate::service::error;

/// Pairs in one message of a range stream, until their bytes reach [`limits::WATCH_RESPONSE_BYTES`].
const STREAM_PAIRS: usize = 1000;

#[async_trait]
impl PbKvService for Etcd {
    async fn range(&self, request: Request<PbRangeRequest>) -> Result<Response<PbRangeResponse>, Status> {
        let space = self.space(request.metadata()).await?;
        let asked = request.into_inner();
        check::size(&asked)?;
        check::range(&asked)?;
        Ok(Response::new(self.read_range(&space, asked).await?))
    }

    type RangeStreamStream = Pin<Box<dyn Stream<Item = Result<PbRangeStreamResponse, Status>> + Send>>;

    async fn range_stream(
        &self,
        request: Request<PbRangeRequest>,
    ) -> Result<Response<Self::RangeStreamStream>, Status> {
        let whole = self.range(request).await?.into_inner();
        let parts = chunks(whole).into_iter().map(|part| {
            Ok(PbRangeStreamResponse {
                range_response: Some(part),
            })
        });
        Ok(Response::new(Box::pin(futures::stream::iter(parts))))
    }

    async fn put(&self, request: Request<PbPutRequest>) -> Result<Response<PbPutResponse>, Status> {
        let space = self.space(request.metadata()).await?;
        let asked = request.into_inner();
        check::size(&asked)?;
        check::put(&asked)?;
        let written = self.write(&space, Body::Put(convert::put(asked))).await?;
        match written.done {
            Some(Done::Put(put)) => Ok(Response::new(convert::put_response(written.header, put))),
            _ => Err(mismatch("a put")),
        }
    }

    async fn delete_range(
        &self,
        request: Request<PbDeleteRequest>,
    ) -> Result<Response<PbDeleteResponse>, Status> {
        let space = self.space(request.metadata()).await?;
        let asked = request.into_inner();
        check::size(&asked)?;
        check::delete(&asked)?;
        let written = self
            .write(&space, Body::DeleteRange(convert::delete(asked)))
            .await?;
        match written.done {
            Some(Done::Deleted(deleted)) => {
                Ok(Response::new(convert::delete_response(written.header, deleted)))
            }
            _ => Err(mismatch("a delete")),
        }
    }

    async fn txn(&self, request: Request<PbTxnRequest>) -> Result<Response<PbTxnResponse>, Status> {
        let space = self.space(request.metadata()).await?;
        let asked = request.into_inner();
        check::size(&asked)?;
        check::txn(&asked)?;
        if check::reads_only(&asked) {
            return self.read_txn(&space, asked).await.map(Response::new);
        }
        let written = self.write(&space, Body::Txn(convert::txn(asked))).await?;
        match written.done {
            Some(Done::Txn(done)) => Ok(Response::new(convert::txn_response(written.header, done))),
            _ => Err(mismatch("a transaction")),
        }
    }

    async fn compact(
        &self,
        request: Request<PbCompactionRequest>,
    ) -> Result<Response<PbCompactionResponse>, Status> {
        let space = self.space(request.metadata()).await?;
        let asked = request.into_inner();
        let written = self
            .write(
                &space,
                Body::Compact(Compact {
                    revision: asked.revision,
                }),
            )
            .await?;
        if asked.physical {
            self.remove_compacted(&space).await.map_err(error::after_write)?;
        }
        Ok(Response::new(PbCompactionResponse {
            header: Some(written.header),
        }))
    }
}

impl Etcd {
    pub(super) async fn read_range(
        &self,
        space: &KeySpace,
        asked: PbRangeRequest,
    ) -> Result<PbRangeResponse, Status> {
        let serializable = asked.serializable;
        let queried = self
            .ask(space, Ask::Range(convert::range(asked)), serializable)
            .await?;
        let header = self.header_of(&queried);
        match told(queried)? {
            Told::Range(range) => Ok(convert::range_response(header, range)),
            _ => Err(mismatch("a range")),
        }
    }

    /// A transaction that cannot write needs no log entry.
    async fn read_txn(&self, space: &KeySpace, asked: PbTxnRequest) -> Result<PbTxnResponse, Status> {
        let serializable = check::serializable(&asked);
        let queried = self
            .ask(space, Ask::Txn(convert::txn(asked)), serializable)
            .await?;
        let header = self.header_of(&queried);
        match told(queried)? {
            Told::Txn(done) => Ok(convert::txn_response(header, done)),
            _ => Err(mismatch("a transaction")),
        }
    }

    /// Removes compacted records step by step until none is left, leaving room for other writes in between.
    async fn remove_compacted(&self, space: &KeySpace) -> Result<(), Status> {
        loop {
            let step = CompactStep {
                records: limits::COMPACT_STEP_RECORDS as u32,
            };
            match self.write(space, Body::CompactStep(step)).await?.done {
                Some(Done::Step(step)) if step.remaining => tokio::task::yield_now().await,
                Some(Done::Step(_)) => return Ok(()),
                _ => return Err(mismatch("a compaction step")),
            }
        }
    }

    pub(super) async fn write_txn(
        &self,
        space: &KeySpace,
        asked: PbTxnRequest,
    ) -> Result<(etcd_client::proto::PbResponseHeader, TxnDone), Status> {
        let written = self.write(space, Body::Txn(convert::txn(asked))).await?;
        match written.done {
            Some(Done::Txn(done)) => Ok((written.header, done)),
            _ => Err(mismatch("a transaction")),
        }
    }
}

/// Parts whose merger is the whole; header, `more` and `count` come with the last.
fn chunks(mut whole: PbRangeResponse) -> Vec<PbRangeResponse> {
    let mut parts = Vec::new();
    let mut part = PbRangeResponse::default();
    let mut size_bytes = 0;
    for kv in std::mem::take(&mut whole.kvs) {
        size_bytes += kv.key.len() + kv.value.len();
        part.kvs.push(kv);
        if part.kvs.len() >= STREAM_PAIRS || size_bytes >= limits::WATCH_RESPONSE_BYTES {
            parts.push(std::mem::take(&mut part));
            size_bytes = 0;
        }
    }
    parts.push(PbRangeResponse {
        kvs: part.kvs,
        ..whole
    });
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use etcd_client::proto::PbKeyValue;

    #[test]
    fn a_range_stream_carries_everything_once() {
        let kvs: Vec<_> = (0..2500u32)
            .map(|n| PbKeyValue {
                key: n.to_be_bytes().to_vec(),
                ..PbKeyValue::default()
            })
            .collect();
        let whole = PbRangeResponse {
            kvs: kvs.clone(),
            count: 2500,
            more: true,
            header: None,
        };
        let parts = chunks(whole);
        assert_eq!(
            parts.iter().map(|p| p.kvs.len()).collect::<Vec<_>>(),
            [1000, 1000, 500]
        );
        assert_eq!(parts.iter().map(|p| p.count).collect::<Vec<_>>(), [0, 0, 2500]);
        assert_eq!(parts.into_iter().flat_map(|p| p.kvs).collect::<Vec<_>>(), kvs);
    }
}
