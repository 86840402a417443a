//! Clocks that are wrong: the time of day by any amount, the speed within what leases allow for.

use std::sync::atomic::Ordering;

use super::{Begun, Fault};
use crate::world::World;
use workload::numbers::Numbers;

const YEAR_MS: i64 = 365 * 24 * 3600 * 1000;

/// The time of day jumps.
pub struct WallClock;
/// Time passes faster on one node.
pub struct Speed;

impl Fault<World> for WallClock {
    fn name(&self) -> &'static str {
        "wall-clock"
    }

    fn begin(&self, world: &mut World, numbers: &mut Numbers) -> Option<Begun<World>> {
        let one = numbers.below(world.controllers.len() as u64) as usize;
        let off_ms = *numbers.pick(&[-10 * YEAR_MS, -3_600_000, -500, 500, 3_600_000, 10 * YEAR_MS]);
        let wall = move |world: &World, off_ms| {
            world.controllers[one]
                .pace
                .wall_off_ms
                .store(off_ms, Ordering::Relaxed);
        };
        wall(world, off_ms);
        Some(Begun {
            lasts_ms: numbers.between(100, 10_000),
            text: format!("time of day of {one} is off by {off_ms} ms"),
            mend: Box::new(move |world| wall(world, 0)),
        })
    }
}

impl Fault<World> for Speed {
    fn name(&self) -> &'static str {
        "speed"
    }

    fn begin(&self, world: &mut World, numbers: &mut Numbers) -> Option<Begun<World>> {
        if world.is_skewed() {
            return None;
        }
        let one = numbers.below(world.controllers.len() as u64) as usize;
        let permille = numbers.between(1, 100);
        let speed = move |world: &mut World, permille| {
            world.set_skewed(permille > 0);
            world.controllers[one].pace.set_extra(permille);
        };
        speed(world, permille);
        Some(Begun {
            lasts_ms: numbers.between(1000, 20_000),
            text: format!("time of {one} runs faster by {permille}/1000"),
            mend: Box::new(move |world| speed(world, 0)),
        })
    }
}
