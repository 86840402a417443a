//! Leaders and replicas move from node to node while others work. Nothing to judge here: the others' histories, and that
//! everything comes to order in the end, tell whether it went well.

use std::time::Duration;

use async_trait::async_trait;
use checker::history::Outcome;
use proto::v1;
use proto::v1::cluster_client::ClusterClient;
use serde::{Deserialize, Serialize};
use tokio::time::error::Elapsed;
use tonic::Status;
use tonic::transport::Channel;

use crate::client::{Client, PATIENCE};
use crate::record::{Judge, Name, Past, Record, Recorded, status_fate};
use crate::{Finding, Workload};

/// How long a move of a replica is followed.
const FOLLOWED: Duration = Duration::from_secs(20);

/// What is asked of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ask {
    /// Another node is to hold a replica.
    Move {
        /// Of this partition.
        partition: u32,
        /// The node that holds it.
        from: u64,
        /// The node that is to.
        to: u64,
    },
    /// Another node is to lead.
    Lead {
        /// This partition.
        partition: u32,
        /// The node.
        node: u64,
    },
    /// A node is to hold nothing for a while.
    Drain(u64),
}

/// The workload.
#[derive(Default)]
pub struct Moves {
    record: Record<Moves>,
}

#[async_trait]
impl Workload for Moves {
    fn name(&self) -> &'static str {
        "moves"
    }

    fn disturbs(&self) -> bool {
        true
    }

    fn is_about_the_cluster(&self) -> bool {
        true
    }

    async fn work(&self, client: Client) {
        // One is enough to keep partitions moving.
        if !client.id.is_multiple_of(3) {
            return;
        }
        let mut name = Name::of(&client);
        while client.goes_on() {
            // Whoever cannot be asked is asked again.
            let _ = match client.once_in(8) {
                true => self.drain(&client, &mut name).await,
                false => self.one(&client, &mut name).await,
            };
            client.pause(50, 500).await;
        }
    }

    fn record(&self) -> &dyn Recorded {
        &self.record
    }
}

impl Judge for Moves {
    type Ask = Ask;
    type Answer = ();
    type Known = ();

    fn judge(_past: &Past<Moves>) -> Vec<Finding> {
        Vec::new()
    }

    /// Whatever stands in the way of a move may stand there for long.
    fn is_patient(_ask: &Ask) -> bool {
        true
    }
}

impl Moves {
    async fn one(&self, client: &Client, name: &mut Name) -> Result<(), Status> {
        let node = client.any_node();
        let mut cluster = ClusterClient::new(client.channel(node));
        let asked = cluster.list_partitions(v1::ListPartitionsRequest::default());
        let listed = tokio::time::timeout(PATIENCE, asked).await;
        let partitions = listed.map_err(late)??.into_inner().partitions;
        let count = partitions.len() as u64;
        if count == 0 {
            return Ok(());
        }
        let ask = choose(client, &partitions[client.below(count) as usize]);
        let limit = match ask {
            Ask::Move { .. } => FOLLOWED,
            Ask::Lead { .. } | Ask::Drain(_) => PATIENCE,
        };
        let doing = perform(&mut cluster, &ask);
        let asked = ask.clone();
        self.record
            .operate_for(client, name, (node, limit), asked, doing)
            .await;
        Ok(())
    }

    /// Empties a node for a while. However that goes, the node is taken back in.
    async fn drain(&self, client: &Client, name: &mut Name) -> Result<(), Status> {
        let asked = client.any_node();
        let mut cluster = ClusterClient::new(client.channel(asked));
        let listed = cluster.list_nodes(v1::ListNodesRequest::default());
        let listed = tokio::time::timeout(PATIENCE, listed).await.map_err(late)??;
        let nodes = listed.into_inner().nodes;
        if nodes.is_empty() {
            return Ok(());
        }
        let node = nodes[client.below(nodes.len() as u64) as usize].id;
        let ask = Ask::Drain(node);
        let limit = Duration::from_millis(client.site.env.rng.between(200, 8000));
        let doing = perform(&mut cluster, &ask);
        self.record
            .operate_for(client, name, (asked, limit), ask.clone(), doing)
            .await;
        loop {
            let mut cluster = ClusterClient::new(client.channel(client.any_node()));
            let request = v1::NodeRequest { node, session: None };
            match tokio::time::timeout(PATIENCE, cluster.undrain_node(request)).await {
                Ok(Ok(_)) => return Ok(()),
                // Removed meanwhile.
                Ok(Err(status)) if status.code() == tonic::Code::NotFound => return Ok(()),
                Ok(Err(_)) | Err(_) => client.pause(20, 200).await,
            }
        }
    }
}

fn late(_: Elapsed) -> Status {
    Status::deadline_exceeded("no answer in time")
}

/// A move of a replica to a node that has none, if there is one, or of the leader.
fn choose(client: &Client, partition: &v1::Partition) -> Ask {
    let nodes = client.site.endpoints.len() as u64;
    let holders: Vec<u64> = partition.replicas.iter().map(|replica| replica.node).collect();
    let free = (1..=nodes).find(|node| !holders.contains(node));
    match free {
        Some(to) if client.once_in(2) && !holders.is_empty() => Ask::Move {
            partition: partition.id,
            from: holders[client.below(holders.len() as u64) as usize],
            to,
        },
        _ => Ask::Lead {
            partition: partition.id,
            node: 1 + client.below(nodes),
        },
    }
}

/// Asks, and follows what is asked to its end.
async fn perform(cluster: &mut ClusterClient<Channel>, ask: &Ask) -> Result<(), Outcome<()>> {
    let failed = |status: Status| status_fate(&status);
    let session = None;
    let mut progress = match *ask {
        Ask::Move { partition, from, to } => {
            let request = v1::MoveReplicaRequest {
                partition,
                from_node: from,
                to_node: to,
                session,
            };
            cluster.move_replica(request).await.map_err(failed)?.into_inner()
        }
        Ask::Drain(node) => {
            let request = v1::NodeRequest { node, session };
            cluster.drain_node(request).await.map_err(failed)?.into_inner()
        }
        Ask::Lead { partition, node } => {
            let request = v1::TransferLeaderRequest {
                partition,
                node,
                session,
            };
            return cluster.transfer_leader(request).await.map(drop).map_err(failed);
        }
    };
    while progress.message().await.map_err(failed)?.is_some() {}
    Ok(())
}
