//! Disks that fail and disks that fill: the process stops, or refuses in time, and nothing is lost.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tests::load::Load;
use tests::{Cluster, until};
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::Instant;

const LIMIT: Duration = Duration::from_secs(60);
/// Exit status of a process that stopped itself, since it could not keep a promise any more.
const FATAL: i32 = 70;

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_fsync_stops_the_process_and_others_take_over() -> Result<()> {
    let mut cluster = Cluster::start(3, 2).await?;
    let load = Load::start(cluster.endpoints(), 6);
    load.progress(100, LIMIT).await?;
    // From now on every sync of node 3 fails: strace makes the call return EIO.
    let pid = cluster.pid(2)?;
    let mut strace = syncs_of(pid, "error=EIO")?;
    let status = cluster.wait_exit(2, LIMIT).await?;
    strace.wait()?;
    ensure!(
        status == Some(FATAL),
        "exit status {status:?} after a failed sync"
    );
    let text = cluster.log(2)?;
    let dir = cluster.nodes[2].data.join("log");
    let said = text.lines().any(|line| {
        line.starts_with("holdfast: fatal: ")
            && line.contains(&dir.display().to_string())
            && line.contains("Input/output error")
    });
    ensure!(said, "does not say what failed, and where:\n{text}");
    load.progress(100, LIMIT).await.context("two of three go on")?;
    cluster.start_node(2)?;
    cluster.wait_ready(3).await?;
    cluster.assert_nothing_lost(load).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_of_another_cluster_is_refused() -> Result<()> {
    let mut ours = Cluster::start(1, 1).await?;
    let mut theirs = Cluster::start(1, 1).await?;
    ours.stop(0).await?;
    theirs.stop(0).await?;
    std::fs::remove_dir_all(ours.nodes[0].data.join("log"))?;
    let from = theirs.nodes[0].data.join("log");
    let copied = Command::new("cp")
        .arg("-a")
        .arg(from)
        .arg(&ours.nodes[0].data)
        .status()?;
    ensure!(copied.success(), "cp failed");
    ours.start_node(0)?;
    let status = ours.wait_exit(0, LIMIT).await?;
    let text = ours.log(0)?;
    ensure!(
        status == Some(1),
        "exit status {status:?}: a log of another cluster was opened"
    );
    ensure!(
        text.contains("another cluster"),
        "does not say whose log it is:\n{text}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filling_disk_refuses_writes_and_recovers() -> Result<()> {
    let mut cluster = Cluster::start(1, 1).await?;
    cluster.client(0).await?.put("before", "kept", None).await?;
    cluster.stop(0).await?;
    let disk = Disk::of(&cluster).await?;
    cluster.nodes[0].extra = disk.reserve();
    cluster.start_node(0)?;
    cluster.wait_ready(1).await?;
    cluster.client(0).await?.put("room", "there is", None).await?;
    disk.fill()?;
    until("writes are refused", LIMIT, || async {
        let said = cluster.client(0).await?.put("full", "x", None).await;
        Ok(said
            .is_err_and(|e| e.to_string().contains("space exceeded"))
            .then_some(()))
    })
    .await?;
    let kept = cluster.client(0).await?.get("before", None).await?;
    ensure!(kept.kvs().len() == 1, "reads stopped with the disk full");
    let mut client = cluster.client(0).await?;
    let alarms = client
        .alarm(etcd_client::AlarmAction::Get, etcd_client::AlarmType::None, None)
        .await?;
    ensure!(!alarms.alarms().is_empty(), "no alarm");
    disk.clear()?;
    until("writes are taken again", LIMIT, || async {
        Ok(cluster
            .client(0)
            .await?
            .put("again", "x", None)
            .await
            .is_ok()
            .then_some(()))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_disk_fills_hands_over_and_all_nodes_tell_of_it() -> Result<()> {
    let mut cluster = Cluster::start(3, 6).await?;
    cluster.stop(0).await?;
    let disk = Disk::of(&cluster).await?;
    cluster.nodes[0].extra = disk.reserve();
    cluster.start_node(0)?;
    cluster.wait_ready(3).await?;
    until("it leads something", LIMIT, || leads(&cluster, true)).await?;
    let load = Load::start(cluster.endpoints(), 6);
    load.progress(100, LIMIT).await?;
    disk.fill()?;
    until("it leads nothing", LIMIT, || leads(&cluster, false)).await?;
    load.progress(100, LIMIT).await?;
    for asked in [0, 1, 2] {
        let raised = alarms(&cluster, asked).await?;
        ensure!(raised == [(1, NOSPACE)], "node {} says {raised:?}", asked + 1);
    }
    disk.clear()?;
    until("the alarm ends", LIMIT, || async {
        Ok(alarms(&cluster, 1).await?.is_empty().then_some(()))
    })
    .await?;
    until("it leads again", LIMIT, || leads(&cluster, true)).await?;
    cluster.assert_nothing_lost(load).await
}

/// Half a second a sync: who leads there makes all its clients wait.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_disk_is_slow_hands_over_and_takes_part_again() -> Result<()> {
    let cluster = Cluster::start(3, 6).await?;
    until("it leads something", LIMIT, || leads(&cluster, true)).await?;
    let load = Load::start(cluster.endpoints(), 6);
    load.progress(100, LIMIT).await?;
    let mut strace = syncs_of(cluster.pid(0)?, "delay_enter=500000")?;
    let begun = Instant::now();
    until("it leads nothing", 2 * STEPS_ASIDE, || leads(&cluster, false)).await?;
    println!("stepped aside {:?} after the disk became slow", begun.elapsed());
    let status = cluster.json(1, &["status"])?;
    let problems = status["problems"].to_string();
    ensure!(problems.contains("node 1: disk slow"), "nobody is told: {status}");
    load.progress(100, LIMIT).await?;
    // strace lets go of the process when it is asked to end.
    let ended = Command::new("kill").arg(strace.id().to_string()).status()?;
    ensure!(ended.success(), "strace could not be ended");
    strace.wait()?;
    until("it leads again", LIMIT, || leads(&cluster, true)).await?;
    cluster.assert_nothing_lost(load).await
}

/// How long it may take, with syncs of half a second.
const STEPS_ASIDE: Duration = Duration::from_secs(5);

/// Tampers with each sync of a process from now on.
fn syncs_of(pid: u32, how: &str) -> Result<Child> {
    Command::new("strace")
        .args(["-f", "-qq", "-e", "trace=fsync,fdatasync", "-e"])
        .args([&format!("inject=fsync,fdatasync:{how}"), "-p", &pid.to_string()])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("cannot run strace (scripts/install-deps.sh installs it)")
}

/// etcd's number of the alarm.
const NOSPACE: i32 = 1;

/// The alarms that a node tells of: member and kind.
async fn alarms(cluster: &Cluster, position: usize) -> Result<Vec<(u64, i32)>> {
    let mut client = cluster.client(position).await?;
    let told = client
        .alarm(etcd_client::AlarmAction::Get, etcd_client::AlarmType::None, None)
        .await?;
    let each = told.alarms().iter();
    Ok(each
        .map(|alarm| (alarm.member_id(), alarm.alarm() as i32))
        .collect())
}

/// Whether the first node leads any partition, as another node sees it.
async fn leads(cluster: &Cluster, wanted: bool) -> Result<Option<()>> {
    let nodes = cluster.json(1, &["nodes", "list"])?;
    let nodes = nodes["nodes"].as_array().context("no nodes")?;
    let first = nodes.iter().find(|node| node["id"] == 1).context("no node 1")?;
    let led = first["leaders"].as_u64().context("no count of leaders")?;
    Ok(((led > 0) == wanted).then_some(()))
}

/// There is one disk, and what one test takes of it the other's reserve would feel.
static DISK: Mutex<()> = Mutex::const_new(());

/// The disk under a cluster, with a file that uses up what a node keeps in reserve.
struct Disk {
    filler: std::path::PathBuf,
    free_bytes: u64,
    _alone: MutexGuard<'static, ()>,
}

impl Disk {
    /// What may come and go on the disk without tripping the reserve: others use it too. Far above what a node wants
    /// to be free beyond its reserve before it takes writes again.
    const ROOM_BYTES: u64 = 2 * 1024 * 1024 * 1024;
    /// What is taken to trip it, though others may give back as much as `ROOM_BYTES` meanwhile.
    const FILLER_BYTES: u64 = 2 * Disk::ROOM_BYTES;

    async fn of(cluster: &Cluster) -> Result<Disk> {
        let alone = DISK.lock().await;
        let free_bytes = free_bytes(cluster.dir.path())?;
        let wanted = Disk::FILLER_BYTES + Disk::ROOM_BYTES;
        ensure!(
            free_bytes > wanted,
            "{free_bytes} bytes free, {wanted} are needed: nothing can be shown here"
        );
        Ok(Disk {
            filler: cluster.dir.path().join("filler"),
            free_bytes,
            _alone: alone,
        })
    }

    /// Flags of a node whose reserve is just below what is free.
    fn reserve(&self) -> Vec<String> {
        let reserve = self.free_bytes - Disk::ROOM_BYTES;
        vec!["--disk-reserve-bytes".into(), reserve.to_string()]
    }

    fn fill(&self) -> Result<()> {
        let size = Disk::FILLER_BYTES.to_string();
        let status = Command::new("fallocate")
            .args(["-l", &size])
            .arg(&self.filler)
            .status()?;
        ensure!(status.success(), "fallocate");
        Ok(())
    }

    fn clear(&self) -> Result<()> {
        Ok(std::fs::remove_file(&self.filler)?)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // The next test finds the disk as this one did.
        let _ = std::fs::remove_file(&self.filler);
    }
}

fn free_bytes(path: &std::path::Path) -> Result<u64> {
    let out = Command::new("df")
        .args(["--output=avail", "-B1"])
        .arg(path)
        .output()?;
    let text = String::from_utf8(out.stdout)?;
    text.lines()
        .nth(1)
        .context("df printed nothing")?
        .trim()
        .parse()
        .context("df")
}
