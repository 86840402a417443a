//! A process is gone at once. What it had written is still with the kernel.

use anyhow::Result;

use super::{Begun, Nemesis, target};
use crate::cluster::Cluster;
use workload::numbers::Numbers;

/// `kill -9` of one process, or now and then of all.
pub struct Kill;

impl Nemesis for Kill {
    fn name(&self) -> &'static str {
        "kill"
    }

    fn about(&self) -> &'static str {
        "kill -9: a leader, any node, now and then all at once"
    }

    fn begin(&self, cluster: &mut Cluster, numbers: &mut Numbers) -> Result<Option<Begun>> {
        let running = cluster.running();
        let victims = match numbers.once_in(6) {
            true => running,
            false => target(cluster, numbers, &running).into_iter().collect(),
        };
        if victims.is_empty() {
            return Ok(None);
        }
        let mut statuses = Vec::new();
        for victim in &victims {
            statuses.extend(cluster.controllers[*victim].put_down()?);
        }
        let names: Vec<usize> = victims.iter().map(|at| at + 1).collect();
        let seen = statuses.first().map(ToString::to_string);
        Ok(Begun::new(
            numbers.between(50, 6000),
            format!("kill {names:?}"),
            move |cluster| {
                for victim in victims {
                    cluster.controllers[victim].let_up()?;
                }
                Ok(seen)
            },
        ))
    }
}
