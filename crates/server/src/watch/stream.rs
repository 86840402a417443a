//! One watch stream: takes requests in order, sends responses no faster than they are taken, and moves each watch
//! between memory and history without a gap or a duplicate.
//!
//! ```text
//!  create ─► behind ──history──► joined ──inbox full──► behind ─► …
//!               └──(already at the head)──┘
//! ```

mod requests;
mod sending;

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{Stream, StreamExt};
use tokio::sync::mpsc;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};
use tonic::Status;

use super::feed::{Feed, StreamId};
use super::frame::Frame;
use super::hub::{FeedUser, Hub};
use super::inbox::{Inbox, Taken};
use super::source::{Past, Source};
use super::table::{Behind, Table};
use crate::core::{KeySpace, ServerError};
use crate::service::error;

/// Asks for a watch; fields as etcd's `WatchCreateRequest`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Create {
    /// First key; empty counts as `"\0"`.
    pub key: Bytes,
    /// Exclusive end, empty for one key, `"\0"` for no end.
    pub range_end: Bytes,
    /// 0: whatever comes after now.
    pub start_revision: i64,
    /// With previous pairs.
    pub previous: bool,
    /// Without puts.
    pub no_put: bool,
    /// Without deletions.
    pub no_delete: bool,
    /// Tell of progress now and then.
    pub progress: bool,
    /// Large responses may be cut.
    pub fragment: bool,
    /// 0: any free one.
    pub watch_id: i64,
}

/// What a client says on a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// New watch.
    Create(Create),
    /// End a watch.
    Cancel(i64),
    /// Tell how far all watches are.
    Progress,
}

/// How a stream is served.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// End the stream when the partition has had no leader for [`LEADERLESS`].
    pub require_leader: bool,
    /// Between notices of progress.
    pub progress_every: Duration,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            require_leader: false,
            progress_every: Duration::from_millis(types::limits::WATCH_PROGRESS_MS),
        }
    }
}

/// After this long without a leader, streams that require one end (etcd: three election time-outs).
pub const LEADERLESS: Duration = Duration::from_secs(3);
/// How often that is looked at.
const LOOK: Duration = Duration::from_millis(500);
/// Before history that brought nothing new, or an unanswered question, is asked again.
const RETRY: Duration = Duration::from_millis(20);
/// Requests taken in before they are worked on.
const REQUESTS: usize = 1024;
/// Deliveries sent before requests get their turn.
const DELIVERIES: usize = 64;
/// Chunks of responses that wait to be taken.
const CHUNKS: usize = 2;

/// Requests of a client, in order.
pub type Requests = Pin<Box<dyn Stream<Item = Result<Request, Status>> + Send>>;

/// Responses of a stream, in chunks. The stream works only while these are waited for, in the same task: one that
/// nobody reads costs nothing but its inbox. Dropping them ends it.
pub struct Responses {
    run: Option<BoxFuture<'static, ()>>,
    chunks: mpsc::Receiver<Result<Vec<Frame>, Status>>,
}

impl Stream for Responses {
    type Item = Result<Vec<Frame>, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Poll::Ready(chunk) = self.chunks.poll_recv(context) {
            return Poll::Ready(chunk);
        }
        let ended = self
            .run
            .as_mut()
            .is_some_and(|run| run.as_mut().poll(context).is_ready());
        if ended {
            self.run = None;
        }
        self.chunks.poll_recv(context)
    }
}

impl Responses {
    /// The next chunk.
    pub async fn recv(&mut self) -> Option<Result<Vec<Frame>, Status>> {
        self.next().await
    }
}

/// Serves a stream until its responses are dropped or it fails. When the requests end, the watches go on. Needs a
/// Tokio runtime.
pub fn open(
    hub: &Arc<Hub>,
    source: Arc<dyn Source>,
    space: KeySpace,
    options: Options,
    requests: Requests,
) -> Responses {
    let (out, chunks) = mpsc::channel(CHUNKS);
    let user = hub.feed(&space, &source);
    let inbox = Arc::new(Inbox::default());
    let stream = user.feed.attach(inbox.clone());
    hub.streams.fetch_add(1, Ordering::Relaxed);
    if options.require_leader {
        user.feed.leadership.want();
    }
    let connection = Connection {
        feed: user.feed.clone(),
        hub: hub.clone(),
        _user: user,
        stream,
        inbox,
        source,
        space,
        options,
        out,
        chunk: Vec::new(),
        chunk_bytes: 0,
        table: Table::default(),
        waiting: VecDeque::new(),
        covered: 0,
        resolved: None,
        start: None,
        behind: VecDeque::new(),
        past: None,
        progress_due: Vec::new(),
        progress_asked: false,
        led_at: Instant::now(),
    };
    let run: BoxFuture<'static, ()> = Box::pin(connection.run(requests));
    Responses {
        run: Some(run),
        chunks,
    }
}

struct Connection {
    feed: Arc<Feed>,
    hub: Arc<Hub>,
    _user: FeedUser,
    stream: StreamId,
    inbox: Arc<Inbox>,
    source: Arc<dyn Source>,
    space: KeySpace,
    options: Options,
    out: mpsc::Sender<Result<Vec<Frame>, Status>>,
    chunk: Vec<Frame>,
    chunk_bytes: usize,
    table: Table,
    /// Requests not worked on yet.
    waiting: VecDeque<Request>,
    /// How many of them, from the front, `start` or `resolved` is good for.
    covered: usize,
    /// "Now", for watches that begin there.
    resolved: Option<i64>,
    /// "Now" being found out.
    start: Option<BoxFuture<'static, Result<i64, Status>>>,
    behind: VecDeque<Behind>,
    /// History being read, and for whom.
    past: Option<(Behind, BoxFuture<'static, Result<Past, ServerError>>)>,
    progress_due: Vec<u64>,
    progress_asked: bool,
    /// When there was surely a leader.
    led_at: Instant,
}

/// Why a stream ends.
enum End {
    /// The client has gone.
    Gone,
    /// It is told why.
    Failed(Status),
}

impl From<Status> for End {
    fn from(status: Status) -> End {
        End::Failed(status)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.feed.detach(self.stream);
        if self.options.require_leader {
            self.feed.leadership.unwant();
        }
        self.hub.streams.fetch_sub(1, Ordering::Relaxed);
        self.hub.watches.fetch_sub(self.table.len(), Ordering::Relaxed);
    }
}

fn every(period: Duration) -> Interval {
    let mut interval = interval_at(Instant::now() + period, period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

/// Waits for what may not be there; never returns if it is not.
async fn if_any<T>(future: Option<&mut BoxFuture<'static, T>>) -> T {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

/// What the loop waits for.
enum Event {
    Requests(Option<Vec<Result<Request, Status>>>),
    Inbox,
    Start(Result<i64, Status>),
    Past(Result<Past, ServerError>),
    Progress,
    Leader,
}

impl Connection {
    async fn run(mut self, requests: Requests) {
        if let Err(End::Failed(status)) = self.serve(requests).await {
            let _ = self.out.send(Err(status)).await;
        }
    }

    async fn serve(&mut self, requests: Requests) -> Result<(), End> {
        let mut requests = requests.ready_chunks(REQUESTS);
        let mut requests_open = true;
        let mut progress = every(self.options.progress_every);
        let mut leader = every(LOOK);
        let inbox = self.inbox.clone();
        loop {
            self.work().await?;
            let take_requests = requests_open && self.waiting.len() < REQUESTS;
            let any_progress = self.table.any_progress();
            let event = tokio::select! {
                taken = requests.next(), if take_requests => Event::Requests(taken),
                () = inbox.woken() => Event::Inbox,
                started = if_any(self.start.as_mut()) => Event::Start(started),
                past = if_any(self.past.as_mut().map(|(_, future)| future)) => Event::Past(past),
                _ = progress.tick(), if any_progress => Event::Progress,
                _ = leader.tick(), if self.options.require_leader => Event::Leader,
            };
            match event {
                Event::Requests(Some(taken)) => {
                    for request in taken {
                        self.waiting.push_back(request?);
                    }
                }
                Event::Requests(None) => requests_open = false,
                Event::Inbox => {}
                Event::Start(started) => {
                    self.start = None;
                    self.resolved = Some(started?);
                }
                Event::Past(past) => self.receive_past(past).await?,
                Event::Progress => self.progress_due = self.table.due_for_progress(),
                Event::Leader => self.look_for_leader()?,
            }
        }
    }

    /// Everything that can be done without waiting for others than the client.
    async fn work(&mut self) -> Result<(), End> {
        self.take_requests().await?;
        for left in (0..DELIVERIES).rev() {
            match self.inbox.take() {
                Taken::Delivery(delivery) => {
                    self.send_batch(&delivery.tokens, &delivery.batch, None).await?;
                }
                Taken::Lost(from) => {
                    self.feed.leave_all(self.stream);
                    self.inbox.found();
                    self.behind.extend(self.table.scatter(from));
                }
                Taken::Empty => break,
            }
            if left == 0 {
                self.inbox.nudge();
            }
        }
        self.catch_up().await?;
        self.tell_progress();
        self.flush().await
    }

    fn look_for_leader(&mut self) -> Result<(), End> {
        if let Some(answered) = self.feed.leadership.answered() {
            self.led_at = self.led_at.max(answered);
        }
        if self.led_at.elapsed() >= LEADERLESS {
            return Err(End::Failed(error::NO_LEADER.into()));
        }
        Ok(())
    }
}
