//! What clients do to a cluster while it is hurt, and how what they saw is judged. One file each: the simulation and the
//! chaos tests run the same ones. To add one: write the file, and name it in [`named`] and [`NAMES`].
//!
//! Must never: record as failed what may have happened ([`record`]).

pub mod append;
pub mod bank;
pub mod client;
pub mod compact;
pub mod counter;
pub mod etcd;
pub mod kv;
pub mod lease;
pub mod lock;
pub mod log;
pub mod moves;
pub mod numbers;
pub mod record;
pub mod register;
pub mod set;
pub mod space;
pub mod watch;

use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;
use checker::Verdict;

pub use client::{Client, Site};

/// Something that broke a promise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Which workload found it.
    pub workload: &'static str,
    /// What.
    pub text: String,
}

impl Finding {
    /// What a judge says: nothing if all is well. To be undecided is no pass.
    pub fn of<V: Debug>(workload: &'static str, verdict: Verdict<Vec<V>>) -> Vec<Finding> {
        let texts = match verdict {
            Verdict::Valid => Vec::new(),
            Verdict::Unknown(why) => vec![format!("undecided: {why}")],
            Verdict::Violated(found) => found.iter().map(|found| format!("{found:?}")).collect(),
        };
        let findings = texts.into_iter().map(|text| Finding { workload, text });
        findings.collect()
    }
}

/// How much a workload did: a run that did nothing shows nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Operations that were answered.
    pub ok: u64,
    /// Operations that certainly did not happen.
    pub failed: u64,
    /// Operations of which nobody knows.
    pub unknown: u64,
}

/// One kind of load, with its own history.
#[async_trait]
pub trait Workload: Send + Sync + 'static {
    /// A word.
    fn name(&self) -> &'static str;
    /// Whether it changes the cluster, which cannot come to order meanwhile.
    fn disturbs(&self) -> bool {
        false
    }
    /// The key space it works in: its own.
    fn namespace(&self) -> &'static str {
        self.name()
    }
    /// What has to be there before the first client begins. Called again until it works.
    async fn prepare(&self, _client: &Client) -> Result<(), tonic::Status> {
        Ok(())
    }
    /// The work of one client, until it is told to stop.
    async fn work(&self, client: Client);
    /// After everything was mended: what must be there in the end. Called again until it works.
    async fn finish(&self, _client: &Client) -> Result<(), String> {
        Ok(())
    }
    /// What was wrong.
    fn judge(&self) -> Vec<Finding>;
    /// What was done.
    fn tally(&self) -> Tally;
    /// Operations whose fate nobody knows though nothing was wrong with the cluster.
    fn unanswered(&self) -> u64 {
        self.tally().unknown
    }
    /// The history as JSON lines, for people and other judges.
    fn history(&self) -> String;
}

/// All workloads.
pub const NAMES: &[&str] = &[
    "append", "bank", "compact", "counter", "kv", "lease", "lock", "moves", "register", "set", "watch",
];

/// A fresh workload by its name.
pub fn named(name: &str) -> Option<Arc<dyn Workload>> {
    match name {
        "append" => Some(Arc::<append::Append>::default()),
        "bank" => Some(Arc::<bank::Bank>::default()),
        "compact" => Some(Arc::<compact::Compaction>::default()),
        "counter" => Some(Arc::<counter::Counter>::default()),
        "kv" => Some(Arc::<kv::Kv>::default()),
        "lease" => Some(Arc::<lease::Leases>::default()),
        "lock" => Some(Arc::<lock::Locks>::default()),
        "moves" => Some(Arc::<moves::Moves>::default()),
        "register" => Some(Arc::<register::Registers>::default()),
        "set" => Some(Arc::<set::Set>::default()),
        "watch" => Some(Arc::<watch::Watching>::default()),
        _ => None,
    }
}
