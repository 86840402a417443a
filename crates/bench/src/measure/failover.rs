//! The gap that clients see when a node that leads partitions is killed, cut off, or asked to stop. One writer a
//! key space, all through the nodes that stay, so that every gap is one of leadership and none of reconnecting.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use anyhow::Context;
use tokio::task::LocalSet;
use tokio::time::Instant;

use super::{Namespace, largest, make_namespaces, median, partitions};
use crate::kv::Connection;
use crate::load::{VALUE_BYTES, connect};
use crate::process::{self, Signal};
use crate::report::{Row, Section, Target};
use crate::system::{Kind, System};
use crate::{Options, say};

const PARTITIONS: u32 = 16;
const NAMESPACES: usize = 48;
const CONNECTIONS: usize = 8;
/// Between a writer's answer and its next request.
const PAUSE: Duration = Duration::from_millis(5);
/// A request without an answer for so long is given up, and its outcome unknown.
const DEADLINE: Duration = Duration::from_secs(1);
/// Load before the event, and after it.
const BEFORE: Duration = Duration::from_secs(3);
const AFTER: Duration = Duration::from_secs(8);
/// Trials of each event.
const TRIALS: usize = 3;
/// The node it happens to.
const VICTIM: usize = 1;

/// What happens to the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Event {
    Killed,
    CutOff,
    Stopped,
}

/// What one writer saw: when each request was answered well, and how many were not.
#[derive(Debug, Default)]
struct Seen {
    answered: Vec<Instant>,
    failed: Vec<Instant>,
}

#[derive(Default)]
struct Gaps {
    led_ms: Vec<f64>,
    others_ms: Vec<f64>,
    failed: usize,
}

/// Runs each event some times.
pub async fn run(options: &Options) -> anyhow::Result<Section> {
    let mut rows = Vec::new();
    for event in [Event::Killed, Event::CutOff, Event::Stopped] {
        let mut gaps = Gaps::default();
        for trial in 1..=TRIALS {
            say(format!("failover: {event:?}, trial {trial} of {TRIALS}"));
            let system = System::start(
                options,
                Kind::Holdfast {
                    partitions: PARTITIONS,
                },
            )
            .await?;
            one_trial(&system, event, &mut gaps).await?;
            drop(system);
        }
        rows.extend(rows_of(event, &gaps));
    }
    let note = format!(
        "{NAMESPACES} writers, one a key space, over {PARTITIONS} partitions, through the two nodes that stay. A gap is \
         the longest time between two answers of one writer around the event, the writer's own pause of 5 ms \
         included; {TRIALS} trials of each event. Cut off: SIGSTOP, so that connections stay open and silent."
    );
    Ok(Section {
        title: "A leader's node goes".to_string(),
        note,
        rows,
    })
}

async fn one_trial(system: &System, event: Event, gaps: &mut Gaps) -> anyhow::Result<()> {
    let namespaces = make_namespaces(system, NAMESPACES).await?;
    let staying: Vec<String> = system
        .endpoints
        .iter()
        .enumerate()
        .filter(|(index, _)| *index != VICTIM)
        .map(|(_, e)| e.clone())
        .collect();
    let connections = connect(&staying, CONNECTIONS).await?;
    let ends = Instant::now() + BEFORE + AFTER;
    let local = LocalSet::new();
    let mut all = Vec::new();
    for (index, namespace) in namespaces.iter().enumerate() {
        let connection = connections[index % CONNECTIONS].in_namespace(&namespace.name)?;
        let seen = Rc::new(RefCell::new(Seen::default()));
        all.push(seen.clone());
        local.spawn_local(writer(connection, seen, ends));
    }
    let pid = system.pids[VICTIM];
    let (happened, led) = local
        .run_until(async move {
            tokio::time::sleep(BEFORE).await;
            // Not sooner: a young cluster still spreads its leaders.
            let led = led_by_victim(&staying[0]).await?;
            let happened = Instant::now();
            let signal = match event {
                Event::Killed => Signal::Kill,
                Event::CutOff => Signal::Stop,
                Event::Stopped => Signal::Terminate,
            };
            process::signal(pid, signal).map(|()| (happened, led))
        })
        .await?;
    local.await;
    if event == Event::CutOff {
        process::signal(pid, Signal::Continue)?;
    }
    judge(&namespaces, &led, &all, happened, ends, gaps)
}

/// Partitions that the victim leads.
async fn led_by_victim(endpoint: &str) -> anyhow::Result<BTreeSet<u32>> {
    let all = partitions(endpoint).await?;
    let led = all
        .iter()
        .filter(|partition| partition.leader_node as usize == VICTIM + 1);
    Ok(led.map(|partition| partition.id).collect())
}

async fn writer(mut connection: Connection, seen: Rc<RefCell<Seen>>, ends: Instant) {
    while Instant::now() < ends {
        let put = connection.put(b"bench/probe".to_vec(), vec![b'x'; VALUE_BYTES]);
        let outcome = tokio::time::timeout(DEADLINE, put).await;
        let now = Instant::now();
        match outcome {
            Ok(Ok(_)) => seen.borrow_mut().answered.push(now),
            Ok(Err(_)) | Err(_) => seen.borrow_mut().failed.push(now),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn judge(
    namespaces: &[Namespace],
    led: &BTreeSet<u32>,
    all: &[Rc<RefCell<Seen>>],
    happened: Instant,
    ends: Instant,
    gaps: &mut Gaps,
) -> anyhow::Result<()> {
    let from = happened - Duration::from_millis(20);
    let (mut led_ms, mut others_ms) = (Vec::new(), Vec::new());
    for (namespace, seen) in namespaces.iter().zip(all) {
        let seen = seen.borrow();
        let last_before = seen
            .answered
            .iter()
            .rev()
            .find(|at| **at < from)
            .context("nothing was answered before")?;
        let mut previous = *last_before;
        let mut longest = Duration::ZERO;
        for at in seen.answered.iter().filter(|at| **at >= from).chain([&ends]) {
            longest = longest.max(at.saturating_duration_since(previous));
            previous = *at;
        }
        let ms = longest.as_secs_f64() * 1000.0;
        if led.contains(&namespace.partition.0) {
            led_ms.push(ms)
        } else {
            others_ms.push(ms)
        }
        gaps.failed += seen.failed.iter().filter(|at| **at >= from).count();
    }
    say(format!(
        "  {} key spaces led there: p50 {:.0} ms, max {:.0} ms; {} others: max {:.0} ms; failed so far {}",
        led_ms.len(),
        median(led_ms.clone()),
        largest(&led_ms),
        others_ms.len(),
        largest(&others_ms),
        gaps.failed
    ));
    gaps.led_ms.extend(led_ms);
    gaps.others_ms.extend(others_ms);
    Ok(())
}

fn rows_of(event: Event, gaps: &Gaps) -> Vec<Row> {
    let row = |measure: &str, unit: &'static str, holdfast: f64, target: Target| Row {
        measure: measure.to_string(),
        unit,
        holdfast,
        etcd: None,
        target,
    };
    let (p50, max, others) = (
        median(gaps.led_ms.clone()),
        largest(&gaps.led_ms),
        largest(&gaps.others_ms),
    );
    match event {
        Event::Killed => vec![
            row("kill -9, its partitions, p50", "ms", p50, Target::AtMost(150.0)),
            row("kill -9, its partitions, max", "ms", max, Target::AtMost(500.0)),
            row("kill -9, other partitions, max", "ms", others, Target::None),
            row(
                "kill -9, requests that failed",
                "",
                gaps.failed as f64,
                Target::None,
            ),
        ],
        Event::CutOff => vec![
            row("cut off, its partitions, p50", "ms", p50, Target::None),
            row("cut off, its partitions, max", "ms", max, Target::AtMost(4000.0)),
            row("cut off, other partitions, max", "ms", others, Target::None),
        ],
        Event::Stopped => vec![
            row(
                "planned stop, its partitions, max",
                "ms",
                max,
                Target::AtMost(100.0),
            ),
            row("planned stop, other partitions, max", "ms", others, Target::None),
            row(
                "planned stop, requests that failed",
                "",
                gaps.failed as f64,
                Target::AtMost(0.0),
            ),
        ],
    }
}
