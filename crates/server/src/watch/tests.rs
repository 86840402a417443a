//! Streams against a model of a key space: whatever happens between, each watch gets every event exactly once.

mod chaos;
mod model;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use etcd_client::proto::PbWatchResponse;
use futures::{StreamExt, stream};
use tokio::sync::mpsc;
use tonic::{Code, Status};
use types::limits;

use super::stream::{Create, Options, Request, Requests, Responses};
use model::{Seen, World};

/// Far beyond what anything here takes.
const DEADLINE: Duration = Duration::from_secs(60);

struct Client {
    requests: mpsc::UnboundedSender<Result<Request, Status>>,
    responses: Responses,
    buffer: Vec<PbWatchResponse>,
}

impl Client {
    fn open(world: &Arc<World>, options: Options) -> Client {
        let (requests, taken) = mpsc::unbounded_channel();
        let taken: Requests = Box::pin(stream::unfold(taken, |mut taken| async {
            taken.recv().await.map(|request| (request, taken))
        }));
        let responses = super::stream::open(&world.hub, world.clone(), world.space(), options, taken);
        Client {
            requests,
            responses,
            buffer: Vec::new(),
        }
    }

    fn new(world: &Arc<World>) -> Client {
        Client::open(world, Options::default())
    }

    fn send(&self, request: Request) {
        self.requests.send(Ok(request)).expect("stream is open");
    }

    fn create(&self, key: &str, range_end: &str, start_revision: i64) {
        self.send(Request::Create(create(key, range_end, start_revision)));
    }

    async fn try_next(&mut self) -> Result<PbWatchResponse, Status> {
        while self.buffer.is_empty() {
            let chunk = tokio::time::timeout(DEADLINE, self.responses.recv())
                .await
                .expect("in time");
            let frames = chunk.expect("stream is open")?;
            self.buffer = frames
                .into_iter()
                .map(|f| f.into_response().expect("decodes"))
                .collect();
        }
        Ok(self.buffer.remove(0))
    }

    async fn next(&mut self) -> PbWatchResponse {
        self.try_next().await.expect("no error")
    }
}

fn create(key: &str, range_end: &str, start_revision: i64) -> Create {
    Create {
        key: key.to_owned().into(),
        range_end: range_end.to_owned().into(),
        start_revision,
        ..Create::default()
    }
}

fn revision(response: &PbWatchResponse) -> i64 {
    response.header.map_or(0, |header| header.revision)
}

/// Takes responses until watch `id` has seen `last`, and gives what it saw.
async fn see(client: &mut Client, id: i64, last: i64) -> Vec<Seen> {
    let mut seen: Vec<Seen> = Vec::new();
    while seen.last().is_none_or(|s| s.revision < last) {
        let response = client.next().await;
        assert!(!response.canceled, "{response:?}");
        assert_eq!(response.watch_id, id);
        model::append(&mut seen, &response);
    }
    seen
}

#[tokio::test]
async fn from_now_and_from_the_past() {
    let world = World::new(true);
    world.put("a", 1);
    world.put("b", 1);
    let mut now = Client::new(&world);
    now.create("a", "", 0);
    let created = now.next().await;
    assert!(created.created && created.watch_id == 0 && revision(&created) == 3);
    let mut past = Client::new(&world);
    past.create("a", "\0", 2);
    assert!(past.next().await.created);
    world.put("a", 2);
    assert_eq!(see(&mut now, 0, 4).await, world.expected("a", "", 4));
    assert_eq!(see(&mut past, 0, 4).await, world.expected("a", "\0", 2));
}

#[tokio::test]
async fn a_future_start_is_held() {
    let world = World::new(true);
    let mut client = Client::new(&world);
    client.create("a", "", 5);
    assert_eq!(revision(&client.next().await), 1);
    (0..6).for_each(|n| world.put("a", n));
    assert_eq!(see(&mut client, 0, 7).await, world.expected("a", "", 5));
}

#[tokio::test]
async fn compacted_history_ends_the_watch() {
    let world = World::new(true);
    let mut live = Client::new(&world);
    live.create("a", "", 0);
    live.next().await;
    (0..9).for_each(|n| world.put("a", n));
    world.compact(6);
    // Memory still has them, but they are compacted all the same.
    let mut client = Client::new(&world);
    client.create("a", "", 5);
    assert!(client.next().await.created);
    let end = client.next().await;
    assert!(end.canceled && end.compact_revision == 6 && end.cancel_reason.is_empty());
    client.create("a", "", 6);
    assert!(client.next().await.created);
    assert_eq!(see(&mut client, 1, 10).await, world.expected("a", "", 6));
}

#[tokio::test]
async fn ids_cancels_and_nonsense() {
    let world = World::new(true);
    let mut client = Client::new(&world);
    client.create("a", "", 0);
    assert_eq!(client.next().await.watch_id, 0);
    client.send(Request::Create(Create {
        watch_id: 1,
        ..create("b", "", 0)
    }));
    assert_eq!(client.next().await.watch_id, 1);
    client.create("c", "", 0);
    assert_eq!(client.next().await.watch_id, 2);
    client.send(Request::Create(Create {
        watch_id: 1,
        ..create("b", "", 0)
    }));
    let refused = client.next().await;
    assert!(refused.created && refused.canceled && refused.watch_id == -1);
    assert_eq!(
        refused.cancel_reason,
        "mvcc: duplicate watch ID provided on the WatchStream"
    );
    client.create("b", "a", 0);
    let refused = client.next().await;
    assert!(refused.created && refused.canceled && refused.watch_id == -1);
    assert_eq!(refused.cancel_reason, "mvcc: watcher range is empty");
    client.send(Request::Cancel(77));
    client.send(Request::Cancel(1));
    let gone = client.next().await;
    assert!(gone.canceled && !gone.created && gone.watch_id == 1);
    world.put("b", 1);
    world.put("a", 1);
    assert_eq!(see(&mut client, 0, 3).await, world.expected("a", "", 3));
    assert_eq!(world.hub.stats().watches, 2);
    drop(client);
    let gone = async {
        while world.hub.stats() != super::HubStats::default() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, gone)
        .await
        .expect("the hub forgets closed streams");
}

#[tokio::test]
async fn filters_and_previous_pairs() {
    let world = World::new(true);
    let mut client = Client::new(&world);
    client.send(Request::Create(Create {
        no_put: true,
        previous: true,
        ..create("a", "", 1)
    }));
    client.next().await;
    world.put("a", 1);
    world.delete("a");
    let response = client.next().await;
    assert_eq!(response.events.len(), 1);
    assert_eq!(response.events[0].r#type, 1);
    assert_eq!(
        response.events[0].prev_kv.as_ref().map(|kv| kv.mod_revision),
        Some(2)
    );
}

#[tokio::test]
async fn progress_is_told_when_asked_and_when_quiet() {
    let world = World::new(true);
    let options = Options {
        progress_every: Duration::from_millis(20),
        ..Options::default()
    };
    let mut client = Client::open(&world, options);
    // There is no watch yet, and so nothing to be said.
    client.send(Request::Progress);
    client.send(Request::Create(Create {
        progress: true,
        ..create("a", "", 0)
    }));
    assert!(client.next().await.created);
    world.put("b", 1);
    loop {
        let told = client.next().await;
        assert!(told.events.is_empty() && told.watch_id == 0);
        if revision(&told) == 2 {
            break;
        }
    }
    client.send(Request::Progress);
    while client.next().await.watch_id != -1 {}
}

#[tokio::test]
async fn a_start_below_zero_is_answered_as_by_etcd() {
    let world = World::new(true);
    (0..3).for_each(|n| world.put("a", n));
    let mut client = Client::new(&world);
    // The past of -1 is empty, that of everything below is compacted.
    client.create("a", "", -1);
    assert!(client.next().await.created);
    world.put("a", 3);
    assert_eq!(see(&mut client, 0, 5).await, world.expected("a", "", 5));
    client.create("a", "", -2);
    assert!(client.next().await.created);
    let end = client.next().await;
    assert!(end.canceled && end.compact_revision == -1, "{end:?}");
    world.compact(3);
    for start in [-1, -9] {
        client.create("a", "", start);
        assert!(client.next().await.created);
        let end = client.next().await;
        assert!(end.canceled && end.compact_revision == 3, "{end:?}");
    }
}

#[tokio::test]
async fn a_replica_that_is_slow_to_say_where_it_stands_leaves_nobody_waiting() {
    let world = World::new(true);
    world.put("a", 1);
    world.recovering.store(true, Ordering::Relaxed);
    let mut client = Client::new(&world);
    client.create("a", "", 2);
    for n in 0..20 {
        world.put("a", n);
        tokio::task::yield_now().await;
    }
    world.recovering.store(false, Ordering::Relaxed);
    let created = client.next().await;
    assert!(
        created.created && revision(&created) == world.revision(),
        "{created:?}"
    );
    world.put("a", 0);
    let last = world.revision();
    assert_eq!(see(&mut client, 0, last).await, world.expected("a", "", 2));
}

#[tokio::test]
async fn a_node_that_gave_its_replica_away_ends_the_streams_of_others() {
    let world = World::new(false);
    let mut client = Client::new(&world);
    client.create("a", "", 0);
    assert!(client.next().await.created);
    world.other_serves.store(false, Ordering::Relaxed);
    let ended = async {
        while world.carried.load(Ordering::Relaxed) > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(DEADLINE, ended)
        .await
        .expect("nobody is served through a third node");
    world.put("a", 1);
    world.other_serves.store(true, Ordering::Relaxed);
    world.put("a", 2);
    assert_eq!(see(&mut client, 0, 3).await, world.expected("a", "", 2));
}

#[tokio::test]
async fn a_revision_larger_than_a_frame_passes_between_nodes() {
    let world = World::new(false);
    let mut client = Client::new(&world);
    client.create("a", "\0", 0);
    assert!(client.next().await.created);
    world.put("k", 0);
    world.put_many((0..9).map(|n| format!("k{n}")), limits::WATCH_RESPONSE_BYTES / 2);
    world.put("k", 1);
    assert_eq!(see(&mut client, 0, 4).await, world.expected("a", "\0", 2));
}

#[tokio::test]
async fn a_leaderless_partition_ends_streams_that_require_a_leader() {
    let world = World::new(true);
    world.leaderless.store(true, Ordering::Relaxed);
    let mut client = Client::open(
        &world,
        Options {
            require_leader: true,
            ..Options::default()
        },
    );
    client.create("a", "", 0);
    let status = client.try_next().await.expect_err("ends");
    assert_eq!(
        (status.code(), status.message()),
        (Code::Unavailable, "etcdserver: no leader")
    );
}

/// With a replica here and without: the stream lives as long as the leader answers, and not much longer.
async fn outlives_its_leader(local: bool) {
    let world = World::new(local);
    let options = Options {
        require_leader: true,
        ..Options::default()
    };
    let mut client = Client::open(&world, options);
    client.create("a", "", 0);
    assert!(client.next().await.created);
    let silence = tokio::time::timeout(super::stream::LEADERLESS * 3 / 2, client.responses.recv()).await;
    assert!(silence.is_err(), "ended although there is a leader");
    world.put("a", 1);
    assert_eq!(see(&mut client, 0, 2).await, world.expected("a", "", 2));
    world.leaderless.store(true, Ordering::Relaxed);
    let status = client.try_next().await.expect_err("ends");
    assert_eq!(status.message(), "etcdserver: no leader");
}

#[tokio::test]
async fn a_stream_that_requires_a_leader_ends_some_time_after_it() {
    tokio::join!(outlives_its_leader(true), outlives_its_leader(false));
}

#[tokio::test]
async fn large_revisions_are_cut_for_those_who_allow_it() {
    let world = World::new(true);
    let mut client = Client::new(&world);
    client.send(Request::Create(Create {
        fragment: true,
        ..create("a", "\0", 0)
    }));
    client.create("a", "\0", 0);
    client.next().await;
    client.next().await;
    world.put_many((0..5).map(|n| format!("k{n}")), limits::WATCH_RESPONSE_BYTES / 2);
    let mut fragments = Vec::new();
    let mut whole = None;
    while fragments.last().is_none_or(|f: &PbWatchResponse| f.fragment) || whole.is_none() {
        let response = client.next().await;
        if response.watch_id == 0 {
            fragments.push(response)
        } else {
            whole = Some(response)
        }
    }
    assert_eq!(whole.map(|w| w.events.len()), Some(5));
    assert_eq!(fragments.len(), 5);
    assert!(fragments.iter().all(|f| f.events.len() == 1));
}

#[tokio::test]
async fn one_watch_stands_still_and_misses_nothing() {
    let world = World::new(true);
    let mut client = Client::new(&world);
    client.create("a", "\0", 0);
    client.next().await;
    for n in 0..(limits::WATCH_STREAM_BUFFER * 20) {
        world.put(&format!("k{}", n % 7), n);
        if n % 3 == 0 {
            tokio::task::yield_now().await;
        }
    }
    let last = world.revision();
    assert_eq!(see(&mut client, 0, last).await, world.expected("a", "\0", 2));
}

#[tokio::test]
async fn a_replica_that_goes_and_comes_back_changes_nothing() {
    let world = World::new(true);
    let mut client = Client::new(&world);
    client.create("a", "\0", 0);
    client.next().await;
    let mut seen = Vec::new();
    for round in 0..4 {
        for n in 0..20 {
            world.put(&format!("k{n}"), n);
        }
        world.set_local(round % 2 == 1);
        (0..5).for_each(|n| world.put("k", n));
        seen.extend(see(&mut client, 0, world.revision()).await);
    }
    assert_eq!(seen, world.expected("a", "\0", 2));
}

#[tokio::test]
async fn ten_thousand_watches_of_one_range_on_many_streams() {
    let world = World::new(true);
    let mut clients: Vec<Client> = (0..100).map(|_| Client::new(&world)).collect();
    for client in &mut clients {
        (0..100).for_each(|_| client.create("k", "l", 0));
        for _ in 0..100 {
            assert!(client.next().await.created);
        }
    }
    assert_eq!(world.hub.stats().watches, 10_000);
    (0..20).for_each(|n| world.put(&format!("k{n}"), n));
    let last = world.revision();
    let all = stream::iter(clients).for_each_concurrent(None, |mut client| {
        let world = world.clone();
        async move {
            let mut seen = vec![Vec::new(); 100];
            while seen
                .iter()
                .any(|s: &Vec<Seen>| s.last().is_none_or(|s| s.revision < last))
            {
                let response = client.next().await;
                model::append(
                    &mut seen[usize::try_from(response.watch_id).expect("ours")],
                    &response,
                );
            }
            assert!(seen.iter().all(|s| *s == world.expected("k", "l", 2)));
        }
    });
    tokio::time::timeout(DEADLINE, all).await.expect("in time");
}
