//! Histories, and their form as a file: JSON lines, the first of which says what the file is.
//!
//! *Outcomes.* `Failed` is only for what was refused before it could be proposed, so that it certainly never happened.
//! A time-out, a lost connection, an answer that could not be read: all of that is `Unknown`, and may have happened, may
//! happen yet, or never.

use std::io::{self, BufRead, Write};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Format of the file that this build reads and writes.
pub const FORMAT: u32 = 1;

/// What came of an operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome<R> {
    /// This was the answer.
    Ok(R),
    /// It was refused and never happened.
    Failed(String),
    /// Nobody knows.
    Unknown(String),
}

/// One operation of one client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation<A, R> {
    /// Who asked. A client waits for its answer; after an unknown outcome it goes on under another number.
    pub client: u64,
    /// Which node was asked; 0 if that does not matter.
    pub node: u64,
    /// When it was sent, in nanoseconds since the history began.
    pub call_ns: u64,
    /// When the client had the answer, or stopped waiting.
    pub return_ns: u64,
    /// What was asked.
    pub ask: A,
    /// What came of it.
    pub outcome: Outcome<R>,
}

impl<A, R: Clone> Operation<A, R> {
    /// The same, as if something else had been asked.
    pub fn asking<B>(&self, ask: B) -> Operation<B, R> {
        Operation {
            client: self.client,
            node: self.node,
            call_ns: self.call_ns,
            return_ns: self.return_ns,
            ask,
            outcome: self.outcome.clone(),
        }
    }
}

impl<A, R> Operation<A, R> {
    /// The answer, if there was one.
    pub fn answer(&self) -> Option<&R> {
        match &self.outcome {
            Outcome::Ok(answer) => Some(answer),
            Outcome::Failed(_) | Outcome::Unknown(_) => None,
        }
    }

    /// Whether nobody knows what came of it.
    pub fn is_unknown(&self) -> bool {
        matches!(self.outcome, Outcome::Unknown(_))
    }

    /// Whether it certainly never happened.
    pub fn is_failed(&self) -> bool {
        matches!(self.outcome, Outcome::Failed(_))
    }
}

/// First line of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Header {
    format: u32,
    workload: String,
}

/// What cannot be judged, since no client could have seen it. The recorder is broken, not the system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Malformed {
    /// Which operation, from 0.
    pub at: usize,
    /// What is wrong.
    pub text: String,
}

impl std::fmt::Display for Malformed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "operation {}: {}", self.at, self.text)
    }
}

impl std::error::Error for Malformed {}

/// Checks that each client waits for its answers, and that time goes forward.
pub fn check_shape<A, R>(history: &[Operation<A, R>]) -> Result<(), Malformed> {
    let mut order: Vec<usize> = (0..history.len()).collect();
    order.sort_by_key(|at| (history[*at].client, history[*at].call_ns, *at));
    for at in &order {
        if history[*at].return_ns < history[*at].call_ns {
            return Err(Malformed {
                at: *at,
                text: "the answer came before the question".into(),
            });
        }
    }
    for pair in order.windows(2) {
        let (before, after) = (&history[pair[0]], &history[pair[1]]);
        if before.client != after.client {
            continue;
        }
        let text = if before.is_unknown() {
            "its client has an operation of unknown outcome and must not go on"
        } else if after.call_ns < before.return_ns {
            "its client still waits for another answer"
        } else {
            continue;
        };
        return Err(Malformed {
            at: pair[1],
            text: text.into(),
        });
    }
    Ok(())
}

/// Writes a history as JSON lines.
pub fn write<A: Serialize, R: Serialize>(
    out: &mut impl Write,
    workload: &str,
    history: &[Operation<A, R>],
) -> io::Result<()> {
    let header = Header {
        format: FORMAT,
        workload: workload.to_owned(),
    };
    line(out, &header)?;
    history.iter().try_for_each(|operation| line(out, operation))
}

fn line(out: &mut impl Write, value: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *out, value)?;
    out.write_all(b"\n")
}

/// Reads what [`write()`] wrote. A last line that was cut off, as by a crash, is an error that says so.
pub fn read<A: DeserializeOwned, R: DeserializeOwned>(
    input: impl BufRead,
) -> io::Result<(String, Vec<Operation<A, R>>)> {
    let bad = |number: usize, text: String| {
        io::Error::new(io::ErrorKind::InvalidData, format!("line {number}: {text}"))
    };
    let mut lines = input.lines().enumerate();
    let Some((_, first)) = lines.next() else {
        return Err(bad(1, "an empty file is no history".into()));
    };
    let header: Header = serde_json::from_str(&first?).map_err(|error| bad(1, error.to_string()))?;
    if header.format != FORMAT {
        let text = format!(
            "the history has format {}, this build reads {FORMAT}",
            header.format
        );
        return Err(bad(1, text));
    }
    let operations =
        lines.map(|(at, line)| serde_json::from_str(&line?).map_err(|error| bad(at + 1, error.to_string())));
    Ok((header.workload, operations.collect::<io::Result<_>>()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operation(client: u64, call_ns: u64, return_ns: u64, outcome: Outcome<u64>) -> Operation<String, u64> {
        Operation {
            client,
            node: 1,
            call_ns,
            return_ns,
            ask: "read".into(),
            outcome,
        }
    }

    #[test]
    fn a_history_survives_its_file() {
        let history = vec![
            operation(1, 0, 5, Outcome::Ok(7)),
            operation(2, 1, 9, Outcome::Unknown("timed out".into())),
            operation(1, 6, 7, Outcome::Failed("too large".into())),
        ];
        let mut file = Vec::new();
        write(&mut file, "register", &history).expect("memory takes it");
        let read_back: (String, Vec<Operation<String, u64>>) = read(&file[..]).expect("readable");
        assert_eq!(read_back, ("register".to_owned(), history));
        let cut = &file[..file.len() - 4];
        let error = read::<String, u64>(cut).expect_err("the last line is cut");
        assert!(error.to_string().starts_with("line 4: "), "{error}");
        let error =
            read::<String, u64>(&b"{\"format\":9,\"workload\":\"x\"}\n"[..]).expect_err("a newer one");
        assert!(error.to_string().contains("format 9"), "{error}");
        assert!(read::<String, u64>(&b""[..]).is_err());
    }

    #[test]
    fn a_client_does_one_thing_at_a_time() {
        let check = |history: &[Operation<String, u64>]| check_shape(history).map_err(|wrong| wrong.at);
        let ok = || Outcome::Ok(1);
        assert_eq!(
            check(&[operation(1, 5, 6, ok()), operation(1, 0, 5, ok())]),
            Ok(())
        );
        assert_eq!(
            check(&[operation(1, 0, 5, ok()), operation(2, 3, 4, ok())]),
            Ok(())
        );
        assert_eq!(
            check(&[operation(1, 0, 5, ok()), operation(1, 4, 6, ok())]),
            Err(1)
        );
        assert_eq!(check(&[operation(1, 5, 4, ok())]), Err(0));
        let unknown = operation(1, 0, 5, Outcome::Unknown(String::new()));
        assert_eq!(check(&[unknown, operation(1, 8, 9, ok())]), Err(1));
    }
}
