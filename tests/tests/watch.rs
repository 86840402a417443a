//! Watches: ordered, without gap or duplicate, for slow watchers, many watchers, and across the death of a node.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use etcd_client::{Client, Error, EventType, LeaseKeepAliveStream, LeaseKeeper, WatchOptions, WatchStream};
use tests::{Cluster, until};
use tokio::time::{Instant, timeout};

const LIMIT: Duration = Duration::from_secs(30);

/// Reads events until the one whose value is `last`; checks that revisions rise by one from `from`.
async fn read_all(stream: &mut WatchStream, mut next: i64, last: i64) -> Result<()> {
    while next <= last {
        let response = timeout(LIMIT, stream.message())
            .await
            .context("no event in time")??;
        let response = response.with_context(|| format!("the stream ended before revision {next}"))?;
        if response.canceled() {
            bail!("cancelled at {next}: {}", response.cancel_reason());
        }
        for event in response.events() {
            let revision = event.kv().context("an event without a key")?.mod_revision();
            ensure!(revision == next, "expected revision {next}, got {revision}");
            next += 1;
        }
    }
    Ok(())
}

/// Watches everything under `w/` from now on: returns once the server has said that the watch exists.
async fn watch_from_now(client: &mut Client) -> Result<WatchStream> {
    let mut stream = client
        .watch("w/", Some(WatchOptions::new().with_prefix()))
        .await?;
    let response = timeout(LIMIT, stream.message()).await??.context("stream ended")?;
    ensure!(response.created(), "{response:?}");
    Ok(stream)
}

async fn put_many(client: &mut Client, count: usize, size: usize) -> Result<(i64, i64)> {
    let mut first = None;
    let mut last = 0;
    for n in 0..count {
        let answer = client
            .put(format!("w/{}", n % 100), vec![b'v'; size], None)
            .await?;
        last = answer.header().context("header")?.revision();
        first.get_or_insert(last);
    }
    Ok((first.context("nothing written")?, last))
}

/// The first write after a node's death: what was on its way there may end as unknown, and is then written again.
async fn put_past_a_death(client: &Client) -> Result<()> {
    until("writes go on", LIMIT, || {
        let mut client = client.clone();
        async move { Ok(client.put("w/death", "", None).await.map(|_| Some(()))?) }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_watchers_miss_nothing_and_cost_bounded_memory() -> Result<()> {
    const WATCHERS: usize = 20;
    const VALUE_BYTES: usize = 128 * 1024;
    const PUTS: usize = 1500;
    /// What may come on top: a ring, and a few responses for each watcher.
    const BOUND_BYTES: u64 = 96 * 1024 * 1024;
    let cluster = Cluster::start(3, 1).await?;
    let mut writer = cluster.client(0).await?;
    // What the stores and the log keep in memory anyway is there before anybody watches.
    put_many(&mut writer, PUTS / 2, VALUE_BYTES).await?;
    let pid = cluster.pid(1)?;
    let before = resident_bytes(pid)?;
    let mut slow = Vec::new();
    for _ in 0..WATCHERS {
        // Each on a connection of its own, so that each is slow by itself.
        slow.push(watch_from_now(&mut cluster.client(1).await?).await?);
    }
    // Nobody reads this: twice the bound for one, forty times for all.
    let (first, last) = put_many(&mut writer, PUTS, VALUE_BYTES).await?;
    wait_watched(&cluster, 1, last).await?;
    let more = resident_bytes(pid)?.saturating_sub(before);
    eprintln!("{WATCHERS} slow watchers: {} MiB more", more >> 20);
    ensure!(
        more < BOUND_BYTES,
        "{WATCHERS} slow watchers cost {more} bytes, more than {BOUND_BYTES}"
    );
    for stream in &mut slow {
        read_all(stream, first, last).await?;
    }
    Ok(())
}

/// Waits until a node has told a watcher of everything up to a revision.
async fn wait_watched(cluster: &Cluster, position: usize, revision: i64) -> Result<()> {
    let mut client = cluster.client(position).await?;
    let options = WatchOptions::new().with_start_revision(revision).with_prefix();
    let mut stream = client.watch("w/", Some(options)).await?;
    while timeout(LIMIT, stream.message())
        .await??
        .context("stream ended")?
        .events()
        .is_empty()
    {}
    Ok(())
}

/// Memory that a process holds now.
fn resident_bytes(pid: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib: u64 = line.context("no VmRSS")?.trim().trim_end_matches(" kB").parse()?;
    Ok(kib * 1024)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_acknowledged_write_is_before_a_watch_that_starts_after_it() -> Result<()> {
    let cluster = Cluster::start(3, 1).await?;
    for n in 0..30usize {
        let mut writer = cluster.client(n % 3).await?;
        writer.put("w/old", n.to_string(), None).await?;
        let mut stream = watch_from_now(&mut cluster.client((n + 1) % 3).await?).await?;
        let (first, last) = put_many(&mut writer, 3, 10).await?;
        read_all(&mut stream, first, last)
            .await
            .with_context(|| format!("round {n}"))?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_goes_on_through_the_leaders_death() -> Result<()> {
    let mut cluster = Cluster::start(3, 1).await?;
    let list = cluster.json(0, &["partitions", "list"])?;
    let leader = list["partitions"][1]["leader_node"]
        .as_u64()
        .context("no leader")? as usize
        - 1;
    let (watcher, writer) = ((leader + 1) % 3, (leader + 2) % 3);
    let mut writer = cluster.client(writer).await?;
    let mut stream = watch_from_now(&mut cluster.client(watcher).await?).await?;
    let (first, _) = put_many(&mut writer, 200, 100).await?;
    cluster.kill(leader)?;
    put_past_a_death(&writer).await?;
    let (_, last) = put_many(&mut writer, 200, 100).await?;
    read_all(&mut stream, first, last).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_watchers_get_every_event() -> Result<()> {
    let cluster = Cluster::start(3, 1).await?;
    let mut clients = Vec::new();
    for position in 0..3 {
        clients.push(cluster.client(position).await?);
    }
    let mut streams = Vec::new();
    for n in 0..1000 {
        let client = &mut clients[n % 3];
        streams.push(watch_from_now(client).await?);
    }
    let mut writer = cluster.client(0).await?;
    let (first, last) = put_many(&mut writer, 200, 256).await?;
    let readers = streams
        .into_iter()
        .map(|mut stream| async move { read_all(&mut stream, first, last).await });
    for result in futures::future::join_all(readers).await {
        result?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn many_watches_share_a_stream_and_cancel_alone() -> Result<()> {
    let cluster = Cluster::start(1, 1).await?;
    let mut client = cluster.client(0).await?;
    let mut stream = client
        .watch("a", Some(WatchOptions::new().with_watch_id(1)))
        .await?;
    stream
        .watch("b", Some(WatchOptions::new().with_watch_id(2)))
        .await?;
    stream
        .watch("b", Some(WatchOptions::new().with_watch_id(2)))
        .await?;
    let mut created = 0;
    let mut refused = 0;
    while created + refused < 3 {
        let response = timeout(LIMIT, stream.message()).await??.context("stream ended")?;
        if response.canceled() {
            refused += 1;
        } else if response.created() {
            created += 1;
        }
    }
    ensure!(
        (created, refused) == (2, 1),
        "a watch id was given twice: {created} created, {refused} refused"
    );
    stream.cancel(1).await?;
    let gone = timeout(LIMIT, stream.message()).await??.context("stream ended")?;
    ensure!(gone.canceled() && gone.watch_id() == 1, "{gone:?}");
    client.put("a", "1", None).await?;
    client.put("b", "1", None).await?;
    client.delete("b", None).await?;
    let mut kinds = Vec::new();
    while kinds.len() < 2 {
        let response = timeout(LIMIT, stream.message()).await??.context("stream ended")?;
        ensure!(
            response.watch_id() == 2,
            "an event of a cancelled watch: {response:?}"
        );
        kinds.extend(response.events().iter().map(etcd_client::Event::event_type));
    }
    ensure!(kinds == [EventType::Put, EventType::Delete], "{kinds:?}");
    stream.request_progress().await?;
    let progress = timeout(LIMIT, stream.message()).await??.context("stream ended")?;
    let revision = progress.header().context("header")?.revision();
    ensure!(
        progress.watch_id() == -1 && progress.events().is_empty() && revision == 4,
        "{progress:?}"
    );
    Ok(())
}

/// Where the only partition of a cluster lives, as positions of nodes.
struct Places {
    leader: usize,
    followers: Vec<usize>,
    /// Nodes without a replica.
    others: Vec<usize>,
}

fn places(cluster: &Cluster, asked: usize) -> Result<Places> {
    let list = cluster.json(asked, &["partitions", "list"])?;
    let partition = &list["partitions"][1];
    let leader = partition["leader_node"].as_u64().context("no leader")? as usize;
    let replicas = partition["replicas"].as_array().context("no replicas")?;
    let holds = |node: usize| replicas.iter().any(|r| r["node"].as_u64() == Some(node as u64));
    let (holders, others): (Vec<usize>, Vec<usize>) = (1..=cluster.nodes.len()).partition(|n| holds(*n));
    let position = |nodes: Vec<usize>| nodes.into_iter().map(|n| n - 1).collect::<Vec<_>>();
    Ok(Places {
        leader: leader.checked_sub(1).context("no leader")?,
        followers: position(holders.into_iter().filter(|n| *n != leader).collect()),
        others: position(others),
    })
}

/// A watch through `position` that ends when there is no leader.
async fn watch_led(cluster: &Cluster, position: usize) -> Result<WatchStream> {
    let endpoint = &cluster.nodes[position].client;
    watch_from_now(&mut tests::etcd::connect_requiring_leader(endpoint).await?).await
}

/// Keeps a lease alive once, on a stream that stays open.
async fn beat(keeper: &mut LeaseKeeper, answers: &mut LeaseKeepAliveStream) -> Result<()> {
    keeper.keep_alive().await?;
    let answer = timeout(LIMIT, answers.message())
        .await
        .context("no answer in time")??;
    let ttl = answer.context("the stream ended")?.ttl();
    ensure!(ttl > 0, "the lease is gone");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_a_replica_serves_streams_through_the_leaders_death() -> Result<()> {
    let mut cluster = Cluster::start(4, 1).await?;
    let Places {
        leader,
        followers,
        others,
    } = places(&cluster, 0)?;
    let outside = *others.first().context("every node has a replica")?;
    // Asked for the first time, the node has to find the leader.
    let mut led = watch_led(&cluster, outside).await?;
    let mut client = cluster.client(outside).await?;
    let status = client.status().await?;
    ensure!(
        status.leader() == leader as u64 + 1 && status.raft_term() > 0,
        "{status:?}"
    );
    let mut plain = watch_from_now(&mut client).await?;
    let lease = client.lease_grant(10, None).await?.id();
    let (mut keeper, mut answers) = client.lease_keep_alive(lease).await?;
    let mut writer = cluster.client(followers[0]).await?;
    let (first, _) = put_many(&mut writer, 100, 100).await?;
    beat(&mut keeper, &mut answers).await?;

    cluster.kill(leader)?;
    put_past_a_death(&writer).await?;
    let killed = Instant::now();
    let mut last = first;
    // Longer than a stream lives without a leader, and than an unattended lease.
    while killed.elapsed() < Duration::from_secs(12) {
        last = put_many(&mut writer, 20, 100).await?.1;
        beat(&mut keeper, &mut answers).await?;
    }
    read_all(&mut led, first, last)
        .await
        .context("with a leader required")?;
    read_all(&mut plain, first, last).await?;
    let left = client.lease_time_to_live(lease, None).await?.ttl();
    ensure!(left > 0, "a lease that was kept alive has expired");
    let status = client.status().await?;
    ensure!(
        status.leader() != leader as u64 + 1 && status.leader() > 0 && status.errors().is_empty(),
        "{status:?}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_follows_a_partition_that_moves_to_other_nodes() -> Result<()> {
    let cluster = Cluster::start(5, 1).await?;
    let places = places(&cluster, 0)?;
    let [outside, target] = places.others[..] else {
        bail!("{:?} have no replica", places.others);
    };
    let mut led = watch_led(&cluster, outside).await?;
    let mut plain = watch_from_now(&mut cluster.client(outside).await?).await?;
    let mut writer = cluster.client(places.followers[0]).await?;
    let (first, _) = put_many(&mut writer, 100, 100).await?;
    let (from, to) = (places.leader + 1, target + 1);
    let (from, to) = (from.to_string(), to.to_string());
    cluster.holdfast(0, &["partitions", "move", "1", "--from", &from, "--to", &to])?;
    wait_left(&cluster, places.leader, &mut writer).await?;
    let (_, last) = put_many(&mut writer, 100, 100).await?;
    read_all(&mut led, first, last)
        .await
        .context("with a leader required")?;
    read_all(&mut plain, first, last).await
}

/// Writes until node `position` holds no replica.
async fn wait_left(cluster: &Cluster, position: usize, writer: &mut Client) -> Result<()> {
    until("the replica has left", LIMIT, || {
        let mut writer = writer.clone();
        async move {
            put_many(&mut writer, 10, 100).await?;
            Ok(places(cluster, 0)?.others.contains(&position).then_some(()))
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_goes_on_when_the_replica_comes_to_its_node() -> Result<()> {
    let cluster = Cluster::start(4, 1).await?;
    let places = places(&cluster, 0)?;
    let outside = *places.others.first().context("every node has a replica")?;
    let mut led = watch_led(&cluster, outside).await?;
    let mut writer = cluster.client(places.followers[0]).await?;
    let (first, _) = put_many(&mut writer, 300, 1000).await?;
    // Only the node of the watch can take the replica.
    cluster.holdfast(0, &["nodes", "drain", &(places.leader + 1).to_string()])?;
    wait_left(&cluster, places.leader, &mut writer).await?;
    let mut past = cluster
        .client(outside)
        .await?
        .watch(
            "w/",
            Some(WatchOptions::new().with_prefix().with_start_revision(first)),
        )
        .await?;
    let (_, last) = put_many(&mut writer, 100, 100).await?;
    read_all(&mut led, first, last)
        .await
        .context("with a leader required")?;
    read_all(&mut past, first, last).await
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_that_require_a_leader_end_without_one() -> Result<()> {
    let mut cluster = Cluster::start(4, 1).await?;
    let places = places(&cluster, 0)?;
    let outside = *places.others.first().context("every node has a replica")?;
    let mut streams = Vec::new();
    for position in [places.followers[0], outside] {
        streams.push((position, watch_led(&cluster, position).await?));
    }
    cluster.kill(places.followers[1])?;
    cluster.kill(places.leader)?;
    for (position, mut stream) in streams {
        let end = timeout(LIMIT, stream.message()).await;
        let end = end.with_context(|| format!("node {} waits for ever", position + 1))?;
        let Err(Error::GRpcStatus(status)) = end else {
            bail!("{end:?}");
        };
        ensure!(status.message() == "etcdserver: no leader", "{status:?}");
    }
    Ok(())
}
