//! etcd's `v3election`: candidates under a name; the oldest leads until it resigns or its lease ends.

use std::pin::Pin;

use etcd_client::proto::{PbKeyValue, PbRangeResponse, PbResponseHeader};
use futures::Stream;
use proto::election::{
    CampaignRequest, CampaignResponse, KeyValue, LeaderKey, LeaderRequest, LeaderResponse, ProclaimRequest,
    ProclaimResponse, ResignRequest, ResignResponse, ResponseHeader,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, async_trait};

use super::Etcd;
use super::session::{self, Standing, Watched, unknown};
use crate::core::KeySpace;
use crate::watch::stream::Create;

/// etcd's `v3election.ErrMissingLeaderKey`.
const MISSING_LEADER_KEY: &str = "\"leader\" field must be provided";
/// etcd's `concurrency.ErrElectionNotLeader`.
const NOT_LEADER: &str = "election: not leader";
/// etcd's `concurrency.ErrElectionNoLeader`.
const NO_LEADER: &str = "election: no leader";
/// Leaders seen and not yet taken by an observer.
const OBSERVED: usize = 16;

#[async_trait]
impl proto::election::election_server::Election for Etcd {
    async fn campaign(
        &self,
        request: Request<CampaignRequest>,
    ) -> Result<Response<CampaignResponse>, Status> {
        let space = self.space(request.metadata()).await?;
        let asked = request.into_inner();
        let lease = self.session(&space, asked.lease).await?;
        let prefix = session::prefix(&asked.name);
        let mine = self.stand(&space, &prefix, lease, asked.value.clone()).await?;
        let standing = Standing::new(self, &space, &mine);
        if mine.existing.as_ref().is_some_and(|kv| kv.value != asked.value) {
            let restated = self
                .restate(&space, mine.key.clone(), mine.create_revision, lease, asked.value)
                .await?;
            if restated.is_none() {
                return Err(unknown(NOT_LEADER));
            }
        }
        self.wait_for_turn(&space, &prefix, mine.create_revision).await?;
        standing.keep();
        let leader = LeaderKey {
            name: asked.name,
            key: mine.key,
            rev: mine.create_revision,
            lease,
        };
        Ok(Response::new(CampaignResponse {
            header: header(Some(mine.header)),
            leader: Some(leader),
        }))
    }

    async fn proclaim(
        &self,
        request: Request<ProclaimRequest>,
    ) -> Result<Response<ProclaimResponse>, Status> {
        let space = self.space(request.metadata()).await?;
        let asked = request.into_inner();
        let leader = asked.leader.ok_or_else(|| unknown(MISSING_LEADER_KEY))?;
        let lease = self.session(&space, leader.lease).await?;
        match self
            .restate(&space, leader.key, leader.rev, lease, asked.value)
            .await?
        {
            Some(done) => Ok(Response::new(ProclaimResponse {
                header: header(Some(done)),
            })),
            None => Err(unknown(NOT_LEADER)),
        }
    }

    async fn leader(&self, request: Request<LeaderRequest>) -> Result<Response<LeaderResponse>, Status> {
        let space = self.space(request.metadata()).await?;
        let prefix = session::prefix(&request.into_inner().name);
        let found = self.read_range(&space, session::oldest(&prefix)).await?;
        match found.kvs.into_iter().next() {
            Some(kv) => Ok(Response::new(LeaderResponse {
                header: header(found.header),
                kv: Some(key_value(kv)),
            })),
            None => Err(unknown(NO_LEADER)),
        }
    }

    type ObserveStream = Pin<Box<dyn Stream<Item = Result<LeaderResponse, Status>> + Send>>;

    async fn observe(
        &self,
        request: Request<LeaderRequest>,
    ) -> Result<Response<Self::ObserveStream>, Status> {
        let space = self.space(request.metadata()).await?;
        let prefix = session::prefix(&request.into_inner().name);
        let (out, observed) = mpsc::channel(OBSERVED);
        let etcd = self.clone();
        tokio::spawn(async move {
            let observer = Observer {
                etcd,
                space,
                prefix,
                out: out.clone(),
            };
            tokio::select! {
                () = out.closed() => {}
                Err(status) = observer.run() => {
                    let _ = out.send(Err(status)).await;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(observed))))
    }

    async fn resign(&self, request: Request<ResignRequest>) -> Result<Response<ResignResponse>, Status> {
        let space = self.space(request.metadata()).await?;
        let leader = request
            .into_inner()
            .leader
            .ok_or_else(|| unknown(MISSING_LEADER_KEY))?;
        let done = self.stand_down(&space, leader.key, leader.rev).await?;
        Ok(Response::new(ResignResponse {
            header: header(Some(done)),
        }))
    }
}

/// Tells of each leader, and of each value it proclaims.
struct Observer {
    etcd: Etcd,
    space: KeySpace,
    prefix: Vec<u8>,
    out: mpsc::Sender<Result<LeaderResponse, Status>>,
}

impl Observer {
    async fn run(&self) -> Result<(), Status> {
        loop {
            let oldest = session::oldest(&self.prefix);
            let range_end = oldest.range_end.clone();
            let found = self.etcd.read_range(&self.space, oldest).await?;
            let revision = found.header.map_or(0, |header| header.revision);
            let PbRangeResponse {
                header: found_header,
                kvs,
                ..
            } = found;
            let Some(kv) = kvs.into_iter().next() else {
                self.wait_for_any(range_end, revision + 1).await?;
                continue;
            };
            let key = kv.key.clone();
            self.tell(found_header, kv).await?;
            self.follow(key, revision + 1, found_header).await?;
        }
    }

    /// Returns when something was put under the prefix: who is oldest is looked up again.
    async fn wait_for_any(&self, range_end: Vec<u8>, from: i64) -> Result<(), Status> {
        let create = Create {
            key: self.prefix.clone().into(),
            range_end: range_end.into(),
            start_revision: from,
            no_delete: true,
            ..Create::default()
        };
        Watched::new(&self.etcd, &self.space, create)
            .next()
            .await
            .map(drop)
    }

    /// Tells of the leader's values until its key is deleted.
    async fn follow(&self, key: Vec<u8>, from: i64, base: Option<PbResponseHeader>) -> Result<(), Status> {
        let create = Create {
            key: key.into(),
            start_revision: from,
            ..Create::default()
        };
        let mut watched = Watched::new(&self.etcd, &self.space, create);
        loop {
            let events = watched.next().await?;
            if events.is_empty() {
                return Ok(());
            }
            for event in events {
                let Some(kv) = event.kv else { continue };
                if event.r#type == 1 {
                    return Ok(());
                }
                let header = base.map(|h| PbResponseHeader {
                    revision: kv.mod_revision,
                    ..h
                });
                self.tell(header, kv).await?;
            }
        }
    }

    async fn tell(&self, of: Option<PbResponseHeader>, kv: PbKeyValue) -> Result<(), Status> {
        let response = LeaderResponse {
            header: header(of),
            kv: Some(key_value(kv)),
        };
        self.out
            .send(Ok(response))
            .await
            .map_err(|_| Status::cancelled("the observer has gone"))
    }
}

fn header(header: Option<PbResponseHeader>) -> Option<ResponseHeader> {
    header.map(|h| ResponseHeader {
        cluster_id: h.cluster_id,
        member_id: h.member_id,
        revision: h.revision,
        raft_term: h.raft_term,
    })
}

fn key_value(kv: PbKeyValue) -> KeyValue {
    KeyValue {
        key: kv.key,
        create_revision: kv.create_revision,
        mod_revision: kv.mod_revision,
        version: kv.version,
        value: kv.value,
        lease: kv.lease,
    }
}
