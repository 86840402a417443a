//! Lives of a lease, each answer chosen.

use super::*;
use crate::history::Outcome;

const TERMS: Terms = Terms {
    ttl_ns: 100,
    drift_ns: 5,
    grace_ns: 20,
};

fn op(times: (u64, u64), ask: Ask, outcome: Outcome<Answer>) -> Op {
    Operation {
        client: times.0,
        node: 1,
        call_ns: times.0,
        return_ns: times.1,
        ask,
        outcome,
    }
}

fn keep(times: (u64, u64), alive: bool) -> Op {
    op(times, Ask::KeepAlive, Outcome::Ok(Answer::Alive(alive)))
}

fn read(times: (u64, u64), there: bool) -> Op {
    op(times, Ask::Read, Outcome::Ok(Answer::There(there)))
}

const NOTHING: [usize; 0] = [];

/// After a grant from 10 to 20: the places of what is wrong.
fn wrong(operations: &[Op]) -> Vec<usize> {
    let mut history = vec![op((10, 20), Ask::Grant, Outcome::Ok(Answer::Done))];
    history.extend_from_slice(operations);
    match check(&history, TERMS) {
        Verdict::Violated(found) => found.iter().map(|finding| finding.operation).collect(),
        verdict => {
            assert!(verdict.is_valid(), "{verdict:?}");
            Vec::new()
        }
    }
}

#[test]
fn it_ends_in_time_and_for_good() {
    assert_eq!(wrong(&[read((30, 40), true), read((200, 210), false)]), NOTHING);
    assert_eq!(wrong(&[read((100, 104), false)]), [1], "6 ns early");
    assert_eq!(
        wrong(&[read((100, 105), false)]),
        NOTHING,
        "5 ns early are forgiven"
    );
    assert_eq!(wrong(&[keep((100, 105), true), read((150, 160), false)]), [2]);
    assert_eq!(wrong(&[read((140, 150), true)]), NOTHING, "the grace");
    assert_eq!(wrong(&[read((141, 150), true)]), [1], "it never ends");
    assert_eq!(wrong(&[keep((100, 110), true), read((220, 225), true)]), NOTHING);
    assert_eq!(
        wrong(&[read((120, 125), false), read((130, 135), true)]),
        [2],
        "it came back"
    );
    assert_eq!(wrong(&[read((120, 125), false), keep((126, 135), true)]), [2]);
    let unknown = op((100, 110), Ask::KeepAlive, Outcome::Unknown("lost".into()));
    assert_eq!(wrong(&[unknown.clone(), read((300, 310), true)]), NOTHING);
    assert_eq!(wrong(&[unknown, read((120, 125), false)]), NOTHING);
    let revoked = op((30, 35), Ask::Revoke, Outcome::Ok(Answer::Done));
    assert_eq!(wrong(&[revoked.clone(), read((40, 45), false)]), NOTHING);
    assert_eq!(wrong(&[revoked, read((40, 45), true)]), [2]);
    let grant = [op((10, 20), Ask::Grant, Outcome::Ok(Answer::Done))];
    assert!(matches!(check(&grant, TERMS), Verdict::Unknown(_)));
}

/// A keep-alive that found it alive came before its end, even if the look that found it gone began in the meantime.
#[test]
fn a_renewal_beside_the_look_counts() {
    assert_eq!(wrong(&[keep((100, 155), true), read((150, 160), false)]), [2]);
    assert_eq!(wrong(&[keep((100, 155), true), read((150, 195), false)]), NOTHING);
}

/// Whether it lives on is asked of a keep-alive too: it renews nothing that must have ended.
#[test]
fn nothing_is_renewed_after_its_end() {
    assert_eq!(wrong(&[keep((140, 150), true)]), NOTHING);
    assert_eq!(wrong(&[keep((141, 150), true)]), [1]);
    assert_eq!(wrong(&[keep((141, 300), true), read((290, 310), true)]), [1, 2]);
    let unknown = |call_ns| {
        op(
            (call_ns, call_ns),
            Ask::KeepAlive,
            Outcome::Unknown("lost".into()),
        )
    };
    assert_eq!(wrong(&[unknown(140), read((300, 310), true)]), NOTHING);
    assert_eq!(wrong(&[unknown(141), read((300, 310), true)]), [2]);
    // Had it happened, it would not be gone at 200.
    let (alive, gone) = (read((141, 150), true), read((190, 200), false));
    assert_eq!(wrong(&[unknown(106), alive.clone(), gone.clone()]), [2]);
    assert_eq!(wrong(&[unknown(105), alive, gone]), NOTHING);
}

/// The answer and the next question may bear the same time, as where time is simulated.
#[test]
fn a_client_asks_after_its_last_answer() {
    let of = |client, operation| Op { client, ..operation };
    let (gone, alive) = (read((120, 125), false), read((125, 130), true));
    assert_eq!(wrong(&[of(1, gone.clone()), of(1, alive.clone())]), [2]);
    assert_eq!(wrong(&[of(1, gone), of(2, alive)]), NOTHING);
}

#[test]
fn a_look_that_meets_the_grant_may_have_come_first() {
    assert_eq!(wrong(&[read((20, 25), false)]), NOTHING);
    assert_eq!(wrong(&[read((21, 25), false)]), [1]);
}
