//! Disks that are slow, stand still, fail, or are full.

use super::{Begun, Fault};
use crate::plan::SyncDelay;
use crate::world::World;
use workload::numbers::Numbers;

/// Every sync takes long.
pub struct SlowDisk;
/// The next sync fails, and with it the process.
pub struct FailingDisk;
/// There is no room.
pub struct FullDisk;

fn one(world: &World, numbers: &mut Numbers) -> Option<usize> {
    let one = numbers.below(world.controllers.len() as u64) as usize;
    (!world.is_down(one)).then_some(one)
}

impl Fault for SlowDisk {
    fn name(&self) -> &'static str {
        "slow-disk"
    }

    fn begin(&self, world: &mut World, numbers: &mut Numbers) -> Option<Begun> {
        let one = one(world, numbers)?;
        let slow_ms = *numbers.pick(&[50, 200, 500, 2000]);
        *world.controllers[one].sync_delay.lock() = SyncDelay {
            usual_ms: (slow_ms / 2, slow_ms),
            slow_once_in: 10,
            slow_ms: (slow_ms, 2 * slow_ms),
        };
        Some(Begun {
            lasts_ms: numbers.between(500, 8000),
            text: format!("syncs of {one} take {slow_ms} ms"),
            mend: Box::new(move |world| {
                *world.controllers[one].sync_delay.lock() = world.plan.sync_delay.clone();
            }),
        })
    }
}

impl Fault for FailingDisk {
    fn name(&self) -> &'static str {
        "failing-disk"
    }

    fn begin(&self, world: &mut World, numbers: &mut Numbers) -> Option<Begun> {
        let one = one(world, numbers)?;
        world.controllers[one].disk.fail_sync();
        Some(Begun {
            lasts_ms: numbers.between(1000, 8000),
            text: format!("the disk of {one} fails"),
            // A process that has not noticed was never hurt; one that has is started again.
            mend: Box::new(move |world| {
                world.controllers[one].disk.mend_sync();
                world.bring_up(one);
            }),
        })
    }
}

impl Fault for FullDisk {
    fn name(&self) -> &'static str {
        "full-disk"
    }

    fn begin(&self, world: &mut World, numbers: &mut Numbers) -> Option<Begun> {
        let one = one(world, numbers)?;
        world.controllers[one].disk.set_free_bytes(0);
        Some(Begun {
            lasts_ms: numbers.between(1000, 10_000),
            text: format!("the disk of {one} is full"),
            mend: Box::new(move |world| world.controllers[one].disk.set_free_bytes(1 << 40)),
        })
    }
}
