//! Many clients, writers, compactions, new states and broken connections at once, drawn from a seed.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;

struct Plan {
    key: &'static str,
    range_end: &'static str,
    start: i64,
}

/// Clients of random speed, writers, compaction behind everybody, snapshots installed, connections cut.
async fn everything_at_once(seed: u64, local: bool) {
    let mut rng = StdRng::seed_from_u64(seed);
    let world = World::new(local);
    (0..50).for_each(|n| world.put(&format!("k{}", n % 5), n));
    let mut clients = Vec::new();
    for _ in 0..6 {
        let ranges = [("k0", ""), ("k1", "k3"), ("a", "\0"), ("k", "l"), ("k3", "")];
        let plans: Vec<Plan> = (0..rng.random_range(1..8))
            .map(|_| {
                let (key, range_end) = ranges[rng.random_range(0..ranges.len())];
                Plan {
                    key,
                    range_end,
                    start: rng.random_range(2..80),
                }
            })
            .collect();
        let seed = rng.random();
        clients.push(tokio::spawn(slow_client(world.clone(), plans, seed)));
    }
    for n in 0..4000 {
        match rng.random_range(0..100) {
            0 => world.delete(&format!("k{}", rng.random_range(0..5))),
            1 => world.install(rng.random_range(1..20)),
            2 => world.cut(),
            3..=6 => world.put_many((0..rng.random_range(1..5)).map(|k| format!("k{k}")), 10),
            7..=30 => tokio::task::yield_now().await,
            _ => world.put(&format!("k{}", rng.random_range(0..5)), n),
        }
    }
    for key in ["k0", "k1", "k2", "k3", "k4"] {
        world.put(key, 0);
    }
    world.done.store(true, Ordering::Release);
    for client in clients {
        tokio::time::timeout(DEADLINE, client)
            .await
            .expect("in time")
            .expect("client is content");
    }
}

async fn slow_client(world: Arc<World>, plans: Vec<Plan>, seed: u64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut client = Client::new(&world);
    for plan in &plans {
        client.create(plan.key, plan.range_end, plan.start);
    }
    let mut seen: Vec<Vec<Seen>> = plans.iter().map(|_| Vec::new()).collect();
    loop {
        if world.done.load(Ordering::Acquire) {
            let complete = |(plan, seen): (&Plan, &Vec<Seen>)| {
                let expected = world.expected(plan.key, plan.range_end, plan.start);
                seen.last().map(|s| s.revision) == expected.last().map(|s| s.revision)
            };
            if plans.iter().zip(&seen).all(complete) {
                break;
            }
        }
        for _ in 0..rng.random_range(0..30) {
            tokio::task::yield_now().await;
        }
        let response = client.next().await;
        assert!(!response.canceled, "{response:?}");
        if !response.events.is_empty() {
            let at = usize::try_from(response.watch_id).expect("an id of ours");
            model::append(&mut seen[at], &response);
        }
    }
    for (plan, seen) in plans.iter().zip(&seen) {
        assert_eq!(*seen, world.expected(plan.key, plan.range_end, plan.start));
    }
}

#[tokio::test]
async fn nobody_misses_anything_with_a_replica_here() {
    for seed in 0..12 {
        everything_at_once(seed, true).await;
    }
}

#[tokio::test]
async fn nobody_misses_anything_through_another_node() {
    for seed in 100..112 {
        everything_at_once(seed, false).await;
    }
}

/// What watches were told so far, against what they must have been told before a mark at this revision.
fn up_to(seen: &[Seen], revision: i64) -> usize {
    seen.iter().filter(|seen| seen.revision <= revision).count()
}

/// Marks are asked for all the time, and come by themselves, while watches catch up from the past, states are replaced and
/// connections are cut.
async fn marks_between_events(seed: u64, local: bool) {
    let mut rng = StdRng::seed_from_u64(seed);
    let world = World::new(local);
    (0..60).for_each(|n| world.put(&format!("k{}", n % 5), n));
    let options = Options {
        progress_every: Duration::from_millis(1),
        ..Options::default()
    };
    let mut client = Client::open(&world, options);
    let plans = [
        ("k0", "", 2),
        ("k1", "k3", 30),
        ("a", "\0", 0),
        ("k", "l", 100),
        ("k3", "", 61),
    ];
    for (key, range_end, start) in plans {
        client.send(Request::Create(Create {
            progress: true,
            ..create(key, range_end, start)
        }));
    }
    let mut from = plans.map(|(_, _, start)| start);
    let mut seen: Vec<Vec<Seen>> = vec![Vec::new(); plans.len()];
    let (mut created, mut marks) = (0, 0);
    for n in 0.. {
        if n < 600 {
            match rng.random_range(0..100) {
                0 => world.install(rng.random_range(1..9)),
                1 => world.cut(),
                2..=9 => world.delete(&format!("k{}", rng.random_range(0..5))),
                _ => world.put(&format!("k{}", rng.random_range(0..5)), n),
            }
        }
        if rng.random_range(0..3) == 0 {
            client.send(Request::Progress);
        }
        let told = client.next().await;
        assert!(!told.canceled, "{told:?}");
        if told.created {
            assert_eq!(told.watch_id, created);
            let at = usize::try_from(created).expect("ours");
            // Without a start it begins after what it says when it is made.
            from[at] = if from[at] == 0 {
                revision(&told) + 1
            } else {
                from[at]
            };
            created += 1;
            continue;
        }
        if !told.events.is_empty() {
            model::append(&mut seen[usize::try_from(told.watch_id).expect("ours")], &told);
            continue;
        }
        marks += 1;
        let of = usize::try_from(told.watch_id).map_or(0..plans.len(), |one| one..one + 1);
        for at in of.filter(|at| (*at as i64) < created) {
            let (key, range_end, _) = plans[at];
            let expected = world.expected(key, range_end, from[at]);
            let due = up_to(&expected, revision(&told));
            assert_eq!(
                up_to(&seen[at], revision(&told)),
                due,
                "marked before its events: {told:?}"
            );
        }
        let all = created == plans.len() as i64;
        if n > 600 && all && told.watch_id == -1 && revision(&told) == world.revision() {
            break;
        }
    }
    assert!(marks > 20, "{marks} marks");
}

/// etcd 15220: a mark of progress told a revision whose events came after it.
#[tokio::test]
async fn a_progress_mark_never_overtakes_events() {
    for seed in 0..8 {
        marks_between_events(seed, true).await;
        marks_between_events(seed, false).await;
    }
}
