//! openraft's own storage suite, alone and while another replica writes to the same stores.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::type_config::TypeConfigExt;
use raft::types::TypeConfig;
use raft::{Progress, ReplicaLog, StateMachine, Trouble};
use storage::memory::MemoryDisk;
use storage::{LogRecord, LogStore, PartitionStores};
use types::ReplicaId;

use crate::kit::{Heard, P};

/// Gives each test a fresh replica of the same stores.
pub struct Builder {
    pub log: Arc<dyn LogStore>,
    pub stores: Arc<dyn PartitionStores>,
    pub next: AtomicU64,
}

impl StoreBuilder<TypeConfig, ReplicaLog, StateMachine, ()> for Builder {
    async fn build(&self) -> Result<((), ReplicaLog, StateMachine), openraft::StorageError<TypeConfig>> {
        let build = || {
            let replica = ReplicaId(self.next.fetch_add(1, Ordering::SeqCst));
            let (progress, heard) = (
                Progress::new(env::Env::production().clock),
                Arc::new(Heard::default()),
            );
            let trouble = Trouble::new(P, replica, heard.clone());
            let store = self.stores.open(P, replica)?;
            let machine = StateMachine::open(
                P,
                store,
                heard,
                progress.clone(),
                trouble.clone(),
                env::Blocking::Pool,
            )?;
            progress.serve();
            let appends = raft::Appends::new(env::Env::production().clock);
            let log = ReplicaLog::open(self.log.clone(), replica, progress, trouble, appends)?;
            Ok(((), log, machine))
        };
        build()
            .map_err(|error: std::io::Error| openraft::StorageError::read(TypeConfig::err_from_error(&error)))
    }
}

/// Another group that appends, truncates, votes and purges until dropped.
pub struct Noise {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Noise {
    pub fn start(log: Arc<dyn LogStore>) -> Noise {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::Builder::new().name("noise".into()).spawn(move || {
            let replica = ReplicaId(u64::MAX / 2);
            let mut index = 1;
            while !stopped.load(Ordering::SeqCst) {
                let (done, waited) = std::sync::mpsc::channel();
                let records = (index..index + 5).map(|index| LogRecord {
                    index,
                    data: Bytes::from(vec![7; 64]),
                });
                log.append(replica, records.collect(), Box::new(|result| result.unwrap()));
                log.save_vote(
                    replica,
                    Bytes::from_static(b"vote"),
                    Box::new(|result| result.unwrap()),
                );
                log.truncate_after(replica, Some(index + 2), Box::new(|result| result.unwrap()));
                log.save_committed(replica, Bytes::from_static(b"committed"));
                let purged = Bytes::from_static(b"purged");
                log.purge(
                    replica,
                    index,
                    purged,
                    Box::new(move |result| done.send(result).unwrap()),
                );
                waited.recv().unwrap().unwrap();
                index += 3;
                // Interleave with the suite, do not starve it.
                std::thread::park_timeout(Duration::from_micros(200));
            }
        });
        Noise {
            stop,
            thread: Some(thread.unwrap()),
        }
    }
}

impl Drop for Noise {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.take().unwrap().join().unwrap();
    }
}

pub async fn alone(log: Arc<dyn LogStore>, stores: Arc<dyn PartitionStores>) {
    Suite::test_all(Builder {
        log,
        stores,
        next: AtomicU64::new(1),
    })
    .await
    .unwrap();
}

pub async fn with_noise(log: Arc<dyn LogStore>, stores: Arc<dyn PartitionStores>) {
    let noise = Noise::start(log.clone());
    alone(log, stores).await;
    drop(noise);
}

#[tokio::test]
async fn memory() {
    let disk = MemoryDisk::new();
    alone(disk.log(Arc::new(|text: &str| panic!("{text}"))), disk.stores()).await;
}

#[tokio::test]
async fn memory_with_another_group() {
    let disk = MemoryDisk::new();
    with_noise(disk.log(Arc::new(|text: &str| panic!("{text}"))), disk.stores()).await;
}
