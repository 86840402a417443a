//! What clients do to a cluster while it is hurt, and how what they saw is judged. One file each: the simulation and the
//! chaos tests run the same ones. To add one: write the file, and name it in the list below.
//!
//! Must never: record as failed what may have happened ([`record`]).

pub mod append;
pub mod bank;
pub mod client;
pub mod compact;
pub mod counter;
pub mod etcd;
pub mod kept;
pub mod kv;
pub mod lease;
pub mod lock;
pub mod log;
pub mod moves;
pub mod numbers;
pub mod process;
pub mod record;
pub mod register;
pub mod set;
pub mod space;
pub mod watch;

use std::sync::Arc;

use async_trait::async_trait;
use checker::Verdict;
use checker::page::Failure;

pub use client::{Client, Site};
use record::Recorded;

/// Something that broke a promise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What.
    pub text: String,
    /// Where in the history, if the judge can say.
    pub at: Option<Failure>,
}

impl Finding {
    /// One that is nowhere in particular.
    pub fn new(text: String) -> Finding {
        Finding { text, at: None }
    }

    /// One that is told by an operation, about a key.
    pub fn at(key: &str, operation: usize, text: &str) -> Finding {
        Finding {
            text: format!("{key}: operation {operation}: {text}"),
            at: Some(Failure {
                key: key.to_owned(),
                operation,
                ..Failure::default()
            }),
        }
    }

    /// One that a judge could not decide. To be undecided is no pass.
    pub fn undecided(why: &str) -> Finding {
        Finding::new(format!("undecided: {why}"))
    }

    /// What a judge says: nothing if all is well.
    pub fn of<V>(verdict: Verdict<Vec<V>>, tell: impl FnMut(V) -> Finding) -> Vec<Finding> {
        match verdict {
            Verdict::Valid => Vec::new(),
            Verdict::Unknown(why) => vec![Finding::undecided(&why)],
            Verdict::Violated(found) => found.into_iter().map(tell).collect(),
        }
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
    /// Whether it asks about the cluster itself, and so the meta partition instead of that key space's.
    fn is_about_the_cluster(&self) -> bool {
        false
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
    /// What was done, what came of it, and the judge of that.
    fn record(&self) -> &dyn Recorded;
}

/// The list of them, by the names of their files.
macro_rules! workloads {
    ($($module:ident::$workload:ident,)*) => {
        /// All workloads.
        pub const NAMES: &[&str] = &[$(stringify!($module)),*];

        /// A fresh workload by its name.
        pub fn named(name: &str) -> Option<Arc<dyn Workload>> {
            $(if name == stringify!($module) {
                return Some(Arc::<$module::$workload>::default());
            })*
            None
        }
    };
}

workloads! {
    append::Append,
    bank::Bank,
    compact::Compaction,
    counter::Counter,
    kv::Kv,
    lease::Leases,
    lock::Locks,
    moves::Moves,
    register::Registers,
    set::Set,
    watch::Watching,
}
