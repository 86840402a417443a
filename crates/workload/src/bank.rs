//! Money moves between accounts by transactions that compare what was read before. None is made or lost.

use std::collections::BTreeMap;

use async_trait::async_trait;
use checker::bank::{self, Answer, Ask};
use checker::history::Outcome;
use etcd_client::{Client as Etcd, Compare, CompareOp, GetOptions, Txn, TxnOp};

use crate::client::Client;
use crate::process::{OverEtcd, Process};
use crate::record::{Judge, Past, Record, Recorded, fate};
use crate::{Finding, Workload};

const ACCOUNTS: u64 = 5;
const EACH: i64 = 100;

/// The workload.
#[derive(Default)]
pub struct Bank {
    record: Record<Bank>,
}

#[async_trait]
impl Workload for Bank {
    fn name(&self) -> &'static str {
        "bank"
    }

    async fn prepare(&self, client: &Client) -> Result<(), tonic::Status> {
        let mut etcd = client.etcd(client.any_node(), self.namespace()).await;
        let open: Vec<_> = (0..ACCOUNTS)
            .map(|at| TxnOp::put(account(at), EACH.to_string(), None))
            .collect();
        // Once: it is called again after an unknown outcome.
        let empty = Compare::version(account(0), CompareOp::Equal, 0);
        let opened = etcd.txn(Txn::new().when([empty]).and_then(open)).await;
        opened
            .map(drop)
            .map_err(|error| tonic::Status::unavailable(error.to_string()))
    }

    async fn work(&self, client: Client) {
        let mut process = Process::start(&self.record, &client, self.namespace()).await;
        while client.goes_on() {
            let from = client.below(ACCOUNTS);
            let ask = match client.once_in(3) {
                true => Ask::Read,
                false => Ask::Transfer {
                    from,
                    to: (from + 1 + client.below(ACCOUNTS - 1)) % ACCOUNTS,
                    amount: 1 + client.below(40),
                },
            };
            if process.ask(ask).await.is_none() || client.once_in(30) {
                process.turn().await;
            }
            client.pause(0, 50).await;
        }
    }

    async fn finish(&self, client: &Client) -> Result<(), String> {
        let node = client.any_node();
        let mut process = Process::start_at(&self.record, client, self.namespace(), node).await;
        let read = process.ask(Ask::Read).await;
        read.map(drop)
            .ok_or_else(|| "the last read was not answered".into())
    }

    fn record(&self) -> &dyn Recorded {
        &self.record
    }
}

impl Judge for Bank {
    type Ask = Ask;
    type Answer = Answer;
    type Known = ();

    fn judge(past: &Past<Bank>) -> Vec<Finding> {
        let total = EACH * ACCOUNTS as i64;
        let verdict = bank::check(&past.operations, ACCOUNTS as usize, total);
        Finding::of(verdict, |wrong| {
            Finding::at("accounts", wrong.operation, &wrong.text)
        })
    }
}

fn account(at: u64) -> String {
    format!("a{at}")
}

type Balances = BTreeMap<u64, (i64, i64)>;

/// Balance and revision of each account, as of one moment.
async fn balances(etcd: &mut Etcd) -> Result<Balances, Outcome<()>> {
    let got = etcd.get("a", Some(GetOptions::new().with_prefix())).await;
    let got = got.map_err(|error| fate(&error))?;
    let wrong = || Outcome::Unknown("no number".to_owned());
    got.kvs()
        .iter()
        .map(|kv| {
            let at = kv
                .key_str()
                .ok()
                .and_then(|key| key[1..].parse().ok())
                .ok_or_else(wrong)?;
            let balance = kv
                .value_str()
                .ok()
                .and_then(|value| value.parse().ok())
                .ok_or_else(wrong)?;
            Ok((at, (balance, kv.mod_revision())))
        })
        .collect()
}

#[async_trait]
impl OverEtcd for Bank {
    async fn perform(etcd: &mut Etcd, ask: &Ask) -> Result<Answer, Outcome<()>> {
        let now = balances(etcd).await?;
        let Ask::Transfer { from, to, amount } = ask else {
            let only = now.into_iter().map(|(at, (balance, _))| (at, balance));
            return Ok(Answer::Balances(only.collect()));
        };
        let (Some(giver), Some(taker)) = (now.get(from), now.get(to)) else {
            return Err(Outcome::Unknown("an account is missing".into()));
        };
        let amount = *amount as i64;
        if giver.0 < amount {
            return Ok(Answer::Transferred(false));
        }
        let unchanged = [(from, giver), (to, taker)]
            .map(|(at, (_, revision))| Compare::mod_revision(account(*at), CompareOp::Equal, *revision));
        let moved = [(from, giver.0 - amount), (to, taker.0 + amount)]
            .map(|(at, balance)| TxnOp::put(account(*at), balance.to_string(), None));
        let done = etcd.txn(Txn::new().when(unchanged).and_then(moved)).await;
        Ok(Answer::Transferred(
            done.map_err(|error| fate(&error))?.succeeded(),
        ))
    }
}
