//! Connections that break, and links that are slow.

use super::{Begun, Fault, Hurt};
use workload::numbers::Numbers;

/// All connections between two controllers break.
pub struct Reset;
/// A link takes long.
pub struct Delay;

/// Two controllers.
pub(super) fn pair(world: &impl Hurt, numbers: &mut Numbers) -> Option<(usize, usize)> {
    let count = world.nodes() as u64;
    if count < 2 {
        return None;
    }
    let a = numbers.below(count);
    let b = (a + 1 + numbers.below(count - 1)) % count;
    Some((a as usize, b as usize))
}

impl<W: Hurt> Fault<W> for Reset {
    fn name(&self) -> &'static str {
        "reset"
    }

    fn begin(&self, world: &mut W, numbers: &mut Numbers) -> Option<Begun<W>> {
        let pair = pair(world, numbers)?;
        world.reset(pair);
        Some(Begun {
            lasts_ms: 0,
            text: format!("connections of {pair:?} break"),
            mend: Box::new(|_| ()),
        })
    }
}

impl<W: Hurt> Fault<W> for Delay {
    fn name(&self) -> &'static str {
        "delay"
    }

    fn begin(&self, world: &mut W, numbers: &mut Numbers) -> Option<Begun<W>> {
        let pair = pair(world, numbers)?;
        let slow_ms = *numbers.pick(&[20, 75, 150, 400]);
        let (_, usual_ms) = world.plan().latency_ms;
        world.set_latency(pair, slow_ms);
        Some(Begun {
            lasts_ms: numbers.between(200, 8000),
            text: format!("link of {pair:?} takes up to {slow_ms} ms"),
            mend: Box::new(move |world| world.set_latency(pair, usual_ms)),
        })
    }
}
