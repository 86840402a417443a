//! A request's body that comes back. What nobody began to read left nothing behind, whatever went wrong; and what was
//! sent, and then refused before anything was done, can be sent again from its beginning.

use std::collections::VecDeque;
use std::error::Error;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use h2::Reason;
use http_body::{Frame, SizeHint};
use tonic::body::Body;
use tonic::codegen::Bytes;
use types::limits::REQUEST_BYTES;

/// Of what was read, at most so much is kept: the largest request, and what frames add to it.
const KEPT_BYTES: usize = REQUEST_BYTES + 64 * 1024;

/// A body, or what is left of one after its first parts.
pub(crate) struct Message {
    first: VecDeque<Bytes>,
    rest: Body,
}

impl From<Body> for Message {
    fn from(rest: Body) -> Message {
        let first = VecDeque::new();
        Message { first, rest }
    }
}

/// What was read of a body, to be sent again.
#[derive(Default)]
struct Read {
    parts: VecDeque<Bytes>,
    bytes: usize,
}

struct Lending {
    /// What was not read yet; `None` once it was taken back.
    message: Option<Message>,
    /// What was read so far; `None` once it cannot or need not be sent again.
    read: Option<Read>,
    /// Without content: it is sent without being read, so that being unread shows nothing.
    empty: bool,
    was_read: bool,
}

impl Lending {
    fn keep(&mut self, polled: &Poll<Option<Result<Frame<Bytes>, tonic::Status>>>) {
        let Poll::Ready(Some(frame)) = polled else { return };
        let data = frame.as_ref().ok().and_then(Frame::data_ref);
        self.read = match (self.read.take(), data) {
            (Some(mut read), Some(data)) if read.bytes + data.len() <= KEPT_BYTES => {
                read.bytes += data.len();
                read.parts.push_back(data.clone());
                Some(read)
            }
            _ => None,
        };
    }
}

/// Where a body comes back to.
#[derive(Clone)]
pub(crate) struct Lender(Arc<Mutex<Lending>>);

impl Lender {
    /// A body to lend out.
    pub(crate) fn new(message: Message) -> Lender {
        let empty = message.first.is_empty() && http_body::Body::is_end_stream(&message.rest);
        Lender(Arc::new(Mutex::new(Lending {
            message: Some(message),
            read: Some(Read::default()),
            empty,
            was_read: false,
        })))
    }

    /// Lends it out.
    pub(crate) fn lend(&self) -> Body {
        Body::new(Lent(self.clone()))
    }

    /// The other side answers: what it was sent is not kept any longer.
    pub(crate) fn taken(&self) {
        self.lending().read = None;
    }

    /// Takes the whole body back, if `error` says, or its being unread shows, that nothing was done with it. Whoever still
    /// reads it is told so.
    pub(crate) fn untouched(&self, error: &(dyn Error + 'static)) -> Option<Message> {
        let mut lending = self.lending();
        if lending.empty || (lending.was_read && !refused_unseen(error)) {
            return None;
        }
        let mut first = lending.read.take()?.parts;
        let left = lending.message.take()?;
        first.extend(left.first);
        Some(Message {
            first,
            rest: left.rest,
        })
    }

    fn lending(&self) -> MutexGuard<'_, Lending> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the other side said that it did not look at the request: a server that stops names the last one it takes
/// (RFC 9113, 6.8), and one that is refused was not processed (8.7). h2 gives this error to later requests alone, and to
/// one that is just being begun, whose content is not on its way yet.
fn refused_unseen(error: &(dyn Error + 'static)) -> bool {
    std::iter::successors(Some(error), |error: &&(dyn Error + 'static)| (*error).source())
        .filter_map(|error| error.downcast_ref::<h2::Error>())
        .any(|error| {
            let leaving = error.is_go_away() && error.reason() == Some(Reason::NO_ERROR);
            let refused = error.is_reset() && error.reason() == Some(Reason::REFUSED_STREAM);
            error.is_remote() && (leaving || refused)
        })
}

struct Lent(Lender);

impl http_body::Body for Lent {
    type Data = Bytes;
    type Error = tonic::Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, tonic::Status>>> {
        let mut lending = self.0.lending();
        lending.was_read = true;
        let Some(message) = &mut lending.message else {
            return Poll::Ready(Some(Err(tonic::Status::cancelled("sent elsewhere"))));
        };
        let polled = match message.first.pop_front() {
            Some(data) => Poll::Ready(Some(Ok(Frame::data(data)))),
            None => Pin::new(&mut message.rest).poll_frame(cx),
        };
        lending.keep(&polled);
        polled
    }

    fn is_end_stream(&self) -> bool {
        let lending = self.0.lending();
        let message = lending.message.as_ref();
        message.is_some_and(|message| message.first.is_empty() && message.rest.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        let lending = self.0.lending();
        let Some(message) = &lending.message else {
            return SizeHint::default();
        };
        let first: usize = message.first.iter().map(Bytes::len).sum();
        let rest = message.rest.size_hint();
        let mut hint = SizeHint::default();
        hint.set_lower(rest.lower() + first as u64);
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper + first as u64);
        }
        hint
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_all(body: &mut Body) -> Vec<Bytes> {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let mut parts = Vec::new();
        while let Poll::Ready(Some(frame)) = http_body::Body::poll_frame(Pin::new(body), &mut cx) {
            parts.push(frame.expect("no error").into_data().expect("data"));
        }
        parts
    }

    fn broken() -> std::io::Error {
        std::io::Error::other("broken")
    }

    fn lender(content: &'static str) -> Lender {
        Lender::new(Body::new(content.to_owned()).into())
    }

    #[test]
    fn a_body_comes_back_if_nobody_read_it() {
        let unread = lender("a message");
        let mut lent = unread.lend();
        let back = unread.untouched(&broken()).expect("nobody read it");
        let mut again = Lender::new(back).lend();
        assert_eq!(read_all(&mut again).concat(), b"a message");
        // Whoever had it and is slow to let go does not take its end for the end of the message.
        assert!(!http_body::Body::is_end_stream(&lent));
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let late = http_body::Body::poll_frame(Pin::new(&mut lent), &mut cx);
        assert!(matches!(late, Poll::Ready(Some(Err(_)))));

        let read = lender("a message");
        read_all(&mut read.lend());
        assert!(read.untouched(&broken()).is_none());
        let empty = lender("");
        drop(empty.lend());
        assert!(empty.untouched(&broken()).is_none());
    }

    #[test]
    fn a_body_begins_with_what_was_read_of_it_before() {
        let lender = Lender::new(Message {
            first: VecDeque::from([Bytes::from("one "), Bytes::from("two ")]),
            rest: Body::new("three".to_owned()),
        });
        let mut lent = lender.lend();
        assert_eq!(http_body::Body::size_hint(&lent).exact(), Some(13));
        assert_eq!(read_all(&mut lent).concat(), b"one two three");
        let read = lender.lending().read.take().expect("it is kept");
        assert_eq!((read.parts.len(), read.bytes), (3, 13));
    }

    #[test]
    fn what_is_too_large_is_not_kept() {
        let lender = Lender::new(Message {
            first: VecDeque::from([Bytes::from(vec![0; KEPT_BYTES]), Bytes::from("more")]),
            rest: Body::empty(),
        });
        read_all(&mut lender.lend());
        assert!(lender.lending().read.is_none());
    }
}
