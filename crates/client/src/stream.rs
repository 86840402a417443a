//! Streams that outlive a connection: the map watch, and the progress of long tasks.

use crate::error::{Error, ErrorKind};
use crate::retry::stub;
use crate::route::Way;
use crate::{Client, v1};
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout_at};
use tonic::{Request, Streaming};

/// Pause before a broken stream is opened again.
const PAUSE: Duration = Duration::from_millis(100);

/// A task whose progress is streamed; asked again under the same session, it is joined, not begun twice.
#[derive(Clone)]
pub(crate) enum Task {
    Move(v1::MoveReplicaRequest),
    Drain(v1::NodeRequest),
}

impl Task {
    fn operation(&self) -> &'static str {
        match self {
            Task::Move(_) => "MoveReplica",
            Task::Drain(_) => "DrainNode",
        }
    }
}

/// Progress of a task. It ended well when [`ProgressStream::next`] gives `None`.
pub struct ProgressStream {
    client: Client,
    task: Task,
    open: Option<(Way, Streaming<v1::Progress>)>,
    /// When trouble without any progress between becomes final.
    give_up: Instant,
}

impl ProgressStream {
    pub(crate) async fn start(client: Client, task: Task) -> Result<ProgressStream, Error> {
        let give_up = Instant::now() + client.inner.route.options().timeout;
        let mut stream = ProgressStream {
            client,
            task,
            open: None,
            give_up,
        };
        stream.reopen().await?;
        Ok(stream)
    }

    /// The next step. The task goes on in the cluster if this is never called again.
    pub async fn next(&mut self) -> Result<Option<v1::Progress>, Error> {
        loop {
            let Some((way, stream)) = &mut self.open else {
                self.reopen().await?;
                continue;
            };
            match stream.message().await {
                Ok(step) => {
                    self.give_up = Instant::now() + self.client.inner.route.options().timeout;
                    return Ok(step);
                }
                Err(status) => {
                    let error = self.client.judge(self.task.operation(), way, &status);
                    self.open = None;
                    if !error.may_retry() {
                        return Err(error);
                    }
                }
            }
        }
    }

    /// Opens the stream, on whichever endpoint will, until time is up.
    async fn reopen(&mut self) -> Result<(), Error> {
        loop {
            let error = match self.open_once().await {
                Ok(open) => {
                    self.open = Some(open);
                    return Ok(());
                }
                Err(error) => error,
            };
            if !error.may_retry() || Instant::now() + PAUSE >= self.give_up {
                return Err(error);
            }
            sleep(PAUSE).await;
        }
    }

    async fn open_once(&self) -> Result<(Way, Streaming<v1::Progress>), Error> {
        let operation = self.task.operation();
        let way = self.client.inner.route.pick(operation, self.give_up).await?;
        let mut stub = stub(&way);
        let call = async {
            match self.task.clone() {
                Task::Move(message) => stub.move_replica(Request::new(message)).await,
                Task::Drain(message) => stub.drain_node(Request::new(message)).await,
            }
        };
        match timeout_at(self.give_up, call).await {
            Ok(Ok(response)) => Ok((way, response.into_inner())),
            Ok(Err(status)) => Err(self.client.judge(operation, &way, &status)),
            Err(_) => Err(Error::new(
                ErrorKind::Unknown,
                operation,
                "the stream did not open in time",
            )),
        }
    }
}

/// The cluster map after each change.
pub struct MapStream {
    client: Client,
    open: Option<(Way, Streaming<v1::Map>)>,
    /// Revision last given out; 0 before the first.
    seen: u64,
}

impl MapStream {
    pub(crate) fn new(client: Client) -> MapStream {
        MapStream {
            client,
            open: None,
            seen: 0,
        }
    }

    /// The next map, newer than the one before. Fails when no endpoint answers for [`crate::Options::timeout`]; it
    /// may be called again after that.
    pub async fn next(&mut self) -> Result<v1::Map, Error> {
        let mut give_up = self.client.plan("WatchMap").deadline;
        loop {
            let Some((way, stream)) = &mut self.open else {
                self.open = Some(self.reopen(give_up).await?);
                continue;
            };
            match stream.message().await {
                Ok(Some(map)) if map.revision > self.seen => {
                    self.seen = map.revision;
                    return Ok(map);
                }
                Ok(Some(_)) => give_up = self.client.plan("WatchMap").deadline,
                Ok(None) => self.open = None,
                Err(status) => {
                    let error = self.client.judge("WatchMap", way, &status);
                    self.open = None;
                    if !error.may_retry() {
                        return Err(error);
                    }
                    give_up = self.client.plan("WatchMap").deadline;
                }
            }
        }
    }

    async fn reopen(&self, give_up: Instant) -> Result<(Way, Streaming<v1::Map>), Error> {
        loop {
            let error = match self.open_once(give_up).await {
                Ok(open) => return Ok(open),
                Err(error) => error,
            };
            if !error.may_retry() || Instant::now() + PAUSE >= give_up {
                return Err(error);
            }
            sleep(PAUSE).await;
        }
    }

    async fn open_once(&self, give_up: Instant) -> Result<(Way, Streaming<v1::Map>), Error> {
        let way = self.client.inner.route.pick("WatchMap", give_up).await?;
        let mut stub = stub(&way);
        match timeout_at(give_up, stub.watch_map(Request::new(v1::GetMapRequest {}))).await {
            Ok(Ok(response)) => Ok((way, response.into_inner())),
            Ok(Err(status)) => Err(self.client.judge("WatchMap", &way, &status)),
            Err(_) => Err(Error::new(
                ErrorKind::Unknown,
                "WatchMap",
                "the stream did not open in time",
            )),
        }
    }
}
