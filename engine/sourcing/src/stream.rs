//! The next of a stream of events.

use futures_core::Stream;
use std::future::poll_fn;
use std::pin::Pin;

pub(crate) async fn next<S: Stream + Unpin>(stream: &mut S) -> Option<S::Item> {
    poll_fn(|context| Pin::new(&mut *stream).poll_next(context)).await
}
