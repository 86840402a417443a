//! One fault: where it is, what it is, and what to do instead.

use std::fmt;

/// One fault of the tree.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    file: String,
    line: usize,
    what: String,
    instead: String,
}

impl Finding {
    /// `line` counts from 1; 0 means the whole file.
    pub fn new(file: &str, line: usize, what: impl Into<String>, instead: impl Into<String>) -> Finding {
        Finding {
            file: file.to_string(),
            line,
            what: what.into(),
            instead: instead.into(),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}:{}: {}; instead: {}",
            self.file,
            self.line.max(1),
            self.what,
            self.instead
        )
    }
}
