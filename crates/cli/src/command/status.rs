//! `holdfast status`: the cluster at a glance.

use super::Session;
use crate::failure::{Failure, Result};
use crate::output::{Mood, Output, Text, cell};
use client::v1;

/// Arguments.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  holdfast status
  holdfast status -o json | jq .partitions_with_leader
  holdfast status --check || page-somebody")]
pub struct Args {
    /// End with status 1 if anything is not as it should be.
    #[arg(long)]
    pub check: bool,
}

/// Asks and prints.
pub async fn run(session: Session, args: Args) -> Result {
    let status = session.ask(session.cluster.status()).await?;
    session.output.show(&status, |output| table(output, &status))?;
    if args.check && !healthy(&status) {
        return Err(Failure::failed("the cluster is not as it should be")
            .advise("see the problems above, and `holdfast nodes` and `holdfast partitions`"));
    }
    Ok(())
}

fn healthy(status: &v1::StatusResponse) -> bool {
    status.problems.is_empty()
        && status.nodes_reachable == status.nodes
        && status.partitions_with_leader == status.partitions
        && status.partitions_under_replicated == 0
}

fn share(part: u32, whole: u32) -> Text {
    let mood = if part == whole { Mood::Good } else { Mood::Bad };
    Text::mood(format!("{part} of {whole}"), mood)
}

fn table(output: &Output, status: &v1::StatusResponse) -> String {
    let under = status.partitions_under_replicated;
    let mut rows = vec![
        vec![cell("cluster"), cell(format!("{:016x}", status.cluster_id))],
        vec![cell("answered by"), cell(format!("node {}", status.node_id))],
        vec![
            cell("version"),
            cell(format!(
                "{} (cluster format {})",
                status.version, status.cluster_version
            )),
        ],
        vec![
            cell("nodes reachable"),
            share(status.nodes_reachable, status.nodes),
        ],
        vec![
            cell("partitions with leader"),
            share(status.partitions_with_leader, status.partitions),
        ],
        vec![
            cell("partitions short of replicas"),
            Text::mood(under, if under == 0 { Mood::Good } else { Mood::Warn }),
        ],
        vec![
            cell("balancer"),
            cell(if status.frozen { "frozen" } else { "on" }),
        ],
        vec![cell("map revision"), cell(status.map_revision)],
    ];
    for problem in &status.problems {
        rows.push(vec![Text::mood("problem", Mood::Bad), cell(problem)]);
    }
    let verdict = match healthy(status) {
        true => Text::mood("healthy", Mood::Good),
        false => Text::mood("needs a look", Mood::Bad),
    };
    rows.insert(0, vec![cell("state"), verdict]);
    output.table(&["CLUSTER", ""], rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Format;

    #[test]
    fn problems_are_shown_and_spoil_health() {
        let mut status = v1::StatusResponse {
            nodes: 3,
            nodes_reachable: 3,
            partitions: 17,
            partitions_with_leader: 17,
            ..Default::default()
        };
        assert!(healthy(&status));
        status.problems.push("node 2 is dead".to_owned());
        assert!(!healthy(&status));
        let text = table(&Output::new(Format::Table), &status);
        assert!(
            text.contains("17 of 17") && text.contains("node 2 is dead"),
            "{text}"
        );
    }
}
