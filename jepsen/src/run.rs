//! What a run goes through: a cluster comes into being, faults come while clients work, everything is mended and must
//! come to order, and what the clients saw is judged.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use env::{Blocking, Env, SeededRng, SystemClock, TcpNet};
use tokio::task::JoinSet;
use tokio::time::Instant;
use workload::{Client, Site, Workload, kept, space};

use crate::cluster::Cluster;
use crate::judge::{self, Found, Scene};
use crate::leaders::Leaders;
use crate::nemesis::{self, Nemesis};
use crate::options::Options;
use crate::report::{Report, Seen, Times};
use crate::settled;
use crate::silence;
use crate::store::Store;
use crate::torment::{Fault, Torment};
use crate::verdict::Evidence;

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
    /// The command that does it again.
    again: String,
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
    let again = options.again(seed);
    let store = options.ground.store(seed, &again)?;
    let bent_clocks = kinds.iter().any(|kind| kind.name() == "clock");
    let cluster = Cluster::start(
        &options.ground,
        options.partitions,
        seed,
        &binary,
        &store,
        bent_clocks,
    )?;
    let run = Run::new(options, (seed, again), store, cluster.endpoints())?;
    attend(run.all(cluster, kinds))
}

/// The same workloads on a cluster that somebody else hurts and mends: `endpoints` name its controllers.
pub fn drive(options: &Options, endpoints: Vec<String>) -> Result<Report> {
    let seed = options.ground.seed();
    let (time, workloads) = (options.time.as_secs(), options.workload.join(","));
    let again = format!("SEED={seed} jepsen/compose {time} {workloads}");
    let store = options.ground.store(seed, &again)?;
    attend(Run::new(options, (seed, again), store, endpoints)?.alone())
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
    fn new(
        options: &Options,
        (seed, again): (u64, String),
        store: Store,
        endpoints: Vec<String>,
    ) -> Result<Run> {
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
            again,
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
        let leaders = Leaders::watch(&self.site.endpoints, self.site.env.clock.clone())?;
        let mut working = self.begin().await?;
        let began = self.now();
        tokio::time::sleep(self.options.time).await;
        self.stop(&mut working).await?;
        let stopped = self.now();
        let found = self.judge().await?;
        let evidence = Evidence {
            rate: self.options.rate,
            seconds: (stopped - began).as_secs_f64(),
            broken: std::mem::take(&mut self.broken),
            ..Evidence::default()
        };
        let times = Times {
            worked: stopped - began,
            order: Duration::ZERO,
        };
        let scene = self.scene(Vec::new(), &leaders).await;
        self.conclude(evidence, times, Seen::default(), (&found, &scene))
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
        let lines = self.store.lines(judge::FAULTS)?;
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
        let found = self.judge().await?;
        self.broken.append(&mut torment.odd_ends);
        self.broken.extend(self.store.panics()?);
        let evidence = Evidence {
            workloads: BTreeMap::new(),
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
        let answers = found.iter().map(|found| judge::answers(&*found.workload));
        let answers = answers.collect::<Result<Vec<_>>>()?;
        let seen = Seen {
            packets: cluster.hosts.fabric.total(),
            silences: silence::after(&torment.faults, &answers),
        };
        let scene = self.scene(torment.faults, &leaders).await;
        drop((leaders, cluster));
        self.conclude(evidence, times, seen, (&found, &scene))
    }

    /// What was behind everything. Who led which workload's partition is not known if nobody can be asked.
    async fn scene(&self, faults: Vec<Fault>, leaders: &Leaders) -> Scene {
        Scene {
            faults,
            led: leaders.seen(),
            partitions: leaders.partitions(&self.workloads).await.unwrap_or_default(),
        }
    }

    /// The verdict, kept with all that it goes by.
    fn conclude(
        &self,
        mut evidence: Evidence,
        times: Times,
        seen: Seen,
        (found, scene): (&[Found], &Scene),
    ) -> Result<Report> {
        evidence.workloads = judge::judged(found);
        let report = Report::new(&self.again, self.seed, &evidence, times, seen);
        self.store.json(judge::EVIDENCE, &evidence)?;
        let mut lines = self.store.lines(judge::LEADERS)?;
        scene.led.iter().try_for_each(|led| lines.add(led))?;
        self.store.json(judge::PARTITIONS, &scene.partitions)?;
        report.keep(&self.store)?;
        judge::draw(self.store.dir(), &report.title(), found, scene)?;
        Ok(report)
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
            controller.excuse.mend_all(Instant::now());
            controller.disk_hurt = false;
            controller.start()?;
        }
        Ok(())
    }

    fn tell(&self, cluster: &Cluster, torment: &Torment, left: Duration, worked: Duration) {
        let (mut ok, mut unknown) = (0, 0);
        for workload in &self.workloads {
            let tally = workload.record().tally();
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

    async fn judge(&mut self) -> Result<Vec<Found>> {
        let mut all = Vec::new();
        for workload in self.workloads.clone() {
            let name = workload.name();
            if let Err(text) = self.finish(&workload).await {
                self.broken.push(format!("{name}: not finished: {text}"));
            }
            // First, so that it is there whatever becomes of the judge.
            kept::keep(&self.store.dir().join(judge::HISTORIES), &*workload)
                .with_context(|| format!("cannot keep the history of {name}"))?;
            eprintln!("jepsen: judging {name}");
            all.push(Found::of(workload, &*self.site.env.clock));
        }
        Ok(all)
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
