//! The targets. Each takes any bytes; what it must find wrong, it finds by an assertion.

mod checkpoints;
mod commands;
mod config;
mod entries;
mod frames;
mod identity;
mod messages;
mod queries;
mod ranges;
mod world;

/// One of them.
pub struct Target {
    /// Its name, on the command line and as a folder.
    pub name: &'static str,
    /// One execution.
    pub run: fn(&[u8]),
    /// Inputs to begin with, which show every kind that there is.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// All of them.
pub const TARGETS: &[Target] = &[
    Target {
        name: "checkpoints",
        run: checkpoints::run,
        seeds: checkpoints::seeds,
    },
    Target {
        name: "commands",
        run: commands::run,
        seeds: commands::seeds,
    },
    Target {
        name: "config",
        run: config::run,
        seeds: config::seeds,
    },
    Target {
        name: "entries",
        run: entries::run,
        seeds: entries::seeds,
    },
    Target {
        name: "frames",
        run: frames::run,
        seeds: frames::seeds,
    },
    Target {
        name: "identity",
        run: identity::run,
        seeds: identity::seeds,
    },
    Target {
        name: "messages",
        run: messages::run,
        seeds: messages::seeds,
    },
    Target {
        name: "queries",
        run: queries::run,
        seeds: queries::seeds,
    },
    Target {
        name: "ranges",
        run: ranges::run,
        seeds: ranges::seeds,
    },
];

/// The target of that name.
pub fn named(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}
