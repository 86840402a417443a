//! The nodes of a run, what is done to them, and what is looked at.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use env::{Blocking, Env, SeededRng};
use raft::{MembershipError, Replica};
use storage::memory::MemoryDisk;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};
use types::{NodeId, PartitionId, ReplicaId};
use workload::numbers::Numbers;
use workload::register::Registers;
use workload::{Client, Site};

use super::fabric::{Fabric, NoSockets};
use super::load::Direct;
use super::member::Member;
use super::moves;
use crate::clock::TrueClock;
use crate::fault::{Hurt, Link};
use crate::invariant::{self, Host, Invariant, Looks, Seen};
use crate::plan::{Plan, SyncDelay};
use crate::trace::Trace;
use crate::world::{self, Down, SETTLE_MS, Violation};

/// What happens within this time is looked at together.
const TOGETHER: Duration = Duration::from_millis(1);
/// Between two looks when nothing was said to have happened.
const LOOK: Duration = Duration::from_millis(50);

/// What clients and moves use of a cluster.
pub struct Members {
    /// All nodes.
    pub all: Vec<Arc<Member>>,
    /// Partitions, from 1.
    pub partitions: u32,
    /// Replica ids given so far.
    pub replicas: std::sync::atomic::AtomicU64,
    /// Delay of a message between a client and a node, in milliseconds.
    pub latency_ms: (u64, u64),
}

impl Members {
    /// The replica of a partition at a node, if both are there.
    pub fn replica(&self, node: usize, partition: PartitionId) -> Option<Replica> {
        self.all[node].running()?.0.replica(partition)
    }

    /// The replica that leads a partition, if one says so; of several, the one of the newest term.
    pub fn leader(&self, partition: PartitionId) -> Option<Replica> {
        let replicas = (0..self.all.len()).filter_map(|node| self.replica(node, partition));
        replicas
            .filter(Replica::is_leader)
            .max_by_key(|replica| replica.marks().term)
    }

    /// An id that no replica had.
    pub fn next_replica(&self) -> ReplicaId {
        ReplicaId(self.replicas.fetch_add(1, Ordering::Relaxed) + 1)
    }
}

/// A running cluster.
pub struct Cluster {
    plan: Plan,
    trace: Trace,
    begun: Instant,
    members: Arc<Members>,
    fabric: Arc<Fabric>,
    news: Arc<Notify>,
    invariants: Vec<Box<dyn Invariant>>,
    looks: Looks,
    numbers: Numbers,
    clients: u64,
    clock: Arc<TrueClock>,
    stop: Arc<AtomicBool>,
    stop_moves: Arc<AtomicBool>,
    working: JoinSet<()>,
    moves: JoinSet<()>,
}

impl Cluster {
    /// The nodes of `plan`, each with a process that starts. Within the runtime of the run.
    pub fn new(plan: Plan, trace: Trace) -> Cluster {
        let fabric = Fabric::new(plan.seed, plan.latency_ms);
        let news = Arc::<Notify>::default();
        let all: Vec<_> = (1..=plan.nodes)
            .map(|id| Member::new(&plan, id, &fabric, &news))
            .collect();
        all.iter().for_each(Member::start);
        let members = Members {
            all,
            partitions: plan.partitions,
            replicas: Default::default(),
            latency_ms: plan.latency_ms,
        };
        Cluster {
            begun: Instant::now(),
            members: Arc::new(members),
            invariants: invariant::all(),
            looks: Looks::default(),
            numbers: Numbers::of(plan.seed, "world"),
            clients: 0,
            clock: Arc::new(TrueClock::since(Instant::now())),
            stop: Arc::default(),
            stop_moves: Arc::default(),
            working: JoinSet::new(),
            moves: JoinSet::new(),
            fabric,
            news,
            trace,
            plan,
        }
    }

    /// Lets time pass up to a moment, and looks at whatever happens.
    pub async fn pass_until(&mut self, end_ms: u64) -> Result<(), Violation> {
        let end = self.begun + Duration::from_millis(end_ms);
        while Instant::now() < end {
            let news = self.news.clone();
            let quiet = (Instant::now() + LOOK).min(end);
            tokio::select! {
                () = sleep_until(quiet) => {}
                () = news.notified() => sleep(TOGETHER).await,
            }
            self.look()?;
        }
        Ok(())
    }

    /// Does something that the run waits for, and goes on looking meanwhile.
    async fn done<T>(&mut self, what: &str, doing: impl Future<Output = T>) -> Result<T, Violation> {
        tokio::pin!(doing);
        let end_ms = self.now_ms() + SETTLE_MS;
        while self.now_ms() < end_ms {
            let next_ms = self.now_ms() + 10;
            let done = tokio::time::timeout(Duration::ZERO, &mut doing).await;
            if let Ok(done) = done {
                return Ok(done);
            }
            self.pass_until(next_ms).await?;
        }
        Err(self.violation(format!("liveness: not {what} after {SETTLE_MS} ms")))
    }

    /// Founds every partition and gives it its voters.
    pub async fn form(&mut self) -> Result<(), Violation> {
        let members = self.members.clone();
        for partition in (1..=self.plan.partitions).map(PartitionId) {
            let founding = moves::found(
                members.clone(),
                partition,
                self.numbers.below(self.plan.nodes) as usize,
            );
            self.done(&format!("partition {partition} founded"), founding)
                .await?;
        }
        self.settle("all partitions in order").await
    }

    /// Looks at everything.
    fn look(&mut self) -> Result<(), Violation> {
        world::steps().store(self.now_ms(), Ordering::Relaxed);
        self.bury()?;
        if let Some(panic) = self.trace.panic() {
            return Err(self.violation(format!("panic: {panic}")));
        }
        let running: Vec<_> = self.members.all.iter().map(|member| member.running()).collect();
        let hosts = self.members.all.iter().zip(&running);
        let hosts: Vec<_> = hosts
            .map(|(member, running)| Host {
                id: member.id,
                boots: member.boots(),
                disk: &member.disk,
                process: running.as_ref().map(|(node, hashes)| (&**node, &**hashes)),
            })
            .collect();
        let open = self.looks.changed(&hosts);
        let seen = Seen {
            hosts: &hosts,
            now_ms: self.begun.elapsed().as_millis() as u64,
            lost: false,
            open: &open,
        };
        for invariant in &mut self.invariants {
            if let Err(text) = invariant.check(&seen) {
                return Err(Violation {
                    at_ms: seen.now_ms,
                    text: format!("{}: {text}", invariant.name()),
                });
            }
        }
        Ok(())
    }

    /// Processes that ended by themselves: only a failed disk may end one.
    fn bury(&mut self) -> Result<(), Violation> {
        for at in 0..self.members.all.len() {
            for text in self.members.all[at].ends() {
                self.trace
                    .note(&format!("{} ended: {text}", self.members.all[at].name));
                if !text.contains("disk fails") {
                    return Err(self.violation(format!("a process ended or did not start: {text}")));
                }
                self.take_down(at, Down::Killed);
            }
        }
        Ok(())
    }

    fn violation(&self, text: String) -> Violation {
        Violation {
            at_ms: self.now_ms(),
            text,
        }
    }

    /// Starts a client of the registers.
    pub fn start_worker(&mut self, registers: Arc<Registers>) {
        let client = self.client(self.stop.clone());
        let direct = Direct::new(self.members.clone(), client.clone());
        self.working
            .spawn(async move { registers.work_over(client, direct).await });
    }

    /// Starts what moves leaders and replicas.
    pub fn start_moves(&mut self) {
        let client = self.client(self.stop_moves.clone());
        self.moves.spawn(moves::disturb(self.members.clone(), client));
    }

    fn client(&mut self, stop: Arc<AtomicBool>) -> Client {
        self.clients += 1;
        let env = Env {
            clock: self.clock.clone(),
            rng: Arc::new(SeededRng::new(self.plan.seed ^ (self.clients << 32))),
            net: Arc::new(NoSockets),
            blocking: Blocking::Inline,
        };
        let site = Site {
            env,
            endpoints: self
                .members
                .all
                .iter()
                .map(|member| member.name.clone())
                .collect(),
            leisure: self.plan.leisure,
            calm: self.plan.calm,
            stop,
        };
        Client {
            id: self.clients,
            site,
        }
    }

    /// Tells clients to stop, and waits until all have: what one of them did last stands in no history before.
    pub async fn stop_clients(&mut self) -> Result<(), Violation> {
        self.stop.store(true, Ordering::Relaxed);
        let working = std::mem::take(&mut self.working);
        self.done("clients have stopped", all_ended(working)).await
    }

    /// Everything runs again, nobody moves replicas, and what moves have left is cleared away.
    pub async fn heal(&mut self) -> Result<(), Violation> {
        for at in 0..self.nodes() {
            self.bring_up(at);
        }
        self.stop_moves.store(true, Ordering::Relaxed);
        // The last of them may be half done.
        let moves = std::mem::take(&mut self.moves);
        self.done("moves ended", all_ended(moves)).await?;
        let clearing = moves::clear_away(self.members.clone());
        self.done("what moves have left is cleared away", clearing)
            .await?;
        self.settle("all partitions in order after the faults").await
    }

    /// Waits until all partitions have leaders and all their replicas the same state.
    pub async fn settle(&mut self, what: &str) -> Result<(), Violation> {
        let end_ms = self.now_ms() + SETTLE_MS;
        while let Some(missing) = self.missing() {
            if self.now_ms() >= end_ms {
                return Err(self.violation(format!("liveness: not {what} after {SETTLE_MS} ms: {missing}")));
            }
            let next_ms = self.now_ms() + 10;
            self.pass_until(next_ms).await?;
        }
        self.trace.note(&format!("reached: {what}"));
        Ok(())
    }

    /// What is not in order, if something is not.
    fn missing(&self) -> Option<String> {
        let partitions = (1..=self.plan.partitions).map(PartitionId);
        partitions
            .filter_map(|partition| self.missing_in(partition))
            .next()
    }

    fn missing_in(&self, partition: PartitionId) -> Option<String> {
        let Some(leader) = self.members.leader(partition) else {
            return Some(format!("partition {partition} is not led"));
        };
        let status = leader.status();
        if status.is_joint {
            return Some(format!("partition {partition} changes its voters"));
        }
        let members: BTreeSet<(ReplicaId, NodeId)> =
            status.voters.iter().chain(&status.learners).copied().collect();
        let mut applied = BTreeMap::new();
        for (replica, node) in members {
            let there = self.members.replica(node.0 as usize - 1, partition);
            let Some(there) = there.filter(|there| there.replica_id() == replica) else {
                return Some(format!(
                    "replica {replica} of partition {partition} is not open on node {node}"
                ));
            };
            applied.insert(replica, there.marks().applied);
        }
        let apart = applied.values().any(|index| *index != status.last_log);
        apart.then(|| {
            format!(
                "partition {partition} is applied up to {applied:?} of {}",
                status.last_log
            )
        })
    }
}

/// Whether a change that failed may work a little later.
pub fn passes(error: &MembershipError) -> bool {
    error.is_retryable()
        || matches!(
            error,
            MembershipError::NotLeader { .. } | MembershipError::PassedOn { .. } | MembershipError::Stopped
        )
}

impl Hurt for Cluster {
    fn plan(&self) -> &Plan {
        &self.plan
    }

    fn trace(&self) -> &Trace {
        &self.trace
    }

    fn now_ms(&self) -> u64 {
        self.begun.elapsed().as_millis() as u64
    }

    fn nodes(&self) -> usize {
        self.members.all.len()
    }

    fn is_down(&self, at: usize) -> bool {
        self.members.all[at].is_down()
    }

    fn take_down(&mut self, at: usize, how: Down) {
        if !self.is_down(at) {
            let member = &self.members.all[at];
            self.trace.note(&format!("{} goes down: {how:?}", member.name));
            member.end(how, &mut self.numbers);
        }
    }

    fn bring_up(&mut self, at: usize) {
        if self.is_down(at) {
            let name = self.members.all[at].name.clone();
            self.trace.note(&format!("{name} comes up"));
            // The kernel answers what still comes on connections of before.
            let others = self.members.all.iter().filter(|other| other.name != name);
            others.for_each(|other| self.fabric.links.reset(&name, &other.name));
            self.members.all[at].start();
        }
    }

    fn disk(&self, at: usize) -> &Arc<MemoryDisk> {
        &self.members.all[at].disk
    }

    fn set_sync_delay(&mut self, at: usize, delay: SyncDelay) {
        *self.members.all[at].sync_delay.lock() = delay;
    }

    fn cut(&mut self, link: Link) -> bool {
        self.fabric.links.cut(self.link(link))
    }

    fn join(&mut self, link: Link) {
        self.fabric.links.join(&self.link(link));
    }

    fn reset(&mut self, pair: Link) {
        let (a, b) = self.link(pair);
        self.fabric.links.reset(&a, &b);
    }

    fn refuse(&mut self, link: Link) -> bool {
        self.fabric.links.refuse(self.link(link))
    }

    fn admit(&mut self, link: Link) {
        self.fabric.links.admit(&self.link(link));
    }

    fn set_latency(&mut self, pair: Link, most_ms: u64) {
        let pair = self.link(pair);
        self.fabric.set_latency(pair, most_ms);
    }
}

impl Cluster {
    fn link(&self, (from, to): Link) -> crate::net::Link {
        let name = |at: usize| self.members.all[at].name.clone();
        (name(from), name(to))
    }
}

async fn all_ended(mut tasks: JoinSet<()>) {
    while let Some(ended) = tasks.join_next().await {
        assert!(ended.is_ok(), "a task panicked");
    }
}
