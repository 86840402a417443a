//! One leader per term and partition.

use std::collections::BTreeMap;

use types::{PartitionId, ReplicaId};

use super::{Invariant, Seen};

/// Who led, by partition and term.
#[derive(Default)]
pub struct OneLeader {
    led: BTreeMap<(PartitionId, u64), ReplicaId>,
}

impl Invariant for OneLeader {
    fn name(&self) -> &'static str {
        "one leader per term"
    }

    fn check(&mut self, seen: &Seen<'_>) -> Result<(), String> {
        for controller in seen.controllers {
            let Some(core) = controller.core() else { continue };
            for replica in core.raft().replicas() {
                let status = replica.status();
                if !status.is_leader {
                    continue;
                }
                let (partition, term) = (replica.partition(), status.term);
                let first = *self.led.entry((partition, term)).or_insert(replica.replica_id());
                if first != replica.replica_id() {
                    return Err(format!(
                        "partition {partition}, term {term}: replicas {first} and {} both lead",
                        replica.replica_id()
                    ));
                }
            }
        }
        Ok(())
    }
}
