//! Watch streams: what is said on them, in which order, and what is not.

use std::time::Duration;

use anyhow::{Context, Result};
use etcd_client::proto::{
    PbCompactionRequest, PbCompactionResponse, PbEvent, PbPutRequest, PbPutResponse, PbWatchRequest,
    PbWatchRequestUnion, PbWatchResponse,
};
use tests::raw::Raw;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::codec::Streaming;

use super::{Pair, read};

/// Longest wait for a response that is due.
const LIMIT: Duration = Duration::from_secs(20);
const WATCH: &str = "/etcdserverpb.Watch/Watch";

/// A watch to be made; fields as etcd's.
#[derive(Clone, Default)]
struct Create {
    key: &'static str,
    range_end: &'static str,
    start_revision: i64,
    filters: Vec<i32>,
    prev_kv: bool,
    watch_id: i64,
    fragment: bool,
}

fn create(wanted: Create) -> PbWatchRequest {
    // The library does not export the message itself.
    let mut union = PbWatchRequestUnion::CreateRequest(Default::default());
    if let PbWatchRequestUnion::CreateRequest(message) = &mut union {
        message.key = wanted.key.into();
        message.range_end = wanted.range_end.into();
        message.start_revision = wanted.start_revision;
        message.filters = wanted.filters;
        message.prev_kv = wanted.prev_kv;
        message.watch_id = wanted.watch_id;
        message.fragment = wanted.fragment;
    }
    PbWatchRequest {
        request_union: Some(union),
    }
}

fn cancel(watch_id: i64) -> PbWatchRequest {
    let mut union = PbWatchRequestUnion::CancelRequest(Default::default());
    if let PbWatchRequestUnion::CancelRequest(message) = &mut union {
        message.watch_id = watch_id;
    }
    PbWatchRequest {
        request_union: Some(union),
    }
}

fn progress() -> PbWatchRequest {
    PbWatchRequest {
        request_union: Some(PbWatchRequestUnion::ProgressRequest(Default::default())),
    }
}

/// One stream to one server.
struct Stream {
    requests: mpsc::UnboundedSender<PbWatchRequest>,
    responses: Streaming<PbWatchResponse>,
    raw: Raw,
}

impl Stream {
    /// Opens it with a first request: etcd answers nothing before one.
    async fn open(endpoint: &str, first: PbWatchRequest) -> Result<Stream> {
        let (requests, sent) = mpsc::unbounded_channel();
        requests.send(first)?;
        let mut raw = Raw::connect(endpoint).await?;
        let responses = raw.stream(WATCH, UnboundedReceiverStream::new(sent)).await?;
        Ok(Stream {
            requests,
            responses,
            raw,
        })
    }

    async fn next(&mut self) -> Result<PbWatchResponse> {
        let message = timeout(LIMIT, self.responses.message()).await;
        message
            .context("no response in time")??
            .context("the stream ended")
    }

    async fn put(&mut self, key: &str, value: &str) -> Result<()> {
        let message = PbPutRequest {
            key: key.into(),
            value: value.into(),
            ..PbPutRequest::default()
        };
        let _: PbPutResponse = self.raw.call("/etcdserverpb.KV/Put", message).await?;
        Ok(())
    }

    /// All events up to a revision, however they were cut into responses; each as it reads.
    async fn events_to(&mut self, revision: i64) -> Result<Vec<String>> {
        let mut events = Vec::new();
        loop {
            let response = self.next().await?;
            let id = response.watch_id;
            let last = response.events.iter().filter_map(at).max();
            events.extend(response.events.iter().map(|event| format!("{id}: {event:?}")));
            // The last of several fragments says so.
            if last >= Some(revision) && !response.fragment {
                return Ok(events);
            }
        }
    }
}

fn at(event: &PbEvent) -> Option<i64> {
    event.kv.as_ref().map(|kv| kv.mod_revision)
}

/// What ids, refusals, cancels and progress look like on one stream. Every line is one response.
async fn conversation(endpoint: &str) -> Result<Vec<String>> {
    let of = |key, watch_id| {
        create(Create {
            key,
            watch_id,
            ..Create::default()
        })
    };
    let mut stream = Stream::open(endpoint, of("a", 0)).await?;
    let mut said = vec![read(Ok(stream.next().await?))?];
    let empty = create(Create {
        key: "b",
        range_end: "a",
        ..Create::default()
    });
    let deaf = create(Create {
        key: "a",
        filters: vec![0, 1, 9],
        watch_id: 20,
        ..Create::default()
    });
    for request in [
        of("a", 7),
        of("b", 7),
        of("b", 0),
        empty,
        deaf,
        progress(),
        cancel(7),
        // Nobody has it: nothing is said.
        cancel(99),
        progress(),
    ] {
        let silent = request == cancel(99);
        stream.requests.send(request)?;
        if !silent {
            said.push(read(Ok(stream.next().await?))?);
        }
    }
    stream.put("a", "1").await?;
    said.push(read(Ok(stream.next().await?))?);
    stream.put("b", "1").await?;
    said.push(read(Ok(stream.next().await?))?);
    stream.requests.send(progress())?;
    said.push(read(Ok(stream.next().await?))?);
    Ok(said)
}

/// A watch that begins in the future holds until then; one with an empty key sees what has no bytes before it.
async fn later(endpoint: &str) -> Result<Vec<String>> {
    let ahead = create(Create {
        key: "a",
        start_revision: 6,
        prev_kv: true,
        ..Create::default()
    });
    let mut stream = Stream::open(endpoint, ahead).await?;
    let mut said = vec![read(Ok(stream.next().await?))?];
    for value in ["4", "5", "6", "7"] {
        stream.put("a", value).await?;
    }
    said.extend(stream.events_to(7).await?);
    for (key, range_end) in [("", ""), ("\0", "\0"), ("", "\0")] {
        let request = create(Create {
            key,
            range_end,
            start_revision: 6,
            ..Create::default()
        });
        stream.requests.send(request)?;
        said.push(read(Ok(stream.next().await?))?);
        if range_end == "\0" {
            said.extend(stream.events_to(7).await?);
        }
    }
    Ok(said)
}

/// More than fits into one response, with leave to cut it and without.
async fn large(endpoint: &str, fragment: bool, from: i64) -> Result<Vec<String>> {
    let mut stream = Stream::open(
        endpoint,
        create(Create {
            key: "none",
            ..Create::default()
        }),
    )
    .await?;
    stream.next().await?;
    for n in 0..4 {
        stream.put(&format!("big/{n}"), &"x".repeat(1024 * 1024)).await?;
    }
    let request = create(Create {
        key: "big/",
        range_end: "big0",
        start_revision: from,
        fragment,
        ..Create::default()
    });
    stream.requests.send(request)?;
    let mut said = vec![read(Ok(stream.next().await?))?];
    let events = stream.events_to(from + 3).await?;
    said.extend(
        events
            .iter()
            .map(|event| format!("{} bytes: {:.60}", event.len(), event)),
    );
    Ok(said)
}

/// Watches that begin in a past that was compacted.
async fn compacted(endpoint: &str) -> Result<Vec<String>> {
    let mut said = Vec::new();
    let mut stream = Stream::open(
        endpoint,
        create(Create {
            key: "none",
            ..Create::default()
        }),
    )
    .await?;
    stream.next().await?;
    let message = PbCompactionRequest {
        revision: 6,
        physical: true,
    };
    let _: PbCompactionResponse = stream.raw.call("/etcdserverpb.KV/Compact", message).await?;
    for start_revision in [-5, -1, 1, 5] {
        let request = create(Create {
            key: "a",
            start_revision,
            ..Create::default()
        });
        stream.requests.send(request)?;
        said.push(read(Ok(stream.next().await?))?);
        // In the header of the refusal etcd leaves the revision out.
        let header = None;
        let refused = stream.next().await?;
        said.push(read(Ok(PbWatchResponse { header, ..refused }))?);
    }
    let whole = create(Create {
        key: "a",
        start_revision: 6,
        ..Create::default()
    });
    stream.requests.send(whole)?;
    said.push(read(Ok(stream.next().await?))?);
    said.extend(stream.events_to(7).await?);
    Ok(said)
}

/// Compares them all. They build on each other: revisions go on.
pub async fn compare(pair: &mut Pair) -> Result<()> {
    let etcd = pair.etcd.endpoint.clone();
    let expected = conversation(&etcd).await.context("etcd")?;
    let got = conversation(pair.ours()).await.context("holdfast")?;
    compare_lines(pair, "conversation", &expected, &got);
    let expected = later(&etcd).await.context("etcd")?;
    let got = later(pair.ours()).await.context("holdfast")?;
    compare_lines(pair, "later", &expected, &got);
    for (fragment, from) in [(true, 8), (false, 12)] {
        let expected = large(&etcd, fragment, from).await.context("etcd")?;
        let got = large(pair.ours(), fragment, from).await.context("holdfast")?;
        compare_lines(pair, "large", &expected, &got);
    }
    let expected = compacted(&etcd).await.context("etcd")?;
    let got = compacted(pair.ours()).await.context("holdfast")?;
    compare_lines(pair, "compacted", &expected, &got);
    Ok(())
}

fn compare_lines(pair: &mut Pair, what: &str, expected: &[String], got: &[String]) {
    for n in 0..expected.len().max(got.len()) {
        let line = |lines: &[String]| lines.get(n).map_or("nothing", String::as_str).to_owned();
        pair.compare(&format!("{what} {n}"), &line(expected), &line(got));
    }
}
