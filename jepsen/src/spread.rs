//! Gaps between answers, and what many of them come to.

use workload::numbers::Numbers;

/// Times that rounds are drawn again, for the bounds of a percentile.
const DRAWS: usize = 1000;
/// Rounds below which nothing is said of how far off a percentile may be.
const ENOUGH: usize = 5;

/// A time without answers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Gap {
    /// The answer before it.
    pub from: u64,
    /// Until the next.
    pub length: u64,
}

/// The longest gap between two answers, at these times in order, of which a part lies between two moments. What came
/// before the first answer and after the last is no gap.
pub fn longest(times: &[u64], from: u64, to: u64) -> Gap {
    let first = times.partition_point(|time| *time <= from).saturating_sub(1);
    let gaps = times[first..].windows(2).take_while(|pair| pair[0] < to);
    let inside = gaps.filter(|pair| pair[1] > from);
    let gaps = inside.map(|pair| Gap {
        from: pair[0],
        length: pair[1] - pair[0],
    });
    gaps.max_by_key(|gap| gap.length).unwrap_or_default()
}

/// The smallest of these, which are in order, that so many in a hundred do not exceed.
pub fn percentile<T: Copy>(sorted: &[T], part: usize) -> Option<T> {
    let rank = (sorted.len() * part).div_ceil(100).max(1);
    sorted.get(rank - 1).copied()
}

/// Between which bounds a percentile lies in 95 of 100 cases: rounds, not what is in them, are drawn again and again, since
/// what was measured in one round has one cause. `None` if there are too few.
pub fn bounds(rounds: &[Vec<f64>], part: usize, numbers: &mut Numbers) -> Option<(f64, f64)> {
    if rounds.len() < ENOUGH {
        return None;
    }
    let mut found = Vec::new();
    for _ in 0..DRAWS {
        let drawn = (0..rounds.len()).flat_map(|_| numbers.pick(rounds).iter().copied());
        let mut drawn: Vec<f64> = drawn.collect();
        drawn.sort_unstable_by(f64::total_cmp);
        found.extend(percentile(&drawn, part));
    }
    found.sort_unstable_by(f64::total_cmp);
    // Of a thousand: the 25th, and the 25th from the end.
    let low = found.get(found.len() / 40)?;
    let high = found.get(found.len() - 1 - found.len() / 40)?;
    Some((*low, *high))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_counts_whole_if_a_part_of_it_lies_between() {
        let times = [10, 20, 50, 60, 160, 170];
        for (from, to, longest_gap) in [
            (12, 18, 10),
            (20, 25, 30),
            (30, 40, 30),
            (49, 61, 100),
            (50, 60, 10),
            (159, 165, 100),
            (0, 15, 10),
            (0, 200, 100),
            // Nothing is known before the first and after the last.
            (0, 5, 0),
            (170, 900, 0),
        ] {
            assert_eq!(longest(&times, from, to).length, longest_gap, "{from} to {to}");
        }
        assert_eq!(
            longest(&times, 0, 200),
            Gap {
                from: 60,
                length: 100
            }
        );
        assert_eq!(longest(&[], 0, 10), Gap::default());
        assert_eq!(longest(&[5], 0, 10), Gap::default());
    }

    #[test]
    fn percentiles_are_of_the_nearest_rank() {
        let hundred: Vec<u32> = (1..=100).collect();
        for (part, value) in [(0, 1), (1, 1), (50, 50), (99, 99), (100, 100)] {
            assert_eq!(percentile(&hundred, part), Some(value), "{part}");
        }
        assert_eq!(percentile(&[7, 9, 30], 50), Some(9));
        assert_eq!(percentile(&[7, 9, 30], 99), Some(30));
        assert_eq!(percentile::<u32>(&[], 50), None);
    }

    #[test]
    fn bounds_enclose_the_percentile_and_are_wide_when_rounds_differ() {
        let mut numbers = Numbers::of(1, "bounds");
        let width = |rounds: &[Vec<f64>], numbers: &mut Numbers| {
            let (low, high) = bounds(rounds, 50, numbers).expect("enough rounds");
            assert!(low <= 50.0 && 50.0 <= high, "{low} to {high}");
            high - low
        };
        // The same numbers: once each round has all of them, once each round has one kind of its own.
        let alike: Vec<Vec<f64>> = (0..11)
            .map(|_| (0..11).map(|n| f64::from(n) * 10.0).collect())
            .collect();
        let apart: Vec<Vec<f64>> = (0..11).map(|n| vec![f64::from(n) * 10.0; 11]).collect();
        assert!(width(&alike, &mut numbers) < width(&apart, &mut numbers));
        assert_eq!(bounds(&alike[..4], 50, &mut numbers), None);
    }
}
