//! The wall clock of a node jumps, by seconds or by years, forth and back. Nothing may depend on it.

use anyhow::Result;

use super::{Begun, Nemesis};
use crate::cluster::Cluster;
use workload::numbers::Numbers;

/// A wrong date.
pub struct Clock;

const HOUR_S: i64 = 3600;
const YEAR_S: i64 = 365 * 24 * HOUR_S;

impl Nemesis for Clock {
    fn name(&self) -> &'static str {
        "clock"
    }

    fn about(&self) -> &'static str {
        "the wall clock of a node jumps by seconds, an hour or ten years, forth or back"
    }

    fn begin(&self, cluster: &mut Cluster, numbers: &mut Numbers) -> Result<Option<Begun>> {
        let working = cluster.working();
        if working.is_empty() {
            return Ok(None);
        }
        let victim = *numbers.pick(&working);
        let step = *numbers.pick(&[3, 60, HOUR_S, HOUR_S, 10 * YEAR_S, 10 * YEAR_S]);
        let offset_s = if numbers.once_in(2) { step } else { -step };
        let controller = &cluster.controllers[victim];
        controller.clock.set(offset_s)?;
        let text = format!("clock of [{}] {offset_s:+} s", victim + 1);
        Ok(Begun::new(numbers.between(2000, 10_000), text, move |cluster| {
            // What it must refuse, it logs: that shows its time.
            let _ = cluster.ask(victim, &["partitions", "transfer", "4000", "--to", "1"]);
            let controller = &cluster.controllers[victim];
            let seen = controller.clock.seen(&controller.log, offset_s)?;
            controller.clock.set(0)?;
            Ok(seen)
        }))
    }
}
