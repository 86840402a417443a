//! Where requests go when an endpoint stops, refuses or breaks.

use super::*;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::service::Routes;
use tonic::transport::Server;

/// A server that knows no call, and says so; and what stops it.
#[expect(clippy::disallowed_methods, reason = "a real port for a server of the test")]
async fn serve() -> (String, oneshot::Sender<()>, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound").to_string();
    let (stop, stopped) = oneshot::channel::<()>();
    let server = Server::builder().add_routes(Routes::default());
    let served = server.serve_with_incoming_shutdown(TcpListenerStream::new(listener), async {
        let _ = stopped.await;
    });
    let task = tokio::spawn(async move { served.await.expect("served") });
    (address, stop, task)
}

fn named(endpoints: [String; 2]) -> Named {
    let options = Options {
        spread: Spread::RoundRobin,
        ..Options::default()
    };
    Named {
        route: Arc::new(Route::new(endpoints, options).expect("well formed")),
        namespace: HeaderValue::from_static("any"),
    }
}

async fn ask(named: &Named) -> Result<(), BoxError> {
    let request = Request::post("http://any/etcdserverpb.KV/Put").body(Body::new("message".to_owned()));
    let asked = named.clone().oneshot(request.expect("well formed"));
    let answered = tokio::time::timeout(Duration::from_secs(10), asked).await;
    answered.expect("in time").map(drop)
}

#[tokio::test]
async fn what_a_stopped_endpoint_did_not_take_goes_to_another() {
    let (first, stop, stopping) = serve().await;
    let (second, _stop, _task) = serve().await;
    let named = named([first, second]);
    for _ in 0..4 {
        ask(&named).await.expect("both answer, and have connections");
    }
    stop.send(()).expect("it serves");
    stopping.await.expect("it stops");
    for _ in 0..4 {
        ask(&named).await.expect("the other one answers");
    }
}

/// What a server of HTTP/2 says after it was sent a first request.
const GOODBYE: [u8; 17] = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
const REFUSED: [u8; 13] = [0, 0, 4, 3, 0, 0, 0, 0, 1, 0, 0, 0, 7];
const CANCELLED: [u8; 13] = [0, 0, 4, 3, 0, 0, 0, 0, 1, 0, 0, 0, 8];

/// Takes one connection and one request, reads the message, and says that.
#[expect(clippy::disallowed_methods, reason = "a real port for a server of the test")]
async fn turn_away(said: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound").to_string();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        drop(listener);
        // Settings, empty.
        stream
            .write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0])
            .await
            .expect("sent");
        let mut heard = Vec::new();
        while !heard.windows(7).any(|window| window == b"message") {
            let read = stream.read_buf(&mut heard).await.expect("more");
            assert!(read > 0, "it ended before its message was there");
        }
        stream.write_all(said).await.expect("sent");
        std::future::pending::<()>().await;
    });
    address
}

async fn turned_away(said: &'static [u8]) -> Result<(), BoxError> {
    let first = turn_away(said).await;
    let (second, _stop, _task) = serve().await;
    let named = named([first, second]);
    // Round robin: one of the two goes to the first.
    ask(&named).await?;
    ask(&named).await
}

#[tokio::test]
async fn what_was_sent_and_not_looked_at_goes_to_another() {
    turned_away(&GOODBYE).await.expect("the other one answers");
    turned_away(&REFUSED).await.expect("the other one answers");
    let error = turned_away(&CANCELLED).await;
    assert!(error.is_err(), "it may have been done");
}
