//! The thinnest client of etcd's API that can load a server: gRPC's framing on one HTTP/2 connection, no retries, no
//! failover. Both systems are measured through it, on the cores they run on: what it costs hides what they cost.

use std::future::poll_fn;
use std::time::Duration;

use anyhow::Context;
use etcd_client::proto::{
    PbPutRequest, PbPutResponse, PbRangeRequest, PbRangeResponse, PbTxnOpRequest, PbTxnRequest,
    PbTxnRequestOp, PbTxnResponse, PbWatchRequest, PbWatchRequestUnion,
};
use h2::client::{ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use prost::Message;
use prost::bytes::{Buf, BufMut, Bytes, BytesMut};
use tonic::Status;
use tonic::codegen::http::uri::{Authority, PathAndQuery, Scheme};
use tonic::codegen::http::{HeaderMap, HeaderValue, Request, Uri, header};

use crate::events::{self, Events};
use crate::socket::Socket;

const CONNECT_LIMIT: Duration = Duration::from_secs(5);
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;
/// Of gRPC's framing: a flag for compression, and the length.
const PREFIX_BYTES: usize = 5;

/// One connection to one endpoint. Clones share it.
#[derive(Clone)]
pub struct Connection {
    requests: SendRequest<Bytes>,
    authority: Authority,
    namespace: Option<HeaderValue>,
}

impl Connection {
    /// Connects to `host:port`.
    pub async fn open(endpoint: &str) -> anyhow::Result<Connection> {
        let stream = tokio::time::timeout(CONNECT_LIMIT, Socket::connect(endpoint)).await;
        let stream = stream
            .with_context(|| format!("connect to {endpoint} within {CONNECT_LIMIT:?}"))?
            .with_context(|| format!("connect to {endpoint}"))?;
        let (requests, connection) = h2::client::Builder::new()
            .initial_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .enable_push(false)
            .handshake(stream)
            .await
            .with_context(|| format!("speak HTTP/2 to {endpoint}"))?;
        // Whoever waits for an answer is told how it ended.
        tokio::spawn(connection);
        Ok(Connection {
            requests,
            authority: endpoint.parse().context("endpoint")?,
            namespace: None,
        })
    }

    /// The same connection, speaking to a namespace.
    pub fn in_namespace(&self, name: &str) -> anyhow::Result<Connection> {
        Ok(Connection {
            namespace: Some(name.parse().context("namespace name")?),
            ..self.clone()
        })
    }

    /// Writes one key.
    pub async fn put(&mut self, key: Vec<u8>, value: Vec<u8>) -> Result<PbPutResponse, Status> {
        let request = PbPutRequest {
            key,
            value,
            ..PbPutRequest::default()
        };
        self.unary("/etcdserverpb.KV/Put", &request).await
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
        let request = PbTxnRequest {
            success: pairs.into_iter().map(put).collect(),
            ..PbTxnRequest::default()
        };
        self.unary("/etcdserverpb.KV/Txn", &request).await
    }

    /// Reads one key.
    pub async fn get(&mut self, key: Vec<u8>, serializable: bool) -> Result<PbRangeResponse, Status> {
        let request = PbRangeRequest {
            key,
            serializable,
            ..PbRangeRequest::default()
        };
        self.unary("/etcdserverpb.KV/Range", &request).await
    }

    /// Watches `[key, end)` on a stream of its own. The first message, which says that the watch is there, is
    /// taken off.
    pub async fn watch(&mut self, key: Vec<u8>, end: Vec<u8>) -> Result<Watching, Status> {
        let (answer, requests) = self
            .send("/etcdserverpb.Watch/Watch", &create(key, end), false)
            .await?;
        let mut watching = Watching {
            answers: Answers::of(answer).await?,
            _requests: requests,
        };
        match watching.message().await? {
            Some(_created) => Ok(watching),
            None => Err(Status::internal("the watch ended before it began")),
        }
    }

    async fn unary<R>(&mut self, path: &'static str, message: &impl Message) -> Result<R, Status>
    where
        R: Message + Default,
    {
        let (answer, _) = self.send(path, message, true).await?;
        let mut answers = Answers::of(answer).await?;
        let answer = answers
            .next()
            .await?
            .ok_or_else(|| Status::internal("no answer"))?;
        let answer = R::decode(answer).map_err(|error| Status::internal(format!("answer: {error}")))?;
        match answers.next().await? {
            Some(_) => Err(Status::internal("more than one answer")),
            None => Ok(answer),
        }
    }

    /// Opens a stream with its first, or only, message.
    async fn send(
        &mut self,
        path: &'static str,
        message: &impl Message,
        last: bool,
    ) -> Result<(ResponseFuture, SendStream<Bytes>), Status> {
        poll_fn(|cx| self.requests.poll_ready(cx)).await.map_err(lost)?;
        let (answer, mut body) = self
            .requests
            .send_request(self.request(path)?, false)
            .map_err(lost)?;
        body.send_data(framed(message), last).map_err(lost)?;
        Ok((answer, body))
    }

    fn request(&self, path: &'static str) -> Result<Request<()>, Status> {
        let uri = Uri::builder()
            .scheme(Scheme::HTTP)
            .authority(self.authority.clone())
            .path_and_query(PathAndQuery::from_static(path))
            .build();
        let mut request = Request::post(uri.map_err(|error| Status::internal(error.to_string()))?)
            .body(())
            .map_err(|error| Status::internal(error.to_string()))?;
        let headers = request.headers_mut();
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        if let Some(namespace) = &self.namespace {
            headers.insert(client::metadata::NAMESPACE, namespace.clone());
        }
        Ok(request)
    }
}

/// A watch's responses.
pub struct Watching {
    answers: Answers,
    /// Closing it would end the watch.
    _requests: SendStream<Bytes>,
}

impl Watching {
    /// The events of the next response.
    pub async fn message(&mut self) -> Result<Option<Events>, Status> {
        let Some(mut answer) = self.answers.next().await? else {
            return Ok(None);
        };
        events::read(&mut answer)
            .map(Some)
            .map_err(|error| Status::internal(format!("malformed watch response: {error}")))
    }
}

/// The messages of one stream.
struct Answers {
    body: RecvStream,
    received: BytesMut,
}

impl Answers {
    async fn of(answer: ResponseFuture) -> Result<Answers, Status> {
        let answer = answer.await.map_err(lost)?;
        ended(answer.headers())?;
        Ok(Answers {
            body: answer.into_body(),
            received: BytesMut::new(),
        })
    }

    /// The next message; `None` once the stream ended well.
    async fn next(&mut self) -> Result<Option<Bytes>, Status> {
        loop {
            if let Some(length) = self.received.get(1..PREFIX_BYTES) {
                let length = length.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte));
                if self.received.len() >= PREFIX_BYTES + length {
                    self.received.advance(PREFIX_BYTES);
                    return Ok(Some(self.received.split_to(length).freeze()));
                }
            }
            match self.body.data().await {
                Some(chunk) => {
                    let chunk = chunk.map_err(lost)?;
                    let flow = self.body.flow_control();
                    flow.release_capacity(chunk.len()).map_err(lost)?;
                    self.received.extend_from_slice(&chunk);
                }
                None => break,
            }
        }
        if let Some(trailers) = self.body.trailers().await.map_err(lost)? {
            ended(&trailers)?;
        }
        Ok(None)
    }
}

/// The failure that these headers or trailers tell of, if they do.
fn ended(headers: &HeaderMap) -> Result<(), Status> {
    match Status::from_header_map(headers) {
        Some(status) if status.code() != tonic::Code::Ok => Err(status),
        Some(_) | None => Ok(()),
    }
}

fn lost(error: h2::Error) -> Status {
    Status::unavailable(error.to_string())
}

fn framed(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut frame = BytesMut::with_capacity(PREFIX_BYTES + length);
    frame.put_u8(0);
    frame.put_u32(length as u32);
    message
        .encode(&mut frame)
        .expect("a buffer that grows has room for any message");
    frame.freeze()
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
