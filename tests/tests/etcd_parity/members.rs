//! Members, status, hashes, alarms: their values are each server's own, so what they mean is compared.

use std::fmt::Debug;

use anyhow::{Context, Result};
use etcd_client::proto::{
    PbAlarmRequest, PbAlarmResponse, PbDefragmentRequest, PbDefragmentResponse, PbHashKvRequest,
    PbHashKvResponse, PbHashRequest, PbHashResponse, PbMemberListRequest, PbMemberListResponse,
    PbMoveLeaderRequest, PbMoveLeaderResponse, PbPutRequest, PbPutResponse, PbStatusRequest,
    PbStatusResponse,
};
use tests::raw::Raw;
use tonic::codec::Codec;
use tonic_prost::ProstCodec;

use super::{Pair, read};

const MEMBERS: &str = "/etcdserverpb.Cluster/MemberList";
const STATUS: &str = "/etcdserverpb.Maintenance/Status";
const HASH: &str = "/etcdserverpb.Maintenance/Hash";
const HASH_KV: &str = "/etcdserverpb.Maintenance/HashKV";
const ALARM: &str = "/etcdserverpb.Maintenance/Alarm";
const DEFRAGMENT: &str = "/etcdserverpb.Maintenance/Defragment";
const MOVE_LEADER: &str = "/etcdserverpb.Maintenance/MoveLeader";

/// Named facts, so that a difference says which.
fn facts(all: &[(&str, &dyn Debug)]) -> String {
    let parts: Vec<String> = all
        .iter()
        .map(|(name, value)| format!("{name} {value:?}"))
        .collect();
    parts.join(", ")
}

/// What members and status say of each other.
async fn shape(endpoint: &str) -> Result<String> {
    let mut raw = Raw::connect(endpoint).await?;
    let list: PbMemberListResponse = raw
        .call(MEMBERS, PbMemberListRequest { linearizable: true })
        .await?;
    let status: PbStatusResponse = raw.call(STATUS, PbStatusRequest::default()).await?;
    let header = status.header.as_ref().context("no header")?;
    let known = |id: u64| list.members.iter().any(|member| member.id == id);
    let mut ids: Vec<u64> = list.members.iter().map(|member| member.id).collect();
    ids.sort_unstable();
    ids.dedup();
    let urls = |urls: &[String]| !urls.is_empty() && urls.iter().all(|url| url.starts_with("http://"));
    let answers_there = |url: &String| url.ends_with(endpoint);
    let whole = list.members.iter().all(|member| {
        member.id != 0
            && !member.name.is_empty()
            && !member.is_learner
            && urls(&member.peer_ur_ls)
            && urls(&member.client_ur_ls)
    });
    let me = list.members.iter().find(|member| member.id == header.member_id);
    Ok(facts(&[
        ("ids are distinct", &(ids.len() == list.members.len())),
        ("members are whole", &whole),
        (
            "one cluster",
            &(list.header.as_ref().map(|h| h.cluster_id) == Some(header.cluster_id)),
        ),
        ("who answers is a member", &known(header.member_id)),
        (
            "and is where it says",
            &me.is_some_and(|me| me.client_ur_ls.iter().any(answers_there)),
        ),
        ("the leader is a member", &known(status.leader)),
        (
            "major version",
            &status.version.split('.').next().map(str::to_owned),
        ),
        ("revision", &header.revision),
        (
            "term",
            &(header.raft_term > 0 && status.raft_term == header.raft_term),
        ),
        (
            "applied",
            &(0 < status.raft_applied_index && status.raft_applied_index <= status.raft_index),
        ),
        (
            "size",
            &(0 < status.db_size_in_use && status.db_size_in_use <= status.db_size),
        ),
        ("learner", &status.is_learner),
        ("errors", &status.errors),
    ]))
}

/// How hashes at revisions go with each other: the same of the same, another of another.
async fn hashes(endpoint: &str, others: &[String]) -> Result<String> {
    let mut raw = Raw::connect(endpoint).await?;
    let mut at = async |revision: i64| -> Result<PbHashKvResponse, tonic::Status> {
        raw.call(HASH_KV, PbHashKvRequest { revision }).await
    };
    let now = at(0).await?;
    let revision = now.header.as_ref().context("no header")?.revision;
    let again = at(revision).await?;
    let before = at(revision - 1).await?;
    let mut equal = true;
    for other in others {
        let mut raw = Raw::connect(other).await?;
        let there: PbHashKvResponse = raw.call(HASH_KV, PbHashKvRequest { revision }).await?;
        equal &= there.hash == now.hash;
    }
    let mut raw = Raw::connect(endpoint).await?;
    let whole: PbHashResponse = raw.call(HASH, PbHashRequest::default()).await?;
    Ok(facts(&[
        ("same revision, same hash", &(now.hash == again.hash)),
        ("other revision, other hash", &(now.hash != before.hash)),
        ("all members agree", &equal),
        ("compacted", &(now.compact_revision, before.compact_revision)),
        ("revision", &(revision, whole.header.map(|h| h.revision))),
    ]))
}

async fn compare_hashes(pair: &mut Pair, what: &str) -> Result<()> {
    let etcd = pair.etcd.endpoint.clone();
    let expected = hashes(&etcd, &[]).await.context("etcd")?;
    let others = pair.cluster.endpoints();
    let ours = pair.ours().to_owned();
    let got = hashes(&ours, &others).await.context("holdfast")?;
    pair.compare(what, &expected, &got);
    Ok(())
}

/// One request to both; of the answers only what `body` takes is compared, since etcd leaves the header out of some.
async fn compare_body<Q, A, B: Debug>(
    pair: &mut Pair,
    what: &str,
    path: &'static str,
    message: Q,
    body: impl Fn(A) -> B,
) -> Result<()>
where
    ProstCodec<Q, A>: Codec<Encode = Q, Decode = A> + Default,
    Q: Clone + Send + Sync + 'static,
    A: Send + Sync + 'static,
{
    let mut etcd = Raw::connect(&pair.etcd.endpoint).await?;
    let expected = read(etcd.call(path, message.clone()).await.map(&body))?;
    let mut ours = Raw::connect(pair.ours()).await?;
    let got = read(ours.call(path, message).await.map(&body))?;
    pair.compare(what, &expected, &got);
    Ok(())
}

/// Compares them.
pub async fn compare(pair: &mut Pair) -> Result<()> {
    for n in 0..5 {
        let message = PbPutRequest {
            key: format!("k{n}").into(),
            value: "v".into(),
            ..PbPutRequest::default()
        };
        pair.ask::<_, PbPutResponse>("put", "/etcdserverpb.KV/Put", message)
            .await?;
    }
    let expected = shape(&pair.etcd.endpoint.clone()).await.context("etcd")?;
    for endpoint in pair.cluster.endpoints() {
        let got = shape(&endpoint).await.context("holdfast")?;
        pair.compare("members and status", &expected, &got);
    }
    compare_hashes(pair, "hashes").await?;
    let message = etcd_client::proto::PbCompactionRequest {
        revision: 4,
        physical: true,
    };
    pair.ask::<_, etcd_client::proto::PbCompactionResponse>("compact", "/etcdserverpb.KV/Compact", message)
        .await?;
    compare_hashes(pair, "hashes after a compaction").await?;
    for revision in [-1, 1, 3, 99] {
        let what = format!("hash at {revision}");
        let body = |hash: PbHashKvResponse| (hash.header.map(|h| h.revision), hash.compact_revision);
        compare_body(pair, &what, HASH_KV, PbHashKvRequest { revision }, body).await?;
    }
    // Listing and clearing, of all and of one kind. Raising an alarm is the nodes' own business here.
    for (action, member_id, alarm) in [(0, 0, 0), (0, 0, 1), (0, 0, 2), (0, 99, 1), (2, 0, 1), (2, 99, 2)] {
        let message = PbAlarmRequest {
            action,
            member_id,
            alarm,
        };
        let what = format!("alarm {action} {member_id} {alarm}");
        compare_body(pair, &what, ALARM, message, |answer: PbAlarmResponse| {
            answer.alarms
        })
        .await?;
    }
    let message = PbDefragmentRequest::default();
    compare_body(
        pair,
        "defragment",
        DEFRAGMENT,
        message,
        |_: PbDefragmentResponse| (),
    )
    .await?;
    for target_id in [0, 99] {
        pair.ask::<_, PbMoveLeaderResponse>("move leader", MOVE_LEADER, PbMoveLeaderRequest { target_id })
            .await?;
    }
    Ok(())
}
