//! Brings faults over a run, one each few seconds, and takes them away again. Each kind has its turn before any has a
//! second one.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::cluster::Cluster;
use crate::nemesis::{Begun, Nemesis};
use crate::store::Lines;
use workload::numbers::Numbers;

/// Faults that last at a time.
const AT_ONCE: usize = 3;
/// When nothing can be done now, how soon something else is tried.
const SOON: Duration = Duration::from_millis(300);

/// How often a kind of fault was brought, and how often it was noticed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// Begun.
    pub begun: u64,
    /// Seen to have had an effect.
    pub seen: u64,
}

/// One line of `faults.jsonl`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Fault {
    /// When it began: since the run began, as the histories count.
    pub from_ms: u64,
    /// When it was mended.
    pub to_ms: u64,
    /// Its kind.
    pub kind: String,
    /// What it was.
    pub text: String,
    /// What proved it.
    pub seen: Option<String>,
}

struct Lasting {
    kind: &'static str,
    from: Duration,
    begun: Begun,
}

/// The faults of a run.
pub struct Torment {
    kinds: Vec<Box<dyn Nemesis>>,
    round: Vec<usize>,
    lasting: Vec<Lasting>,
    next: Duration,
    gap_ms: (u64, u64),
    numbers: Numbers,
    lines: Lines,
    /// By kind.
    pub count: BTreeMap<&'static str, Count>,
    /// All that are over.
    pub faults: Vec<Fault>,
    /// The last that began.
    pub last: String,
    /// Processes that ended though nothing was done to them.
    pub odd_ends: Vec<String>,
}

impl Torment {
    /// Those of these kinds.
    pub fn new(
        kinds: Vec<Box<dyn Nemesis>>,
        seed: u64,
        gap_ms: (u64, u64),
        begins: Duration,
        lines: Lines,
    ) -> Torment {
        let count = kinds.iter().map(|kind| (kind.name(), Count::default())).collect();
        Torment {
            kinds,
            round: Vec::new(),
            lasting: Vec::new(),
            next: begins,
            gap_ms,
            numbers: Numbers::of(seed, "faults"),
            lines,
            count,
            faults: Vec::new(),
            last: "none yet".into(),
            odd_ends: Vec::new(),
        }
    }

    /// Faults so far.
    pub fn begun(&self) -> u64 {
        self.count.values().map(|count| count.begun).sum()
    }

    /// Ends what is over and begins what is due.
    pub fn turn(&mut self, cluster: &mut Cluster, now: Duration) -> Result<()> {
        self.look_after(cluster, now)?;
        let over = |lasting: &Lasting| lasting.from + lasting.begun.lasts <= now;
        while let Some(at) = self.lasting.iter().position(over) {
            let lasting = self.lasting.remove(at);
            self.mend(cluster, lasting, now)?;
        }
        if now < self.next || self.kinds.is_empty() || self.lasting.len() >= AT_ONCE {
            return Ok(());
        }
        if self.round.is_empty() {
            self.round = (0..self.kinds.len()).collect();
        }
        let place = self.numbers.below(self.round.len() as u64) as usize;
        let kind = &self.kinds[self.round[place]];
        let Some(begun) = kind.begin(cluster, &mut self.numbers)? else {
            self.next = now + SOON;
            return Ok(());
        };
        self.round.swap_remove(place);
        let (low, high) = self.gap_ms;
        self.next = now + Duration::from_millis(self.numbers.between(low, high.max(low)));
        self.count.entry(kind.name()).or_default().begun += 1;
        self.last = begun.text.clone();
        self.lasting.push(Lasting {
            kind: kind.name(),
            from: now,
            begun,
        });
        Ok(())
    }

    /// Ends everything.
    pub fn end(&mut self, cluster: &mut Cluster, now: Duration) -> Result<()> {
        for lasting in std::mem::take(&mut self.lasting) {
            self.mend(cluster, lasting, now)?;
        }
        Ok(())
    }

    /// A process that ended by itself though nothing was done to it that may end it is a finding, and is started again.
    pub fn look_after(&mut self, cluster: &mut Cluster, now: Duration) -> Result<()> {
        for (at, status) in cluster.ended()? {
            let controller = &mut cluster.controllers[at];
            if !controller.excuse.holds(Instant::now()) && !controller.stopping {
                let text = format!("node {} ended by itself: {status}", at + 1);
                self.lines.add(&Fault {
                    from_ms: now.as_millis() as u64,
                    to_ms: now.as_millis() as u64,
                    kind: "end".into(),
                    text: text.clone(),
                    seen: None,
                })?;
                self.odd_ends.push(text);
            }
            if !controller.excuse.lasts() && controller.held_down == 0 {
                controller.start()?;
            }
        }
        Ok(())
    }

    fn mend(&mut self, cluster: &mut Cluster, lasting: Lasting, now: Duration) -> Result<()> {
        let seen = (lasting.begun.mend)(cluster)?;
        self.count.entry(lasting.kind).or_default().seen += u64::from(seen.is_some());
        let fault = Fault {
            from_ms: lasting.from.as_millis() as u64,
            to_ms: now.as_millis() as u64,
            kind: lasting.kind.to_owned(),
            text: lasting.begun.text,
            seen,
        };
        self.lines.add(&fault)?;
        self.faults.push(fault);
        Ok(())
    }
}
