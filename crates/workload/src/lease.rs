//! Leases with a key attached to each: kept alive for a while, then left alone or ended, and looked at until they are
//! gone. None ends before its time, none lives on long after it, none comes back.
//!
//! Time is the recorder's. Where nodes' clocks run at other speeds than it, up to the drift that is allowed for here.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use checker::Verdict;
use checker::history::{Of, Outcome};
use checker::lease::{self, Answer, Ask, Terms};
use checker::linear;
use etcd_client::{Client as Etcd, LeaseGrantOptions, PutOptions};

use crate::client::Client;
use crate::record::{Judge, Name, Past, Record, Recorded, fate};
use crate::{Finding, Workload};

/// Times to live that are asked for, in seconds.
const TTL_S: (u64, u64) = (2, 5);
/// How much faster than the recorder's a clock may run, in tenths of the time to live.
const DRIFT_TENTHS: u64 = 2;
/// How much later a lease must have ended: a cluster without a leader ends none.
const GRACE: Duration = Duration::from_secs(150);
/// The same where nothing is wrong.
const GRACE_CALM: Duration = Duration::from_secs(4);

/// The workload.
#[derive(Default)]
pub struct Leases {
    record: Record<Leases>,
}

#[async_trait]
impl Workload for Leases {
    fn name(&self) -> &'static str {
        "lease"
    }

    async fn work(&self, client: Client) {
        let mut name = Name::of(&client);
        while client.goes_on() {
            self.live(&client, &mut name).await;
        }
    }

    fn record(&self) -> &dyn Recorded {
        &self.record
    }
}

impl Judge for Leases {
    type Ask = Of<Ask>;
    type Answer = Answer;
    /// The time to live of each lease, in seconds.
    type Known = BTreeMap<String, u64>;

    fn judge(past: &Past<Leases>) -> Vec<Finding> {
        let leases = linear::by_key(&past.operations, |of| of.key.clone()).into_iter();
        let wrong = leases.filter_map(|(key, places)| one(past, &key, &places));
        wrong.collect()
    }

    fn concerns(ask: &Of<Ask>, key: &str) -> bool {
        ask.key == key
    }
}

/// What is wrong with one lease.
fn one(past: &Past<Leases>, key: &str, places: &[usize]) -> Option<Finding> {
    let Some(ttl_s) = past.known.get(key) else {
        return Some(Finding::undecided(&format!(
            "how long {key} was to live is not told"
        )));
    };
    let ttl_ns = ttl_s * 1_000_000_000;
    let grace = if past.calm { GRACE_CALM } else { GRACE };
    let terms = Terms {
        ttl_ns,
        drift_ns: ttl_ns * DRIFT_TENTHS / 10,
        grace_ns: grace.as_nanos() as u64,
    };
    let here = places.iter().map(|at| &past.operations[*at]);
    let history: Vec<_> = here
        .map(|operation| operation.asking(operation.ask.ask.clone()))
        .collect();
    match lease::check(&history, terms) {
        // Unknown: nobody had an answer to a look.
        Verdict::Valid | Verdict::Unknown(_) => None,
        Verdict::Violated(found) => {
            let first = &found[0];
            Some(Finding::at(key, places[first.operation], &first.text))
        }
    }
}

impl Leases {
    /// From the grant to the end of one lease.
    async fn live(&self, client: &Client, name: &mut Name) {
        let ttl_s = TTL_S.0 + client.below(TTL_S.1 - TTL_S.0 + 1);
        let (mut node, mut etcd) = client.connect(self.namespace()).await;
        // Its own, so that it is known even if the answer is lost.
        let id = (client.site.env.rng.nonzero() >> 1).max(1) as i64;
        let key = format!("l{id:x}");
        self.record.known(|lives| lives.insert(key.clone(), ttl_s));
        let asking = |ask: &Ask| Of {
            key: key.clone(),
            ask: ask.clone(),
        };
        let granting = grant(&mut etcd, id, &key, ttl_s);
        let asked = asking(&Ask::Grant);
        let granted = self.record.operate(client, name, node, asked, granting).await;
        if granted.is_none() {
            return;
        }
        let (renewals, revoke) = (client.below(6), client.once_in(4));
        let mut left = renewals;
        loop {
            client.pause(100, 700).await;
            let ask = match left {
                0 => Ask::Read,
                _ if client.once_in(3) => Ask::Read,
                1 if revoke => Ask::Revoke,
                _ => Ask::KeepAlive,
            };
            left = left.saturating_sub(u64::from(ask != Ask::Read));
            let doing = perform(&mut etcd, id, &key, &ask);
            let answer = self.record.operate(client, name, node, asking(&ask), doing).await;
            match answer {
                Some(Answer::There(false) | Answer::Alive(false)) => return,
                Some(_) if client.goes_on() => {}
                Some(_) => return,
                None => (node, etcd) = client.connect(self.namespace()).await,
            }
        }
    }
}

async fn grant(etcd: &mut Etcd, id: i64, key: &str, ttl_s: u64) -> Result<Answer, Outcome<()>> {
    let failed = |error: etcd_client::Error| fate(&error);
    let options = LeaseGrantOptions::new().with_id(id);
    etcd.lease_grant(ttl_s as i64, Some(options))
        .await
        .map_err(failed)?;
    let attached = etcd.put(key, "", Some(PutOptions::new().with_lease(id))).await;
    // The grant has happened, whatever became of the key.
    attached.map_err(|error| Outcome::Unknown(error.to_string()))?;
    Ok(Answer::Done)
}

async fn perform(etcd: &mut Etcd, id: i64, key: &str, ask: &Ask) -> Result<Answer, Outcome<()>> {
    let failed = |error: etcd_client::Error| fate(&error);
    match ask {
        Ask::Grant => Err(Outcome::Failed("granted once".into())),
        Ask::KeepAlive => {
            let opened = etcd.lease_keep_alive(id).await;
            if let Err(etcd_client::Error::LeaseKeepAliveError(text)) = &opened
                && text == "lease not found"
            {
                return Ok(Answer::Alive(false));
            }
            let (mut keeper, mut kept) = opened.map_err(failed)?;
            keeper.keep_alive().await.map_err(failed)?;
            let told = kept.message().await.map_err(failed)?;
            let told = told.ok_or_else(|| Outcome::Unknown("no answer".into()))?;
            Ok(Answer::Alive(told.ttl() > 0))
        }
        Ask::Revoke => {
            etcd.lease_revoke(id).await.map_err(failed)?;
            Ok(Answer::Done)
        }
        Ask::Read => {
            let got = etcd.get(key, None).await.map_err(failed)?;
            Ok(Answer::There(!got.kvs().is_empty()))
        }
    }
}
