//! How a verb fails: a sentence, what to do about it, and the exit status that is true to the outcome.

use client::ErrorKind;
use std::fmt;
use std::process::ExitCode;

/// The outcome, as scripts see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// 1: it was not done.
    Failed,
    /// 2: the arguments or the configuration are wrong. (clap's own errors use the same.)
    Usage,
    /// 3: nobody could be asked, or nobody knows whether it was done.
    Unavailable,
}

impl Outcome {
    /// The exit status.
    pub fn code(self) -> u8 {
        match self {
            Outcome::Failed => 1,
            Outcome::Usage => 2,
            Outcome::Unavailable => 3,
        }
    }
}

/// Why a verb did not succeed.
#[derive(Debug)]
pub struct Failure {
    outcome: Outcome,
    message: String,
    advice: String,
}

/// What verbs return.
pub type Result<T = ()> = std::result::Result<T, Failure>;

impl Failure {
    /// It was not done.
    pub fn failed(message: impl Into<String>) -> Failure {
        Failure {
            outcome: Outcome::Failed,
            message: message.into(),
            advice: String::new(),
        }
    }

    /// The arguments or the configuration are wrong.
    pub fn usage(message: impl Into<String>) -> Failure {
        Failure {
            outcome: Outcome::Usage,
            message: message.into(),
            advice: String::new(),
        }
    }

    /// Nobody could be asked.
    pub fn unavailable(message: impl Into<String>) -> Failure {
        Failure {
            outcome: Outcome::Unavailable,
            message: message.into(),
            advice: String::new(),
        }
    }

    /// Says what to do about it.
    pub fn advise(mut self, advice: impl Into<String>) -> Failure {
        self.advice = advice.into();
        self
    }

    /// The exit status.
    #[cfg(test)]
    pub fn outcome(&self) -> Outcome {
        self.outcome
    }

    /// Prints to stderr and gives the exit status.
    pub fn report(&self) -> ExitCode {
        eprintln!("error: {self}");
        if !self.advice.is_empty() {
            eprintln!("hint: {}", self.advice);
        }
        ExitCode::from(self.outcome.code())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.message.fmt(f)
    }
}

impl From<client::Error> for Failure {
    fn from(error: client::Error) -> Failure {
        let outcome = match error.kind {
            ErrorKind::Unavailable | ErrorKind::Unknown | ErrorKind::Retry | ErrorKind::SessionExpired => {
                Outcome::Unavailable
            }
            ErrorKind::Invalid
            | ErrorKind::NotFound
            | ErrorKind::Refused
            | ErrorKind::Denied
            | ErrorKind::Unsupported
            | ErrorKind::Corrupt
            | ErrorKind::Internal => Outcome::Failed,
        };
        Failure {
            outcome,
            message: error.to_string(),
            advice: error.kind.advice().to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_have_their_codes() {
        for (failure, code) in [
            (Failure::failed("x"), 1),
            (Failure::usage("x"), 2),
            (Failure::unavailable("x"), 3),
        ] {
            assert_eq!(failure.outcome().code(), code);
        }
    }
}
