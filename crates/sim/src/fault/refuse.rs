//! Links that refuse: connections break and new ones are turned away at once, though both processes live. That looks like
//! a process that has died, and calls for an election at once; it must cost pauses and nothing else.

use super::{Begun, Fault, Hurt};
use workload::numbers::Numbers;

/// Two controllers refuse each other, and the third reaches both.
pub struct Refuse;
/// A controller's listener is away for a moment, for all others.
pub struct Flap;

impl<W: Hurt> Fault<W> for Refuse {
    fn name(&self) -> &'static str {
        "refuse"
    }

    fn begin(&self, world: &mut W, numbers: &mut Numbers) -> Option<Begun<W>> {
        let (a, b) = super::connection::pair(world, numbers)?;
        let links = match numbers.once_in(3) {
            true => vec![(a, b)],
            false => vec![(a, b), (b, a)],
        };
        begin(world, links, numbers.between(100, 10_000))
    }
}

impl<W: Hurt> Fault<W> for Flap {
    fn name(&self) -> &'static str {
        "flap"
    }

    fn begin(&self, world: &mut W, numbers: &mut Numbers) -> Option<Begun<W>> {
        let count = world.nodes();
        let one = numbers.below(count as u64) as usize;
        let others = (0..count).filter(|other| *other != one);
        let links: Vec<_> = others.map(|other| (other, one)).collect();
        begin(world, links, *numbers.pick(&[5, 30, 100, 500]))
    }
}

fn begin<W: Hurt>(world: &mut W, links: Vec<(usize, usize)>, lasts_ms: u64) -> Option<Begun<W>> {
    let fresh: Vec<_> = links.into_iter().filter(|link| world.refuse(*link)).collect();
    if fresh.is_empty() {
        return None;
    }
    Some(Begun {
        lasts_ms,
        text: format!("refused: {fresh:?}"),
        mend: Box::new(move |world| fresh.iter().for_each(|link| world.admit(*link))),
    })
}
