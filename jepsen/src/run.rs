//! What a run goes through: a cluster comes into being, faults come while clients work, everything is mended and must
//! come to order, and what the clients saw is judged.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use env::{Blocking, Env, SeededRng, SystemClock, TcpNet};
use tokio::task::JoinSet;
use workload::{Client, Site, Workload, space};

use crate::cluster::Cluster;
use crate::leaders::Leaders;
use crate::nemesis::{self, Nemesis};
use crate::options::Options;
use crate::page;
use crate::report::{Report, Seen, Times};
use crate::settled;
use crate::silence;
use crate::store::Store;
use crate::torment::Torment;
use crate::verdict::{Evidence, Judged};

/// Between two looks at what is due.
const TURN: Duration = Duration::from_millis(50);
/// Between two lines of progress.
const TELL: Duration = Duration::from_secs(5);
/// How long a new cluster may take.
pub const FORMING: Duration = Duration::from_secs(90);
/// How long clients may take to stop: each has a time limit on what it does.
const STOPPING: Duration = Duration::from_secs(60);
/// Before the first fault.
const QUIET: Duration = Duration::from_secs(2);
/// Work for some time after everything is mended.
const AFTERWARDS: Duration = Duration::from_secs(3);

/// A run that is going on.
struct Run {
    options: Options,
    seed: u64,
    store: Store,
    site: Site,
    workloads: Vec<Arc<dyn Workload>>,
    clients: u64,
    broken: Vec<String>,
}

/// Runs it all. An error is the harness's own.
pub fn run(options: &Options) -> Result<Report> {
    let seed = options.ground.seed();
    options.workloads().map_err(|text| anyhow!(text))?;
    let kinds = kinds(options)?;
    let binary = options.ground.binary()?;
    let store = options.ground.store(seed, &options.again(seed))?;
    let bent_clocks = kinds.iter().any(|kind| kind.name() == "clock");
    let cluster = Cluster::start(
        &options.ground,
        options.partitions,
        seed,
        &binary,
        &store,
        bent_clocks,
    )?;
    let run = Run::new(options, seed, store, cluster.endpoints())?;
    attend(run.all(cluster, kinds))
}

/// The same workloads on a cluster that somebody else hurts and mends: `endpoints` name its controllers.
pub fn drive(options: &Options, endpoints: Vec<String>) -> Result<Report> {
    let seed = options.ground.seed();
    let store = options.ground.store(seed, &options.again(seed))?;
    attend(Run::new(options, seed, store, endpoints)?.alone())
}

/// Faults are brought by this thread, which may wait for other programs; clients work on the others.
pub fn attend<T>(run: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start a runtime")?;
    let done = runtime.block_on(async {
        tokio::select! {
            done = run => done,
            _ = tokio::signal::ctrl_c() => bail!("interrupted"),
        }
    });
    runtime.shutdown_timeout(Duration::from_secs(1));
    done
}

fn kinds(options: &Options) -> Result<Vec<Box<dyn Nemesis>>> {
    let mut kinds = nemesis::all();
    let known: Vec<&str> = kinds.iter().map(|kind| kind.name()).collect();
    let wanted = options.nemeses(&known).map_err(|text| anyhow!(text))?;
    kinds.retain(|kind| wanted.iter().any(|name| name == kind.name()));
    Ok(kinds)
}

impl Run {
    fn new(options: &Options, seed: u64, store: Store, endpoints: Vec<String>) -> Result<Run> {
        let names = options.workloads().map_err(|text| anyhow!(text))?;
        let env = Env {
            clock: Arc::new(SystemClock::default()),
            rng: Arc::new(SeededRng::new(seed)),
            net: Arc::new(TcpNet),
            blocking: Blocking::Pool,
        };
        Ok(Run {
            options: options.clone(),
            seed,
            store,
            site: Site {
                calm: false,
                env,
                endpoints,
                leisure: 1,
                stop: Arc::new(AtomicBool::new(false)),
            },
            workloads: names.iter().filter_map(|name| workload::named(name)).collect(),
            clients: 0,
            broken: Vec::new(),
        })
    }

    /// Clients alone, for the time that was asked for.
    async fn alone(mut self) -> Result<Report> {
        let mut working = self.begin().await?;
        let began = self.now();
        tokio::time::sleep(self.options.time).await;
        self.stop(&mut working).await?;
        let stopped = self.now();
        let (workloads, _) = self.judge().await?;
        let evidence = Evidence {
            workloads,
            rate: self.options.rate,
            seconds: (stopped - began).as_secs_f64(),
            broken: std::mem::take(&mut self.broken),
            ..Evidence::default()
        };
        let times = Times {
            worked: stopped - began,
            order: Duration::ZERO,
        };
        let report = Report::new(&self.options, self.seed, &evidence, times, Seen::default());
        report.keep(&self.store)?;
        Ok(report)
    }

    /// Prepares the workloads and lets their clients begin.
    async fn begin(&mut self) -> Result<JoinSet<()>> {
        let mut working = JoinSet::new();
        for workload in self.workloads.clone() {
            self.prepare(&workload).await?;
            for _ in 0..self.options.clients {
                let (client, workload) = (self.client(), workload.clone());
                working.spawn(async move { workload.work(client).await });
            }
        }
        Ok(working)
    }

    async fn all(mut self, mut cluster: Cluster, kinds: Vec<Box<dyn Nemesis>>) -> Result<Report> {
        let formed = self.in_order(&mut cluster, FORMING).await;
        formed.map_err(|missing| anyhow!("no cluster came into being: {missing}"))?;
        let leaders = Leaders::watch(&cluster.endpoints(), self.site.env.clock.clone())?;
        let mut working = self.begin().await?;
        let began = self.now();
        let gap_ms = (self.options.gap[0], self.options.gap[1]);
        let lines = self.store.lines("faults.jsonl")?;
        let mut torment = Torment::new(kinds, self.seed, gap_ms, began + QUIET, lines);
        self.torment(&mut cluster, &mut torment, began).await?;
        let mended = self.now();
        if let Err(missing) = self.in_order(&mut cluster, self.options.ground.patience).await {
            self.broken
                .push(format!("no order after everything was mended: {missing}"));
        }
        let ordered = self.now();
        tokio::time::sleep(AFTERWARDS).await;
        self.stop(&mut working).await?;
        let stopped = self.now();
        torment.look_after(&mut cluster, stopped)?;
        if self.broken.is_empty() {
            self.compare(&mut cluster).await;
        }
        let (workloads, histories) = self.judge().await?;
        self.broken.append(&mut torment.odd_ends);
        self.broken.extend(self.store.panics()?);
        let evidence = Evidence {
            workloads,
            faults: torment
                .count
                .iter()
                .map(|(kind, count)| ((*kind).to_owned(), *count))
                .collect(),
            rate: self.options.rate,
            seconds: (stopped - began).as_secs_f64(),
            broken: std::mem::take(&mut self.broken),
        };
        let times = Times {
            worked: stopped - began,
            order: ordered - mended,
        };
        let answers: Vec<Vec<u64>> = histories.values().map(|text| silence::answers(text)).collect();
        let seen = Seen {
            packets: cluster.hosts.fabric.total(),
            silences: silence::after(&torment.faults, &answers),
        };
        let report = Report::new(&self.options, self.seed, &evidence, times, seen);
        let of_registers = leaders.of_namespace("register").await;
        self.keep_leaders(leaders)?;
        drop(cluster);
        report.keep(&self.store)?;
        let page = page::overview(&histories, &torment.faults, &report.title());
        self.store.write("pages/overview.html", &page)?;
        let broken = |name: &str| {
            report
                .by_workload
                .get(name)
                .is_some_and(|it| !it.findings.is_empty())
        };
        if let Some(text) = histories.get("register").filter(|_| broken("register")) {
            page::registers(
                &self.store,
                text,
                &torment.faults,
                of_registers.unwrap_or_default(),
            )?;
        }
        Ok(report)
    }

    fn keep_leaders(&self, leaders: Leaders) -> Result<()> {
        let mut lines = self.store.lines("leaders.jsonl")?;
        leaders.seen().iter().try_for_each(|led| lines.add(led))
    }

    fn now(&self) -> Duration {
        self.site.env.clock.now()
    }

    fn client(&mut self) -> Client {
        self.clients += 1;
        Client {
            id: self.clients,
            site: self.site.clone(),
        }
    }

    /// Faults come until the time is over; then everything is mended.
    async fn torment(&self, cluster: &mut Cluster, torment: &mut Torment, began: Duration) -> Result<()> {
        let end = began + self.options.time;
        let mut told = began;
        while self.now() < end {
            torment.turn(cluster, self.now())?;
            if self.now() >= told + TELL {
                told = self.now();
                self.tell(cluster, torment, end - told.min(end), told - began);
            }
            tokio::time::sleep(TURN).await;
        }
        torment.end(cluster, self.now())?;
        for controller in &mut cluster.controllers {
            controller.held_down = 0;
            controller.excused = 0;
            controller.disk_hurt = false;
            controller.start()?;
        }
        Ok(())
    }

    fn tell(&self, cluster: &Cluster, torment: &Torment, left: Duration, worked: Duration) {
        let (mut ok, mut unknown) = (0, 0);
        for workload in &self.workloads {
            let tally = workload.tally();
            ok += tally.ok;
            unknown += tally.unknown;
        }
        eprintln!(
            "jepsen: {:4} s left, {ok} answered ({:.0}/s), {unknown} unknown, {} packets, {} of {} nodes run, {} faults, \
             the last: {}",
            left.as_secs(),
            ok as f64 / worked.as_secs_f64(),
            cluster.hosts.fabric.total().passed,
            cluster.working().len(),
            cluster.controllers.len(),
            torment.begun(),
            torment.last,
        );
    }

    async fn in_order(&self, cluster: &mut Cluster, limit: Duration) -> Result<(), String> {
        settled::wait(cluster, &*self.site.env.clock, limit).await
    }

    /// Replicas must be equal in the end.
    async fn compare(&mut self, cluster: &mut Cluster) {
        let end = self.now() + self.options.ground.patience;
        while let Err(error) = settled::apart(cluster) {
            if self.now() >= end {
                self.broken.push(format!("{error:#}"));
                return;
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    async fn prepare(&mut self, workload: &Arc<dyn Workload>) -> Result<()> {
        let client = self.client();
        let end = self.now() + FORMING;
        loop {
            let node = client.any_node();
            let made = space::make(&client, node, workload.namespace()).await;
            let error = match made {
                Ok(()) => match workload.prepare(&client).await {
                    Ok(()) => return Ok(()),
                    Err(error) => error,
                },
                Err(error) => error,
            };
            ensure!(
                self.now() < end,
                "{} cannot be prepared: {error}",
                workload.name()
            );
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    async fn stop(&self, working: &mut JoinSet<()>) -> Result<()> {
        self.site.stop.store(true, Ordering::Relaxed);
        let all = async {
            while let Some(ended) = working.join_next().await {
                ended.context("a client panicked")?;
            }
            Ok(())
        };
        match tokio::time::timeout(STOPPING, all).await {
            Ok(ended) => ended,
            Err(_) => bail!("clients do not stop"),
        }
    }

    async fn judge(&mut self) -> Result<(BTreeMap<String, Judged>, BTreeMap<String, String>)> {
        let (mut all, mut histories) = (BTreeMap::new(), BTreeMap::new());
        for workload in self.workloads.clone() {
            if let Err(text) = self.finish(&workload).await {
                self.broken
                    .push(format!("{}: not finished: {text}", workload.name()));
            }
            eprintln!("jepsen: judging {}", workload.name());
            let from = self.now();
            let findings = workload.judge();
            let tally = workload.tally();
            let path = format!("histories/{}.jsonl", workload.name());
            let history = workload.history();
            self.store.write(&path, &history)?;
            histories.insert(workload.name().to_owned(), history);
            let judged = Judged {
                ok: tally.ok,
                failed: tally.failed,
                unknown: tally.unknown,
                findings: findings.into_iter().map(|finding| finding.text).collect(),
                judged_ms: (self.now() - from).as_millis() as u64,
            };
            all.insert(workload.name().to_owned(), judged);
        }
        Ok((all, histories))
    }

    async fn finish(&mut self, workload: &Arc<dyn Workload>) -> Result<(), String> {
        let client = self.client();
        let end = self.now() + self.options.ground.patience;
        loop {
            match workload.finish(&client).await {
                Ok(()) => return Ok(()),
                Err(text) if self.now() >= end => return Err(text),
                Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
            }
        }
    }
}
