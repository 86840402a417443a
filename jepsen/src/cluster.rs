//! The cluster under test: hosts, controllers, and what an operator sees of them.

use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::clock::WallClock;
use crate::controller::Controller;
use crate::disk::Disk;
use crate::ground::Ground;
use crate::hosts::Hosts;
use crate::store::Store;
use crate::system;

/// How long a controller may take to answer an operator.
const PATIENCE: &str = "2s";
/// Seconds that an operator takes at most.
const LONGEST: &str = "6";

/// All of it.
pub struct Cluster {
    /// Their network.
    pub hosts: Hosts,
    /// By position: node id less 1.
    pub controllers: Vec<Controller>,
    /// Partitions beside the meta partition.
    pub partitions: u32,
    /// Nodes that were drained, and are to be taken back.
    pub drained: Vec<String>,
    binary: PathBuf,
}

impl Cluster {
    /// Makes hosts and starts a new cluster on them.
    pub fn start(
        ground: &Ground,
        partitions: u32,
        seed: u64,
        binary: &Path,
        store: &Store,
        bent_clocks: bool,
    ) -> Result<Cluster> {
        let nodes = ground.nodes as usize;
        let hosts = Hosts::new(seed, nodes)?;
        let addresses: Vec<String> = (0..nodes).map(|position| hosts.address(position)).collect();
        let mut controllers = Vec::new();
        for position in 0..nodes {
            let id = position as u64 + 1;
            let disk = Disk::new(&store.disks(), id, seed, ground.disk_bytes)?;
            let clock = WallClock::new(&store.disks(), id, bent_clocks)?;
            let logs = store.logs();
            controllers.push(Controller::new(position, &addresses, binary, &logs, disk, clock));
        }
        controllers[0].found(partitions)?;
        let mut cluster = Cluster {
            hosts,
            controllers,
            partitions,
            drained: Vec::new(),
            binary: binary.to_owned(),
        };
        for controller in &mut cluster.controllers {
            controller.start()?;
        }
        Ok(cluster)
    }

    /// `host:port` of each controller for clients.
    pub fn endpoints(&self) -> Vec<String> {
        self.controllers.iter().map(Controller::endpoint).collect()
    }

    /// Positions of controllers that have a process.
    pub fn running(&self) -> Vec<usize> {
        self.those(Controller::runs)
    }

    /// Positions of controllers that have a process which is not paused.
    pub fn working(&self) -> Vec<usize> {
        self.those(Controller::works)
    }

    fn those(&self, wanted: impl Fn(&Controller) -> bool) -> Vec<usize> {
        let all = self.controllers.iter().enumerate();
        all.filter(|(_, controller)| wanted(controller))
            .map(|(at, _)| at)
            .collect()
    }

    /// Processes that ended without being killed, by position.
    pub fn ended(&mut self) -> Result<Vec<(usize, ExitStatus)>> {
        let mut ended = Vec::new();
        for (at, controller) in self.controllers.iter_mut().enumerate() {
            if let Some(status) = controller.ended()? {
                ended.push((at, status));
            }
        }
        Ok(ended)
    }

    /// Asks one controller as an operator would.
    pub fn ask(&self, position: usize, words: &[&str]) -> Result<Value> {
        let endpoint = self.controllers[position].endpoint();
        let binary = self.binary.to_string_lossy();
        // Some verbs follow what they began for longer than they wait for an answer.
        let mut arguments = vec![LONGEST, &binary];
        arguments.extend(["--endpoints", &endpoint, "-o", "json", "--timeout", PATIENCE]);
        arguments.extend_from_slice(words);
        let said = system::run("timeout", &arguments)?;
        serde_json::from_str(&said).with_context(|| format!("no JSON: {said}"))
    }

    /// Takes drained nodes back, as far as anybody can be asked.
    pub fn take_back(&mut self) {
        let working = self.working();
        let mut drained = std::mem::take(&mut self.drained);
        drained.retain(|node| {
            let back = |position: &usize| self.ask(*position, &["nodes", "undrain", node]).is_ok();
            !working.iter().any(back)
        });
        self.drained = drained;
    }

    /// The position of the node that leads a partition, as any working node sees it.
    pub fn leader(&self, partition: u32) -> Option<usize> {
        let partition = partition.to_string();
        self.working().into_iter().find_map(|position| {
            let said = self.ask(position, &["partitions", "list", &partition]).ok()?;
            let node = said["partitions"][0]["leader_node"].as_u64()?;
            let at = usize::try_from(node).ok()?.checked_sub(1)?;
            (at < self.controllers.len()).then_some(at)
        })
    }
}
