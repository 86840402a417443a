//! One thing changed in a history or its log. What comes of it may be wrong, right all the same, or no evidence.

use checker::history::Outcome;
use checker::revision::{Answer, Ask, Body, Event, Operation, Pair};

use crate::make::{Case, key, value};
use crate::numbers::Numbers;

/// Changes something; may find nothing to change.
pub type Spoil = fn(&mut Case, &mut Numbers);

/// All of them.
pub const SPOILS: &[(&str, Spoil)] = &[
    ("a write is lost", lost_write),
    ("a revision is not told", untold),
    ("an operation is not in the history", unrecorded),
    ("an operation is there twice", twice),
    ("two answers change places", swapped_answers),
    ("an answer has another revision", answer_revision),
    ("an answer has another pair", answer_pair),
    ("an answer has a pair less", answer_less),
    ("a transaction took the other way", other_way),
    ("it returned before or after", shifted_return),
    ("it began before or after", shifted_call),
    ("another fate", other_fate),
    ("another question", other_question),
    ("another client asked", other_client),
    ("two revisions change places", swapped_revisions),
    ("the log has another pair", log_pair),
    ("the log has another event", log_event),
    ("the log goes on", log_goes_on),
    ("two events change places", swapped_events),
];

fn any<'l, T>(all: &'l mut [T], numbers: &mut Numbers) -> Option<&'l mut T> {
    let at = numbers.below(all.len().max(1) as u64) as usize;
    all.get_mut(at)
}

fn answers(case: &mut Case) -> Vec<&mut Answer> {
    let answers = case
        .history
        .iter_mut()
        .filter_map(|operation| match &mut operation.outcome {
            Outcome::Ok(answer) => Some(answer),
            Outcome::Failed(_) | Outcome::Unknown(_) => None,
        });
    answers.collect()
}

/// The log without a revision, as if those after it had been made one earlier.
fn lost_write(case: &mut Case, numbers: &mut Numbers) {
    let lost = 2 + numbers.below(case.log.len().max(1) as u64) as i64;
    let later = case.log.split_off(&lost).into_iter().skip(1);
    case.log
        .extend(later.map(|(revision, events)| (revision - 1, events)));
}

fn untold(case: &mut Case, numbers: &mut Numbers) {
    let revision = 2 + numbers.below(case.log.len().max(1) as u64) as i64;
    case.log.remove(&revision);
}

fn unrecorded(case: &mut Case, numbers: &mut Numbers) {
    // One stays: what changes next has something to change.
    if case.history.len() > 1 {
        case.history
            .remove(numbers.below(case.history.len() as u64) as usize);
    }
}

fn twice(case: &mut Case, numbers: &mut Numbers) {
    if let Some(operation) = any(&mut case.history, numbers) {
        let again = Operation {
            client: 100,
            ..operation.clone()
        };
        case.history.push(again);
    }
}

fn swapped_answers(case: &mut Case, numbers: &mut Numbers) {
    let length = case.history.len() as u64;
    let (one, other) = (numbers.below(length) as usize, numbers.below(length) as usize);
    let outcome = case.history[one].outcome.clone();
    case.history[one].outcome = std::mem::replace(&mut case.history[other].outcome, outcome);
}

fn answer_revision(case: &mut Case, numbers: &mut Numbers) {
    if let Some(answer) = any(&mut answers(case), numbers) {
        answer.revision += [-2, -1, 1, 2][numbers.below(4) as usize];
    }
}

fn pairs(body: &mut Body) -> Vec<&mut Pair> {
    match body {
        Body::Range(pairs) | Body::Deleted(pairs) => pairs.iter_mut().collect(),
        Body::Put(before) => before.iter_mut().collect(),
        Body::Txn { responses, .. } => responses.iter_mut().flat_map(pairs).collect(),
    }
}

fn change(pair: &mut Pair, numbers: &mut Numbers) {
    let by = [-1, 1][numbers.below(2) as usize];
    match numbers.below(6) {
        0 => pair.key = key(numbers),
        1 => pair.value = value(numbers),
        2 => pair.created += by,
        3 => pair.modified += by,
        4 => pair.version += by,
        _ => pair.lease += by,
    }
}

fn answer_pair(case: &mut Case, numbers: &mut Numbers) {
    let mut all: Vec<&mut Pair> = answers(case)
        .into_iter()
        .flat_map(|answer| pairs(&mut answer.body))
        .collect();
    if let Some(pair) = any(&mut all, numbers) {
        change(pair, numbers);
    }
}

fn less(body: &mut Body) {
    match body {
        Body::Range(pairs) | Body::Deleted(pairs) => drop(pairs.pop()),
        Body::Put(before) => *before = None,
        Body::Txn { responses, .. } => responses.iter_mut().for_each(less),
    }
}

fn answer_less(case: &mut Case, numbers: &mut Numbers) {
    if let Some(answer) = any(&mut answers(case), numbers) {
        less(&mut answer.body);
    }
}

fn other_way(case: &mut Case, numbers: &mut Numbers) {
    let mut ways: Vec<&mut bool> = answers(case)
        .into_iter()
        .filter_map(|answer| match &mut answer.body {
            Body::Txn { succeeded, .. } => Some(succeeded),
            Body::Range(_) | Body::Put(_) | Body::Deleted(_) => None,
        })
        .collect();
    if let Some(way) = any(&mut ways, numbers) {
        **way = !**way;
    }
}

fn shifted_return(case: &mut Case, numbers: &mut Numbers) {
    if let Some(operation) = any(&mut case.history, numbers) {
        let by = numbers.below(12);
        operation.return_ns = match numbers.below(4) {
            0 => operation.return_ns.saturating_sub(by),
            1 => operation.return_ns + by,
            _ => operation.call_ns + by.min(operation.return_ns.saturating_sub(operation.call_ns)),
        };
    }
}

fn shifted_call(case: &mut Case, numbers: &mut Numbers) {
    if let Some(operation) = any(&mut case.history, numbers) {
        let by = numbers.below(12);
        let length = operation.return_ns.saturating_sub(operation.call_ns);
        match numbers.below(4) {
            0 => operation.call_ns = operation.call_ns.saturating_sub(by),
            1 => operation.call_ns += by.min(length),
            // All of it. Under a name of its own it need not wait.
            kind => {
                operation.client += 200 * numbers.below(2);
                operation.call_ns = match kind {
                    2 => operation.call_ns.saturating_sub(by),
                    _ => operation.call_ns + by,
                };
                operation.return_ns = operation.call_ns + length;
            }
        }
    }
}

fn other_fate(case: &mut Case, numbers: &mut Numbers) {
    let guess = Answer {
        revision: 1 + numbers.below(4) as i64,
        body: [
            Body::Put(None),
            Body::Deleted(Vec::new()),
            Body::Range(Vec::new()),
        ][numbers.below(3) as usize]
            .clone(),
    };
    let last = case.history.len() as u64 - 1;
    if let Some(operation) = any(&mut case.history, numbers) {
        operation.outcome = match numbers.below(8) {
            0 => Outcome::Ok(guess),
            1..4 => Outcome::Unknown("lost".into()),
            _ => Outcome::Failed("refused".into()),
        };
        // Whose fate is unknown, asks no more under that name.
        operation.client += 300 * numbers.below(1 + last);
    }
}

fn other_question(case: &mut Case, numbers: &mut Numbers) {
    let Some(operation) = any(&mut case.history, numbers) else {
        return;
    };
    let ask = match &mut operation.ask {
        Ask::Txn { success, failure, .. } if numbers.below(2) == 0 => {
            std::mem::swap(success, failure);
            return;
        }
        Ask::Txn {
            compare,
            success,
            failure,
        } => match success.iter_mut().chain(failure).next() {
            Some(ask) => ask,
            None => return compare.clear(),
        },
        Ask::Range { .. } | Ask::Put { .. } | Ask::Delete { .. } => &mut operation.ask,
    };
    match ask {
        Ask::Put { value: asked, .. } => *asked = value(numbers),
        Ask::Delete { key: asked, .. } => *asked = key(numbers),
        Ask::Txn { compare, .. } => compare.clear(),
        Ask::Range {
            key: asked,
            revision,
            serializable,
            ..
        } => match numbers.below(3) {
            0 => *asked = key(numbers),
            1 => *serializable = !*serializable,
            // Within a transaction it is always 0.
            _ if *revision > 0 => *revision += [-1, 1, 2][numbers.below(3) as usize],
            _ => {}
        },
    }
}

fn other_client(case: &mut Case, numbers: &mut Numbers) {
    if let Some(operation) = any(&mut case.history, numbers) {
        operation.client = [0, 10, 20, 400][numbers.below(4) as usize];
    }
}

/// Now and then as if they had been made that way.
fn swapped_revisions(case: &mut Case, numbers: &mut Numbers) {
    let first = 2 + numbers.below(case.log.len().max(1) as u64) as i64;
    let second = first + 1;
    let (Some(mut one), Some(mut other)) = (case.log.remove(&first), case.log.remove(&second)) else {
        return;
    };
    if numbers.below(2) == 0 {
        let stamp = |events: &mut Vec<Event>, revision: i64| {
            for event in events {
                if let Event::Put(pair) = event {
                    pair.modified = revision;
                }
            }
        };
        stamp(&mut one, second);
        stamp(&mut other, first);
    }
    case.log.extend([(first, other), (second, one)]);
}

fn log_pair(case: &mut Case, numbers: &mut Numbers) {
    let mut all: Vec<&mut Pair> = Vec::new();
    for event in case.log.values_mut().flatten() {
        if let Event::Put(pair) = event {
            all.push(pair);
        }
    }
    if let Some(pair) = any(&mut all, numbers) {
        change(pair, numbers);
    }
}

fn log_event(case: &mut Case, numbers: &mut Numbers) {
    let mut all: Vec<&mut Vec<Event>> = case.log.values_mut().collect();
    let Some(events) = any(&mut all, numbers) else {
        return;
    };
    match numbers.below(3) {
        0 => drop(events.pop()),
        1 => events.push(Event::Delete(key(numbers))),
        _ => {
            events.pop();
            events.push(Event::Delete(key(numbers)));
        }
    }
}

fn log_goes_on(case: &mut Case, numbers: &mut Numbers) {
    let next = case.log.len() as i64 + 2;
    let events = match numbers.below(3) {
        0 => Vec::new(),
        _ => vec![Event::Delete(key(numbers))],
    };
    case.log.insert(next, events);
}

fn swapped_events(case: &mut Case, numbers: &mut Numbers) {
    let mut all: Vec<&mut Vec<Event>> = case.log.values_mut().filter(|events| events.len() > 1).collect();
    if let Some(events) = any(&mut all, numbers) {
        events.swap(0, 1);
    }
}
