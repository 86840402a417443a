//! Bad links: the fabric delays, loses, doubles, reorders or throttles packets, on a few links or on all.

use anyhow::Result;

use super::{Begun, Nemesis};
use crate::cluster::Cluster;
use crate::fabric::link::{Count, Rule};
use workload::numbers::Numbers;

/// What is wrong with the links.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Links {
    /// Packets take long, each as long as another or not.
    Slow,
    /// Packets are lost.
    Lossy,
    /// Packets come twice.
    Doubling,
    /// Packets overtake each other.
    Shuffling,
    /// Few packets go through.
    Narrow,
}

impl Links {
    fn rule(self, numbers: &mut Numbers) -> Rule {
        match self {
            Links::Slow => Rule {
                delay_us: *numbers.pick(&[1000, 5000, 20_000, 100_000, 400_000]),
                jitter_us: *numbers.pick(&[0, 1000, 20_000, 200_000]),
                ..Rule::default()
            },
            Links::Lossy => Rule {
                loss_ppm: *numbers.pick(&[5000, 20_000, 100_000, 300_000]),
                ..Rule::default()
            },
            Links::Doubling => Rule {
                twice_ppm: *numbers.pick(&[20_000, 200_000, 1_000_000]),
                ..Rule::default()
            },
            Links::Shuffling => Rule {
                overtaken_ppm: *numbers.pick(&[10_000, 100_000, 400_000]),
                held_us: *numbers.pick(&[500, 5000, 50_000]),
                ..Rule::default()
            },
            Links::Narrow => Rule {
                rate_bytes: *numbers.pick(&[20_000, 100_000, 500_000]),
                ..Rule::default()
            },
        }
    }

    fn effect(self, before: Count, after: Count) -> u64 {
        match self {
            Links::Slow | Links::Narrow => after.delayed - before.delayed,
            Links::Lossy => after.lost - before.lost,
            Links::Doubling => after.twice - before.twice,
            Links::Shuffling => after.held - before.held,
        }
    }
}

impl Nemesis for Links {
    fn name(&self) -> &'static str {
        match self {
            Links::Slow => "slow",
            Links::Lossy => "loss",
            Links::Doubling => "twice",
            Links::Shuffling => "reorder",
            Links::Narrow => "narrow",
        }
    }

    fn about(&self) -> &'static str {
        match self {
            Links::Slow => "packets take 1 to 400 ms and up to 200 ms more",
            Links::Lossy => "0.5 to 30 % of the packets are lost",
            Links::Doubling => "2 to 100 % of the packets come twice",
            Links::Shuffling => "1 to 40 % of the packets are overtaken by others",
            Links::Narrow => "links carry 20 to 500 kB/s",
        }
    }

    fn begin(&self, cluster: &mut Cluster, numbers: &mut Numbers) -> Result<Option<Begun>> {
        let ports = cluster.hosts.clients() + 1;
        let one = numbers.below(ports as u64 - 1) as usize;
        let around = numbers.once_in(2);
        let links: Vec<(usize, usize)> = (0..ports * ports)
            .map(|at| (at / ports, at % ports))
            .filter(|(from, to)| from != to && (!around || *from == one || *to == one))
            .collect();
        let rule = self.rule(numbers);
        let before = cluster.hosts.fabric.total();
        cluster.hosts.set(&links, rule);
        let place = if around {
            format!("around {}", one + 1)
        } else {
            "everywhere".into()
        };
        let text = format!("{} {place}: {rule:?}", self.name());
        let kind = *self;
        Ok(Begun::new(numbers.between(500, 10_000), text, move |cluster| {
            let effect = kind.effect(before, cluster.hosts.fabric.total());
            // Another fault of the fabric may have laid its rule over this one, and ends with it.
            cluster.hosts.set(&links, Rule::default());
            Ok((effect > 0).then(|| format!("{effect} packets")))
        }))
    }
}
