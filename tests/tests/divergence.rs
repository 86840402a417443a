//! A replica that differs from the others without anything being damaged: it is told, and nothing is deleted.

use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use etcd_client::{AlarmAction, AlarmType, GetOptions};
use machine::Change;
use storage::rocks::{Options, Partitions};
use tests::{Cluster, http, until};
use types::PartitionId;

const LIMIT: Duration = Duration::from_secs(60);
const PARTITION: PartitionId = PartitionId(1);
/// etcd's number of the alarm.
const CORRUPT: i32 = 2;

const RIGHT: &[u8] = b"the right value";
const WRONG: &[u8] = b"the wrong value";

/// Puts another value in the place of one, wherever a stopped node's state has it: by the stores, so that every checksum is
/// right. Returns the replica.
fn change_value(data: &Path) -> Result<u64> {
    let stores = Partitions::open(&storage::partitions_path(data), Options::default())?;
    let held = stores.list()?;
    let held = held.iter().find(|(partition, _)| *partition == PARTITION);
    let (partition, replica) = *held.context("no replica of the partition")?;
    let store = stores.open(partition, replica)?;
    let mut changes = Vec::new();
    store
        .latest()
        .scan(&[0, 0], &[0xff; 8], false, &mut |key, value| {
            let place = value.windows(RIGHT.len()).position(|part| part == RIGHT);
            if let Some(at) = place {
                let mut other = value.to_vec();
                other[at..at + WRONG.len()].copy_from_slice(WRONG);
                changes.push(Change {
                    key: key.to_vec().into(),
                    value: Some(other.into()),
                });
            }
            ControlFlow::Continue(())
        })?;
    ensure!(changes.len() == 2, "its newest pair, and its event: {changes:?}");
    let applied = store.applied()?.context("nothing is applied")?;
    store.commit(&changes, &applied)?;
    store.flush()?;
    Ok(replica.0)
}

/// What `holdfast partitions check` prints, by node, and whether it found the replicas equal.
fn check(cluster: &Cluster) -> Result<(bool, Vec<(u64, String)>)> {
    let out = cluster
        .command(0, &["-o", "json", "partitions", "check", "1"])?
        .output()?;
    let said: serde_json::Value = serde_json::from_slice(&out.stdout)?;
    let replicas = said["replicas"].as_array().context("no replicas")?;
    let hash =
        |replica: &serde_json::Value| Some((replica["node"].as_u64()?, replica["hash"].as_str()?.to_owned()));
    let mut hashes: Vec<_> = replicas.iter().filter_map(hash).collect();
    hashes.sort();
    let equal = said["equal"] == true;
    ensure!(out.status.success() == equal, "{}: {said}", out.status);
    Ok((equal, hashes))
}

/// Nodes that raise the alarm, as the first one tells.
async fn alarms(cluster: &Cluster) -> Result<Vec<u64>> {
    let mut client = cluster.client(0).await?;
    let told = client.alarm(AlarmAction::Get, AlarmType::None, None).await?;
    let raised = told
        .alarms()
        .iter()
        .filter(|alarm| alarm.alarm() as i32 == CORRUPT);
    Ok(raised.map(|alarm| alarm.member_id()).collect())
}

/// A value changes on one node's disk while the node is stopped. As soon as somebody writes to that key, the hashes differ:
/// the command tells, and the leader's log, its alarm and its metric. The replica stays, and the others serve.
#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_differs_is_told_and_kept() -> Result<()> {
    let mut cluster = Cluster::start(3, 1).await?;
    cluster.holdfast(0, &["partitions", "freeze"])?;
    for position in 0..2 {
        cluster.stop(position).await?;
        cluster.nodes[position].extra = ["--set", "limits.compare_replicas_ms=1000"]
            .map(String::from)
            .into();
        cluster.start_node(position)?;
        cluster.wait_ready(3).await?;
    }
    let mut client = cluster.client(0).await?;
    client.put("k", RIGHT, None).await?;
    cluster.assert_replicas_equal().await?;
    cluster.stop(2).await?;
    let replica = change_value(&cluster.nodes[2].data)?;
    cluster.start_node(2)?;
    cluster.wait_ready(3).await?;
    let stale = GetOptions::new().with_serializable();
    let found = cluster.client(2).await?.get("k", Some(stale)).await?;
    ensure!(found.kvs()[0].value() == WRONG, "it was not changed: {found:?}");
    ensure!(alarms(&cluster).await?.is_empty(), "an alarm already");

    client.put("k", "new", None).await?;
    let (equal, hashes) = check(&cluster)?;
    ensure!(!equal && hashes.len() == 3, "{hashes:?}");
    ensure!(
        hashes[0].1 == hashes[1].1 && hashes[0].1 != hashes[2].1,
        "{hashes:?}"
    );
    let leader = until("an alarm", LIMIT, || async {
        Ok(alarms(&cluster).await?.first().copied())
    })
    .await?;
    ensure!(leader == 1 || leader == 2, "raised by node {leader}");
    let log = cluster.log(leader as usize - 1)?;
    let said = log
        .lines()
        .find(|line| line.contains("replica differs from its leader"));
    let said = said.context("the log says nothing")?;
    for part in [
        "\"ERROR\"",
        "\"partition\":\"1\"",
        "\"node\":\"3\"",
        &format!("\"replica\":\"{replica}\""),
    ] {
        ensure!(said.contains(part), "{part} is not in {said}");
    }
    let metrics = http::get(&cluster.nodes[leader as usize - 1].http, "/metrics")?.1;
    ensure!(metrics.contains("holdfast_alarms 1"), "{metrics}");
    let status = cluster.holdfast(0, &["status"])?;
    ensure!(
        status.contains(&format!("replica {replica} differs from its leader")),
        "{status}"
    );

    let list = cluster.json(0, &["partitions", "show", "1"])?;
    ensure!(list.to_string().contains(&format!("\"id\":{replica},")), "{list}");
    ensure!(
        std::fs::exists(storage::partitions_path(&cluster.nodes[2].data).join("1"))?,
        "its state is gone"
    );
    for position in 0..3 {
        let found = cluster.client(position).await?.get("k", None).await?;
        ensure!(found.kvs()[0].value() == b"new", "{found:?}");
    }

    // Whoever leads compares: who does no more has nothing to say.
    let next = 3 - leader;
    cluster.holdfast(0, &["partitions", "transfer", "1", "--to", &next.to_string()])?;
    until("the new leader alone raises it", LIMIT, || async {
        Ok((alarms(&cluster).await? == [next]).then_some(()))
    })
    .await
}
