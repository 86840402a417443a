//! openraft's storage suite on the production stores.

use std::sync::Arc;

use storage::rocks::{Log, Options, Partitions};
use storage::{LogStore, PartitionStores};
use tempfile::TempDir;

fn open() -> (TempDir, Arc<dyn LogStore>, Arc<dyn PartitionStores>) {
    let dir = tempfile::tempdir().unwrap();
    let fatal = Arc::new(|text: &str| panic!("{text}"));
    let log = Log::open(&dir.path().join("log"), Options::default(), fatal).unwrap();
    let stores = Partitions::open(&dir.path().join("partitions"), Options::default()).unwrap();
    (dir, log, stores)
}

#[tokio::test(flavor = "multi_thread")]
async fn suite() {
    let (_dir, log, stores) = open();
    crate::suite::alone(log, stores).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn suite_with_another_group() {
    let (_dir, log, stores) = open();
    crate::suite::with_noise(log, stores).await;
}
