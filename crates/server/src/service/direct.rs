//! The shortest way to the key-value calls, which nearly all requests are: no router, no boxed copies of services. What
//! goes elsewhere takes the router.

use std::convert::Infallible;
use std::task::{Context, Poll};

use futures::future::Either;
use tonic::body::Body;
use tonic::codegen::http::{Request, Response};
use tonic::server::NamedService;
use tower::{Layer, Service};

/// Hands requests to `K` by its name, past the services it is laid over.
#[derive(Clone)]
pub struct Direct<K>(K);

impl<K> Direct<K> {
    /// Past everything else to `service`.
    pub fn to(service: K) -> Direct<K> {
        Direct(service)
    }
}

impl<K: Clone, S> Layer<S> for Direct<K> {
    type Service = Fork<K, S>;

    fn layer(&self, others: S) -> Fork<K, S> {
        Fork {
            direct: self.0.clone(),
            others,
        }
    }
}

/// What [`Direct`] makes of services.
#[derive(Clone)]
pub struct Fork<K, S> {
    direct: K,
    others: S,
}

/// Whether the path is that of a call of the service: `/name/Method`.
fn is_of(path: &str, name: &str) -> bool {
    let rest = path.strip_prefix('/').and_then(|path| path.strip_prefix(name));
    rest.is_some_and(|rest| rest.starts_with('/'))
}

impl<K, S> Service<Request<Body>> for Fork<K, S>
where
    K: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + NamedService,
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Either<K::Future, S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        std::task::ready!(self.direct.poll_ready(cx))?;
        self.others.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        if is_of(request.uri().path(), K::NAME) {
            Either::Left(self.direct.call(request))
        } else {
            Either::Right(self.others.call(request))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::is_of;

    #[test]
    fn only_calls_of_the_service_go_to_it() {
        for (path, wanted) in [
            ("/etcdserverpb.KV/Put", true),
            ("/etcdserverpb.KV/", true),
            ("/etcdserverpb.KV", false),
            ("/etcdserverpb.KVs/Put", false),
            ("/etcdserverpb.Lease/LeaseGrant", false),
            ("etcdserverpb.KV/Put", false),
            ("/", false),
            ("", false),
        ] {
            assert_eq!(is_of(path, "etcdserverpb.KV"), wanted, "{path}");
        }
    }
}
