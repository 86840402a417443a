//! A process is asked to stop, hands over what it leads, ends, and is started again at once: a planned restart.

use super::{Begun, Fault, Hurt};
use crate::world::World;
use workload::numbers::Numbers;

/// A planned restart.
pub struct Restart;

impl Fault<World> for Restart {
    fn name(&self) -> &'static str {
        "restart"
    }

    fn begin(&self, world: &mut World, numbers: &mut Numbers) -> Option<Begun<World>> {
        let one = numbers.below(world.controllers.len() as u64) as usize;
        if world.is_down(one) {
            return None;
        }
        world.controllers[one].ask_to_stop();
        Some(Begun {
            lasts_ms: 0,
            text: format!("planned restart of {one}"),
            mend: Box::new(|_| ()),
        })
    }
}
