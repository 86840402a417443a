//! etcd's lock, and something that it guards by fencing tokens: a holder may believe in its lock for longer than it has
//! it, and what it then writes is refused. The token is the revision at which the holder's key was made.

use async_trait::async_trait;
use checker::history::Outcome;
use checker::lock::{self, Answer, Ask};
use etcd_client::{
    Client as Etcd, Compare, CompareOp, LeaseGrantOptions, LockOptions, PutOptions, Txn, TxnOp,
};

use crate::client::Client;
use crate::record::{Judge, Name, Past, Record, Recorded, fate};
use crate::{Finding, Workload};

/// The lock's name; no prefix of [`GUARDED`].
const LOCK: &str = "lock";
/// What it guards: the token of whoever wrote last.
const GUARDED: &str = "guarded";
/// Times to live of holders' leases, in seconds.
const TTL_S: (u64, u64) = (2, 4);

/// The workload.
#[derive(Default)]
pub struct Locks {
    record: Record<Locks>,
}

#[async_trait]
impl Workload for Locks {
    fn name(&self) -> &'static str {
        "lock"
    }

    async fn prepare(&self, client: &Client) -> Result<(), tonic::Status> {
        let mut etcd = client.etcd(client.any_node(), self.namespace()).await;
        let new = Compare::version(GUARDED, CompareOp::Equal, 0);
        let put = TxnOp::put(GUARDED, padded(0), None);
        let done = etcd.txn(Txn::new().when([new]).and_then([put])).await;
        done.map(drop)
            .map_err(|error| tonic::Status::unavailable(error.to_string()))
    }

    async fn work(&self, client: Client) {
        let mut name = Name::of(&client);
        while client.goes_on() {
            self.hold(&client, &mut name).await;
            client.pause(0, 200).await;
        }
    }

    /// Two that follow each other, so that tokens can be compared.
    async fn finish(&self, client: &Client) -> Result<(), String> {
        let mut name = Name::of(client);
        for _ in 0..2 {
            self.hold(client, &mut name)
                .await
                .ok_or("the lock was not given")?;
        }
        Ok(())
    }

    fn record(&self) -> &dyn Recorded {
        &self.record
    }
}

impl Judge for Locks {
    type Ask = Ask;
    type Answer = Answer;
    type Known = ();

    fn judge(past: &Past<Locks>) -> Vec<Finding> {
        Finding::of(lock::check(&past.operations), |found| {
            let mut finding = Finding::at(LOCK, found.operation, &found.text);
            if let Some(at) = &mut finding.at {
                at.others = vec![found.before];
            }
            finding
        })
    }

    /// Whoever waits for the lock may wait for long.
    fn is_patient(ask: &Ask) -> bool {
        *ask == Ask::Acquire
    }
}

impl Locks {
    /// Takes the lock, writes under it, sometimes when it has long lost it, and gives it back. `None` if it was not given.
    async fn hold(&self, client: &Client, name: &mut Name) -> Option<()> {
        let (node, mut etcd) = client.connect(self.namespace()).await;
        let ttl_s = TTL_S.0 + client.below(TTL_S.1 - TTL_S.0 + 1);
        let lease = (client.site.env.rng.nonzero() >> 1).max(1) as i64;
        let taking = acquire(&mut etcd, lease, ttl_s);
        let taken = self
            .record
            .operate(client, name, node, Ask::Acquire, taking)
            .await;
        let Some(Answer::Acquired(token)) = taken else {
            // Whoever waits no longer must not stand in the others' way.
            let _ = tokio::time::timeout(crate::client::PATIENCE, etcd.lease_revoke(lease)).await;
            return None;
        };
        for _ in 0..client.below(4) {
            match client.once_in(6) {
                true => {
                    let long_ms = 1000 * ttl_s / client.site.leisure;
                    client.pause(long_ms, 2 * long_ms).await;
                }
                false => client.pause(5, 100).await,
            }
            let writing = write(&mut etcd, token);
            self.record
                .operate(client, name, node, Ask::Write(token), writing)
                .await;
        }
        // Sometimes left to the lease.
        if !client.once_in(6) {
            let releasing = async {
                etcd.lease_revoke(lease).await.map_err(|error| fate(&error))?;
                Ok(Answer::Released)
            };
            self.record
                .operate(client, name, node, Ask::Release, releasing)
                .await;
        }
        Some(())
    }
}

/// So that the order of texts is the order of numbers.
fn padded(token: u64) -> String {
    format!("{token:020}")
}

async fn acquire(etcd: &mut Etcd, lease: i64, ttl_s: u64) -> Result<Answer, Outcome<()>> {
    let failed = |error: etcd_client::Error| fate(&error);
    let granted = LeaseGrantOptions::new().with_id(lease);
    etcd.lease_grant(ttl_s as i64, Some(granted))
        .await
        .map_err(failed)?;
    let asked = LockOptions::new().with_lease(lease);
    let held = etcd.lock(LOCK, Some(asked)).await.map_err(failed)?;
    let key = etcd.get(held.key(), None).await.map_err(failed)?;
    let key = key.kvs().first();
    let key = key.ok_or_else(|| Outcome::Unknown("the lock was lost before its token was read".into()))?;
    Ok(Answer::Acquired(key.create_revision() as u64))
}

async fn write(etcd: &mut Etcd, token: u64) -> Result<Answer, Outcome<()>> {
    let no_higher = Compare::value(GUARDED, CompareOp::Less, padded(token + 1));
    let put = TxnOp::put(GUARDED, padded(token), None::<PutOptions>);
    let done = etcd.txn(Txn::new().when([no_higher]).and_then([put])).await;
    Ok(Answer::Written(done.map_err(|error| fate(&error))?.succeeded()))
}
