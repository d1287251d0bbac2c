//! A progress bar for long rebuilds.

use crate::happening::Happening;
use annals_types::Position;
use indicatif::{ProgressBar, ProgressStyle};

/// Shows on a terminal how far a rebuild has come, of a log that has so many events; elsewhere nothing. Give it to
/// [`Projector::watch`](crate::Projector::watch).
///
/// # Panics
/// Never: the bar's template is right.
pub fn progress_bar(name: &str, next: Position) -> impl Fn(&Happening<'_>) + Send + Sync + 'static {
    let bar = ProgressBar::new(next.get());
    let style = ProgressStyle::with_template(
        "{msg} {wide_bar} {human_pos} of {human_len} events, {per_sec}, {eta} left",
    )
    .expect("the template is right");
    bar.set_style(style);
    bar.set_message(name.to_owned());
    move |happening| match happening {
        Happening::Started { after } => bar.set_position(after.map_or(0, |position| position.get() + 1)),
        Happening::Handled { last, .. } => bar.set_position(last.get() + 1),
        Happening::CaughtUp { .. } | Happening::Suspended { .. } => bar.finish_and_clear(),
        Happening::Parked { position, reason } => {
            bar.suspend(|| {
                eprintln!("{}: the event at position {position} is parked: {reason}", bar.message())
            });
        }
        _ => {}
    }
}
