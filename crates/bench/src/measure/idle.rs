//! What a cluster costs while nobody asks for anything.

use std::time::Duration;

use super::largest;
use crate::process;
use crate::report::{Row, Section, Target};
use crate::system::{Kind, System};
use crate::{Options, say};

/// Before the count begins: elections and balancing are over.
const SETTLE: Duration = Duration::from_secs(15);
/// What is counted.
const LENGTH: Duration = Duration::from_secs(20);

struct Cost {
    cpu_percent: f64,
    memory_mb: f64,
}

/// Measures etcd, then Holdfast with 64 and with 256 partitions.
pub async fn run(options: &Options) -> anyhow::Result<Section> {
    let etcd = cost(options, Kind::Etcd).await?;
    let mut rows = Vec::new();
    for (partitions, cpu_percent, memory_mb) in [(64, 5.0, 120.0), (256, 12.0, 250.0)] {
        let ours = cost(options, Kind::Holdfast { partitions }).await?;
        rows.push(Row {
            measure: format!("{partitions} partitions, processor"),
            unit: "% of a core",
            holdfast: ours.cpu_percent,
            etcd: Some(etcd.cpu_percent),
            target: Target::AtMost(cpu_percent),
        });
        rows.push(Row {
            measure: format!("{partitions} partitions, memory"),
            unit: "MB",
            holdfast: ours.memory_mb,
            etcd: Some(etcd.memory_mb),
            target: Target::AtMost(memory_mb),
        });
    }
    let note = "The dearest of the three nodes, over 20 s. etcd has one group.".to_string();
    Ok(Section {
        title: "Idle".to_string(),
        note,
        rows,
    })
}

async fn cost(options: &Options, kind: Kind) -> anyhow::Result<Cost> {
    say(format!("idle: {kind:?}"));
    let system = System::start(options, kind).await?;
    tokio::time::sleep(SETTLE).await;
    let read = || {
        system
            .pids
            .iter()
            .map(|pid| process::cpu_seconds(*pid))
            .collect::<Result<Vec<f64>, _>>()
    };
    let before = read()?;
    tokio::time::sleep(LENGTH).await;
    let after = read()?;
    let percent: Vec<f64> = before
        .iter()
        .zip(&after)
        .map(|(before, after)| (after - before) / LENGTH.as_secs_f64() * 100.0)
        .collect();
    let mut memory = Vec::new();
    for pid in &system.pids {
        memory.push(process::resident_bytes(*pid)? as f64 / 1e6);
    }
    say(format!("  processor {percent:.1?} %, memory {memory:.0?} MB"));
    system.stop().await?;
    Ok(Cost {
        cpu_percent: largest(&percent),
        memory_mb: largest(&memory),
    })
}
