//! What the leader does on its own: compaction in steps, samples of revisions, ending sessions; and drawing lease ids.

use super::*;
use crate::record::session::IDLE_UNIT_MS;

fn step(replica: &mut Replica, records: u32) -> (bool, u64) {
    match replica.done(Body::CompactStep(CompactStep { records })) {
        Done::Step(step) => (step.remaining, step.removed),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_step_tells_how_much_it_removed() {
    let mut replica = Replica::default();
    for _ in 0..3 {
        replica.put("a", "v");
    }
    replica.done(delete("a", b""));
    replica.put("b", "v");
    replica.done(Body::Compact(Compact { revision: 6 }));
    // Three versions before the deletion, and the deletion.
    assert_eq!(step(&mut replica, 100), (false, 4));
    assert_eq!(step(&mut replica, 100), (false, 0));
}

/// However large what is compacted: here, thrice what one step may read, and the small records that end it.
#[test]
fn a_step_reads_a_bounded_number_of_bytes_and_steps_end() {
    let most = limits::COMPACT_STEP_BYTES as usize;
    let value = "v".repeat(most / 16);
    let mut replica = Replica::default();
    for n in 0..24 {
        replica.put("same", &value);
        replica.put(&format!("k{n:02}"), &value);
    }
    replica.done(delete("k", b"l"));
    let revision = replica.put("same", "small");
    replica.done(Body::Compact(Compact { revision }));
    let mut steps = 0;
    loop {
        let view = Counting::new(&replica.view);
        let batch = Batch {
            format: BATCH_FORMAT,
            commands: vec![command(SPACE, Body::CompactStep(CompactStep { records: 0 }))],
            ..Default::default()
        };
        crate::apply(&view, Stamp::default(), &batch).expect("memory never fails");
        let read_bytes = view.value_bytes.get();
        assert!(read_bytes < 5 * most / 2, "{read_bytes} bytes in step {steps}");
        steps += 1;
        if !step(&mut replica, 0).0 {
            break;
        }
    }
    assert!((3..20).contains(&steps), "{steps} steps");
    assert_eq!(numbers(&replica).total_bytes, "samesmall".len() as u64);
}

/// The invariants say that nothing is left of a deletion below the compact revision (checked after each batch).
#[test]
fn a_deletion_met_at_the_compact_revision_is_met_again_by_the_next_compaction() {
    let mut replica = Replica::default();
    replica.put("a", "v");
    replica.put("b", "v");
    // One revision: a deletion, then two puts.
    replica.done(txn(vec![
        op(delete("a", b"")),
        op(put("b", "w", 0)),
        op(put("c", "w", 0)),
    ]));
    replica.put("d", "v");
    for records in 1..8 {
        let mut replica = Replica {
            view: replica.view.clone(),
            ..Replica::default()
        };
        replica.done(Body::Compact(Compact { revision: 4 }));
        step(&mut replica, records);
        replica.done(Body::Compact(Compact { revision: 5 }));
        while step(&mut replica, records).0 {}
    }
}

fn samples(replica: &Replica) -> Vec<(u64, i64)> {
    let samples = record::kv::samples(&replica.view, SPACE).expect("memory never fails");
    let samples = samples.samples.iter();
    samples.map(|sample| (sample.clock_ms, sample.revision)).collect()
}

fn retain(replica: &mut Replica, retain_revisions: i64, retain_ms: u64) {
    replica.done(Body::NamespaceConfigure(NamespaceSettings {
        retain_revisions,
        retain_ms,
        ..Default::default()
    }));
}

/// So that half of the samples that are kept cover the time that is retained.
#[test]
fn samples_are_as_far_apart_as_retention_asks() {
    let apart_ms = 5000;
    let mut replica = Replica::default();
    retain(&mut replica, 0, apart_ms * record::kv::SAMPLES as u64 / 2);
    for at_s in 1..=21 {
        replica.clock_ms = at_s * 1000;
        replica.put("a", "v");
    }
    let expected = [(1000, 2), (6000, 7), (11_000, 12), (16_000, 17), (21_000, 22)];
    assert_eq!(samples(&replica), expected);
    // Those of compacted revisions go with the next one.
    replica.done(Body::Compact(Compact { revision: 12 }));
    replica.clock_ms = 26_000;
    replica.put("a", "v");
    assert_eq!(samples(&replica), [(16_000, 17), (21_000, 22), (26_000, 23)]);
}

#[test]
fn when_there_are_too_many_samples_every_other_one_goes() {
    let mut replica = Replica::default();
    retain(&mut replica, 0, 64_000);
    let most = record::kv::SAMPLES as u64;
    for at_s in 1..=most {
        replica.clock_ms = at_s * 1000;
        replica.put("a", "v");
    }
    assert_eq!(samples(&replica).len() as u64, most);
    replica.clock_ms = (most + 1) * 1000;
    replica.put("a", "v");
    let kept = samples(&replica);
    assert_eq!(kept.len() as u64, most / 2 + 1);
    assert_eq!(kept[..3], [(1000, 2), (3000, 4), (5000, 6)]);
}

#[test]
fn a_steady_writer_is_compacted_a_tenth_late() {
    let mut replica = Replica::default();
    retain(&mut replica, 20, 0);
    let wanted = |replica: &Replica| record::kv::auto_compact(&replica.view, 0).expect("memory never fails");
    for _ in 1..22 {
        replica.put("a", "v");
    }
    assert_eq!(wanted(&replica), [], "22 revisions");
    replica.put("a", "v");
    assert_eq!(wanted(&replica), [(SPACE, 3)], "of 23, 20 stay");
    replica.done(Body::Compact(Compact { revision: 3 }));
    replica.put("a", "v");
    assert_eq!(wanted(&replica), [], "21 more");
}

#[test]
fn many_silent_sessions_end_in_several_commands() {
    let mut replica = Replica::default();
    let open = |client_id| Command {
        client_id,
        ..command(SPACE, Body::SessionOpen(SessionOpen {}))
    };
    replica.clock_ms = 3 * IDLE_UNIT_MS + 7;
    replica.batch((1..=600).map(open).collect());
    replica.clock_ms += IDLE_UNIT_MS;
    let expire = |replica: &mut Replica| {
        let silent_since_ms = replica.clock_ms;
        match replica.done(Body::SessionExpire(SessionExpire { silent_since_ms })) {
            Done::Step(step) => (step.remaining, step.removed),
            other => panic!("{other:?}"),
        }
    };
    let all = [(true, 256), (true, 256), (false, 88), (false, 0)];
    assert_eq!(all.map(|_| expire(&mut replica)), all);
    replica.batch((1..=256).map(open).collect());
    replica.clock_ms += 1;
    assert_eq!(expire(&mut replica), (false, 256));
}

/// The invariants say that nothing outlives the window (checked after each batch).
#[test]
fn replies_are_kept_for_as_many_numbers_as_the_window_has() {
    let window = record::session::WINDOW;
    let mut replica = Replica::default();
    let send = |replica: &mut Replica, seq, body| {
        let sent = Command {
            client_id: 9,
            seq,
            ..command(SPACE, body)
        };
        replica.reply(sent)
    };
    send(&mut replica, 0, Body::SessionOpen(SessionOpen {}));
    let kept = |replica: &Replica| {
        let reply = |seq: &u64| record::session::reply(&replica.view, SPACE, 9, *seq);
        (1..=2 * window)
            .filter(|seq| reply(seq).expect("memory never fails").is_some())
            .collect::<Vec<_>>()
    };
    for seq in 1..=window {
        send(&mut replica, seq, put("a", "v", 0));
        assert_eq!(kept(&replica), (1..=seq).collect::<Vec<_>>());
    }
    send(&mut replica, window + 1, put("a", "v", 0));
    assert_eq!(kept(&replica), (2..=window + 1).collect::<Vec<_>>());
    // Numbers that nobody used leave the window too.
    send(&mut replica, window + 10, put("a", "v", 0));
    let used = (11..=window + 1).chain([window + 10]);
    assert_eq!(kept(&replica), used.collect::<Vec<_>>());
}

#[test]
fn drawn_lease_ids_are_positive_and_nobody_elses() {
    let draw = |replica: &mut Replica| match replica.done(Body::LeaseGrant(LeaseGrant { id: 0, ttl_s: 9 })) {
        Done::Lease(lease) => lease.id,
        other => panic!("{other:?}"),
    };
    let mut replica = Replica::default();
    let drawn: Vec<i64> = (0..20).map(|_| draw(&mut replica)).collect();
    assert!(drawn.iter().all(|id| *id > 0), "{drawn:?}");
    assert_eq!(numbers(&replica).leases, 20, "all different");
    // An id that somebody has chosen is passed over.
    let mut other = Replica::default();
    let body = Body::LeaseGrant(LeaseGrant {
        id: drawn[0],
        ttl_s: 9,
    });
    assert_eq!(other.refusal(body), None);
    assert_eq!(draw(&mut other), drawn[1]);
}

#[test]
fn leases_are_due_up_to_a_limit_across_key_spaces() {
    let mut replica = Replica::default();
    let other = Space::new(types::Slot(4), SPACE.namespace);
    for space in [SPACE, other] {
        for id in [7, 8, 9] {
            replica.reply(command(
                space,
                Body::LeaseGrant(LeaseGrant { id, ttl_s: 10 - id }),
            ));
        }
    }
    let due = |limit| {
        let due = record::lease::due(&replica.view, 2500, limit).expect("memory never fails");
        due.iter()
            .map(|due| (due.space.slot.0, due.id, due.deadline_ms))
            .collect::<Vec<_>>()
    };
    assert_eq!(due(9), [(3, 8, 2000), (3, 9, 2000), (4, 8, 2000), (4, 9, 2000)]);
    assert_eq!(due(3), [(3, 8, 2000), (3, 9, 2000), (4, 8, 2000)]);
    assert_eq!(due(2), [(3, 8, 2000), (3, 9, 2000)]);
    assert_eq!(record::lease::next_deadline(&replica.view), Ok(Some(2000)));
    let Told::Leases(list) = replica.ask(Ask::Leases(Empty {})) else {
        panic!("asked for leases")
    };
    assert_eq!(list.ids, [8, 9, 7], "those that end first first");
}

#[test]
fn writing_what_is_there_is_no_change() {
    let mut replica = Replica::default();
    retain(&mut replica, 5, 0);
    retain(&mut replica, 5, 0);
    let changed: Vec<_> = replica.outcome.changes.iter().map(|change| &change.key).collect();
    assert_eq!(changed, [&record::state::state_key()]);
    let overlay = crate::overlay::Overlay::new(&replica.view);
    let (key, value) = replica.view.iter().next().expect("not empty");
    overlay
        .put(key.clone(), value.clone())
        .expect("memory never fails");
    assert_eq!(overlay.finish(5), (Vec::new(), 5));
}
