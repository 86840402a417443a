//! What goes with a client's request from its arrival to its answer: an id, which the client may give and gets back,
//! and which stands in the log lines of every node the request passes; and the time by which the client wants to
//! know. Failures are counted and logged here.
//!
//! Every request comes through here, so a request that goes well costs two small allocations and no formatting.
//! A failure in the middle of a stream of answers is the stream's to tell.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use proto::metadata;
use tokio::time::Instant;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::codegen::http::{self, HeaderMap, HeaderName, HeaderValue};
use tonic::{Code, Status};
use tower::{Layer, Service};
use tracing::Instrument;
use types::limits::{FAILURES_LOGGED, REQUEST_ID_BYTES};

use crate::metrics::Metrics;

/// gRPC's header of how long a client waits.
static TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
/// gRPC's header of how a request ended, where no message precedes it.
static STATUS: HeaderName = HeaderName::from_static("grpc-status");
static ID: HeaderName = HeaderName::from_static(metadata::REQUEST_ID);
static ID_ELSEWHERE: HeaderName = HeaderName::from_static(metadata::REQUEST_ID_ELSEWHERE);
/// Over which [`FAILURES_LOGGED`] counts.
const WINDOW: Duration = Duration::from_secs(1);
/// The answer should be on its way this long before the client stops waiting, or a quarter of its patience.
const HEAD_START: Duration = Duration::from_millis(250);

tokio::task_local! {
    static CURRENT: Current;
}

/// The request that a task serves.
#[derive(Clone)]
struct Current {
    id: Bytes,
    answer_by: Option<Instant>,
}

/// The id of the request that this task serves; empty in the node's own tasks.
pub fn id() -> Bytes {
    CURRENT.try_with(|current| current.id.clone()).unwrap_or_default()
}

/// When the client of the request that this task serves wants to know, if it said so.
pub fn answer_by() -> Option<Instant> {
    CURRENT.try_with(|current| current.answer_by).ok().flatten()
}

/// An id, for log lines.
pub fn shown(id: &[u8]) -> &str {
    std::str::from_utf8(id).unwrap_or("?")
}

/// Letters, digits and a few marks: nothing that could forge a line of a log.
fn is_plain(id: &[u8]) -> bool {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:/+=".contains(byte);
    (1..=REQUEST_ID_BYTES).contains(&id.len()) && id.iter().all(plain)
}

/// The id that the client gave, unless it is unfit.
fn given(headers: &HeaderMap) -> Option<Bytes> {
    let value = headers.get(&ID).or_else(|| headers.get(&ID_ELSEWHERE))?;
    is_plain(value.as_bytes()).then(|| Bytes::copy_from_slice(value.as_bytes()))
}

/// How long there is for an answer that the client still waits for.
fn time_for_answer(headers: &HeaderMap) -> Option<Duration> {
    let wait = patience(headers)?;
    Some(wait - HEAD_START.min(wait / 4))
}

/// How long the client waits.
fn patience(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(&TIMEOUT)?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let number: u64 = digits.parse::<u32>().ok()?.into();
    Some(match unit {
        "H" => Duration::from_secs(number * 3600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

/// Ids for requests that bring none: a random start of the process, then a count.
struct Ids {
    process: u64,
    next: AtomicU64,
}

impl Ids {
    /// Hexadecimal digits of the process's part.
    const PROCESS_DIGITS: u32 = 12;

    fn next(&self) -> Bytes {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let digits = (16 - number.leading_zeros() / 4).max(1);
        // Exact, so that the bytes are taken over as they are.
        let mut text = Vec::with_capacity((Ids::PROCESS_DIGITS + 1 + digits) as usize);
        push_hex(&mut text, self.process, Ids::PROCESS_DIGITS);
        text.push(b'-');
        push_hex(&mut text, number, digits);
        Bytes::from(text)
    }
}

/// The last `digits` hexadecimal digits.
fn push_hex(text: &mut Vec<u8>, number: u64, digits: u32) {
    for place in (0..digits).rev() {
        text.push(b"0123456789abcdef"[(number >> (4 * place)) as usize & 15]);
    }
}

/// Keeps an outage from becoming a flood of lines.
struct Flood(Mutex<Window>);

struct Window {
    since: Instant,
    told: usize,
    untold: u64,
}

impl Flood {
    fn new() -> Flood {
        Flood(Mutex::new(Window {
            since: Instant::now(),
            told: 0,
            untold: 0,
        }))
    }

    /// Whether one more may be logged: then how many were not since the last one.
    fn admit(&self, now: Instant) -> Option<u64> {
        let mut window = self.0.lock();
        if now.saturating_duration_since(window.since) >= WINDOW {
            (window.since, window.told) = (now, 0);
        }
        if window.told >= FAILURES_LOGGED {
            window.untold += 1;
            return None;
        }
        window.told += 1;
        Some(std::mem::take(&mut window.untold))
    }
}

/// Gives each request of the client port its id, and the services behind it the way to know it.
#[derive(Clone)]
pub struct Requests(Arc<Shared>);

struct Shared {
    ids: Ids,
    metrics: Arc<Metrics>,
    flood: Flood,
}

impl Requests {
    /// `process` tells this process's ids from those of others and of earlier ones.
    pub fn new(process: u64, metrics: Arc<Metrics>) -> Requests {
        let ids = Ids {
            process,
            next: AtomicU64::new(1),
        };
        Requests(Arc::new(Shared {
            ids,
            metrics,
            flood: Flood::new(),
        }))
    }
}

impl<S> Layer<S> for Requests {
    type Service = Tracked<S>;

    fn layer(&self, inner: S) -> Tracked<S> {
        Tracked {
            inner,
            shared: self.0.clone(),
        }
    }
}

/// What [`Requests`] makes of a service.
#[derive(Clone)]
pub struct Tracked<S> {
    inner: S,
    shared: Arc<Shared>,
}

impl<S, Q, A> Service<http::Request<Q>> for Tracked<S>
where
    S: Service<http::Request<Q>, Response = http::Response<A>>,
    S::Future: Send + 'static,
{
    type Response = http::Response<A>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Q>) -> Self::Future {
        let shared = self.shared.clone();
        shared.metrics.requests.inc();
        let id = given(request.headers()).unwrap_or_else(|| shared.ids.next());
        let answer_by = time_for_answer(request.headers()).map(|time| Instant::now() + time);
        let path = request.uri().path_and_query().cloned();
        let span = tracing::debug_span!("request", id = shown(&id), path = request.uri().path());
        let current = Current {
            id: id.clone(),
            answer_by,
        };
        let served = CURRENT.scope(current, self.inner.call(request)).instrument(span);
        Box::pin(async move {
            let mut answer = served.await?;
            let headers = answer.headers_mut();
            if headers.get(&STATUS).is_some_and(|status| status != "0") {
                let path = path.as_ref().map_or("", PathAndQuery::path);
                shared.failed(&id, path, headers);
            }
            if let Ok(mut value) = HeaderValue::from_maybe_shared(id) {
                // Each is another: it has no place in the connection's table of headers.
                value.set_sensitive(true);
                headers.insert(&ID, value);
            }
            Ok(answer)
        })
    }
}

impl Shared {
    fn failed(&self, id: &[u8], path: &str, headers: &HeaderMap) {
        let Some(status) = Status::from_header_map(headers) else {
            return;
        };
        let code = status.code();
        self.metrics.failed(code);
        let detail = status.metadata().get(metadata::DETAIL);
        let detail = detail.and_then(|detail| detail.to_str().ok()).unwrap_or_default();
        let (request, text) = (shown(id), status.message());
        match code {
            Code::Internal | Code::Unavailable | Code::DataLoss => {
                if let Some(untold) = self.flood.admit(Instant::now()) {
                    tracing::warn!(request, path, ?code, text, detail, untold, "request failed");
                }
            }
            // The client's to mend, and told to it.
            _ => tracing::debug!(request, path, ?code, text, detail, "request refused"),
        }
    }
}

#[cfg(test)]
mod tests;
