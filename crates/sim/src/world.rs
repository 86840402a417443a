//! The cluster on one thread: hosts, network, time, and what is done to them.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use env::{Blocking, Env, SeededRng};
use server::Core;
use storage::memory::MemoryDisk;
use tokio::sync::mpsc;
use turmoil::Sim;
use workload::{Client, Site, Workload};

use crate::clock::TrueClock;
use crate::controller::{CLIENT_PORT, Controller, End};
use crate::fault::{self, Hurt};
use crate::invariant::{self, Host, Invariant, Looks, Seen};
use crate::net::{Link, Links, SimNet};
use crate::plan::{Plan, SyncDelay};
use crate::trace::Trace;
use workload::numbers::Numbers;

/// How long a cluster may take to come into being, or back to order, in simulated milliseconds.
pub const SETTLE_MS: u64 = 120_000;

/// The host of all clients.
const CLIENTS: &str = "clients";

/// The work of one client.
type Task = Pin<Box<dyn Future<Output = ()>>>;

/// Simulated milliseconds of this process's run.
static STEPS: AtomicU64 = AtomicU64::new(0);

/// How far this process's run is, for a thread that watches it.
pub fn steps() -> &'static AtomicU64 {
    &STEPS
}

/// Something is wrong with the system under test: what, and when.
#[derive(Debug, thiserror::Error)]
#[error("at {at_ms} ms: {text}")]
pub struct Violation {
    /// Simulated time.
    pub at_ms: u64,
    /// What.
    pub text: String,
}

/// How a process goes down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Down {
    /// Killed: the kernel closes its connections and keeps what was written; what was in memory alone is gone.
    Killed,
    /// The power is gone: nobody is told, and what was not synced is lost or torn.
    Power,
}

impl Down {
    /// What becomes of a disk.
    pub fn befalls(self, disk: &MemoryDisk, numbers: &mut Numbers) {
        let mut choose = |n: usize| numbers.below(n as u64) as usize;
        match self {
            Down::Killed => disk.kill(&mut choose),
            Down::Power => disk.crash(&mut choose),
        }
    }
}

/// A running cluster.
pub struct World {
    /// What this run is.
    pub plan: Plan,
    /// All controllers, by id from 1.
    pub controllers: Vec<Arc<Controller>>,
    /// What happens, for people and for comparison.
    pub trace: Trace,
    sim: Sim<'static>,
    invariants: Vec<Box<dyn Invariant>>,
    looks: Looks,
    numbers: Numbers,
    down: Vec<bool>,
    clients: u64,
    tasks: mpsc::UnboundedSender<Task>,
    stop: Arc<AtomicBool>,
    stop_disturbing: Arc<AtomicBool>,
    /// Of each client of a workload: whether it is done.
    done: Vec<Arc<AtomicBool>>,
    clock: Arc<TrueClock>,
    skewed: bool,
    lost: bool,
    links: Links,
}

impl World {
    /// Builds the cluster of `plan`; nothing runs yet.
    pub fn new(plan: Plan, trace: Trace) -> anyhow::Result<World> {
        let (low, high) = plan.latency_ms;
        let mut builder = turmoil::Builder::new();
        builder
            .tick_duration(Duration::from_millis(plan.step_ms))
            .simulation_duration(Duration::from_secs(1 << 32))
            .rng_seed(plan.seed)
            .enable_random_order()
            .tcp_capacity(64 * 1024)
            .min_message_latency(Duration::from_millis(low))
            .max_message_latency(Duration::from_millis(high));
        let (mut sim, links) = (builder.build(), Links::default());
        let controllers: Vec<_> = (1..=plan.nodes)
            .map(|id| Controller::new(&plan, id, &links))
            .collect();
        controllers[0].found(plan.partitions)?;
        for controller in &controllers {
            let running = controller.clone();
            sim.host(controller.name.as_str(), move || {
                let running = running.clone();
                async move {
                    running.run().await;
                    Ok(())
                }
            });
        }
        let (tasks, received) = mpsc::unbounded_channel();
        sim.client(CLIENTS, run_tasks(received));
        Ok(World {
            numbers: Numbers::of(plan.seed, "world"),
            down: vec![false; controllers.len()],
            invariants: invariant::all(),
            looks: Looks::default(),
            controllers,
            trace,
            sim,
            plan,
            clients: 0,
            tasks,
            stop: Arc::default(),
            stop_disturbing: Arc::default(),
            done: Vec::new(),
            clock: Arc::default(),
            skewed: false,
            lost: false,
            links,
        })
    }

    /// Lets one step pass everywhere, then looks at everything.
    pub fn step(&mut self) -> Result<(), Violation> {
        STEPS.store(self.now_ms(), Ordering::Relaxed);
        self.trace.at(self.now_ms());
        if let Err(error) = self.sim.step() {
            return Err(self.violation(format!("a client failed: {error}")));
        }
        self.trace.at(self.now_ms());
        self.bury()?;
        if let Some(panic) = self.trace.panic() {
            return Err(self.violation(format!("panic: {panic}")));
        }
        let cores: Vec<_> = self.controllers.iter().map(|it| it.core()).collect();
        let hosts: Vec<_> = self.controllers.iter().zip(&cores).map(host).collect();
        let open = self.looks.changed(&hosts);
        let seen = Seen {
            hosts: &hosts,
            now_ms: self.now_ms(),
            lost: self.lost,
            open: &open,
        };
        for invariant in &mut self.invariants {
            if let Err(text) = invariant.check(&seen) {
                let text = format!("{}: {text}", invariant.name());
                return Err(self.violation(text));
            }
        }
        Ok(())
    }

    /// Lets time pass until `holds`, at most so long that something must be wrong.
    pub fn until(
        &mut self,
        what: &str,
        mut holds: impl FnMut(&World) -> Result<(), String>,
    ) -> Result<(), Violation> {
        let end = self.now_ms() + SETTLE_MS;
        loop {
            let Err(missing) = holds(self) else {
                self.trace.note(&format!("reached: {what}"));
                return Ok(());
            };
            if self.now_ms() >= end {
                return Err(self.violation(format!("liveness: not {what} after {SETTLE_MS} ms: {missing}")));
            }
            for _ in 0..10 {
                self.step()?;
            }
        }
    }

    /// A violation that was found now.
    pub fn violation(&self, text: String) -> Violation {
        Violation {
            at_ms: self.now_ms(),
            text,
        }
    }

    /// Processes that ended by themselves: what fell with them is as after a kill.
    fn bury(&mut self) -> Result<(), Violation> {
        for at in 0..self.controllers.len() {
            for end in self.controllers[at].ends() {
                self.trace
                    .note(&format!("{} ended: {end:?}", self.controllers[at].name));
                match end {
                    End::Fatal(text) => {
                        self.expect_fatal(&text)?;
                        self.take_down(at, Down::Killed);
                    }
                    End::NotStarted(text) => {
                        self.expect_fatal(&text)?;
                        self.take_down(at, Down::Killed);
                    }
                    End::Stopped => {
                        self.take_down(at, Down::Killed);
                        self.bring_up(at);
                    }
                }
            }
        }
        Ok(())
    }

    /// Only a failed disk may end a process.
    fn expect_fatal(&self, text: &str) -> Result<(), Violation> {
        match text.contains("disk fails") {
            true => Ok(()),
            false => Err(self.violation(format!("a process ended or did not start: {text}"))),
        }
    }

    /// Names of the other hosts that a controller speaks to.
    fn others(&self, at: usize) -> Vec<String> {
        let controllers = self.controllers.iter().enumerate();
        let others = controllers.filter(|(other, _)| *other != at);
        let names = others.map(|(_, controller)| controller.name.clone());
        names.chain([CLIENTS.to_owned()]).collect()
    }

    fn link(&self, (from, to): (usize, usize)) -> Link {
        (
            self.controllers[from].name.clone(),
            self.controllers[to].name.clone(),
        )
    }

    /// Whether a node may lose something of what it has: once in a run.
    pub fn may_lose(&self) -> bool {
        !self.lost
    }

    /// One has.
    pub fn has_lost(&mut self) {
        self.lost = true;
    }

    /// Whether some node's time runs at another speed than the others'. One at a time may.
    pub fn is_skewed(&self) -> bool {
        self.skewed
    }

    /// See [`World::is_skewed`].
    pub fn set_skewed(&mut self, skewed: bool) {
        self.skewed = skewed;
    }

    /// Starts a client; returns what tells when it is done.
    pub fn start_client<F>(&mut self, run: impl FnOnce(Client) -> F) -> Arc<AtomicBool>
    where
        F: Future<Output = ()> + 'static,
    {
        let stop = self.stop.clone();
        self.start_client_until(stop, run)
    }

    /// Starts a client of a workload.
    pub fn start_worker(&mut self, workload: Arc<dyn Workload>) {
        let stop = match workload.disturbs() {
            true => self.stop_disturbing.clone(),
            false => self.stop.clone(),
        };
        let done = self.start_client_until(stop, |client| async move { workload.work(client).await });
        self.done.push(done);
    }

    /// All are on one host: turmoil's cost per step grows with the
    /// third power of hosts.
    fn start_client_until<F>(
        &mut self,
        stop: Arc<AtomicBool>,
        run: impl FnOnce(Client) -> F,
    ) -> Arc<AtomicBool>
    where
        F: Future<Output = ()> + 'static,
    {
        self.clients += 1;
        let (id, done) = (self.clients, Arc::new(AtomicBool::new(false)));
        let finished = done.clone();
        let env = Env {
            clock: self.clock.clone(),
            rng: Arc::new(SeededRng::new(self.plan.seed ^ (id << 32))),
            net: Arc::new(SimNet {
                host: CLIENTS.to_owned(),
                links: self.links.clone(),
                alive: Arc::new(AtomicBool::new(true)),
            }),
            blocking: Blocking::Inline,
        };
        let site = Site {
            env,
            endpoints: self.endpoints(),
            leisure: self.plan.leisure,
            calm: self.plan.calm,
            stop,
        };
        let running = run(Client { id, site });
        let task = async move {
            running.await;
            finished.store(true, Ordering::Relaxed);
        };
        // The host takes tasks as long as the world is there.
        let _ = self.tasks.send(Box::pin(task));
        done
    }

    fn endpoints(&self) -> Vec<String> {
        let names = self.controllers.iter().map(|controller| &controller.name);
        names.map(|name| format!("{name}:{CLIENT_PORT}")).collect()
    }

    /// Tells those to stop who change the cluster.
    pub fn stop_disturbing(&self) {
        self.stop_disturbing.store(true, Ordering::Relaxed);
    }

    /// Tells all others to stop, and waits until all have: what one of them did last stands in no history before.
    pub fn stop_clients(&mut self) -> Result<(), Violation> {
        self.stop.store(true, Ordering::Relaxed);
        self.until("clients have stopped", |world| {
            let working = world.done.iter().filter(|done| !done.load(Ordering::Relaxed));
            match working.count() {
                0 => Ok(()),
                some => Err(format!("{some} still work")),
            }
        })
    }

    /// Waits until all partitions have leaders and all replicas they should have, in the same state.
    pub fn settle(&mut self, what: &str) -> Result<(), Violation> {
        self.until(what, |world| crate::settled::missing(world).map_or(Ok(()), Err))
    }
}

impl Hurt for World {
    fn plan(&self) -> &Plan {
        &self.plan
    }

    fn trace(&self) -> &Trace {
        &self.trace
    }

    fn now_ms(&self) -> u64 {
        self.sim.elapsed().as_millis() as u64
    }

    fn nodes(&self) -> usize {
        self.controllers.len()
    }

    fn is_down(&self, at: usize) -> bool {
        self.down[at]
    }

    fn take_down(&mut self, at: usize, how: Down) {
        if self.down[at] {
            return;
        }
        self.down[at] = true;
        let controller = self.controllers[at].clone();
        self.trace
            .note(&format!("{} goes down: {how:?}", controller.name));
        controller.forget();
        let others = self.others(at);
        if how == Down::Power {
            // Nothing is said to the others: what the kernel would send does not get out.
            others
                .iter()
                .for_each(|other| self.sim.partition(controller.name.as_str(), other.as_str()));
        }
        self.sim.crash(controller.name.as_str());
        if how == Down::Power {
            others
                .iter()
                .for_each(|other| self.sim.repair(controller.name.as_str(), other.as_str()));
        }
        how.befalls(&controller.disk, &mut self.numbers);
    }

    fn bring_up(&mut self, at: usize) {
        if self.down[at] {
            self.down[at] = false;
            self.trace
                .note(&format!("{} comes up", self.controllers[at].name));
            self.sim.bounce(self.controllers[at].name.as_str());
        }
    }

    fn disk(&self, at: usize) -> &Arc<MemoryDisk> {
        &self.controllers[at].disk
    }

    fn set_sync_delay(&mut self, at: usize, delay: SyncDelay) {
        *self.controllers[at].sync_delay.lock() = delay;
    }

    fn cut(&mut self, link: fault::Link) -> bool {
        self.links.cut(self.link(link))
    }

    fn join(&mut self, link: fault::Link) {
        self.links.join(&self.link(link));
    }

    fn reset(&mut self, pair: fault::Link) {
        let (a, b) = self.link(pair);
        self.links.reset(&a, &b);
    }

    fn refuse(&mut self, link: fault::Link) -> bool {
        self.links.refuse(self.link(link))
    }

    fn admit(&mut self, link: fault::Link) {
        self.links.admit(&self.link(link));
    }

    fn set_latency(&mut self, pair: fault::Link, most_ms: u64) {
        let (a, b) = self.link(pair);
        let most = Duration::from_millis(most_ms);
        self.sim
            .set_link_max_message_latency(a.as_str(), b.as_str(), most);
    }
}

/// A controller, for the invariants.
fn host<'a>((controller, core): (&'a Arc<Controller>, &'a Option<Arc<Core>>)) -> Host<'a> {
    Host {
        id: controller.id(),
        boots: controller.boots(),
        disk: &controller.disk,
        process: core.as_ref().map(|core| (&**core.raft(), &**core.hashes())),
    }
}

/// Runs whatever it is sent.
async fn run_tasks(mut tasks: mpsc::UnboundedReceiver<Task>) -> turmoil::Result {
    while let Some(task) = tasks.recv().await {
        tokio::task::spawn_local(task);
    }
    Ok(())
}
