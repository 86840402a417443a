//! The same requests to a real etcd and to Holdfast: every answer must be equal, errors included.
//!
//! Both begin empty, so revisions are compared as they are. Headers' cluster, member and term are not compared. Debian's
//! etcd is a 3.4: where 3.5, which Holdfast follows, is known to answer otherwise, [`Pair::only_ours`] says how.

mod locks;
mod members;
mod requests;
mod steps;
mod watches;

use std::fmt::Debug;

use anyhow::{Context, Result, bail, ensure};
use tests::Cluster;
use tests::etcd::Etcd;
use tests::raw::Raw;
use tonic::codec::Codec;
use tonic::{Code, Status};
use tonic_prost::ProstCodec;

/// An etcd and a cluster of three, and in which answers they differ.
struct Pair {
    cluster: Cluster,
    etcd: Etcd,
    asked: usize,
    different: Vec<String>,
}

impl Pair {
    async fn start() -> Result<Pair> {
        Ok(Pair {
            cluster: Cluster::start(3, 2).await?,
            etcd: Etcd::start().await?,
            asked: 0,
            different: Vec::new(),
        })
    }

    /// Where to ask next: any node takes any request.
    fn ours(&mut self) -> &str {
        self.asked += 1;
        &self.cluster.nodes[self.asked % 3].client
    }

    fn compare(&mut self, what: &str, expected: &str, got: &str) {
        if expected != got {
            let text = format!("{what}\n  etcd:     {expected}\n  holdfast: {got}");
            self.different.push(text);
        }
    }

    /// One request to both.
    async fn ask<Q, A>(&mut self, what: &str, path: &'static str, message: Q) -> Result<()>
    where
        ProstCodec<Q, A>: Codec<Encode = Q, Decode = A> + Default,
        Q: Clone + Send + Sync + 'static,
        A: Debug + Send + Sync + 'static,
    {
        let mut etcd = Raw::connect(&self.etcd.endpoint).await?;
        let expected =
            read(etcd.call::<Q, A>(path, message.clone()).await).with_context(|| what.to_owned())?;
        let mut ours = Raw::connect(self.ours()).await?;
        let got = read(ours.call::<Q, A>(path, message).await).with_context(|| what.to_owned())?;
        self.compare(what, &expected, &got);
        Ok(())
    }

    /// One request to Holdfast alone, whose answer is known to differ from this etcd's.
    async fn only_ours<Q, A>(&mut self, path: &'static str, message: Q, expected: &str) -> Result<()>
    where
        ProstCodec<Q, A>: Codec<Encode = Q, Decode = A> + Default,
        Q: Send + Sync + 'static,
        A: Debug + Send + Sync + 'static,
    {
        let mut ours = Raw::connect(self.ours()).await?;
        let got = read(ours.call::<Q, A>(path, message).await)?;
        self.compare(path, expected, &got);
        Ok(())
    }

    async fn finish(self) -> Result<()> {
        ensure!(
            self.different.is_empty(),
            "{} answers differ:\n{}",
            self.different.len(),
            self.different.join("\n")
        );
        self.cluster
            .assert_replicas_equal()
            .await
            .context("after the comparison")
    }
}

/// How an answer reads, header's cluster, member and term left out.
fn read<A: Debug>(answer: Result<A, Status>) -> Result<String> {
    match answer {
        Ok(answer) => Ok(plain(format!("{answer:?}"))),
        Err(status) => refusal(&status),
    }
}

/// How a server's refusal reads. An error that a client made by itself would be equal on both sides, and say nothing.
fn refusal(status: &Status) -> Result<String> {
    let passing = matches!(
        status.code(),
        Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled
    );
    if passing || std::error::Error::source(status).is_some() {
        bail!("no server said this: {status:?}");
    }
    Ok(format!("{:?}: {}", status.code(), status.message()))
}

/// Blanks the numbers that are each server's own.
fn plain(mut text: String) -> String {
    for label in ["cluster_id: ", "member_id: ", "raft_term: "] {
        let mut from = 0;
        while let Some(at) = text[from..].find(label) {
            let start = from + at + label.len();
            let digits = text[start..].bytes().take_while(u8::is_ascii_digit).count();
            text.replace_range(start..start + digits, "_");
            from = start;
        }
    }
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_equal_those_of_etcd() -> Result<()> {
    let mut pair = Pair::start().await?;
    steps::compare(&mut pair).await?;
    pair.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_no_client_library_sends() -> Result<()> {
    let mut pair = Pair::start().await?;
    requests::ranges(&mut pair).await?;
    requests::transactions(&mut pair).await?;
    requests::leases(&mut pair).await?;
    requests::compactions(&mut pair).await?;
    requests::no_requests(&mut pair).await?;
    pair.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn watch_streams_go_as_in_etcd() -> Result<()> {
    let mut pair = Pair::start().await?;
    watches::compare(&mut pair).await?;
    pair.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn locks_and_elections_go_as_in_etcd() -> Result<()> {
    let mut pair = Pair::start().await?;
    locks::locks(&mut pair).await?;
    locks::elections(&mut pair).await?;
    pair.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn members_and_maintenance_mean_the_same() -> Result<()> {
    let mut pair = Pair::start().await?;
    members::compare(&mut pair).await?;
    pair.finish().await
}
