//! Disks that are slow, stand still, fail, or are full.

use super::{Begun, Fault, Hurt};
use crate::plan::SyncDelay;
use workload::numbers::Numbers;

/// Every sync takes long.
pub struct SlowDisk;
/// The next sync fails, and with it the process.
pub struct FailingDisk;
/// There is no room.
pub struct FullDisk;

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
        world.disk(one).fail_sync();
        Some(Begun {
            lasts_ms: numbers.between(1000, 8000),
            text: format!("the disk of {one} fails"),
            // A process that has not noticed was never hurt; one that has is started again.
            mend: Box::new(move |world| {
                world.disk(one).mend_sync();
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
