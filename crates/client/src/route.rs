//! Which controller to ask: one connection per endpoint, dialled before a request is handed to it, so that a request
//! to a dead endpoint is never half sent. An endpoint that failed is passed over for a while.

use crate::error::{Error, ErrorKind, chain};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::time::{Instant, timeout_at};
use tonic::transport::{Channel, Endpoint};

/// How a client behaves. Defaults suit a person at a terminal and a controller alike.
#[derive(Clone, Debug)]
pub struct Options {
    /// Longest a call takes, retries included. Longer rides out more trouble. Default 10 s.
    pub timeout: Duration,
    /// Longest a dial takes before the next endpoint is tried. Default 1 s.
    pub connect_timeout: Duration,
    /// Longest one attempt of a call waits before it is tried elsewhere, if it may be. Default 5 s.
    pub attempt_timeout: Duration,
    /// Which endpoint a call goes to. Default [`Spread::Sticky`].
    pub spread: Spread,
    /// Index of the endpoint to begin with; give each of many clients another. Default 0.
    pub first: usize,
}

/// Which endpoint a call goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spread {
    /// The same one while it answers, so that a client reads what it wrote.
    Sticky,
    /// Each in turn.
    RoundRobin,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(1),
            attempt_timeout: Duration::from_secs(5),
            spread: Spread::Sticky,
            first: 0,
        }
    }
}

/// How long an endpoint that failed is passed over while others are there.
const PASSED_OVER: Duration = Duration::from_secs(1);
/// Finds a peer that is gone without a word.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// An endpoint, with its connection if there is one.
struct Stop {
    name: String,
    endpoint: Endpoint,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    channel: Option<Channel>,
    /// Raised with each dial, so that a failure of an old connection does not end the new one.
    dial: u64,
    passed_over_until: Option<Instant>,
}

/// All endpoints of a client.
pub(crate) struct Route {
    stops: Vec<Stop>,
    next: AtomicUsize,
    options: Options,
}

/// A connection to use for one attempt.
#[derive(Clone)]
pub(crate) struct Way {
    pub(crate) channel: Channel,
    pub(crate) endpoint: String,
    index: usize,
    dial: u64,
}

impl Route {
    pub(crate) fn new<E: AsRef<str>>(
        endpoints: impl IntoIterator<Item = E>,
        options: Options,
    ) -> Result<Route, Error> {
        let mut stops = Vec::new();
        for text in endpoints {
            stops.push(parse(text.as_ref(), &options)?);
        }
        if stops.is_empty() {
            return Err(Error::new(ErrorKind::Invalid, "Connect", "no endpoints given"));
        }
        Ok(Route {
            next: AtomicUsize::new(options.first % stops.len()),
            stops,
            options,
        })
    }

    pub(crate) fn options(&self) -> &Options {
        &self.options
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.stops.iter().map(|stop| stop.name.clone()).collect()
    }

    /// How many endpoints there are.
    pub(crate) fn count(&self) -> usize {
        self.stops.len()
    }

    /// A connected endpoint: healthy ones first in turn, then those passed over. Fails, with nothing sent, when all
    /// refuse or the deadline is near.
    pub(crate) async fn pick(&self, operation: &'static str, deadline: Instant) -> Result<Way, Error> {
        let mut tried = Vec::new();
        for index in self.order() {
            match self.connect(index, deadline).await {
                Ok(way) => {
                    self.advance(index);
                    return Ok(way);
                }
                Err(text) => tried.push(format!("{} {text}", self.stops[index].name)),
            }
        }
        let message = format!("no controller could be reached: {}", tried.join("; "));
        Err(Error::new(ErrorKind::Unavailable, operation, message))
    }

    /// The attempt failed below gRPC, or the endpoint cannot serve: dial anew next time, and others first.
    pub(crate) fn failed(&self, way: &Way, broken: bool) {
        let stop = &self.stops[way.index];
        let mut state = lock(&stop.state);
        if state.dial == way.dial {
            state.passed_over_until = Some(Instant::now() + PASSED_OVER);
            if broken {
                state.channel = None;
            }
        }
        self.next
            .store((way.index + 1) % self.stops.len(), Ordering::Relaxed);
    }

    fn order(&self) -> Vec<usize> {
        let count = self.stops.len();
        let start = self.next.load(Ordering::Relaxed) % count;
        let now = Instant::now();
        let turn = (0..count).map(|step| (start + step) % count);
        let (late, good): (Vec<usize>, Vec<usize>) = turn.partition(|index| {
            lock(&self.stops[*index].state)
                .passed_over_until
                .is_some_and(|until| until > now)
        });
        good.into_iter().chain(late).collect()
    }

    fn advance(&self, used: usize) {
        let next = match self.options.spread {
            Spread::Sticky => used,
            Spread::RoundRobin => (used + 1) % self.stops.len(),
        };
        self.next.store(next, Ordering::Relaxed);
    }

    async fn connect(&self, index: usize, deadline: Instant) -> Result<Way, String> {
        let stop = &self.stops[index];
        {
            let state = lock(&stop.state);
            if let Some(channel) = &state.channel {
                let (channel, dial) = (channel.clone(), state.dial);
                return Ok(Way {
                    channel,
                    endpoint: stop.name.clone(),
                    index,
                    dial,
                });
            }
        }
        let limit = deadline.min(Instant::now() + self.options.connect_timeout);
        let result = match timeout_at(limit, stop.endpoint.connect()).await {
            Ok(Ok(channel)) => Ok(channel),
            Ok(Err(error)) => Err(chain(&error)),
            Err(_) => Err("did not accept a connection in time".to_owned()),
        };
        let mut state = lock(&stop.state);
        match result {
            Ok(channel) => {
                state.dial += 1;
                state.passed_over_until = None;
                state.channel = Some(channel.clone());
                Ok(Way {
                    channel,
                    endpoint: stop.name.clone(),
                    index,
                    dial: state.dial,
                })
            }
            Err(text) => {
                state.passed_over_until = Some(Instant::now() + PASSED_OVER);
                Err(text)
            }
        }
    }
}

fn lock(state: &Mutex<State>) -> std::sync::MutexGuard<'_, State> {
    state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn parse(text: &str, options: &Options) -> Result<Stop, Error> {
    let wrong = |why: String| {
        let message = format!("endpoint {text:?} {why}; give host:port, as in 127.0.0.1:2379");
        Error::new(ErrorKind::Invalid, "Connect", message)
    };
    let name = text.trim().trim_end_matches('/');
    let name = name.strip_prefix("http://").unwrap_or(name);
    if name.starts_with("https://") {
        return Err(wrong("asks for TLS, which this build does not speak".to_owned()));
    }
    let port = name
        .rsplit_once(':')
        .and_then(|(host, port)| (!host.is_empty()).then_some(port));
    if port.is_none_or(|port| port.parse::<u16>().is_err()) {
        return Err(wrong("has no host and port".to_owned()));
    }
    let endpoint = Endpoint::from_shared(format!("http://{name}"))
        .map_err(|error| wrong(format!("is malformed ({error})")))?
        .connect_timeout(options.connect_timeout)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
        .keep_alive_while_idle(false);
    Ok(Stop {
        name: name.to_owned(),
        endpoint,
        state: Mutex::default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_checked() {
        for good in ["127.0.0.1:2379", "http://a.b:1/", " host:65535 ", "[::1]:2379"] {
            assert!(parse(good, &Options::default()).is_ok(), "{good}");
        }
        for bad in ["", "host", "host:", ":2379", "https://a:1", "host:99999", "a b:1"] {
            assert!(parse(bad, &Options::default()).is_err(), "{bad}");
        }
        assert!(Route::new(Vec::<String>::new(), Options::default()).is_err());
    }

    #[tokio::test]
    async fn all_refusals_are_named() {
        // Port 1 of the loopback refuses.
        let route = Route::new(["127.0.0.1:1", "localhost:1"], Options::default()).expect("well formed");
        let Err(error) = route
            .pick("Status", Instant::now() + Duration::from_secs(5))
            .await
        else {
            panic!("nobody listens there");
        };
        assert_eq!(error.kind, ErrorKind::Unavailable);
        assert!(
            error.message.contains("127.0.0.1:1 ") && error.message.contains("localhost:1 "),
            "{error}"
        );
    }

    #[tokio::test]
    async fn failed_endpoints_come_last() {
        let route = Route::new(["a:1", "b:1", "c:1"], Options::default()).expect("well formed");
        assert_eq!(route.order(), [0, 1, 2]);
        lock(&route.stops[0].state).passed_over_until = Some(Instant::now() + PASSED_OVER);
        assert_eq!(route.order(), [1, 2, 0]);
        route.advance(2);
        assert_eq!(route.order(), [2, 1, 0]);
    }
}
