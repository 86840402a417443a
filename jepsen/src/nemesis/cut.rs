//! The network between nodes is cut, in both directions or in one; or connections are reset instead.

use anyhow::Result;

use super::{Begun, Nemesis};
use crate::cluster::Cluster;
use crate::cuts::{self, Link, Way};
use workload::numbers::Numbers;

/// Packets vanish.
pub struct Cut;

/// Connections are reset, and new ones refused.
pub struct Reset;

impl Nemesis for Cut {
    fn name(&self) -> &'static str {
        "cut"
    }

    fn about(&self) -> &'static str {
        "packets vanish: one node off, mute or deaf (from clients too, at times), halves, bridge, ring, one way"
    }

    fn begin(&self, cluster: &mut Cluster, numbers: &mut Numbers) -> Result<Option<Begun>> {
        let lasts_ms = numbers.between(200, 8000);
        begin(cluster, numbers, Way::Drop, lasts_ms)
    }
}

impl Nemesis for Reset {
    fn name(&self) -> &'static str {
        "reset"
    }

    fn about(&self) -> &'static str {
        "connections are reset and refused, in the same shapes as cuts, for a short while"
    }

    fn begin(&self, cluster: &mut Cluster, numbers: &mut Numbers) -> Result<Option<Begun>> {
        let lasts_ms = numbers.between(50, 2000);
        begin(cluster, numbers, Way::Reset, lasts_ms)
    }
}

fn begin(cluster: &mut Cluster, numbers: &mut Numbers, way: Way, lasts_ms: u64) -> Result<Option<Begun>> {
    let nodes = cluster.controllers.len();
    if nodes < 2 {
        return Ok(None);
    }
    let (shape, mut links) = shape(nodes, numbers);
    if way == Way::Reset {
        // A connection has two ends.
        links.extend(links.clone().into_iter().map(|(from, to)| (to, from)));
        links.sort_unstable();
        links.dedup();
    }
    if links.is_empty() {
        return Ok(None);
    }
    let before = cluster.hosts.cuts.refused()?;
    cluster.hosts.cuts.begin(&links, way)?;
    let word = match way {
        Way::Drop => "cut",
        Way::Reset => "reset",
    };
    let names: Vec<String> = links
        .iter()
        .map(|(from, to)| format!("{}>{}", from + 1, to + 1))
        .collect();
    // Named as other faults name a node that alone was struck: then the report tells how long nothing was answered.
    let all_of = |at: &usize| links.iter().all(|(from, to)| from == at || to == at);
    let alone = (0..nodes).find(all_of).filter(|_| shape == "one off");
    let alone = alone.map_or_else(String::new, |at| format!(" [{}]", at + 1));
    let text = format!("{word} {shape}{alone}: {}", names.join(" "));
    Ok(Begun::new(lasts_ms, text, move |cluster| {
        let refused = cluster.hosts.cuts.refused()?.saturating_sub(before);
        cluster.hosts.cuts.end(&links, way)?;
        Ok((refused > 0).then(|| format!("{refused} packets refused")))
    }))
}

/// Links, each in one direction. Port `nodes` is the clients'.
fn shape(nodes: usize, numbers: &mut Numbers) -> (&'static str, Vec<Link>) {
    let one = numbers.below(nodes as u64) as usize;
    let ports = nodes + usize::from(numbers.once_in(3));
    let others = || (0..ports).filter(move |other| *other != one);
    let all = || (0..nodes).flat_map(move |from| (0..nodes).map(move |to| (from, to)));
    match numbers.below(7) {
        0 => ("one off", cuts::off(one, ports)),
        1 => ("one mute", others().map(|other| (one, other)).collect()),
        2 => ("one deaf", others().map(|other| (other, one)).collect()),
        3 => {
            let half = nodes.div_ceil(2);
            let side = |at: usize| (at + nodes - one) % nodes < half;
            (
                "halves",
                all().filter(|(from, to)| side(*from) != side(*to)).collect(),
            )
        }
        // Each side of the bridge reaches the bridge, and not the other side.
        4 => {
            let side = |at: usize| (at + nodes - one) % nodes <= nodes / 2;
            let apart = |(from, to): &Link| *from != one && *to != one && side(*from) != side(*to);
            ("bridge", all().filter(apart).collect())
        }
        5 => {
            let next = (one + 1 + numbers.below(nodes as u64 - 1) as usize) % nodes;
            ("one way", vec![(one, next)])
        }
        // Each reaches its neighbours only; of three, the next one only.
        _ => {
            let next = |from: usize, to: usize| (from + 1) % nodes == to;
            let near = |(from, to): &Link| next(*from, *to) || nodes > 3 && next(*to, *from);
            (
                "ring",
                all().filter(|link| link.0 != link.1 && !near(link)).collect(),
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shape_cuts_something_and_never_a_node_from_itself() {
        for nodes in 2..6 {
            for seed in 0..200 {
                let (shape, links) = shape(nodes, &mut Numbers::of(seed, "shape"));
                // With two nodes nobody is left to be a bridge, or to close a ring.
                let empty_by_nature = nodes == 2 && ["bridge", "ring"].contains(&shape);
                assert!(empty_by_nature || !links.is_empty(), "{shape} of {nodes}");
                for (from, to) in links {
                    assert!(from != to && from <= nodes && to <= nodes, "{shape} of {nodes}");
                }
            }
        }
    }
}
