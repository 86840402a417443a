//! A counter raised through the native API with retries: each increment carries its session's `client_id` and `seq`, is
//! sent until it is answered, now and then twice at once, and must be done exactly once whatever happens meanwhile.
//!
//! An increment is a key space made under a name of its own, which the cluster refuses to make twice: a second execution
//! shows at once as a refusal, and a lost one as too low a count.

use async_trait::async_trait;
use checker::counter::{self, Answer, Ask};
use checker::history::Outcome;
use proto::v1;
use proto::v1::cluster_client::ClusterClient;
use tonic::{Code, Status};

use crate::client::{Client, PATIENCE};
use crate::record::{Judge, Name, Past, Record, Recorded, status_fate};
use crate::{Finding, Workload};

/// Of all names.
const PREFIX: &str = "count-";
/// An increment that is not answered after so many attempts is given up.
const ATTEMPTS: u64 = 30;

/// The workload.
#[derive(Default)]
pub struct Counter {
    record: Record<Counter>,
}

/// One increment: the same in all its attempts.
#[derive(Clone)]
struct Increment(v1::PutNamespaceRequest);

#[async_trait]
impl Workload for Counter {
    fn name(&self) -> &'static str {
        "counter"
    }

    fn is_about_the_cluster(&self) -> bool {
        true
    }

    async fn work(&self, client: Client) {
        let (mut name, mut number) = (Name::of(&client), 0);
        while client.goes_on() {
            let Ok(session) = open(&client).await else {
                client.pause(20, 200).await;
                continue;
            };
            let mut seq = 0;
            while client.goes_on() {
                client.pause(100, 900).await;
                if client.once_in(4) {
                    let node = client.any_node();
                    let reading = read(&client, node);
                    self.record
                        .operate(&client, &mut name, node, Ask::Read, reading)
                        .await;
                    continue;
                }
                (seq, number) = (seq + 1, number + 1);
                let increment = Increment(v1::PutNamespaceRequest {
                    name: format!("{PREFIX}{}-{number}", client.id),
                    create_only: true,
                    session: Some(v1::Session {
                        client_id: session,
                        seq,
                    }),
                    ..v1::PutNamespaceRequest::default()
                });
                if self.raise(&client, &mut name, increment).await.is_none() {
                    break;
                }
            }
        }
    }

    async fn finish(&self, client: &Client) -> Result<(), String> {
        let (mut name, node) = (Name::of(client), client.any_node());
        let reading = read(client, node);
        let read = self.record.operate(client, &mut name, node, Ask::Read, reading);
        read.await.map(drop).ok_or("the count was not read".into())
    }

    fn record(&self) -> &dyn Recorded {
        &self.record
    }
}

impl Judge for Counter {
    type Ask = Ask;
    type Answer = Answer;
    type Known = ();

    fn judge(past: &Past<Counter>) -> Vec<Finding> {
        Finding::of(counter::check(&past.operations), |found| {
            Finding::at("count", found.operation, &found.text)
        })
    }
}

impl Counter {
    /// One increment, however many attempts it takes. `None` if its fate is unknown in the end.
    async fn raise(&self, client: &Client, name: &mut Name, increment: Increment) -> Option<()> {
        let doing = async {
            let mut last = Outcome::Failed("never sent".to_owned());
            for _ in 0..ATTEMPTS {
                if !client.goes_on() {
                    break;
                }
                // A network may bring a message twice, and a client may have been too impatient.
                let sent = match client.once_in(4) {
                    true => {
                        let (first, second) =
                            tokio::join!(send(client, &increment), send(client, &increment));
                        first.or(second)
                    }
                    false => send(client, &increment).await,
                };
                match sent {
                    Ok(()) => return Ok(Answer::Added),
                    Err(status) if is_second(&status) => return Ok(Answer::Again),
                    Err(status) => last = Outcome::Unknown(format!("{status:?}")),
                }
                client.pause(20, 300).await;
            }
            Err(last)
        };
        let node = client.any_node();
        self.record
            .operate_for(
                client,
                name,
                (node, ATTEMPTS as u32 * 2 * PATIENCE),
                Ask::Add(1),
                doing,
            )
            .await
            .map(drop)
    }
}

/// What an increment is answered that was executed before, and must have been answered from the session instead.
fn is_second(status: &Status) -> bool {
    matches!(status.code(), Code::AlreadyExists | Code::FailedPrecondition)
}

async fn open(client: &Client) -> Result<u64, Status> {
    let mut cluster = ClusterClient::new(client.channel(client.any_node()));
    let opened = cluster.open_session(v1::OpenSessionRequest {});
    let late = |_| Status::deadline_exceeded("no session in time");
    let opened = tokio::time::timeout(PATIENCE, opened).await.map_err(late)??;
    Ok(opened.into_inner().client_id)
}

async fn send(client: &Client, increment: &Increment) -> Result<(), Status> {
    let mut cluster = ClusterClient::new(client.channel(client.any_node()));
    let sent = tokio::time::timeout(PATIENCE, cluster.put_namespace(increment.0.clone())).await;
    sent.map_err(|_| Status::deadline_exceeded("no answer in time"))?
        .map(drop)
}

async fn read(client: &Client, node: usize) -> Result<Answer, Outcome<()>> {
    let mut cluster = ClusterClient::new(client.channel(node));
    let listed = cluster.list_namespaces(v1::ListNamespacesRequest {}).await;
    let listed = listed.map_err(|status| status_fate(&status))?.into_inner();
    let names = listed.namespaces.iter();
    let count = names.filter(|space| space.name.starts_with(PREFIX)).count();
    Ok(Answer::Value(count as u64))
}
