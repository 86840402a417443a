//! What operators and their tools look at: metrics, health, reflection, request ids in the logs, and refusals that
//! say that nothing was done.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use client::{ErrorKind, NewNamespace, Options};
use etcd_client::proto::{PbPutRequest, PbPutResponse};
use tests::{Cluster, http, until};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

const LIMIT: Duration = Duration::from_secs(60);

async fn channel(address: &str) -> Result<Channel> {
    Ok(Endpoint::from_shared(format!("http://{address}"))?
        .connect()
        .await?)
}

/// A page of metrics: the kind of each, and its samples by name with labels.
struct Page {
    kinds: BTreeMap<String, String>,
    samples: BTreeMap<String, f64>,
}

/// Reads OpenMetrics text, strictly: every sample belongs to a metric that was announced, and the page ends as it
/// must.
fn parse(text: &str) -> Result<Page> {
    let mut page = Page {
        kinds: BTreeMap::new(),
        samples: BTreeMap::new(),
    };
    let (body, rest) = text.split_once("# EOF\n").context("no end")?;
    ensure!(rest.is_empty(), "more after the end: {rest}");
    for line in body.lines() {
        if let Some(told) = line.strip_prefix("# TYPE ") {
            let (name, kind) = told.split_once(' ').with_context(|| line.to_owned())?;
            let known = page.kinds.insert(name.to_owned(), kind.to_owned());
            ensure!(known.is_none(), "{name} is announced twice");
            continue;
        }
        if line.starts_with("# HELP ") || line.starts_with("# UNIT ") {
            continue;
        }
        let (name, value) = line.rsplit_once(' ').with_context(|| line.to_owned())?;
        let plain = name.split('{').next().unwrap_or_default();
        ensure!(belongs(&page.kinds, plain), "{line} belongs to no metric");
        let value = value.parse().with_context(|| line.to_owned())?;
        ensure!(
            page.samples.insert(name.to_owned(), value).is_none(),
            "{name} twice"
        );
    }
    Ok(page)
}

fn belongs(kinds: &BTreeMap<String, String>, sample: &str) -> bool {
    let endings = [
        ("gauge", &[""][..]),
        ("counter", &["_total"]),
        ("histogram", &["_sum", "_count", "_bucket"]),
    ];
    endings.iter().any(|(kind, endings)| {
        let mut metrics = endings.iter().filter_map(|ending| sample.strip_suffix(ending));
        metrics.any(|metric| kinds.get(metric).is_some_and(|known| known == kind))
    })
}

/// What is promised to be there.
const PROMISED: [&str; 24] = [
    "holdfast_partition_leads{partition=\"1\"}",
    "holdfast_partition_leader_node{partition=\"1\"}",
    "holdfast_partition_term{partition=\"1\"}",
    "holdfast_partition_applied{partition=\"1\"}",
    "holdfast_partition_queue_depth{partition=\"1\"}",
    "holdfast_commit_seconds_count{partition=\"1\"}",
    "holdfast_log_fsyncs_total",
    "holdfast_log_fsync_seconds_total",
    "holdfast_log_fsync_slowest_seconds",
    "holdfast_log_operations_total",
    "holdfast_proposed_entries_total",
    "holdfast_proposed_commands_total",
    "holdfast_watch_streams",
    "holdfast_watches",
    "holdfast_memory_bytes",
    "holdfast_disk_free_bytes",
    "holdfast_requests_total",
    "holdfast_requests_failed_total{code=\"InvalidArgument\"}",
    "holdfast_peer_state{peer=\"2\",state=\"alive\"}",
    "holdfast_peer_state{peer=\"3\",state=\"dead\"}",
    "holdfast_peer_heard_seconds{peer=\"2\"}",
    "holdfast_peer_quick_elections_total{peer=\"3\"}",
    "holdfast_peer_frames_received_total",
    "holdfast_peer_connections_lost_total",
];

#[tokio::test(flavor = "multi_thread")]
async fn metrics_parse_and_tell_what_they_promise() -> Result<()> {
    let cluster = Cluster::start(3, 1).await?;
    let http = cluster.nodes[0].http.clone();
    // Node 1 leads, and goes on leading, so that it has commits to tell of.
    cluster.holdfast(0, &["partitions", "freeze"])?;
    until("node 1 leads", LIMIT, || async {
        cluster.holdfast(0, &["partitions", "transfer", "1", "--to", "1"])?;
        Ok(Some(()))
    })
    .await?;
    let mut client = cluster.client(0).await?;
    client.put("k", "v", None).await?;
    ensure!(client.put("", "v", None).await.is_err(), "took an empty key");
    let mut watch = client.watch("k", None).await?;
    ensure!(watch.message().await?.context("ended")?.created());
    let (status, text) = http::get(&http, "/metrics")?;
    ensure!(status == 200, "{status}");
    let page = parse(&text)?;
    for name in PROMISED {
        ensure!(page.samples.contains_key(name), "{name} is not in\n{text}");
    }
    let value = |name: &str| page.samples.get(name).copied().unwrap_or(-1.0);
    for (name, wanted) in [
        ("holdfast_partition_leads{partition=\"1\"}", 1.0),
        ("holdfast_watch_streams", 1.0),
        ("holdfast_watches", 1.0),
        ("holdfast_requests_failed_total{code=\"InvalidArgument\"}", 1.0),
        ("holdfast_peer_state{peer=\"2\",state=\"alive\"}", 1.0),
        ("holdfast_peer_state{peer=\"2\",state=\"dead\"}", 0.0),
    ] {
        ensure!(value(name) == wanted, "{name} is {}", value(name));
    }
    let (entries, commands) = (
        value("holdfast_proposed_entries_total"),
        value("holdfast_proposed_commands_total"),
    );
    ensure!(entries >= 1.0 && commands >= entries, "{commands} in {entries}");
    let strange: Vec<&String> = page
        .kinds
        .iter()
        .filter(|(name, kind)| kind.as_str() == "counter" && name.ends_with("_total"))
        .map(|(name, _)| name)
        .collect();
    ensure!(strange.is_empty(), "{strange:?} would end in _total twice");
    let again = parse(&http::get(&http, "/metrics")?.1)?;
    for (name, before) in page.samples.iter().filter(|(name, _)| name.contains("_total")) {
        ensure!(again.samples[name] >= *before, "{name} went back");
    }
    Ok(())
}

async fn health(address: &str, service: &str) -> Result<ServingStatus> {
    let asked = HealthCheckRequest {
        service: service.to_owned(),
    };
    let answer: HealthCheckResponse = HealthClient::new(channel(address).await?)
        .check(asked)
        .await?
        .into_inner();
    Ok(answer.status())
}

#[tokio::test(flavor = "multi_thread")]
async fn health_says_whether_and_why_not() -> Result<()> {
    let mut cluster = Cluster::start(3, 2).await?;
    let node = (cluster.nodes[0].client.clone(), cluster.nodes[0].http.clone());
    until("it is ready", LIMIT, || async {
        let (status, text) = http::get(&node.1, "/readyz")?;
        ensure!(status == 200 && text == "ok\n", "{status} {text}");
        let served = health(&node.0, "etcdserverpb.KV").await?;
        Ok((served == ServingStatus::Serving).then_some(()))
    })
    .await?;
    ensure!(health(&node.0, "").await? == ServingStatus::Serving);
    ensure!(health(&node.0, "no.such.Service").await.is_err());
    cluster.kill(1)?;
    cluster.kill(2)?;
    let why = until("it is not ready alone", LIMIT, || async {
        let (status, text) = http::get(&node.1, "/readyz")?;
        Ok((status == 503).then_some(text))
    })
    .await?;
    let says_why = [
        "no leader is known for partitions",
        "no quorum answers for partitions",
    ];
    ensure!(says_why.iter().any(|reason| why.contains(reason)), "{why}");
    until("gRPC health says so too", LIMIT, || async {
        Ok((health(&node.0, "").await? == ServingStatus::NotServing).then_some(()))
    })
    .await?;
    let (status, text) = http::get(&node.1, "/livez")?;
    ensure!(status == 200 && text == "ok\n", "it lives: {status} {text}");
    Ok(())
}

/// Asks for reflection's answer to one question.
async fn reflect(address: &str, question: MessageRequest) -> Result<MessageResponse> {
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(question),
    };
    let mut answers = ServerReflectionClient::new(channel(address).await?)
        .server_reflection_info(tokio_stream::iter([request]))
        .await?
        .into_inner();
    let answer = answers.message().await?.context("no answer")?;
    answer.message_response.context("an empty answer")
}

#[tokio::test(flavor = "multi_thread")]
async fn reflection_tells_of_what_clients_may_call() -> Result<()> {
    let cluster = Cluster::start(1, 1).await?;
    let address = &cluster.nodes[0].client;
    let MessageResponse::ListServicesResponse(list) =
        reflect(address, MessageRequest::ListServices(String::new())).await?
    else {
        anyhow::bail!("not a list");
    };
    let names: BTreeSet<String> = list.service.into_iter().map(|service| service.name).collect();
    for name in ["holdfast.v1.Cluster", "grpc.health.v1.Health", "v3lockpb.Lock"] {
        ensure!(names.contains(name), "{name} is not in {names:?}");
    }
    ensure!(
        !names.iter().any(|name| name.contains("peer")),
        "what controllers say to each other is not for clients: {names:?}"
    );
    let symbol = |name: &str| MessageRequest::FileContainingSymbol(name.to_owned());
    let told = reflect(address, symbol("holdfast.v1.StatusResponse")).await?;
    ensure!(
        matches!(told, MessageResponse::FileDescriptorResponse(_)),
        "{told:?}"
    );
    let hidden = reflect(address, symbol("holdfast.peer.v1.Hello")).await;
    ensure!(
        !matches!(hidden, Ok(MessageResponse::FileDescriptorResponse(_))),
        "{hidden:?}"
    );
    Ok(())
}

/// Puts a key under a lease, with an id for the request.
async fn put(address: &str, id: &str, lease: i64) -> Result<tonic::Response<PbPutResponse>, Status> {
    let channel = channel(address).await;
    let channel = channel.map_err(|error| Status::unavailable(error.to_string()))?;
    let mut grpc = tonic::client::Grpc::new(channel);
    let ready = grpc.ready().await;
    ready.map_err(|error| Status::unavailable(error.to_string()))?;
    let mut request = Request::new(PbPutRequest {
        key: b"k".to_vec(),
        lease,
        ..Default::default()
    });
    if !id.is_empty() {
        let value = id.parse().expect("plain text");
        request.metadata_mut().insert("x-request-id", value);
    }
    let path = tonic::codegen::http::uri::PathAndQuery::from_static("/etcdserverpb.KV/Put");
    grpc.unary(request, path, tonic_prost::ProstCodec::default())
        .await
}

fn id_of(metadata: &tonic::metadata::MetadataMap) -> Result<String> {
    let id = metadata.get(client::metadata::REQUEST_ID).context("no id")?;
    Ok(id.to_str()?.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_found_by_its_id_on_every_node_it_passed() -> Result<()> {
    let mut cluster = Cluster::start(3, 1).await?;
    for position in 0..3 {
        cluster.stop(position).await?;
        cluster.nodes[position].extra = vec!["--log-level".into(), "debug".into()];
        cluster.start_node(position)?;
        cluster.wait_ready(3).await?;
    }
    cluster.holdfast(0, &["partitions", "freeze"])?;
    let leader = until("somebody leads", LIMIT, || async {
        let list = cluster.json(0, &["partitions", "list", "1"])?;
        let leader = list["partitions"][0]["leader_node"].as_u64();
        Ok(leader.filter(|node| *node > 0).map(|node| node as usize - 1))
    })
    .await?;
    let other = (leader + 1) % 3;
    let address = &cluster.nodes[other].client;
    let answered = put(address, "order-17", 0).await?;
    ensure!(id_of(answered.metadata())? == "order-17");
    let status = put(address, "order-18", 404)
        .await
        .err()
        .context("no such lease")?;
    ensure!(status.code() == Code::NotFound, "{status}");
    ensure!(id_of(status.metadata())? == "order-18");
    let (one, two) = (
        id_of(put(address, "", 0).await?.metadata())?,
        id_of(put(address, "unfit id", 0).await?.metadata())?,
    );
    ensure!(one != two && !two.contains("unfit"), "{one}, {two}");
    for (position, told) in [(other, "request refused"), (leader, "asked by another node")] {
        let log = cluster.log_path(position);
        until("the log tells of it", LIMIT, || async {
            let text = std::fs::read_to_string(&log)?;
            let mut lines = text.lines().filter(|line| line.contains("order-18"));
            Ok(lines.any(|line| line.contains(told)).then_some(()))
        })
        .await
        .with_context(|| format!("node {}", position + 1))?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_wants_another_cluster_is_not_admitted() -> Result<()> {
    let cluster = Cluster::start(1, 1).await?;
    let dir = tempfile::tempdir()?;
    let out = Command::new(tests::cluster::binary()?)
        .args(["serve", "--join", &cluster.nodes[0].peer, "--data-dir"])
        .arg(dir.path().join("data"))
        .args(["--expect-cluster", "00000000000000ab"])
        .args(["--listen-client", "127.0.0.1:0", "--listen-peer", "127.0.0.1:0"])
        .args(["--listen-http", "127.0.0.1:0"])
        .output()?;
    let text = String::from_utf8_lossy(&out.stderr).to_string() + &String::from_utf8_lossy(&out.stdout);
    let status = cluster.json(0, &["status"])?;
    let found = status["cluster_id"].as_str().context("no cluster id")?;
    ensure!(out.status.code() == Some(1), "{}: {text}", out.status);
    ensure!(text.contains(&format!("this is cluster {found}")), "{text}");
    let nodes = cluster.json(0, &["nodes", "list"])?;
    ensure!(nodes["nodes"].as_array().map(Vec::len) == Some(1), "{nodes}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_leader_it_is_said_that_nothing_was_done() -> Result<()> {
    let mut cluster = Cluster::start(3, 1).await?;
    let list = cluster.json(0, &["partitions", "list", "0"])?;
    let leader = list["partitions"][0]["leader_node"]
        .as_u64()
        .context("no leader")?;
    let leader = leader as usize - 1;
    let (left, other) = ((leader + 1) % 3, (leader + 2) % 3);
    // The leader goes last and at once, so that the one that is left cannot be elected in between.
    cluster.signal(other, 9)?;
    cluster.signal(leader, 9)?;
    cluster.kill(other)?;
    cluster.kill(leader)?;
    let options = Options {
        timeout: Duration::from_secs(3),
        ..Options::default()
    };
    let alone = client::Client::new([&cluster.nodes[left].client], options)?;
    until("the lost leader is known to be lost", LIMIT, || async {
        let (status, _) = http::get(&cluster.nodes[left].http, "/readyz")?;
        Ok((status == 503).then_some(()))
    })
    .await?;
    let error = alone.put_namespace(NewNamespace::named("a")).await.err();
    let error = error.context("nobody leads")?;
    ensure!(error.kind == ErrorKind::Unavailable, "{:?}: {error}", error.kind);
    ensure!(error.message.contains("partition 0 has no leader"), "{error}");
    let out = Command::new(tests::cluster::binary()?)
        .args(["--endpoints", &cluster.nodes[left].client, "--timeout", "3s"])
        .args(["namespaces", "create", "a"])
        .output()?;
    let text = String::from_utf8_lossy(&out.stderr);
    ensure!(
        out.status.code() == Some(3) && text.contains("nothing was done") && text.contains("waiting for"),
        "{}: {text}",
        out.status
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quiet_watch_hears_of_progress_as_often_as_is_set() -> Result<()> {
    let mut cluster = Cluster::start(1, 1).await?;
    cluster.stop(0).await?;
    cluster.nodes[0].extra = vec!["--set".into(), "limits.watch_progress_ms=200".into()];
    cluster.start_node(0)?;
    cluster.wait_ready(1).await?;
    let mut client = cluster.client(0).await?;
    let wanted = etcd_client::WatchOptions::new().with_progress_notify();
    let mut watch = client.watch("quiet", Some(wanted)).await?;
    ensure!(watch.message().await?.context("ended")?.created());
    let told = tokio::time::timeout(LIMIT, watch.message()).await;
    let told = told.context("nothing is told")??.context("ended")?;
    let revision = told.header().context("no header")?.revision();
    ensure!(told.events().is_empty() && revision > 0, "{told:?}");
    Ok(())
}
