//! The hosts: a network namespace for each controller, a TUN device in each, and one here for the clients, all on the
//! fabric. They are in namespaces of this process and vanish with it.

use anyhow::{Context, Result};

use crate::cuts::Cuts;
use crate::fabric::link::Rule;
use crate::fabric::{self, Fabric, MTU, tun};
use crate::system::{ip, run};

/// Packets that a host may send ahead of the fabric.
const QUEUE: u32 = 5000;
/// What names the namespace of this process.
const HERE: &str = "/proc/self/ns/net";

/// All hosts. Port `n` is that of node `n + 1`; the last is the clients'.
pub struct Hosts {
    /// What carries their packets.
    pub fabric: Fabric,
    /// What they refuse.
    pub cuts: Cuts,
    nodes: usize,
}

impl Hosts {
    /// Makes hosts for so many nodes.
    pub fn new(seed: u64, nodes: usize) -> Result<Hosts> {
        ip("link set lo up")?;
        let mut devices = Vec::new();
        let mut spaces = Vec::new();
        for port in 0..nodes {
            let (space, device) = (format!("n{}", port + 1), format!("hf{}", port + 1));
            devices.push(tun::open(&device).context("cannot make a TUN device")?);
            ip(&format!("netns add {space}"))?;
            ip(&format!("link set {device} netns {space}"))?;
            ip(&format!("-n {space} link set lo up"))?;
            plug(&format!("-n {space}"), &device, port)?;
            spaces.push(format!("/run/netns/{space}"));
        }
        devices.push(tun::open("hf0").context("cannot make a TUN device")?);
        plug("", "hf0", nodes)?;
        spaces.push(HERE.to_owned());
        Ok(Hosts {
            fabric: Fabric::start(seed, devices).context("cannot start the fabric")?,
            cuts: Cuts::new(spaces)?,
            nodes,
        })
    }

    /// The address of node `position + 1`.
    pub fn address(&self, position: usize) -> String {
        fabric::address(position)
    }

    /// The clients' port.
    pub fn clients(&self) -> usize {
        self.nodes
    }

    /// The words that run a program on the host of node `position + 1`.
    pub fn enter(position: usize) -> [String; 2] {
        ["nsenter".into(), format!("--net=/run/netns/n{}", position + 1)]
    }

    /// Sets the same rule for these directions of links.
    pub fn set(&self, links: &[(usize, usize)], rule: Rule) {
        for (from, to) in links {
            self.fabric.set(*from, *to, rule);
        }
    }
}

fn plug(space: &str, device: &str, port: usize) -> Result<()> {
    ip(&format!(
        "{space} addr add {}/24 dev {device}",
        fabric::address(port)
    ))?;
    ip(&format!(
        "{space} link set {device} mtu {MTU} txqueuelen {QUEUE} up"
    ))
}

/// What is missing on this machine, if anything is.
pub fn check() -> Result<()> {
    for program in ["ip", "nft", "nsenter", "unshare"] {
        run(program, &["--version"])
            .or_else(|_| run(program, &["-V"]))
            .with_context(|| format!("{program} is needed: scripts/install-deps.sh chaos"))?;
    }
    std::fs::metadata("/dev/net/tun").context("/dev/net/tun is needed")?;
    Ok(())
}
