//! The measurements, one file each. Each starts its own clusters and returns rows for the table.

pub mod failover;
pub mod idle;
pub mod restart;
pub mod throughput;
pub mod watchers;

use std::time::Duration;

use anyhow::bail;
use client::v1;
use tokio::time::Instant;
use types::PartitionId;

use crate::system::System;

/// Longest that preparing a measurement may take.
const LIMIT: Duration = Duration::from_secs(90);

/// A namespace of the benchmark, and where it lives.
#[derive(Debug, Clone)]
pub struct Namespace {
    /// Its name.
    pub name: String,
    /// The partition that holds it.
    pub partition: PartitionId,
}

/// Makes namespaces, so that keys spread over the partitions: one key space lives in one partition.
pub async fn make_namespaces(system: &System, count: usize) -> anyhow::Result<Vec<Namespace>> {
    let cluster = client::Client::new(&system.endpoints, client::Options::default())?;
    let mut made = Vec::new();
    let end = Instant::now() + LIMIT;
    for number in 0..count {
        let name = format!("bench-{number:03}");
        let namespace = cluster.put_namespace(client::NewNamespace::named(&name)).await?;
        if Instant::now() > end {
            bail!("making {count} namespaces took longer than {LIMIT:?}; {number} are there");
        }
        made.push(Namespace {
            name,
            partition: PartitionId(namespace.partition),
        });
    }
    Ok(made)
}

/// The partitions as one node sees them.
pub async fn partitions(endpoint: &str) -> anyhow::Result<Vec<v1::Partition>> {
    let cluster = client::Client::new([endpoint], client::Options::default())?;
    Ok(cluster.partitions(&[]).await?)
}

/// The value in the middle.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        count if count % 2 == 1 => values[count / 2],
        count => (values[count / 2 - 1] + values[count / 2]) / 2.0,
    }
}

/// The largest.
pub fn largest(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::NAN, f64::max)
}
