//! What is done to a cluster, one file each. To add one: write the file, and name it in [`all`].
//!
//! A fault begins, lasts for a while, and is mended. Several may last at a time; one that meets another of its kind on
//! the same node or link may be ended by that one's end.

use std::collections::BTreeMap;
use std::sync::Arc;

use checker::page::Band;
use storage::memory::MemoryDisk;
use workload::numbers::Numbers;

use crate::plan::{Plan, SyncDelay};
use crate::trace::Trace;
use crate::world::{Down, Violation, World};

mod clock;
mod connection;
mod crash;
mod cut;
mod disk;
mod loss;
mod pause;
mod refuse;
mod restart;

/// A link from one node to another, by their positions.
pub type Link = (usize, usize);

/// What can be done to the nodes and links of a cluster, whatever runs there.
pub trait Hurt: 'static {
    /// What this run is.
    fn plan(&self) -> &Plan;
    /// What happens, for people and for comparison.
    fn trace(&self) -> &Trace;
    /// Simulated time.
    fn now_ms(&self) -> u64;
    /// Nodes, up or down.
    fn nodes(&self) -> usize;
    /// Whether a node's process is down.
    fn is_down(&self, at: usize) -> bool;
    /// Ends a node's process, if it runs.
    fn take_down(&mut self, at: usize, how: Down);
    /// Starts a node's process again, if it is down.
    fn bring_up(&mut self, at: usize);
    /// A node's disk.
    fn disk(&self, at: usize) -> &Arc<MemoryDisk>;
    /// From now on a node's syncs take so long.
    fn set_sync_delay(&mut self, at: usize, delay: SyncDelay);
    /// Nothing that one node sends comes to another from now on, unless so already.
    fn cut(&mut self, link: Link) -> bool;
    /// Ends a [`Hurt::cut`].
    fn join(&mut self, link: Link);
    /// Breaks all connections between two nodes.
    fn reset(&mut self, pair: Link);
    /// Connections from one node to another are refused from now on, unless so already.
    fn refuse(&mut self, link: Link) -> bool;
    /// Ends a [`Hurt::refuse`].
    fn admit(&mut self, link: Link);
    /// From now on a message between two nodes takes so long at most, in milliseconds.
    fn set_latency(&mut self, pair: Link, most_ms: u64);
}

/// One kind of fault, of clusters of a kind.
pub trait Fault<W> {
    /// A word, for the plan, the trace and the count.
    fn name(&self) -> &'static str;
    /// Workloads beside which it shows nothing, and why is said there.
    fn not_with(&self) -> &'static [&'static str] {
        &[]
    }
    /// Begins it; `None` if there is nothing that it could be done to now.
    fn begin(&self, world: &mut W, numbers: &mut Numbers) -> Option<Begun<W>>;
}

/// A fault that lasts.
pub struct Begun<W> {
    /// For how long, in milliseconds.
    pub lasts_ms: u64,
    /// What it is, for the trace.
    pub text: String,
    /// Ends it.
    pub mend: Box<dyn FnOnce(&mut W)>,
}

/// All of them, for whole controllers.
pub fn all() -> Vec<Box<dyn Fault<World>>> {
    vec![
        Box::new(crash::Crash),
        Box::new(crash::PowerLoss),
        Box::new(restart::Restart),
        Box::new(cut::Cut),
        Box::new(connection::Reset),
        Box::new(connection::Delay),
        Box::new(refuse::Refuse),
        Box::new(refuse::Flap),
        Box::new(pause::Pause),
        Box::new(clock::WallClock),
        Box::new(clock::Speed),
        Box::new(disk::SlowDisk),
        Box::new(disk::FailingDisk),
        Box::new(disk::FullDisk),
        Box::new(disk::BadCopies),
        Box::new(loss::Damage),
        Box::new(loss::Rot),
        Box::new(loss::Wipe),
    ]
}

/// Their names.
pub fn names<W>(kinds: &[Box<dyn Fault<W>>]) -> Vec<&'static str> {
    kinds.iter().map(|kind| kind.name()).collect()
}

/// Those that need nodes, disks and links alone.
pub fn of_hosts<W: Hurt>() -> Vec<Box<dyn Fault<W>>> {
    vec![
        Box::new(crash::Crash),
        Box::new(crash::PowerLoss),
        Box::new(cut::Cut),
        Box::new(connection::Reset),
        Box::new(connection::Delay),
        Box::new(refuse::Refuse),
        Box::new(refuse::Flap),
        Box::new(disk::SlowDisk),
        Box::new(disk::FailingDisk),
        Box::new(disk::FullDisk),
        Box::new(disk::BadCopies),
    ]
}

struct Lasting<W> {
    from_ms: u64,
    begun: Begun<W>,
}

impl<W> Lasting<W> {
    fn end_ms(&self) -> u64 {
        self.from_ms + self.begun.lasts_ms
    }
}

/// Brings faults over a run and takes them away again.
pub struct Faults<W> {
    kinds: Vec<Box<dyn Fault<W>>>,
    lasting: Vec<Lasting<W>>,
    next_ms: u64,
    numbers: Numbers,
    /// How often each began.
    pub count: BTreeMap<String, u64>,
    /// Those that are over.
    pub past: Vec<Band>,
}

impl<W: Hurt> Faults<W> {
    /// Those of a run's plan, but for what its workloads would not notice.
    pub fn of(world: &W, mut kinds: Vec<Box<dyn Fault<W>>>) -> Faults<W> {
        let plan = world.plan();
        kinds.retain(|kind| plan.faults.iter().any(|name| name == kind.name()));
        let workloads = &plan.workloads;
        let spoils = |kind: &dyn Fault<W>| {
            let mut not_with = kind.not_with().iter();
            not_with.any(|name| workloads.iter().any(|it| it == name))
        };
        kinds.retain(|kind| !spoils(&**kind));
        Faults {
            kinds,
            lasting: Vec::new(),
            next_ms: world.now_ms(),
            numbers: Numbers::of(plan.seed, "faults"),
            count: BTreeMap::new(),
            past: Vec::new(),
        }
    }

    /// Ends what is over and begins what is due.
    pub fn turn(&mut self, world: &mut W) {
        let now_ms = world.now_ms();
        while let Some(at) = self.lasting.iter().position(|it| it.end_ms() <= now_ms) {
            let lasting = self.lasting.remove(at);
            self.end(world, lasting);
        }
        if now_ms < self.next_ms || self.kinds.is_empty() {
            return;
        }
        let (low, high) = world.plan().gap_ms;
        self.next_ms = now_ms + self.numbers.between(low, high);
        let kind = self.numbers.below(self.kinds.len() as u64) as usize;
        let kind = &self.kinds[kind];
        if let Some(begun) = kind.begin(world, &mut self.numbers) {
            *self.count.entry(kind.name().to_owned()).or_default() += 1;
            world
                .trace()
                .note(&format!("fault: {} for {} ms", begun.text, begun.lasts_ms));
            self.lasting.push(Lasting {
                from_ms: now_ms,
                begun,
            });
        }
    }

    /// When the next one begins or ends.
    pub fn next_ms(&self) -> u64 {
        let ends = self.lasting.iter().map(Lasting::end_ms);
        let begins = match self.kinds.is_empty() {
            true => u64::MAX,
            false => self.next_ms,
        };
        ends.chain([begins]).min().unwrap_or(begins)
    }

    /// Ends everything.
    pub fn mend(&mut self, world: &mut W) {
        for lasting in std::mem::take(&mut self.lasting) {
            self.end(world, lasting);
        }
    }

    fn end(&mut self, world: &mut W, lasting: Lasting<W>) {
        let Lasting { from_ms, begun } = lasting;
        world.trace().note(&format!("fault ends: {}", begun.text));
        (begun.mend)(world);
        self.past.push(Band {
            from_ns: from_ms * 1_000_000,
            to_ns: world.now_ms() * 1_000_000,
            text: begun.text,
        });
    }
}

/// Faults come until the safety phase is over; then everything is mended.
pub fn torment(world: &mut World, faults: &mut Faults<World>) -> Result<(), Violation> {
    let end = world.now_ms() + world.plan.safety_ms;
    while world.now_ms() < end {
        faults.turn(world);
        world.step()?;
    }
    faults.mend(world);
    Ok(())
}
