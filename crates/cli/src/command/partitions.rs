//! `holdfast partitions`: list, show, transfer, balance, freeze, thaw, replicas, move, check.

mod table;

use super::Session;
use crate::failure::{Failure, Result};
use crate::progress::{self, Waiting};
use clap::Subcommand;
use client::v1;
use serde::Serialize;
use types::{NodeId, PartitionId, ReplicaId};

/// Arguments.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  holdfast partitions                          all partitions, leaders and replicas
  holdfast partitions transfer 5 --to 2        node 2 leads partition 5 from now on
  holdfast partitions balance --dry-run        what the balancer would do
  holdfast partitions freeze                   hold the balancer still during maintenance
  holdfast partitions move 5 --from 1 --to 4   move a replica, data and all
  holdfast partitions check                    compare the replicas' state hashes")]
pub struct Args {
    /// What to do; `list` if nothing is said.
    #[command(subcommand)]
    pub verb: Option<Partitions>,
}

/// What to do.
#[derive(Subcommand, Debug)]
pub enum Partitions {
    /// List partitions: leader, term, replicas
    #[command(after_help = "\
Examples:
  holdfast partitions list
  holdfast partitions list 1 2 -o json")]
    List {
        /// Only these; all if none is named.
        partitions: Vec<PartitionId>,
    },
    /// Show one partition, replica by replica
    #[command(after_help = "\
Examples:
  holdfast partitions show 5")]
    Show {
        /// Its id.
        partition: PartitionId,
    },
    /// Move a partition's leader to a node
    #[command(after_help = "\
Examples:
  holdfast partitions transfer 5 --to 2")]
    Transfer {
        /// Its id.
        partition: PartitionId,
        /// The node that is to lead.
        #[arg(long)]
        to: NodeId,
    },
    /// Spread leaders evenly over the nodes
    #[command(after_help = "\
Examples:
  holdfast partitions balance --dry-run
  holdfast partitions balance")]
    Balance {
        /// Only say what would be done.
        #[arg(long)]
        dry_run: bool,
    },
    /// Hold the balancer still
    #[command(after_help = "\
Examples:
  holdfast partitions freeze            until `holdfast partitions thaw`")]
    Freeze,
    /// Let the balancer go on
    #[command(after_help = "\
Examples:
  holdfast partitions thaw")]
    Thaw,
    /// Add a replica on a node
    #[command(after_help = "\
Examples:
  holdfast partitions add-replica 5 --node 4
  holdfast partitions add-replica 5 --node 4 --learner")]
    AddReplica {
        /// The partition.
        partition: PartitionId,
        /// Where.
        #[arg(long)]
        node: NodeId,
        /// It follows without a vote until promoted.
        #[arg(long)]
        learner: bool,
    },
    /// Give a learner a vote
    #[command(after_help = "\
Examples:
  holdfast partitions show 5            tells the replicas' ids
  holdfast partitions promote 5 --replica 107")]
    Promote {
        /// The partition.
        partition: PartitionId,
        /// The replica's id, as `show` prints it.
        #[arg(long)]
        replica: ReplicaId,
    },
    /// Take a replica away
    #[command(after_help = "\
Examples:
  holdfast partitions show 5            tells the replicas' ids
  holdfast partitions remove-replica 5 --replica 107")]
    RemoveReplica {
        /// The partition.
        partition: PartitionId,
        /// The replica's id, as `show` prints it.
        #[arg(long)]
        replica: ReplicaId,
    },
    /// Move a replica from one node to another while it serves
    #[command(after_help = "\
Examples:
  holdfast partitions move 5 --from 1 --to 4")]
    Move {
        /// The partition.
        partition: PartitionId,
        /// The node that gives it up.
        #[arg(long)]
        from: NodeId,
        /// The node that takes it.
        #[arg(long)]
        to: NodeId,
    },
    /// Compare the state hashes of a partition's replicas
    #[command(after_help = "\
Examples:
  holdfast partitions check 5
  holdfast partitions check -o json     all partitions")]
    Check {
        /// Which one; all if none is named.
        partition: Option<PartitionId>,
    },
}

#[derive(Serialize)]
struct List {
    partitions: Vec<v1::Partition>,
}

#[derive(Serialize)]
struct Transferred {
    partition: u32,
    leader_node: u64,
}

#[derive(Serialize)]
struct Frozen {
    frozen: bool,
    map_revision: u64,
}

#[derive(Serialize)]
struct Changed {
    partition: u32,
    generation: u64,
}

#[derive(Serialize)]
struct Moved {
    partition: u32,
    from_node: u64,
    to_node: u64,
}

#[derive(Serialize)]
struct Checked {
    partition: u32,
    #[serde(flatten)]
    answer: v1::CheckConsistencyResponse,
}

#[derive(Serialize)]
struct AllChecked {
    equal: bool,
    partitions: Vec<Checked>,
}

/// Does it.
pub async fn run(session: Session, args: Args) -> Result {
    let verb = args.verb.unwrap_or(Partitions::List {
        partitions: Vec::new(),
    });
    match verb {
        Partitions::List { partitions } => list(&session, &partitions).await,
        Partitions::Show { partition } => show(&session, partition).await,
        Partitions::Transfer { partition, to } => transfer(&session, partition, to).await,
        Partitions::Balance { dry_run } => balance(&session, dry_run).await,
        Partitions::Freeze => freeze(&session, true).await,
        Partitions::Thaw => freeze(&session, false).await,
        Partitions::AddReplica {
            partition,
            node,
            learner,
        } => {
            let added = session
                .ask(session.cluster.add_replica(partition, node, !learner))
                .await?;
            let role = if learner { "learner" } else { "voter" };
            let text = format!(
                "partition {partition}: replica {} on node {node} is to be a {role}",
                added.replica
            );
            session.output.done(&added, text)
        }
        Partitions::Promote { partition, replica } => {
            let generation = session
                .ask(session.cluster.promote_replica(partition, replica))
                .await?;
            let text = format!("partition {partition}: replica {replica} votes once it has caught up");
            session.output.done(
                &Changed {
                    partition: partition.0,
                    generation,
                },
                text,
            )
        }
        Partitions::RemoveReplica { partition, replica } => {
            let generation = session
                .ask(session.cluster.remove_replica(partition, replica))
                .await?;
            let text = format!("partition {partition}: replica {replica} is taken away");
            session.output.done(
                &Changed {
                    partition: partition.0,
                    generation,
                },
                text,
            )
        }
        Partitions::Move { partition, from, to } => move_replica(&session, partition, from, to).await,
        Partitions::Check {
            partition: Some(partition),
        } => check(&session, partition).await,
        Partitions::Check { partition: None } => check_all(&session).await,
    }
}

async fn list(session: &Session, which: &[PartitionId]) -> Result {
    let list = List {
        partitions: session.ask(session.cluster.partitions(which)).await?,
    };
    session
        .output
        .show(&list, |output| table::partitions(output, &list.partitions))
}

async fn show(session: &Session, partition: PartitionId) -> Result {
    let found = session.ask(session.cluster.partitions(&[partition])).await?;
    let Some(found) = found.into_iter().next() else {
        return Err(Failure::failed(format!("partition {partition} does not exist"))
            .advise("`holdfast partitions` lists those that do"));
    };
    session
        .output
        .show(&found, |output| table::partition(output, &found))
}

async fn transfer(session: &Session, partition: PartitionId, to: NodeId) -> Result {
    let leader = session
        .ask(session.cluster.transfer_leader(partition, to))
        .await?;
    let done = Transferred {
        partition: partition.0,
        leader_node: leader.0,
    };
    session
        .output
        .done(&done, format!("partition {partition} is led by node {leader}"))?;
    if leader == to {
        return Ok(());
    }
    Err(Failure::failed(format!(
        "partition {partition} is led by node {leader}, not by node {to}"
    ))
    .advise(format!(
        "see whether node {to} keeps up: holdfast partitions show {partition}"
    )))
}

async fn balance(session: &Session, dry_run: bool) -> Result {
    let answer = session.ask(session.cluster.balance(dry_run)).await?;
    session
        .output
        .show(&answer, |output| table::moves(output, &answer, dry_run))?;
    let failed = answer.moves.iter().filter(|step| !step.error.is_empty()).count();
    if failed > 0 {
        return Err(
            Failure::failed(format!("{failed} of {} moves failed", answer.moves.len()))
                .advise("the balancer tries again by itself unless it is frozen"),
        );
    }
    Ok(())
}

async fn freeze(session: &Session, frozen: bool) -> Result {
    let map_revision = session.ask(session.cluster.set_frozen(frozen)).await?;
    let text = if frozen {
        "the balancer holds still: holdfast partitions thaw"
    } else {
        "the balancer goes on"
    };
    session.output.done(&Frozen { frozen, map_revision }, text)
}

async fn move_replica(session: &Session, partition: PartitionId, from: NodeId, to: NodeId) -> Result {
    let stream = session
        .ask(session.cluster.move_replica(partition, from, to))
        .await?;
    progress::follow(&format!("move partition {partition}"), stream).await?;
    let done = Moved {
        partition: partition.0,
        from_node: from.0,
        to_node: to.0,
    };
    session.output.done(
        &done,
        format!("partition {partition} moved from node {from} to node {to}"),
    )
}

async fn check(session: &Session, partition: PartitionId) -> Result {
    let answer = session.ask(session.cluster.check_consistency(partition)).await?;
    let equal = answer.equal;
    let checked = Checked {
        partition: partition.0,
        answer,
    };
    session.output.show(&checked, |output| {
        table::hashes(output, [(partition.0, &checked.answer)])
    })?;
    verdict(equal)
}

async fn check_all(session: &Session) -> Result {
    let all = session.ask(session.cluster.partitions(&[])).await?;
    let mut partitions = Vec::new();
    let mut waiting = Waiting::new();
    for partition in &all {
        let what = format!(
            "the hashes of partition {}, {} of {} are compared",
            partition.id,
            partitions.len(),
            all.len()
        );
        let asked = session.cluster.check_consistency(PartitionId(partition.id));
        partitions.push(Checked {
            partition: partition.id,
            answer: waiting.on(&what, asked).await?,
        });
    }
    let equal = partitions.iter().all(|checked| checked.answer.equal);
    let all = AllChecked { equal, partitions };
    session.output.show(&all, |output| {
        table::hashes(
            output,
            all.partitions
                .iter()
                .map(|checked| (checked.partition, &checked.answer)),
        )
    })?;
    verdict(equal)
}

fn verdict(equal: bool) -> Result {
    if equal {
        return Ok(());
    }
    Err(Failure::failed("the replicas could not be shown to be equal").advise(
        "a replica that does not answer is named above; two different hashes mean damage: keep the data directories",
    ))
}
