//! Tables for single steps.

use machine::record::meta::{Partition, Replica};
use types::{NodeId, ReplicaId};

use super::{Change, Members, next_change};

fn ids(list: &[u64]) -> std::collections::BTreeSet<ReplicaId> {
    list.iter().map(|id| ReplicaId(*id)).collect()
}

/// Replica n is on node n, and so are n + 10, n + 20 and so on; the leader is the first voter.
fn check(wanted: &[(u64, bool)], voters: &[u64], learners: &[u64], caught_up: &[u64], change: Change) {
    check_more(wanted, voters, learners, caught_up, false, false, change);
}

fn check_more(
    wanted: &[(u64, bool)],
    voters: &[u64],
    learners: &[u64],
    caught_up: &[u64],
    joint: bool,
    impatient: bool,
    change: Change,
) {
    let replicas = wanted
        .iter()
        .map(|(id, voter)| Replica {
            id: *id,
            node: *id % 10,
            voter: *voter,
            ..Replica::default()
        })
        .collect();
    let partition = Partition {
        id: 1,
        generation: 1,
        replicas,
    };
    let members = Members {
        own: ReplicaId(voters[0]),
        voters: ids(voters),
        learners: ids(learners),
        caught_up: ids(caught_up),
        joint,
        nodes: voters
            .iter()
            .chain(learners)
            .map(|id| (ReplicaId(*id), NodeId(id % 10)))
            .collect(),
    };
    assert_eq!(next_change(&partition, &members, impatient), change);
}

const ALL: &[(u64, bool)] = &[(1, true), (2, true), (3, true)];

#[test]
fn one_becomes_three_in_one_change_of_voters() {
    check(ALL, &[1], &[], &[1], Change::AddLearner(ReplicaId(2), NodeId(2)));
    check(
        ALL,
        &[1],
        &[2],
        &[1, 2],
        Change::AddLearner(ReplicaId(3), NodeId(3)),
    );
    check(ALL, &[1], &[2, 3], &[1, 2], Change::Wait);
    check_more(
        ALL,
        &[1],
        &[2, 3],
        &[1, 2],
        false,
        true,
        Change::SetVoters(ids(&[1, 2])),
    );
    check(ALL, &[1], &[2, 3], &[1, 2, 3], Change::SetVoters(ids(&[1, 2, 3])));
    check_more(
        ALL,
        &[1, 2, 3],
        &[],
        &[1, 2, 3],
        true,
        false,
        Change::SetVoters(ids(&[1, 2, 3])),
    );
    check(ALL, &[1, 2, 3], &[], &[1], Change::Done);
}

/// A change to what is there already would be an entry for nothing, and another, and another.
#[test]
fn a_leader_that_is_to_go_waits_for_an_heir() {
    check(&[(2, true), (3, true)], &[1, 2, 3], &[], &[1], Change::Wait);
}

#[test]
fn leader_hands_over_before_it_goes() {
    let moved = &[(2, true), (3, true), (4, true)];
    check(
        moved,
        &[1, 2, 3],
        &[4],
        &[1, 2, 3, 4],
        Change::HandOver(ReplicaId(2)),
    );
    check(
        moved,
        &[2, 1, 3],
        &[4],
        &[1, 2, 3, 4],
        Change::SetVoters(ids(&[2, 3, 4])),
    );
    check(
        moved,
        &[2, 3, 4],
        &[1],
        &[1, 2, 3, 4],
        Change::RemoveLearner(ReplicaId(1)),
    );
    check(&[(2, true)], &[1], &[2], &[1, 2], Change::SetVoters(ids(&[1, 2])));
    check(
        &[(2, true)],
        &[1, 2],
        &[],
        &[1, 2],
        Change::HandOver(ReplicaId(2)),
    );
}

#[test]
fn a_change_half_done_ends_before_its_leader_hands_over() {
    let wanted = &[(2, true)];
    let both = Change::SetVoters(ids(&[1, 2]));
    check_more(wanted, &[1, 2], &[], &[1, 2], true, false, both);
}

#[test]
fn learners_stay_learners() {
    check(&[(1, true), (2, false)], &[1], &[2], &[], Change::Done);
    check(
        &[(1, true), (2, false)],
        &[1, 2],
        &[],
        &[1, 2],
        Change::SetVoters(ids(&[1])),
    );
}

/// A node that was emptied, or whose replica was damaged, is to hold another replica before the group has dropped the
/// first.
#[test]
fn what_stands_in_the_way_on_its_node_goes_first() {
    let again = &[(1, true), (2, true), (13, true)];
    let clear = |voters: &[u64], learners: &[u64], caught_up: &[u64], change| {
        check(again, voters, learners, caught_up, change);
    };
    clear(&[1, 2], &[3, 13], &[1, 2, 3], Change::RemoveLearner(ReplicaId(3)));
    clear(&[1, 2, 3], &[13], &[1, 2, 3], Change::SetVoters(ids(&[1, 2])));
    clear(&[3, 1, 2], &[13], &[1, 2, 3], Change::HandOver(ReplicaId(1)));
    clear(&[1, 2, 3], &[], &[1, 2, 3], Change::SetVoters(ids(&[1, 2])));
    // Nobody to lead instead: what was wanted from the start goes on.
    clear(&[3, 1, 2], &[13], &[3], Change::Wait);
    // The first is away: as ever.
    clear(&[1, 2], &[13], &[1, 2], Change::Wait);
    clear(&[1, 2], &[13], &[1, 2, 13], Change::SetVoters(ids(&[1, 2, 13])));
    // It has begun already, so nothing was in its way.
    clear(
        &[1, 2, 3],
        &[13],
        &[1, 2, 13],
        Change::SetVoters(ids(&[1, 2, 13])),
    );
    clear(&[1, 2, 13], &[3], &[1, 2, 3], Change::RemoveLearner(ReplicaId(3)));
}

/// The group can write as it is; from the moment in which such a change is written it could not.
#[test]
fn voters_are_not_changed_to_a_set_whose_majority_is_out_of_reach() {
    let two = &[(1, true), (2, true)];
    check(two, &[1, 2, 3], &[], &[1, 3], Change::Wait);
    check(two, &[1, 2, 3], &[], &[1, 2], Change::SetVoters(ids(&[1, 2])));
    // The leader is to go, and so stays in for now.
    check(&[(2, true), (3, true)], &[1, 2, 3], &[], &[1], Change::Wait);
    // What stands in another one's way as well.
    let again = &[(1, true), (2, true), (13, true)];
    check(again, &[1, 2, 3], &[], &[1, 3], Change::Wait);
    // What is half done is gone on with.
    check_more(
        two,
        &[1, 2, 3],
        &[],
        &[1, 3],
        true,
        false,
        Change::SetVoters(ids(&[1, 2])),
    );
    // Two have caught up, but of four.
    let four = &[(1, true), (2, true), (3, true), (4, true)];
    check_more(four, &[1, 2, 3], &[4], &[1, 4], false, true, Change::Wait);
}
