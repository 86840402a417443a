//! Nodes come and go while clients write: add, drain, remove, move a replica, move leaders.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tests::load::{Load, assert_present};
use tests::{Cluster, until};
use tokio::time::Instant;

const LIMIT: Duration = Duration::from_secs(60);

/// Replicas that node `id` holds, from partition 1 on (every node holds partition 0).
fn replicas_of(cluster: &Cluster, id: u64) -> Result<usize> {
    let list = cluster.json(0, &["partitions", "list"])?;
    let all = list["partitions"].as_array().context("no partitions")?;
    Ok(all
        .iter()
        .filter(|p| p["id"] != 0)
        .filter(|p| {
            p["replicas"]
                .as_array()
                .is_some_and(|r| r.iter().any(|r| r["node"] == id))
        })
        .count())
}

async fn wait_node_4(cluster: &Cluster) -> Result<()> {
    until("node 4 is a member", LIMIT, || async {
        let list = cluster.json(0, &["nodes", "list"])?;
        Ok(list["nodes"]
            .as_array()
            .is_some_and(|n| n.iter().any(|n| n["id"] == 4))
            .then_some(()))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_added_drained_and_removed_under_load() -> Result<()> {
    let mut cluster = Cluster::start(3, 4).await?;
    let load = Load::start(cluster.endpoints(), 6);
    load.progress(200, LIMIT).await?;
    let fourth = cluster.add_node()?;
    wait_node_4(&cluster).await?;
    cluster.holdfast(0, &["nodes", "drain", "3"])?;
    until("node 3 holds nothing", LIMIT, || async {
        Ok((replicas_of(&cluster, 3)? == 0).then_some(()))
    })
    .await?;
    ensure!(
        replicas_of(&cluster, 4)? > 0,
        "the replicas of node 3 went nowhere"
    );
    load.progress(200, LIMIT).await?;
    cluster.stop(2).await?;
    cluster.holdfast(0, &["nodes", "remove", "3"])?;
    load.progress(200, LIMIT).await?;
    let acknowledged = load.finish().await?;
    for position in [0, 1, fourth] {
        assert_present(&cluster.nodes[position].client, &acknowledged).await?;
    }
    cluster.assert_replicas_equal().await?;

    // A removed node may not come back.
    cluster.start_node(2)?;
    let status = cluster.wait_exit(2, LIMIT).await?;
    let text = std::fs::read_to_string(cluster.log_path(2))?;
    ensure!(
        status != Some(0) && text.contains("removed"),
        "a removed node came back: {status:?}\n{text}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_node_takes_replicas_again_once_it_is_undrained() -> Result<()> {
    let mut cluster = Cluster::start(3, 4).await?;
    cluster.add_node()?;
    wait_node_4(&cluster).await?;
    let load = Load::start(cluster.endpoints(), 6);
    load.progress(200, LIMIT).await?;
    cluster.holdfast(0, &["nodes", "drain", "3"])?;
    ensure!(replicas_of(&cluster, 3)? == 0, "node 3 still holds replicas");
    load.progress(200, LIMIT).await?;
    cluster.holdfast(1, &["nodes", "undrain", "3"])?;
    until("node 3 holds its share again", LIMIT, || async {
        Ok((replicas_of(&cluster, 3)? == 3).then_some(()))
    })
    .await?;
    load.progress(200, LIMIT).await?;
    let acknowledged = load.finish().await?;
    for position in 0..4 {
        assert_present(&cluster.nodes[position].client, &acknowledged).await?;
    }
    cluster.assert_replicas_equal().await
}

/// Drains and removes node 3, whose process is gone, and checks that nothing is missing on the nodes left.
async fn forget_node_3(cluster: &Cluster, load: Load, left: &[usize]) -> Result<()> {
    load.progress(200, LIMIT).await?;
    cluster.holdfast(0, &["nodes", "drain", "3"])?;
    ensure!(replicas_of(cluster, 3)? == 0, "node 3 still holds replicas");
    ensure!(
        replicas_of(cluster, 4)? > 0,
        "the replicas of node 3 went nowhere"
    );
    cluster.holdfast(1, &["nodes", "remove", "3"])?;
    load.progress(200, LIMIT).await?;
    let acknowledged = load.finish().await?;
    for position in left {
        assert_present(&cluster.nodes[*position].client, &acknowledged).await?;
    }
    cluster.assert_replicas_equal().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_node_is_drained_and_removed() -> Result<()> {
    let mut cluster = Cluster::start(3, 4).await?;
    cluster.add_node()?;
    wait_node_4(&cluster).await?;
    let load = Load::start(cluster.endpoints(), 6);
    load.progress(200, LIMIT).await?;
    cluster.kill(2)?;
    forget_node_3(&cluster, load, &[0, 1, 3]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wiped_node_joins_anew_and_its_old_id_is_removed() -> Result<()> {
    let mut cluster = Cluster::start(3, 4).await?;
    let load = Load::start(cluster.endpoints(), 6);
    load.progress(200, LIMIT).await?;
    cluster.kill(2)?;
    std::fs::remove_dir_all(&cluster.nodes[2].data)?;
    // At the same addresses, with nothing on its disk, and without asking for an id.
    cluster.start_node(2)?;
    wait_node_4(&cluster).await?;
    forget_node_3(&cluster, load, &[0, 1, 2]).await
}

/// Node 3 is gone when node 2 is to be emptied: with both away, what is left of each partition could not go on.
async fn drain_node_2_without_node_3(undo: impl AsyncFnOnce(&mut Cluster) -> Result<()>) -> Result<()> {
    let mut cluster = Cluster::start(3, 4).await?;
    let load = Load::start(cluster.endpoints(), 6);
    load.progress(200, LIMIT).await?;
    // From here on nobody writes: each replica has all there is when its node goes.
    let mut acknowledged = load.finish().await?;
    cluster.kill(2)?;
    let begun = Instant::now();
    let mut drain = cluster
        .command(0, &["nodes", "drain", "2"])?
        .stderr(Stdio::piped())
        .spawn()?;
    let said = BufReader::new(drain.stderr.take().context("no stderr")?);
    let mut said = said.lines().inspect(|line| eprintln!("drain: {line:?}"));
    let named = said.find(|line| {
        line.as_ref()
            .is_ok_and(|line| line.contains("node 3 does not answer"))
    });
    ensure!(named.is_some(), "it does not say what it waits for");
    ensure!(begun.elapsed() < LIMIT / 2, "said late, and as an error");
    ensure!(replicas_of(&cluster, 2)? == 4, "node 2 was emptied");
    let there = cluster.endpoints()[..2].to_vec();
    let load = Load::start(there.clone(), 6);
    load.progress(200, LIMIT).await?;

    undo(&mut cluster).await?;
    said.for_each(drop);
    ensure!(drain.wait()?.success(), "the drain failed");
    ensure!(replicas_of(&cluster, 2)? == 0, "node 2 still holds replicas");
    acknowledged.extend(load.finish().await?);
    let load = Load::start(there, 6);
    load.progress(200, LIMIT).await?;
    acknowledged.extend(load.finish().await?);
    assert_present(&cluster.nodes[0].client, &acknowledged).await?;
    cluster.assert_replicas_equal().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_waits_for_a_node_that_is_gone_and_says_so() -> Result<()> {
    drain_node_2_without_node_3(async |cluster| cluster.start_node(2)).await
}

/// Whoever wants that has one replica of everything in the end, and all along a majority that lives.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_gone_is_drained_before_one_that_lives() -> Result<()> {
    drain_node_2_without_node_3(async |cluster| {
        cluster.holdfast(0, &["nodes", "drain", "3"])?;
        cluster.holdfast(0, &["nodes", "remove", "3"])?;
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn leaders_are_spread_and_can_be_moved() -> Result<()> {
    let cluster = Cluster::start(3, 6).await?;
    until("every node leads", LIMIT, || async {
        let list = cluster.json(0, &["partitions", "list"])?;
        let all = list["partitions"].as_array().context("no partitions")?;
        let led = |node: u64| all.iter().any(|p| p["leader_node"] == node);
        Ok((1..=3).all(led).then_some(()))
    })
    .await?;
    cluster.holdfast(0, &["partitions", "freeze"])?;
    for node in ["1", "2", "3"] {
        cluster.holdfast(1, &["partitions", "transfer", "1", "--to", node])?;
        until("the leader has moved", LIMIT, || async {
            let list = cluster.json(2, &["partitions", "show", "1"])?;
            Ok(list
                .to_string()
                .contains(&format!("\"leader_node\":{node}"))
                .then_some(()))
        })
        .await?;
    }
    cluster.holdfast(0, &["partitions", "thaw"])?;
    cluster.holdfast(0, &["partitions", "balance", "--dry-run"])?;
    Ok(())
}

/// Node 3 sleeps while node 4 joins and takes the lead of the meta partition: it is then a stranger that brings the map
/// to node 3, on which it does not stand yet.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_slept_finds_the_leader_that_joined_meanwhile() -> Result<()> {
    let mut cluster = Cluster::start(3, 2).await?;
    cluster.holdfast(0, &["partitions", "freeze"])?;
    // So that others can lead it while node 3 sleeps, and it knows of a leader that is none any more.
    transfer_meta(&cluster, "1").await?;
    cluster.signal(2, libc::SIGSTOP)?;
    cluster.add_node()?;
    wait_node_4(&cluster).await?;
    // Three vote in the meta partition: node 4 in the place of node 2.
    cluster.holdfast(0, &["nodes", "drain", "2", "--detach"])?;
    transfer_meta(&cluster, "4").await?;
    cluster.signal(2, libc::SIGCONT)?;
    until("node 3 knows node 4", LIMIT, || async {
        let list = cluster.json(2, &["nodes", "list"])?;
        let nodes = list["nodes"].as_array().context("no nodes")?;
        Ok(nodes.iter().any(|node| node["id"] == 4).then_some(()))
    })
    .await?;
    cluster.assert_replicas_equal().await
}

async fn transfer_meta(cluster: &Cluster, node: &str) -> Result<()> {
    until("the meta partition is led there", LIMIT, || async {
        // Refused while the target is not a voter yet, or lags.
        let _ = cluster.holdfast(0, &["partitions", "transfer", "0", "--to", node]);
        let list = cluster.json(0, &["partitions", "show", "0"])?;
        Ok(list
            .to_string()
            .contains(&format!("\"leader_node\":{node}"))
            .then_some(()))
    })
    .await
}

/// The node that led the meta partition dies and comes back at another address. Its own vote names nobody to follow, the new
/// leader looks for it where it was, and the map that it has says the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_comes_back_at_another_address_is_found() -> Result<()> {
    let mut cluster = Cluster::start(3, 2).await?;
    cluster.holdfast(0, &["partitions", "freeze"])?;
    cluster.holdfast(0, &["partitions", "transfer", "0", "--to", "3"])?;
    until("node 3 leads the meta partition", LIMIT, || async {
        let meta = cluster.json(0, &["partitions", "show", "0"])?;
        Ok((meta["leader_node"] == 3).then_some(()))
    })
    .await?;
    cluster.kill(2)?;
    let spare = cluster.plan_node();
    cluster.nodes[2].peer = cluster.nodes[spare].peer.clone();
    cluster.nodes.truncate(spare);
    cluster.start_node(2)?;
    cluster.wait_ready(3).await?;
    let nodes = cluster.json(0, &["nodes"])?;
    ensure!(nodes.to_string().contains(&cluster.nodes[2].peer), "{nodes}");
    cluster.client(2).await?.put("k", "v", None).await?;
    cluster.assert_replicas_equal().await
}
