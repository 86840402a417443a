//! Whether a cluster is ready: every running node answers, knows the others, and every partition has a leader.

use client::{Client, Options, v1};
use std::time::Duration;

/// How long one node may take to answer.
const PATIENCE: Duration = Duration::from_secs(1);

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// Not yet, and why.
    No(String),
    /// Each partition has a leader; so many are still short of replicas.
    Leads {
        /// Partitions with fewer caught-up voters than wanted.
        short: u32,
    },
}

/// Asks the nodes behind `endpoints`, all of which are expected to answer.
pub async fn ask(endpoints: &[String]) -> Readiness {
    let mut short = 0;
    for endpoint in endpoints {
        match ask_one(endpoint).await {
            Err(text) => return Readiness::No(text),
            Ok(status) => match judge(&status, endpoints.len()) {
                Readiness::Leads { short: here } => short = short.max(here),
                no @ Readiness::No(_) => return no,
            },
        }
    }
    Readiness::Leads { short }
}

async fn ask_one(endpoint: &str) -> Result<v1::StatusResponse, String> {
    let options = Options {
        timeout: PATIENCE,
        attempt_timeout: PATIENCE,
        ..Options::default()
    };
    let client = Client::new([endpoint], options).map_err(|error| error.to_string())?;
    client
        .status()
        .await
        .map_err(|error| format!("{endpoint} does not answer yet ({})", error.message))
}

fn judge(status: &v1::StatusResponse, running: usize) -> Readiness {
    let id = status.node_id;
    if (status.nodes as usize) < running {
        return Readiness::No(format!("node {id} knows {} of {running} nodes", status.nodes));
    }
    if (status.nodes_reachable as usize) < running {
        return Readiness::No(format!(
            "node {id} reaches {} of {running} nodes",
            status.nodes_reachable
        ));
    }
    if status.partitions == 0 || status.partitions_with_leader < status.partitions {
        let (some, all) = (status.partitions_with_leader, status.partitions);
        return Readiness::No(format!("node {id} sees leaders of {some} of {all} partitions"));
    }
    Readiness::Leads {
        short: status.partitions_under_replicated,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_condition_counts() {
        let good = v1::StatusResponse {
            nodes: 3,
            nodes_reachable: 3,
            partitions: 17,
            partitions_with_leader: 17,
            partitions_under_replicated: 2,
            ..Default::default()
        };
        assert_eq!(judge(&good, 3), Readiness::Leads { short: 2 });
        for bad in [
            v1::StatusResponse {
                nodes: 2,
                ..good.clone()
            },
            v1::StatusResponse {
                nodes_reachable: 2,
                ..good.clone()
            },
            v1::StatusResponse {
                partitions_with_leader: 16,
                ..good.clone()
            },
            v1::StatusResponse {
                partitions: 0,
                partitions_with_leader: 0,
                ..good.clone()
            },
        ] {
            assert!(matches!(judge(&bad, 3), Readiness::No(_)), "{bad:?}");
        }
    }
}
