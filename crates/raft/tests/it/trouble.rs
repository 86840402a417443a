//! Errors of the stores: damage is told from everything else, which stops the process and costs no replica.

use std::io;
use std::sync::Arc;

use machine::{Change, View};
use openraft::RaftSnapshotBuilder;
use openraft::storage::RaftStateMachine;
use parking_lot::Mutex;
use raft::{Progress, RaftError, ReplicaLog, StateMachine, Trouble};
use storage::memory::MemoryDisk;
use storage::{Applied, Checkpoint, Incoming, LogRecord, PartitionStore, PointView};
use types::ReplicaId;

use crate::kit::*;

/// A state whose disk fails on demand.
struct Failing {
    store: Arc<dyn PartitionStore>,
    kind: Mutex<Option<io::ErrorKind>>,
}

impl Failing {
    fn check(&self) -> io::Result<()> {
        match *self.kind.lock() {
            Some(kind) => Err(io::Error::new(kind, "the disk fails")),
            None => Ok(()),
        }
    }
}

impl PartitionStore for Failing {
    fn latest(&self) -> Box<dyn View + Send + '_> {
        self.store.latest()
    }

    fn point(&self) -> Arc<dyn PointView> {
        self.store.point()
    }

    fn commit(&self, changes: &[Change], applied: &Applied) -> io::Result<()> {
        self.check()?;
        self.store.commit(changes, applied)
    }

    fn applied(&self) -> io::Result<Option<Applied>> {
        self.store.applied()
    }

    fn flush(&self) -> io::Result<()> {
        self.check()?;
        self.store.flush()
    }

    fn checkpoint(&self) -> io::Result<Arc<dyn Checkpoint>> {
        self.check()?;
        self.store.checkpoint()
    }

    fn install(&self, incoming: Box<dyn Incoming>) -> io::Result<()> {
        self.check()?;
        self.store.install(incoming)
    }

    fn receive(&self) -> io::Result<Box<dyn Incoming>> {
        self.store.receive()
    }

    fn size_bytes(&self) -> u64 {
        self.store.size_bytes()
    }
}

/// A state machine with something in it, on a disk that then fails with errors of `kind`.
fn machine(kind: io::ErrorKind) -> (StateMachine, Arc<Heard>, Arc<Trouble>) {
    let replica = ReplicaId(1);
    let store = MemoryDisk::new().stores().open(P, replica).unwrap();
    let log_id = raft::convert::log_id_in(&proto::peer::LogId::default());
    let applied = raft::convert::applied_out(&log_id, &raft::types::StoredMembership::default());
    store.commit(&[], &applied).unwrap();
    let failing = Arc::new(Failing {
        store,
        kind: Mutex::new(None),
    });
    let (heard, progress) = (
        Arc::new(Heard::default()),
        Progress::new(env::Env::production().clock),
    );
    let trouble = Trouble::new(P, replica, heard.clone());
    let machine = StateMachine::open(
        P,
        failing.clone(),
        heard.clone(),
        progress.clone(),
        trouble.clone(),
        env::Blocking::Pool,
    )
    .unwrap();
    progress.serve();
    *failing.kind.lock() = Some(kind);
    (machine, heard, trouble)
}

/// Too many open files, a full disk, a disk that fails: all replicas may meet them at one time.
#[tokio::test]
async fn only_damage_costs_a_replica() {
    for kind in [
        io::ErrorKind::Other,
        io::ErrorKind::StorageFull,
        io::ErrorKind::NotFound,
        io::ErrorKind::InvalidData,
    ] {
        let damage = kind == io::ErrorKind::InvalidData;
        for flush in [true, false] {
            let (mut machine, heard, trouble) = machine(kind);
            let failed = match flush {
                true => machine
                    .get_snapshot_builder()
                    .await
                    .build_snapshot()
                    .await
                    .map(drop),
                false => machine.get_current_snapshot().await.map(drop),
            };
            assert_eq!(failed.expect_err("the disk fails").kind(), kind);
            let stopped = !heard.fatal.lock().is_empty();
            assert_eq!(stopped, !damage, "{kind:?}: {:?}", heard.fatal.lock());
            assert_eq!(trouble.damage().is_some(), damage, "{kind:?}");
        }
    }
}

/// What another build has written passes its checksum, and every replica has it.
#[tokio::test]
async fn an_entry_that_is_not_understood_is_no_damage() {
    let disk = MemoryDisk::new();
    let log = disk.log(Arc::new(|text: &str| panic!("{text}")));
    let record = LogRecord {
        index: 1,
        data: b"\xff\xff".as_slice().into(),
    };
    log.append(ReplicaId(1), vec![record], Box::new(|result| result.unwrap()));
    let heard = Arc::new(Heard::default());
    let trouble = Trouble::new(P, ReplicaId(1), heard.clone());
    let mut log = ReplicaLog::open(
        log,
        ReplicaId(1),
        Progress::new(env::Env::production().clock),
        trouble.clone(),
        raft::Appends::new(env::Env::production().clock),
    )
    .unwrap();
    let read = openraft::RaftLogReader::try_get_log_entries(&mut log, 1..2).await;
    assert!(read.is_err() && trouble.damage().is_none(), "{read:?}");
    assert_eq!(heard.fatal.lock().len(), 1);
}

#[tokio::test]
async fn damage_met_while_a_group_starts_is_known_as_such() {
    let mut cluster = Cluster::new(1).await;
    let replica = cluster.node(1).found(P, replica_of(1)).await.unwrap();
    eventually("it leads", || replica.is_leader()).await;
    for n in 0..20 {
        cluster.put(&format!("k{n}"), "1").await.unwrap();
    }
    drop(replica);
    cluster.kill(1).await;
    // The state goes back to nothing; the log is whole but for one entry, which must be applied again.
    cluster.disks[&1].crash(&mut |_| 0);
    cluster.disks[&1].damage_entry(replica_of(1), 5);
    cluster.boot(1).await;
    let error = cluster
        .node(1)
        .open(P, replica_of(1))
        .await
        .err()
        .expect("damaged");
    let RaftError::Storage { source, .. } = &error else {
        panic!("{error}")
    };
    assert_eq!(source.kind(), io::ErrorKind::InvalidData, "{error}");
    assert!(error.to_string().contains("entry 5"), "{error}");
    assert!(cluster.up[&1].heard.fatal.lock().is_empty());
}

/// Nothing is applied any more, and nobody else reads: what a client's read meets is all that will ever be known.
#[tokio::test]
async fn what_only_a_read_meets_is_seen_to() {
    let cluster = Cluster::new(1).await;
    let replica = cluster.node(1).found(P, replica_of(1)).await.unwrap();
    eventually("it leads", || replica.is_leader()).await;
    cluster.put("k", "1").await.unwrap();
    assert!(replica.view().get(b"k").is_ok() && replica.status().damaged.is_none());
    // A disk that does not give what is there says nothing of it: the process stops, as where an append fails.
    let told = || cluster.up[&1].heard.fatal.lock().len();
    cluster.disks[&1].fail_reads();
    let read = replica.view().get(b"k");
    assert!(
        read.is_err() && replica.status().damaged.is_none() && told() == 1,
        "{read:?}"
    );
    cluster.disks[&1].mend();
    cluster.disks[&1].damage_state(P, replica_of(1));
    let read = replica.view().get(b"k");
    assert!(read.as_ref().is_err_and(|error| error.is_damage()), "{read:?}");
    let damaged = replica.status().damaged.expect("it is to be replaced");
    assert!(damaged.contains("is damaged"), "{damaged}");
}
