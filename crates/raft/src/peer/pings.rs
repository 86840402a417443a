//! The watch over silent peers: who was not heard of for a while is pinged, who stays silent is cut off.

use std::sync::Arc;

use proto::peer::{Frame, Kind, Lane as Which};

use super::peers::Shared;
use super::{CUT_AFTER, PING_EVERY};

/// Runs until all lanes end.
pub(super) async fn keep_watch(shared: Arc<Shared>) {
    let mut tick = tokio::time::interval(PING_EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = shared.stop.cancelled() => return,
            _ = tick.tick() => {}
        }
        for peer in shared.all() {
            let Some(link) = peer.lane(Which::Control).link() else {
                continue;
            };
            let silence = peer.health.silence().unwrap_or_default();
            if silence > CUT_AFTER {
                peer.cuts.send_modify(|cuts| *cuts += 1);
            } else if silence >= PING_EVERY && link.outbox.len() == 0 {
                // Its reply is heard without anyone waiting for it; if it cannot be queued, that is heard of too.
                let _ = link.cast(Frame {
                    id: u64::MAX,
                    kind: Kind::Ping as i32,
                    ..Frame::default()
                });
            }
        }
    }
}
