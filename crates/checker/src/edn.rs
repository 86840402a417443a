//! Histories as Jepsen writes them: a map a line in EDN, one for each call and one for each return, in order of time, so
//! that any other judge can look at them too; and back from there.
//!
//! What was asked and answered keeps its shape: the name of the variant becomes `:f`, what it carries `:value`. Where
//! an answer carries something it stands in `:value`, and what was asked in `:ask`. Other judges need no more. What they
//! need not, and the way back does: `:answer` is the answer whole, `:place` the operation's place in the history.

mod history;
mod reader;
mod writer;

pub use history::{Event, Kind, Unreadable, events, read};
pub use reader::parse;
pub use writer::{edn, write};

/// Whether a name can stand as a keyword and be told from other keys when it is read again.
fn is_plain(name: &str) -> bool {
    let mut bytes = name.bytes();
    let first = bytes.next().is_some_and(|byte| byte.is_ascii_lowercase());
    first && bytes.all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}

#[cfg(test)]
mod tests;
