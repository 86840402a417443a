//! Opens one lane: a stream, and both hellos. Knows nothing of retries.

use std::io;
use std::sync::Arc;

use futures::StreamExt;
use proto::peer::{Hello, Lane};
use tonic::Status;

use super::HANDSHAKE_LIMIT;
use super::carrier::{self, Arriving, NotCarried};
use super::frames::{Outbox, Outgoing};
use super::handshake::{self, Refusal};
use super::peers::{Peer, Shared};
use super::request::Link;

/// A lane that is open. Dropping it closes the connection.
pub struct Established {
    /// Where requests go.
    pub link: Arc<Link>,
    /// Where replies come from.
    pub inbound: Arriving,
    /// What the peer said of itself.
    pub hello: Hello,
}

/// Why a lane could not be opened.
pub enum OpenError {
    /// No connection.
    Connect(io::Error),
    /// A connection, but no proper answer.
    Handshake(String),
    /// The peer refused this node.
    RefusedThere(Refusal),
    /// This node refused the peer.
    RefusedHere(Refusal),
}

/// Opens `lane` to `peer`.
pub async fn open(shared: &Shared, peer: &Peer, lane: Lane) -> Result<Established, OpenError> {
    let outbox = Arc::new(Outbox::default());
    let sending = Outgoing::new(shared.mine.hello(lane, peer.node), outbox.clone()).boxed();
    let opened = shared.carrier.open(&peer.address(), sending).await;
    let mut inbound = opened.map_err(|error| match error {
        NotCarried::Connect(error) => OpenError::Connect(error),
        NotCarried::Broken(why) => OpenError::Handshake(why),
        NotCarried::Refused(status) => refused_or_failed(status),
    })?;
    let first = tokio::time::timeout(HANDSHAKE_LIMIT, inbound.next()).await;
    let first = first.map_err(|_| OpenError::Handshake("connected, but no hello came".into()))?;
    let hello = first
        .transpose()
        .map_err(refused_or_failed)?
        .and_then(|frames| frames.hello)
        .ok_or_else(|| OpenError::Handshake("the stream did not begin with a hello".into()))?;
    handshake::check_cluster(&hello, &shared.mine, true).map_err(OpenError::RefusedHere)?;
    peer.meet(&hello).map_err(OpenError::RefusedHere)?;
    let link = Arc::new(Link::new(outbox));
    Ok(Established { link, inbound, hello })
}

fn refused_or_failed(status: Status) -> OpenError {
    match Refusal::from_status(&status) {
        Some(refusal) => OpenError::RefusedThere(refusal),
        None => OpenError::Handshake(carrier::reason(&status)),
    }
}
