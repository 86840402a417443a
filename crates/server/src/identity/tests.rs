//! Identity files: round trip, damage, other versions, locks.

use types::{ClusterId, Incarnation, NodeId, ReplicaId};

use super::file::Record;
use super::{DataDir, First, Identity, IdentityError};

const WHO: Identity = Identity {
    cluster: ClusterId(0xabc),
    node: NodeId(2),
    incarnation: Incarnation(0x77),
};

fn first() -> First {
    First::Open {
        replica: ReplicaId(9),
        peers: vec![(NodeId(1), "127.0.0.1:2380".into())],
    }
}

fn created() -> (tempfile::TempDir, DataDir) {
    let dir = tempfile::tempdir().expect("temporary directory");
    let data = DataDir::lock(dir.path()).expect("locked");
    assert!(data.identity().expect("readable").is_none());
    data.create(&WHO, &first()).expect("written");
    (dir, data)
}

#[test]
fn comes_back_as_written_and_only_once() {
    let (dir, data) = created();
    assert_eq!(data.identity().expect("readable"), Some(WHO));
    assert_eq!(data.first().expect("readable"), Some(first()));
    assert!(matches!(
        data.create(&WHO, &first()),
        Err(IdentityError::Exists { .. })
    ));
    data.first_done().expect("removed");
    assert_eq!(data.first().expect("readable"), None);
    drop(data);
    let data = DataDir::lock(dir.path()).expect("lock was given back");
    assert_eq!(
        (data.boot().expect("counted"), data.boot().expect("counted")),
        (1, 2)
    );
}

#[test]
fn second_process_is_refused() {
    let (dir, _data) = created();
    let error = DataDir::lock(dir.path()).expect_err("locked").to_string();
    assert!(error.contains("in use by another process"), "{error}");
}

#[test]
fn every_flipped_byte_is_found() {
    let (dir, data) = created();
    let path = dir.path().join("identity");
    let good = std::fs::read(&path).expect("there");
    for at in 0..good.len() - 1 {
        let mut bad = good.clone();
        bad[at] ^= 1;
        std::fs::write(&path, bad).expect("written");
        assert!(data.identity().is_err(), "byte {at}");
    }
    for len in 0..good.len() - 1 {
        std::fs::write(&path, &good[..len]).expect("written");
        assert!(data.identity().is_err(), "cut to {len}");
    }
}

#[test]
fn other_versions_and_stray_state_are_named() {
    let (dir, data) = created();
    let path = dir.path().join("identity");
    let text = std::fs::read_to_string(&path)
        .expect("there")
        .replace("identity 1", "identity 7");
    std::fs::write(&path, text).expect("written");
    assert!(matches!(
        data.identity(),
        Err(IdentityError::Version { found: 7, .. })
    ));
    std::fs::remove_file(&path).expect("removed");
    std::fs::create_dir(dir.path().join("log")).expect("made");
    assert!(matches!(data.identity(), Err(IdentityError::Stray(_))));
}

#[test]
fn joins_ask_with_the_same_incarnation() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let data = DataDir::lock(dir.path()).expect("locked");
    assert_eq!(data.joining(Incarnation(5)).expect("written"), Incarnation(5));
    assert_eq!(data.joining(Incarnation(6)).expect("read"), Incarnation(5));
}

#[test]
fn a_log_that_vanished_is_refused() {
    let (dir, data) = created();
    data.check_log().expect("none was made yet");
    std::fs::create_dir(dir.path().join("log")).expect("made");
    std::fs::write(dir.path().join("log/CURRENT"), "x").expect("written");
    data.log_made().expect("remembered");
    data.check_log().expect("there");
    std::fs::remove_dir_all(dir.path().join("log")).expect("removed");
    assert!(matches!(data.check_log(), Err(IdentityError::LogGone(_))));
}

#[test]
fn removed_replicas_and_peers_are_remembered() {
    let (_dir, data) = created();
    data.remember_gone(ReplicaId(4)).expect("written");
    data.remember_gone(ReplicaId(4)).expect("written");
    data.remember_gone(ReplicaId(9)).expect("written");
    assert_eq!(data.gone().expect("readable"), vec![ReplicaId(4), ReplicaId(9)]);
    data.remember_peers(&[(NodeId(3), "h:1".into())])
        .expect("written");
    assert_eq!(
        data.remembered_peers().expect("readable"),
        vec![(NodeId(3), "h:1".into())]
    );
}

#[test]
fn what_has_a_checksum_and_cannot_be_is_damage() {
    let (dir, data) = created();
    let write = |file: &str, kind: &str, line: &str| {
        let mut record = Record::new(kind);
        let (key, value) = line.split_once(' ').expect("a key and a value");
        record.set(key, value);
        record.write(&*data.disk, file).expect("written");
    };
    write("boots", "boots", &format!("boots {}", u64::MAX));
    assert!(matches!(data.boot(), Err(IdentityError::Damaged { .. })));
    write("first", "first", &format!("found {}", 1_u64 << 40));
    assert!(matches!(data.first(), Err(IdentityError::Damaged { .. })));
    write("gone", "gone", "replica nine");
    assert!(matches!(data.gone(), Err(IdentityError::Damaged { .. })));
    // A file under another's name, as after a careless copy.
    std::fs::copy(dir.path().join("identity"), dir.path().join("joining")).expect("copied");
    assert!(matches!(
        data.joining(Incarnation(1)),
        Err(IdentityError::Damaged { .. })
    ));
}
