//! One file per verb. Here: which one runs, on which runtime, with what to ask and print with.

pub mod completions;
pub mod config;
pub mod dev;
pub mod init;
pub mod namespaces;
pub mod nodes;
pub mod partitions;
pub mod serve;
pub mod status;

use crate::args::{Args, Global, Verb};
use crate::failure::{Failure, Result};
use crate::output::Output;
use crate::progress::Waiting;
use client::{Client, Options};
use std::future::Future;

/// What verbs that ask the cluster work with.
pub struct Session {
    /// The cluster.
    pub cluster: Client,
    /// The terminal or pipe.
    pub output: Output,
}

impl Session {
    /// Waits for an answer of the cluster.
    pub async fn ask<T>(
        &self,
        call: impl Future<Output = std::result::Result<T, client::Error>>,
    ) -> std::result::Result<T, client::Error> {
        let what = format!("an answer of {}", self.cluster.endpoints().join(" or "));
        Waiting::new().on(&what, call).await
    }
}

/// Runs a verb to its end.
pub fn run(args: Args) -> Result {
    let global = args.global;
    let output = Output::new(global.output);
    match args.verb {
        Verb::Serve(args) => serve::run(&args),
        Verb::Init(args) => init::run(&args, &output),
        Verb::Dev(args) => on_one_thread(dev::run(args))?,
        Verb::Config(args) => config::run(args, &output),
        Verb::Completions(args) => completions::run(&args),
        Verb::Status(args) => on_one_thread(status::run(session(&global, output)?, args))?,
        Verb::Nodes(args) => on_one_thread(nodes::run(session(&global, output)?, args))?,
        Verb::Partitions(args) => on_one_thread(partitions::run(session(&global, output)?, args))?,
        Verb::Namespaces(args) => on_one_thread(namespaces::run(session(&global, output)?, args))?,
    }
}

fn session(global: &Global, output: Output) -> Result<Session> {
    let options = Options {
        timeout: global.timeout,
        ..Options::default()
    };
    let cluster = Client::new(&global.endpoints, options)
        .map_err(|error| Failure::usage(error.to_string()).advise("see --endpoints in `holdfast --help`"))?;
    Ok(Session { cluster, output })
}

fn on_one_thread<T>(work: impl Future<Output = T>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(format!("cannot start a runtime: {error}")))?;
    Ok(runtime.block_on(work))
}
