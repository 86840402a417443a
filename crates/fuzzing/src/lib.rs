//! What comes from outside, made up: each target takes any bytes and does with them what the program does with what it
//! reads from clients, peers, its disk and its operator. A target ends, or it has found a defect.
//!
//! Two ways to run the same targets ([RFC 0016](../../../docs/rfc/0016-fuzzing.md)):
//! - [`plain`]: an ordinary build and a million mutations of the seeds, the same in each run; a part of `make test`.
//! - `fuzz-targets`: guided by what code an input reached; `make fuzz-targets`, and without an end.
//!
//! What was found is kept in `found/TARGET/`, what reached new code in `corpus/TARGET/`; both are run by `make test`.

pub mod input;
pub mod mutate;
pub mod plain;
pub mod target;

pub use target::{TARGETS, Target};
