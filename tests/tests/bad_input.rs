//! Bad input: a clear error each, and the cluster goes on.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use etcd_client::proto::{PbKeyValue, PbPutRequest, PbPutResponse, PbTxnResponse};
use etcd_client::{Compare, CompareOp, Error, GetOptions, PutOptions, Txn, TxnOp};
use proto::peer::{JoinReply, JoinRequest};
use tests::Cluster;
use tests::raw::Raw;
use tonic::{Code, Status};

/// Asserts code and text of a refusal.
fn refused<T: std::fmt::Debug>(result: Result<T, Error>, code: Code, text: &str) -> Result<()> {
    match result {
        Err(Error::GRpcStatus(status)) => {
            ensure!(
                status.code() == code,
                "{text}: code {:?}: {}",
                status.code(),
                status.message()
            );
            ensure!(
                status.message().contains(text),
                "expected «{text}», got «{}»",
                status.message()
            );
            Ok(())
        }
        other => anyhow::bail!("expected «{text}», got {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_refusal_has_its_code_and_text() -> Result<()> {
    let cluster = Cluster::start(3, 2).await?;
    for position in 0..3 {
        let mut client = cluster.client(position).await?;
        let big = vec![b'x'; 17 * 1024];
        let huge = vec![b'x'; 1600 * 1024];
        refused(
            client.put(big, "v", None).await,
            Code::InvalidArgument,
            "etcdserver: request is too large",
        )?;
        refused(
            client.put("k", huge, None).await,
            Code::InvalidArgument,
            "etcdserver: request is too large",
        )?;
        refused(
            client.put("", "v", None).await,
            Code::InvalidArgument,
            "etcdserver: key is not provided",
        )?;
        let many: Vec<TxnOp> = (0..1001)
            .map(|n| TxnOp::put(format!("k{n}"), "v", None))
            .collect();
        let txn = Txn::new().and_then(many);
        refused(
            client.txn(txn).await,
            Code::InvalidArgument,
            "too many operations in txn request",
        )?;
        let twice = Txn::new()
            .when([Compare::version("k", CompareOp::Equal, 0)])
            .and_then([TxnOp::put("k", "1", None), TxnOp::put("k", "2", None)]);
        refused(
            client.txn(twice).await,
            Code::InvalidArgument,
            "duplicate key given in txn request",
        )?;
        let lease = PutOptions::new().with_lease(404);
        refused(
            client.put("k", "v", Some(lease)).await,
            Code::NotFound,
            "requested lease not found",
        )?;
        refused(
            client.lease_revoke(404).await,
            Code::NotFound,
            "requested lease not found",
        )?;
        let future = GetOptions::new().with_revision(1 << 40);
        refused(
            client.get("k", Some(future)).await,
            Code::OutOfRange,
            "required revision is a future revision",
        )?;
        refused(
            client.compact(1 << 40, None).await,
            Code::OutOfRange,
            "required revision is a future revision",
        )?;
        client.put("after", "fine", None).await.context("serves on")?;
    }
    let mut client = cluster.client(0).await?;
    let revision = client
        .put("k", "v", None)
        .await?
        .header()
        .context("header")?
        .revision();
    client.put("k", "w", None).await?;
    client.compact(revision + 1, None).await?;
    let old = GetOptions::new().with_revision(revision);
    refused(
        client.get("k", Some(old)).await,
        Code::OutOfRange,
        "required revision has been compacted",
    )?;
    cluster.assert_replicas_equal().await
}

#[tokio::test(flavor = "multi_thread")]
async fn namespaces_are_apart_and_unknown_ones_are_named() -> Result<()> {
    let cluster = Cluster::start(1, 4).await?;
    cluster.holdfast(0, &["namespaces", "create", "team-a"])?;
    let mut default = Space::open(&cluster, "default").await?;
    let mut other = Space::open(&cluster, "team-a").await?;
    let mut missing = Space::open(&cluster, "nobody").await?;
    let first = other.put("k", "theirs").await?.header.context("header")?.revision;
    for _ in 0..5 {
        default.put("k", "ours").await?;
    }
    let second = other
        .put("k2", "theirs")
        .await?
        .header
        .context("header")?
        .revision;
    ensure!(
        second == first + 1,
        "revisions of one namespace moved with another's: {first}, {second}"
    );
    let status = missing
        .put("k", "v")
        .await
        .err()
        .context("an unknown namespace took a write")?;
    ensure!(
        status.code() == Code::NotFound && status.message().contains("nobody"),
        "{status}"
    );
    Ok(())
}

/// Puts into one namespace, which `etcd-client` by itself has no way to name.
struct Space {
    raw: Raw,
    name: &'static str,
}

impl Space {
    async fn open(cluster: &Cluster, name: &'static str) -> Result<Space> {
        let raw = Raw::connect(&cluster.nodes[0].client).await?;
        Ok(Space { raw, name })
    }

    async fn put(&mut self, key: &str, value: &str) -> Result<PbPutResponse, Status> {
        let message = PbPutRequest {
            key: key.into(),
            value: value.into(),
            ..PbPutRequest::default()
        };
        self.raw
            .call_in(Some(self.name), "/etcdserverpb.KV/Put", message)
            .await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_no_protobuf_hurt_nobody() -> Result<()> {
    let cluster = Cluster::start(1, 1).await?;
    for address in [
        &cluster.nodes[0].client,
        &cluster.nodes[0].peer,
        &cluster.nodes[0].http,
    ] {
        let mut raw = TcpStream::connect(address)?;
        raw.write_all(&[0xff; 4096])?;
        let mut raw = TcpStream::connect(address)?;
        raw.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")?;
        raw.write_all(&[0xee; 4096])?;
    }
    let mut raw = Raw::connect(&cluster.nodes[0].client).await?;
    // A message whose field 1 claims more bytes than there are: valid framing, no protobuf.
    let broken = || PbKeyValue {
        key: vec![0x0a, 0xff, 0xff],
        ..PbKeyValue::default()
    };
    let answer: Result<PbTxnResponse, Status> = raw.call("/etcdserverpb.KV/Txn", broken()).await;
    let status = answer.err().context("nonsense was taken for a transaction")?;
    // As grpc-go, hence etcd, answers it.
    ensure!(
        status.code() == Code::Internal && status.message().contains("decode"),
        "{status:?}"
    );
    let mut peer = Raw::connect(&cluster.nodes[0].peer).await?;
    let answer: Result<JoinReply, Status> = peer.call("/holdfast.peer.v1.Peer/Join", broken()).await;
    let status = answer.err().context("nonsense was admitted as a node")?;
    ensure!(status.code() == Code::Internal, "{status:?}");

    // Every port serves on.
    cluster.client(0).await?.put("k", "v", None).await?;
    let answer: Result<JoinReply, Status> = peer
        .call("/holdfast.peer.v1.Peer/Join", JoinRequest::default())
        .await;
    let status = answer.err().context("a node without a format was admitted")?;
    ensure!(
        status.code() == Code::FailedPrecondition && status.message().contains("join format 0"),
        "{status:?}"
    );
    let ready = http_get(&cluster.nodes[0].http, "/readyz")?;
    ensure!(ready.starts_with("HTTP/1.1 200"), "{ready}");
    Ok(())
}

/// The answer to a plain HTTP request, status line first.
fn http_get(address: &str, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(
        format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").as_bytes(),
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

#[test]
fn config_faults_are_all_named() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("bad.toml");
    std::fs::write(
        &file,
        "[raft]\nheartbeat_ms = 7\nelection_min_ms = 5\n[listen]\nclient = \"nonsense\"\n",
    )?;
    let out = Command::new(tests::cluster::binary()?)
        .args(["config", "check", "--config"])
        .arg(&file)
        .output()?;
    let text = String::from_utf8_lossy(&out.stdout).to_string() + &String::from_utf8_lossy(&out.stderr);
    ensure!(out.status.code() == Some(2), "{}:\n{text}", out.status);
    for fault in ["heartbeat_ms", "election_min_ms", "nonsense"] {
        ensure!(text.contains(fault), "{fault} is not named:\n{text}");
    }
    std::fs::write(&file, "[raft]\nhartbeat = 3\n")?;
    let out = Command::new(tests::cluster::binary()?)
        .args(["config", "check", "--config"])
        .arg(&file)
        .output()?;
    let text = String::from_utf8_lossy(&out.stdout).to_string() + &String::from_utf8_lossy(&out.stderr);
    ensure!(
        out.status.code() == Some(2) && text.contains("hartbeat"),
        "an unknown key is not named:\n{text}"
    );
    let out = Command::new(tests::cluster::binary()?)
        .args(["config", "default"])
        .output()?;
    std::fs::write(&file, &out.stdout)?;
    let out = Command::new(tests::cluster::binary()?)
        .args(["config", "check", "--config"])
        .arg(&file)
        .output()?;
    ensure!(
        out.status.success(),
        "the default config has faults: {}",
        String::from_utf8_lossy(&out.stderr)
    );
    Ok(())
}

#[test]
fn a_wrong_flag_says_what_to_do() -> Result<()> {
    let out = Command::new(tests::cluster::binary()?)
        .args(["partitions", "--bogus"])
        .output()?;
    let text = String::from_utf8_lossy(&out.stderr);
    ensure!(
        out.status.code() == Some(2) && text.contains("--help"),
        "{}: {text}",
        out.status
    );
    let out = Command::new(tests::cluster::binary()?)
        .args(["--endpoints", "127.0.0.1:1", "--timeout", "2s", "status"])
        .output()?;
    let text = String::from_utf8_lossy(&out.stderr);
    ensure!(
        out.status.code() == Some(3) && text.contains("127.0.0.1:1"),
        "{}: {text}",
        out.status
    );
    Ok(())
}
