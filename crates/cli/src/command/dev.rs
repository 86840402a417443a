//! `holdfast dev`: a cluster on this machine, each node a child process that can be killed by itself.

use crate::command::init;
use crate::dev::child;
use crate::dev::plan::{NODES_MAX, NodePlan, Plan};
use crate::dev::ready::{self, Readiness};
use crate::failure::{Failure, Result};
use crate::output::print;
use crate::process;
use crate::progress::{AGAIN, SILENCE};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

/// Arguments.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  holdfast dev                                    three controllers, 16 partitions, ports from 2379
  holdfast dev --nodes 1 --data-dir /tmp/one
  kill -9 $(cat holdfast-dev/node-2/pid)          the others go on; dev prints how to start it again

Node i (from 1) serves clients on base + 10(i-1), other nodes on the port after, metrics and health on the next, all on
127.0.0.1. A line that starts with `ready` goes to stdout once every partition has a leader. Ctrl-C stops all; a second
start on the same directory brings all state back.")]
pub struct Args {
    /// Controllers
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=i64::from(NODES_MAX)))]
    pub nodes: u16,
    /// Partitions that keys are spread over
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32)
        .range(1..=i64::from(types::limits::PARTITIONS)))]
    pub partitions: u32,
    /// Where everything is kept
    #[arg(long, default_value = "holdfast-dev", value_name = "DIR")]
    pub data_dir: PathBuf,
    /// Client port of node 1
    #[arg(long, default_value_t = 2379, value_name = "PORT")]
    pub base_port: u16,
    /// Start a node again when its process ends by itself
    #[arg(long)]
    pub restart: bool,
    /// Any setting of all nodes, as in raft.heartbeat_ms=200; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub settings: Vec<String>,
}

/// What SIGTERM may take before SIGKILL.
const STOP_LIMIT: Duration = Duration::from_secs(15);
/// Between looks at logs' sizes.
const HOUSEKEEPING: Duration = Duration::from_secs(20);
/// Between questions whether the cluster is ready.
const ASK_AGAIN: Duration = Duration::from_millis(100);
/// Leaders are there and replicas still come: how long `ready` waits for them.
const REPLICAS_LIMIT: Duration = Duration::from_secs(60);
/// Pauses before a node is started again.
const RESTART_MIN: Duration = Duration::from_secs(1);
const RESTART_MAX: Duration = Duration::from_secs(30);

/// What happens to a running cluster.
enum Event {
    Ended {
        index: u16,
        pid: u32,
        status: ExitStatus,
    },
    Restart {
        index: u16,
    },
    NotReady(String),
    Ready {
        short: u32,
    },
    Housekeeping,
    Stop(&'static str),
}

struct Dev {
    plan: Plan,
    restart: bool,
    /// Processes by node index.
    running: BTreeMap<u16, u32>,
    /// Pause before the next start of a node that ended.
    pauses: BTreeMap<u16, Duration>,
    sender: mpsc::Sender<Event>,
    asking: Option<tokio::task::JoinHandle<()>>,
    ready: bool,
}

/// Runs the cluster until a signal.
pub async fn run(args: Args) -> Result {
    let (sender, mut receiver) = mpsc::channel(64);
    listen_for_signals(sender.clone())?;
    let plan = prepare(&args)?;
    let mut dev = Dev {
        plan,
        restart: args.restart,
        running: BTreeMap::new(),
        pauses: BTreeMap::new(),
        sender,
        asking: None,
        ready: false,
    };
    if let Err(failure) = dev.start_all() {
        dev.stop(&mut receiver).await;
        return Err(failure);
    }
    let outcome = loop {
        let event = match timeout(HOUSEKEEPING, receiver.recv()).await {
            Ok(Some(event)) => event,
            Ok(None) | Err(_) => Event::Housekeeping,
        };
        match dev.handle(event) {
            Ok(true) => {}
            Ok(false) => break Ok(()),
            Err(failure) => break Err(failure),
        }
    };
    dev.stop(&mut receiver).await;
    outcome
}

fn listen_for_signals(sender: mpsc::Sender<Event>) -> Result {
    let kinds = [
        (SignalKind::interrupt(), "Ctrl-C"),
        (SignalKind::terminate(), "SIGTERM"),
        (SignalKind::hangup(), "SIGHUP"),
    ];
    for (kind, name) in kinds {
        let mut stream =
            signal(kind).map_err(|error| Failure::failed(format!("cannot wait for signals: {error}")))?;
        let sender = sender.clone();
        tokio::spawn(async move {
            while stream.recv().await.is_some() {
                if sender.send(Event::Stop(name)).await.is_err() {
                    return;
                }
            }
        });
    }
    Ok(())
}

/// Directories, ports, settings, and at the first start the identity of node 1.
fn prepare(args: &Args) -> Result<Plan> {
    let shown = args.data_dir.display();
    let dir = std::fs::create_dir_all(&args.data_dir)
        .and_then(|()| args.data_dir.canonicalize())
        .map_err(|error| Failure::failed(format!("cannot use directory {shown}: {error}")))?;
    let plan = Plan::new(&dir, args.nodes, args.partitions, args.base_port)?;
    for node in &plan.nodes {
        node.check_ports().map_err(|failure| match running(node) {
            Some(pid) => Failure::failed(format!(
                "node {} of {shown} runs already, as process {pid}",
                node.index
            ))
            .advise(format!("stop it first: kill {pid}")),
            None => failure,
        })?;
    }
    plan.remember()?;
    plan.write_configs(&args.settings)?;
    let first = &plan.nodes[0];
    if !first.data().join("identity").exists() {
        let identity = init::create(&first.data(), plan.partitions)?;
        eprintln!("new cluster {} in {shown}", identity.cluster);
    }
    Ok(plan)
}

/// The process of a node that this or another program started.
fn running(node: &NodePlan) -> Option<u32> {
    process::read_pid(&node.pid()).filter(|pid| process::runs_with(*pid, &node.config()))
}

impl Dev {
    fn start_all(&mut self) -> Result {
        for node in self.plan.nodes.clone() {
            self.start(&node)?;
            let (index, pid) = (node.index, self.running[&node.index]);
            eprintln!(
                "node {index}: process {pid}, clients {}, log {}",
                node.client(),
                node.log().display()
            );
        }
        self.ask_until_ready();
        Ok(())
    }

    fn start(&mut self, node: &NodePlan) -> Result {
        let index = node.index;
        let (pid, mut child) = child::spawn(node)?;
        self.running.insert(index, pid);
        let sender = self.sender.clone();
        tokio::spawn(async move {
            if let Ok(status) = child.wait().await {
                let _ = sender.send(Event::Ended { index, pid, status }).await;
            }
        });
        Ok(())
    }

    /// Asks the running nodes, in a task, until every partition has a leader.
    fn ask_until_ready(&mut self) {
        if let Some(task) = self.asking.take() {
            task.abort();
        }
        let nodes = self
            .plan
            .nodes
            .iter()
            .filter(|node| self.running.contains_key(&node.index));
        let endpoints: Vec<String> = nodes.map(NodePlan::client).collect();
        self.asking = Some(tokio::spawn(ask(endpoints, self.sender.clone())));
    }

    /// One event, to completion. False: stop.
    fn handle(&mut self, event: Event) -> Result<bool> {
        match event {
            Event::Ended { index, pid, status } => self.ended(index, pid, status)?,
            Event::Restart { index } => {
                let node = self.plan.nodes[usize::from(index) - 1].clone();
                match running(&node) {
                    Some(pid) => eprintln!("node {index} was started by somebody else, as process {pid}"),
                    None => {
                        self.start(&node)?;
                        eprintln!("node {index}: started again, as process {}", self.running[&index]);
                    }
                }
            }
            Event::NotReady(why) => eprintln!("waiting: {why}"),
            Event::Ready { short } => self.announce(short)?,
            Event::Housekeeping => {
                for node in &self.plan.nodes {
                    child::rotate(&node.log());
                }
            }
            Event::Stop(name) => {
                eprintln!("{name}: stopping {} nodes", self.running.len());
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn ended(&mut self, index: u16, pid: u32, status: ExitStatus) -> Result {
        self.running.remove(&index);
        let node = self.plan.nodes[usize::from(index) - 1].clone();
        process::remove_pid(&node.pid(), pid);
        eprintln!("node {index} (process {pid}) {}", child::ending(status));
        if status.code().is_some_and(|code| code != 0) {
            eprint!("{}", child::tail(&node.log(), 5));
        }
        if self.restart {
            let pause = self.pauses.get(&index).copied().unwrap_or(RESTART_MIN);
            self.pauses.insert(index, (pause * 2).min(RESTART_MAX));
            let sender = self.sender.clone();
            tokio::spawn(async move {
                sleep(pause).await;
                let _ = sender.send(Event::Restart { index }).await;
            });
        } else {
            let command: Vec<String> = node
                .arguments()
                .iter()
                .map(|part| part.display().to_string())
                .collect();
            let program =
                std::env::current_exe().map_or("holdfast".to_owned(), |path| path.display().to_string());
            eprintln!(
                "node {index}: start it again with\n    {program} {}",
                command.join(" ")
            );
        }
        if self.ready || self.restart {
            return Ok(());
        }
        if self.running.is_empty() {
            return Err(Failure::failed("no node runs").advise("the last lines of their logs are above"));
        }
        self.ask_until_ready();
        Ok(())
    }

    fn announce(&mut self, short: u32) -> Result {
        if self.ready {
            return Ok(());
        }
        self.ready = true;
        if short > 0 {
            eprintln!("{short} partitions are still short of replicas");
        }
        print(&format!(
            "ready: {} controller{}, {} partitions, endpoints {}",
            self.running.len(),
            if self.running.len() == 1 { "" } else { "s" },
            self.plan.partitions,
            self.plan.endpoints()
        ))
    }

    /// Stops all nodes: those started here, and those started again by hand since.
    async fn stop(&mut self, receiver: &mut mpsc::Receiver<Event>) {
        if let Some(task) = self.asking.take() {
            task.abort();
        }
        for node in &self.plan.nodes {
            if let (false, Some(pid)) = (self.running.contains_key(&node.index), running(node)) {
                self.running.insert(node.index, pid);
            }
        }
        for pid in self.running.values() {
            let _ = process::signal(*pid, process::TERMINATE);
        }
        let end = Instant::now() + STOP_LIMIT;
        while !self.running.is_empty() {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            match timeout(left.min(ASK_AGAIN), receiver.recv()).await {
                Ok(Some(Event::Ended { index, pid, status })) => self.gone(index, pid, Some(status)),
                Ok(Some(Event::Stop(_))) => {
                    eprintln!("killing {} nodes", self.running.len());
                    break;
                }
                Ok(_) | Err(_) => self.sweep(),
            }
        }
        for (index, pid) in std::mem::take(&mut self.running) {
            eprintln!("node {index} (process {pid}) did not stop in time and is killed");
            let _ = process::signal(pid, process::KILL);
        }
    }

    /// Processes that are not our children end without an event.
    fn sweep(&mut self) {
        let gone: Vec<(u16, u32)> = self
            .plan
            .nodes
            .iter()
            .filter_map(|node| Some((node, *self.running.get(&node.index)?)))
            .filter(|(node, pid)| !process::runs_with(*pid, &node.config()))
            .map(|(node, pid)| (node.index, pid))
            .collect();
        for (index, pid) in gone {
            self.gone(index, pid, None);
        }
    }

    fn gone(&mut self, index: u16, pid: u32, status: Option<ExitStatus>) {
        if self.running.get(&index) != Some(&pid) {
            return;
        }
        self.running.remove(&index);
        process::remove_pid(&self.plan.nodes[usize::from(index) - 1].pid(), pid);
        let how = status.map_or("stopped".to_owned(), child::ending);
        eprintln!("node {index} (process {pid}) {how}");
    }
}

async fn ask(endpoints: Vec<String>, sender: mpsc::Sender<Event>) {
    let mut report = Instant::now() + SILENCE;
    let mut replicas_by = None;
    loop {
        let why = match ready::ask(&endpoints).await {
            Readiness::Leads { short } => {
                let limit = *replicas_by.get_or_insert_with(|| Instant::now() + REPLICAS_LIMIT);
                if short == 0 || Instant::now() >= limit {
                    let _ = sender.send(Event::Ready { short }).await;
                    return;
                }
                format!("{short} partitions are short of replicas")
            }
            Readiness::No(why) => {
                replicas_by = None;
                why
            }
        };
        if Instant::now() >= report {
            report = Instant::now() + AGAIN;
            let _ = sender.send(Event::NotReady(why)).await;
        }
        sleep(ASK_AGAIN).await;
    }
}
