//! Partitions, replicas, moves and hashes as tables.

use crate::output::{Mood, Output, Text, cell, size};
use client::v1;

fn leader(partition: &v1::Partition) -> Text {
    match partition.leader_node {
        0 => Text::mood("none", Mood::Bad),
        node => cell(node),
    }
}

fn brief(replica: &v1::Replica) -> String {
    let role = match replica.role.as_str() {
        "leader" => "L",
        "follower" => "F",
        "learner" => "l",
        _ => "-",
    };
    // Nothing is known of how far an absent one is.
    let known = role != "-" && replica.lag > 0;
    let lag = if known {
        format!("(-{})", replica.lag)
    } else {
        String::new()
    };
    format!("{}:{role}{lag}", replica.node)
}

fn by_node(partition: &v1::Partition) -> Vec<&v1::Replica> {
    let mut replicas: Vec<&v1::Replica> = partition.replicas.iter().collect();
    replicas.sort_by_key(|replica| (replica.node, replica.id));
    replicas
}

/// One line each.
pub fn partitions(output: &Output, all: &[v1::Partition]) -> String {
    let rows = all.iter().map(|partition| {
        let replicas: Vec<String> = by_node(partition).into_iter().map(brief).collect();
        vec![
            cell(if partition.id == 0 {
                "0 (meta)".to_owned()
            } else {
                partition.id.to_string()
            }),
            leader(partition),
            cell(partition.term),
            cell(partition.committed),
            cell(size(partition.size_bytes)),
            cell(replicas.join(" ")),
            cell(partition.namespaces.join(",")),
        ]
    });
    let header = [
        "ID",
        "LEADER",
        "TERM",
        "COMMITTED",
        "SIZE",
        "REPLICAS",
        "NAMESPACES",
    ];
    let table = output.table(&header, rows.collect());
    format!(
        "{table}\n\nREPLICAS are node:role, L leader, F follower, l learner, - absent, (-n) entries behind."
    )
}

/// One partition, a line per replica.
pub fn partition(output: &Output, partition: &v1::Partition) -> String {
    let head = output.table(
        &[
            "PARTITION",
            "LEADER",
            "TERM",
            "COMMITTED",
            "GENERATION",
            "SIZE",
            "NAMESPACES",
        ],
        vec![vec![
            cell(partition.id),
            leader(partition),
            cell(partition.term),
            cell(partition.committed),
            cell(partition.generation),
            cell(size(partition.size_bytes)),
            cell(partition.namespaces.join(",")),
        ]],
    );
    let rows = by_node(partition).into_iter().map(|replica| {
        let role = match replica.role.as_str() {
            "leader" | "follower" => Mood::Good,
            "learner" => Mood::Warn,
            _ => Mood::Bad,
        };
        vec![
            cell(replica.id),
            cell(replica.node),
            Text::mood(&replica.role, role),
            cell(replica.applied),
            cell(replica.lag),
            cell(if replica.wanted { "wanted" } else { "leaving" }),
        ]
    });
    let replicas = output.table(
        &["REPLICA", "NODE", "ROLE", "APPLIED", "LAG", "PLAN"],
        rows.collect(),
    );
    format!("{head}\n\n{replicas}")
}

/// What the balancer did or would do.
pub fn moves(output: &Output, answer: &v1::BalanceResponse, dry_run: bool) -> String {
    let frozen = if answer.frozen {
        "\nThe balancer is frozen: holdfast partitions thaw."
    } else {
        ""
    };
    if answer.moves.is_empty() {
        return format!("Leaders are spread evenly; nothing to move.{frozen}");
    }
    let rows = answer.moves.iter().map(|step| {
        let outcome = match (step.done, step.error.is_empty()) {
            (true, _) => Text::mood("done", Mood::Good),
            (false, false) => Text::mood(&step.error, Mood::Bad),
            (false, true) => cell(if dry_run { "planned" } else { "not done" }),
        };
        vec![
            cell(step.partition),
            cell(step.from_node),
            cell(step.to_node),
            cell(&step.reason),
            outcome,
        ]
    });
    let table = output.table(&["PARTITION", "FROM", "TO", "REASON", "OUTCOME"], rows.collect());
    format!("{table}{frozen}")
}

/// State hashes, a line per replica.
pub fn hashes<'a>(
    output: &Output,
    answers: impl IntoIterator<Item = (u32, &'a v1::CheckConsistencyResponse)>,
) -> String {
    let mut rows = Vec::new();
    for (partition, answer) in answers {
        for replica in &answer.replicas {
            let verdict = match (answer.equal, replica.error.is_empty()) {
                (true, _) => Text::mood("equal", Mood::Good),
                (false, true) => Text::mood("differs or unknown", Mood::Warn),
                (false, false) => Text::mood(&replica.error, Mood::Bad),
            };
            rows.push(vec![
                cell(partition),
                cell(answer.index),
                cell(replica.node),
                cell(replica.replica),
                cell(&replica.hash),
                verdict,
            ]);
        }
    }
    output.table(
        &["PARTITION", "INDEX", "NODE", "REPLICA", "HASH", "VERDICT"],
        rows,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Format;

    fn sample() -> v1::Partition {
        let replica = |id, node, role: &str, lag| v1::Replica {
            id,
            node,
            role: role.to_owned(),
            applied: 10 - lag,
            lag,
            wanted: true,
        };
        v1::Partition {
            id: 1,
            term: 4,
            replicas: vec![replica(2, 1, "leader", 0), replica(9, 3, "learner", 7)],
            namespaces: vec!["default".to_owned()],
            ..Default::default()
        }
    }

    #[test]
    fn a_missing_leader_and_lag_are_seen() {
        let output = Output::new(Format::Table);
        let text = partitions(&output, &[sample()]);
        assert!(text.contains("none") && text.contains("1:L 3:l(-7)"), "{text}");
        let text = partition(&output, &sample());
        assert!(text.contains("learner") && text.contains("wanted"), "{text}");
    }

    #[test]
    fn an_empty_plan_says_so() {
        let answer = v1::BalanceResponse {
            frozen: true,
            ..Default::default()
        };
        let text = moves(&Output::new(Format::Table), &answer, true);
        assert!(
            text.contains("nothing to move") && text.contains("thaw"),
            "{text}"
        );
    }
}
