//! A checkpoint that cannot be listed.

use std::io;
use std::sync::{Arc, OnceLock};
use std::thread::{self, ThreadId};

use bytes::Bytes;
use openraft::network::RaftNetworkFactory;
use storage::{Applied, Checkpoint, CheckpointFile};
use types::{PartitionId, ReplicaId};

use super::super::tests::{Nothing, Process};
use crate::Timing;
use crate::trouble::Trouble;
use crate::types::{ReplicaNode, SnapshotMeta, Vote};

/// Made of a damaged state; remembers who asked.
#[derive(Default)]
struct Damaged(OnceLock<ThreadId>);

impl Checkpoint for Damaged {
    fn applied(&self) -> Applied {
        Applied::default()
    }

    fn list(&self) -> io::Result<Vec<CheckpointFile>> {
        self.0.get_or_init(|| thread::current().id());
        Err(io::Error::new(io::ErrorKind::InvalidData, "a table is damaged"))
    }

    fn read(&self, _: &str, _: u64, _: usize) -> io::Result<Bytes> {
        panic!("nothing of it is read")
    }
}

#[test]
fn damage_met_by_a_sender_costs_its_own_replica_and_no_thread_of_the_runtime() {
    let process = Process::start(1, Timing::default());
    let (partition, replica) = (PartitionId(0), ReplicaId(1));
    let trouble = Trouble::new(partition, replica, Arc::new(Nothing));
    let checkpoint = Arc::new(Damaged::default());
    let sent = process.on(async {
        let mut factory = process.node.network.factory(partition, trouble.clone());
        let client = factory.new_client(2, &ReplicaNode { node: 2 }).await;
        super::send(
            &client,
            Vote::new(1, 1),
            &SnapshotMeta::default(),
            checkpoint.clone(),
        )
        .await
    });
    sent.expect_err("not sent");
    let damage = trouble.damage().expect("noted");
    assert!(damage.contains("a table is damaged"), "{damage}");
    assert_ne!(checkpoint.0.get(), Some(&thread::current().id()));
}
