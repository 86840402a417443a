//! Replicas moved, added and taken away under load, also when those who asked for it die in the middle: afterwards
//! no acknowledged write is missing, and all replicas are equal.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tests::cluster::binary;
use tests::load::{Load, assert_present};
use tests::{Cluster, until};

const LIMIT: Duration = Duration::from_secs(60);

/// Three controllers with all replicas, and a fourth that gets none by itself.
async fn four_nodes(partitions: u32) -> Result<Cluster> {
    let mut cluster = Cluster::start(3, partitions).await?;
    cluster.holdfast(0, &["partitions", "freeze"])?;
    cluster.add_node()?;
    until("node 4 is a member", LIMIT, || async {
        Ok(replicas(&cluster, 0)?
            .iter()
            .any(|(node, _, role)| *node == 4 && role == "learner")
            .then_some(()))
    })
    .await?;
    Ok(cluster)
}

/// Node, id and role of each replica of a partition, by node.
fn replicas(cluster: &Cluster, partition: u32) -> Result<Vec<(u64, u64, String)>> {
    let shown = cluster.json(0, &["partitions", "show", &partition.to_string()])?;
    let all = shown["replicas"].as_array().context("no replicas")?;
    let mut found: Vec<_> = all
        .iter()
        .map(|replica| {
            let number = |name: &str| replica[name].as_u64().unwrap_or(0);
            let role = replica["role"].as_str().unwrap_or("").to_owned();
            (number("node"), number("id"), role)
        })
        .collect();
    found.sort();
    Ok(found)
}

/// Waits until exactly these nodes hold a voting replica of a partition, and nobody else any.
async fn wait_voters(cluster: &Cluster, partition: u32, nodes: &[u64]) -> Result<()> {
    let what = format!("partition {partition} is on nodes {nodes:?}");
    until(&what, LIMIT, || async {
        let found = replicas(cluster, partition)?;
        let on: Vec<u64> = found.iter().map(|(node, _, _)| *node).collect();
        let vote = found
            .iter()
            .all(|(_, _, role)| role == "leader" || role == "follower");
        ensure!(on == nodes && vote, "{found:?}");
        Ok(Some(()))
    })
    .await
}

/// Stops the load, and asks every node for everything that was acknowledged.
async fn assert_nothing_lost(cluster: &Cluster, load: Load) -> Result<()> {
    let acknowledged = load.finish().await?;
    ensure!(!acknowledged.is_empty(), "the load wrote nothing");
    for position in 0..cluster.nodes.len() {
        assert_present(&cluster.nodes[position].client, &acknowledged).await?;
    }
    cluster.assert_replicas_equal().await
}

/// A move begun through one node, in a process of its own.
fn begin_move(cluster: &Cluster, position: usize, from: &str, to: &str) -> Result<Child> {
    let child = Command::new(binary()?)
        .args(["--endpoints", &cluster.nodes[position].client])
        .args(["partitions", "move", "1", "--from", from, "--to", to])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    Ok(child)
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_are_moved_under_load() -> Result<()> {
    let cluster = four_nodes(2).await?;
    let load = Load::start(cluster.endpoints(), 6);
    load.progress(200, LIMIT).await?;
    for (partition, from) in [("1", "1"), ("2", "3")] {
        let step = ["partitions", "move", partition, "--from", from, "--to", "4"];
        cluster.holdfast(1, &step)?;
        load.progress(200, LIMIT).await?;
        // Asked again, it is found done.
        cluster.holdfast(0, &step)?;
    }
    wait_voters(&cluster, 1, &[2, 3, 4]).await?;
    wait_voters(&cluster, 2, &[1, 2, 4]).await?;
    // And back, so that both have been where they were before, under other ids.
    cluster.holdfast(3, &["partitions", "move", "1", "--from", "4", "--to", "1"])?;
    wait_voters(&cluster, 1, &[1, 2, 3]).await?;
    load.progress(200, LIMIT).await?;
    assert_nothing_lost(&cluster, load).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_move_goes_on_when_who_asked_and_who_served_are_gone() -> Result<()> {
    let mut cluster = four_nodes(2).await?;
    let load = Load::start(cluster.endpoints(), 6);
    load.progress(200, LIMIT).await?;
    // The target is away, so the move cannot end before it is back.
    cluster.kill(3)?;
    let mut asking = begin_move(&cluster, 1, "1", "4")?;
    until("the move is wanted", LIMIT, || async {
        let found = replicas(&cluster, 1)?;
        Ok(found.iter().any(|(node, _, _)| *node == 4).then_some(()))
    })
    .await?;
    asking.kill()?;
    asking.wait()?;
    cluster.kill(1)?;
    // Somebody else asks for the same and joins it.
    let mut joining = begin_move(&cluster, 0, "1", "4")?;
    cluster.start_node(1)?;
    load.progress(200, LIMIT).await?;
    ensure!(
        joining.try_wait()?.is_none(),
        "a move to a node that is away cannot have ended"
    );
    cluster.start_node(3)?;
    wait_voters(&cluster, 1, &[2, 3, 4]).await?;
    until("who joined is told the end", LIMIT, || {
        let ended = joining.try_wait();
        async { Ok(ended?) }
    })
    .await
    .and_then(|status| {
        ensure!(status.success(), "who joined was told {status}");
        Ok(())
    })?;
    load.progress(200, LIMIT).await?;
    assert_nothing_lost(&cluster, load).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_learner_is_added_promoted_and_another_taken_away() -> Result<()> {
    let cluster = four_nodes(2).await?;
    let load = Load::start(cluster.endpoints(), 6);
    load.progress(200, LIMIT).await?;
    cluster.holdfast(2, &["partitions", "add-replica", "1", "--node", "4", "--learner"])?;
    let learner = until("the learner follows", LIMIT, || async {
        let found = replicas(&cluster, 1)?;
        let learner = found
            .iter()
            .find(|(node, _, role)| *node == 4 && role == "learner");
        Ok(learner.map(|(_, id, _)| *id))
    })
    .await?;
    load.progress(200, LIMIT).await?;
    cluster.holdfast(
        1,
        &["partitions", "promote", "1", "--replica", &learner.to_string()],
    )?;
    wait_voters(&cluster, 1, &[1, 2, 3, 4]).await?;
    // The leader itself goes, which has to hand over first.
    let all = replicas(&cluster, 1)?;
    let leader = all.iter().find(|(_, _, role)| role == "leader");
    let (node, id, _) = leader.context("no leader")?;
    cluster.holdfast(
        0,
        &["partitions", "remove-replica", "1", "--replica", &id.to_string()],
    )?;
    let left: Vec<u64> = (1..=4).filter(|other| other != node).collect();
    wait_voters(&cluster, 1, &left).await?;
    load.progress(200, LIMIT).await?;
    assert_nothing_lost(&cluster, load).await
}

/// Nobody writes, so the dead node's replica seems level for ever, and has the lowest id: the leader is to go elsewhere.
#[tokio::test(flavor = "multi_thread")]
async fn a_leader_moves_while_another_node_is_dead() -> Result<()> {
    let mut cluster = four_nodes(1).await?;
    cluster.holdfast(0, &["partitions", "transfer", "1", "--to", "1"])?;
    cluster.kill(1)?;
    cluster.holdfast(0, &["partitions", "move", "1", "--from", "1", "--to", "4"])?;
    let found = replicas(&cluster, 1)?;
    let on: Vec<u64> = found.iter().map(|(node, _, _)| *node).collect();
    let leads = found.iter().find(|(_, _, role)| role == "leader");
    ensure!(
        on == [2, 3, 4] && leads.is_some_and(|(node, _, _)| *node != 2),
        "{found:?}"
    );
    Ok(())
}
