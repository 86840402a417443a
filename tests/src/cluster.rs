//! A cluster of real `holdfast` processes on loopback, each of which can be killed, paused and started again.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use parking_lot::Mutex;
use serde_json::Value;

use crate::load::{Load, SPACES, assert_present};
use crate::net::Network;
use crate::until;

/// Base ports of the clusters of one test process; each takes 100.
static NEXT_BASE: AtomicU16 = AtomicU16::new(0);

/// Clusters that each test has started so far.
static STARTED: Mutex<BTreeMap<String, u32>> = Mutex::new(BTreeMap::new());

/// The binary under test: the one that HOLDFAST_BIN names, else the one next to this test's own executable.
pub fn binary() -> Result<PathBuf> {
    if let Some(named) = std::env::var_os("HOLDFAST_BIN") {
        let path = PathBuf::from(named);
        ensure!(path.exists(), "HOLDFAST_BIN: {} is missing", path.display());
        return Ok(path);
    }
    let me = std::env::current_exe()?;
    let dir = me
        .parent()
        .and_then(Path::parent)
        .context("test executable has no target directory")?;
    let path = dir.join("holdfast");
    ensure!(
        path.exists(),
        "{} is missing: run `cargo build --release --bin holdfast`",
        path.display()
    );
    Ok(path)
}

/// An empty folder for what the controllers of the calling test say, beside the build. It stays until the same test runs
/// again: when a cluster is dropped, nobody knows yet whether its test has passed.
fn log_dir() -> Result<PathBuf> {
    let me = std::env::current_exe()?;
    let name = me
        .file_stem()
        .context("test executable has no name")?
        .to_string_lossy();
    let file = name.rsplit_once('-').map_or(&*name, |(file, _hash)| file);
    // The harness names the thread of each test.
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("test").replace("::", "-");
    let mut started = STARTED.lock();
    let count = started.entry(test.clone()).or_default();
    *count += 1;
    let binary = binary()?;
    let target = binary.parent().context("the binary has no directory")?;
    let dir = target
        .join("test-logs")
        .join(file)
        .join(format!("{test}-{count}"));
    if dir.exists() {
        std::fs::remove_dir_all(&dir)?;
    }
    std::fs::create_dir_all(&dir)?;
    // Shown if the test fails.
    eprintln!("logs: {}", dir.display());
    Ok(dir)
}

/// A base port such that ten nodes' ports from there on are free now.
pub fn free_base() -> Result<u16> {
    for _ in 0..200 {
        let step = NEXT_BASE.fetch_add(1, Ordering::Relaxed);
        let process = (std::process::id() % 97) as u16;
        let base = 10_000 + ((process * 3 + step) % 200) * 100;
        let free =
            (0..10).all(|n| (0..3).all(|p| TcpListener::bind(("127.0.0.1", base + n * 10 + p)).is_ok()));
        if free {
            return Ok(base);
        }
    }
    bail!("no free range of ports")
}

/// One controller: where it is and, while it runs, its process.
pub struct Controller {
    /// From 1.
    pub index: u16,
    /// `127.0.0.1:port` for clients.
    pub client: String,
    /// `127.0.0.1:port` for peers.
    pub peer: String,
    /// `127.0.0.1:port` of metrics and health.
    pub http: String,
    /// Its data directory.
    pub data: PathBuf,
    /// Further arguments of `serve`.
    pub extra: Vec<String>,
    child: Option<Child>,
}

/// Several controllers in one temporary directory. All are killed when it is dropped.
pub struct Cluster {
    /// Holds the data directories; kept if the test panics.
    pub dir: tempfile::TempDir,
    logs: PathBuf,
    /// By index from 0 (node ids count from 1 in order of joining).
    pub nodes: Vec<Controller>,
    /// One namespace per controller, if the cluster was started on hosts of its own.
    pub network: Option<Network>,
    base: u16,
}

impl Cluster {
    /// Starts `nodes` controllers with `partitions` partitions and waits until all have leaders and replicas.
    pub async fn start(nodes: u16, partitions: u32) -> Result<Cluster> {
        Cluster::start_on(None, nodes, partitions).await
    }

    /// The same with each controller in a network namespace of its own; `None`, and a line that says so, where this
    /// process may not make any.
    pub async fn start_on_hosts(nodes: u16, partitions: u32) -> Result<Option<Cluster>> {
        let Some(network) = Network::new(nodes)? else {
            return Ok(None);
        };
        Ok(Some(Cluster::start_on(Some(network), nodes, partitions).await?))
    }

    async fn start_on(network: Option<Network>, nodes: u16, partitions: u32) -> Result<Cluster> {
        let base = if network.is_some() { 2379 } else { free_base()? };
        let mut cluster = Cluster {
            dir: tempfile::tempdir()?,
            logs: log_dir()?,
            nodes: Vec::new(),
            network,
            base,
        };
        cluster.init(partitions)?;
        for _ in 0..nodes {
            let position = cluster.add_node()?;
            cluster.wait_admitted(position + 1).await?;
        }
        cluster.wait_ready(nodes as usize).await?;
        Ok(cluster)
    }

    /// Ids are given in the order of admission, and tests know a node's id by its position: the next starts after that.
    async fn wait_admitted(&self, nodes: usize) -> Result<()> {
        let said = until("the node is admitted", Duration::from_secs(60), || async move {
            let list = self.json(0, &["nodes", "list"])?;
            let listed = list["nodes"].as_array().map_or(0, Vec::len);
            Ok((listed >= nodes).then_some(()))
        });
        said.await
            .with_context(|| format!("logs: {}", self.logs.display()))
    }

    fn plan(&self, index: u16) -> Controller {
        let (host, port) = match &self.network {
            Some(network) => (network.address(index), self.base),
            None => (String::from("127.0.0.1"), self.base + 10 * (index - 1)),
        };
        Controller {
            index,
            client: format!("{host}:{port}"),
            peer: format!("{host}:{}", port + 1),
            http: format!("{host}:{}", port + 2),
            data: self.dir.path().join(format!("node-{index}")),
            extra: Vec::new(),
            child: None,
        }
    }

    fn init(&self, partitions: u32) -> Result<()> {
        let first = self.plan(1);
        let out = Command::new(binary()?)
            .args(["init", "--data-dir"])
            .arg(&first.data)
            .args(["--partitions", &partitions.to_string()])
            .output()?;
        ensure!(
            out.status.success(),
            "init failed: {}",
            String::from_utf8_lossy(&out.stderr)
        );
        Ok(())
    }

    /// Plans a controller, with addresses and a directory of its own, and returns its position. It is not started.
    pub fn plan_node(&mut self) -> usize {
        let node = self.plan(self.nodes.len() as u16 + 1);
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    /// Adds a controller (the first uses the initialised directory, others join it) and returns its position.
    pub fn add_node(&mut self) -> Result<usize> {
        let position = self.plan_node();
        self.start_node(position)?;
        Ok(position)
    }

    /// The command that serves node `position`.
    pub fn serve_command(&self, position: usize) -> Result<Command> {
        let node = &self.nodes[position];
        let mut command = match &self.network {
            Some(network) => {
                let mut ip = Command::new("ip");
                ip.args(["netns", "exec", &network.namespace(node.index)])
                    .arg(binary()?);
                ip
            }
            None => Command::new(binary()?),
        };
        command.arg("serve").arg("--data-dir").arg(&node.data);
        command.args([
            "--listen-client",
            &node.client,
            "--listen-peer",
            &node.peer,
            "--listen-http",
            &node.http,
        ]);
        command.args(&node.extra);
        if position > 0 {
            let join: Vec<&str> = self.nodes[..position].iter().map(|n| n.peer.as_str()).collect();
            command.args(["--join", &join.join(",")]);
        }
        Ok(command)
    }

    /// Starts node `position`, its output going to `node-N.log`.
    pub fn start_node(&mut self, position: usize) -> Result<()> {
        let mut command = self.serve_command(position)?;
        let log = self.log_path(position);
        let file = File::options().create(true).append(true).open(&log)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()?;
        self.nodes[position].child = Some(child);
        Ok(())
    }

    /// Where the output of node `position` goes.
    pub fn log_path(&self, position: usize) -> PathBuf {
        self.logs.join(format!("node-{}.log", position + 1))
    }

    /// What node `position` has said in all its lives.
    pub fn log(&self, position: usize) -> Result<String> {
        let path = self.log_path(position);
        match std::fs::read_to_string(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
            read => read.with_context(|| format!("read {}", path.display())),
        }
    }

    /// What node `position` has said since [`Cluster::log`] had this length.
    pub fn log_since(&self, position: usize, length: usize) -> Result<String> {
        Ok(self.log(position)?.split_off(length))
    }

    /// Process id of a running node.
    pub fn pid(&self, position: usize) -> Result<u32> {
        Ok(self.nodes[position].child.as_ref().context("not running")?.id())
    }

    /// Sends a signal to a running node.
    pub fn signal(&self, position: usize, signal: i32) -> Result<()> {
        let pid = self.pid(position)?;
        let status = Command::new("kill")
            .arg(format!("-{signal}"))
            .arg(pid.to_string())
            .status()?;
        ensure!(status.success(), "kill -{signal} failed");
        Ok(())
    }

    /// `kill -9`, and waits for the process to be gone.
    pub fn kill(&mut self, position: usize) -> Result<()> {
        let mut child = self.nodes[position].child.take().context("not running")?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// SIGTERM, and waits for a clean exit.
    pub async fn stop(&mut self, position: usize) -> Result<()> {
        self.signal(position, libc::SIGTERM)?;
        let status = self.wait_exit(position, Duration::from_secs(20)).await?;
        ensure!(status == Some(0), "exit status {status:?} after SIGTERM");
        Ok(())
    }

    /// Waits until a node's process ends, and gives its exit status.
    pub async fn wait_exit(&mut self, position: usize, limit: Duration) -> Result<Option<i32>> {
        let mut child = self.nodes[position].child.take().context("not running")?;
        let end = tokio::time::Instant::now() + limit;
        let mut ticker = tokio::time::interval(Duration::from_millis(20));
        while tokio::time::Instant::now() < end {
            if let Some(status) = child.try_wait()? {
                return Ok(status.code());
            }
            ticker.tick().await;
        }
        child.kill()?;
        bail!("node {} did not exit within {limit:?}", position + 1)
    }

    /// Client endpoints of all nodes.
    pub fn endpoints(&self) -> Vec<String> {
        self.nodes.iter().map(|n| n.client.clone()).collect()
    }

    /// An etcd client that knows one node only.
    pub async fn client(&self, position: usize) -> Result<etcd_client::Client> {
        crate::etcd::connect(&self.nodes[position].client).await
    }

    /// Runs the CLI against one node and returns its standard output.
    pub fn holdfast(&self, position: usize, args: &[&str]) -> Result<String> {
        let out = self.command(position, args)?.output()?;
        ensure!(
            out.status.success(),
            "holdfast {}: {}\n{}",
            args.join(" "),
            String::from_utf8_lossy(&out.stdout),
            String::from_utf8_lossy(&out.stderr)
        );
        Ok(String::from_utf8(out.stdout)?)
    }

    /// The CLI against one controller, not yet run.
    pub fn command(&self, position: usize, args: &[&str]) -> Result<Command> {
        let mut command = Command::new(binary()?);
        command
            .args(["--endpoints", &self.nodes[position].client])
            .args(args);
        Ok(command)
    }

    /// Runs the CLI with `-o json` and parses what it prints.
    pub fn json(&self, position: usize, args: &[&str]) -> Result<Value> {
        let mut all = vec!["-o", "json"];
        all.extend_from_slice(args);
        let text = self.holdfast(position, &all)?;
        serde_json::from_str(&text).with_context(|| format!("not JSON: {text}"))
    }

    /// Waits until every partition has a leader and the wanted voters, as each running node sees it.
    pub async fn wait_ready(&self, active: usize) -> Result<()> {
        let said = until("the cluster is ready", Duration::from_secs(90), || async move {
            for position in 0..self.nodes.len() {
                if self.nodes[position].child.is_some() {
                    self.check_ready(position, active.min(3))?;
                }
            }
            Ok(Some(()))
        });
        said.await
            .with_context(|| format!("logs: {}", self.logs.display()))
    }

    fn check_ready(&self, asked: usize, wanted: usize) -> Result<()> {
        let list = self.json(asked, &["partitions", "list"])?;
        let partitions = list["partitions"].as_array().context("no partitions")?;
        let voters = |partition: &Value| {
            partition["replicas"].as_array().map_or(0, |replicas| {
                let votes = |r: &&Value| r["role"] == "leader" || r["role"] == "follower";
                replicas.iter().filter(votes).count()
            })
        };
        let ready = |p: &Value| p["leader_node"].as_u64() > Some(0) && voters(p) >= wanted;
        ensure!(!partitions.is_empty() && partitions.iter().all(ready), "{list}");
        Ok(())
    }

    /// Stops the load, asks every node for everything that was acknowledged, and compares the replicas.
    pub async fn assert_nothing_lost(&self, load: Load) -> Result<()> {
        let acknowledged = load.finish().await?;
        ensure!(
            !acknowledged.is_empty(),
            "the load wrote nothing: nothing was tested"
        );
        for node in self.nodes.iter().filter(|node| node.child.is_some()) {
            assert_present(&node.client, &acknowledged)
                .await
                .with_context(|| format!("node {}", node.index))?;
        }
        self.assert_all_partitions_hold(&SPACES)?;
        self.assert_replicas_equal().await
    }

    /// Equal hashes say nothing of a partition that nobody wrote to.
    fn assert_all_partitions_hold(&self, spaces: &[&str]) -> Result<()> {
        let list = self.json(self.running()?, &["partitions", "list"])?;
        for partition in list["partitions"].as_array().context("no partitions")? {
            let namespaces = partition["namespaces"].as_array().context("no namespaces")?;
            let written = namespaces
                .iter()
                .any(|name| spaces.iter().any(|space| name == space));
            ensure!(
                partition["id"] == 0 || written,
                "the load does not write to this partition: {partition}"
            );
        }
        Ok(())
    }

    /// Position of the first node that runs.
    fn running(&self) -> Result<usize> {
        let found = self.nodes.iter().position(|node| node.child.is_some());
        found.context("no node runs")
    }

    /// Compares the state hash of every replica of every partition; waits for stragglers.
    pub async fn assert_replicas_equal(&self) -> Result<()> {
        let asked = self.running()?;
        let list = self.json(asked, &["partitions", "list"])?;
        for partition in list["partitions"].as_array().context("no partitions")? {
            let id = partition["id"].to_string();
            let what = format!("partition {id}: replicas are equal");
            until(&what, Duration::from_secs(30), || async {
                let said = self.json(asked, &["partitions", "check", &id])?;
                if said["equal"] == true {
                    Ok(Some(()))
                } else {
                    bail!("{said}")
                }
            })
            .await?;
        }
        Ok(())
    }
}

/// Lines of a node's log that are shown with a failed test.
const TOLD_LINES: usize = 12;

/// The last troubles that a node told of, and its last words. Shown if the test fails.
fn last_words(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    let end = lines.len().saturating_sub(3);
    let trouble = |line: &&&str| line.contains("\"WARN\"") || line.contains("\"ERROR\"");
    let mut told: Vec<&str> = lines[..end]
        .iter()
        .rev()
        .filter(trouble)
        .take(TOLD_LINES)
        .copied()
        .collect();
    told.reverse();
    told.extend(&lines[end..]);
    told.join("\n")
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for position in 0..self.nodes.len() {
            let Some(mut child) = self.nodes[position].child.take() else {
                continue;
            };
            match child.try_wait() {
                Ok(None) => eprintln!("node {} ran to the end; it said:", position + 1),
                ended => eprintln!("node {} HAD ENDED by itself: {ended:?}; it said:", position + 1),
            }
            eprintln!("{}", last_words(&self.log(position).unwrap_or_default()));
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            self.dir.disable_cleanup(true);
            eprintln!("data: {}", self.dir.path().display());
        }
    }
}
