//! `holdfast namespaces`: list, create, set.

use super::Session;
use crate::args::{bytes, duration};
use crate::failure::{Failure, Result};
use crate::output::{Output, cell, size, time};
use clap::Subcommand;
use client::{NewNamespace, v1};
use serde::Serialize;
use std::time::Duration;

/// Arguments.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  holdfast namespaces                                    all, with revisions and sizes
  holdfast namespaces create team-a --quota 1GiB
  holdfast namespaces set team-a --retain-revisions 10000 --retain 30m

etcd clients choose a namespace by the request metadata `holdfast-namespace`; without it they speak to `default`.")]
pub struct Args {
    /// What to do; `list` if nothing is said.
    #[command(subcommand)]
    pub verb: Option<Namespaces>,
}

/// What to do.
#[derive(Subcommand, Debug)]
pub enum Namespaces {
    /// List namespaces, with revisions and sizes
    #[command(after_help = "\
Examples:
  holdfast namespaces list
  holdfast namespaces list -o json")]
    List,
    /// Create a namespace; refused if it exists
    #[command(after_help = "\
Examples:
  holdfast namespaces create team-a
  holdfast namespaces create team-a --quota 1GiB --retain 30m")]
    Create {
        /// Its name.
        name: String,
        /// Its settings.
        #[command(flatten)]
        settings: Settings,
    },
    /// Change a namespace's settings; those not named stay
    #[command(after_help = "\
Examples:
  holdfast namespaces set team-a --quota 2GiB
  holdfast namespaces set team-a --retain-revisions 10000 --retain 30m")]
    Set {
        /// Its name.
        name: String,
        /// Its settings.
        #[command(flatten)]
        settings: Settings,
    },
}

/// Settings of a namespace.
#[derive(clap::Args, Debug, Clone)]
pub struct Settings {
    /// Bytes of keys and values it may hold, such as 512MiB.
    #[arg(long, value_parser = bytes)]
    quota: Option<u64>,
    /// Revisions kept before automatic compaction.
    #[arg(long)]
    retain_revisions: Option<i64>,
    /// History kept before automatic compaction, such as 30m.
    #[arg(long, value_parser = duration)]
    retain: Option<Duration>,
}

#[derive(Serialize)]
struct List {
    namespaces: Vec<v1::Namespace>,
}

/// Does it.
pub async fn run(session: Session, args: Args) -> Result {
    match args.verb.unwrap_or(Namespaces::List) {
        Namespaces::List => {
            let list = List {
                namespaces: session.ask(session.cluster.namespaces()).await?,
            };
            session
                .output
                .show(&list, |output| table(output, &list.namespaces))
        }
        Namespaces::Create { name, settings } => {
            let mut new = settings.over(NewNamespace::named(name));
            new.create_only = true;
            put(&session, new, "is created").await
        }
        Namespaces::Set { name, settings } => {
            let all = session.ask(session.cluster.namespaces()).await?;
            let Some(old) = all.into_iter().find(|old| old.name == name) else {
                return Err(Failure::failed(format!("namespace {name:?} does not exist"))
                    .advise(format!("create it: holdfast namespaces create {name}")));
            };
            let now = NewNamespace {
                name: old.name,
                quota_bytes: old.quota_bytes,
                retain_revisions: old.retain_revisions,
                retain_ms: old.retain_ms,
                create_only: false,
            };
            put(&session, settings.over(now), "is set").await
        }
    }
}

impl Settings {
    fn over(&self, base: NewNamespace) -> NewNamespace {
        NewNamespace {
            quota_bytes: self.quota.unwrap_or(base.quota_bytes),
            retain_revisions: self.retain_revisions.unwrap_or(base.retain_revisions),
            retain_ms: self
                .retain
                .map_or(base.retain_ms, |retain| retain.as_millis() as u64),
            ..base
        }
    }
}

async fn put(session: &Session, new: NewNamespace, what: &str) -> Result {
    let done = session.ask(session.cluster.put_namespace(new)).await?;
    let text = format!("namespace {} {what}, in partition {}", done.name, done.partition);
    session.output.done(&done, text)
}

fn table(output: &Output, namespaces: &[v1::Namespace]) -> String {
    let rows = namespaces.iter().map(|namespace| {
        vec![
            cell(namespace.id),
            cell(&namespace.name),
            cell(namespace.partition),
            cell(namespace.keys),
            cell(namespace.revision),
            cell(namespace.compact_revision),
            cell(size(namespace.live_bytes)),
            cell(size(namespace.total_bytes)),
            cell(if namespace.quota_bytes == 0 {
                "default".to_owned()
            } else {
                size(namespace.quota_bytes)
            }),
            cell(if namespace.retain_ms == 0 {
                "default".to_owned()
            } else {
                time(namespace.retain_ms)
            }),
        ]
    });
    let header = [
        "ID",
        "NAME",
        "PARTITION",
        "KEYS",
        "REVISION",
        "COMPACTED",
        "LIVE",
        "WITH HISTORY",
        "QUOTA",
        "RETAIN",
    ];
    output.table(&header, rows.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_not_named_stay() {
        let base = NewNamespace {
            quota_bytes: 5,
            retain_revisions: 6,
            retain_ms: 7,
            ..NewNamespace::named("a")
        };
        let settings = Settings {
            quota: None,
            retain_revisions: Some(9),
            retain: None,
        };
        assert_eq!(
            settings.over(base.clone()),
            NewNamespace {
                retain_revisions: 9,
                ..base
            }
        );
    }
}
