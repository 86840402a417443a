//! Ports and files of a cluster on one machine. Decides; does nothing but read and write its own few files.
//!
//! ```text
//! DIR/dev.json              base port and partitions, as at the first start
//! DIR/node-i/holdfast.toml  settings of node i, written at each start
//! DIR/node-i/data/          its data directory
//! DIR/node-i/pid            its process id while it runs
//! DIR/node-i/log            its output; log.1 is the part before
//! ```

use crate::failure::{Failure, Result};
use serde::{Deserialize, Serialize};
use server::config::Config;
use std::net::TcpListener;
use std::path::{Path, PathBuf};

/// Most nodes of one `dev`.
pub const NODES_MAX: u16 = 32;
/// Ports between one node and the next.
const STEP: u16 = 10;

/// One node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodePlan {
    /// From 1; also its node id.
    pub index: u16,
    /// Serves clients.
    pub client_port: u16,
    /// Serves other nodes.
    pub peer_port: u16,
    /// Serves metrics and health.
    pub http_port: u16,
    /// DIR/node-i
    pub dir: PathBuf,
}

/// The cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// DIR
    pub dir: PathBuf,
    /// By index.
    pub nodes: Vec<NodePlan>,
    /// Beside the meta partition.
    pub partitions: u32,
}

/// What must stay as it was: addresses are known to the other nodes, partitions are fixed.
#[derive(Serialize, Deserialize, Debug, PartialEq, Eq, Clone, Copy)]
struct Remembered {
    base_port: u16,
    partitions: u32,
}

impl NodePlan {
    fn new(dir: &Path, base_port: u16, index: u16) -> Result<NodePlan> {
        let ports = (index - 1)
            .checked_mul(STEP)
            .and_then(|offset| base_port.checked_add(offset));
        let Some(client_port) = ports.filter(|port| *port > 0 && port.checked_add(2).is_some()) else {
            return Err(
                Failure::usage(format!("node {index} would need a port above 65535"))
                    .advise("choose a lower --base-port or fewer --nodes"),
            );
        };
        Ok(NodePlan {
            index,
            client_port,
            peer_port: client_port + 1,
            http_port: client_port + 2,
            dir: dir.join(format!("node-{index}")),
        })
    }

    /// `127.0.0.1:port` for clients.
    pub fn client(&self) -> String {
        format!("127.0.0.1:{}", self.client_port)
    }

    /// `127.0.0.1:port` for other nodes.
    pub fn peer(&self) -> String {
        format!("127.0.0.1:{}", self.peer_port)
    }

    /// Its settings file.
    pub fn config(&self) -> PathBuf {
        self.dir.join("holdfast.toml")
    }

    /// Its data directory.
    pub fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// Where its process id is.
    pub fn pid(&self) -> PathBuf {
        self.dir.join("pid")
    }

    /// Where its output goes.
    pub fn log(&self) -> PathBuf {
        self.dir.join("log")
    }

    /// Arguments of `holdfast` that run it.
    pub fn arguments(&self) -> [PathBuf; 5] {
        [
            "serve".into(),
            "--config".into(),
            self.config(),
            "--pid-file".into(),
            self.pid(),
        ]
    }

    /// Fails with the port's name if one is taken.
    pub fn check_ports(&self) -> Result {
        for port in [self.client_port, self.peer_port, self.http_port] {
            if let Err(error) = TcpListener::bind(("127.0.0.1", port)) {
                let index = self.index;
                return Err(
                    Failure::failed(format!("port {port} of node {index} cannot be used: {error}"))
                        .advise("stop what listens there, or choose another --base-port"),
                );
            }
        }
        Ok(())
    }
}

impl Plan {
    /// Decides ports and paths.
    pub fn new(dir: &Path, nodes: u16, partitions: u32, base_port: u16) -> Result<Plan> {
        let nodes = (1..=nodes)
            .map(|index| NodePlan::new(dir, base_port, index))
            .collect::<Result<_>>()?;
        Ok(Plan {
            dir: dir.to_owned(),
            nodes,
            partitions,
        })
    }

    /// Client endpoints of all nodes, joined by commas.
    pub fn endpoints(&self) -> String {
        self.nodes
            .iter()
            .map(NodePlan::client)
            .collect::<Vec<_>>()
            .join(",")
    }

    /// Remembers what must stay, or refuses to change it.
    pub fn remember(&self) -> Result {
        let now = Remembered {
            base_port: self.nodes[0].client_port,
            partitions: self.partitions,
        };
        let path = self.dir.join("dev.json");
        let failed = |error: String| Failure::failed(format!("{}: {error}", path.display()));
        match std::fs::read_to_string(&path) {
            Ok(text) => {
                let before: Remembered =
                    serde_json::from_str(&text).map_err(|error| failed(error.to_string()))?;
                before.refuse_change(now, &self.dir)
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let text = serde_json::to_string(&now).map_err(|error| failed(error.to_string()))?;
                std::fs::write(&path, text).map_err(|error| failed(error.to_string()))
            }
            Err(error) => Err(failed(error.to_string())),
        }
    }

    /// Writes the settings of all nodes.
    pub fn write_configs(&self, settings: &[String]) -> Result {
        for node in &self.nodes {
            let overrides = crate::config::Overrides {
                settings: settings.to_vec(),
                ..Default::default()
            };
            let path = node.config();
            let failed = |error: std::io::Error| Failure::failed(format!("{}: {error}", path.display()));
            std::fs::create_dir_all(&node.dir).map_err(failed)?;
            std::fs::write(&path, self.config_of(node).to_toml()).map_err(failed)?;
            // This process's variables are not the nodes'.
            let config = crate::config::layered(Some(&path), [], &overrides)?;
            std::fs::write(&path, config.to_toml()).map_err(failed)?;
        }
        Ok(())
    }

    fn config_of(&self, node: &NodePlan) -> Config {
        let mut config = Config::default();
        config.node.name = format!("node-{}", node.index);
        config.node.id = Some(u64::from(node.index));
        config.node.data_dir = node.data();
        config.listen.client = node.client();
        config.listen.peer = node.peer();
        config.listen.http = format!("127.0.0.1:{}", node.http_port);
        // Node 1 begins the cluster, or has begun it. Others are asked only if they are in it: a node that waits for
        // its own admission cannot answer.
        if node.index > 1 {
            let asked = |other: &&NodePlan| other.index == 1 || other.data().join("identity").exists();
            let others = self
                .nodes
                .iter()
                .filter(|other| other.index != node.index)
                .filter(asked);
            config.cluster.join = others.map(NodePlan::peer).collect();
        }
        config
    }
}

impl Remembered {
    fn refuse_change(self, now: Remembered, dir: &Path) -> Result {
        if self == now {
            return Ok(());
        }
        let Remembered {
            base_port,
            partitions,
        } = self;
        Err(Failure::usage(format!(
            "{} holds a cluster of {partitions} partitions with base port {base_port}",
            dir.display()
        ))
        .advise(format!(
            "start it with --base-port {base_port} --partitions {partitions}, or use another --data-dir"
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_as_documented() {
        let plan = Plan::new(Path::new("/d"), 3, 16, 2379).expect("fits");
        let ports: Vec<_> = plan
            .nodes
            .iter()
            .map(|n| (n.client_port, n.peer_port, n.http_port))
            .collect();
        assert_eq!(
            ports,
            [(2379, 2380, 2381), (2389, 2390, 2391), (2399, 2400, 2401)]
        );
        assert_eq!(plan.nodes[1].pid(), Path::new("/d/node-2/pid"));
        assert_eq!(plan.endpoints(), "127.0.0.1:2379,127.0.0.1:2389,127.0.0.1:2399");
    }

    #[test]
    fn ports_that_do_not_fit_are_refused() {
        assert!(Plan::new(Path::new("/d"), 3, 16, 65_513).is_ok());
        assert!(Plan::new(Path::new("/d"), 3, 16, 65_520).is_err());
        assert!(Plan::new(Path::new("/d"), 1, 16, 65_534).is_err());
        assert!(Plan::new(Path::new("/d"), 1, 16, 0).is_err());
    }

    #[test]
    fn a_second_start_must_fit_the_first() {
        let dir = tempfile::tempdir().expect("a directory");
        let plan = |nodes, partitions, port| Plan::new(dir.path(), nodes, partitions, port).expect("fits");
        plan(3, 16, 3000).remember().expect("first");
        plan(3, 16, 3000).remember().expect("the same");
        plan(5, 16, 3000).remember().expect("more nodes join");
        let error = plan(3, 16, 4000).remember().expect_err("moved").to_string();
        assert!(error.contains("3000"), "{error}");
        assert!(plan(3, 8, 3000).remember().is_err());
    }

    #[test]
    fn settings_are_valid_and_name_the_others() {
        let dir = tempfile::tempdir().expect("a directory");
        let plan = Plan::new(dir.path(), 3, 16, 3000).expect("fits");
        plan.write_configs(&["raft.heartbeat_ms=100".to_owned()])
            .expect("written");
        let config = crate::config::load(Some(&plan.nodes[1].config()), &Default::default()).expect("loads");
        assert_eq!(config.cluster.join, ["127.0.0.1:3001"]);
        assert_eq!((config.raft.heartbeat_ms, config.node.id), (100, Some(2)));
        assert_eq!(config.node.data_dir, dir.path().join("node-2/data"));
    }

    #[test]
    fn a_port_in_use_is_named() {
        let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = taken.local_addr().expect("bound").port();
        let mut node = NodePlan::new(Path::new("/d"), 3000, 1).expect("fits");
        node.peer_port = port;
        node.client_port = 0;
        let error = node.check_ports().expect_err("taken").to_string();
        assert!(error.contains(&port.to_string()), "{error}");
    }
}
