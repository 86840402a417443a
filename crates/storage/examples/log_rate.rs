//! How many durable appends a second the log takes: `log_rate DIR [groups] [in flight] [seconds]`.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use bytes::Bytes;
use storage::rocks::{Log, Options};
use storage::{LogRecord, LogStore};
use types::ReplicaId;

const ENTRY_BYTES: usize = 300;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let dir = arguments.next().expect("a directory");
    let mut number = |default: u64| {
        arguments
            .next()
            .map_or(default, |text| text.parse().expect("a number"))
    };
    let (groups, in_flight, seconds) = (number(64), number(64), number(3));
    let fatal: storage::Fatal = Arc::new(|error| panic!("{error}"));
    let log = Log::open(Path::new(&dir), Options::default(), fatal).expect("opens");
    let (sender, receiver) = channel();
    let count = run(
        &*log,
        groups,
        in_flight,
        Duration::from_secs(seconds),
        (&sender, &receiver),
    );
    let stats = log.stats();
    println!(
        "{} appends/s, {:.1} a sync, {} us a sync, slowest {} us",
        count / seconds,
        stats.operations as f64 / stats.syncs as f64,
        stats.sync_us / stats.syncs,
        stats.slowest_us
    );
}

/// Keeps `in_flight` appends under way, round-robin over the groups; returns how many were answered.
#[expect(clippy::disallowed_methods, reason = "a measurement")]
fn run(
    log: &dyn LogStore,
    groups: u64,
    in_flight: u64,
    time: Duration,
    (sender, receiver): (&Sender<u64>, &Receiver<u64>),
) -> u64 {
    let data = Bytes::from(vec![7; ENTRY_BYTES]);
    let mut next = vec![1; usize::try_from(groups).expect("few")];
    let mut append = |turn: u64| {
        let group = turn % groups;
        let index = &mut next[usize::try_from(group).expect("few")];
        let sender = sender.clone();
        let record = LogRecord {
            index: *index,
            data: data.clone(),
        };
        *index += 1;
        let done = Box::new(move |_| sender.send(turn).unwrap_or_default());
        log.append(ReplicaId(group + 1), vec![record], done);
    };
    let begin = std::time::Instant::now();
    (0..in_flight).for_each(&mut append);
    let mut answered = 0;
    while begin.elapsed() < time {
        receiver.recv().expect("the log answers");
        answered += 1;
        append(in_flight + answered);
    }
    answered
}
