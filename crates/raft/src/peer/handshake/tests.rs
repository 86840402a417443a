//! Each rule refuses what it should, by name, and nothing else.

use super::*;

fn mine() -> Mine {
    Mine {
        cluster: ClusterId(7),
        node: NodeId(1),
        incarnation: Incarnation(11),
        boot: BootId(101),
        boots: 3,
        version: ClusterVersion(1),
        oldest: ClusterVersion(1),
        address: "127.0.0.1:1".into(),
    }
}

fn theirs() -> Hello {
    let them = Mine {
        node: NodeId(2),
        incarnation: Incarnation(22),
        boot: BootId(202),
        boots: 5,
        ..mine()
    };
    them.hello(Lane::Control, NodeId(1))
}

fn check(change: impl FnOnce(&mut Hello), known: Known<'_>, seen: Seen) -> Result<(), Refusal> {
    let mut hello = theirs();
    change(&mut hello);
    check_cluster(&hello, &mine(), false)?;
    check_node(&hello, known, &seen)
}

const MEMBER: Known<'_> = Known::Member(Incarnation(22), "127.0.0.1:1");

fn refused(change: impl FnOnce(&mut Hello), known: Known<'_>, seen: Seen) -> (RefusalKind, String) {
    let refusal = check(change, known, seen).expect_err("must be refused");
    // The refused side reads the same from the wire.
    assert_eq!(Refusal::from_status(&refusal.status()), Some(refusal.clone()));
    (refusal.kind, refusal.text)
}

#[test]
fn lets_members_in() {
    assert_eq!(check(|_| {}, MEMBER, Seen::default()), Ok(()));
    assert_eq!(
        check(
            |_| {},
            Known::Member(Incarnation(0), "127.0.0.1:1"),
            Seen::default()
        ),
        Ok(())
    );
    let same = Seen {
        boot: BootId(202),
        boots: 5,
        listed: 0,
        address: String::new(),
        live: true,
    };
    assert_eq!(check(|_| {}, MEMBER, same), Ok(()));
    let before = Seen {
        boot: BootId(201),
        boots: 4,
        listed: 0,
        address: String::new(),
        live: false,
    };
    assert_eq!(check(|_| {}, MEMBER, before), Ok(()));
    let listed = Seen {
        listed: 5,
        ..Seen::default()
    };
    assert_eq!(check(|_| {}, MEMBER, listed.clone()), Ok(()), "as the map has it");
    assert_eq!(
        check(|hello| hello.boots = 0, MEMBER, listed),
        Ok(()),
        "not counted"
    );
}

#[test]
fn refuses_by_name() {
    let none = Seen::default;
    type Case = (fn(&mut Hello), Known<'static>, Seen, RefusalKind, &'static str);
    let cases: Vec<Case> = vec![
        (
            |hello| hello.format = 9,
            MEMBER,
            none(),
            RefusalKind::Format,
            "peer format 9",
        ),
        (
            |hello| hello.cluster_id = 8,
            MEMBER,
            none(),
            RefusalKind::ForeignCluster,
            "foreign cluster id",
        ),
        (
            |hello| hello.to_node = 3,
            MEMBER,
            none(),
            RefusalKind::WrongNode,
            "wrong node",
        ),
        (
            |hello| hello.node_id = 1,
            MEMBER,
            none(),
            RefusalKind::Myself,
            "already in use",
        ),
        (
            |hello| hello.version = 0,
            MEMBER,
            none(),
            RefusalKind::Version,
            "version",
        ),
        (
            |_| {},
            Known::No,
            none(),
            RefusalKind::UnknownNode,
            "unknown node id",
        ),
        (
            |_| {},
            Known::Removed,
            none(),
            RefusalKind::Removed,
            "removed node",
        ),
        (
            |hello| hello.incarnation = 23,
            MEMBER,
            none(),
            RefusalKind::Wiped,
            "node id 2 belongs to another incarnation: the data directory of node 2 was wiped",
        ),
        (
            |hello| {
                hello.incarnation = 23;
                hello.peer_address = "127.0.0.1:9".into();
            },
            MEMBER,
            none(),
            RefusalKind::Reused,
            "node id 2 belongs to another incarnation, at 127.0.0.1:1: it is reused by 127.0.0.1:9",
        ),
        (
            |hello| hello.boots = 4,
            MEMBER,
            Seen {
                boot: BootId(1),
                boots: 5,
                listed: 0,
                address: "a:1".into(),
                live: true,
            },
            RefusalKind::OlderCopy,
            "an older copy of the data directory",
        ),
        (
            |_| {},
            MEMBER,
            Seen { listed: 6, ..none() },
            RefusalKind::OlderCopy,
            "it was started 5 times, 6 were seen",
        ),
        (
            |_| {},
            MEMBER,
            Seen {
                boot: BootId(1),
                boots: 4,
                listed: 0,
                address: "a:1".into(),
                live: true,
            },
            RefusalKind::InUse,
            "node id 2 is already in use by another process at a:1: copied directory",
        ),
        (
            |_| {},
            MEMBER,
            Seen {
                boot: BootId(1),
                boots: 5,
                listed: 0,
                address: "a:1".into(),
                live: false,
            },
            RefusalKind::OlderCopy,
            "copied directory",
        ),
    ];
    for (change, known, seen, kind, text) in cases {
        let (was, said) = refused(change, known, seen);
        assert_eq!(was, kind, "{said}");
        assert!(said.contains(text), "{said}");
    }
}

#[test]
fn tags_are_distinct() {
    for (kind, tag) in TAGS {
        assert_eq!(kind.tag(), tag);
        assert_eq!(TAGS.iter().filter(|(_, other)| *other == tag).count(), 1);
    }
}
