//! One unary call: attempts over endpoints until an answer, a final error, or the deadline.

use crate::Client;
use crate::error::{Error, ErrorKind, is_broken_connection};
use crate::route::Way;
use proto::v1::cluster_client::ClusterClient;
use std::future::Future;
use std::time::Duration;
use tokio::time::{Instant, sleep_until, timeout_at};
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

/// First pause between attempts; doubled up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(25);
const PAUSE_MAX: Duration = Duration::from_millis(400);
/// An attempt that would have less time than this for an answer, or an eighth of the whole, is not begun: it would
/// only blur what is known.
const ATTEMPT_MIN: Duration = Duration::from_millis(500);
/// Largest answer taken.
pub(crate) const ANSWER_BYTES: usize = 64 * 1024 * 1024;

/// A call's name and its end. Invariant: each call that goes through here may be sent twice, since it is a read,
/// repeats itself harmlessly, or carries its session's number.
#[derive(Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) operation: &'static str,
    pub(crate) deadline: Instant,
}

/// The generated client over one connection.
pub(crate) fn stub(way: &Way) -> ClusterClient<Channel> {
    ClusterClient::new(way.channel.clone()).max_decoding_message_size(ANSWER_BYTES)
}

impl Client {
    pub(crate) fn plan(&self, operation: &'static str) -> Plan {
        let deadline = Instant::now() + self.inner.route.options().timeout;
        Plan { operation, deadline }
    }

    /// Sends `message` with `send` until something final happens.
    pub(crate) async fn unary<Q, A, F, S>(&self, plan: Plan, message: Q, send: S) -> Result<A, Error>
    where
        Q: Clone,
        F: Future<Output = Result<Response<A>, Status>>,
        S: Fn(ClusterClient<Channel>, Request<Q>) -> F,
    {
        let mut pause = PAUSE_MIN;
        let least = ATTEMPT_MIN.min(self.inner.route.options().timeout / 8);
        // An attempt whose fate is unclear makes the whole call unclear, whatever the later ones say.
        let mut unclear: Option<Error> = None;
        loop {
            let error = match self.attempt(plan, message.clone(), &send).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            let wake = Instant::now() + error.retry_after.unwrap_or(pause);
            if error.kind == ErrorKind::Unknown {
                unclear = Some(error.clone());
            }
            if !error.may_retry() {
                return Err(error);
            }
            if wake + least >= plan.deadline {
                return Err(unclear.unwrap_or(error));
            }
            sleep_until(wake).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    async fn attempt<Q, A, F, S>(&self, plan: Plan, message: Q, send: &S) -> Result<A, Error>
    where
        F: Future<Output = Result<Response<A>, Status>>,
        S: Fn(ClusterClient<Channel>, Request<Q>) -> F,
    {
        let route = &self.inner.route;
        let way = route.pick(plan.operation, plan.deadline).await?;
        let now = Instant::now();
        let limit = plan.deadline.min(now + route.options().attempt_timeout);
        let mut request = Request::new(message);
        request.set_timeout(limit.saturating_duration_since(now));
        match timeout_at(limit, send(stub(&way), request)).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(self.judge(plan.operation, &way, &status)),
            Err(_) => {
                // Silent: it may hang, so the next attempt goes elsewhere on a new connection.
                route.failed(&way, true);
                let mut error = Error::new(ErrorKind::Unknown, plan.operation, "no answer in time");
                error.endpoint = Some(way.endpoint);
                Err(error)
            }
        }
    }

    /// Turns a status into an error, and turns away from an endpoint that cannot serve.
    pub(crate) fn judge(&self, operation: &'static str, way: &Way, status: &Status) -> Error {
        let error = Error::from_status(operation, &way.endpoint, status);
        match error.kind {
            ErrorKind::Unknown | ErrorKind::Unavailable => {
                self.inner.route.failed(way, is_broken_connection(status));
            }
            ErrorKind::Invalid
            | ErrorKind::NotFound
            | ErrorKind::Refused
            | ErrorKind::Retry
            | ErrorKind::SessionExpired
            | ErrorKind::Denied
            | ErrorKind::Unsupported
            | ErrorKind::Corrupt
            | ErrorKind::Internal => {}
        }
        error
    }
}
