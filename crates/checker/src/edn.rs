//! Histories as Jepsen writes them: a map a line in EDN, one for each call and one for each return, in order of time, so
//! that any other judge can look at them too; and back from there.
//!
//! What was asked and answered keeps its shape: the name of the variant becomes `:f`, what it carries `:value`. Where
//! an answer carries something it stands in `:value`, and what was asked in `:ask`. A question to one of many things is
//! `[key value]`, as Jepsen's independent keys are; a transaction is `:txn`, its steps `[:name key value]`. Other judges
//! need no more. What they need not, and the way back does: `:answer` is the answer whole, `:place` the operation's place
//! in the history. What a judge has to know besides is the last map, which is no client's (`:process :nemesis`); that it
//! is there shows that nothing was cut off.

mod history;
mod reader;
mod writer;

pub use history::{Event, Kind, Unreadable, events, read, workload};
pub use reader::parse;
pub use writer::{edn, write};

/// The `:f` of the last map.
const BESIDE: &str = "beside";
/// The `:f` of a transaction.
const TXN: &str = "txn";

/// Whether a name can stand as a keyword and be told from other keys when it is read again.
fn is_plain(name: &str) -> bool {
    let mut bytes = name.bytes();
    let first = bytes.next().is_some_and(|byte| byte.is_ascii_lowercase());
    first && bytes.all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}

#[cfg(test)]
mod tests;
