//! Ids and deadlines of requests, and what is counted of failures.

use super::*;

fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
    let pair = |(name, value): &(&'static str, &'static str)| {
        (HeaderName::from_static(name), HeaderValue::from_static(value))
    };
    pairs.iter().map(pair).collect()
}

/// Serves one request with `inner`, which sees the id and deadline in its task.
async fn serve(
    requests: &Requests,
    given: HeaderMap,
    answered: HeaderMap,
) -> (Bytes, Option<Instant>, HeaderMap) {
    let (seen, mut looked) = tokio::sync::mpsc::unbounded_channel();
    let inner = Answers(answered, seen);
    let mut request = http::Request::new(());
    *request.headers_mut() = given;
    let answer = requests.layer(inner).call(request).await.expect("answered");
    let (id, answer_by) = looked.recv().await.expect("served");
    (id, answer_by, answer.headers().clone())
}

/// A service that tells what it knows of the request.
struct Answers(
    HeaderMap,
    tokio::sync::mpsc::UnboundedSender<(Bytes, Option<Instant>)>,
);

impl Service<http::Request<()>> for Answers {
    type Response = http::Response<()>;
    type Error = std::convert::Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<http::Response<()>, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Request<()>) -> Self::Future {
        let (headers, seen) = (self.0.clone(), self.1.clone());
        Box::pin(async move {
            let _ = seen.send((id(), answer_by()));
            let mut answer = http::Response::new(());
            *answer.headers_mut() = headers;
            Ok(answer)
        })
    }
}

fn requests() -> Requests {
    Requests::new(0xabc, Arc::default())
}

#[tokio::test]
async fn a_given_id_is_kept_and_an_unfit_one_replaced() {
    let requests = requests();
    for (name, value, kept) in [
        ("holdfast-request-id", "order-17", true),
        ("x-request-id", "0af7651916cd43dd8448eb211c80319c", true),
        ("x-request-id", "two words", false),
        ("x-request-id", "", false),
        (
            "x-request-id",
            "0123456789012345678901234567890123456789012345678901234567890123x",
            false,
        ),
    ] {
        let (id, _, answer) = serve(&requests, headers(&[(name, value)]), HeaderMap::new()).await;
        assert_eq!(id == value, kept, "{value:?} became {id:?}");
        assert_eq!(answer.get(&ID).map(HeaderValue::as_bytes), Some(&id[..]));
    }
    let both = headers(&[("x-request-id", "second"), ("holdfast-request-id", "first")]);
    assert_eq!(serve(&requests, both, HeaderMap::new()).await.0, "first");
}

#[tokio::test]
async fn services_know_when_the_answer_is_wanted() {
    let begun = Instant::now();
    let given = headers(&[("grpc-timeout", "10S")]);
    let (_, answer_by, _) = serve(&requests(), given, HeaderMap::new()).await;
    let time = answer_by.expect("told") - begun;
    assert!(
        (Duration::from_millis(9_750)..Duration::from_secs(10)).contains(&time),
        "{time:?}"
    );
    let (_, answer_by, _) = serve(&requests(), HeaderMap::new(), HeaderMap::new()).await;
    assert_eq!(answer_by, None);
}

#[tokio::test]
async fn own_ids_differ_and_name_the_process() {
    let requests = requests();
    let mut ids = Vec::new();
    for _ in 0..20 {
        ids.push(serve(&requests, HeaderMap::new(), HeaderMap::new()).await.0);
    }
    assert_eq!(
        (&ids[0][..], &ids[16][..]),
        (&b"000000000abc-1"[..], &b"000000000abc-11"[..])
    );
    assert_eq!(id(), "", "outside of a request there is none");
}

#[test]
fn the_answer_is_wanted_before_the_client_gives_up() {
    for (text, wanted_ms) in [
        ("10S", Some(9_750)),
        ("1000m", Some(750)),
        ("1M", Some(59_750)),
        ("20000000u", Some(19_750)),
        ("soon", None),
        ("S", None),
        ("", None),
    ] {
        let time = time_for_answer(&headers(&[("grpc-timeout", text)]));
        assert_eq!(time.map(|time| time.as_millis() as u64), wanted_ms, "{text}");
    }
}

#[tokio::test]
async fn failures_are_counted_by_code() {
    let metrics = Arc::new(Metrics::default());
    let requests = Requests::new(1, metrics.clone());
    for status in ["0", "14", "14", "3"] {
        serve(&requests, HeaderMap::new(), headers(&[("grpc-status", status)])).await;
    }
    assert_eq!(metrics.requests.get(), 4);
    let text = metrics.text();
    for line in [
        "holdfast_requests_failed_total{code=\"Unavailable\"} 2",
        "holdfast_requests_failed_total{code=\"InvalidArgument\"} 1",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
}

#[test]
fn a_flood_of_failures_is_told_in_part_and_counted() {
    let (flood, now) = (Flood::new(), Instant::now());
    let told = (0..FAILURES_LOGGED + 7).filter(|_| flood.admit(now).is_some());
    assert_eq!(told.count(), FAILURES_LOGGED);
    let later = now + WINDOW;
    assert_eq!((flood.admit(later), flood.admit(later)), (Some(7), Some(0)));
}
