//! A client that asks one controller at a time by etcd's API, and records what it asks: what most workloads are made of.

use async_trait::async_trait;
use checker::history::Outcome;
use etcd_client::Client as Etcd;

use crate::client::Client;
use crate::record::{Judge, Name, Record};

/// A workload that asks by etcd's API.
#[async_trait]
pub trait OverEtcd: Judge {
    /// Asks one thing.
    async fn perform(etcd: &mut Etcd, ask: &Self::Ask) -> Result<Self::Answer, Outcome<()>>;
}

/// The client.
pub struct Process<'a, J: Judge> {
    record: &'a Record<J>,
    client: &'a Client,
    name: Name,
    namespace: &'static str,
    node: usize,
    etcd: Etcd,
}

impl<'a, J: OverEtcd> Process<'a, J> {
    /// Begins with any controller that takes connections.
    pub async fn start(record: &'a Record<J>, client: &'a Client, namespace: &'static str) -> Process<'a, J> {
        let connected = client.connect(namespace).await;
        Process::over(record, client, namespace, connected)
    }

    /// Begins with this controller.
    pub async fn start_at(
        record: &'a Record<J>,
        client: &'a Client,
        namespace: &'static str,
        node: usize,
    ) -> Process<'a, J> {
        let etcd = client.etcd(node, namespace).await;
        Process::over(record, client, namespace, (node, etcd))
    }

    fn over(
        record: &'a Record<J>,
        client: &'a Client,
        namespace: &'static str,
        (node, etcd): (usize, Etcd),
    ) -> Process<'a, J> {
        Process {
            record,
            client,
            name: Name::of(client),
            namespace,
            node,
            etcd,
        }
    }

    /// Asks one thing and records it. Returns what was answered.
    pub async fn ask(&mut self, ask: J::Ask) -> Option<J::Answer> {
        let asked = ask.clone();
        let doing = J::perform(&mut self.etcd, &asked);
        self.record
            .operate(self.client, &mut self.name, self.node, ask, doing)
            .await
    }

    /// Goes on with any controller that takes connections.
    pub async fn turn(&mut self) {
        (self.node, self.etcd) = self.client.connect(self.namespace).await;
    }

    /// For what is not recorded.
    pub fn etcd(&mut self) -> &mut Etcd {
        &mut self.etcd
    }
}
