//! The incoming lanes of one peer, and which of its processes they belong to.

use std::collections::BTreeMap;

use proto::peer::Hello;
use tokio_util::sync::CancellationToken;
use types::BootId;

/// Incoming lanes of one peer.
#[derive(Default)]
pub(super) struct Arrivals {
    pub(super) boot: BootId,
    pub(super) boots: u64,
    pub(super) address: String,
    pub(super) lanes: BTreeMap<i32, (u64, CancellationToken)>,
    pub(super) next: u64,
}

impl Arrivals {
    /// Takes over what a new connection says; another boot ends the lanes of the one before.
    pub(super) fn remember(&mut self, hello: &Hello) {
        if self.boot.0 != hello.boot_id {
            for (_, token) in std::mem::take(&mut self.lanes).into_values() {
                token.cancel();
            }
        }
        self.boot = BootId(hello.boot_id);
        self.boots = hello.boots;
        self.address.clone_from(&hello.peer_address);
    }
}
