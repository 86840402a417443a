//! The session that makes retries of writes safe. Writes of one session go one after another: the cluster remembers
//! the last answer of each session, and refuses a number older than that.

use crate::error::{Error, ErrorKind};

use crate::{Client, v1};
use tokio::sync::{Mutex, MutexGuard};

/// The client's own session, opened by its first write.
#[derive(Default)]
pub(crate) struct Sessions {
    own: Mutex<Option<Open>>,
}

pub(crate) struct Open {
    client_id: u64,
    last_seq: u64,
}

/// The right to send one write: holds back the next one until dropped.
pub(crate) struct Turn<'a> {
    own: MutexGuard<'a, Option<Open>>,
    session: v1::Session,
}

impl Turn<'_> {
    /// The number of this write, the same for all its attempts.
    pub(crate) fn session(&self) -> Option<v1::Session> {
        Some(self.session)
    }

    /// Passes a write's outcome on. A session the cluster no longer knows is dropped, so that the next write opens
    /// another; this one is not repeated under it, since an earlier attempt may have been done.
    pub(crate) fn finish<A>(mut self, outcome: Result<A, Error>) -> Result<A, Error> {
        if matches!(&outcome, Err(error) if error.kind == ErrorKind::SessionExpired) {
            *self.own = None;
        }
        outcome
    }
}

impl Client {
    /// Waits for the writes before, and takes the next number.
    pub(crate) async fn turn(&self) -> Result<Turn<'_>, Error> {
        let mut own = self.inner.sessions.own.lock().await;
        if own.is_none() {
            let client_id = self.open_session().await?.client_id;
            *own = Some(Open {
                client_id,
                last_seq: 0,
            });
        }
        let open = own
            .as_mut()
            .ok_or_else(|| Error::new(ErrorKind::Internal, "OpenSession", "no session"))?;
        open.last_seq += 1;
        let session = v1::Session {
            client_id: open.client_id,
            seq: open.last_seq,
        };
        Ok(Turn { own, session })
    }

    /// A number in a session of its own, for writes that last long and must not hold back others.
    pub(crate) async fn lone_session(&self) -> Result<Option<v1::Session>, Error> {
        let client_id = self.open_session().await?.client_id;
        Ok(Some(v1::Session { client_id, seq: 1 }))
    }

    /// Opens a session by hand. Repeating it is safe: a session nobody uses expires.
    pub async fn open_session(&self) -> Result<v1::OpenSessionResponse, Error> {
        let plan = self.plan("OpenSession");
        let send = |mut stub: crate::call::Stub, request| async move { stub.open_session(request).await };
        self.unary(plan, v1::OpenSessionRequest {}, send).await
    }
}
