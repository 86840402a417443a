//! Who may be a node: wiped directories, copies, reused ids and foreign clusters are refused by name.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tests::{Cluster, until};

const LIMIT: Duration = Duration::from_secs(30);
/// Exit status of a process that the others refuse.
const FATAL: i32 = 70;

/// Starts a node that must refuse to run, and checks the sentence that it ends with.
async fn assert_refused(cluster: &mut Cluster, position: usize, sentence: [&str; 2]) -> Result<()> {
    let before = cluster.log(position)?.len();
    cluster.start_node(position)?;
    let status = cluster.wait_exit(position, LIMIT).await?;
    let text = cluster.log_since(position, before)?;
    ensure!(status == Some(FATAL), "exit status {status:?}:\n{text}");
    let said = text
        .lines()
        .any(|line| line.starts_with("holdfast: fatal: ") && sentence.iter().all(|part| line.contains(part)));
    ensure!(said, "does not say {sentence:?}:\n{text}");
    Ok(())
}

/// Starts a node with an empty directory that asks to be node 3, and returns what it said when it was refused.
fn refused_as_node_3(cluster: &Cluster, position: usize) -> Result<String> {
    let mut command = cluster.serve_command(position)?;
    let out = command.args(["--node-id", "3"]).output().context("serve")?;
    let text = String::from_utf8_lossy(&out.stderr).to_string() + &String::from_utf8_lossy(&out.stdout);
    ensure!(out.status.code() == Some(1), "{}:\n{text}", out.status);
    Ok(text)
}

fn copy_directory(from: &std::path::Path, to: &std::path::Path) -> Result<()> {
    let status = std::process::Command::new("cp")
        .arg("-a")
        .arg(from)
        .arg(to)
        .status()?;
    ensure!(status.success(), "cp failed");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wiped_node_is_refused_under_its_old_id() -> Result<()> {
    let mut cluster = Cluster::start(3, 2).await?;
    cluster.kill(2)?;
    std::fs::remove_dir_all(&cluster.nodes[2].data)?;
    let text = refused_as_node_3(&cluster, 2)?;
    ensure!(
        text.contains("another incarnation: the data directory of node 3 was wiped"),
        "does not say that it was wiped:\n{text}"
    );
    cluster.client(0).await?.put("after", "served", None).await?;
    let list = cluster.json(0, &["nodes", "list"])?;
    let nodes = list["nodes"].as_array().context("no nodes")?;
    ensure!(nodes.len() == 3, "it became another node: {list}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_id_that_another_node_has_is_refused() -> Result<()> {
    let mut cluster = Cluster::start(3, 2).await?;
    let fourth = cluster.plan_node();
    let text = refused_as_node_3(&cluster, fourth)?;
    let (owner, other) = (&cluster.nodes[2].peer, &cluster.nodes[fourth].peer);
    ensure!(
        text.contains(&format!(
            "another incarnation, at {owner}: it is reused by {other}"
        )),
        "does not say who reuses it:\n{text}"
    );
    cluster.assert_replicas_equal().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copied_directory_is_refused_while_the_original_runs() -> Result<()> {
    let mut cluster = Cluster::start(3, 2).await?;
    cluster.stop(2).await?;
    let fourth = cluster.dir.path().join("node-4");
    copy_directory(&cluster.nodes[2].data, &fourth)?;
    cluster.start_node(2)?;
    cluster.wait_ready(3).await?;
    cluster.plan_node();
    let at = format!("process at {}: copied directory", cluster.nodes[2].peer);
    assert_refused(&mut cluster, 3, ["node id 3 is already in use by", &at]).await?;
    cluster.nodes.pop();
    cluster.wait_ready(3).await?;
    cluster.assert_replicas_equal().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_copy_is_refused_after_the_original_has_gone_on() -> Result<()> {
    let mut cluster = Cluster::start(3, 2).await?;
    cluster.stop(2).await?;
    let old = cluster.dir.path().join("old");
    copy_directory(&cluster.nodes[2].data, &old)?;
    for _ in 0..2 {
        cluster.start_node(2)?;
        cluster.wait_ready(3).await?;
        cluster.stop(2).await?;
    }
    std::fs::remove_dir_all(&cluster.nodes[2].data)?;
    copy_directory(&old, &cluster.nodes[2].data)?;
    let sentence = ["node 3 runs on an older copy of the data directory", "started"];
    assert_refused(&mut cluster, 2, sentence).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_cluster_is_refused() -> Result<()> {
    let mut ours = Cluster::start(3, 1).await?;
    let mut theirs = Cluster::start(1, 1).await?;
    theirs.stop(0).await?;
    ours.stop(2).await?;
    std::fs::remove_dir_all(&ours.nodes[2].data)?;
    copy_directory(&theirs.nodes[0].data, &ours.nodes[2].data)?;
    // The foreign node now answers where node 3 was: both of ours meet it, and say what it is.
    ours.start_node(2)?;
    for position in 0..2 {
        until("the foreign cluster id is named", LIMIT, || async {
            Ok(ours.log(position)?.contains("foreign cluster id").then_some(()))
        })
        .await?;
    }
    let list = ours.json(0, &["nodes", "list"])?;
    ensure!(
        list["nodes"][2]["detector"] != "alive",
        "a foreign node passes for node 3: {list}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_in_use_and_a_port_in_use_are_named() -> Result<()> {
    let cluster = Cluster::start(1, 1).await?;
    let again = cluster.serve_command(0)?.output()?;
    let text = String::from_utf8_lossy(&again.stderr).to_string() + &String::from_utf8_lossy(&again.stdout);
    ensure!(
        !again.status.success() && text.contains("in use"),
        "second process:\n{text}"
    );

    let fresh = tempfile::tempdir()?;
    let data = fresh.path().join("data");
    let init = std::process::Command::new(tests::cluster::binary()?)
        .arg("init")
        .arg("--data-dir")
        .arg(&data)
        .output()?;
    ensure!(
        init.status.success(),
        "init: {}",
        String::from_utf8_lossy(&init.stderr)
    );
    let other = std::process::Command::new(tests::cluster::binary()?)
        .arg("serve")
        .arg("--data-dir")
        .arg(&data)
        .args([
            "--listen-client",
            &cluster.nodes[0].client,
            "--listen-peer",
            "127.0.0.1:0",
        ])
        .args(["--listen-http", "127.0.0.1:0"])
        .output()?;
    let text = String::from_utf8_lossy(&other.stderr).to_string() + &String::from_utf8_lossy(&other.stdout);
    ensure!(
        !other.status.success() && text.contains(&cluster.nodes[0].client),
        "port in use:\n{text}"
    );

    let twice = std::process::Command::new(tests::cluster::binary()?)
        .arg("init")
        .arg("--data-dir")
        .arg(&data)
        .output()?;
    ensure!(!twice.status.success(), "a directory was initialised twice");
    Ok(())
}
