//! Leases, on the machine's clock.

use types::limits;
use types::planted::{self, Planted};
use xxhash_rust::xxh3::xxh3_64;

use super::kv_write::{self, Write};
use super::{Context, Stop, refusal};
use crate::command::{LeaseExpire, LeaseGrant};
use crate::outcome::{Done, Empty, LeaseDone, Refusal, RefusalKind};
use crate::record::lease::{Deadline, Lease};
use crate::record::{Space, decode, encode, key};
use crate::view::ViewError;

/// The command.
pub(super) fn grant(context: &mut Context<'_>, space: Space, request: &LeaseGrant) -> Result<Done, Stop> {
    if request.ttl_s > limits::LEASE_TTL_MAX_S {
        return Err(refusal(RefusalKind::LeaseTtlTooLarge, "etcdserver: too large lease TTL").into());
    }
    let mut numbers = context.numbers(space)?.clone();
    kv_write::check_quota(&numbers, limits::LEASE_BYTES)?;
    let id = match request.id {
        0 => draw(context, space, &mut numbers.lease_draws)?,
        id if read(context, space, id)?.is_some() => {
            return Err(refusal(RefusalKind::LeaseExists, "etcdserver: lease already exists").into());
        }
        id => id,
    };
    let ttl_s = request.ttl_s.max(limits::LEASE_TTL_MIN_S);
    let lease = Lease {
        id,
        ttl_s,
        deadline_ms: deadline(context, ttl_s),
        generation: 1,
    };
    write(context, space, &lease)?;
    numbers.leases += 1;
    context.set_numbers(space, numbers);
    Ok(Done::Lease(LeaseDone { id, ttl_s }))
}

/// The command.
pub(super) fn revoke(context: &mut Context<'_>, space: Space, id: i64) -> Result<Done, Stop> {
    let lease = existing(context, space, id)?;
    end(context, space, &lease)?;
    Ok(Done::Empty(Empty {}))
}

/// The command. A lease past its deadline is over, though it is not ended yet: nobody can bring it back.
pub(super) fn keep_alive(context: &mut Context<'_>, space: Space, id: i64) -> Result<Done, Stop> {
    let old = existing(context, space, id)?;
    if old.deadline_ms <= context.clock_ms() {
        return Err(not_found().into());
    }
    let renewed = Lease {
        deadline_ms: deadline(context, old.ttl_s),
        generation: old.generation + 1,
        ..old
    };
    forget_deadline(context, space, &old)?;
    write(context, space, &renewed)?;
    Ok(Done::Lease(LeaseDone {
        id,
        ttl_s: renewed.ttl_s,
    }))
}

/// The command. Void if the lease was renewed or ended since.
pub(super) fn expire(context: &mut Context<'_>, space: Space, request: &LeaseExpire) -> Result<Done, Stop> {
    let lease = read(context, space, request.id)?;
    let due = lease
        .filter(|lease| lease.generation == request.generation && lease.deadline_ms <= context.clock_ms());
    if let Some(lease) = due {
        end(context, space, &lease)?;
    }
    Ok(Done::Empty(Empty {}))
}

fn deadline(context: &Context<'_>, ttl_s: i64) -> u64 {
    let second_ms = if planted::is(Planted::LeaseEarly) {
        500
    } else {
        1000
    };
    context
        .clock_ms()
        .saturating_add(ttl_s.unsigned_abs().saturating_mul(second_ms))
}

fn read(context: &Context<'_>, space: Space, id: i64) -> Result<Option<Lease>, ViewError> {
    context
        .overlay
        .read(&key::lease(space, id))?
        .map(|bytes| decode("a lease", bytes))
        .transpose()
}

fn existing(context: &Context<'_>, space: Space, id: i64) -> Result<Lease, Stop> {
    read(context, space, id)?.ok_or_else(|| not_found().into())
}

fn not_found() -> Refusal {
    refusal(
        RefusalKind::LeaseNotFound,
        "etcdserver: requested lease not found",
    )
}

/// A free id, from a counter that only grows, spread over the positive numbers as etcd's random ones are.
fn draw(context: &Context<'_>, space: Space, draws: &mut u64) -> Result<i64, ViewError> {
    loop {
        *draws += 1;
        let mut seed = key::single(space, key::Kind::Lease).to_vec();
        seed.extend_from_slice(&draws.to_be_bytes());
        let id = (xxh3_64(&seed) & i64::MAX as u64) as i64;
        if id != 0 && read(context, space, id)?.is_none() {
            return Ok(id);
        }
    }
}

fn write(context: &Context<'_>, space: Space, lease: &Lease) -> Result<(), ViewError> {
    context.overlay.put(key::lease(space, lease.id), encode(lease))?;
    let index = key::deadline(space, lease.deadline_ms, lease.id);
    context.overlay.insert(
        index,
        encode(&Deadline {
            generation: lease.generation,
        }),
    )
}

fn forget_deadline(context: &Context<'_>, space: Space, lease: &Lease) -> Result<(), ViewError> {
    let index = key::deadline(space, lease.deadline_ms, lease.id);
    context.overlay.remove_known(
        index,
        encode(&Deadline {
            generation: lease.generation,
        }),
    )
}

/// Deletes the attached keys in one revision, then the lease.
fn end(context: &mut Context<'_>, space: Space, lease: &Lease) -> Result<(), ViewError> {
    let keys = crate::record::lease::keys(&context.overlay, space, lease.id)?;
    let mut write = Write::begin(context, space)?;
    for key in keys {
        write.delete_attached(&key, lease.id)?;
    }
    let leases = write.numbers.leases.checked_sub(1);
    write.numbers.leases =
        leases.ok_or_else(|| ViewError::new(format!("leases of {space:?} were miscounted")))?;
    write.finish();
    forget_deadline(context, space, lease)?;
    context.overlay.remove(key::lease(space, lease.id))
}
