//! The etcd API of one node in this process, through an etcd client.

use std::marker::PhantomData;
use std::time::Duration;

use env::Env;
use etcd_client::{
    Client, CompactionOptions, Compare, CompareOp, DeleteOptions, Error, EventType, GetOptions,
    LeaseGrantOptions, LeaseTimeToLiveOptions, LockOptions, ProclaimOptions, PutOptions, ResignOptions, Txn,
    TxnOp, WatchOptions, WatchStream,
};
use tonic::Code;
use tonic::codec::CompressionEncoding;
use tonic::metadata::MetadataValue;

use crate::config::Config;
use crate::node::{Node, init};
use crate::service::error;

const DEADLINE: Duration = Duration::from_secs(30);

struct Running {
    node: Node,
    client: Client,
    _dir: tempfile::TempDir,
}

/// A cluster of one node that has answered.
async fn start() -> Running {
    let dir = tempfile::tempdir().expect("a directory");
    let mut config = Config::default();
    config.node.data_dir = dir.path().join("data");
    config.listen.client = "127.0.0.1:0".into();
    config.listen.peer = "127.0.0.1:0".into();
    config.listen.http = "127.0.0.1:0".into();
    let env = Env::production();
    init(&config, 2, &env).expect("init");
    let node = Node::start(config, env).await.expect("starts");
    let address = node.client_address().to_owned();
    let mut client = Client::connect([address], None).await.expect("connects");
    let answers = async {
        while client.get("ready", None).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, answers)
        .await
        .expect("serves in time");
    Running {
        node,
        client,
        _dir: dir,
    }
}

fn check<T>(answer: Result<T, Error>, code: Code, text: &str) {
    match answer {
        Err(Error::GRpcStatus(status)) => assert_eq!((status.code(), status.message()), (code, text)),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("not refused, expected {text}"),
    }
}

fn check_etcd<T>(answer: Result<T, Error>, expected: error::EtcdError) {
    check(answer, expected.code, expected.text);
}

fn revision(header: Option<&etcd_client::ResponseHeader>) -> i64 {
    header.expect("a header").revision()
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_and_their_errors() {
    let running = start().await;
    let mut c = running.client.clone();
    let put = c.put("a", "1", None).await.expect("put");
    assert_eq!(revision(put.header()), 2);
    let header = put.header().expect("header");
    assert_eq!(header.member_id(), 1);
    assert!(header.cluster_id() != 0 && header.raft_term() > 0);
    let put = c
        .put("a", "2", Some(PutOptions::new().with_prev_key()))
        .await
        .expect("put");
    assert_eq!(put.prev_key().map(|kv| kv.value().to_vec()), Some(b"1".to_vec()));
    let got = c.get("a", None).await.expect("get");
    assert_eq!(
        (got.count(), got.kvs()[0].version(), got.kvs()[0].mod_revision()),
        (1, 2, 3)
    );
    let old = c
        .get("a", Some(GetOptions::new().with_revision(2).with_serializable()))
        .await
        .expect("get");
    assert_eq!(old.kvs()[0].value(), b"1");

    check_etcd(c.put("", "x", None).await, error::EMPTY_KEY);
    check_etcd(
        c.get("a", Some(GetOptions::new().with_revision(99))).await,
        error::FUTURE_REVISION,
    );
    check_etcd(
        c.put("a", "x", Some(PutOptions::new().with_ignore_value())).await,
        error::VALUE_PROVIDED,
    );
    check_etcd(
        c.put("no", "", Some(PutOptions::new().with_ignore_value())).await,
        error::KEY_NOT_FOUND,
    );
    check_etcd(
        c.put("a", "x", Some(PutOptions::new().with_lease(404))).await,
        error::LEASE_NOT_FOUND,
    );
    check_etcd(
        c.put("a", vec![0u8; 2 * 1024 * 1024], None).await,
        error::TOO_LARGE,
    );
    let twice = Txn::new().and_then([TxnOp::put("a", "1", None), TxnOp::put("a", "2", None)]);
    check_etcd(c.txn(twice).await, error::DUPLICATE_KEY);

    let done = c
        .compact(3, Some(CompactionOptions::new().with_physical()))
        .await
        .expect("compact");
    assert_eq!(revision(done.header()), 3);
    check_etcd(
        c.get("a", Some(GetOptions::new().with_revision(2))).await,
        error::COMPACTED,
    );
    check_etcd(c.compact(3, None).await, error::COMPACTED);
    check_etcd(c.compact(99, None).await, error::FUTURE_REVISION);
    let deleted = c
        .delete("a", Some(DeleteOptions::new().with_prev_key()))
        .await
        .expect("delete");
    assert_eq!((deleted.deleted(), deleted.prev_kvs().len()), (1, 1));
    running.node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn transactions_that_write_and_that_only_read() {
    let running = start().await;
    let mut c = running.client.clone();
    let txn = Txn::new()
        .when([Compare::version("k", CompareOp::Equal, 0)])
        .and_then([TxnOp::put("k", "1", None), TxnOp::get("k", None)])
        .or_else([TxnOp::get("k", None)]);
    let first = c.txn(txn.clone()).await.expect("txn");
    assert!(first.succeeded() && first.op_responses().len() == 2 && revision(first.header()) == 2);
    assert!(!c.txn(txn).await.expect("txn").succeeded());
    let read = Txn::new()
        .when([Compare::value("k", CompareOp::Equal, "1")])
        .and_then([TxnOp::get("k", None)]);
    let before = running.node.core().applied(space(&running).partition);
    let read = c.txn(read).await.expect("txn");
    assert!(read.succeeded() && revision(read.header()) == 2);
    assert_eq!(
        running.node.core().applied(space(&running).partition),
        before,
        "a read is not logged"
    );
    running.node.shutdown().await;
}

fn space(running: &Running) -> crate::core::KeySpace {
    running.node.core().key_space("default").expect("exists")
}

#[tokio::test(flavor = "multi_thread")]
async fn leases() {
    let running = start().await;
    let mut c = running.client.clone();
    let granted = c
        .lease_grant(60, Some(LeaseGrantOptions::new().with_id(7)))
        .await
        .expect("grant");
    assert_eq!((granted.id(), granted.ttl()), (7, 60));
    check_etcd(
        c.lease_grant(60, Some(LeaseGrantOptions::new().with_id(7))).await,
        error::LEASE_EXISTS,
    );
    check_etcd(
        c.lease_grant(9_000_000_001, None).await,
        error::LEASE_TTL_TOO_LARGE,
    );
    check_etcd(c.lease_revoke(404).await, error::LEASE_NOT_FOUND);
    let own = c.lease_grant(60, None).await.expect("grant");
    assert!(own.id() > 0);
    c.put("l", "v", Some(PutOptions::new().with_lease(7)))
        .await
        .expect("put");
    let keys = Some(LeaseTimeToLiveOptions::new().with_keys());
    let left = c.lease_time_to_live(7, keys.clone()).await.expect("ttl");
    assert!(left.ttl() > 50 && left.granted_ttl() == 60 && left.keys() == [b"l".to_vec()]);
    let none = c.lease_time_to_live(404, keys).await.expect("ttl");
    assert_eq!((none.ttl(), none.granted_ttl()), (-1, 0));
    assert_eq!(c.leases().await.expect("leases").leases().len(), 2);

    let (mut keeper, mut answers) = c.lease_keep_alive(7).await.expect("keep alive");
    for _ in 0..20 {
        keeper.keep_alive().await.expect("sent");
    }
    for _ in 0..20 {
        let answer = answers.message().await.expect("no error").expect("an answer");
        assert_eq!((answer.id(), answer.ttl()), (7, 60));
    }
    // The first answer for a lease that is not there says so by a TTL of 0, which the client makes an error of.
    match c.lease_keep_alive(404).await {
        Err(Error::LeaseKeepAliveError(text)) => assert_eq!(text, "lease not found"),
        other => panic!("{other:?}"),
    }
    c.lease_revoke(7).await.expect("revoke");
    assert_eq!(c.get("l", None).await.expect("get").count(), 0);
    running.node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn maintenance_and_members() {
    let running = start().await;
    let mut c = running.client.clone();
    c.put("a", "1", None).await.expect("put");
    let status = c.status().await.expect("status");
    assert!(status.version().starts_with("3.5.") && status.leader() == 1 && status.raft_term() > 0);
    assert!(status.db_size() > 0 && status.raft_index() > 0);
    let members = c.member_list().await.expect("members");
    assert_eq!(members.members().len(), 1);
    assert!(members.members()[0].client_urls()[0].starts_with("http://127.0.0.1:"));
    assert!(!members.members()[0].is_learner());
    let hash = c.hash_kv(0).await.expect("hash").hash();
    assert_eq!(c.hash_kv(2).await.expect("hash").hash(), hash);
    c.hash().await.expect("hash");
    c.defragment().await.expect("defragment does nothing and says so");
    let get = etcd_client::AlarmAction::Get;
    let alarms = c
        .alarm(get, etcd_client::AlarmType::None, None)
        .await
        .expect("alarms");
    assert!(alarms.alarms().is_empty());
    check_etcd(c.move_leader(99).await, error::BAD_TRANSFEREE);
    let refused = c
        .member_add(["http://127.0.0.1:1"], None)
        .await
        .expect_err("refused");
    let Error::GRpcStatus(status) = refused else {
        panic!("{refused}")
    };
    assert!(status.code() == Code::Unimplemented && status.message().contains("holdfast nodes"));
    let refused = c.auth_enable().await.expect_err("refused");
    let Error::GRpcStatus(status) = refused else {
        panic!("{refused}")
    };
    assert!(status.code() == Code::Unimplemented && status.message().contains("authentication"));
    let copied = match c.snapshot().await {
        Err(error) => error,
        Ok(mut stream) => stream.message().await.expect_err("refused"),
    };
    let Error::GRpcStatus(status) = copied else {
        panic!("{copied}")
    };
    assert!(status.code() == Code::Unimplemented && status.message().contains("snapshots"));
    running.node.shutdown().await;
}

/// A client below etcd's.
async fn raw(running: &Running) -> tonic::client::Grpc<tonic::transport::Channel> {
    let address = format!("http://{}", running.node.client_address());
    let channel = tonic::transport::Channel::from_shared(address)
        .expect("an address")
        .connect()
        .await;
    let mut grpc = tonic::client::Grpc::new(channel.expect("connects"));
    grpc.ready().await.expect("ready");
    grpc
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_namespace_is_named() {
    use etcd_client::proto::{PbRangeRequest, PbRangeResponse};
    let running = start().await;
    let mut grpc = raw(&running).await;
    let mut request = tonic::Request::new(PbRangeRequest {
        key: b"k".to_vec(),
        ..PbRangeRequest::default()
    });
    request
        .metadata_mut()
        .insert(super::NAMESPACE, MetadataValue::from_static("nowhere"));
    let path = tonic::codegen::http::uri::PathAndQuery::from_static("/etcdserverpb.KV/Range");
    let codec = Messages::<PbRangeRequest, PbRangeResponse>::new();
    let status = grpc.unary(request, path, codec).await.expect_err("refused");
    assert_eq!(
        (status.code(), status.message()),
        (Code::NotFound, "namespace 'nowhere' does not exist")
    );
    running.node.shutdown().await;
}

/// The library's client codec is not public.
struct Messages<Q, A>(PhantomData<(Q, A)>);

impl<Q, A> Messages<Q, A> {
    fn new() -> Self {
        Messages(PhantomData)
    }
}

impl<Q: prost::Message + 'static, A: prost::Message + Default + 'static> tonic::codec::Codec
    for Messages<Q, A>
{
    type Encode = Q;
    type Decode = A;
    type Encoder = Self;
    type Decoder = Self;
    fn encoder(&mut self) -> Self {
        Messages::new()
    }
    fn decoder(&mut self) -> Self {
        Messages::new()
    }
}

impl<Q: prost::Message, A> tonic::codec::Encoder for Messages<Q, A> {
    type Item = Q;
    type Error = tonic::Status;
    fn encode(&mut self, item: Q, out: &mut tonic::codec::EncodeBuf<'_>) -> Result<(), tonic::Status> {
        item.encode(out)
            .map_err(|error| tonic::Status::internal(error.to_string()))
    }
}

impl<Q, A: prost::Message + Default> tonic::codec::Decoder for Messages<Q, A> {
    type Item = A;
    type Error = tonic::Status;
    fn decode(&mut self, from: &mut tonic::codec::DecodeBuf<'_>) -> Result<Option<A>, tonic::Status> {
        A::decode(from)
            .map(Some)
            .map_err(|error| tonic::Status::internal(error.to_string()))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn watches_take_compressed_requests() {
    use etcd_client::proto::{PbWatchRequest, PbWatchRequestUnion, PbWatchResponse};
    let running = start().await;
    let mut grpc = raw(&running).await.send_compressed(CompressionEncoding::Gzip);
    let create = PbWatchRequestUnion::CreateRequest(Default::default());
    let request = PbWatchRequest {
        request_union: Some(create),
    };
    let requests = futures::StreamExt::chain(futures::stream::iter([request]), futures::stream::pending());
    let path = tonic::codegen::http::uri::PathAndQuery::from_static("/etcdserverpb.Watch/Watch");
    let codec = Messages::<PbWatchRequest, PbWatchResponse>::new();
    let answers = grpc.streaming(tonic::Request::new(requests), path, codec).await;
    let created = answers.expect("opens").into_inner().message().await;
    assert!(created.expect("no error").expect("an answer").created);
    running.node.shutdown().await;
}

async fn next(stream: &mut WatchStream) -> etcd_client::WatchResponse {
    let message = tokio::time::timeout(DEADLINE, stream.message())
        .await
        .expect("in time");
    message.expect("no error").expect("not ended")
}

#[tokio::test(flavor = "multi_thread")]
async fn watches() {
    let running = start().await;
    let mut c = running.client.clone();
    c.put("w/1", "a", None).await.expect("put");
    let options = WatchOptions::new().with_prefix().with_prev_key();
    let mut stream = c.watch("w/", Some(options)).await.expect("watch");
    let created = next(&mut stream).await;
    assert!(created.created() && revision(created.header()) == 2);
    c.put("w/1", "b", None).await.expect("put");
    c.delete("w/1", None).await.expect("delete");
    let mut events = Vec::new();
    while events.len() < 2 {
        events.extend(next(&mut stream).await.events().to_vec());
    }
    assert_eq!(events[0].event_type(), EventType::Put);
    assert_eq!(
        events[0].prev_kv().map(|kv| kv.value().to_vec()),
        Some(b"a".to_vec())
    );
    assert_eq!(events[1].event_type(), EventType::Delete);
    assert_eq!(events[1].kv().map(etcd_client::KeyValue::mod_revision), Some(4));

    stream.request_progress().await.expect("sent");
    let told = next(&mut stream).await;
    assert!(told.watch_id() == -1 && revision(told.header()) == 4 && told.events().is_empty());

    let past = WatchOptions::new()
        .with_prefix()
        .with_start_revision(2)
        .with_watch_id(9);
    stream.watch("w/", Some(past)).await.expect("sent");
    assert!(next(&mut stream).await.created());
    let mut seen = 0;
    while seen < 3 {
        let response = next(&mut stream).await;
        assert_eq!(response.watch_id(), 9);
        seen += response.events().len();
    }
    stream.cancel(9).await.expect("sent");
    assert!(next(&mut stream).await.canceled());

    c.compact(4, None).await.expect("compact");
    let compacted = WatchOptions::new().with_start_revision(3);
    stream.watch("w/1", Some(compacted)).await.expect("sent");
    assert!(next(&mut stream).await.created());
    let end = next(&mut stream).await;
    assert!(end.canceled() && end.compact_revision() == 4);
    running.node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn locks() {
    let running = start().await;
    let mut c = running.client.clone();
    let lease = |id| Some(LockOptions::new().with_lease(id));
    for id in [1, 2] {
        c.lease_grant(60, Some(LeaseGrantOptions::new().with_id(id)))
            .await
            .expect("grant");
    }
    let first = c.lock("m", lease(1)).await.expect("lock");
    assert_eq!(first.key(), b"m/1");
    let again = c.lock("m", lease(1)).await.expect("a session may lock twice");
    assert_eq!(again.key(), first.key());
    let mut other = running.client.clone();
    let waiting = tokio::spawn(async move { other.lock("m", lease(2)).await });
    let queued = async {
        while c.get("m/2", None).await.expect("get").count() == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, queued).await.expect("it queues");
    assert!(!waiting.is_finished());
    c.unlock(first.key()).await.expect("unlock");
    let second = tokio::time::timeout(DEADLINE, waiting)
        .await
        .expect("in time")
        .expect("no panic");
    assert_eq!(second.expect("lock").key(), b"m/2");

    // Who stops waiting leaves no key behind.
    let mut other = running.client.clone();
    let waiting = tokio::spawn(async move { other.lock("m", lease(1)).await });
    let mut c2 = running.client.clone();
    let appears = async {
        while c2.get("m/1", None).await.expect("get").count() == 0 {
            tokio::task::yield_now().await;
        }
        waiting.abort();
        while c2.get("m/1", None).await.expect("get").count() == 1 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, appears)
        .await
        .expect("the key goes");
    let unleased = c.lock("fresh", None).await.expect("a session of its own");
    assert!(unleased.key().starts_with(b"fresh/"));
    check(
        c.lock("m", lease(404)).await,
        Code::Unknown,
        error::LEASE_NOT_FOUND.text,
    );
    running.node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn elections() {
    let running = start().await;
    let mut c = running.client.clone();
    for id in [1, 2] {
        c.lease_grant(60, Some(LeaseGrantOptions::new().with_id(id)))
            .await
            .expect("grant");
    }
    check(c.leader("e").await, Code::Unknown, "election: no leader");
    let mut observed = c.observe("e").await.expect("observe");
    let won = c.campaign("e", "one", 1).await.expect("campaign");
    let leader = won.leader().expect("a leader key").clone();
    assert_eq!((leader.key(), leader.lease()), (&b"e/1"[..], 1));
    // Only from its first message on does an observer see every value.
    let mut values = Vec::new();
    let first = tokio::time::timeout(DEADLINE, observed.message()).await;
    let first = first.expect("in time").expect("no error").expect("not ended");
    values.extend(first.kv().map(|kv| kv.value().to_vec()));
    let mut other = running.client.clone();
    let waiting = tokio::spawn(async move { other.campaign("e", "two", 2).await });
    let say = Some(ProclaimOptions::new().with_leader(leader.clone()));
    c.proclaim("still one", say.clone()).await.expect("proclaim");
    let now = c.leader("e").await.expect("leader");
    assert_eq!(
        now.kv().map(|kv| kv.value().to_vec()),
        Some(b"still one".to_vec())
    );
    let queued = async {
        while c.get("e/2", None).await.expect("get").count() == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, queued).await.expect("it queues");
    c.resign(Some(ResignOptions::new().with_leader(leader)))
        .await
        .expect("resign");
    let second = tokio::time::timeout(DEADLINE, waiting)
        .await
        .expect("in time")
        .expect("no panic");
    assert_eq!(second.expect("campaign").leader().map(|l| l.lease()), Some(2));
    check(
        c.proclaim("late", say).await,
        Code::Unknown,
        "election: not leader",
    );
    while values.last().is_none_or(|v| v != b"two") {
        let told = tokio::time::timeout(DEADLINE, observed.message())
            .await
            .expect("in time");
        let told = told.expect("no error").expect("not ended");
        values.extend(told.kv().map(|kv| kv.value().to_vec()));
    }
    assert_eq!(values, [&b"one"[..], b"still one", b"two"]);
    running.node.shutdown().await;
}
