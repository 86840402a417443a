//! The small files of a data directory: read as they were written, or refused; what was refused is not changed.

use std::sync::Arc;

use server::identity::{DataDir, First, Identity};
use storage::Disk;
use storage::memory::MemoryDisk;
use types::{ClusterId, Incarnation, NodeId, ReplicaId};
use xxhash_rust::xxh3::xxh3_64;

use crate::input::{Input, part};

/// The files, in the order of their content.
const NAMES: [&str; 7] = [
    "identity", "boots", "first", "joining", "gone", "peers", "log-made",
];

/// A flag: the checksums are made right. Then the files, in parts.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let sealed = !input.byte().is_multiple_of(4);
    let disk = MemoryDisk::new();
    for name in NAMES {
        let mut content = input.part().to_vec();
        if sealed && !content.is_empty() {
            if content.last() != Some(&b'\n') {
                content.push(b'\n');
            }
            let sum = xxh3_64(&content);
            content.extend_from_slice(format!("checksum {sum:016x}\n").as_bytes());
        }
        if !content.is_empty() {
            disk.replace(name, &content).expect("this disk does not fail");
        }
    }
    let before = disk.read("identity").expect("this disk does not fail");
    let dir = DataDir::on(disk.clone()).expect("nobody else has it");
    read(&dir);
    if let Ok(boots) = dir.boot() {
        assert!(boots > 0 && dir.boot().is_ok_and(|next| next == boots + 1) || boots == u64::MAX);
    }
    if dir.remember_gone(ReplicaId(5)).is_ok() {
        let gone = dir.gone().expect("just written");
        assert!(gone.contains(&ReplicaId(5)));
    }
    let identity = Identity {
        cluster: ClusterId(1),
        node: NodeId(2),
        incarnation: Incarnation(3),
    };
    let created = dir.create(&identity, &First::Found { partitions: 4 });
    if before.is_some() {
        assert!(created.is_err(), "an identity was changed");
        assert_eq!(disk.read("identity").expect("this disk does not fail"), before);
    } else {
        assert_eq!(dir.identity().expect("just written"), Some(identity));
    }
}

fn read(dir: &DataDir) {
    for refused in [
        dir.identity().err(),
        dir.first().err(),
        dir.joining(Incarnation(9)).err(),
        dir.gone().err(),
        dir.given_peers().err(),
        dir.check_log().err(),
    ] {
        assert!(refused.is_none_or(|error| !error.to_string().is_empty()));
    }
}

/// The files of a node that has joined, and of one that founds.
pub fn seeds() -> Vec<Vec<u8>> {
    let made = |first: &First| {
        let disk = MemoryDisk::new();
        let dir = DataDir::on(disk.clone()).expect("nobody else has it");
        let identity = Identity {
            cluster: ClusterId(0xc1),
            node: NodeId(2),
            incarnation: Incarnation(0xb),
        };
        let peers = [(NodeId(1), "a:2380".to_owned()), (NodeId(3), "c:2380".to_owned())];
        let written = dir
            .create(&identity, first)
            .and_then(|()| dir.boot())
            .and_then(|_| dir.joining(identity.incarnation))
            .and_then(|_| dir.remember_gone(ReplicaId(4)))
            .and_then(|()| dir.remember_peers(&peers))
            .and_then(|()| dir.log_made());
        written.expect("this disk does not fail");
        disk
    };
    let files = |disk: Arc<MemoryDisk>, sealed: u8| {
        let mut seed = vec![sealed];
        for name in NAMES {
            let content = disk
                .read(name)
                .expect("this disk does not fail")
                .unwrap_or_default();
            let whole = String::from_utf8(content).expect("text");
            let body = whole.rsplit_once("checksum ").map_or("", |(body, _)| body);
            let content = if sealed == 0 { whole.as_str() } else { body };
            seed.extend(part(content.as_bytes()));
        }
        seed
    };
    let joins = First::Open {
        replica: ReplicaId(6),
        peers: vec![(NodeId(1), "a:2380".into())],
    };
    vec![
        files(made(&First::Found { partitions: 16 }), 1),
        files(made(&joins), 1),
        files(made(&joins), 0),
        files(MemoryDisk::new(), 1),
    ]
}
