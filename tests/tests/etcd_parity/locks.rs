//! Locks and elections: who waits for whom, what comes back, what is refused.

use std::time::Duration;

use anyhow::{Context, Result};
use etcd_client::proto::{
    PbLeaseGrantRequest, PbLeaseGrantResponse, PbLeaseRevokeRequest, PbLeaseRevokeResponse, PbRangeRequest,
    PbRangeResponse,
};
use proto::election::{
    CampaignRequest, CampaignResponse, LeaderKey, LeaderRequest, LeaderResponse, ProclaimRequest,
    ProclaimResponse, ResignRequest, ResignResponse,
};
use proto::lock::{LockRequest, LockResponse, UnlockRequest, UnlockResponse};
use tests::raw::Raw;
use tests::until;
use tokio::time::timeout;
use tonic::Status;

use super::{Pair, read};

const LIMIT: Duration = Duration::from_secs(20);
const LOCK: &str = "/v3lockpb.Lock/Lock";
const UNLOCK: &str = "/v3lockpb.Lock/Unlock";
const CAMPAIGN: &str = "/v3electionpb.Election/Campaign";
const PROCLAIM: &str = "/v3electionpb.Election/Proclaim";
const LEADER: &str = "/v3electionpb.Election/Leader";
const OBSERVE: &str = "/v3electionpb.Election/Observe";
const RESIGN: &str = "/v3electionpb.Election/Resign";
const RANGE: &str = "/etcdserverpb.KV/Range";

fn lock(name: &str, lease: i64) -> LockRequest {
    LockRequest {
        name: name.into(),
        lease,
    }
}

fn unlock(key: &str) -> UnlockRequest {
    UnlockRequest { key: key.into() }
}

fn range(key: &str, range_end: &str) -> PbRangeRequest {
    PbRangeRequest {
        key: key.into(),
        range_end: range_end.into(),
        ..PbRangeRequest::default()
    }
}

async fn grant(pair: &mut Pair, ids: &[i64]) -> Result<()> {
    for id in ids {
        let message = PbLeaseGrantRequest { ttl: 600, id: *id };
        pair.ask::<_, PbLeaseGrantResponse>("grant", "/etcdserverpb.Lease/LeaseGrant", message)
            .await?;
    }
    Ok(())
}

/// Waits until a key is there: whoever waits under it has queued.
async fn wait_queued(endpoint: &str, key: &str) -> Result<()> {
    let raw = Raw::connect(endpoint).await?;
    until("it queues", LIMIT, || {
        let (mut raw, message) = (raw.clone(), range(key, ""));
        async move {
            let found: PbRangeResponse = raw.call(RANGE, message).await?;
            Ok((found.count == 1).then_some(()))
        }
    })
    .await
}

/// Someone waits for a lock that another holds; `let_go` ends the holder, or the waiter. Returns what the waiter is told.
async fn waits(endpoint: &str, other: &str, wanted: LockRequest, let_go: LetGo) -> Result<String> {
    let mut raw = Raw::connect(endpoint).await?;
    let key = format!("{}/{:x}", String::from_utf8_lossy(&wanted.name), wanted.lease);
    let waiting = tokio::spawn(async move { raw.call::<_, LockResponse>(LOCK, wanted).await });
    wait_queued(other, &key).await?;
    anyhow::ensure!(!waiting.is_finished(), "the lock was given twice");
    let mut raw = Raw::connect(other).await?;
    match let_go {
        LetGo::Unlock(key) => {
            let _: UnlockResponse = raw.call(UNLOCK, unlock(key)).await?;
        }
        LetGo::Revoke(id) => {
            let path = "/etcdserverpb.Lease/LeaseRevoke";
            let _: PbLeaseRevokeResponse = raw.call(path, PbLeaseRevokeRequest { id }).await?;
        }
    }
    read(timeout(LIMIT, waiting).await.context("still waiting")??)
}

#[derive(Clone, Copy)]
enum LetGo {
    Unlock(&'static str),
    Revoke(i64),
}

/// Locks.
pub async fn locks(pair: &mut Pair) -> Result<()> {
    grant(pair, &[1, 2, 3, 4]).await?;
    for (what, name, lease) in [
        ("lock", "m", 1),
        ("the same once more", "m", 1),
        ("a lease that is not there", "m", 404),
        ("no name", "", 1),
        ("another lock", "m2", 2),
    ] {
        pair.ask::<_, LockResponse>(what, LOCK, lock(name, lease)).await?;
    }
    for (what, wanted, let_go) in [
        ("unlocked", lock("m", 2), LetGo::Unlock("m/1")),
        ("the holder's lease ends", lock("m", 3), LetGo::Revoke(2)),
    ] {
        let etcd = pair.etcd.endpoint.clone();
        let expected = waits(&etcd, &etcd, wanted.clone(), let_go)
            .await
            .context("etcd")?;
        let (one, other) = (pair.ours().to_owned(), pair.ours().to_owned());
        let got = waits(&one, &other, wanted, let_go).await.context("holdfast")?;
        pair.compare(what, &expected, &got);
    }
    for key in ["m/3", "m/3", "nothing", ""] {
        pair.ask::<_, UnlockResponse>(&format!("unlock {key:?}"), UNLOCK, unlock(key))
            .await?;
    }
    pair.ask::<_, PbRangeResponse>("what is left", RANGE, range("\0", "\0"))
        .await
}

fn leader_key(name: &str, lease: i64, rev: i64) -> Option<LeaderKey> {
    Some(LeaderKey {
        name: name.into(),
        key: format!("{name}/{lease:x}").into(),
        rev,
        lease,
    })
}

fn campaign(name: &str, lease: i64, value: &str) -> CampaignRequest {
    CampaignRequest {
        name: name.into(),
        lease,
        value: value.into(),
    }
}

fn proclaim(leader: Option<LeaderKey>, value: &str) -> ProclaimRequest {
    ProclaimRequest {
        leader,
        value: value.into(),
    }
}

fn leader_of(name: &str) -> LeaderRequest {
    LeaderRequest { name: name.into() }
}

/// Elections; every revision is one that both have reached.
pub async fn elections(pair: &mut Pair) -> Result<()> {
    grant(pair, &[11, 12, 13]).await?;
    let mut etcd = Raw::connect(&pair.etcd.endpoint).await?;
    let won: CampaignResponse = etcd.call(CAMPAIGN, campaign("probe", 13, "v")).await?;
    let mut ours = Raw::connect(pair.ours()).await?;
    let got: CampaignResponse = ours.call(CAMPAIGN, campaign("probe", 13, "v")).await?;
    let rev = won.leader.as_ref().context("no leader key")?.rev;
    pair.compare("campaign", &read(Ok(won))?, &read(Ok(got))?);

    pair.ask::<_, LeaderResponse>("nobody leads", LEADER, leader_of("e"))
        .await?;
    pair.ask::<_, CampaignResponse>("no lease", CAMPAIGN, campaign("e", 404, "v"))
        .await?;
    pair.ask::<_, CampaignResponse>("campaign", CAMPAIGN, campaign("e", 11, "one"))
        .await?;
    let rev = rev + 1;
    pair.ask::<_, CampaignResponse>("once more", CAMPAIGN, campaign("e", 11, "one"))
        .await?;
    pair.ask::<_, CampaignResponse>("with another value", CAMPAIGN, campaign("e", 11, "uno"))
        .await?;
    pair.ask::<_, LeaderResponse>("leader", LEADER, leader_of("e"))
        .await?;
    for (what, leader) in [
        ("proclaim", leader_key("e", 11, rev)),
        ("proclaim by none", None),
        ("proclaim by another revision", leader_key("e", 11, rev + 1)),
        ("proclaim by who never stood", leader_key("e", 12, rev)),
        ("proclaim by nobody's lease", leader_key("e", 404, rev)),
    ] {
        pair.ask::<_, ProclaimResponse>(what, PROCLAIM, proclaim(leader, "said"))
            .await?;
    }
    let etcd = pair.etcd.endpoint.clone();
    let expected = succession(&etcd, &etcd, rev).await.context("etcd")?;
    let (one, other) = (pair.ours().to_owned(), pair.ours().to_owned());
    let got = succession(&one, &other, rev).await.context("holdfast")?;
    for (expected, got) in expected.iter().zip(&got) {
        pair.compare("succession", expected, got);
    }
    for (what, leader) in [
        ("resign once more", leader_key("e", 11, rev)),
        ("resign by none", None),
        ("resign by nobody", leader_key("none", 1, 1)),
    ] {
        pair.ask::<_, ResignResponse>(what, RESIGN, ResignRequest { leader })
            .await?;
    }
    pair.ask::<_, PbRangeResponse>("what is left", RANGE, range("\0", "\0"))
        .await
}

/// An observer looks on while a second candidate waits, the first says something, and resigns.
async fn succession(endpoint: &str, other: &str, rev: i64) -> Result<Vec<String>> {
    let mut raw = Raw::connect(endpoint).await?;
    let first = futures::stream::iter([leader_of("e")]);
    let mut observed = raw.stream::<_, LeaderResponse>(OBSERVE, first).await?;
    let mut said = vec![read(observe(&mut observed).await)?];
    let mut candidate = Raw::connect(other).await?;
    let waiting = tokio::spawn(async move {
        candidate
            .call::<_, CampaignResponse>(CAMPAIGN, campaign("e", 12, "two"))
            .await
    });
    wait_queued(endpoint, "e/c").await?;
    let says = proclaim(leader_key("e", 11, rev), "last words");
    said.push(read(raw.call::<_, ProclaimResponse>(PROCLAIM, says).await)?);
    said.push(read(observe(&mut observed).await)?);
    let leader = leader_key("e", 11, rev);
    said.push(read(
        raw.call::<_, ResignResponse>(RESIGN, ResignRequest { leader })
            .await,
    )?);
    said.push(read(timeout(LIMIT, waiting).await.context("still waiting")??)?);
    said.push(read(observe(&mut observed).await)?);
    Ok(said)
}

async fn observe(observed: &mut tonic::Streaming<LeaderResponse>) -> Result<LeaderResponse, Status> {
    match timeout(LIMIT, observed.message()).await {
        Ok(message) => message?.ok_or_else(|| Status::unavailable("the stream ended")),
        Err(_) => Err(Status::deadline_exceeded("nothing was observed")),
    }
}
