//! A progress bar on standard error, on a terminal only, and only for work that takes a while.

use crate::clock::Stopwatch;
use indicatif::{ProgressBar, ProgressStyle};
use std::io::IsTerminal;
use std::time::Duration;

/// Work shorter than this shows no bar.
const PATIENCE: Duration = Duration::from_secs(1);

/// How far some work has come. Costs nothing where standard error is no terminal.
#[derive(Debug)]
pub(crate) struct Progress {
    started: Stopwatch,
    unit: Unit,
    wanted: bool,
    bar: Option<ProgressBar>,
}

/// What is counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Unit {
    /// Bytes of a file.
    Bytes,
    /// Events of a store.
    Events,
}

impl Progress {
    /// Starts with nothing done.
    pub(crate) fn start(unit: Unit) -> Self {
        Self { started: Stopwatch::start(), unit, wanted: std::io::stderr().is_terminal(), bar: None }
    }

    /// Shows that `done` of `total` is done; of an unknown total where that is `None`.
    pub(crate) fn show(&mut self, done: u64, total: Option<u64>) {
        if !self.wanted || (self.bar.is_none() && self.started.elapsed() < PATIENCE) {
            return;
        }
        let unit = self.unit;
        let bar = self.bar.get_or_insert_with(|| begin(unit, total));
        if let Some(total) = total {
            bar.set_length(total);
        }
        bar.set_position(done);
    }

    /// Removes the bar, so that what is printed next stands alone.
    pub(crate) fn clear(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
        self.wanted = false;
    }
}

fn begin(unit: Unit, total: Option<u64>) -> ProgressBar {
    let template = match (unit, total) {
        (Unit::Bytes, Some(_)) => "{bar:40} {bytes}/{total_bytes} {bytes_per_sec} {eta}",
        (Unit::Bytes, None) => "{spinner} {bytes} {bytes_per_sec}",
        (Unit::Events, Some(_)) => "{bar:40} {pos}/{len} events {eta}",
        (Unit::Events, None) => "{spinner} {pos} events {per_sec}",
    };
    let bar = total.map_or_else(ProgressBar::new_spinner, ProgressBar::new);
    bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_template_is_valid() {
        for unit in [Unit::Bytes, Unit::Events] {
            for total in [None, Some(10)] {
                begin(unit, total).finish_and_clear();
            }
        }
    }
}
