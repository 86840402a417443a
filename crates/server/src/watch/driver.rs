//! Keeps one feed supplied: from the replica on this node if there is one, else from another node.

use std::sync::Arc;
use std::time::Duration;

use super::feed::{Feed, Origin};
use super::proxy;
use super::source::Source;
use crate::core::KeySpace;

/// Before what failed is tried again.
const RETRY: Duration = Duration::from_millis(100);
/// How often it is looked whether the replica here is still here (or is here now).
const LOOK: Duration = Duration::from_secs(1);

/// Runs until it is aborted.
pub async fn run(feed: Arc<Feed>, source: Arc<dyn Source>, space: KeySpace) {
    let supplies = async {
        loop {
            if source.is_local(space.partition) {
                feed.set_origin(Origin::Local);
                supply_locally(&feed, &source, &space).await;
            } else {
                feed.set_origin(Origin::Remote);
                supply_remotely(&feed, &source, &space).await;
            }
        }
    };
    tokio::join!(supplies, feed.leadership.ask(&source, &space));
}

/// The replica pushes by itself; it has only to be said where it stands, now and after each reset. The order
/// matters: first pushes are taken, then the state is read, so that no revision falls between.
async fn supply_locally(feed: &Feed, source: &Arc<dyn Source>, space: &KeySpace) {
    while source.is_local(space.partition) {
        if feed.head().is_none() {
            let epoch = feed.epoch();
            match source.local_revision(space).await {
                Ok(Some(revision)) => feed.begin(revision, epoch),
                // It is just being removed.
                Ok(None) => {
                    tokio::time::sleep(RETRY).await;
                    continue;
                }
                Err(error) => {
                    tracing::warn!(namespace = %space.name, %error, "watches cannot start yet");
                    tokio::time::sleep(RETRY).await;
                    continue;
                }
            }
        }
        tokio::select! {
            () = feed.reset.notified() => {}
            () = tokio::time::sleep(LOOK) => {}
        }
    }
    feed.restart();
}

async fn supply_remotely(feed: &Feed, source: &Arc<dyn Source>, space: &KeySpace) {
    let looks = async {
        while !source.is_local(space.partition) {
            tokio::time::sleep(LOOK).await;
        }
    };
    let follows = async {
        loop {
            if let Err(error) = proxy::follow(feed, source, space).await {
                tracing::debug!(namespace = %space.name, %error, "watching through another node broke off");
            }
            tokio::time::sleep(RETRY).await;
        }
    };
    tokio::select! {
        () = looks => {}
        () = follows => {}
    }
}
