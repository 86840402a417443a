//! Requests as they go over the wire: with metadata, and with fields that a client library would never send.

use std::io::ErrorKind;
use std::time::Duration;

use anyhow::Result;
use tonic::codec::{Codec, Streaming};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

/// Longest wait for a connection.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// Largest answer taken.
const ANSWER_BYTES: usize = 64 * 1024 * 1024;

/// One connection to one server.
#[derive(Clone)]
pub struct Raw {
    grpc: tonic::client::Grpc<Channel>,
}

impl Raw {
    /// Connects to `host:port`.
    pub async fn connect(endpoint: &str) -> Result<Raw> {
        let endpoint = Endpoint::from_shared(format!("http://{endpoint}"))?.connect_timeout(CONNECT_LIMIT);
        let grpc = tonic::client::Grpc::new(endpoint.connect().await?);
        Ok(Raw {
            grpc: grpc.max_decoding_message_size(ANSWER_BYTES),
        })
    }

    /// One request, one answer. `path` is `/package.Service/Method`.
    pub async fn call<Q, A>(&mut self, path: &'static str, message: Q) -> Result<A, Status>
    where
        ProstCodec<Q, A>: Codec<Encode = Q, Decode = A> + Default,
        Q: Send + Sync + 'static,
        A: Send + Sync + 'static,
    {
        self.call_in(None, path, message).await
    }

    /// The same in a namespace.
    pub async fn call_in<Q, A>(
        &mut self,
        namespace: Option<&'static str>,
        path: &'static str,
        message: Q,
    ) -> Result<A, Status>
    where
        ProstCodec<Q, A>: Codec<Encode = Q, Decode = A> + Default,
        Q: Send + Sync + 'static,
        A: Send + Sync + 'static,
    {
        let mut request = Request::new(message);
        if let Some(name) = namespace {
            request
                .metadata_mut()
                .insert("holdfast-namespace", MetadataValue::from_static(name));
        }
        self.ready().await?;
        let path = PathAndQuery::from_static(path);
        let answer = self.grpc.unary(request, path, ProstCodec::default()).await?;
        Ok(answer.into_inner())
    }

    /// Many requests, many answers.
    pub async fn stream<Q, A>(
        &mut self,
        path: &'static str,
        requests: impl futures::Stream<Item = Q> + Send + 'static,
    ) -> Result<Streaming<A>, Status>
    where
        ProstCodec<Q, A>: Codec<Encode = Q, Decode = A> + Default,
        Q: Send + Sync + 'static,
        A: Send + Sync + 'static,
    {
        self.ready().await?;
        let path = PathAndQuery::from_static(path);
        let answer = self
            .grpc
            .streaming(Request::new(requests), path, ProstCodec::default())
            .await?;
        Ok(answer.into_inner())
    }

    async fn ready(&mut self) -> Result<(), Status> {
        let ready = self.grpc.ready().await;
        ready.map_err(|error| Status::from_error(Box::new(error)))
    }
}

/// Whether the server never saw the request, so that a client may send it elsewhere: nobody listened there any more, or
/// the connection was closed before the request was written to it.
pub fn never_sent(status: &Status) -> bool {
    let mut cause = std::error::Error::source(status);
    // As hyper hands back a request that it had taken and not begun to send; a server's own status has no cause.
    if status.code() == Code::Cancelled && cause.is_some() {
        return true;
    }
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<std::io::Error>()
            && io.kind() == ErrorKind::ConnectionRefused
        {
            return true;
        }
        cause = error.source();
    }
    false
}
