//! What is printed: one line a work and mode, the median of the repeats.

use hdrhistogram::Histogram;
use serde_json::{Value, json};
use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

/// Why a measurement did not come about.
pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;

/// One run of one work.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    pub(crate) events: u64,
    pub(crate) seconds: f64,
    /// From the call to the known durability, in nanoseconds.
    pub(crate) latency: Histogram<u64>,
}

impl Run {
    #[expect(clippy::cast_precision_loss, reason = "a rate need not be exact")]
    pub(crate) fn events_per_second(&self) -> f64 {
        self.events as f64 / self.seconds
    }
}

/// An empty histogram for latencies up to a minute, to three digits.
pub(crate) fn histogram() -> Histogram<u64> {
    Histogram::new_with_max(60_000_000_000, 3).expect("the bounds are valid")
}

/// Notes a latency.
pub(crate) fn note(latency: &mut Histogram<u64>, took: Duration) {
    latency.saturating_record(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
}

/// A quantile in microseconds.
#[expect(clippy::cast_precision_loss, reason = "printed to a tenth of a microsecond")]
pub(crate) fn microseconds(latency: &Histogram<u64>, quantile: f64) -> f64 {
    (latency.value_at_quantile(quantile) as f64 / 100.0).round() / 10.0
}

/// Prints the median run, by throughput, with the spread of all.
pub(crate) fn print(json: bool, work: &str, mode: &str, mut runs: Vec<Run>) {
    runs.sort_by(|a, b| a.events_per_second().total_cmp(&b.events_per_second()));
    let median = &runs[runs.len() / 2];
    let (least, most) = (runs[0].events_per_second(), runs[runs.len() - 1].events_per_second());
    let line = json!({
        "work": work, "mode": mode, "events_per_second": median.events_per_second().round(),
        "p50_us": microseconds(&median.latency, 0.5), "p99_us": microseconds(&median.latency, 0.99),
        "least": least.round(), "most": most.round(), "runs": runs.len(),
    });
    print_line(json, &line);
}

/// Prints what the disk does by itself.
pub(crate) fn print_disk(json: bool, depth: usize, bytes: usize, run: &Run) {
    let line = json!({
        "work": "disk", "depth": depth, "bytes": bytes, "writes_per_second": run.events_per_second().round(),
        "p50_us": microseconds(&run.latency, 0.5), "p99_us": microseconds(&run.latency, 0.99),
    });
    print_line(json, &line);
}

/// Prints an object: as it is, or as words.
pub(crate) fn print_line(json: bool, line: &Value) {
    // Whoever closed the pipe does not want more of it.
    let print = |line: &dyn std::fmt::Display| drop(writeln!(std::io::stdout().lock(), "{line}"));
    if json {
        return print(line);
    }
    let words: Vec<String> = line
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, value)| match value {
            Value::String(text) if name == "work" => format!("{text:20}"),
            Value::String(text) => text.clone(),
            value => format!("{name} {value}"),
        })
        .collect();
    print(&words.join("  "));
}

/// What every measurement takes.
#[derive(clap::Args, Debug)]
pub(crate) struct Common {
    /// One JSON object a line.
    #[arg(long)]
    pub(crate) json: bool,
    /// Where to put what is measured; its file system is measured, too.
    #[arg(long, default_value = ".")]
    pub(crate) dir: PathBuf,
}
