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

type Data = <Body as http_body::Body>::Data;

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

#[derive(Default)]
struct Lending {
    /// What was read so far; `None` once it is not needed any more.
    read: Option<VecDeque<Bytes>>,
    /// What was not read, once nobody reads any more.
    back: Option<Message>,
    was_read: bool,
}

/// Where a body comes back to.
#[derive(Clone, Default)]
pub(crate) struct Lender(Arc<Mutex<Lending>>);

impl Lender {
    /// Lends a body out.
    pub(crate) fn lend(&self, message: Message) -> Body {
        {
            let mut lending = self.lending();
            lending.read = Some(VecDeque::new());
            // One without content is sent without being read.
            lending.was_read = message.first.is_empty() && http_body::Body::is_end_stream(&message.rest);
        }
        Body::new(Lent {
            message: Some(message),
            lender: self.clone(),
        })
    }

    /// The other side answers: what it was sent is not kept any longer.
    pub(crate) fn taken(&self) {
        self.lending().read = None;
    }

    /// The whole body, if `error` says, or its being unread shows, that nothing was done with it.
    pub(crate) fn untouched(&self, error: &(dyn Error + 'static)) -> Option<Message> {
        let mut lending = self.lending();
        if lending.was_read && !refused_unseen(error) {
            return None;
        }
        let back = lending.back.take()?;
        let mut first = lending.read.take()?;
        first.extend(back.first);
        Some(Message {
            first,
            rest: back.rest,
        })
    }

    fn lending(&self) -> MutexGuard<'_, Lending> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the other side said that it did not look at the request: a server that stops names the last one it takes
/// (RFC 9113, 6.8), and one that is refused was not processed (8.7).
fn refused_unseen(error: &(dyn Error + 'static)) -> bool {
    std::iter::successors(Some(error), |error: &&(dyn Error + 'static)| (*error).source())
        .filter_map(|error| error.downcast_ref::<h2::Error>())
        .any(|error| {
            let leaving = error.is_go_away() && error.reason() == Some(Reason::NO_ERROR);
            let refused = error.is_reset() && error.reason() == Some(Reason::REFUSED_STREAM);
            error.is_remote() && (leaving || refused)
        })
}

struct Lent {
    message: Option<Message>,
    lender: Lender,
}

impl http_body::Body for Lent {
    type Data = Data;
    type Error = <Body as http_body::Body>::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let lender = self.lender.clone();
        let mut lending = lender.lending();
        lending.was_read = true;
        let Some(message) = &mut self.message else {
            return Poll::Ready(None);
        };
        let polled = match message.first.pop_front() {
            Some(data) => Poll::Ready(Some(Ok(Frame::data(data)))),
            None => Pin::new(&mut message.rest).poll_frame(cx),
        };
        if let (Poll::Ready(Some(Ok(frame))), Some(read)) = (&polled, &mut lending.read) {
            read.extend(frame.data_ref().cloned());
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.message
            .as_ref()
            .is_none_or(|message| message.first.is_empty() && message.rest.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        let Some(message) = &self.message else {
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

impl Drop for Lent {
    fn drop(&mut self) {
        self.lender.lending().back = self.message.take();
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

    /// As it comes back after it was lent out, read or not, and something broke.
    fn after(content: &'static str, read: bool) -> Option<Message> {
        let broken = std::io::Error::other("broken");
        let lender = Lender::default();
        let mut lent = lender.lend(Body::new(content.to_owned()).into());
        if read {
            read_all(&mut lent);
        }
        assert!(lender.untouched(&broken).is_none(), "it is still lent out");
        drop(lent);
        lender.untouched(&broken)
    }

    #[test]
    fn a_body_comes_back_if_nobody_read_it() {
        let back = after("a message", false).expect("nobody read it");
        assert_eq!(read_all(&mut Lender::default().lend(back)).concat(), b"a message");
        assert!(after("a message", true).is_none());
        assert!(after("", false).is_none());
    }

    #[test]
    fn a_body_begins_with_what_was_read_of_it_before() {
        let lender = Lender::default();
        let mut lent = lender.lend(Message {
            first: VecDeque::from([Bytes::from("one "), Bytes::from("two ")]),
            rest: Body::new("three".to_owned()),
        });
        let hint = http_body::Body::size_hint(&lent);
        assert_eq!(hint.exact(), Some(13));
        assert_eq!(read_all(&mut lent).concat(), b"one two three");
        let read = lender.lending().read.take();
        assert_eq!(read.map(|read| read.len()), Some(3));
    }
}
