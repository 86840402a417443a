//! When a cluster is in order: each controller says that every partition is led, has the replicas it should have, and
//! that none is far behind; and replicas at one place of the log hold the same.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use env::Clock;
use serde_json::Value;

use crate::cluster::Cluster;

/// Entries that a replica may lack while clients go on working.
const NEAR: u64 = 50;
/// Between two looks.
const LOOK: Duration = Duration::from_millis(200);
/// Between two lines of progress.
const TELL: Duration = Duration::from_secs(5);

/// Waits until it is; what is missing, if that takes too long.
pub async fn wait(cluster: &mut Cluster, clock: &dyn Clock, limit: Duration) -> Result<(), String> {
    let end = clock.now() + limit;
    let mut told = clock.now();
    loop {
        cluster.take_back();
        let Some(missing) = missing(cluster) else {
            return Ok(());
        };
        if clock.now() >= told + TELL {
            told = clock.now();
            eprintln!("jepsen: waiting for order: {missing}");
        }
        if clock.now() >= end {
            return Err(missing);
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// What is still missing.
fn missing(cluster: &Cluster) -> Option<String> {
    check(cluster).err().map(|error| format!("{error:#}"))
}

fn check(cluster: &Cluster) -> Result<()> {
    ensure!(
        cluster.drained.is_empty(),
        "nodes {:?} cannot be taken back",
        cluster.drained
    );
    for (at, controller) in cluster.controllers.iter().enumerate() {
        ensure!(controller.works(), "node {} does not run", controller.id);
        let listed = cluster.ask(at, &["partitions", "list"])?;
        led(cluster, &listed).with_context(|| format!("as node {} sees it", controller.id))?;
    }
    Ok(())
}

fn led(cluster: &Cluster, listed: &Value) -> Result<()> {
    let partitions = listed["partitions"].as_array().context("no partitions")?;
    let wanted = cluster.controllers.len().min(3);
    ensure!(
        partitions.len() > cluster.partitions as usize,
        "{} partitions",
        partitions.len()
    );
    for partition in partitions {
        let id = &partition["id"];
        ensure!(
            partition["leader_node"].as_u64() > Some(0),
            "partition {id} is not led"
        );
        let replicas = partition["replicas"].as_array().context("no replicas")?;
        let voting = replicas.iter().filter(|replica| {
            let behind = replica["lag"].as_u64().unwrap_or(0) > NEAR;
            !behind && (replica["role"] == "leader" || replica["role"] == "follower")
        });
        let voting = voting.count();
        ensure!(
            voting >= wanted,
            "partition {id} has {voting} of {wanted} replicas that vote and are not behind"
        );
    }
    Ok(())
}

/// Whether all replicas of each partition hold the same; what differs, if not.
pub fn apart(cluster: &Cluster) -> Result<()> {
    for partition in 0..=cluster.partitions {
        let said = cluster.ask(0, &["partitions", "check", &partition.to_string()])?;
        ensure!(said["equal"] == true, "replicas of partition {partition}: {said}");
    }
    Ok(())
}
