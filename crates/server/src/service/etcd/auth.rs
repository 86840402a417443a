//! etcd's `Auth` service: every call is refused with a sentence, until Holdfast has users of its own.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::task::{Context, Poll};

use tonic::Status;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::codegen::http::{Request, Response};
use tonic::server::NamedService;

/// Answers any method of `etcdserverpb.Auth`. Written by hand since the library keeps some of its messages private.
#[derive(Clone, Copy)]
pub struct AuthRefused;

impl NamedService for AuthRefused {
    const NAME: &'static str = "etcdserverpb.Auth";
}

impl Service<Request<Body>> for AuthRefused {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<Body>) -> Self::Future {
        let status = Status::unimplemented("Holdfast has no authentication yet: every client is root");
        ready(Ok(status.into_http()))
    }
}
