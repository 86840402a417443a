//! The key space of a workload, made before its clients begin.

use proto::v1;
use proto::v1::cluster_client::ClusterClient;

use crate::client::Client;

/// Makes a key space if it is not there yet.
pub async fn make(client: &Client, node: usize, name: &str) -> Result<(), tonic::Status> {
    let request = v1::PutNamespaceRequest {
        name: name.to_owned(),
        ..v1::PutNamespaceRequest::default()
    };
    let mut cluster = ClusterClient::new(client.channel(node));
    cluster.put_namespace(request).await.map(drop)
}
