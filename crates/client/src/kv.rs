//! An etcd client over the same endpoints, with the namespace in each request's metadata.

use crate::error::{Error, ErrorKind};
use crate::lent::{Lender, Message};
use crate::route::{Options, Route, Spread};
use etcd_client::{BalancedChannelBuilder, Channel};
use proto::metadata;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::time::Instant;
use tonic::codegen::http::{HeaderValue, Request, Response, Uri};
use tonic::transport::Endpoint;
use tonic::transport::channel::Change;
use tower::util::BoxCloneSyncService;
use tower::{BoxError, Service, ServiceExt};

/// Connects an etcd client to one namespace. Requests go round the endpoints; one that is down is passed over, and what it
/// did not look at any more goes to another. What may have been done is never sent twice.
pub async fn connect_kv<E: AsRef<str>>(
    endpoints: impl IntoIterator<Item = E>,
    namespace: &str,
    options: Options,
) -> Result<etcd_client::Client, Error> {
    let wrong = |text: String| Error::new(ErrorKind::Invalid, "Connect", text);
    let value = HeaderValue::from_str(namespace).map_err(|_| {
        wrong(format!(
            "namespace {namespace:?} has characters that metadata cannot carry"
        ))
    })?;
    let route = Route::new(
        endpoints,
        Options {
            spread: Spread::RoundRobin,
            ..options
        },
    )?;
    let names = route.names();
    let builder = Builder {
        service: Named {
            route: Arc::new(route),
            namespace: value,
        },
    };
    etcd_client::Client::connect_with_balanced_channel(names, None, builder)
        .await
        .map_err(|error| wrong(error.to_string()))
}

/// Gives etcd's client our way of choosing endpoints.
struct Builder {
    service: Named,
}

impl BalancedChannelBuilder for Builder {
    type Error = tonic::transport::Error;

    fn balanced_channel(
        self,
        buffer_size: usize,
    ) -> Result<(Channel, tokio::sync::mpsc::Sender<Change<Uri, Endpoint>>), Self::Error> {
        // The endpoints are ours; what etcd's client says of them is taken and dropped.
        let (sender, mut receiver) = tokio::sync::mpsc::channel(buffer_size);
        tokio::spawn(async move { while receiver.recv().await.is_some() {} });
        Ok((Channel::Custom(BoxCloneSyncService::new(self.service)), sender))
    }
}

/// Names the namespace in each request and sends it to a connected endpoint.
#[derive(Clone)]
struct Named {
    route: Arc<Route>,
    namespace: HeaderValue,
}

type Body = tonic::body::Body;

impl Service<Request<Body>> for Named {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = futures::future::BoxFuture<'static, Result<Response<Body>, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        request
            .headers_mut()
            .insert(metadata::NAMESPACE, self.namespace.clone());
        let route = self.route.clone();
        let (head, body) = request.into_parts();
        let mut message = Message::from(body);
        Box::pin(async move {
            let deadline = Instant::now() + route.options().timeout;
            // Each may turn it away once, and the first one again, over a connection that is not old.
            let mut attempts = route.count() + 1;
            loop {
                attempts -= 1;
                let way = match route.pick("Connect", deadline).await {
                    Ok(way) => way,
                    Err(error) => return Err(BoxError::from(tonic::Status::unavailable(error.message))),
                };
                let lender = Lender::new(message);
                let request = Request::from_parts(head.clone(), lender.lend());
                let error = match way.channel.clone().oneshot(request).await {
                    Ok(response) => {
                        lender.taken();
                        return Ok(response);
                    }
                    Err(error) => error,
                };
                route.failed(&way, true);
                // It was turned away, or its connection had ended: another endpoint may take it.
                match lender.untouched(&error) {
                    Some(back) if attempts > 0 && Instant::now() < deadline => message = back,
                    _ => return Err(error.into()),
                }
            }
        })
    }
}

#[cfg(test)]
mod tests;
