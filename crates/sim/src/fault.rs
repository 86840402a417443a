//! What is done to a cluster, one file each. To add one: write the file, and name it in [`all`].
//!
//! A fault begins, lasts for a while, and is mended. Several may last at a time; one that meets another of its kind on
//! the same node or link may be ended by that one's end.

use std::collections::BTreeMap;

use crate::world::{Violation, World};
use workload::numbers::Numbers;

mod clock;
mod connection;
mod crash;
mod cut;
mod disk;
mod loss;
mod pause;
mod refuse;
mod restart;

/// One kind of fault.
pub trait Fault {
    /// A word, for the plan, the trace and the count.
    fn name(&self) -> &'static str;
    /// Workloads beside which it shows nothing, and why is said there.
    fn not_with(&self) -> &'static [&'static str] {
        &[]
    }
    /// Begins it; `None` if there is nothing that it could be done to now.
    fn begin(&self, world: &mut World, numbers: &mut Numbers) -> Option<Begun>;
}

/// A fault that lasts.
pub struct Begun {
    /// For how long, in milliseconds.
    pub lasts_ms: u64,
    /// What it is, for the trace.
    pub text: String,
    /// Ends it.
    pub mend: Box<dyn FnOnce(&mut World)>,
}

/// All of them.
pub fn all() -> Vec<Box<dyn Fault>> {
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
        Box::new(loss::Damage),
        Box::new(loss::Wipe),
    ]
}

/// Brings faults over a run and takes them away again.
pub struct Faults {
    kinds: Vec<Box<dyn Fault>>,
    lasting: Vec<(u64, Begun)>,
    next_ms: u64,
    numbers: Numbers,
    /// How often each began.
    pub count: BTreeMap<String, u64>,
}

impl Faults {
    /// Those of a run: a few of all kinds, so that they meet in all combinations over the seeds.
    pub fn of(world: &World) -> Faults {
        let mut numbers = Numbers::of(world.plan.seed, "faults");
        let mut kinds = all();
        match &world.plan.faults {
            _ if world.plan.calm => kinds.clear(),
            Some(only) => kinds.retain(|kind| only.iter().any(|name| name == kind.name())),
            None if numbers.once_in(4) => {}
            None => kinds.retain(|_| numbers.once_in(2)),
        }
        let workloads = &world.plan.workloads;
        let spoils = |kind: &dyn Fault| {
            let mut not_with = kind.not_with().iter();
            not_with.any(|name| workloads.iter().any(|it| it == name))
        };
        kinds.retain(|kind| !spoils(&**kind));
        Faults {
            kinds,
            lasting: Vec::new(),
            next_ms: world.now_ms(),
            numbers,
            count: BTreeMap::new(),
        }
    }

    /// Ends what is over and begins what is due.
    pub fn turn(&mut self, world: &mut World) {
        let now_ms = world.now_ms();
        while let Some(at) = self.lasting.iter().position(|(end_ms, _)| *end_ms <= now_ms) {
            let (_, begun) = self.lasting.remove(at);
            world.trace.note(&format!("fault ends: {}", begun.text));
            (begun.mend)(world);
        }
        if now_ms < self.next_ms || self.kinds.is_empty() {
            return;
        }
        let (low, high) = world.plan.gap_ms;
        self.next_ms = now_ms + self.numbers.between(low, high);
        let kind = self.numbers.below(self.kinds.len() as u64) as usize;
        let kind = &self.kinds[kind];
        if let Some(begun) = kind.begin(world, &mut self.numbers) {
            *self.count.entry(kind.name().to_owned()).or_default() += 1;
            world
                .trace
                .note(&format!("fault: {} for {} ms", begun.text, begun.lasts_ms));
            self.lasting.push((now_ms + begun.lasts_ms, begun));
        }
    }

    /// Ends everything.
    pub fn mend(&mut self, world: &mut World) {
        for (_, begun) in self.lasting.drain(..) {
            world.trace.note(&format!("fault ends: {}", begun.text));
            (begun.mend)(world);
        }
    }
}

/// Faults come until the safety phase is over; then everything is mended.
pub fn torment(world: &mut World, faults: &mut Faults) -> Result<(), Violation> {
    let end = world.now_ms() + world.plan.safety_ms;
    while world.now_ms() < end {
        faults.turn(world);
        world.step()?;
    }
    faults.mend(world);
    Ok(())
}
