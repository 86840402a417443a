//! Requests of one connection that have no answer yet, by id. Every one ends exactly once: answered, refused,
//! not sent, or unknown.

use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use proto::peer::{Frame, Kind};
use tokio::sync::{mpsc, oneshot};

use super::FRAME_BYTES_MAX;
use super::frames::{Outbox, Rejected};
use crate::RequestError;

type Answer = Result<Bytes, RequestError>;

enum Waiting {
    Call(oneshot::Sender<Answer>),
    Stream(mpsc::UnboundedSender<Answer>),
}

struct Table {
    next_id: u64,
    closed: bool,
    waiting: HashMap<u64, Waiting>,
}

/// One established connection of one lane: what is to be written and who waits for what.
pub struct Link {
    /// What is to be written.
    pub outbox: Arc<Outbox>,
    table: Mutex<Table>,
}

impl Link {
    /// A fresh connection.
    pub fn new(outbox: Arc<Outbox>) -> Link {
        let table = Table {
            next_id: 1,
            closed: false,
            waiting: HashMap::new(),
        };
        Link {
            outbox,
            table: Mutex::new(table),
        }
    }

    fn enter(&self, waiting: Waiting) -> Result<u64, RequestError> {
        let mut table = self.table.lock();
        if table.closed {
            return Err(RequestError::NotSent("the connection was just lost".into()));
        }
        let id = table.next_id;
        table.next_id += 1;
        table.waiting.insert(id, waiting);
        Ok(id)
    }

    fn send(&self, mut frame: Frame, waiting: Waiting) -> Result<u64, RequestError> {
        let id = self.enter(waiting)?;
        frame.id = id;
        self.outbox.push(frame).map_err(|rejected| {
            self.table.lock().waiting.remove(&id);
            not_taken(rejected)
        })?;
        Ok(id)
    }

    /// Sends a request.
    pub fn call(self: &Arc<Self>, frame: Frame) -> Result<Reply, RequestError> {
        let (sender, receiver) = oneshot::channel();
        let id = self.send(frame, Waiting::Call(sender))?;
        Ok(Reply {
            id,
            link: self.clone(),
            receiver,
            done: false,
        })
    }

    /// Sends a request that has many answers.
    pub fn open_stream(&self, frame: Frame) -> Result<(u64, mpsc::UnboundedReceiver<Answer>), RequestError> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let id = self.send(frame, Waiting::Stream(sender))?;
        Ok((id, receiver))
    }

    /// Sends a frame that has no answer.
    pub fn cast(&self, frame: Frame) -> Result<(), RequestError> {
        self.outbox.push(frame).map_err(not_taken)
    }

    /// Stops waiting; true if the request was never written.
    pub fn abandon(&self, id: u64) -> bool {
        if self.table.lock().waiting.remove(&id).is_none() {
            return false;
        }
        self.outbox.take_back(id)
    }

    /// Hands answers to who waits for them.
    pub fn deliver(&self, frames: Vec<Frame>) {
        let mut table = self.table.lock();
        for frame in frames {
            if frame.kind == Kind::WatchEvents as i32 {
                if let Some(Waiting::Stream(sender)) = table.waiting.get(&frame.id) {
                    // A consumer that went away has its own task that says so.
                    let _ = sender.send(Ok(frame.body));
                }
                continue;
            }
            match table.waiting.remove(&frame.id) {
                Some(Waiting::Call(sender)) => {
                    let _ = sender.send(answer(frame));
                }
                Some(Waiting::Stream(sender)) => {
                    if let Err(error) = answer(frame) {
                        let _ = sender.send(Err(error));
                    }
                }
                None => {}
            }
        }
    }

    /// The connection is over: what was never written is not sent, the rest is unknown.
    pub fn close(&self, why: &str) {
        let unsent: HashSet<u64> = self.outbox.close().into_iter().map(|frame| frame.id).collect();
        let waiting = {
            let mut table = self.table.lock();
            table.closed = true;
            std::mem::take(&mut table.waiting)
        };
        for (id, waiting) in waiting {
            let error = if unsent.contains(&id) {
                RequestError::NotSent(why.to_owned())
            } else {
                RequestError::Unknown(why.to_owned())
            };
            match waiting {
                Waiting::Call(sender) => drop(sender.send(Err(error))),
                Waiting::Stream(sender) => drop(sender.send(Err(error))),
            }
        }
    }
}

fn not_taken(rejected: Rejected) -> RequestError {
    RequestError::NotSent(match rejected {
        Rejected::Full => "too many requests wait for this peer".into(),
        Rejected::TooLarge => format!("a frame carries at most {FRAME_BYTES_MAX} bytes"),
        Rejected::Closed => "the connection was just lost".into(),
    })
}

fn answer(frame: Frame) -> Answer {
    if frame.code == 0 {
        return Ok(frame.body);
    }
    Err(RequestError::Refused {
        code: tonic::Code::from_i32(frame.code as i32),
        text: String::from_utf8_lossy(&frame.body).into_owned(),
    })
}

/// The answer to a request that was queued. Dropping it stops waiting, not the request.
pub struct Reply {
    id: u64,
    link: Arc<Link>,
    receiver: oneshot::Receiver<Answer>,
    done: bool,
}

impl Reply {
    /// Waits no longer than `limit`.
    pub async fn within(mut self, limit: Duration) -> Answer {
        match tokio::time::timeout(limit, &mut self).await {
            Ok(answer) => answer,
            Err(_) => Err(self.expire(limit)),
        }
    }

    /// Gives up: not sent if it still waits to be written, else unknown.
    pub fn expire(&mut self, limit: Duration) -> RequestError {
        self.done = true;
        let text = format!("no answer within {} ms", limit.as_millis());
        if self.link.abandon(self.id) {
            RequestError::NotSent(text)
        } else {
            RequestError::Unknown(text)
        }
    }
}

impl Future for Reply {
    type Output = Answer;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Answer> {
        let answer = std::task::ready!(Pin::new(&mut self.receiver).poll(cx));
        self.done = true;
        Poll::Ready(
            answer.unwrap_or_else(|_| Err(RequestError::Unknown("the connection was dropped".into()))),
        )
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if !self.done {
            self.link.abandon(self.id);
        }
    }
}
