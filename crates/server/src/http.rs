//! Metrics and health over plain HTTP. Read only.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use types::PartitionId;

use crate::core::Core;

/// A leader to which no quorum answered for so long is not ready: ten heartbeats by default.
const QUORUM_SILENT_MS: u64 = 3000;

/// `/metrics`, `/livez`, `/readyz`.
pub fn router(core: Arc<Core>) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .with_state(core)
}

async fn metrics(State(core): State<Arc<Core>>) -> impl IntoResponse {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], core.metrics().render(&core))
}

async fn readyz(State(core): State<Arc<Core>>) -> impl IntoResponse {
    let reasons = not_ready(&core);
    if reasons.is_empty() {
        return (StatusCode::OK, "ok\n".to_owned());
    }
    (
        StatusCode::SERVICE_UNAVAILABLE,
        reasons.iter().map(|reason| format!("{reason}\n")).collect(),
    )
}

/// Why this node should get no requests now; empty when it should.
pub fn not_ready(core: &Core) -> Vec<String> {
    let mut reasons = Vec::new();
    if core.is_stopping() {
        reasons.push("stopping".to_owned());
    }
    let map = core.map();
    if map.cluster.is_none() {
        reasons.push("the cluster map has not arrived".to_owned());
        return reasons;
    }
    let leaderless: Vec<u32> = map
        .partitions
        .iter()
        .filter(|partition| {
            partition
                .replicas
                .iter()
                .any(|replica| replica.node == core.node_id().0)
        })
        .map(|partition| partition.id)
        .filter(|id| core.leader(PartitionId(*id)).is_none())
        .collect();
    if !leaderless.is_empty() {
        reasons.push(format!("no leader is known for partitions {}", list(&leaderless)));
    }
    let alone: Vec<u32> = core
        .led_here()
        .iter()
        .filter(|replica| is_alone(replica))
        .map(|replica| replica.partition().0)
        .collect();
    if !alone.is_empty() {
        reasons.push(format!("no quorum answers for partitions {}", list(&alone)));
    }
    if core.guard().is_full() {
        reasons.push(format!(
            "disk nearly full: {} bytes free",
            core.guard().free_bytes()
        ));
    }
    reasons
}

/// Whether the leader here has heard of no quorum for so long that it can commit nothing.
fn is_alone(replica: &raft::Replica) -> bool {
    let silent_ms = replica.status().millis_since_quorum_ack;
    silent_ms.is_some_and(|silent_ms| silent_ms > QUORUM_SILENT_MS)
}

fn list(ids: &[u32]) -> String {
    let shown: Vec<String> = ids.iter().take(10).map(u32::to_string).collect();
    match ids.len() {
        0..=10 => shown.join(", "),
        more => format!("{} and {} more", shown.join(", "), more - 10),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn long_lists_are_cut() {
        assert_eq!(super::list(&[1, 2]), "1, 2");
        assert_eq!(
            super::list(&(1..=12).collect::<Vec<_>>()),
            "1, 2, 3, 4, 5, 6, 7, 8, 9, 10 and 2 more"
        );
    }
}
