//! What comes next of a stream.

use futures_core::Stream;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;

/// The next one; `None`: nothing more comes.
pub(crate) async fn next<S: Stream + Unpin>(stream: &mut S) -> Option<S::Item> {
    poll_fn(|context| Pin::new(&mut *stream).poll_next(context)).await
}

/// What is there already, up to this many; waits for the first. Empty: nothing more comes.
pub(crate) async fn ready<S: Stream + Unpin>(stream: &mut S, most: usize) -> Vec<S::Item> {
    let mut found = Vec::new();
    poll_fn(|context| {
        while found.len() < most {
            match Pin::new(&mut *stream).poll_next(context) {
                Poll::Ready(Some(item)) => found.push(item),
                Poll::Ready(None) => return Poll::Ready(()),
                Poll::Pending if found.is_empty() => return Poll::Pending,
                Poll::Pending => return Poll::Ready(()),
            }
        }
        Poll::Ready(())
    })
    .await;
    found
}
