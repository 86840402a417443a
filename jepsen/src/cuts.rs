//! Cuts: each host drops, or answers with a reset, what comes from certain others. By nftables, in the host's own
//! namespace, so that one direction of a link can be cut without the other.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::fabric;
use crate::system;

/// What happens to packets that are not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// They vanish.
    Drop,
    /// Their sender's connection is reset.
    Reset,
}

/// A direction of a link: from one port to another.
pub type Link = (usize, usize);

/// Every link of one port, of so many, in both directions.
pub fn off(one: usize, ports: usize) -> Vec<Link> {
    let others = (0..ports).filter(|other| *other != one);
    others.flat_map(|other| [(one, other), (other, one)]).collect()
}

/// All cuts there are now. Each may be wanted several times, and ends with the last.
#[derive(Debug)]
pub struct Cuts {
    spaces: Vec<String>,
    wanted: BTreeMap<(Link, Way), u32>,
}

/// What is laid once in each namespace.
const TABLE: &str = "add table inet chaos
add counter inet chaos dropped
add counter inet chaos refused
add chain inet chaos input { type filter hook input priority 0; policy accept; }
";

impl Cuts {
    /// Lays the tables into the namespaces of these hosts, by port.
    pub fn new(spaces: Vec<String>) -> Result<Cuts> {
        for space in &spaces {
            nft(space, TABLE)?;
        }
        Ok(Cuts {
            spaces,
            wanted: BTreeMap::new(),
        })
    }

    /// Begins cuts.
    pub fn begin(&mut self, links: &[Link], way: Way) -> Result<()> {
        for link in links {
            *self.wanted.entry((*link, way)).or_default() += 1;
        }
        self.lay(links)
    }

    /// Ends them, where nobody else wants them.
    pub fn end(&mut self, links: &[Link], way: Way) -> Result<()> {
        for link in links {
            let count = self.wanted.entry((*link, way)).or_default();
            *count = count.saturating_sub(1);
        }
        self.wanted.retain(|_, count| *count > 0);
        self.lay(links)
    }

    /// Packets that all hosts have refused so far.
    pub fn refused(&self) -> Result<u64> {
        let mut sum = 0;
        for space in &self.spaces {
            let listed = system::run("nsenter", &[&net(space), "nft", "-j", "list", "counters"])?;
            let listed: Value = serde_json::from_str(&listed).context("nft's list of counters")?;
            let counters = listed["nftables"].as_array().into_iter().flatten();
            sum += counters
                .filter_map(|entry| entry["counter"]["packets"].as_u64())
                .sum::<u64>();
        }
        Ok(sum)
    }

    fn lay(&self, changed: &[Link]) -> Result<()> {
        let mut hosts: Vec<usize> = changed.iter().map(|(_, to)| *to).collect();
        hosts.sort_unstable();
        hosts.dedup();
        for host in hosts {
            let here = self.wanted.keys().filter(|((_, to), _)| *to == host);
            let here = here.map(|((from, _), way)| (*from, *way));
            nft(&self.spaces[host], &rules(here))?;
        }
        Ok(())
    }
}

/// The rules of one host, in place of those before.
fn rules(refused: impl Iterator<Item = (usize, Way)>) -> String {
    let mut text = String::from("flush chain inet chaos input\n");
    for (from, way) in refused {
        let action = match way {
            Way::Drop => "counter name dropped drop",
            Way::Reset => "meta l4proto tcp counter name refused reject with tcp reset",
        };
        let _ = writeln!(
            text,
            "add rule inet chaos input ip saddr {} {action}",
            fabric::address(from)
        );
    }
    text
}

/// How nsenter is told of a namespace.
pub fn net(space: &str) -> String {
    format!("--net={space}")
}

fn nft(space: &str, text: &str) -> Result<()> {
    system::feed("nsenter", &[&net(space), "nft", "-f", "-"], text).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_name_who_is_refused_and_how() {
        let text = rules([(1, Way::Drop), (2, Way::Reset)].into_iter());
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines,
            [
                "flush chain inet chaos input",
                "add rule inet chaos input ip saddr 10.77.0.2 counter name dropped drop",
                "add rule inet chaos input ip saddr 10.77.0.3 meta l4proto tcp counter name refused reject with tcp reset",
            ]
        );
        assert_eq!(rules([].into_iter()).lines().count(), 1);
    }
}
