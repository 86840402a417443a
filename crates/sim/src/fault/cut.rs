//! The network between controllers is cut, in both directions or in one: what is sent waits for the end of the cut, as it
//! does where TCP sends again, unless the connection is given up before.

use super::{Begun, Fault, Hurt};
use workload::numbers::Numbers;

/// A cut of any shape.
pub struct Cut;

impl<W: Hurt> Fault<W> for Cut {
    fn name(&self) -> &'static str {
        "cut"
    }

    fn begin(&self, world: &mut W, numbers: &mut Numbers) -> Option<Begun<W>> {
        let count = world.nodes();
        if count < 2 {
            return None;
        }
        let (shape, links) = shape(count, numbers);
        let links: Vec<_> = links.into_iter().filter(|link| world.cut(*link)).collect();
        if links.is_empty() {
            return None;
        }
        Some(Begun {
            lasts_ms: numbers.between(100, 8000),
            text: format!("cut {shape} {links:?}"),
            mend: Box::new(move |world| links.iter().for_each(|link| world.join(*link))),
        })
    }
}

/// Links, each in one direction.
fn shape(count: usize, numbers: &mut Numbers) -> (&'static str, Vec<(usize, usize)>) {
    let one = numbers.below(count as u64) as usize;
    let others = || (0..count).filter(move |other| *other != one);
    let all = || (0..count).flat_map(|from| (0..count).map(move |to| (from, to)));
    match numbers.below(6) {
        0 => (
            "one node off",
            others().flat_map(|other| [(one, other), (other, one)]).collect(),
        ),
        1 => ("one node mute", others().map(|other| (one, other)).collect()),
        2 => ("one node deaf", others().map(|other| (other, one)).collect()),
        // Each side of the bridge reaches the bridge, and not the other side.
        3 => (
            "bridge",
            all()
                .filter(|(from, to)| from != to && *from != one && *to != one)
                .filter(|(from, to)| (from < &one) != (to < &one) || count == 3)
                .collect(),
        ),
        4 => {
            let other = others()
                .nth(numbers.below(count as u64 - 1) as usize)
                .unwrap_or(one);
            ("one link, one way", vec![(one, other)])
        }
        // Each node reaches the next one only.
        _ => (
            "ring",
            all()
                .filter(|(from, to)| {
                    from != to && (from + 1) % count != *to && (to + 1) % count != *from
                        || count == 3 && (from + 1) % count == *to
                })
                .collect(),
        ),
    }
}
