//! What comes next of a stream.

use annals_types::Followed;
use futures_core::Stream;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;

/// Waits for the next of what a store gives: events that are read or followed. `None`: nothing more comes.
pub async fn next<S: Stream + Unpin>(stream: &mut S) -> Option<S::Item> {
    poll_fn(|context| Pin::new(&mut *stream).poll_next(context)).await
}

/// Bytes of events that are taken together, at most; one event may be larger by itself.
const BYTES_MAX: usize = 16 << 20;

/// What is there already, up to this many and 16 MiB; waits for the first. Empty: nothing more comes.
pub(crate) async fn ready<S, E>(stream: &mut S, most: usize) -> Vec<S::Item>
where
    S: Stream<Item = Result<Followed, E>> + Unpin,
{
    let mut found = Vec::new();
    let mut bytes = 0;
    poll_fn(|context| {
        while found.len() < most && bytes < BYTES_MAX {
            match Pin::new(&mut *stream).poll_next(context) {
                Poll::Ready(Some(item)) => {
                    if let Ok(Followed::Event(record)) = &item {
                        bytes += record.data().len() + record.metadata().len();
                    }
                    found.push(item);
                }
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
