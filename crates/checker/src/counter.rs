//! A counter that is raised, with retries, and read. A read sees at least what was acknowledged before it began, and no
//! more than what was asked for before it returned: an increment that a retry made twice shows as too much, one that was
//! acknowledged and lost as too little. Nor may a retry be told that its increment was made before.

use serde::{Deserialize, Serialize};

use crate::Verdict;
use crate::history::{Operation, check_shape};

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ask {
    /// Raises it by so much.
    Add(u64),
    /// How high is it?
    Read,
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// It was raised.
    Added,
    /// It was raised before, and so this attempt was executed too.
    Again,
    /// So high.
    Value(u64),
}

/// Something that broke the promise, by the operation's place in the history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Which operation.
    pub operation: usize,
    /// What is wrong.
    pub text: String,
}

/// Judges a history of a counter that began at 0.
pub fn check(history: &[Operation<Ask, Answer>]) -> Verdict<Vec<Finding>> {
    if let Err(malformed) = check_shape(history) {
        return malformed.into();
    }
    // Calls of increments that may have happened, and returns of those that did, each with the sum up to it.
    let (mut asked, mut done) = (Vec::new(), Vec::new());
    for operation in history.iter().filter(|operation| !operation.is_failed()) {
        if let Ask::Add(amount) = operation.ask {
            asked.push((operation.call_ns, amount));
            if operation.answer().is_some() {
                done.push((operation.return_ns, amount));
            }
        }
    }
    let (asked, done) = (sums(asked), sums(done));
    let (mut wrong, mut reads) = (Vec::new(), 0);
    for (at, operation) in history.iter().enumerate() {
        let mut find = |text: String| wrong.push(Finding { operation: at, text });
        let value = match operation.answer() {
            Some(Answer::Value(value)) => value,
            Some(Answer::Again) => {
                find("it was executed twice".into());
                continue;
            }
            Some(Answer::Added) | None => continue,
        };
        reads += 1;
        let at_least = before(&done, operation.call_ns);
        let at_most = before(&asked, operation.return_ns.saturating_add(1));
        if !(at_least..=at_most).contains(value) {
            find(format!("it is {value}, and {at_least} to {at_most} is right"));
        }
    }
    match (wrong.is_empty(), reads > 0 && !done.is_empty()) {
        (false, _) => Verdict::Violated(wrong),
        (true, true) => Verdict::Valid,
        (true, false) => Verdict::Unknown(format!(
            "{reads} reads and {} increments show nothing",
            done.len()
        )),
    }
}

/// Ordered by time, each with the sum of all up to it.
fn sums(mut amounts: Vec<(u64, u64)>) -> Vec<(u64, u64)> {
    amounts.sort_unstable();
    let mut sum = 0;
    for (_, amount) in &mut amounts {
        sum += *amount;
        *amount = sum;
    }
    amounts
}

/// The sum of all earlier than `time`.
fn before(sums: &[(u64, u64)], time: u64) -> u64 {
    let earlier = sums.partition_point(|(at, _)| *at < time);
    earlier.checked_sub(1).map_or(0, |last| sums[last].1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Outcome;

    fn add(times: (u64, u64), amount: u64, outcome: Outcome<Answer>) -> Operation<Ask, Answer> {
        Operation {
            client: times.1,
            node: 1,
            call_ns: times.0,
            return_ns: times.1,
            ask: Ask::Add(amount),
            outcome,
        }
    }

    #[test]
    fn reads_see_what_was_acknowledged_and_no_more_than_was_asked() {
        let lost = || Outcome::Unknown("lost".into());
        let check_read = |times: (u64, u64), value| {
            let history = vec![
                add((0, 10), 1, Outcome::Ok(Answer::Added)),
                add((5, 20), 2, lost()),
                add((6, 21), 4, Outcome::Failed("refused".into())),
                add((30, 40), 8, Outcome::Ok(Answer::Added)),
                Operation {
                    ask: Ask::Read,
                    ..add(times, 0, Outcome::Ok(Answer::Value(value)))
                },
            ];
            match check(&history) {
                Verdict::Violated(wrong) => Err(wrong[0].text.clone()),
                verdict => Ok(verdict),
            }
        };
        let outside = |value, low, high| Err(format!("it is {value}, and {low} to {high} is right"));
        assert_eq!(check_read((0, 4), 0), Ok(Verdict::Valid));
        assert_eq!(check_read((0, 4), 1), Ok(Verdict::Valid));
        assert_eq!(check_read((0, 4), 2), outside(2, 0, 1));
        assert_eq!(check_read((11, 12), 0), outside(0, 1, 3));
        assert_eq!(check_read((11, 12), 3), Ok(Verdict::Valid));
        assert_eq!(check_read((41, 42), 9), Ok(Verdict::Valid));
        assert_eq!(
            check_read((41, 42), 19),
            outside(19, 9, 11),
            "an increment was made twice"
        );
        assert_eq!(check_read((41, 42), 3), outside(3, 9, 11), "one was lost");
        assert!(matches!(check(&[]), Verdict::Unknown(_)));
    }

    #[test]
    fn nothing_is_executed_again() {
        let again = Finding {
            operation: 1,
            text: "it was executed twice".into(),
        };
        let read = Operation {
            ask: Ask::Read,
            ..add((30, 31), 0, Outcome::Ok(Answer::Value(2)))
        };
        let history = [
            add((0, 10), 1, Outcome::Ok(Answer::Added)),
            add((5, 20), 1, Outcome::Ok(Answer::Again)),
            read,
        ];
        assert_eq!(check(&history), Verdict::Violated(vec![again]));
    }

    #[test]
    fn reads_without_increments_show_nothing_nor_increments_without_reads() {
        let nothing = |text: &str| Verdict::Unknown(format!("{text} show nothing"));
        let added = |at| add((at, at + 1), 1, Outcome::Ok(Answer::Added));
        let read = |at| Operation {
            ask: Ask::Read,
            ..add((at, at + 1), 0, Outcome::Ok(Answer::Value(0)))
        };
        let increments = [added(0), added(2)];
        assert_eq!(check(&increments), nothing("0 reads and 2 increments"));
        let reads = [read(0), read(2)];
        assert_eq!(check(&reads), nothing("2 reads and 0 increments"));
    }
}
