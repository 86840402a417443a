//! Whole nodes in one process, over real ports and disks.

use std::path::Path;
use std::time::Duration;

use env::Env;
use proto::v1;
use proto::v1::cluster_client::ClusterClient;
use tokio::time::Instant;
use types::PartitionId;

use super::{Node, init};
use crate::config::Config;
use crate::identity::DataDir;

fn config(dir: &Path, n: usize) -> Config {
    let mut config = Config::default();
    config.node.data_dir = dir.join(format!("node-{n}"));
    config.listen.client = "127.0.0.1:0".into();
    config.listen.peer = "127.0.0.1:0".into();
    config.listen.http = "127.0.0.1:0".into();
    config.limits.disk_reserve_bytes = 16 << 20;
    config
}

/// Waits until `reached` holds, at most half a minute.
async fn until<F: Future<Output = bool>>(what: &str, mut reached: impl FnMut() -> F) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !reached().await {
        assert!(Instant::now() < deadline, "not reached: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn status(node: &Node) -> v1::StatusResponse {
    let mut client = ClusterClient::connect(format!("http://{}", node.client_address()))
        .await
        .expect("connects");
    client
        .status(v1::StatusRequest {})
        .await
        .expect("answers")
        .into_inner()
}

async fn ready(node: &Node, nodes: u32, partitions: u32) {
    until("all partitions led and replicated", || async {
        let status = status(node).await;
        status.nodes == nodes
            && status.partitions == partitions + 1
            && status.partitions_with_leader == partitions + 1
            && status.partitions_under_replicated == 0
    })
    .await;
}

async fn etcd(node: &Node) -> etcd_client::Client {
    etcd_client::Client::connect([node.client_address()], None)
        .await
        .expect("connects")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_node_serves_and_keeps_its_state() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let config = config(dir.path(), 1);
    init(&config, 4, &Env::production()).expect("initialised");
    let node = Node::start(config.clone(), Env::production())
        .await
        .expect("started");
    ready(&node, 1, 4).await;
    etcd(&node).await.put("a", "1", None).await.expect("written");
    let second = Node::start(config.clone(), Env::production())
        .await
        .err()
        .expect("refused")
        .to_string();
    assert!(second.contains("in use by another process"), "{second}");
    node.shutdown().await;

    let node = Node::start(config, Env::production())
        .await
        .expect("started again");
    let got = etcd(&node).await.get("a", None).await.expect("read");
    assert_eq!(got.kvs()[0].value(), b"1");
    let metrics = node.core().metrics().render(node.core());
    assert!(
        metrics.contains("holdfast_partition_applied{partition=\"0\"}"),
        "{metrics}"
    );
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_nodes_form_spread_and_forward() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let first = config(dir.path(), 1);
    init(&first, 8, &Env::production()).expect("initialised");
    let first = Node::start(first, Env::production()).await.expect("started");
    let peer = until_peer(&first).await;
    let mut nodes = vec![first];
    for n in 2..=3 {
        let mut config = config(dir.path(), n);
        config.cluster.join = vec![peer.clone()];
        nodes.push(Node::start(config, Env::production()).await.expect("joined"));
    }
    let begun = Instant::now();
    for node in &nodes {
        ready(node, 3, 8).await;
    }
    println!("formed in {:?}", begun.elapsed());
    until("leaders are spread", || async {
        let mut client = ClusterClient::connect(format!("http://{}", nodes[0].client_address()))
            .await
            .expect("connects");
        let told = client
            .list_nodes(v1::ListNodesRequest {})
            .await
            .expect("answers")
            .into_inner();
        told.nodes.iter().all(|node| node.leaders >= 2)
    })
    .await;
    println!("spread in {:?}", begun.elapsed());
    for (n, node) in nodes.iter().enumerate() {
        let mut client = etcd(node).await;
        for i in 0..20 {
            client
                .put(format!("key-{i}"), format!("{n}-{i}"), None)
                .await
                .expect("written");
            let got = client.get(format!("key-{i}"), None).await.expect("read");
            assert_eq!(got.kvs()[0].value(), format!("{n}-{i}").as_bytes());
        }
    }
    for partition in 0..=8 {
        let mut client = ClusterClient::connect(format!("http://{}", nodes[1].client_address()))
            .await
            .expect("connects");
        let request = v1::CheckConsistencyRequest { partition };
        let told = client
            .check_consistency(request)
            .await
            .expect("answers")
            .into_inner();
        assert!(told.equal, "{told:?}");
    }
    for node in nodes {
        node.shutdown().await;
    }
}

/// The peer address of the only node of a cluster, once it is founded.
async fn until_peer(node: &Node) -> String {
    until("founded", || async { !node.core().map().nodes.is_empty() }).await;
    node.core().map().nodes[0].peer_address.clone()
}

fn replica_dirs(config: &Config, partition: u32) -> Vec<String> {
    let dir = storage::partitions_path(&config.node.data_dir).join(partition.to_string());
    let entries = std::fs::read_dir(dir).expect("a directory");
    entries
        .map(|entry| {
            entry
                .expect("an entry")
                .file_name()
                .to_string_lossy()
                .into_owned()
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_left_of_a_removed_replica_goes_at_the_start() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let config = config(dir.path(), 1);
    init(&config, 2, &Env::production()).expect("initialised");
    let node = Node::start(config.clone(), Env::production())
        .await
        .expect("started");
    ready(&node, 1, 2).await;
    let partition = PartitionId(2);
    let replica = node.core().replica(partition).expect("open").replica_id();
    node.shutdown().await;
    assert!(!replica_dirs(&config, 2).is_empty());
    let data = DataDir::lock(&config.node.data_dir).expect("locked");
    data.remember_gone(replica).expect("written");
    drop(data);

    let node = Node::start(config.clone(), Env::production())
        .await
        .expect("started again");
    until("the others are open", || async {
        node.core().replica(PartitionId(1)).is_some()
    })
    .await;
    assert!(node.core().replica(partition).is_none());
    assert_eq!(replica_dirs(&config, 2), Vec::<String>::new());
    let opened = node.core().raft().open(partition, replica).await;
    assert!(matches!(opened, Err(raft::RaftError::Removed(_))));
    node.shutdown().await;
}

/// A disk that fails for a moment is no reason to ask for another replica of the meta partition. (While the cluster is
/// still to be founded it is one to end with an error, so the founding must be over.)
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_meta_replica_that_cannot_be_opened_is_tried_again() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let config = config(dir.path(), 1);
    init(&config, 2, &Env::production()).expect("initialised");
    let node = Node::start(config.clone(), Env::production())
        .await
        .expect("started");
    ready(&node, 1, 2).await;
    let founded = || async { node.data.first().expect("readable").is_none() };
    until("the founding is over", founded).await;
    node.shutdown().await;
    let meta = storage::partitions_path(&config.node.data_dir).join("0");
    let (marker, aside) = (meta.join("1.current"), meta.join("aside"));
    std::fs::rename(&marker, &aside).expect("moved");
    std::fs::create_dir(&marker).expect("made");

    let node = Node::start(config.clone(), Env::production())
        .await
        .expect("started again");
    assert!(node.core().replica(PartitionId::META).is_none());
    std::fs::remove_dir(&marker).expect("removed");
    std::fs::rename(&aside, &marker).expect("moved back");
    ready(&node, 1, 2).await;
    node.shutdown().await;
}
