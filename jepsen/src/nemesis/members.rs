//! Leaders and replicas change nodes by an operator's hand: all leaders to one node, a replica to another node, a node
//! drained and taken back.

use anyhow::Result;
use serde_json::Value;

use super::{Begun, Nemesis};
use crate::cluster::Cluster;
use workload::numbers::Numbers;

/// Changes of members and leaders.
pub struct Members;

impl Nemesis for Members {
    fn name(&self) -> &'static str {
        "members"
    }

    fn about(&self) -> &'static str {
        "all leaders to one node; with more nodes than replicas also: a replica moved, a node drained and taken back"
    }

    fn begin(&self, cluster: &mut Cluster, numbers: &mut Numbers) -> Result<Option<Begun>> {
        let working = cluster.working();
        let nodes = cluster.controllers.len() as u64;
        if working.is_empty() || nodes < 2 {
            return Ok(None);
        }
        let asked = *numbers.pick(&working);
        match numbers.below(3) {
            1 if nodes > 3 => Ok(move_replica(cluster, numbers, asked)),
            2 if nodes > 3 => Ok(drain(cluster, numbers, asked)),
            _ => Ok(gather(cluster, numbers, asked)),
        }
    }
}

/// All leaders to one node.
fn gather(cluster: &Cluster, numbers: &mut Numbers, asked: usize) -> Option<Begun> {
    let to = 1 + numbers.below(cluster.controllers.len() as u64);
    let moved = (0..=cluster.partitions).filter(|partition| {
        let words = [
            "partitions",
            "transfer",
            &partition.to_string(),
            "--to",
            &to.to_string(),
        ];
        cluster.ask(asked, &words).is_ok()
    });
    let moved = moved.count();
    let seen = (moved > 0).then(|| format!("{moved} leaders moved"));
    Begun::new(0, format!("leaders to [{to}]"), move |_| Ok(seen))
}

/// A replica of some partition to a node that has none of it.
fn move_replica(cluster: &Cluster, numbers: &mut Numbers, asked: usize) -> Option<Begun> {
    let partition = numbers.below(u64::from(cluster.partitions) + 1);
    let listed = cluster
        .ask(asked, &["partitions", "list", &partition.to_string()])
        .ok()?;
    let holders = holders_of(&listed);
    let free = (1..=cluster.controllers.len() as u64).find(|node| !holders.contains(node))?;
    let from = *holders.get(numbers.below(holders.len().max(1) as u64) as usize)?;
    let [from, to, id] = [from, free, partition].map(|number| number.to_string());
    // It goes on without its caller, who need not see the end of it.
    let _ = cluster.ask(asked, &["partitions", "move", &id, "--from", &from, "--to", &to]);
    let listed = cluster.ask(asked, &["partitions", "list", &id]);
    let begun = listed.is_ok_and(|listed| holders_of(&listed).contains(&free));
    let seen = begun.then(|| "the replica is there".to_owned());
    Begun::new(
        0,
        format!("replica of partition {id} from [{from}] to {to}"),
        move |_| Ok(seen),
    )
}

fn holders_of(listed: &Value) -> Vec<u64> {
    let replicas = listed["partitions"][0]["replicas"].as_array();
    let nodes = replicas
        .into_iter()
        .flatten()
        .filter_map(|replica| replica["node"].as_u64());
    nodes.collect()
}

/// Everything off a node, and the node taken back later.
fn drain(cluster: &Cluster, numbers: &mut Numbers, asked: usize) -> Option<Begun> {
    let node = (1 + numbers.below(cluster.controllers.len() as u64)).to_string();
    let begun = cluster.ask(asked, &["nodes", "drain", &node, "--detach"]);
    let seen = begun.is_ok().then(|| "the drain was taken on".to_owned());
    Begun::new(
        numbers.between(2000, 10_000),
        format!("drain [{node}]"),
        move |cluster| {
            cluster.drained.push(node);
            // If nobody can be asked now, it is tried again before the cluster is to come to order.
            cluster.take_back();
            Ok(seen)
        },
    )
}
