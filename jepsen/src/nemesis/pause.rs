//! A process stands still, long enough to be deposed or just short of it, and then goes on as if nothing had been.

use anyhow::Result;
use rustix::process::Signal;

use super::{Begun, Nemesis, target};
use crate::cluster::Cluster;
use workload::numbers::Numbers;

/// SIGSTOP, later SIGCONT.
pub struct Pause;

impl Nemesis for Pause {
    fn name(&self) -> &'static str {
        "pause"
    }

    fn about(&self) -> &'static str {
        "SIGSTOP, then SIGCONT: a leader that wakes up late, any node, now and then all"
    }

    fn begin(&self, cluster: &mut Cluster, numbers: &mut Numbers) -> Result<Option<Begun>> {
        let working = cluster.working();
        let victims = match numbers.once_in(8) {
            true => working,
            false => target(cluster, numbers, &working).into_iter().collect(),
        };
        if victims.is_empty() {
            return Ok(None);
        }
        for victim in &victims {
            let controller = &mut cluster.controllers[*victim];
            controller.signal(Signal::STOP)?;
            controller.paused = true;
        }
        let names: Vec<usize> = victims.iter().map(|at| at + 1).collect();
        Ok(Begun::new(
            numbers.between(100, 8000),
            format!("pause {names:?}"),
            move |cluster| {
                let mut still = Vec::new();
                for victim in victims {
                    let controller = &mut cluster.controllers[victim];
                    // Another fault may have killed it meanwhile, and started it again.
                    if controller.paused {
                        still.extend(controller.state().filter(|state| *state == 'T'));
                        controller.signal(Signal::CONT)?;
                        controller.paused = false;
                    }
                }
                Ok((!still.is_empty()).then(|| format!("{} stood still", still.len())))
            },
        ))
    }
}
