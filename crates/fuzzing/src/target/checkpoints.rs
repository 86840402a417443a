//! A state that another replica sends: in frames, and as the file that they carry. What is not whole is refused; what is
//! taken has the position and records that were sent, and can be asked and installed without an end of the process.

use std::sync::Arc;

use bytes::Bytes;
use env::{Blocking, Env, SeededRng, SystemClock, TcpNet};
use futures::FutureExt;
use machine::{Change, Query, View};
use prost::Message;
use proto::peer::{CheckpointBegin, CheckpointBegun, CheckpointChunk, FileSize};
use raft::Receiving;
use storage::memory::MemoryDisk;
use storage::{Applied, Incoming, PartitionStore};
use types::{PartitionId, ReplicaId};
use xxhash_rust::xxh3::xxh3_64;

use super::entries::{self, log_id};
use super::{queries, world};
use crate::input::{Input, part};

const AT: (PartitionId, ReplicaId) = (PartitionId(1), ReplicaId(2));
/// The one file of a state in memory.
const FILE: &str = "STATE";

fn store() -> Arc<dyn PartitionStore> {
    let stores = MemoryDisk::new().stores();
    stores.open(AT.0, AT.1).expect("this disk does not fail")
}

/// First byte: what is made up.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    match input.byte() % 4 {
        0 => file(input.rest()),
        1 => file(&sealed(input.rest())),
        2 => content(input),
        _ => frames(input),
    }
}

fn sealed(bytes: &[u8]) -> Vec<u8> {
    [&xxh3_64(bytes).to_le_bytes()[..], bytes].concat()
}

/// The bytes of the file.
fn file(bytes: &[u8]) {
    let store = store();
    let mut incoming = store.receive().expect("this disk does not fail");
    let mut offset = 0;
    for chunk in bytes.chunks(100) {
        assert!(incoming.write(FILE, offset + 1, chunk).is_err(), "a gap");
        incoming.write(FILE, offset, chunk).expect("it follows");
        offset += chunk.len() as u64;
    }
    take(&*store, incoming);
}

/// What `raft` does with a copy that is complete.
fn take(store: &dyn PartitionStore, mut incoming: Box<dyn Incoming>) {
    let Ok(applied) = incoming.finish() else {
        assert!(
            store.install(incoming).is_err(),
            "what is not whole was installed"
        );
        return;
    };
    let position = raft::convert::applied_in(&applied);
    store.install(incoming).expect("it is whole");
    assert_eq!(store.applied().expect("just installed"), Some(applied));
    if position.is_err() {
        return;
    }
    let view = store.point();
    let _ = machine::record::state::read(&*view);
    let _ = machine::record::meta::read(&*view);
    // Records that disagree are no input: to go on from them would break a promise, and stops the process.
    if machine::invariant::check(&*view).is_ok_and(|faults| faults.is_empty()) {
        go_on(&*view);
    }
}

/// What is asked of a state, and what is done to it.
fn go_on(view: &dyn View) {
    for seed in queries::seeds() {
        let query = Query::decode(&seed[1..]).expect("a question");
        let answer = machine::answer(view, &query).expect("its records agree");
        assert!(answer.told.is_some());
    }
    let batch = world::batch(vec![world::command(world::put("a", "1", 0))]);
    let applied = machine::apply(view, machine::Stamp::default(), &batch);
    assert!(
        !matches!(applied, Err(machine::ApplyError::View(_))),
        "{applied:?}"
    );
}

/// Position and records, sent as this build would.
fn content(mut input: Input<'_>) {
    let applied = Applied {
        log_id: Bytes::copy_from_slice(input.part()),
        membership: Bytes::copy_from_slice(input.part()),
    };
    let mut changes = Vec::new();
    while !input.is_empty() {
        let (key, value) = (input.part(), input.part());
        if key.len() >= 2 {
            changes.push(Change {
                key: Bytes::copy_from_slice(key),
                value: Some(Bytes::copy_from_slice(value)),
            });
        }
    }
    let from = store();
    from.commit(&changes, &applied).expect("this disk does not fail");
    let checkpoint = from.checkpoint().expect("something was committed");
    let to = store();
    let mut incoming = to.receive().expect("this disk does not fail");
    for listed in checkpoint.files() {
        let bytes = checkpoint
            .read(&listed.name, 0, usize::MAX)
            .expect("it is listed");
        assert_eq!(bytes.len() as u64, listed.size_bytes);
        incoming.write(&listed.name, 0, &bytes).expect("it follows");
    }
    take(&*to, incoming);
    assert_eq!(to.applied().expect("just installed"), Some(applied));
    for change in &changes {
        let there = to.point().get(&change.key).expect("just installed");
        assert_eq!(there, from.point().get(&change.key).expect("just written"));
    }
}

fn receiving() -> Receiving {
    let env = Env {
        clock: Arc::new(SystemClock::default()),
        rng: Arc::new(SeededRng::new(1)),
        net: Arc::new(TcpNet),
        blocking: Blocking::Inline,
    };
    Receiving::new(env, Arc::new(|| Ok(1 << 20)))
}

/// A beginning, and chunks: each with a flag, whether its hash is made right.
fn frames(mut input: Input<'_>) {
    let receiving = receiving();
    let begin = Bytes::copy_from_slice(input.part());
    let begun = receiving.begin(AT, store(), begin);
    let Some(Ok(begun)) = now(begun) else { return };
    let begun = CheckpointBegun::decode(begun).expect("written by this build");
    while !input.is_empty() {
        let right = !input.byte().is_multiple_of(4);
        let body = input.part();
        let body = match CheckpointChunk::decode(body) {
            Ok(mut chunk) if right => {
                chunk.transfer_id = begun.transfer_id;
                chunk.hash = xxh3_64(&chunk.data);
                chunk.encode_to_vec()
            }
            Ok(_) | Err(_) => body.to_vec(),
        };
        let _ = now(receiving.chunk(AT, body.into()));
    }
}

/// Drives what waits for nothing but its own thread.
fn now<T>(work: impl Future<Output = T>) -> Option<T> {
    let mut work = std::pin::pin!(work);
    // Work that keeps its thread gives way once before it is done.
    (0..16).find_map(|_| work.as_mut().now_or_never())
}

/// A state of each kind of record, and a transfer in two chunks.
pub fn seeds() -> Vec<Vec<u8>> {
    let position = [
        log_id(5).unwrap_or_default().encode_to_vec(),
        entries::stored_membership().encode_to_vec(),
    ];
    let position = position.iter().flat_map(|bytes| part(bytes));
    let mut content: Vec<u8> = [2].into_iter().chain(position).collect();
    let short = content.clone();
    for (key, value) in world::view().iter() {
        content.extend(part(key));
        content.extend(part(value));
    }
    let store = store();
    let applied = Applied {
        log_id: log_id(5).unwrap_or_default().encode_to_vec().into(),
        membership: entries::stored_membership().encode_to_vec().into(),
    };
    let records = world::view().iter().take(4).map(|(key, value)| Change {
        key: key.clone(),
        value: Some(value.clone()),
    });
    let records: Vec<Change> = records.collect();
    store.commit(&records, &applied).expect("this disk does not fail");
    let checkpoint = store.checkpoint().expect("something was committed");
    let whole = checkpoint.read(FILE, 0, usize::MAX).expect("it is there");
    vec![
        content,
        short,
        [&[0][..], &whole].concat(),
        [&[1][..], &whole[8..]].concat(),
        transfer(&whole),
    ]
}

fn transfer(whole: &Bytes) -> Vec<u8> {
    let begin = CheckpointBegin {
        vote: entries::vote(),
        meta: Some(entries::snapshot_meta()),
        files: vec![FileSize {
            name: FILE.into(),
            size_bytes: whole.len() as u64,
        }],
    };
    let mut transfer = vec![3];
    transfer.extend(part(&begin.encode_to_vec()));
    for offset in [0, 50] {
        let chunk = CheckpointChunk {
            transfer_id: 0,
            name: FILE.into(),
            offset,
            data: whole.slice(offset as usize..offset as usize + 50),
            hash: 0,
        };
        transfer.push(1);
        transfer.extend(part(&chunk.encode_to_vec()));
    }
    transfer
}
