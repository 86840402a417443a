//! A process stands still while time goes on for the others, and does not know it when it goes on.
//!
//! A host of the simulation cannot be left out of a step. So nothing that it sends comes through, nothing comes to it, and
//! time runs many times faster for all others; then its own clocks are moved to where they would be, and it goes on.

use super::{Begun, Fault, Hurt};
use crate::world::World;
use workload::numbers::Numbers;

/// How much faster time is for the others.
const FASTER: u64 = 20;

/// A process is paused.
pub struct Pause;

impl Fault<World> for Pause {
    fn name(&self) -> &'static str {
        "pause"
    }

    /// While one node stands still, time runs many times faster for the others than for those who record.
    fn not_with(&self) -> &'static [&'static str] {
        &["lease"]
    }

    fn begin(&self, world: &mut World, numbers: &mut Numbers) -> Option<Begun<World>> {
        let count = world.controllers.len();
        let one = numbers.below(count as u64) as usize;
        if count < 2 || world.is_down(one) || world.is_skewed() {
            return None;
        }
        let others: Vec<usize> = (0..count).filter(|other| *other != one).collect();
        let links = others.iter().flat_map(|other| [(one, *other), (*other, one)]);
        let links: Vec<_> = links.filter(|link| world.cut(*link)).collect();
        world.set_skewed(true);
        for other in &others {
            let pace = &world.controllers[*other].pace;
            pace.set_extra((FASTER - 1) * 1000);
        }
        let lasts_ms = numbers.between(10, 250);
        Some(Begun {
            lasts_ms,
            text: format!("pause of {} ms of {one}", lasts_ms * FASTER),
            mend: Box::new(move |world| {
                for other in &others {
                    world.controllers[*other].pace.set_extra(0);
                }
                let missed_ms = lasts_ms * (FASTER - 1);
                world.controllers[one].pace.jump(missed_ms);
                links.iter().for_each(|link| world.join(*link));
                world.set_skewed(false);
            }),
        })
    }
}
