//! A bank: money moves between accounts, and none is made or lost. Each read of all accounts, whenever it happens, has
//! the same total and no account below zero.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::Verdict;
use crate::history::Operation;

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ask {
    /// All balances, as of one moment.
    Read,
    /// Moves money, if there is enough.
    Transfer {
        /// From this account
        from: u64,
        /// to this one,
        to: u64,
        /// so much.
        amount: u64,
    },
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// The balances.
    Balances(BTreeMap<u64, i64>),
    /// Whether the money was moved.
    Transferred(bool),
}

/// A read that cannot be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrongRead {
    /// Its place in the history.
    pub operation: usize,
    /// What is wrong with it.
    pub text: String,
}

/// Judges a history of a bank whose `accounts` began with `total` in all.
pub fn check(history: &[Operation<Ask, Answer>], accounts: usize, total: i64) -> Verdict<Vec<WrongRead>> {
    let mut wrong = Vec::new();
    let (mut reads, mut transfers) = (0, 0);
    for (at, operation) in history.iter().enumerate() {
        let mut find = |text: String| wrong.push(WrongRead { operation: at, text });
        match operation.answer() {
            Some(Answer::Balances(balances)) => {
                reads += 1;
                let sum: i64 = balances.values().sum();
                if balances.len() != accounts {
                    find(format!("{} accounts of {accounts}", balances.len()));
                } else if sum != total {
                    find(format!("{sum} in all, and {total} is right"));
                }
                if let Some((account, balance)) = balances.iter().find(|(_, balance)| **balance < 0) {
                    find(format!("account {account} has {balance}"));
                }
            }
            Some(Answer::Transferred(moved)) => transfers += u64::from(*moved),
            None => {}
        }
    }
    if !wrong.is_empty() {
        return Verdict::Violated(wrong);
    }
    if reads == 0 || transfers == 0 {
        return Verdict::Unknown(format!("{reads} reads and {transfers} transfers show nothing"));
    }
    Verdict::Valid
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Outcome;

    fn history(balances: &[&[i64]]) -> Vec<Operation<Ask, Answer>> {
        let operation = |client, ask, answer| Operation {
            client,
            node: 1,
            call_ns: client,
            return_ns: client + 1,
            ask,
            outcome: Outcome::Ok(answer),
        };
        let transfer = Ask::Transfer {
            from: 0,
            to: 1,
            amount: 1,
        };
        let mut history = vec![operation(0, transfer, Answer::Transferred(true))];
        for (client, balances) in (1..).zip(balances) {
            let balances = (0..).zip(balances.iter().copied()).collect();
            history.push(operation(client, Ask::Read, Answer::Balances(balances)));
        }
        history
    }

    #[test]
    fn totals_stay() {
        let found = |balances: &[&[i64]]| match check(&history(balances), 2, 10) {
            Verdict::Violated(wrong) => wrong
                .iter()
                .map(|wrong| (wrong.operation, wrong.text.clone()))
                .collect(),
            verdict => vec![(0, format!("{verdict:?}"))],
        };
        assert_eq!(found(&[&[5, 5], &[0, 10]]), [(0, "Valid".into())]);
        assert_eq!(
            found(&[&[5, 5], &[5, 6]]),
            [(2, "11 in all, and 10 is right".into())]
        );
        assert_eq!(found(&[&[11, -1]]), [(1, "account 1 has -1".into())]);
        assert_eq!(found(&[&[10]]), [(1, "1 accounts of 2".into())]);
        assert!(matches!(check(&history(&[]), 2, 10), Verdict::Unknown(_)));
    }

    #[test]
    fn reads_without_transfers_show_nothing_nor_transfers_without_reads() {
        let nothing = |text: &str| Verdict::Unknown(format!("{text} show nothing"));
        let mut transfers = history(&[]);
        transfers.push(Operation {
            client: 9,
            ..transfers[0].clone()
        });
        assert_eq!(check(&transfers, 2, 10), nothing("0 reads and 2 transfers"));
        let mut reads = history(&[&[5, 5], &[5, 5]]);
        reads[0].outcome = Outcome::Ok(Answer::Transferred(false));
        assert_eq!(check(&reads, 2, 10), nothing("2 reads and 0 transfers"));
    }
}
