//! Sessions: a command with `client_id` and `seq` is executed once; a retry gets the first answer.

use types::limits;

use super::{Context, Stop, refusal, refusal_at};
use crate::command::{Body, Command, SessionExpire};
use crate::outcome::{Done, Empty, Refusal, RefusalKind, Reply, StepDone};
use crate::record::key::{self, Kind};
use crate::record::session::{self as records, IDLE_UNIT_MS, Session, WINDOW};
use crate::record::{Space, decode, encode};
use crate::view::{ApplyError, ViewError};

/// Sessions ended by one command.
const EXPIRED_PER_COMMAND: usize = 256;

/// Executes `command` by `execute`, unless its session knows the answer or cannot know it any more.
pub(super) fn run<'v>(
    context: &mut Context<'v>,
    space: Space,
    command: &Command,
    execute: impl FnOnce(&mut Context<'v>) -> Result<Reply, ApplyError>,
) -> Result<Reply, ApplyError> {
    let about_sessions = matches!(command.body, Some(Body::SessionOpen(_) | Body::SessionExpire(_)));
    if command.client_id == 0 || about_sessions {
        return execute(context);
    }
    let (client_id, seq) = (command.client_id, command.seq);
    let key = key::number(space, Kind::Session, client_id);
    let Some(bytes) = context.overlay.read(&key)? else {
        let text = format!("session {client_id} is unknown or has expired");
        return refused(context, space, refusal(RefusalKind::SessionExpired, text));
    };
    let session: Session = decode("a session", bytes)?;
    if seq == 0 {
        return refused(context, space, refusal(RefusalKind::Invalid, "seq begins at 1"));
    }
    if seq.saturating_add(WINDOW) <= session.last_seq {
        let text = format!(
            "session {client_id} is at seq {}, {seq} is too late",
            session.last_seq
        );
        let last = session.last_seq.min(i64::MAX as u64) as i64;
        return refused(
            context,
            space,
            refusal_at(RefusalKind::SessionExpired, text, last),
        );
    }
    if let Some(bytes) = context
        .overlay
        .read(&key::numbers(space, Kind::SessionReply, client_id, seq))?
    {
        touch(context, space, client_id, session, session.last_seq)?;
        return Ok(decode("a session's reply", bytes)?);
    }
    let reply = execute(context)?;
    context.overlay.insert(
        key::numbers(space, Kind::SessionReply, client_id, seq),
        encode(&reply),
    )?;
    touch(context, space, client_id, session, seq.max(session.last_seq))?;
    Ok(reply)
}

fn refused(context: &mut Context<'_>, space: Space, refusal: Refusal) -> Result<Reply, ApplyError> {
    let revision = if space.is_key_space() {
        context.numbers(space)?.revision
    } else {
        0
    };
    Ok(Reply {
        revision,
        done: Some(Done::Refused(refusal)),
    })
}

/// Moves a session to `last_seq` and now; replies that leave the window go.
fn touch(
    context: &Context<'_>,
    space: Space,
    client_id: u64,
    old: Session,
    last_seq: u64,
) -> Result<(), ViewError> {
    let kept_from = |last: u64| last.saturating_sub(WINDOW - 1);
    let gone = kept_from(old.last_seq)..kept_from(last_seq).min(old.last_seq.saturating_add(1));
    for seq in gone {
        context
            .overlay
            .remove(key::numbers(space, Kind::SessionReply, client_id, seq))?;
    }
    let used_ms = context.clock_ms();
    let new = Session {
        last_seq,
        used_ms,
        idle_unit: used_ms / IDLE_UNIT_MS,
    };
    if new.idle_unit != old.idle_unit {
        let index = key::numbers(space, Kind::SessionIdle, old.idle_unit, client_id);
        context.overlay.remove_known(index, bytes::Bytes::new())?;
        let index = key::numbers(space, Kind::SessionIdle, new.idle_unit, client_id);
        context.overlay.insert(index, bytes::Bytes::new())?;
    }
    context
        .overlay
        .put(key::number(space, Kind::Session, client_id), encode(&new))
}

/// The command. Opening an open session changes nothing, so that it can be retried.
pub(super) fn open(context: &mut Context<'_>, space: Space, client_id: u64) -> Result<Done, Stop> {
    if client_id == 0 {
        return Err(refusal(RefusalKind::Invalid, "a session needs a client_id").into());
    }
    let key = key::number(space, Kind::Session, client_id);
    if let Some(bytes) = context.overlay.read(&key)? {
        let session: Session = decode("a session", bytes)?;
        touch(context, space, client_id, session, session.last_seq)?;
        return Ok(Done::Empty(Empty {}));
    }
    if context.state.sessions >= limits::SESSIONS as u64 {
        let text = format!("the partition has {} sessions, the limit", limits::SESSIONS);
        return Err(refusal(RefusalKind::LimitReached, text).into());
    }
    let used_ms = context.clock_ms();
    let session = Session {
        last_seq: 0,
        used_ms,
        idle_unit: used_ms / IDLE_UNIT_MS,
    };
    context.overlay.insert(key, encode(&session))?;
    let index = key::numbers(space, Kind::SessionIdle, session.idle_unit, client_id);
    context.overlay.insert(index, bytes::Bytes::new())?;
    context.state.sessions += 1;
    Ok(Done::Empty(Empty {}))
}

/// The command: ends some of the sessions of this space that were silent; `remaining` says whether to repeat it.
pub(super) fn expire(context: &mut Context<'_>, space: Space, request: &SessionExpire) -> Result<Done, Stop> {
    let since_ms = request.silent_since_ms.min(context.clock_ms());
    let silent = records::silent_in(&context.overlay, space, since_ms, EXPIRED_PER_COMMAND + 1)?;
    let remaining = silent.len() > EXPIRED_PER_COMMAND;
    let mut removed = 0;
    for client_id in silent.into_iter().take(EXPIRED_PER_COMMAND) {
        end(context, space, client_id)?;
        removed += 1;
    }
    Ok(Done::Step(StepDone { remaining, removed }))
}

fn end(context: &mut Context<'_>, space: Space, client_id: u64) -> Result<(), ViewError> {
    let key = key::number(space, Kind::Session, client_id);
    let Some(bytes) = context.overlay.read(&key)? else {
        return Err(ViewError::new(format!(
            "session {client_id} is indexed and missing"
        )));
    };
    let session: Session = decode("a session", bytes)?;
    for seq in session.last_seq.saturating_sub(WINDOW - 1)..=session.last_seq {
        context
            .overlay
            .remove(key::numbers(space, Kind::SessionReply, client_id, seq))?;
    }
    let index = key::numbers(space, Kind::SessionIdle, session.idle_unit, client_id);
    context.overlay.remove_known(index, bytes::Bytes::new())?;
    context.overlay.remove(key)?;
    let left = context.state.sessions.checked_sub(1);
    context.state.sessions = left.ok_or_else(|| ViewError::new("sessions were miscounted"))?;
    Ok(())
}
