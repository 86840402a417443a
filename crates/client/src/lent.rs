//! A request's body that comes back unless somebody began to read it. A call is not done before its message is there, so
//! whatever went wrong before that left nothing behind, and the request may be sent elsewhere.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use http_body::{Frame, SizeHint};
use tonic::body::Body;

/// Where an unread body comes back to.
#[derive(Clone, Default)]
pub(crate) struct Lender(Arc<Mutex<Option<Body>>>);

impl Lender {
    /// Lends a body out.
    pub(crate) fn lend(&self, body: Body) -> Body {
        // One without content is sent without being read.
        let empty = http_body::Body::is_end_stream(&body);
        Body::new(Lent {
            body: Some(body),
            was_read: empty,
            lender: self.clone(),
        })
    }

    /// The body, if it came back.
    pub(crate) fn unread(&self) -> Option<Body> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

struct Lent {
    body: Option<Body>,
    was_read: bool,
    lender: Lender,
}

impl http_body::Body for Lent {
    type Data = <Body as http_body::Body>::Data;
    type Error = <Body as http_body::Body>::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        self.was_read = true;
        match &mut self.body {
            Some(body) => Pin::new(body).poll_frame(cx),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(http_body::Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body
            .as_ref()
            .map_or_else(SizeHint::default, http_body::Body::size_hint)
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if !self.was_read {
            *self.lender.0.lock().unwrap_or_else(PoisonError::into_inner) = self.body.take();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(content: &'static str, read: bool, comes_back: bool) {
        let lender = Lender::default();
        let mut lent = lender.lend(Body::new(content.to_owned()));
        if read {
            let mut cx = Context::from_waker(std::task::Waker::noop());
            assert!(http_body::Body::poll_frame(Pin::new(&mut lent), &mut cx).is_ready());
        }
        assert!(lender.unread().is_none(), "it is still lent out");
        drop(lent);
        assert_eq!(lender.unread().is_some(), comes_back, "{content:?}, read: {read}");
    }

    #[test]
    fn a_body_comes_back_if_nobody_read_it() {
        check("a message", false, true);
        check("a message", true, false);
        check("", false, false);
    }
}
