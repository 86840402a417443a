//! How long a killed node takes until it serves again, with many keys in many partitions.

use std::time::Duration;

use anyhow::{Context, bail};
use rand::SeedableRng;
use rand::rngs::SmallRng;
use tokio::time::Instant;

use super::{Namespace, make_namespaces};
use crate::kv::Connection;
use crate::load::{CONNECTIONS, connect, key, value};
use crate::process::{self, Recipe, Signal};
use crate::report::{Row, Section, Target};
use crate::system::{Kind, System};
use crate::{Options, say};

/// Key spaces a partition, on average, so that nearly every partition has one.
const NAMESPACES_PER_PARTITION: usize = 3;
/// Puts of one transaction while loading.
const BATCH: u64 = 100;
/// Longest restart that is waited for.
const LIMIT: Duration = Duration::from_secs(120);
/// The node that is killed.
const VICTIM: usize = 1;

/// Measures with 64 and with 256 partitions.
pub async fn run(options: &Options) -> anyhow::Result<Section> {
    let mut rows = Vec::new();
    for (partitions, target_s) in [(64, 5.0), (256, 8.0)] {
        say(format!(
            "restart: {} keys in {partitions} partitions",
            options.keys
        ));
        let system = System::start(options, Kind::Holdfast { partitions }).await?;
        let namespaces = make_namespaces(&system, partitions as usize * NAMESPACES_PER_PARTITION).await?;
        load_keys(&system, &namespaces, options.keys).await?;
        let (local_s, all_s) = restart(&system, &namespaces).await?;
        say(format!(
            "  serving from its own state after {local_s:.2} s, linearizably after {all_s:.2} s"
        ));
        rows.push(Row {
            measure: format!("{partitions} partitions, every key space answers linearizably"),
            unit: "s",
            holdfast: all_s,
            etcd: None,
            target: Target::AtMost(target_s),
        });
        rows.push(Row {
            measure: format!("{partitions} partitions, every key space answers from its own state"),
            unit: "s",
            holdfast: local_s,
            etcd: None,
            target: Target::AtMost(target_s),
        });
        system.stop().await?;
    }
    let note = format!(
        "{} keys of 256 bytes; one node killed with kill -9 and started again at once; every key space is read through \
         that node.",
        options.keys
    );
    Ok(Section {
        title: "Restart after kill -9".to_string(),
        note,
        rows,
    })
}

/// Spreads the keys evenly over the namespaces.
async fn load_keys(system: &System, namespaces: &[Namespace], keys: u64) -> anyhow::Result<()> {
    let connections = connect(&system.endpoints, CONNECTIONS).await?;
    let each = keys.div_ceil(namespaces.len() as u64);
    let started = Instant::now();
    let mut tasks = Vec::new();
    for (part, connection) in connections.into_iter().enumerate() {
        let mine: Vec<&Namespace> = namespaces.iter().skip(part).step_by(CONNECTIONS).collect();
        tasks.push(async move {
            let mut random = SmallRng::seed_from_u64(part as u64);
            for namespace in mine {
                let mut connection = connection.in_namespace(&namespace.name)?;
                for first in (0..each).step_by(BATCH as usize) {
                    let numbers = first..(first + BATCH).min(each);
                    let pairs = numbers.map(|number| (key(number), value(&mut random))).collect();
                    connection
                        .put_all(pairs)
                        .await
                        .with_context(|| format!("load {}", namespace.name))?;
                }
            }
            anyhow::Ok(())
        });
    }
    futures::future::try_join_all(tasks).await?;
    say(format!("  loaded in {:.0} s", started.elapsed().as_secs_f64()));
    Ok(())
}

/// Seconds until the victim answers for every namespace: from its own state, and linearizably.
async fn restart(system: &System, namespaces: &[Namespace]) -> anyhow::Result<(f64, f64)> {
    let pid = system.pids[VICTIM];
    let recipe = Recipe::of(pid)?;
    process::signal(pid, Signal::Kill)?;
    process::wait_gone(pid, Duration::from_secs(10)).await?;
    let started = Instant::now();
    let log = std::env::temp_dir().join(format!("bench-{}-restarted.log", std::process::id()));
    let mut child = recipe.start(&log)?;
    let waited = async {
        let local_s = wait_all(system, namespaces, true, started).await?;
        anyhow::Ok((local_s, wait_all(system, namespaces, false, started).await?))
    };
    let waited = waited
        .await
        .with_context(|| format!("its output is in {}", log.display()))?;
    child.kill().await.context("kill the restarted node")?;
    std::fs::remove_file(&log).context("remove its log")?;
    Ok(waited)
}

async fn wait_all(
    system: &System,
    namespaces: &[Namespace],
    serializable: bool,
    started: Instant,
) -> anyhow::Result<f64> {
    let connection = wait_connected(&system.endpoints[VICTIM], started).await?;
    let ask = namespaces
        .iter()
        .map(|namespace| wait_answer(&connection, namespace, serializable, started));
    futures::future::try_join_all(ask).await?;
    Ok(started.elapsed().as_secs_f64())
}

async fn wait_connected(endpoint: &str, started: Instant) -> anyhow::Result<Connection> {
    loop {
        match Connection::open(endpoint).await {
            Ok(connection) => return Ok(connection),
            Err(error) if started.elapsed() > LIMIT => return Err(error),
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

async fn wait_answer(
    connection: &Connection,
    namespace: &Namespace,
    serializable: bool,
    started: Instant,
) -> anyhow::Result<()> {
    let mut connection = connection.in_namespace(&namespace.name)?;
    loop {
        let outcome = connection.get(key(0), serializable).await;
        match outcome {
            Ok(range) if !range.kvs.is_empty() => return Ok(()),
            _ if started.elapsed() < LIMIT => tokio::time::sleep(Duration::from_millis(20)).await,
            other => bail!(
                "{} (partition {}) did not come back: {other:?}",
                namespace.name,
                namespace.partition
            ),
        }
    }
}
