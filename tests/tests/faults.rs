//! Kills, cuts and restarts of real processes under load: no acknowledged write is missing, all replicas are equal.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use etcd_client::{Client, Compare, CompareOp, LockOptions, Txn, TxnOp};
use tests::load::Load;
use tests::{Cluster, until};

const LIMIT: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread")]
async fn kill_9_of_each_node_under_load() -> Result<()> {
    let mut cluster = Cluster::start(3, 4).await?;
    let load = Load::start(cluster.endpoints(), 8);
    for position in 0..3 {
        load.progress(200, LIMIT).await?;
        cluster.kill(position)?;
        load.progress(200, LIMIT)
            .await
            .with_context(|| format!("with node {} dead", position + 1))?;
        cluster.start_node(position)?;
        cluster.wait_ready(3).await?;
    }
    cluster.assert_nothing_lost(load).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_leader_is_replaced_and_comes_back() -> Result<()> {
    let cluster = Cluster::start(3, 4).await?;
    let load = Load::start(cluster.endpoints(), 8);
    for position in 0..3 {
        load.progress(100, LIMIT).await?;
        // A stopped process answers nothing and resets nothing: as a host that was cut off.
        cluster.signal(position, libc::SIGSTOP)?;
        load.progress(100, LIMIT)
            .await
            .with_context(|| format!("with node {} silent", position + 1))?;
        cluster.signal(position, libc::SIGCONT)?;
        cluster.wait_ready(3).await?;
    }
    cluster.assert_nothing_lost(load).await
}

/// A leader is stopped, and another one takes a write. What was sent to the first while it stood still is answered, once it
/// goes on, with what is there now or not at all.
#[tokio::test(flavor = "multi_thread")]
async fn a_paused_leader_serves_no_stale_read_when_it_wakes_up() -> Result<()> {
    let cluster = Cluster::start(3, 1).await?;
    for round in 0..3 {
        let leader = leader_of_default(&cluster)?;
        let mut paused = cluster.client(leader).await?;
        let writer = cluster.client((leader + 1) % 3).await?;
        let old = format!("old {round}");
        writer.clone().put("k", old.clone(), None).await?;
        let found = paused.get("k", None).await?;
        ensure!(found.kvs()[0].value() == old.as_bytes(), "{found:?}");
        cluster.signal(leader, libc::SIGSTOP)?;
        let new = format!("new {round}");
        until("another leader takes the write", LIMIT, || {
            let (mut writer, new) = (writer.clone(), new.clone());
            async move { Ok(Some(writer.put("k", new, None).await?)) }
        })
        .await?;
        let reads = (0..32).map(|_| {
            let mut paused = paused.clone();
            tokio::spawn(async move { tokio::time::timeout(LIMIT, paused.get("k", None)).await })
        });
        let reads: Vec<_> = reads.collect();
        cluster.signal(leader, libc::SIGCONT)?;
        for read in reads {
            if let Ok(Ok(found)) = read.await? {
                ensure!(found.kvs()[0].value() == new.as_bytes(), "stale: {found:?}");
            }
        }
        cluster.wait_ready(3).await?;
        let found = paused.get("k", None).await?;
        ensure!(found.kvs()[0].value() == new.as_bytes(), "{found:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn all_nodes_are_killed_at_once() -> Result<()> {
    let mut cluster = Cluster::start(3, 4).await?;
    let load = Load::start(cluster.endpoints(), 8);
    for _ in 0..2 {
        load.progress(300, LIMIT).await?;
        for position in 0..3 {
            cluster.kill(position)?;
        }
        for position in 0..3 {
            cluster.start_node(position)?;
        }
        cluster.wait_ready(3).await?;
    }
    load.progress(100, LIMIT).await?;
    cluster.assert_nothing_lost(load).await
}

/// What a client sees of a planned stop. One of a node that stays sees nothing of it. One of the node that stops gets an
/// answer to everything it has sent; then its connection is closed in the HTTP/2 way (GOAWAY), the port refuses, and it
/// goes to another node. A request that found nobody listening was never sent, so it has not failed; every other
/// request that was not answered well has. How long requests pause is measured by `make bench`.
#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_fails_no_request() -> Result<()> {
    let mut cluster = Cluster::start(3, 4).await?;
    let load = Load::start(cluster.endpoints(), 6);
    for position in 0..3 {
        load.progress(100, LIMIT).await?;
        cluster.stop(position).await?;
        load.progress(100, LIMIT).await?;
        cluster.start_node(position)?;
        cluster.wait_ready(3).await?;
    }
    let failed = load.failed();
    ensure!(failed.is_empty(), "{} requests failed: {failed:#?}", failed.len());
    cluster.assert_nothing_lost(load).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_single_node_keeps_its_state() -> Result<()> {
    let mut cluster = Cluster::start(1, 2).await?;
    let load = Load::start(cluster.endpoints(), 4);
    load.progress(200, LIMIT).await?;
    cluster.kill(0)?;
    cluster.start_node(0)?;
    cluster.wait_ready(1).await?;
    load.progress(50, LIMIT).await?;
    cluster.assert_nothing_lost(load).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_outlives_its_leader_and_ends_in_time() -> Result<()> {
    let mut cluster = Cluster::start(3, 1).await?;
    let leader = leader_of_default(&cluster)?;
    let other = (leader + 1) % 3;
    let mut client = cluster.client(other).await?;
    let lease = client.lease_grant(6, None).await?.id();
    let options = etcd_client::PutOptions::new().with_lease(lease);
    client.put("leased", "here", Some(options)).await?;
    let granted = tokio::time::Instant::now();
    cluster.kill(leader)?;
    let left = until("the lease is seen after the change of leader", LIMIT, || {
        let mut client = client.clone();
        async move { Ok(Some(client.lease_time_to_live(lease, None).await?.ttl())) }
    })
    .await?;
    ensure!((1..=6).contains(&left), "{left} s left of 6");
    until("the key goes with its lease", LIMIT, || {
        let mut client = client.clone();
        async move { Ok(client.get("leased", None).await?.kvs().is_empty().then_some(())) }
    })
    .await?;
    let lived = granted.elapsed();
    ensure!(
        lived >= Duration::from_secs(5),
        "a lease of 6 s ended after {lived:?}: cut short"
    );
    ensure!(
        lived <= Duration::from_secs(14),
        "a lease of 6 s ended after {lived:?}: reset"
    );
    Ok(())
}

/// What a lock guards: the token of whoever wrote last, so that the order of texts is the order of tokens.
const GUARDED: &str = "guarded";

fn padded(token: i64) -> String {
    format!("{token:020}")
}

/// A lock, and the revision at which its holder's key was made.
struct Held {
    key: Vec<u8>,
    token: i64,
}

/// Waits for the lock: the same session may ask again.
async fn lock(client: &Client, lease: i64) -> Result<Held> {
    until("the lock is given", LIMIT, || async {
        let mut client = client.clone();
        let held = client
            .lock("lock", Some(LockOptions::new().with_lease(lease)))
            .await?;
        let found = client.get(held.key(), None).await?;
        let token = found.kvs().first().context("the lock is lost")?.create_revision();
        let key = held.key().to_vec();
        Ok(Some(Held { key, token }))
    })
    .await
}

impl Held {
    /// Writes what the lock guards, as long as no later holder has; and, `mine`, as long as the lock is still held. Returns
    /// whether it was written.
    async fn write(&self, client: &mut Client, mine: bool) -> Result<bool> {
        let fence = match mine {
            true => Compare::create_revision(self.key.clone(), CompareOp::Equal, self.token),
            false => Compare::value(GUARDED, CompareOp::Less, padded(self.token + 1)),
        };
        let put = TxnOp::put(GUARDED, padded(self.token), None);
        Ok(client
            .txn(Txn::new().when([fence]).and_then([put]))
            .await?
            .succeeded())
    }

    /// The same, again until it is answered.
    async fn write_surely(&self, client: &Client, mine: bool) -> Result<bool> {
        until("it is answered", LIMIT, || async {
            Ok(Some(self.write(&mut client.clone(), mine).await?))
        })
        .await
    }
}

/// A holder's node stands still, a follower and then the leader: its lease ends, and another takes the lock and writes. What
/// the first has sent meanwhile, and sends then, is refused.
#[tokio::test(flavor = "multi_thread")]
async fn who_has_lost_a_lock_unawares_writes_nothing_that_it_guards() -> Result<()> {
    let cluster = Cluster::start(3, 1).await?;
    cluster.client(0).await?.put(GUARDED, padded(0), None).await?;
    for led in [false, true] {
        let leader = leader_of_default(&cluster)?;
        let paused = if led { leader } else { (leader + 1) % 3 };
        let mut first = cluster.client(paused).await?;
        let mut second = cluster.client((leader + 2) % 3).await?;
        let (short, long) = (
            first.lease_grant(3, None).await?,
            second.lease_grant(60, None).await?,
        );
        let held = lock(&first, short.id()).await?;
        for mine in [true, false] {
            ensure!(held.write_surely(&first, mine).await?, "a holder was refused");
        }
        cluster.signal(paused, libc::SIGSTOP)?;
        let late = [true, false].repeat(4).into_iter().map(|mine| {
            let (mut first, key, token) = (first.clone(), held.key.clone(), held.token);
            tokio::spawn(async move { Held { key, token }.write(&mut first, mine).await })
        });
        let late: Vec<_> = late.collect();
        let next = lock(&second, long.id()).await?;
        ensure!(next.token > held.token, "{} after {}", next.token, held.token);
        ensure!(next.write_surely(&second, true).await?, "the holder was refused");
        cluster.signal(paused, libc::SIGCONT)?;
        for late in late {
            // It may have had no answer in time.
            let written = late.await?.unwrap_or(false);
            ensure!(!written, "token {} wrote after {}", held.token, next.token);
        }
        cluster.wait_ready(3).await?;
        for mine in [true, false] {
            let written = held.write_surely(&first, mine).await?;
            ensure!(!written, "token {} wrote after {}", held.token, next.token);
        }
        for position in 0..3 {
            let found = cluster.client(position).await?.get(GUARDED, None).await?;
            let value = found.kvs()[0].value();
            ensure!(value == padded(next.token).as_bytes(), "{found:?}");
        }
        second.unlock(next.key.clone()).await?;
    }
    Ok(())
}

/// Position of the node that leads the partition of namespace `default`.
fn leader_of_default(cluster: &Cluster) -> Result<usize> {
    let list = cluster.json(0, &["partitions", "list"])?;
    let partition = list["partitions"]
        .as_array()
        .and_then(|all| {
            all.iter().find(|p| {
                p["namespaces"]
                    .as_array()
                    .is_some_and(|n| n.iter().any(|n| n == "default"))
            })
        })
        .context("no partition holds the default namespace")?;
    Ok(partition["leader_node"].as_u64().context("no leader")? as usize - 1)
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_that_are_cut_off_are_replaced_and_heal() -> Result<()> {
    let Some(cluster) = Cluster::start_on_hosts(3, 4).await? else {
        return Ok(());
    };
    let load = Load::start(cluster.endpoints(), 8);
    let network = cluster.network.as_ref().context("no network")?;
    for host in 1..=3 {
        load.progress(100, LIMIT).await?;
        network.cut(host)?;
        load.progress(100, LIMIT)
            .await
            .with_context(|| format!("with host {host} cut off"))?;
        network.heal(host)?;
        cluster.wait_ready(3).await?;
    }
    cluster.assert_nothing_lost(load).await
}
