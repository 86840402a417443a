//! Tiny histories of a store that is right: few keys, few values, so that much looks the same.

use checker::history::Outcome;
use checker::revision::{Ask, Compare, Operation};

use crate::brute::{Log, World};
use crate::numbers::Numbers;

/// A history and the log that goes with it.
#[derive(Debug, Clone)]
pub struct Case {
    pub history: Vec<Operation>,
    pub log: Log,
}

pub fn key(numbers: &mut Numbers) -> String {
    ["a", "b"][numbers.below(2) as usize].to_owned()
}

pub fn value(numbers: &mut Numbers) -> String {
    ["x", "y"][numbers.below(2) as usize].to_owned()
}

/// One key, both, or (after "b") none.
pub fn end(numbers: &mut Numbers) -> Option<String> {
    let ends = [None, None, Some("c".to_owned()), Some("b".to_owned())];
    ends[numbers.below(4) as usize].clone()
}

fn put(numbers: &mut Numbers) -> Ask {
    Ask::Put {
        key: key(numbers),
        value: value(numbers),
        lease: i64::from(numbers.below(8) == 0),
    }
}

fn delete(numbers: &mut Numbers) -> Ask {
    Ask::Delete {
        key: key(numbers),
        end: end(numbers),
    }
}

fn read(numbers: &mut Numbers) -> Ask {
    Ask::Range {
        key: key(numbers),
        end: end(numbers),
        revision: 0,
        serializable: false,
    }
}

fn compare(numbers: &mut Numbers) -> Compare {
    let key = key(numbers);
    match numbers.below(3) {
        0 => Compare::Value {
            key,
            value: value(numbers),
        },
        1 => Compare::Modified {
            key,
            revision: [0, 2, 3][numbers.below(3) as usize],
        },
        _ => Compare::Version {
            key,
            version: numbers.below(3) as i64,
        },
    }
}

/// What a transaction does: one thing, a read and one thing, or both keys in one revision.
fn branch(numbers: &mut Numbers, depth: u64) -> Vec<Ask> {
    let one = |numbers: &mut Numbers| match numbers.below(4) {
        0 => delete(numbers),
        1 => read(numbers),
        _ => put(numbers),
    };
    match numbers.below(6) {
        0 => Vec::new(),
        1 => vec![one(numbers), read(numbers)],
        2 => ["b", "a"]
            .map(|key| Ask::Put {
                key: key.to_owned(),
                value: value(numbers),
                lease: 0,
            })
            .into(),
        3 if depth == 0 => vec![txn(numbers, 1)],
        _ => vec![one(numbers)],
    }
}

fn txn(numbers: &mut Numbers, depth: u64) -> Ask {
    Ask::Txn {
        compare: (0..numbers.below(3)).map(|_| compare(numbers)).collect(),
        success: branch(numbers, depth),
        failure: branch(numbers, depth),
    }
}

fn ask(numbers: &mut Numbers, now: i64) -> Ask {
    match numbers.below(10) {
        0..3 => put(numbers),
        3..5 => delete(numbers),
        5..7 => txn(numbers, 0),
        kind => Ask::Range {
            key: key(numbers),
            end: end(numbers),
            revision: match kind {
                7 => 1 + numbers.below(now as u64) as i64,
                _ => 0,
            },
            serializable: numbers.below(3) == 0,
        },
    }
}

/// Moments of operations are so far apart; between them calls and returns fall as they like, and meet.
const APART: u64 = 3;

/// A history of one to five operations of up to three clients.
pub fn right(numbers: &mut Numbers) -> Case {
    let (mut world, mut log) = (World::new(), Log::new());
    let mut history: Vec<Operation> = Vec::new();
    // Until when each client waits; the number under which it goes on.
    let mut clients = [(0, 0), (0, 10), (0, 20)];
    let (clients_used, mut moment) = (1 + numbers.below(3), 0);
    // In some histories most answers are lost: much is left to guess.
    let fates = [9, 9, 4][numbers.below(3) as usize];
    for _ in 0..1 + numbers.below(5) {
        let client = &mut clients[numbers.below(clients_used) as usize];
        let (free_ns, number) = *client;
        moment = free_ns.max(moment + [0, APART][numbers.below(2) as usize]);
        let call_ns = moment - numbers.below((moment - free_ns).min(2 * APART) + 1);
        let asked = ask(numbers, world.revision());
        let fate = numbers.below(fates);
        let answered_ns = moment + [0, 0, 1, APART, 2 * APART][numbers.below(5) as usize];
        // Nobody waits as long as what is lost may take.
        let return_ns = if fate < 3 { call_ns } else { answered_ns };
        let mut step = |world: &mut World| {
            let (events, answer) = world.step(&asked).expect("it asks for what is past");
            if !events.is_empty() {
                log.insert(answer.revision, events);
            }
            answer
        };
        let outcome = match fate {
            0 => Outcome::Failed("refused".into()),
            1 => Outcome::Unknown("lost before".into()),
            2 => {
                step(&mut world);
                Outcome::Unknown("lost after".into())
            }
            _ => {
                let serializable = matches!(
                    asked,
                    Ask::Range {
                        serializable: true,
                        ..
                    }
                );
                let least = match asked {
                    Ask::Range { revision, .. } => revision.max(1),
                    Ask::Put { .. } | Ask::Delete { .. } | Ask::Txn { .. } => 1,
                };
                let behind = numbers.below((world.revision() - least + 1) as u64) as i64;
                match serializable {
                    true => Outcome::Ok(step(&mut world.back_to(world.revision() - behind))),
                    false => Outcome::Ok(step(&mut world)),
                }
            }
        };
        *client = match outcome {
            Outcome::Unknown(_) => (return_ns, number + 1),
            Outcome::Ok(_) | Outcome::Failed(_) => (return_ns, number),
        };
        history.push(Operation {
            client: number,
            node: 1,
            call_ns,
            return_ns,
            ask: asked,
            outcome,
        });
    }
    shuffle(&mut history, numbers);
    Case { history, log }
}

/// Operations are recorded in no order but their clients' own.
fn shuffle(history: &mut [Operation], numbers: &mut Numbers) {
    for _ in 0..2 * history.len() {
        let at = numbers.below(history.len() as u64) as usize;
        if at > 0 && history[at - 1].client != history[at].client {
            history.swap(at - 1, at);
        }
    }
}
