//! Appends to one replica, many in flight, answers in order. Requests are taken from the source while answers are
//! waited for, by the same future.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use openraft::errors::{NetworkError, RPCError};
use proto::peer::{self, Kind, Lane};
use tokio::time::{Instant, Sleep};
use types::planted::{self, Planted};

use super::APPENDS_IN_FLIGHT;
use super::client::{GroupClient, malformed, rpc_error};
use crate::convert;
use crate::peer::Reply;
use crate::types::{AppendRequest, AppendResponse, LogId, StreamAppendResult, TypeConfig};

/// How long the news that the log is committed further waits for entries to go with. Who waits for it elsewhere
/// does not wait so long: see [`crate::committed`].
const HOLD: Duration = Duration::from_millis(1);

type Answer = Result<StreamAppendResult, RPCError<TypeConfig>>;

struct Sent {
    reply: Reply,
    until: Instant,
    prev: Option<LogId>,
    last: Option<LogId>,
}

/// See the module.
pub(super) struct Pipeline<'a, S> {
    client: &'a GroupClient,
    /// `None` once it ended or a request could not be sent.
    input: Option<S>,
    sent: VecDeque<Sent>,
    /// A request without entries: it only tells how far the log is committed, and the next one tells that too.
    held: Option<AppendRequest>,
    release: Pin<Box<Sleep>>,
    /// Comes after the answers to what was sent before.
    failed: Option<RPCError<TypeConfig>>,
    limit: Duration,
    timer: Pin<Box<Sleep>>,
}

impl<'a, S> Pipeline<'a, S>
where
    S: Stream<Item = AppendRequest> + Unpin,
{
    pub(super) fn new(client: &'a GroupClient, input: S, limit: Duration) -> Pipeline<'a, S> {
        Pipeline {
            client,
            input: Some(input),
            sent: VecDeque::new(),
            held: None,
            release: Box::pin(tokio::time::sleep(HOLD)),
            failed: None,
            limit,
            timer: Box::pin(tokio::time::sleep(limit)),
        }
    }

    fn send(&mut self, request: &AppendRequest) {
        let prev = request.prev_log_id;
        let last = request.entries.last().map(|entry| entry.log_id).or(prev);
        let body = convert::encode(&convert::append_request_out(request));
        match self.client.begin(Lane::Log, Kind::Append, body) {
            Ok(reply) => self.sent.push_back(Sent {
                reply,
                until: Instant::now() + self.limit,
                prev,
                last,
            }),
            Err(error) => {
                self.failed = Some(rpc_error(error));
                self.input = None;
            }
        }
    }

    fn poll_input(&mut self, cx: &mut Context<'_>) {
        while self.sent.len() < APPENDS_IN_FLIGHT {
            let Some(input) = &mut self.input else { break };
            match input.poll_next_unpin(cx) {
                Poll::Ready(Some(request)) if request.entries.is_empty() => self.hold(request),
                Poll::Ready(Some(request)) => {
                    self.held = None;
                    self.send(&request);
                }
                Poll::Ready(None) => self.input = None,
                Poll::Pending => break,
            }
        }
        if self.held.is_some()
            && (self.input.is_none() || self.release.as_mut().poll(cx).is_ready())
            && let Some(request) = self.held.take()
        {
            self.send(&request);
        }
    }

    fn hold(&mut self, request: AppendRequest) {
        if self.held.is_none() {
            self.release.as_mut().reset(Instant::now() + HOLD);
        }
        self.held = Some(request);
    }

    /// Nothing follows: what is in flight is not waited for.
    fn end(&mut self) {
        self.input = None;
        self.held = None;
        self.sent.clear();
        self.failed = None;
    }

    fn poll_late(&mut self, cx: &mut Context<'_>) -> Poll<Answer> {
        loop {
            let Some(first) = self.sent.front_mut() else {
                return Poll::Pending;
            };
            std::task::ready!(self.timer.as_mut().poll(cx));
            if Instant::now() >= first.until {
                let error = first.reply.expire(self.limit);
                self.end();
                return Poll::Ready(Err(rpc_error(error)));
            }
            self.timer.as_mut().reset(first.until);
        }
    }
}

fn read(
    answer: Bytes,
    prev: Option<LogId>,
    last: Option<LogId>,
) -> Result<(StreamAppendResult, bool), RPCError<TypeConfig>> {
    let answer: peer::AppendResponse = convert::decode("append response", answer).map_err(malformed)?;
    let answer = convert::append_response_in(&answer).map_err(malformed)?;
    let whole = match &answer {
        AppendResponse::Success => true,
        AppendResponse::PartialSuccess(matching) => *matching == last,
        AppendResponse::Conflict if prev.is_none() => {
            return Err(RPCError::Network(NetworkError::from_string(
                "conflict with an empty log",
            )));
        }
        AppendResponse::Conflict | AppendResponse::HigherVote(_) => false,
    };
    Ok((answer.into_stream_result(prev, last), whole))
}

impl<S> Stream for Pipeline<'_, S>
where
    S: Stream<Item = AppendRequest> + Unpin,
{
    type Item = Answer;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Answer>> {
        let this = &mut *self;
        this.poll_input(cx);
        let Some(first) = this.sent.front_mut() else {
            if let Some(error) = this.failed.take() {
                return Poll::Ready(Some(Err(error)));
            }
            return if this.input.is_none() {
                Poll::Ready(None)
            } else {
                Poll::Pending
            };
        };
        let Poll::Ready(answer) = Pin::new(&mut first.reply).poll(cx) else {
            return this.poll_late(cx).map(Some);
        };
        let (prev, last) = (first.prev, first.last);
        this.sent.pop_front();
        let read = match answer {
            Err(_) if planted::is(Planted::QuorumMiscounted) => {
                Ok((AppendResponse::Success.into_stream_result(prev, last), true))
            }
            answer => answer
                .map_err(rpc_error)
                .and_then(|answer| read(answer, prev, last)),
        };
        Poll::Ready(Some(match read {
            Ok((result, whole)) => {
                if !whole {
                    this.end();
                }
                Ok(result)
            }
            Err(error) => {
                this.end();
                Err(error)
            }
        }))
    }
}
