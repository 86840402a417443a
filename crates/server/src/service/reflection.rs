//! gRPC reflection of the client port's services that are described here, so that tools can call them without the
//! `proto/` files. The library that etcd's own messages come from has no description of them to give.

use tonic::service::Routes;

/// Adds reflection (v1 and v1alpha) to the routes.
pub fn add(routes: Routes) -> Routes {
    let configure = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(proto::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let routes = match configure().build_v1() {
        Ok(service) => routes.add_service(service),
        Err(error) => {
            tracing::error!(%error, "no reflection");
            routes
        }
    };
    match configure().build_v1alpha() {
        Ok(service) => routes.add_service(service),
        Err(_) => routes,
    }
}
