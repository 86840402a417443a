//! Data directories that are damaged, or written by another version: named, never served, and nothing is lost.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use etcd_client::{Client, Error, GetOptions};
use tests::{Cluster, until};
use tonic::Code;
use xxhash_rust::xxh3::xxh3_64;

const LIMIT: Duration = Duration::from_secs(60);

/// A cluster whose third node is stopped, with 500 pairs in tables.
async fn stopped_with_tables() -> Result<(Cluster, Client)> {
    let mut cluster = Cluster::start(3, 1).await?;
    let mut client = cluster.client(0).await?;
    put_all(&mut client).await?;
    cluster.stop(2).await?;
    Ok((cluster, client))
}

/// Bytes that no compression makes fewer.
fn value(n: usize) -> Vec<u8> {
    let parts = 0..250;
    parts
        .flat_map(|part| xxh3_64(format!("{n} {part}").as_bytes()).to_le_bytes())
        .collect()
}

async fn put_all(client: &mut Client) -> Result<()> {
    for n in 0..500 {
        client.put(format!("k{n}"), value(n), None).await?;
    }
    Ok(())
}

/// Waits until the third node has named the damaged directory, and a replica from its peers has taken the place of it.
async fn wait_rebuilt(cluster: &Cluster, since: usize, damaged: &Path) -> Result<()> {
    until("the damaged directory is named", LIMIT, || async {
        let text = cluster.log_since(2, since)?;
        Ok(text.contains(&damaged.display().to_string()).then_some(()))
    })
    .await?;
    until("the damaged directory is gone", LIMIT, || async {
        Ok((!damaged.exists()).then_some(()))
    })
    .await?;
    cluster.wait_ready(3).await?;
    cluster.assert_replicas_equal().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_was_cut_is_named_at_the_start_and_rebuilt_from_peers() -> Result<()> {
    let (mut cluster, _) = stopped_with_tables().await?;
    let damaged = damage_tables(&partition(&cluster, 2, 1), cut)?;
    let before = cluster.log(2)?.len();
    cluster.start_node(2)?;
    wait_rebuilt(&cluster, before, &damaged).await
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_blocks_are_named_never_served_and_rebuilt_from_peers() -> Result<()> {
    let (mut cluster, mut client) = stopped_with_tables().await?;
    let damaged = damage_tables(&partition(&cluster, 2, 1), turn_bytes)?;
    let before = cluster.log(2)?.len();
    cluster.start_node(2)?;
    cluster.wait_ready(3).await?;
    // A write reads what it replaces.
    put_all(&mut client).await?;
    wait_rebuilt(&cluster, before, &damaged).await
}

/// Nobody writes: what only a read has met is enough.
#[tokio::test(flavor = "multi_thread")]
async fn damage_that_a_read_meets_is_refused_and_rebuilt_from_peers() -> Result<()> {
    let (mut cluster, _) = stopped_with_tables().await?;
    let damaged = damage_tables(&partition(&cluster, 2, 1), turn_later_bytes)?;
    let before = cluster.log(2)?.len();
    cluster.start_node(2)?;
    cluster.wait_ready(3).await?;
    ensure!(read_all(&cluster, 2).await? > 0, "no read has met the damage");
    wait_rebuilt(&cluster, before, &damaged).await?;
    ensure!(read_all(&cluster, 2).await? == 0, "it is still damaged");
    Ok(())
}

/// Reads each pair from a node's own state: whole, or refused. Returns how many were refused.
async fn read_all(cluster: &Cluster, position: usize) -> Result<usize> {
    let mut client = cluster.client(position).await?;
    let mut refused = 0;
    for n in 0..500 {
        let stale = GetOptions::new().with_serializable();
        match client.get(format!("k{n}"), Some(stale)).await {
            Ok(found) => ensure!(found.kvs()[0].value() == value(n), "k{n} was served damaged"),
            Err(Error::GRpcStatus(status)) if status.code() == Code::DataLoss => refused += 1,
            Err(other) => bail!("k{n}: {other:?}"),
        }
    }
    Ok(refused)
}

/// The meta partition's tables change under a running node, which finds out at the next command: it gets another replica,
/// though it was never stopped.
#[tokio::test(flavor = "multi_thread")]
async fn a_meta_replica_damaged_under_a_running_node_is_replaced() -> Result<()> {
    let (mut cluster, mut client) = stopped_with_tables().await?;
    let small = |what: &str| ["--set".to_owned(), format!("storage.{what}_bytes={}", 8 << 20)];
    cluster.nodes[2].extra = ["cache", "write_buffers"].map(small).concat();
    let before = cluster.log(2)?.len();
    cluster.start_node(2)?;
    cluster.wait_ready(3).await?;
    let damaged = damage_tables(&partition(&cluster, 2, 0), turn_bytes)?;
    // More than the cache holds, so that what is read after it is read from the disk.
    let large = |n: usize| format!("large{n}");
    for n in 0..200 {
        client.put(large(n), value(n).repeat(100), None).await?;
    }
    let mut third = cluster.client(2).await?;
    for n in 0..200 {
        let stale = GetOptions::new().with_serializable();
        third.get(large(n), Some(stale)).await?;
    }
    // Each replica looks whether there is such a namespace already.
    cluster.holdfast(0, &["namespaces", "create", "new"])?;
    wait_rebuilt(&cluster, before, &damaged).await?;
    cluster.holdfast(0, &["partitions", "check", "0"])?;
    Ok(())
}

/// Where a node has its replicas of a partition.
fn partition(cluster: &Cluster, position: usize, partition: u32) -> PathBuf {
    storage::partitions_path(&cluster.nodes[position].data).join(partition.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_only_replica_is_kept_though_it_is_damaged() -> Result<()> {
    let mut cluster = Cluster::start(1, 1).await?;
    put_all(&mut cluster.client(0).await?).await?;
    cluster.stop(0).await?;
    let tables = partition(&cluster, 0, 1);
    let aside = cluster.dir.path().join("aside");
    copy(&tables, &aside)?;
    let damaged = damage_tables(&tables, cut)?;
    let before = cluster.log(0)?.len();
    cluster.start_node(0)?;
    until("the damaged replica is kept", LIMIT, || async {
        let text = cluster.log_since(0, before)?;
        let named = text.contains(&damaged.display().to_string());
        Ok((named && text.contains("the damaged replica is kept")).then_some(()))
    })
    .await?;
    let mut client = cluster.client(0).await?;
    ensure!(
        client.put("k0", "x", None).await.is_err(),
        "a damaged replica serves"
    );
    cluster.stop(0).await?;
    // What was damaged is put back by hand, and everything is there.
    for file in std::fs::read_dir(&damaged)? {
        let file = file?;
        let whole = aside
            .join(damaged.file_name().context("no name")?)
            .join(file.file_name());
        if whole.exists() {
            std::fs::copy(whole, file.path())?;
        }
    }
    cluster.start_node(0)?;
    cluster.wait_ready(1).await?;
    let all = GetOptions::new().with_all_keys().with_count_only();
    let found = cluster.client(0).await?.get("", Some(all)).await?;
    ensure!(found.count() == 500, "{} of 500 keys are there", found.count());
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let status = Command::new("cp").arg("-a").arg(from).arg(to).status()?;
    ensure!(status.success(), "cp failed");
    Ok(())
}

/// Cuts a file in half.
fn cut(file: &Path) -> Result<()> {
    let half = std::fs::metadata(file)?.len() / 2;
    Ok(std::fs::File::options().write(true).open(file)?.set_len(half)?)
}

/// Damages every table of a partition and returns the directory they are in.
fn damage_tables(partition: &Path, damage: impl Fn(&Path) -> Result<()>) -> Result<PathBuf> {
    let mut damaged = None;
    for replica in std::fs::read_dir(partition)? {
        let replica = replica?.path();
        if !replica.is_dir() {
            continue;
        }
        for file in std::fs::read_dir(&replica)? {
            let file = file?.path();
            if file.extension().is_some_and(|e| e == "sst") {
                damage(&file)?;
                damaged = Some(replica.clone());
            }
        }
    }
    damaged.context("no table to damage")
}

/// Turns bytes all over a file, but at its end, where a table keeps what is read when it is opened.
fn turn_bytes(file: &Path) -> Result<()> {
    turn_from(file, 0)
}

/// The same, and but the first third: a replica can be opened, and what clients wrote is damaged.
fn turn_later_bytes(file: &Path) -> Result<()> {
    turn_from(file, std::fs::metadata(file)?.len() as usize / 3)
}

fn turn_from(file: &Path, start: usize) -> Result<()> {
    let mut bytes = std::fs::read(file)?;
    let end = bytes.len() / 10 * 9;
    bytes[start..end]
        .iter_mut()
        .step_by(1000)
        .for_each(|byte| *byte ^= 0xff);
    Ok(std::fs::write(file, bytes)?)
}

/// What a node that was started on a changed directory ends with: its exit status and its last words.
async fn refused_start(cluster: &mut Cluster, position: usize) -> Result<(Option<i32>, String)> {
    let before = cluster.log(position)?.len();
    cluster.start_node(position)?;
    let status = cluster.wait_exit(position, LIMIT).await?;
    Ok((status, cluster.log_since(position, before)?))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_log_is_named_and_never_served() -> Result<()> {
    let mut cluster = Cluster::start(3, 1).await?;
    let mut client = cluster.client(0).await?;
    put_all(&mut client).await?;
    cluster.kill(2)?;
    // The largest write-ahead log: what was acknowledged is in it, and votes may be.
    let dir = cluster.nodes[2].data.join("log");
    let mut logs = Vec::new();
    for file in std::fs::read_dir(&dir)? {
        let file = file?;
        if file.path().extension().is_some_and(|e| e == "log") {
            logs.push((file.metadata()?.len(), file.path()));
        }
    }
    let (_, largest) = logs.into_iter().max().context("no write-ahead log")?;
    turn_bytes(&largest)?;
    let (status, text) = refused_start(&mut cluster, 2).await?;
    ensure!(status == Some(1), "exit status {status:?}:\n{text}");
    let named = text.contains("cannot open the log") && text.contains(&dir.display().to_string());
    ensure!(named, "does not name {}:\n{text}", dir.display());
    // Its votes are not known any more, so it never votes again; the others go on without it.
    client.put("after", "served", None).await?;
    Ok(())
}

/// Raises the format in a file that is a checksum and a content, whose first byte is its format.
fn of_newer_format(bytes: &[u8]) -> Result<Vec<u8>> {
    let (_, content) = bytes.split_first_chunk::<8>().context("too short")?;
    let (format, rest) = content.split_first().context("no format")?;
    let newer = [&[format + 1], rest].concat();
    Ok([&xxh3_64(&newer).to_le_bytes()[..], &newer].concat())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_newer_version_wrote_is_named_and_kept() -> Result<()> {
    let mut cluster = Cluster::start(3, 1).await?;
    cluster.client(0).await?.put("k", "v", None).await?;
    cluster.stop(2).await?;
    let data = cluster.nodes[2].data.clone();
    let identity = std::fs::read_to_string(data.join("identity"))?;
    let newer = identity.replacen("identity 1", "identity 2", 1);
    check_newer(&mut cluster, &data.join("identity"), newer.as_bytes()).await?;
    let marker = std::fs::read_dir(data.join("partitions").join("1"))?
        .filter_map(|file| Some(file.ok()?.path()))
        .find(|path| path.extension().is_some_and(|e| e == "current"))
        .context("no marker")?;
    let newer = of_newer_format(&std::fs::read(&marker)?)?;
    check_newer(&mut cluster, &marker, &newer).await?;
    // It is no damage: all is still there for that version.
    cluster.start_node(2)?;
    cluster.wait_ready(3).await?;
    cluster.assert_replicas_equal().await
}

/// Node 3 refuses to start with `newer` in a file, and says why. Puts back what was there.
async fn check_newer(cluster: &mut Cluster, file: &Path, newer: &[u8]) -> Result<()> {
    let content = std::fs::read(file)?;
    ensure!(content != newer, "{} was not changed", file.display());
    std::fs::write(file, newer)?;
    let (status, text) = refused_start(cluster, 2).await?;
    ensure!(status == Some(1), "exit status {status:?}:\n{text}");
    let sentence = format!("{} has format 2, this build reads 1", file.display());
    ensure!(text.contains(&sentence), "does not say that {sentence}:\n{text}");
    Ok(std::fs::write(file, content)?)
}
