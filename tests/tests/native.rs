//! The native API through our own client crate, against the real program: every call once, and what a session
//! promises across changes of leader and kill -9.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use client::v1::cluster_client::ClusterClient;
use client::{Client, ErrorKind, NewNamespace, NodeId, Options, PartitionId, ReplicaId, v1};
use etcd_client::proto::{PbRangeRequest, PbRangeResponse};
use tests::raw::Raw;
use tests::{Cluster, until};
use tonic::Code;
use tonic::transport::Channel;

const LIMIT: Duration = Duration::from_secs(60);
const META: PartitionId = PartitionId(0);
const ONE: PartitionId = PartitionId(1);
const RANGE: &str = "/etcdserverpb.KV/Range";

fn client(cluster: &Cluster) -> Result<Client> {
    let options = Options {
        timeout: Duration::from_secs(30),
        ..Options::default()
    };
    Ok(Client::new(cluster.endpoints(), options)?)
}

async fn leader(client: &Client, partition: PartitionId) -> Result<NodeId> {
    until("somebody leads", LIMIT, || async {
        let found = client.partitions(&[partition]).await?;
        let leader = found.first().context("no such partition")?.leader_node;
        Ok((leader != 0).then_some(NodeId(leader)))
    })
    .await
}

async fn wait_voter(client: &Client, partition: PartitionId, node: u64) -> Result<v1::Replica> {
    let what = format!("node {node} votes in partition {partition}");
    until(&what, LIMIT, || async {
        let found = client.partitions(&[partition]).await?;
        let mut replicas = found.into_iter().flat_map(|partition| partition.replicas);
        let votes = |role: &str| role == "follower" || role == "leader";
        Ok(replicas.find(|replica| replica.node == node && votes(&replica.role)))
    })
    .await
}

/// Moves leadership of a partition, waiting until the target keeps up.
async fn lead(client: &Client, partition: PartitionId, node: NodeId) -> Result<()> {
    until("the leader is moved", LIMIT, || async {
        let leader = client.transfer_leader(partition, node).await?;
        Ok((leader == node).then_some(()))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_call_does_what_it_says() -> Result<()> {
    let mut cluster = Cluster::start(3, 3).await?;
    let one = client(&cluster)?;
    ensure!(one.endpoints() == cluster.endpoints());
    let mut maps = one.watch_map();
    let before = maps.next().await?.revision;

    looks(&one).await?;
    let frozen = one.set_frozen(true).await?;
    ensure!(frozen > before, "freezing is a change of the map");
    ensure!(one.status().await?.frozen);
    leaders(&one).await?;

    cluster.add_node()?;
    until("node 4 is a member", LIMIT, || async {
        Ok(one.nodes().await?.iter().any(|node| node.id == 4).then_some(()))
    })
    .await?;
    replicas(&one).await?;
    nodes(&one).await?;
    namespaces(&cluster, &one).await?;

    let newest = one.map().await?.revision;
    while maps.next().await?.revision < newest {}
    cluster.assert_replicas_equal().await
}

async fn looks(one: &Client) -> Result<()> {
    let status = one.status().await?;
    ensure!((status.nodes, status.partitions) == (3, 4), "{status:?}");
    ensure!(one.nodes().await?.len() == 3);
    ensure!(one.partitions(&[]).await?.len() == 4);
    let listed = one.partitions(&[ONE]).await?;
    ensure!(listed.len() == 1 && listed[0].id == 1, "{listed:?}");
    let missing = one.partitions(&[PartitionId(99)]).await;
    ensure!(
        missing.is_err_and(|error| error.kind == ErrorKind::NotFound),
        "partition 99 was found"
    );
    let map = one.map().await?;
    ensure!(
        map.cluster_id == status.cluster_id && map.slots.len() == 3,
        "{map:?}"
    );
    ensure!(one.open_session().await?.client_id != one.open_session().await?.client_id);
    let compared = one.check_consistency(ONE).await?;
    ensure!(compared.equal && compared.replicas.len() == 3, "{compared:?}");
    let lone = one.only(&one.endpoints()[1])?;
    ensure!(lone.status().await?.node_id == 2);
    Ok(())
}

async fn leaders(one: &Client) -> Result<()> {
    let from = leader(one, ONE).await?;
    let to = NodeId(from.0 % 3 + 1);
    lead(one, ONE, to).await?;
    ensure!(leader(one, ONE).await? == to);
    let planned = one.balance(true).await?;
    ensure!(
        planned.frozen && planned.moves.iter().all(|step| !step.done),
        "{planned:?}"
    );
    // While frozen, asking for it in earnest moves nothing either.
    let still = one.balance(false).await?;
    ensure!(still.moves.iter().all(|step| !step.done), "{still:?}");
    Ok(())
}

async fn replicas(one: &Client) -> Result<()> {
    let four = NodeId(4);
    let added = one.add_replica(ONE, four, false).await?;
    let promoted = one.promote_replica(ONE, ReplicaId(added.replica)).await?;
    ensure!(promoted > added.generation);
    let replica = wait_voter(one, ONE, 4).await?;
    ensure!(replica.id == added.replica, "{replica:?}");
    let removed = one.remove_replica(ONE, ReplicaId(added.replica)).await?;
    ensure!(removed > promoted);
    until("node 4 holds nothing of it", LIMIT, || async {
        let held = one.partitions(&[ONE]).await?;
        Ok(held[0]
            .replicas
            .iter()
            .all(|replica| replica.node != 4)
            .then_some(()))
    })
    .await?;
    let mut steps = one.move_replica(ONE, NodeId(3), four).await?;
    let mut last = v1::Progress::default();
    while let Some(step) = steps.next().await? {
        ensure!(step.done >= last.done, "{step:?} after {last:?}");
        last = step;
    }
    ensure!((last.done, last.total) == (4, 4), "{last:?}");
    wait_voter(one, ONE, 4).await?;
    Ok(())
}

async fn nodes(one: &Client) -> Result<()> {
    let four = NodeId(4);
    let active = one.remove_node(four).await;
    ensure!(
        active.is_err_and(|error| error.kind == ErrorKind::Refused),
        "an active node was removed"
    );
    let mut steps = one.drain_node(four).await?;
    while steps.next().await?.is_some() {}
    one.undrain_node(four).await?;
    let state = |nodes: Vec<v1::Node>| {
        let found = nodes.into_iter().find(|node| node.id == 4);
        found.map(|node| node.state).unwrap_or_default()
    };
    ensure!(state(one.nodes().await?) == "active");
    let mut steps = one.drain_node(four).await?;
    while steps.next().await?.is_some() {}
    one.remove_node(four).await?;
    ensure!(state(one.nodes().await?) == "removed");
    Ok(())
}

async fn namespaces(cluster: &Cluster, one: &Client) -> Result<()> {
    let mut new = NewNamespace::named("team");
    new.quota_bytes = 1 << 20;
    let made = one.put_namespace(new.clone()).await?;
    ensure!(made.name == "team" && made.quota_bytes == 1 << 20, "{made:?}");
    new.create_only = true;
    let again = one.put_namespace(new).await;
    ensure!(again.is_err_and(|error| error.kind == ErrorKind::Refused));
    ensure!(one.namespaces().await?.iter().any(|found| found.id == made.id));
    let mut kv = one.kv("team").await?;
    kv.put("key", "value", None).await?;
    ensure!(kv.get("key", None).await?.count() == 1);
    // The key is in that namespace alone.
    ensure!(cluster.client(0).await?.get("key", None).await?.count() == 0);
    Ok(())
}

/// Writes of one session, as an application that keeps its own numbers sends them.
struct Writes {
    session: u64,
}

impl Writes {
    fn number(&self, seq: u64) -> Option<v1::Session> {
        Some(v1::Session {
            client_id: self.session,
            seq,
        })
    }

    /// Sends all of them, to one endpoint, and returns what was answered, revisions of the keys left out.
    async fn send(&self, endpoint: &str, to: NodeId) -> Result<Vec<String>> {
        let mut stub: ClusterClient<Channel> = ClusterClient::connect(format!("http://{endpoint}")).await?;
        let mut said = Vec::new();
        for (seq, quota_bytes) in [(1, 1000), (2, 1 << 20)] {
            let put = v1::PutNamespaceRequest {
                name: "team".to_owned(),
                quota_bytes,
                session: self.number(seq),
                ..Default::default()
            };
            let made = stub.put_namespace(put).await?.into_inner().namespace;
            let made = made.context("no namespace")?;
            said.push(format!("{} {} {}", made.id, made.name, made.quota_bytes));
        }
        let freeze = v1::SetFrozenRequest {
            frozen: true,
            session: self.number(3),
        };
        said.push(format!("{:?}", stub.set_frozen(freeze).await?.into_inner()));
        let add = v1::AddReplicaRequest {
            partition: 1,
            node: 4,
            voter: true,
            session: self.number(4),
        };
        said.push(format!("{:?}", stub.add_replica(add).await?.into_inner()));
        let undrain = v1::NodeRequest {
            node: 1,
            session: self.number(5),
        };
        said.push(format!("{:?}", stub.undrain_node(undrain).await?.into_inner()));
        let transfer = v1::TransferLeaderRequest {
            partition: 2,
            node: to.0,
            session: self.number(6),
        };
        // Who leads is told as it is; that it is not moved again is for the caller to see.
        stub.transfer_leader(transfer).await?;
        Ok(said)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_gets_its_first_answers_after_leaders_and_nodes_have_died() -> Result<()> {
    let mut cluster = Cluster::start(3, 2).await?;
    cluster.holdfast(0, &["partitions", "freeze"])?;
    cluster.add_node()?;
    let one = client(&cluster)?;
    until("node 4 is a member", LIMIT, || async {
        Ok(one.nodes().await?.iter().any(|node| node.id == 4).then_some(()))
    })
    .await?;
    let two = PartitionId(2);
    for partition in [META, two] {
        wait_voter(&one, partition, 1).await?;
        lead(&one, partition, NodeId(1)).await?;
    }
    let writes = Writes {
        session: one.open_session().await?.client_id,
    };
    let first = writes.send(&cluster.nodes[1].client, NodeId(2)).await?;
    ensure!(leader(&one, two).await? == NodeId(2));

    // Others change the map too, and leaders move, by request and by kill -9.
    one.put_namespace(NewNamespace::named("other")).await?;
    lead(&one, two, NodeId(3)).await?;
    lead(&one, META, NodeId(2)).await?;
    let replay = async |cluster: &Cluster, position: usize| -> Result<()> {
        let said = writes
            .send(&cluster.nodes[position].client, NodeId(2))
            .await
            .with_context(|| format!("through node {}", position + 1))?;
        ensure!(said == first, "answered {said:?}, at first {first:?}");
        Ok(())
    };
    for position in 0..4 {
        replay(&cluster, position).await?;
    }
    cluster.kill(1)?;
    leader(&one, META).await?;
    for position in [0, 2, 3] {
        replay(&cluster, position).await?;
    }
    cluster.start_node(1)?;
    wait_voter(&one, META, 2).await?;
    until("node 2 serves", LIMIT, || async {
        replay(&cluster, 1).await.map(Some)
    })
    .await?;

    // Nothing was done again: the newest settings hold, and the leader stayed.
    ensure!(
        leader(&one, two).await? == NodeId(3),
        "the leader was moved again"
    );
    let mut kv = one.kv("team").await?;
    kv.put("large", vec![7; 10_000], None).await?;
    cluster.assert_replicas_equal().await
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_through_kills_are_done_exactly_once() -> Result<()> {
    let mut cluster = Cluster::start(3, 2).await?;
    let one = client(&cluster)?;
    let (started, mut done) = tokio::sync::mpsc::unbounded_channel();
    let writer = one.clone();
    let writing = tokio::spawn(async move {
        for number in 0..60u32 {
            let mut new = NewNamespace::named(format!("n{number}"));
            // A second execution would be refused: it exists.
            new.create_only = true;
            writer
                .put_namespace(new)
                .await
                .with_context(|| format!("n{number}"))?;
            if started.send(number).is_err() {
                break;
            }
        }
        anyhow::Ok(())
    });
    for _ in 0..3 {
        for _ in 0..10 {
            done.recv().await.context("the writer ended early")?;
        }
        let other = client(&cluster)?;
        let leads = leader(&other, META).await?.0 as usize - 1;
        cluster.kill(leads)?;
        for _ in 0..8 {
            done.recv().await.context("the writer ended early")?;
        }
        cluster.start_node(leads)?;
        cluster.wait_ready(3).await?;
    }
    while done.recv().await.is_some() {}
    writing.await??;
    let made = one.namespaces().await?;
    let numbered = made.iter().filter(|found| found.name.starts_with('n')).count();
    ensure!(numbered == 60, "{numbered} of 60 were made");
    cluster.assert_replicas_equal().await
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_reach_a_partition_that_was_away_when_they_were_changed() -> Result<()> {
    let mut cluster = Cluster::start(3, 1).await?;
    cluster.holdfast(0, &["partitions", "freeze"])?;
    cluster.add_node()?;
    let one = client(&cluster)?;
    until("node 4 is a member", LIMIT, || async {
        Ok(one.nodes().await?.iter().any(|node| node.id == 4).then_some(()))
    })
    .await?;
    cluster.holdfast(0, &["partitions", "move", "1", "--from", "2", "--to", "4"])?;
    lead(&one, META, NodeId(1)).await?;
    lead(&one, ONE, NodeId(3)).await?;
    // Without nodes 3 and 4 the meta partition has a majority; the other one has none, nor a leader: its leader dies
    // when no second vote is to be had.
    cluster.signal(3, libc::SIGSTOP)?;
    cluster.kill(2)?;
    cluster.kill(3)?;
    let options = Options {
        timeout: Duration::from_secs(4),
        ..Options::default()
    };
    let lone = Client::new([cluster.nodes[0].client.as_str()], options)?;
    let mut small = NewNamespace::named("small");
    small.quota_bytes = 1000;
    let put = lone.put_namespace(small).await;
    ensure!(put.is_err(), "a partition without a majority was configured");
    let map = lone.map().await?;
    ensure!(
        map.namespaces
            .iter()
            .any(|found| found.name == "small" && found.quota_bytes == 1000),
        "the map was not changed: {map:?}"
    );
    cluster.start_node(2)?;
    cluster.start_node(3)?;
    leader(&one, ONE).await?;
    let kv = one.kv("small").await?;
    until("the quota holds", LIMIT, || async {
        let refused = kv.clone().put("large", vec![7; 10_000], None).await;
        Ok(refused
            .is_err_and(|error| error.to_string().contains("space exceeded"))
            .then_some(()))
    })
    .await
}

/// The other nodes hear of it a moment later, and look at the newest map meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_is_there_on_every_node_once_it_was_made_on_one() -> Result<()> {
    let cluster = Cluster::start(3, 2).await?;
    let endpoints = cluster.endpoints();
    let maker = Client::new(endpoints[..1].to_vec(), Options::default())?;
    let mut others = Vec::new();
    for endpoint in &endpoints[1..] {
        others.push(Raw::connect(endpoint).await?);
    }
    let request = || PbRangeRequest {
        key: b"k".to_vec(),
        ..PbRangeRequest::default()
    };
    for n in 0..50 {
        let name: &'static str = format!("made-{n}").leak();
        maker.put_namespace(NewNamespace::named(name)).await?;
        for other in &mut others {
            let found: PbRangeResponse = other.call_in(Some(name), RANGE, request()).await?;
            ensure!(found.kvs.is_empty());
        }
    }
    for other in &mut others {
        let found = other.call_in::<_, PbRangeResponse>(Some("nobody-made-it"), RANGE, request());
        let refused = found.await.expect_err("there is no such namespace");
        ensure!(refused.code() == Code::NotFound, "{refused}");
    }
    Ok(())
}
