//! Starts three processes of one system on this machine, waits until they serve, and ends them.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::Instant;

use crate::Options;
use crate::kv::Connection;
use crate::process::{self, Signal};

/// How long a start may take.
const START_LIMIT: Duration = Duration::from_secs(180);
/// How long an orderly stop may take.
const STOP_LIMIT: Duration = Duration::from_secs(30);
/// Processes of a cluster.
pub const NODES: usize = 3;

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// `holdfast dev` with so many partitions.
    Holdfast {
        /// Partitions beside the meta partition.
        partitions: u32,
    },
    /// Three processes of etcd.
    Etcd,
}

/// A running cluster. Dropping it kills its processes and deletes its data.
pub struct System {
    /// Where clients connect, by node.
    pub endpoints: Vec<String>,
    /// Process ids, by node.
    pub pids: Vec<u32>,
    /// What was started: the processes of etcd, or `holdfast dev`.
    children: Vec<Child>,
    folder: PathBuf,
}

impl System {
    /// Starts it with no data, and returns when it serves.
    pub async fn start(options: &Options, kind: Kind) -> anyhow::Result<System> {
        let name = match kind {
            Kind::Holdfast { .. } => "holdfast",
            Kind::Etcd => "etcd",
        };
        let folder = options
            .data_dir
            .join(format!("bench-{}-{name}", std::process::id()));
        if folder.exists() {
            std::fs::remove_dir_all(&folder).context("clear the data directory")?;
        }
        std::fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
        let base = free_base_port()?;
        let system = match kind {
            Kind::Holdfast { partitions } => start_holdfast(options, folder, base, partitions).await?,
            Kind::Etcd => start_etcd(options, folder, base).await?,
        };
        system.wait_serving().await?;
        Ok(system)
    }

    /// Processor time that its nodes have used.
    pub fn cpu_seconds(&self) -> anyhow::Result<f64> {
        self.pids.iter().map(|pid| process::cpu_seconds(*pid)).sum()
    }

    /// Asks it to stop, and waits.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        for child in &self.children {
            if let Some(pid) = child.id() {
                process::signal(pid, Signal::Terminate)?;
            }
        }
        for child in &mut self.children {
            tokio::time::timeout(STOP_LIMIT, child.wait())
                .await
                .context("it did not stop")??;
        }
        Ok(())
    }

    async fn wait_serving(&self) -> anyhow::Result<()> {
        let end = Instant::now() + START_LIMIT;
        for endpoint in &self.endpoints {
            loop {
                let error = match put_once(endpoint).await {
                    Ok(()) => break,
                    Err(error) => error,
                };
                if Instant::now() > end {
                    return Err(error).with_context(|| format!("{endpoint} does not serve"));
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        Ok(())
    }
}

impl Drop for System {
    fn drop(&mut self) {
        let started = self.children.iter().filter_map(Child::id);
        for pid in started
            .chain(self.pids.iter().copied())
            .collect::<std::collections::BTreeSet<_>>()
            .iter()
        {
            if process::runs(*pid) && process::signal(*pid, Signal::Kill).is_err() {
                crate::say(format!("process {pid} could not be killed"));
            }
        }
        if let Err(error) = std::fs::remove_dir_all(&self.folder) {
            crate::say(format!("{} stays behind: {error}", self.folder.display()));
        }
    }
}

async fn put_once(endpoint: &str) -> anyhow::Result<()> {
    let mut connection = Connection::open(endpoint).await?;
    let put = connection.put(b"bench/ready".to_vec(), b"yes".to_vec());
    tokio::time::timeout(Duration::from_secs(5), put).await??;
    Ok(())
}

/// A port with some twenty free ones after it, below those that the system gives to outgoing connections.
fn free_base_port() -> anyhow::Result<u16> {
    let first = 20_000 + (std::process::id() % 100) as u16 * 100;
    let free = |base: u16| {
        let ports = (0..NODES as u16).flat_map(|node| (0..3).map(move |port| base + node * 10 + port));
        ports
            .map(|port| std::net::TcpListener::bind(("127.0.0.1", port)))
            .all(|bound| bound.is_ok())
    };
    (0..100)
        .map(|step| first + step * 23)
        .find(|base| free(*base))
        .context("no free ports")
}

async fn start_holdfast(
    options: &Options,
    folder: PathBuf,
    base: u16,
    partitions: u32,
) -> anyhow::Result<System> {
    let said = folder.with_extension("err");
    let child = Command::new(&options.holdfast)
        .args([
            "dev",
            "--nodes",
            &NODES.to_string(),
            "--partitions",
            &partitions.to_string(),
        ])
        .args(["--base-port", &base.to_string(), "--data-dir"])
        .arg(&folder)
        .env("HOLDFAST_LOG_LEVEL", "warn")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(std::fs::File::create(&said).with_context(|| format!("make {}", said.display()))?)
        .spawn()
        .with_context(|| format!("start {}", options.holdfast.display()))?;
    let endpoints = (0..NODES as u16)
        .map(|node| format!("127.0.0.1:{}", base + node * 10))
        .collect();
    let mut system = System {
        endpoints,
        pids: Vec::new(),
        children: vec![child],
        folder,
    };
    let ready = wait_ready(&mut system).await;
    let text = std::fs::read_to_string(&said).unwrap_or_default();
    std::fs::remove_file(&said).with_context(|| format!("remove {}", said.display()))?;
    if let Err(error) = ready {
        // An orderly stop: killing `holdfast dev` would leave its nodes behind.
        system.stop().await?;
        return Err(error.context(format!("holdfast dev said: {text}")));
    }
    Ok(system)
}

/// Waits for the line that says so, and learns the nodes' process ids.
async fn wait_ready(system: &mut System) -> anyhow::Result<()> {
    let stdout = system.children[0].stdout.take().context("no stdout")?;
    let mut lines = BufReader::new(stdout).lines();
    let ready = async {
        while let Some(line) = lines.next_line().await? {
            if line.starts_with("ready") {
                return Ok(());
            }
        }
        bail!("holdfast dev ended before it was ready")
    };
    tokio::time::timeout(START_LIMIT, ready)
        .await
        .context("holdfast dev is not ready")??;
    // Goes on reading, or it would block on a full pipe.
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    for node in 1..=NODES {
        let path = system.folder.join(format!("node-{node}/pid"));
        let text = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        system.pids.push(text.trim().parse().context("parse a pid")?);
    }
    Ok(())
}

async fn start_etcd(options: &Options, folder: PathBuf, base: u16) -> anyhow::Result<System> {
    let client = |node: u16| format!("http://127.0.0.1:{}", base + node * 10);
    let peer = |node: u16| format!("http://127.0.0.1:{}", base + node * 10 + 1);
    let nodes = 0..NODES as u16;
    let cluster: Vec<String> = nodes
        .clone()
        .map(|node| format!("n{node}={}", peer(node)))
        .collect();
    let mut children = Vec::new();
    let mut pids = Vec::new();
    for node in nodes.clone() {
        let child = Command::new(&options.etcd)
            .args([
                "--name",
                &format!("n{node}"),
                "--initial-cluster-state",
                "new",
                "--logger",
                "zap",
            ])
            .args(["--log-level", "error", "--initial-cluster", &cluster.join(",")])
            .args([
                "--listen-client-urls",
                &client(node),
                "--advertise-client-urls",
                &client(node),
            ])
            .args([
                "--listen-peer-urls",
                &peer(node),
                "--initial-advertise-peer-urls",
                &peer(node),
            ])
            .arg("--data-dir")
            .arg(folder.join(format!("node-{node}")))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("start {}", options.etcd.display()))?;
        pids.push(child.id().context("etcd ended at once")?);
        children.push(child);
    }
    let endpoints = nodes
        .map(|node| format!("127.0.0.1:{}", base + node * 10))
        .collect();
    Ok(System {
        endpoints,
        pids,
        children,
        folder,
    })
}
