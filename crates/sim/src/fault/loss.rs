//! Data that is lost or damaged, of one node in each run: with three replicas no more can be borne.

use client::v1;
use client::v1::cluster_client::ClusterClient;
use tonic::{Code, Status};
use types::{PartitionId, ReplicaId};
use workload::Client;
use workload::client::PATIENCE;

use super::{Begun, Fault, Hurt};
use crate::world::{Down, World};
use workload::numbers::Numbers;

/// How long a drain is followed before it is asked for again.
const DRAINED: std::time::Duration = std::time::Duration::from_secs(5);

/// Nodes that are drained leave partitions with fewer replicas, and then none can be spared.
const NOT_WITH: &[&str] = &["moves"];

/// A node's replicas are damaged while it is down: some states, or an entry of a log.
pub struct Damage;
/// The same, under a process that runs.
pub struct Rot;
/// A node's disk is empty when it comes back. It joins anew, and its old id is removed.
pub struct Wipe;

impl Fault<World> for Damage {
    fn name(&self) -> &'static str {
        "damage"
    }

    fn not_with(&self) -> &'static [&'static str] {
        NOT_WITH
    }

    fn begin(&self, world: &mut World, numbers: &mut Numbers) -> Option<Begun<World>> {
        let one = victim(world, numbers)?;
        let held = held(world, one)?;
        world.take_down(one, Down::Power);
        let hurt = damage(world, one, &held, numbers);
        if !hurt.is_empty() {
            world.has_lost();
        }
        Some(Begun {
            lasts_ms: numbers.between(1, 5000),
            text: format!("power of {one} lost, and damaged: {hurt:?}"),
            mend: Box::new(move |world| world.bring_up(one)),
        })
    }
}

impl Fault<World> for Rot {
    fn name(&self) -> &'static str {
        "rot"
    }

    fn not_with(&self) -> &'static [&'static str] {
        NOT_WITH
    }

    fn begin(&self, world: &mut World, numbers: &mut Numbers) -> Option<Begun<World>> {
        let one = victim(world, numbers)?;
        let held = held(world, one)?;
        let hurt = damage(world, one, &held, numbers);
        if hurt.is_empty() {
            return None;
        }
        world.has_lost();
        Some(Begun {
            lasts_ms: 0,
            text: format!("damaged while {one} runs: {hurt:?}"),
            mend: Box::new(|_| ()),
        })
    }
}

impl Fault<World> for Wipe {
    fn name(&self) -> &'static str {
        "wipe"
    }

    fn not_with(&self) -> &'static [&'static str] {
        NOT_WITH
    }

    fn begin(&self, world: &mut World, numbers: &mut Numbers) -> Option<Begun<World>> {
        let one = victim(world, numbers)?;
        let old = world.controllers[one].id();
        world.has_lost();
        world.take_down(one, Down::Power);
        world.controllers[one].wipe();
        Some(Begun {
            lasts_ms: numbers.between(1, 5000),
            text: format!("the disk of {one}, node {old}, is lost"),
            mend: Box::new(move |world| {
                world.bring_up(one);
                world.start_client(move |client| remove(client, old));
            }),
        })
    }
}

/// A replica: its partition, its id, the end of its log.
type Held = (PartitionId, ReplicaId, u64);

/// What a node that runs holds.
fn held(world: &World, one: usize) -> Option<Vec<Held>> {
    let core = world.controllers[one].core()?;
    let replicas = core.raft().replicas();
    let each = replicas.iter();
    let held: Vec<_> = each
        .map(|replica| {
            (
                replica.partition(),
                replica.replica_id(),
                replica.status().last_log,
            )
        })
        .collect();
    (!held.is_empty()).then_some(held)
}

/// Damages one or two things; returns what.
fn damage(world: &World, one: usize, held: &[Held], numbers: &mut Numbers) -> Vec<String> {
    let disk = &world.controllers[one].disk;
    let mut hurt = Vec::new();
    for _ in 0..numbers.between(1, 2) {
        let (partition, replica, last) = *numbers.pick(held);
        let first = disk.purged(replica) + 1;
        if numbers.once_in(2) {
            disk.damage_state(partition, replica);
            hurt.push(format!("the state of {partition}"));
        } else if first <= last {
            let index = numbers.between(first, last);
            disk.damage_entry(replica, index);
            hurt.push(format!("entry {index} of {partition}"));
        }
    }
    hurt
}

/// The one node that may lose something in this run.
fn victim(world: &World, numbers: &mut Numbers) -> Option<usize> {
    let one = numbers.below(world.controllers.len() as u64) as usize;
    let spare = world.controllers.len() >= 3 && !world.is_down(one);
    (spare && world.may_lose()).then_some(one)
}

/// What an administrator does about a node that will not come back: drains it, then removes it.
async fn remove(client: Client, node: u64) {
    let request = || v1::NodeRequest { node, session: None };
    loop {
        let mut cluster = ClusterClient::new(client.channel(client.any_node()));
        let draining = async {
            let mut progress = cluster.drain_node(request()).await?.into_inner();
            while progress.message().await?.is_some() {}
            Ok::<_, Status>(())
        };
        // Whatever came of it: the removal is refused until there is nothing left there.
        let _ = tokio::time::timeout(DRAINED, draining).await;
        match tokio::time::timeout(PATIENCE, cluster.remove_node(request())).await {
            Ok(Ok(_)) => return,
            Ok(Err(status)) if status.code() == Code::NotFound => return,
            Ok(Err(_)) | Err(_) => client.pause(100, 400).await,
        }
    }
}
