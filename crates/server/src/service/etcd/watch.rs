//! etcd's `Watch` service. Written by hand where the library generates: responses are [`Frame`]s, whose events were
//! encoded once for all watches.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use etcd_client::proto::{PbWatchRequest, PbWatchRequestUnion};
use futures::{Stream, StreamExt};
use prost::Message;
use tonic::body::Body;
use tonic::codec::{Codec, CompressionEncoding, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::{BoxFuture, Service, http};
use tonic::server::{Grpc, NamedService, StreamingService};
use tonic::{Response, Status, Streaming};

use super::Etcd;
use crate::service::error;
use crate::watch::Source;
use crate::watch::frame::Frame;
use crate::watch::stream::{self, Create, Options, Request};

/// etcd's metadata of streams that should end when there is no leader.
const REQUIRE_LEADER: &str = "hasleader";

/// Decodes requests, encodes frames.
#[derive(Debug, Clone, Copy, Default)]
struct FrameCodec;

impl Codec for FrameCodec {
    type Encode = Frame;
    type Decode = PbWatchRequest;
    type Encoder = FrameCodec;
    type Decoder = FrameCodec;

    fn encoder(&mut self) -> FrameCodec {
        FrameCodec
    }

    fn decoder(&mut self) -> FrameCodec {
        FrameCodec
    }
}

impl Encoder for FrameCodec {
    type Item = Frame;
    type Error = Status;

    fn encode(&mut self, frame: Frame, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        frame
            .encode(out)
            .map_err(|error| Status::internal(error.to_string()))
    }
}

impl Decoder for FrameCodec {
    type Item = PbWatchRequest;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<PbWatchRequest>, Status> {
        let request = PbWatchRequest::decode(from);
        request
            .map(Some)
            .map_err(|error| Status::internal(format!("not a WatchRequest: {error}")))
    }
}

/// The service.
#[derive(Clone)]
pub(super) struct WatchServer {
    etcd: Etcd,
}

impl WatchServer {
    /// Mounts it.
    pub(super) fn new(etcd: Etcd) -> WatchServer {
        WatchServer { etcd }
    }
}

impl NamedService for WatchServer {
    const NAME: &'static str = "etcdserverpb.Watch";
}

type Frames = Pin<Box<dyn Stream<Item = Result<Frame, Status>> + Send>>;

impl StreamingService<PbWatchRequest> for WatchServer {
    type Response = Frame;
    type ResponseStream = Frames;
    type Future = BoxFuture<Response<Frames>, Status>;

    fn call(&mut self, request: tonic::Request<Streaming<PbWatchRequest>>) -> Self::Future {
        let etcd = self.etcd.clone();
        Box::pin(async move { etcd.open_watch(request).await })
    }
}

impl Service<http::Request<Body>> for WatchServer {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<http::Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        if request.uri().path() != "/etcdserverpb.Watch/Watch" {
            let status = Status::unimplemented("etcdserverpb.Watch has the method Watch only");
            return Box::pin(std::future::ready(Ok(status.into_http())));
        }
        let service = self.clone();
        Box::pin(async move {
            let mut grpc = Grpc::new(FrameCodec).accept_compressed(CompressionEncoding::Gzip);
            Ok(grpc.streaming(service, request).await)
        })
    }
}

impl Etcd {
    async fn open_watch(
        &self,
        request: tonic::Request<Streaming<PbWatchRequest>>,
    ) -> Result<Response<Frames>, Status> {
        let space = self.space(request.metadata()).await?;
        let require_leader = request
            .metadata()
            .get(REQUIRE_LEADER)
            .is_some_and(|value| value == "true");
        // Without a replica here the stream finds out by asking.
        let tells = self.core.is_local(space.partition);
        if require_leader && tells && self.core.leader(space.partition).is_none() {
            return Err(error::NO_LEADER.into());
        }
        let requests = request.into_inner().filter_map(|request| {
            std::future::ready(request.map(|request| convert(request.request_union)).transpose())
        });
        let source: Arc<dyn Source> = self.core.clone();
        let options = Options {
            require_leader,
            progress_every: self.progress_every,
        };
        let chunks = stream::open(self.core.hub(), source, space, options, Box::pin(requests));
        let frames = chunks.flat_map(|chunk| {
            let frames: Vec<Result<Frame, Status>> = match chunk {
                Ok(frames) => frames.into_iter().map(Ok).collect(),
                Err(status) => vec![Err(status)],
            };
            futures::stream::iter(frames)
        });
        Ok(Response::new(Box::pin(frames)))
    }
}

/// Requests of kinds that this build does not know are ignored, as etcd does.
fn convert(union: Option<PbWatchRequestUnion>) -> Option<Request> {
    Some(match union? {
        PbWatchRequestUnion::CreateRequest(create) => Request::Create(Create {
            key: Bytes::from(create.key),
            range_end: Bytes::from(create.range_end),
            start_revision: create.start_revision,
            previous: create.prev_kv,
            no_put: create.filters.contains(&0),
            no_delete: create.filters.contains(&1),
            progress: create.progress_notify,
            fragment: create.fragment,
            watch_id: create.watch_id,
        }),
        PbWatchRequestUnion::CancelRequest(cancel) => Request::Cancel(cancel.watch_id),
        PbWatchRequestUnion::ProgressRequest(_) => Request::Progress,
    })
}
