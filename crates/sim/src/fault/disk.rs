//! Disks that are slow, stand still, fail, or are full, and what comes damaged to them.

use super::{Begun, Fault, Hurt};
use crate::plan::SyncDelay;
use workload::numbers::Numbers;

/// Every sync takes long.
pub struct SlowDisk;
/// Syncs fail, or reads, and with the first of them the process.
pub struct FailingDisk;
/// There is no room.
pub struct FullDisk;
/// States that are sent here come with a flipped bit.
pub struct BadCopies;

fn one(world: &impl Hurt, numbers: &mut Numbers) -> Option<usize> {
    let one = numbers.below(world.nodes() as u64) as usize;
    (!world.is_down(one)).then_some(one)
}

impl<W: Hurt> Fault<W> for SlowDisk {
    fn name(&self) -> &'static str {
        "slow-disk"
    }

    fn begin(&self, world: &mut W, numbers: &mut Numbers) -> Option<Begun<W>> {
        let one = one(world, numbers)?;
        let slow_ms = *numbers.pick(&[50, 200, 500, 2000]);
        let slow = SyncDelay {
            usual_ms: (slow_ms / 2, slow_ms),
            slow_once_in: 10,
            slow_ms: (slow_ms, 2 * slow_ms),
        };
        world.set_sync_delay(one, slow);
        Some(Begun {
            lasts_ms: numbers.between(500, 8000),
            text: format!("syncs of {one} take {slow_ms} ms"),
            mend: Box::new(move |world| {
                let usual = world.plan().sync_delay.clone();
                world.set_sync_delay(one, usual);
            }),
        })
    }
}

impl<W: Hurt> Fault<W> for FailingDisk {
    fn name(&self) -> &'static str {
        "failing-disk"
    }

    fn begin(&self, world: &mut W, numbers: &mut Numbers) -> Option<Begun<W>> {
        let one = one(world, numbers)?;
        let what = match numbers.once_in(3) {
            true => {
                world.disk(one).fail_reads();
                "reads"
            }
            false => {
                world.disk(one).fail_sync();
                "syncs"
            }
        };
        Some(Begun {
            lasts_ms: numbers.between(1000, 8000),
            text: format!("{what} of the disk of {one} fail"),
            // A process that has not noticed was never hurt; one that has is started again.
            mend: Box::new(move |world| {
                world.disk(one).mend();
                world.bring_up(one);
            }),
        })
    }
}

impl<W: Hurt> Fault<W> for FullDisk {
    fn name(&self) -> &'static str {
        "full-disk"
    }

    fn begin(&self, world: &mut W, numbers: &mut Numbers) -> Option<Begun<W>> {
        let one = one(world, numbers)?;
        world.disk(one).set_free_bytes(0);
        Some(Begun {
            lasts_ms: numbers.between(1000, 10_000),
            text: format!("the disk of {one} is full"),
            mend: Box::new(move |world| world.disk(one).set_free_bytes(1 << 40)),
        })
    }
}

impl<W: Hurt> Fault<W> for BadCopies {
    fn name(&self) -> &'static str {
        "bad-copies"
    }

    fn begin(&self, world: &mut W, numbers: &mut Numbers) -> Option<Begun<W>> {
        let one = one(world, numbers)?;
        let pieces = numbers.between(1, 5);
        world.disk(one).flip_received(pieces as u32);
        Some(Begun {
            lasts_ms: numbers.between(2000, 10_000),
            text: format!("{pieces} pieces of copies come damaged to {one}"),
            mend: Box::new(move |world| world.disk(one).flip_received(0)),
        })
    }
}
