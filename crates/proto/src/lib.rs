//! Generated code for `proto/` and conversions to domain types. No behaviour.
#![allow(missing_docs)]

/// Holdfast's native API.
pub mod v1 {
    tonic::include_proto!("holdfast.v1");
}
/// Between controllers.
pub mod peer {
    tonic::include_proto!("holdfast.peer.v1");
}
/// etcd's lock service.
pub mod lock {
    tonic::include_proto!("v3lockpb");
}
/// etcd's election service.
pub mod election {
    tonic::include_proto!("v3electionpb");
}
/// Metadata of requests and answers on the client port: what servers and clients must agree on beside the messages.
pub mod metadata {
    /// Request: the namespace of an etcd request; without it, `default`.
    pub const NAMESPACE: &str = "holdfast-namespace";
    /// Request and answer: names one request in the logs of every controller it passes.
    pub const REQUEST_ID: &str = "holdfast-request-id";
    /// Request: taken for [`REQUEST_ID`] where that is not given.
    pub const REQUEST_ID_ELSEWHERE: &str = "x-request-id";
    /// Error: the sentence that goes with a text fixed by etcd.
    pub const DETAIL: &str = "holdfast-detail";
    /// Error: milliseconds before the refused request is worth repeating.
    pub const RETRY_AFTER_MS: &str = "holdfast-retry-after-ms";
    /// Error: present if nothing was proposed, so that nothing can have been done.
    pub const NOT_SENT: &str = "holdfast-not-sent";
    /// Error: present if the session cannot tell what became of the request: it is over, or beyond its number.
    pub const SESSION_EXPIRED: &str = "holdfast-session-expired";
}
/// For gRPC reflection on the client port: peers' messages are not in it.
pub const DESCRIPTORS: &[u8] = tonic::include_file_descriptor_set!("holdfast");
