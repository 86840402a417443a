//! A planned stop: leaders are handed over, the process ends by itself and is started again.

use anyhow::Result;
use rustix::process::Signal;

use super::{Begun, Nemesis, target};
use crate::cluster::Cluster;
use workload::numbers::Numbers;

/// SIGTERM, then a start.
pub struct Restart;

impl Nemesis for Restart {
    fn name(&self) -> &'static str {
        "restart"
    }

    fn about(&self) -> &'static str {
        "SIGTERM, and a start once it has stopped"
    }

    fn begin(&self, cluster: &mut Cluster, numbers: &mut Numbers) -> Result<Option<Begun>> {
        let mut candidates = cluster.working();
        candidates.retain(|at| !cluster.controllers[*at].stopping);
        let Some(victim) = target(cluster, numbers, &candidates) else {
            return Ok(None);
        };
        let controller = &mut cluster.controllers[victim];
        controller.signal(Signal::TERM)?;
        controller.stopping = true;
        controller.held_down += 1;
        let name = victim + 1;
        Ok(Begun::new(
            numbers.between(500, 6000),
            format!("restart [{name}]"),
            move |cluster| {
                let controller = &mut cluster.controllers[victim];
                // Without a majority it cannot hand over, and would take its time.
                let late = controller.stopping && controller.runs();
                if late {
                    controller.kill()?;
                }
                controller.let_up()?;
                Ok(Some(if late {
                    "had not stopped yet: killed".into()
                } else {
                    "stopped by itself".into()
                }))
            },
        ))
    }
}
