//! Room on the disk, transfers that nobody carries on, and installations that take long.

use std::any::Any;
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver;
use parking_lot::Condvar;
use proto::peer::{LogId, SnapshotMeta as WireMeta};
use storage::memory::MemoryDisk;
use storage::{Applied, Checkpoint, PointView};

use super::super::tests::{Process, eventually, propose};
use super::*;

#[derive(Default)]
struct Hand(Mutex<Duration>);

impl env::Clock for Hand {
    fn now(&self) -> Duration {
        *self.0.lock()
    }

    fn wall_ms(&self) -> u64 {
        0
    }
}

fn begin(meta: WireMeta, vote: &Vote, files: Vec<FileSize>) -> Bytes {
    convert::encode(&CheckpointBegin {
        vote: Some(convert::vote_out(vote)),
        meta: Some(meta),
        files,
    })
}

fn begin_of(size_bytes: u64) -> Bytes {
    begin_of_files(&[("STATE", size_bytes)])
}

fn begin_of_files(files: &[(&str, u64)]) -> Bytes {
    let meta = WireMeta {
        last_log_id: Some(LogId::default()),
        membership: Some(convert::stored_membership_out(&Default::default())),
        snapshot_id: "a".into(),
    };
    let files = files.iter().map(|(name, size_bytes)| FileSize {
        name: (*name).into(),
        size_bytes: *size_bytes,
    });
    begin(meta, &convert::vote_in(&Default::default()), files.collect())
}

#[tokio::test]
async fn sizes_that_no_number_holds_have_no_room() {
    let receiving = Receiving::new(Env::production(), Arc::new(|| Ok(1000)));
    let store = MemoryDisk::new()
        .stores()
        .open(PartitionId(1), ReplicaId(2))
        .expect("opened");
    let body = begin_of_files(&[("a", u64::MAX), ("b", 2)]);
    let begun = receiving.begin((PartitionId(1), ReplicaId(2)), store, body).await;
    assert_eq!(
        begun.map_err(|status| status.code()),
        Err(tonic::Code::ResourceExhausted)
    );
}

#[tokio::test]
async fn what_has_no_room_is_refused_and_what_is_left_lying_makes_room() {
    let clock = Arc::new(Hand::default());
    let env = Env {
        clock: clock.clone(),
        ..Env::production()
    };
    let receiving = Arc::new(Receiving::new(env, Arc::new(|| Ok(1000))));
    let stores = MemoryDisk::new().stores();
    let at = |partition: u32| (PartitionId(partition), ReplicaId(2));
    let begin = |partition: u32, bytes: u64| {
        let store = stores.open(PartitionId(partition), ReplicaId(2)).expect("opened");
        let receiving = receiving.clone();
        async move {
            let begun = receiving.begin(at(partition), store, begin_of(bytes)).await;
            begun
                .map(|begun| {
                    convert::decode::<CheckpointBegun>("begun", begun)
                        .expect("decoded")
                        .transfer_id
                })
                .map_err(|status| status.code())
        }
    };
    assert_eq!(begin(1, 1001).await, Err(tonic::Code::ResourceExhausted));
    let first = begin(1, 600).await.expect("there is room");
    assert_eq!(
        begin(2, 401).await,
        Err(tonic::Code::ResourceExhausted),
        "it is promised"
    );
    begin(2, 400).await.expect("there is room for both");
    *clock.0.lock() += TRANSFER_IDLE;
    // It never ends; its first look is at once.
    let _ = tokio::time::timeout(Duration::from_millis(50), sweep(Arc::downgrade(&receiving))).await;
    assert!(
        receiving.transfers.lock().is_empty(),
        "nobody has carried them on"
    );
    let chunk = convert::encode(&CheckpointChunk {
        transfer_id: first,
        name: "STATE".into(),
        ..CheckpointChunk::default()
    });
    let late = receiving.chunk(at(1), chunk).await.expect_err("it is gone");
    assert_eq!(late.code(), tonic::Code::Aborted);
    begin(3, 1000).await.expect("there is room again");
}

/// Lets installations begin.
#[derive(Default)]
struct Gate {
    open: Mutex<bool>,
    opened: Condvar,
}

/// A store whose copies take long to be opened.
struct Slow {
    store: Arc<dyn PartitionStore>,
    gate: Arc<Gate>,
}

struct SlowIncoming {
    incoming: Box<dyn Incoming>,
    gate: Arc<Gate>,
}

impl Incoming for SlowIncoming {
    fn write(&mut self, name: &str, offset: u64, data: &[u8]) -> io::Result<()> {
        self.incoming.write(name, offset, data)
    }

    fn finish(&mut self) -> io::Result<Applied> {
        self.gate
            .opened
            .wait_while(&mut self.gate.open.lock(), |open| !*open);
        self.incoming.finish()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any + Send> {
        self.incoming.into_any()
    }
}

impl PartitionStore for Slow {
    fn latest(&self) -> Box<dyn machine::View + Send + '_> {
        self.store.latest()
    }

    fn point(&self) -> Arc<dyn PointView> {
        self.store.point()
    }

    fn commit(&self, changes: &[machine::Change], applied: &Applied) -> io::Result<()> {
        self.store.commit(changes, applied)
    }

    fn applied(&self) -> io::Result<Option<Applied>> {
        self.store.applied()
    }

    fn flush(&self) -> io::Result<()> {
        self.store.flush()
    }

    fn checkpoint(&self) -> io::Result<Arc<dyn Checkpoint>> {
        self.store.checkpoint()
    }

    fn install(&self, incoming: Box<dyn Incoming>) -> io::Result<()> {
        self.store.install(incoming)
    }

    fn receive(&self) -> io::Result<Box<dyn Incoming>> {
        Ok(Box::new(SlowIncoming {
            incoming: self.store.receive()?,
            gate: self.gate.clone(),
        }))
    }

    fn size_bytes(&self) -> u64 {
        self.store.size_bytes()
    }
}

/// The checkpoint of a group, sent to that group itself: it has everything already, and says so.
#[test]
fn an_installation_is_asked_for_until_it_is_over() {
    let process = Process::start(1, crate::Timing::default());
    let at = (PartitionId(0), ReplicaId(1));
    let replica = process.on(process.node.found(at.0, at.1)).expect("founded");
    eventually("it leads", || replica.is_leader());
    assert!(propose(&process, 0));
    let raft = replica.group().raft.clone();
    let checkpoint = replica.store().checkpoint().expect("checkpoint");
    let (log_id, membership) = convert::applied_in(&checkpoint.applied()).expect("applied");
    let meta = WireMeta {
        last_log_id: Some(convert::log_id_out(&log_id)),
        membership: Some(convert::stored_membership_out(&membership)),
        snapshot_id: "a".into(),
    };
    let file = checkpoint.files().remove(0);
    let data = checkpoint.read(&file.name, 0, usize::MAX).expect("read");
    let vote = raft.metrics().borrow_watched().vote;
    let size = FileSize {
        name: file.name.clone(),
        size_bytes: data.len() as u64,
    };
    let begin = begin(meta, &vote, vec![size]);
    let gate = Arc::new(Gate::default());
    let store = Arc::new(Slow {
        store: replica.store(),
        gate: gate.clone(),
    });
    let receiving = Receiving::new(Env::production(), Arc::new(|| Ok(u64::MAX)));
    process.on(async {
        let begun = receiving
            .begin(at, store.clone(), begin.clone())
            .await
            .expect("begun");
        let begun: CheckpointBegun = convert::decode("begun", begun).expect("decoded");
        let chunk = CheckpointChunk {
            transfer_id: begun.transfer_id,
            name: file.name.clone(),
            offset: 0,
            hash: xxhash_rust::xxh3::xxh3_64(&data),
            data: data.clone(),
        };
        receiving.chunk(at, convert::encode(&chunk)).await.expect("taken");
        let end = convert::encode(&CheckpointEnd {
            transfer_id: begun.transfer_id,
        });
        let ask = || async {
            let done = receiving
                .end(at, raft.clone(), end.clone())
                .await
                .expect("no failure");
            convert::decode::<CheckpointDone>("done", done).expect("decoded")
        };
        assert_eq!(ask().await.vote, None, "it goes on");
        // The connection breaks, and the transfer is taken up again: nothing is sent twice.
        let again = receiving.begin(at, store.clone(), begin).await.expect("again");
        let again: CheckpointBegun = convert::decode("begun", again).expect("decoded");
        assert_eq!((again.transfer_id, again.received.len()), (begun.transfer_id, 1));
        *gate.open.lock() = true;
        gate.opened.notify_all();
        let done = ask().await.vote.expect("it is over");
        assert_eq!(convert::vote_in(&done), vote);
        assert_eq!(ask().await.vote, Some(done), "asked once more, the same");
    });
}

/// A state without records that ends at `index` of `term`.
fn state_at(term: u64, index: u64, like: &dyn PartitionStore) -> Arc<dyn Checkpoint> {
    let applied = like.applied().expect("readable").expect("some");
    let (mut log_id, membership) = convert::applied_in(&applied).expect("decoded");
    (log_id.leader_id.term, log_id.index) = (term, index);
    let store = MemoryDisk::new().stores().open(PartitionId(0), ReplicaId(1));
    let store = store.expect("opened");
    store
        .commit(&[], &convert::applied_out(&log_id, &membership))
        .expect("committed");
    store.checkpoint().expect("checkpoint")
}

/// Sends a whole state as a leader with that vote would; returns the vote of the receiver.
async fn send(replica: &crate::Replica, vote: &Vote, checkpoint: &dyn Checkpoint) -> Result<Vote, Status> {
    let at = (PartitionId(0), ReplicaId(1));
    let raft = replica.group().raft.clone();
    let receiving = Receiving::new(Env::production(), Arc::new(|| Ok(u64::MAX)));
    let (log_id, membership) = convert::applied_in(&checkpoint.applied()).expect("applied");
    let meta = WireMeta {
        last_log_id: Some(convert::log_id_out(&log_id)),
        membership: Some(convert::stored_membership_out(&membership)),
        snapshot_id: "a".into(),
    };
    let file = checkpoint.files().remove(0);
    let data = checkpoint.read(&file.name, 0, usize::MAX).expect("read");
    let size = FileSize {
        name: file.name.clone(),
        size_bytes: data.len() as u64,
    };
    let begun = receiving
        .begin(at, replica.store(), begin(meta, vote, vec![size]))
        .await?;
    let begun: CheckpointBegun = convert::decode("begun", begun)?;
    let chunk = CheckpointChunk {
        transfer_id: begun.transfer_id,
        name: file.name,
        offset: 0,
        hash: xxhash_rust::xxh3::xxh3_64(&data),
        data,
    };
    receiving.chunk(at, convert::encode(&chunk)).await?;
    let end = convert::encode(&CheckpointEnd {
        transfer_id: begun.transfer_id,
    });
    loop {
        let done = receiving.end(at, raft.clone(), end.clone()).await?;
        let done: CheckpointDone = convert::decode("done", done)?;
        if let Some(vote) = done.vote {
            return Ok(convert::vote_in(&vote));
        }
    }
}

/// A group of one that has committed something.
fn committed() -> (Process, crate::Replica) {
    let process = Process::start(1, crate::Timing::default());
    let replica = process.on(process.node.found(PartitionId(0), ReplicaId(1)));
    let replica = replica.expect("founded");
    eventually("it leads", || replica.is_leader());
    for _ in 0..5 {
        assert!(propose(&process, 0));
    }
    (process, replica)
}

/// openraft 1892: what a state would take back, or what a leader sends that is none any more, is not installed.
#[test]
fn a_state_that_is_older_or_of_a_deposed_leader_is_not_taken() {
    let (process, replica) = committed();
    let own = replica.group().raft.metrics().borrow_watched().vote;
    let (store, applied) = (replica.store(), replica.status().applied);
    let before = store.applied().expect("readable");
    let deposed = Vote::new_committed(own.leader_id.term - 1, 2);
    let cases = [
        (own, own.leader_id.term, applied - 2),
        (own, own.leader_id.term, applied),
        (deposed, own.leader_id.term - 1, applied + 100),
    ];
    for (vote, term, index) in cases {
        let checkpoint = state_at(term, index, &*store);
        let answered = process.on(send(&replica, &vote, &*checkpoint));
        assert_eq!(answered.expect("answered"), own, "the vote that stands");
        assert_eq!(store.applied().expect("readable"), before);
    }
    assert!(propose(&process, 0), "it goes on");
}

/// The same of a state that contradicts what is committed: no correct leader sends one. The replica's core panics, which ends
/// the process, and its state stays as it is.
#[test]
fn a_state_that_contradicts_what_is_committed_is_not_taken() {
    let (process, replica) = committed();
    let (store, applied) = (replica.store(), replica.status().applied);
    let before = store.applied().expect("readable");
    let checkpoint = state_at(9, applied - 2, &*store);
    let answered = process.on(send(&replica, &Vote::new_committed(9, 2), &*checkpoint));
    assert!(answered.is_err(), "{answered:?}");
    let core = process.on(replica.group().raft.with_raft_state(|_| ()));
    assert!(core.is_err(), "it goes on");
    assert_eq!(store.applied().expect("readable"), before);
}
