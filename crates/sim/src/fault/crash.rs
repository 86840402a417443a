//! Processes die, alone or with the power of their host.

use super::{Begun, Fault, Hurt};
use crate::world::Down;
use workload::numbers::Numbers;

/// A process is killed.
pub struct Crash;
/// A host, or all hosts, lose their power.
pub struct PowerLoss;

impl<W: Hurt> Fault<W> for Crash {
    fn name(&self) -> &'static str {
        "kill"
    }

    fn begin(&self, world: &mut W, numbers: &mut Numbers) -> Option<Begun<W>> {
        let one = numbers.below(world.nodes() as u64) as usize;
        begin(world, numbers, vec![one], Down::Killed)
    }
}

impl<W: Hurt> Fault<W> for PowerLoss {
    fn name(&self) -> &'static str {
        "power"
    }

    fn begin(&self, world: &mut W, numbers: &mut Numbers) -> Option<Begun<W>> {
        let count = world.nodes();
        let which = match numbers.once_in(4) {
            true => (0..count).collect(),
            false => vec![numbers.below(count as u64) as usize],
        };
        begin(world, numbers, which, Down::Power)
    }
}

fn begin<W: Hurt>(
    world: &mut W,
    numbers: &mut Numbers,
    mut which: Vec<usize>,
    how: Down,
) -> Option<Begun<W>> {
    which.retain(|at| !world.is_down(*at));
    if which.is_empty() {
        return None;
    }
    which.iter().for_each(|at| world.take_down(*at, how));
    Some(Begun {
        lasts_ms: numbers.between(1, 5000),
        text: format!("{how:?} {which:?}"),
        mend: Box::new(move |world| which.iter().for_each(|at| world.bring_up(*at))),
    })
}
