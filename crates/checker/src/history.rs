//! Histories, and their form as a file: JSON lines. The first says what the file is; the last holds what a judge has to
//! know besides, and that it is there shows that nothing was cut off.
//!
//! *Outcomes.* `Failed` is only for what was refused before it could be proposed, so that it certainly never happened.
//! A time-out, a lost connection, an answer that could not be read: all of that is `Unknown`, and may have happened, may
//! happen yet, or never.

use std::io::{self, BufRead, Write};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Format of the file that this build reads and writes.
pub const FORMAT: u32 = 2;

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

/// A question to one of many things of a kind, each of which is judged alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Of<A> {
    /// Which.
    pub key: String,
    /// What it is asked.
    pub ask: A,
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

/// Everything that a judge needs, as a file keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept<A, R, B> {
    /// Of which workload.
    pub workload: String,
    /// What clients saw, in the order in which they finished.
    pub operations: Vec<Operation<A, R>>,
    /// What has to be known besides.
    pub beside: B,
}

/// First line of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Header {
    format: u32,
    workload: String,
}

/// Last line of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct End<B> {
    beside: B,
}

/// How the last line begins, and no other.
const END: &str = "{\"beside\":";

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
pub fn write<A: Serialize, R: Serialize, B: Serialize>(
    out: &mut impl Write,
    workload: &str,
    history: &[Operation<A, R>],
    beside: &B,
) -> io::Result<()> {
    let header = Header {
        format: FORMAT,
        workload: workload.to_owned(),
    };
    line(out, &header)?;
    history.iter().try_for_each(|operation| line(out, operation))?;
    line(out, &End { beside })
}

fn line(out: &mut impl Write, value: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *out, value)?;
    out.write_all(b"\n")
}

/// Reads what [`write()`] wrote. A file that was cut off, as by a crash, is an error that says so.
pub fn read<A: DeserializeOwned, R: DeserializeOwned, B: DeserializeOwned>(
    input: impl BufRead,
) -> io::Result<Kept<A, R, B>> {
    let mut lines = (1..).zip(input.lines());
    let first = lines.next().map(|(_, line)| line).transpose()?;
    let header = header(first.as_deref())?;
    let (mut operations, mut last) = (Vec::new(), 1);
    while let Some((number, line)) = lines.next() {
        let line = line?;
        if !line.starts_with(END) {
            operations.push(parse(number, &line)?);
            last = number;
            continue;
        }
        let End { beside } = parse(number, &line)?;
        return match lines.next() {
            Some(_) => Err(bad(number + 1, "something stands after the end of the history")),
            None => Ok(Kept {
                workload: header.workload,
                operations,
                beside,
            }),
        };
    }
    Err(bad(last + 1, "the history is cut off: its end is missing"))
}

/// Of which workload a file is.
pub fn workload(text: &str) -> io::Result<String> {
    header(text.lines().next()).map(|header| header.workload)
}

fn header(first: Option<&str>) -> io::Result<Header> {
    let first = first.ok_or_else(|| bad(1, "an empty file is no history"))?;
    let header: Header = parse(1, first)?;
    match header.format {
        FORMAT => Ok(header),
        format => Err(bad(
            1,
            format!("the history has format {format}, this build reads {FORMAT}"),
        )),
    }
}

fn parse<T: DeserializeOwned>(number: usize, line: &str) -> io::Result<T> {
    serde_json::from_str(line).map_err(|error| bad(number, placed(&error)))
}

/// An error in a text of one line.
fn placed(error: &serde_json::Error) -> String {
    error.to_string().replace(" at line 1 column ", " at column ")
}

fn bad(number: usize, text: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("line {number}: {text}"))
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
        write(&mut file, "register", &history, &[5, 6]).expect("memory takes it");
        let wanted = Kept {
            workload: "register".to_owned(),
            operations: history,
            beside: vec![5, 6],
        };
        let read = |file: &[u8]| read::<String, u64, Vec<u64>>(file);
        assert_eq!(read(&file).expect("readable"), wanted);
        let refused = |file: &[u8], wanted: &str| {
            let error = read(file).expect_err(wanted).to_string();
            assert!(error.starts_with(wanted), "{error}");
        };
        let lines: Vec<&[u8]> = file.split_inclusive(|byte| *byte == b'\n').collect();
        refused(&file[..file.len() - 4], "line 5: ");
        refused(&lines[..4].concat(), "line 5: the history is cut off");
        refused(&lines[..1].concat(), "line 2: the history is cut off");
        refused(&[lines[0], &lines[1][9..]].concat(), "line 2: ");
        refused(&[&file[..], lines[1]].concat(), "line 6: something stands after");
        refused(
            b"{\"format\":9,\"workload\":\"x\"}\n",
            "line 1: the history has format 9",
        );
        refused(b"", "line 1: an empty file");
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
