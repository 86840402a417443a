//! The power fails: the process is gone, and with it what it had written but not synced.

use anyhow::Result;

use super::{Begun, Nemesis, target};
use crate::cluster::Cluster;
use workload::numbers::Numbers;

/// One node, or all at once.
pub struct Power;

impl Nemesis for Power {
    fn name(&self) -> &'static str {
        "power"
    }

    fn about(&self) -> &'static str {
        "kill -9, and what was not synced is lost, wholly or in part: one node, or all at once"
    }

    fn begin(&self, cluster: &mut Cluster, numbers: &mut Numbers) -> Result<Option<Begun>> {
        let running = cluster.running();
        let victims = match numbers.once_in(3) {
            true => running,
            false => target(cluster, numbers, &running).into_iter().collect(),
        };
        if victims.is_empty() {
            return Ok(None);
        }
        for victim in &victims {
            cluster.controllers[*victim].put_down()?;
        }
        let (mut bytes, mut names) = (0, 0);
        for victim in &victims {
            let lost = cluster.controllers[*victim].disk.lose_power(numbers);
            bytes += lost.0;
            names += lost.1;
        }
        let shown: Vec<usize> = victims.iter().map(|at| at + 1).collect();
        let seen = (bytes + names > 0).then(|| format!("{bytes} writes and {names} changes of names lost"));
        let text = format!("power {shown:?}");
        Ok(Begun::new(numbers.between(50, 5000), text, move |cluster| {
            for victim in victims {
                cluster.controllers[victim].disk.regain_power();
                cluster.controllers[victim].let_up()?;
            }
            Ok(seen)
        }))
    }
}
