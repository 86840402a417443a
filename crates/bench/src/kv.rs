//! The thinnest client of etcd's API that can load a server: one HTTP/2 connection, no retries, no failover. Both
//! systems are measured through it.

use anyhow::Context;
use etcd_client::proto::{
    PbPutRequest, PbPutResponse, PbRangeRequest, PbRangeResponse, PbTxnOpRequest, PbTxnRequest,
    PbTxnRequestOp, PbTxnResponse, PbWatchRequest, PbWatchRequestUnion,
};
use futures::StreamExt;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status, Streaming};
use tonic_prost::ProstCodec;

use crate::watch_codec::{Events, WatchCodec};

/// One connection to one endpoint. Clones share it.
#[derive(Clone)]
pub struct Connection {
    grpc: Grpc<Channel>,
    namespace: Option<MetadataValue<Ascii>>,
}

impl Connection {
    /// Connects to `host:port`.
    pub async fn open(endpoint: &str) -> anyhow::Result<Connection> {
        let channel = Endpoint::from_shared(format!("http://{endpoint}"))?
            .connect_timeout(std::time::Duration::from_secs(5))
            .initial_stream_window_size(1 << 20)
            .initial_connection_window_size(8 << 20)
            .connect()
            .await
            .with_context(|| format!("connect to {endpoint}"))?;
        let grpc = Grpc::new(channel).max_decoding_message_size(64 << 20);
        Ok(Connection {
            grpc,
            namespace: None,
        })
    }

    /// The same connection, speaking to a namespace.
    pub fn in_namespace(&self, name: &str) -> anyhow::Result<Connection> {
        Ok(Connection {
            grpc: self.grpc.clone(),
            namespace: Some(name.parse().context("namespace name")?),
        })
    }

    /// Writes one key.
    pub async fn put(&mut self, key: Vec<u8>, value: Vec<u8>) -> Result<PbPutResponse, Status> {
        let request = PbPutRequest {
            key,
            value,
            ..PbPutRequest::default()
        };
        self.unary("/etcdserverpb.KV/Put", request).await
    }

    /// Writes several keys in one transaction.
    pub async fn put_all(&mut self, pairs: Vec<(Vec<u8>, Vec<u8>)>) -> Result<PbTxnResponse, Status> {
        let put = |(key, value)| PbTxnRequestOp {
            request: Some(PbTxnOpRequest::RequestPut(PbPutRequest {
                key,
                value,
                ..PbPutRequest::default()
            })),
        };
        let success = pairs.into_iter().map(put).collect();
        self.unary(
            "/etcdserverpb.KV/Txn",
            PbTxnRequest {
                success,
                ..PbTxnRequest::default()
            },
        )
        .await
    }

    /// Reads one key.
    pub async fn get(&mut self, key: Vec<u8>, serializable: bool) -> Result<PbRangeResponse, Status> {
        let request = PbRangeRequest {
            key,
            serializable,
            ..PbRangeRequest::default()
        };
        self.unary("/etcdserverpb.KV/Range", request).await
    }

    /// Watches `[key, end)` on a stream of its own. The first message, which says that the watch is there, is
    /// taken off.
    pub async fn watch(&mut self, key: Vec<u8>, end: Vec<u8>) -> Result<Streaming<Events>, Status> {
        let create = create(key, end);
        // The request side stays open: closing it would end the watch.
        let requests = futures::stream::iter([create]).chain(futures::stream::pending());
        let path = PathAndQuery::from_static("/etcdserverpb.Watch/Watch");
        self.grpc
            .ready()
            .await
            .map_err(|error| Status::unavailable(error.to_string()))?;
        let mut responses = self
            .grpc
            .streaming(self.request(requests), path, WatchCodec)
            .await?
            .into_inner();
        match responses.message().await? {
            Some(_created) => Ok(responses),
            None => Err(Status::internal("the watch ended before it began")),
        }
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(name) = &self.namespace {
            request
                .metadata_mut()
                .insert(client::metadata::NAMESPACE, name.clone());
        }
        request
    }

    async fn unary<M, R>(&mut self, path: &'static str, message: M) -> Result<R, Status>
    where
        M: prost::Message + 'static,
        R: prost::Message + Default + 'static,
    {
        self.grpc
            .ready()
            .await
            .map_err(|error| Status::unavailable(error.to_string()))?;
        let codec = ProstCodec::<M, R>::default();
        let request = self.request(message);
        Ok(self
            .grpc
            .unary(request, PathAndQuery::from_static(path), codec)
            .await?
            .into_inner())
    }
}

fn create(key: Vec<u8>, range_end: Vec<u8>) -> PbWatchRequest {
    // The library keeps the type of the inner message to itself; it can be made and filled, not named.
    let mut union = PbWatchRequestUnion::CreateRequest(Default::default());
    if let PbWatchRequestUnion::CreateRequest(create) = &mut union {
        create.key = key;
        create.range_end = range_end;
    }
    PbWatchRequest {
        request_union: Some(union),
    }
}
