//! Properties of a whole view, checked by tests, the simulator and `holdfast` tools. Each returns the faults it
//! found as sentences; none means the records agree.

use crate::record::state;
use crate::view::{View, ViewError};

mod keys;
mod leases;
mod map;
mod sessions;

/// Checks everything; at most a few hundred faults are listed.
pub fn check(view: &dyn View) -> Result<Vec<String>, ViewError> {
    let mut faults = Faults::default();
    let state = state::read(view)?;
    let sum = state::recompute(view)?;
    if sum != state.sum() {
        faults.add(format!(
            "the state hash is {:032x}, the records give {sum:032x}",
            state.sum()
        ));
    }
    let mut sessions = sessions::check(view, crate::record::Space::PARTITION, &mut faults)?;
    for space in state::namespaces_in(view)? {
        keys::check(view, space, &mut faults)?;
        leases::check(view, space, &mut faults)?;
        sessions += sessions::check(view, space, &mut faults)?;
    }
    if sessions != state.sessions {
        faults.add(format!(
            "{} sessions are counted, {sessions} are there",
            state.sessions
        ));
    }
    map::check(view, &mut faults)?;
    Ok(faults.0)
}

/// Faults found so far, bounded.
#[derive(Default)]
struct Faults(Vec<String>);

impl Faults {
    fn add(&mut self, fault: String) {
        const MOST: usize = 300;
        if self.0.len() < MOST {
            self.0.push(fault);
        }
    }

    fn unless(&mut self, holds: bool, fault: impl FnOnce() -> String) {
        if !holds {
            self.add(fault());
        }
    }
}

/// All records of a family, as (family key, value).
fn family(
    view: &dyn View,
    space: crate::record::Space,
    kind: crate::record::key::Kind,
) -> Result<Vec<(bytes::Bytes, bytes::Bytes)>, ViewError> {
    use crate::record::key;
    let (from, to) = key::family(space, kind);
    let mut records = Vec::new();
    view.scan(&from, &to, false, &mut |key, value| {
        let family_key = bytes::Bytes::copy_from_slice(&key[key::PREFIX_BYTES..]);
        records.push((family_key, bytes::Bytes::copy_from_slice(value)));
        std::ops::ControlFlow::Continue(())
    })?;
    Ok(records)
}

#[cfg(test)]
mod tests;
