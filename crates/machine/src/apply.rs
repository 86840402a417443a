//! Applies one batch: each command in order, on an overlay; then the changes, the new clock and the new hash.

use std::collections::{BTreeMap, btree_map};

use types::limits;

use crate::command::{BATCH_FORMAT, Batch, Body, Command};
use crate::outcome::{Done, Effect, Empty, Events, Outcome, Refusal, RefusalKind, Reply, Stamp};
use crate::overlay::Overlay;
use crate::record::key::{self, Kind};
use crate::record::kv::{self, Namespace, Sample};
use crate::record::state::{self, State};
use crate::record::{Space, encode};
use crate::view::{ApplyError, View, ViewError};

mod compact;
mod kv_write;
mod lease;
mod meta;
mod namespace;
pub(crate) mod range;
mod session;
pub(crate) mod txn;

/// Why a command ends early.
#[derive(Debug)]
pub(crate) enum Stop {
    /// A reply like any other; nothing was changed.
    Refused(Refusal),
    /// The batch cannot be applied here.
    Failed(ApplyError),
}

impl From<ViewError> for Stop {
    fn from(error: ViewError) -> Stop {
        Stop::Failed(error.into())
    }
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Stop {
        Stop::Refused(refusal)
    }
}

/// A refusal without a number.
pub(crate) fn refusal(kind: RefusalKind, text: impl Into<String>) -> Refusal {
    refusal_at(kind, text, 0)
}

/// A refusal with the number its kind speaks of.
pub(crate) fn refusal_at(kind: RefusalKind, text: impl Into<String>, detail: i64) -> Refusal {
    Refusal {
        kind: kind as i32,
        text: text.into(),
        detail,
    }
}

struct Numbers {
    now: Namespace,
    changed: bool,
    revised: bool,
}

/// What the commands of a batch share.
pub(crate) struct Context<'v> {
    /// The records, changes so far included.
    pub overlay: Overlay<'v>,
    /// Clock, position, session count.
    pub state: State,
    numbers: BTreeMap<Space, Numbers>,
    events: Vec<Events>,
    effects: Vec<Effect>,
}

impl<'v> Context<'v> {
    pub fn new(view: &'v dyn View) -> Result<Context<'v>, ViewError> {
        Ok(Context {
            overlay: Overlay::new(view),
            state: state::read(view)?,
            numbers: BTreeMap::new(),
            events: Vec::new(),
            effects: Vec::new(),
        })
    }

    /// The machine's clock.
    pub fn clock_ms(&self) -> u64 {
        self.state.clock_ms
    }

    /// A key space's numbers; [`Context::set_numbers`] makes a change of a copy count.
    pub fn numbers(&mut self, space: Space) -> Result<&Namespace, ViewError> {
        let numbers = match self.numbers.entry(space) {
            btree_map::Entry::Occupied(known) => known.into_mut(),
            btree_map::Entry::Vacant(place) => {
                let now = match self.overlay.read(&key::single(space, Kind::Namespace))? {
                    Some(bytes) => crate::record::decode("a namespace record", bytes)?,
                    None => Namespace::unused(),
                };
                place.insert(Numbers {
                    now,
                    changed: false,
                    revised: false,
                })
            }
        };
        Ok(&numbers.now)
    }

    /// Replaces a key space's numbers.
    pub fn set_numbers(&mut self, space: Space, now: Namespace) {
        let (mut changed, mut revised) = (true, true);
        if let Some(before) = self.numbers.get(&space) {
            let old = &before.now;
            let falls = old.revision > now.revision || old.compact_revision > now.compact_revision;
            assert!(!falls, "revisions only grow, here from {old:?} to {now:?}");
            changed = before.changed || *old != now;
            revised = before.revised || old.revision != now.revision;
        }
        assert!(
            now.compact_revision <= now.revision,
            "compacted past the current revision: {now:?}"
        );
        self.numbers.insert(
            space,
            Numbers {
                now,
                changed,
                revised,
            },
        );
    }

    pub fn push_events(&mut self, events: Events) {
        self.events.push(events);
    }

    pub fn push_effect(&mut self, effect: Effect) {
        if !self.effects.contains(&effect) {
            self.effects.push(effect);
        }
    }

    fn finish(mut self, replies: Vec<Reply>) -> Result<Outcome, ViewError> {
        for (space, numbers) in std::mem::take(&mut self.numbers) {
            if numbers.changed {
                let mut now = numbers.now;
                if numbers.revised {
                    self.sample(space, &mut now)?;
                }
                self.overlay
                    .put(key::single(space, Kind::Namespace), encode(&now))?;
            }
        }
        let (mut changes, sum) = self.overlay.finish(self.state.sum());
        self.state.set_sum(sum);
        changes.push(crate::Change {
            key: state::state_key(),
            value: Some(encode(&self.state)),
        });
        Ok(Outcome {
            changes,
            replies,
            events: self.events,
            effects: self.effects,
        })
    }

    /// Notes which revision is current now, for compaction by age; bounded in number.
    fn sample(&self, space: Space, numbers: &mut Namespace) -> Result<(), ViewError> {
        let apart_ms = (numbers.retain_ms() / (kv::SAMPLES as u64 / 2)).max(1000);
        let clock_ms = self.state.clock_ms.max(1);
        if numbers.sampled_ms != 0 && clock_ms < numbers.sampled_ms.saturating_add(apart_ms) {
            return Ok(());
        }
        let mut samples = kv::samples(&self.overlay, space)?;
        samples
            .samples
            .retain(|sample| sample.revision > numbers.compact_revision);
        if samples.samples.len() >= kv::SAMPLES {
            let mut keep = false;
            samples.samples.retain(|_| {
                keep = !keep;
                keep
            });
        }
        samples.samples.push(Sample {
            clock_ms,
            revision: numbers.revision,
        });
        numbers.sampled_ms = clock_ms;
        self.overlay
            .put(key::single(space, Kind::Samples), kv::encode_samples(&samples))
    }
}

/// Applies `batch` to `view`. See the crate's documentation.
pub fn apply(view: &dyn View, stamp: Stamp, batch: &Batch) -> Result<Outcome, ApplyError> {
    if batch.format > BATCH_FORMAT {
        let text = format!(
            "batch format {} at log index {}, newest known {BATCH_FORMAT}",
            batch.format, stamp.index
        );
        return Err(ApplyError::Unsupported(text));
    }
    let mut context = Context::new(view)?;
    let state = &mut context.state;
    if state.format > BATCH_FORMAT {
        let text = format!("state of format {}, newest known {BATCH_FORMAT}", state.format);
        return Err(ApplyError::Unsupported(text));
    }
    state.format = state.format.max(batch.format);
    state.clock_ms = state.clock_ms.max(batch.clock_ms);
    state.wall_ms = batch.wall_ms;
    state.term = stamp.term;
    state.index = stamp.index;
    let mut replies = Vec::with_capacity(batch.commands.len());
    for command in &batch.commands {
        replies.push(reply(&mut context, stamp, command)?);
    }
    Ok(context.finish(replies)?)
}

/// One command: its session first, then what it asks.
fn reply(context: &mut Context<'_>, stamp: Stamp, command: &Command) -> Result<Reply, ApplyError> {
    let Some(body) = &command.body else {
        return Err(ApplyError::Unsupported(format!(
            "a command of unknown kind at log index {}",
            stamp.index
        )));
    };
    if let Body::Meta(meta) = body
        && meta.change.is_none()
    {
        return Err(ApplyError::Unsupported(format!(
            "a meta command of unknown kind at log index {}",
            stamp.index
        )));
    }
    let Some(space) = Space::from_wire(command.slot, command.namespace) else {
        let text = format!(
            "there is no slot {} with namespace {}",
            command.slot, command.namespace
        );
        return Ok(Reply {
            revision: 0,
            done: Some(Done::Refused(refusal(RefusalKind::Invalid, text))),
        });
    };
    let outcome = session::run(context, space, command, |context| {
        let done = settle(dispatch(context, space, command.client_id, body))?;
        let revision = match body {
            Body::Meta(_) => meta::map_revision(context)?,
            _ => revision(context, space)?,
        };
        Ok(Reply {
            revision,
            done: Some(done),
        })
    })?;
    Ok(outcome)
}

/// The revision of a key space; 0 of what is none.
fn revision(context: &mut Context<'_>, space: Space) -> Result<i64, ViewError> {
    if space.is_key_space() {
        Ok(context.numbers(space)?.revision)
    } else {
        Ok(0)
    }
}

/// A refusal is a reply; everything else that stops a command stops the batch.
fn settle(result: Result<Done, Stop>) -> Result<Done, ApplyError> {
    match result {
        Ok(done) => Ok(done),
        Err(Stop::Refused(refusal)) => Ok(Done::Refused(refusal)),
        Err(Stop::Failed(error)) => Err(error),
    }
}

fn dispatch(context: &mut Context<'_>, space: Space, client_id: u64, body: &Body) -> Result<Done, Stop> {
    let partition_wide = matches!(
        body,
        Body::Tick(_) | Body::SessionOpen(_) | Body::SessionExpire(_) | Body::Meta(_)
    );
    if !partition_wide && !space.is_key_space() {
        let text = format!(
            "slot {} and namespace {} are no key space",
            space.slot, space.namespace
        );
        return Err(refusal(RefusalKind::Invalid, text).into());
    }
    match body {
        Body::Put(request) => kv_write::put(context, space, request),
        Body::DeleteRange(request) => kv_write::delete_range(context, space, request),
        Body::Txn(request) => txn::txn(context, space, request).map(Done::Txn),
        Body::Compact(request) => compact::compact(context, space, request),
        Body::CompactStep(request) => {
            let records = match request.records as usize {
                0 => limits::COMPACT_STEP_RECORDS,
                records => records.min(limits::COMPACT_STEP_RECORDS),
            };
            compact::step(context, space, records)
        }
        Body::LeaseGrant(request) => lease::grant(context, space, request),
        Body::LeaseRevoke(request) => lease::revoke(context, space, request.id),
        Body::LeaseKeepAlive(request) => lease::keep_alive(context, space, request.id),
        Body::LeaseExpire(request) => lease::expire(context, space, request),
        Body::NamespaceConfigure(settings) => namespace::configure(context, space, settings),
        Body::Tick(_) => Ok(Done::Empty(Empty {})),
        Body::SessionOpen(_) => session::open(context, space, client_id),
        Body::SessionExpire(request) => session::expire(context, space, request),
        Body::Meta(command) => meta::meta(context, command),
    }
}

#[cfg(test)]
mod tests;
