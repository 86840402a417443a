//! Who is not let in, and how both sides learn of it.

use super::*;

/// Starts node 2 as `them`, lets it meet node 1 and returns what node 1 kept of the refusals.
fn refused(them: Mine, dial_as: u64, removed: Vec<u64>) -> (String, Option<String>) {
    let (one, two) = (Process::fresh(1), Process::start(them, "127.0.0.1:0"));
    let members = vec![known(2, 22, "127.0.0.1:1")];
    let members = if removed.is_empty() { members } else { Vec::new() };
    one.on(async {
        one.peers
            .set_peers(members, removed.into_iter().map(NodeId).collect())
    });
    let address = one.address.clone();
    two.on(async { two.peers.set_peers(vec![known(dial_as, 0, &address)], Vec::new()) });
    eventually("the refusal is known on both sides", || {
        one.peers.stats().refusals > 0 && two.peers.stats().refused_by_others > 0
    });
    let here = one
        .peers
        .stats()
        .last_refusals
        .first()
        .map(|(_, text)| text.clone())
        .unwrap_or_default();
    let there = two
        .peers
        .stats()
        .last_refusals
        .first()
        .map(|(_, text)| text.clone())
        .unwrap_or_default();
    let sentence = here
        .split_once(": ")
        .and_then(|(_, rest)| rest.split_once(": "))
        .map(|(_, text)| text);
    assert!(there.contains(sentence.expect("a sentence")), "{here} | {there}");
    let fatal = two.peers.fatal_refusal().borrow().clone();
    (here, fatal)
}

#[test]
fn refusals_name_the_rule_on_both_sides() {
    let cases: Vec<(Mine, u64, Vec<u64>, &str, bool)> = vec![
        (
            Mine {
                cluster: ClusterId(8),
                ..mine(2, 1)
            },
            1,
            vec![],
            "foreign cluster id",
            true,
        ),
        (mine(2, 1), 5, vec![], "wrong node", false),
        (mine(3, 1), 1, vec![], "unknown node id", false),
        (
            Mine {
                incarnation: Incarnation(99),
                ..mine(2, 1)
            },
            1,
            vec![],
            "another incarnation, at 127.0.0.1:1: it is reused by",
            true,
        ),
        (mine(2, 1), 1, vec![2], "removed node", true),
        (
            Mine {
                version: ClusterVersion(0),
                ..mine(2, 1)
            },
            1,
            vec![],
            "version",
            true,
        ),
    ];
    for (them, dial_as, removed, text, stops) in cases {
        let (said, fatal) = refused(them, dial_as, removed);
        assert!(said.contains(text), "{said}");
        assert_eq!(fatal.is_some(), stops, "{text}: {fatal:?}");
        if let Some(fatal) = fatal {
            assert!(fatal.contains(text), "{fatal}");
        }
    }
}

/// Nobody has seen the newer one: the peers have restarted since. The map has its count.
#[test]
fn an_older_copy_is_refused_by_what_the_map_says() {
    let (one, two) = (Process::fresh(1), Process::start(mine(2, 5), "127.0.0.1:0"));
    let listed = KnownPeer {
        boots: 6,
        ..known(2, 22, &two.address)
    };
    one.on(async { one.peers.set_peers(vec![listed], Vec::new()) });
    two.knows(&[(1, &one.address)]);
    let mut fatal = two.peers.fatal_refusal();
    let told = two.on(async {
        let told = tokio::time::timeout(LIMIT, fatal.wait_for(Option::is_some)).await;
        told.expect("in time").expect("alive").clone().unwrap_or_default()
    });
    assert!(told.contains("older copy of the data directory"), "{told}");
}

#[test]
fn an_older_copy_is_refused_and_stops() {
    let (one, mut two) = (Process::fresh(1), Process::start(mine(2, 5), "127.0.0.1:0"));
    one.knows(&[(2, &two.address)]);
    two.knows(&[(1, &one.address)]);
    eventually("the newer one is connected", || {
        two.peers.is_connected(NodeId(1)) && one.peers.is_connected(NodeId(2))
    });
    two.kill();
    eventually("it is gone", || !one.peers.is_connected(NodeId(2)));
    let copy = Process::start(mine(2, 4), "127.0.0.1:0");
    copy.knows(&[(1, &one.address)]);
    eventually("the copy is told to stop", || {
        copy.peers.fatal_refusal().borrow().is_some()
    });
    let fatal = copy.peers.fatal_refusal().borrow().clone().unwrap_or_default();
    assert!(fatal.contains("older copy of the data directory"), "{fatal}");
}

#[test]
fn a_second_live_process_of_a_node_is_refused_and_stops() {
    let (one, two) = pair();
    let second = Process::start(mine(2, 2), "127.0.0.1:0");
    second.knows(&[(1, &one.address)]);
    eventually("the second is told to stop", || {
        second.peers.fatal_refusal().borrow().is_some()
    });
    let fatal = second.peers.fatal_refusal().borrow().clone().unwrap_or_default();
    let text = format!(
        "node id 2 is already in use by another process at {}: copied directory",
        two.address
    );
    assert!(fatal.contains(&text), "{fatal}");
    assert!(two.peers.is_connected(NodeId(1)), "the first goes on");
    assert!(one.peers.is_connected(NodeId(2)));
    assert!(two.peers.fatal_refusal().borrow().is_none());
}
