//! `holdfast nodes`: list, add, drain, undrain, remove.

use super::Session;
use crate::failure::{Failure, Result};
use crate::output::{Mood, Output, Text, cell, time};
use crate::progress;
use clap::Subcommand;
use client::v1;
use serde::Serialize;
use types::NodeId;

/// Arguments.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  holdfast nodes                    who is there, and how the asked controller sees them
  holdfast nodes add                how to add a host
  holdfast nodes drain 3            move everything off node 3 while it serves
  holdfast nodes remove 3           forget node 3 for ever, once it is empty")]
pub struct Args {
    /// What to do; `list` if nothing is said.
    #[command(subcommand)]
    pub verb: Option<Nodes>,
}

/// What to do.
#[derive(Subcommand, Debug)]
pub enum Nodes {
    /// List the controllers, with what the answering one's failure detector thinks of them
    #[command(after_help = "\
Examples:
  holdfast nodes list
  holdfast nodes list -o json --endpoints 10.0.0.2:2379")]
    List,
    /// Print how to add a controller
    #[command(after_help = "\
Examples:
  holdfast nodes add --endpoints 10.0.0.1:2379")]
    Add,
    /// Move leaders and replicas off a controller while it serves
    #[command(after_help = "\
Examples:
  holdfast nodes drain 3                follow it to the end; Ctrl-C stops only the looking
  holdfast nodes drain 3 --detach       return once it has begun")]
    Drain {
        /// Its id.
        node: NodeId,
        /// Return once it has begun.
        #[arg(long)]
        detach: bool,
    },
    /// Let a drained controller take replicas and leaders again
    #[command(after_help = "\
Examples:
  holdfast nodes undrain 3")]
    Undrain {
        /// Its id.
        node: NodeId,
    },
    /// Forget an empty controller; its id is never used again
    #[command(after_help = "\
Examples:
  holdfast nodes drain 3
  holdfast nodes remove 3               then stop its process and wipe its data")]
    Remove {
        /// Its id.
        node: NodeId,
    },
}

#[derive(Serialize)]
struct List {
    nodes: Vec<v1::Node>,
}

#[derive(Serialize)]
struct Done {
    node: u64,
    state: &'static str,
    map_revision: u64,
}

#[derive(Serialize)]
struct HowToAdd {
    join: Vec<String>,
    command: String,
}

/// Does it.
pub async fn run(session: Session, args: Args) -> Result {
    match args.verb.unwrap_or(Nodes::List) {
        Nodes::List => list(&session).await,
        Nodes::Add => add(&session).await,
        Nodes::Drain { node, detach } => drain(&session, node, detach).await,
        Nodes::Undrain { node } => {
            let map_revision = session.ask(session.cluster.undrain_node(node)).await?;
            let done = Done {
                node: node.0,
                state: "active",
                map_revision,
            };
            session
                .output
                .done(&done, format!("node {node} takes replicas and leaders again"))
        }
        Nodes::Remove { node } => {
            let removed = session.ask(session.cluster.remove_node(node)).await;
            let map_revision = removed.map_err(|error| {
                let refused = error.kind == client::ErrorKind::Refused;
                let failure = Failure::from(error);
                if refused {
                    failure.advise(format!("empty it first: holdfast nodes drain {node}"))
                } else {
                    failure
                }
            })?;
            let done = Done {
                node: node.0,
                state: "removed",
                map_revision,
            };
            session.output.done(
                &done,
                format!("node {node} is removed; stop its process and wipe its data"),
            )
        }
    }
}

async fn list(session: &Session) -> Result {
    let list = List {
        nodes: session.ask(session.cluster.nodes()).await?,
    };
    session.output.show(&list, |output| table(output, &list.nodes))
}

fn table(output: &Output, nodes: &[v1::Node]) -> String {
    let rows = nodes.iter().map(row).collect();
    let header = [
        "ID", "NAME", "STATE", "DETECTOR", "HEARD", "LEADS", "REPLICAS", "CLIENT", "PEER", "HTTP", "NOTE",
    ];
    output.table(&header, rows)
}

fn row(node: &v1::Node) -> Vec<Text> {
    let state = match node.state.as_str() {
        "active" => Mood::Good,
        "draining" => Mood::Warn,
        _ => Mood::Plain,
    };
    let detector = match node.detector.as_str() {
        "alive" => Mood::Good,
        "silent" => Mood::Warn,
        "dead" => Mood::Bad,
        _ => Mood::Plain,
    };
    let mut notes = Vec::new();
    if node.starting {
        notes.push("starting".to_owned());
    }
    if !node.suspicion.is_empty() {
        notes.push(node.suspicion.clone());
    }
    if node.quick_elections > 0 {
        notes.push(format!("{} quick elections", node.quick_elections));
    }
    vec![
        cell(node.id),
        cell(&node.name),
        Text::mood(&node.state, state),
        Text::mood(&node.detector, detector),
        cell(if node.last_heard_ms == 0 {
            "now".to_owned()
        } else {
            format!("{} ago", time(node.last_heard_ms))
        }),
        cell(node.leaders),
        cell(node.replicas),
        cell(&node.client_address),
        cell(&node.peer_address),
        cell(&node.http_address),
        cell(notes.join("; ")),
    ]
}

async fn add(session: &Session) -> Result {
    let nodes = session.ask(session.cluster.nodes()).await?;
    let join: Vec<String> = nodes
        .iter()
        .filter(|node| node.state == "active")
        .map(|node| node.peer_address.clone())
        .collect();
    let command = format!(
        "holdfast serve --data-dir /var/lib/holdfast --listen-client HOST:2379 --listen-peer HOST:2380 \
         --listen-http HOST:2381 --join {}",
        join.join(",")
    );
    let how = HowToAdd { join, command };
    session.output.show(&how, |_| {
        format!(
            "Run this on the new host, with HOST an address of it that the other controllers reach:\n\n  {}\n\n\
             It is admitted at its first start and gets an id; `holdfast nodes` then shows it. Replicas come to it \
             where partitions are short of them, or by `holdfast partitions move` and `holdfast nodes drain`.",
            how.command
        )
    })
}

async fn drain(session: &Session, node: NodeId, detach: bool) -> Result {
    let stream = session.ask(session.cluster.drain_node(node)).await?;
    let sentence = if detach {
        format!("node {node} is being drained")
    } else {
        progress::follow(&format!("drain node {node}"), stream).await?;
        format!("node {node} holds nothing any more; stop it, or forget it: holdfast nodes remove {node}")
    };
    let map_revision = session.ask(session.cluster.status()).await?.map_revision;
    session.output.done(
        &Done {
            node: node.0,
            state: "draining",
            map_revision,
        },
        sentence,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Format;

    #[test]
    fn suspicion_is_in_the_table() {
        let node = v1::Node {
            id: 2,
            name: "node-2".to_owned(),
            state: "active".to_owned(),
            detector: "dead".to_owned(),
            last_heard_ms: 1500,
            starting: true,
            suspicion: "reset, then refused".to_owned(),
            quick_elections: 1,
            ..Default::default()
        };
        let text = table(&Output::new(Format::Table), &[node]);
        for part in [
            "node-2",
            "dead",
            "1.5 s ago",
            "starting; reset, then refused; 1 quick elections",
        ] {
            assert!(text.contains(part), "{part} is missing in\n{text}");
        }
    }
}
