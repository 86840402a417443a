//! Leases, the index of their deadlines, and attachments agree in both directions.

use std::collections::{BTreeMap, BTreeSet};

use super::{Faults, family};
use crate::record::key::{self, Kind};
use crate::record::kv::{self, Pair};
use crate::record::lease::{Deadline, Lease};
use crate::record::{Space, decode};
use crate::view::{View, ViewError};

pub(super) fn check(view: &dyn View, space: Space, faults: &mut Faults) -> Result<(), ViewError> {
    let mut leases = BTreeMap::new();
    for (family_key, value) in family(view, space, Kind::Lease)? {
        let lease: Lease = decode("a lease", value)?;
        let id = key::lease_id(key::number_at(&family_key, 0)?);
        faults.unless(lease.id == id, || {
            format!("{space:?}: the record of lease {id} says {lease:?}")
        });
        leases.insert(id, lease);
    }
    let counted = kv::namespace(view, space)?.leases;
    faults.unless(counted == leases.len() as u64, || {
        format!(
            "{space:?}: {counted} leases are counted, {} are there",
            leases.len()
        )
    });
    let mut indexed = 0;
    for (family_key, value) in family(view, space, Kind::Deadline)? {
        let (deadline_ms, id) = (
            key::number_at(&family_key, 0)?,
            key::lease_id(key::number_at(&family_key, 8)?),
        );
        let entry: Deadline = decode("a deadline", value)?;
        indexed += 1;
        let agrees = leases
            .get(&id)
            .is_some_and(|lease| lease.deadline_ms == deadline_ms && lease.generation == entry.generation);
        faults.unless(agrees, || {
            format!("{space:?}: deadline {deadline_ms} of lease {id} is stale")
        });
    }
    faults.unless(indexed == leases.len(), || {
        format!(
            "{space:?}: {indexed} deadlines are indexed for {} leases",
            leases.len()
        )
    });
    attachments(view, space, &leases, faults)
}

fn attachments(
    view: &dyn View,
    space: Space,
    leases: &BTreeMap<i64, Lease>,
    faults: &mut Faults,
) -> Result<(), ViewError> {
    let mut attached = BTreeSet::new();
    for (family_key, _) in family(view, space, Kind::Attachment)? {
        let id = key::lease_id(key::number_at(&family_key, 0)?);
        faults.unless(leases.contains_key(&id), || {
            format!("{space:?}: an attachment names no lease: {id}")
        });
        attached.insert((id, family_key.slice(8..)));
    }
    let mut said = BTreeSet::new();
    for (_, value) in family(view, space, Kind::Head)? {
        let pair: Pair = decode("a head", value)?;
        if pair.kv.lease != 0 {
            said.insert((pair.kv.lease, pair.kv.key));
        }
    }
    for (id, key) in attached.symmetric_difference(&said) {
        faults.add(format!(
            "{space:?}: key {key:?} and lease {id} disagree on their attachment"
        ));
    }
    Ok(())
}
