//! Hosts of one's own: a network namespace per controller on one bridge, whose cables can be pulled.
//!
//! Needs what `ip netns` needs: root, with CAP_SYS_ADMIN and CAP_NET_ADMIN. Names carry the process id, and all is
//! removed when dropped.

use std::io::Write;
use std::process::Command;
use std::sync::atomic::{AtomicU16, Ordering};

use anyhow::{Context, Result, ensure};

/// Networks made by this process so far; each gets its own third octet.
static NETWORKS: AtomicU16 = AtomicU16::new(0);

/// A bridge in a namespace of its own, with one namespace per host on it.
pub struct Network {
    name: String,
    subnet: String,
    hosts: u16,
}

fn ip(args: &str) -> Result<()> {
    let out = Command::new("ip")
        .args(args.split_whitespace())
        .output()
        .context("cannot run ip (iproute2)")?;
    ensure!(
        out.status.success(),
        "ip {args}: {}",
        String::from_utf8_lossy(&out.stderr).trim()
    );
    Ok(())
}

/// Whether this process may make network namespaces; where it may not, says which test is skipped for it.
fn permitted(name: &str) -> Result<bool> {
    let probe = format!("{name}probe");
    let made = ip(&format!("netns add {probe}"));
    let _ = ip(&format!("netns del {probe}"));
    match made {
        Ok(()) => Ok(true),
        Err(error) => {
            let text = error.to_string();
            let refused = ["Operation not permitted", "Permission denied"];
            if !refused.iter().any(|reason| text.contains(reason)) {
                return Err(error);
            }
            let thread = std::thread::current();
            let test = thread.name().unwrap_or("test");
            // Not by `eprintln!`, whose output the harness shows for failed tests only.
            let line = format!("skipped: {test}: network namespaces are not permitted here ({text})");
            writeln!(std::io::stderr(), "{line}")?;
            Ok(false)
        }
    }
}

impl Network {
    /// Makes a bridge and `hosts` namespaces on it; `None` where that is not permitted.
    pub fn new(hosts: u16) -> Result<Option<Network>> {
        let process = std::process::id();
        let number = NETWORKS.fetch_add(1, Ordering::Relaxed);
        let name = format!("hf{}-{number}", process % 100_000);
        let subnet = format!("10.{}.{}", 64 + process % 128, number + 1);
        if !permitted(&name)? {
            return Ok(None);
        }
        let network = Network { name, subnet, hosts };
        // The bridge has a namespace of its own: rules that a container engine keeps for forwarded packets of
        // this host do not apply there.
        let switch = network.switch();
        let plug = format!("{}p", network.name);
        ip(&format!("netns add {switch}"))?;
        ip(&format!("-n {switch} link add bridge type bridge"))?;
        ip(&format!("-n {switch} link set bridge up"))?;
        ip(&format!("link add {} type veth peer name {plug}", network.name))?;
        ip(&format!("link set {plug} netns {switch}"))?;
        ip(&format!("-n {switch} link set {plug} master bridge up"))?;
        ip(&format!(
            "addr add {}.254/24 dev {}",
            network.subnet, network.name
        ))?;
        ip(&format!("link set {} up", network.name))?;
        for host in 1..=hosts {
            network.add(host)?;
        }
        Ok(Some(network))
    }

    fn add(&self, host: u16) -> Result<()> {
        let space = self.namespace(host);
        let (outer, inner) = (self.cable(host), format!("{}i{host}", self.name));
        ip(&format!("netns add {space}"))?;
        ip(&format!("link add {outer} type veth peer name {inner}"))?;
        let switch = self.switch();
        ip(&format!("link set {outer} netns {switch}"))?;
        ip(&format!("-n {switch} link set {outer} master bridge up"))?;
        ip(&format!("link set {inner} netns {space}"))?;
        ip(&format!(
            "-n {space} addr add {}/24 dev {inner}",
            self.address(host)
        ))?;
        ip(&format!("-n {space} link set {inner} up"))?;
        ip(&format!("-n {space} link set lo up"))
    }

    fn switch(&self) -> String {
        format!("{}sw", self.name)
    }

    fn cable(&self, host: u16) -> String {
        format!("{}o{host}", self.name)
    }

    /// Name of a host's namespace, for `ip netns exec`.
    pub fn namespace(&self, host: u16) -> String {
        format!("{}n{host}", self.name)
    }

    /// Address of a host, from 1.
    pub fn address(&self, host: u16) -> String {
        format!("{}.{host}", self.subnet)
    }

    /// Pulls a host's cable: nothing is reset, packets just vanish.
    pub fn cut(&self, host: u16) -> Result<()> {
        ip(&format!(
            "-n {} link set {} down",
            self.switch(),
            self.cable(host)
        ))
    }

    /// Puts it back.
    pub fn heal(&self, host: u16) -> Result<()> {
        ip(&format!("-n {} link set {} up", self.switch(), self.cable(host)))
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for host in 1..=self.hosts {
            let _ = ip(&format!("netns del {}", self.namespace(host)));
        }
        let _ = ip(&format!("link del {}", self.name));
        let _ = ip(&format!("netns del {}", self.switch()));
    }
}
