//! What is counted, for Prometheus: by the server itself, and by each of its open stores when it is asked.

use super::stores::Stores;
use annals::{AppendError, Appended, Histogram as StoreHistogram, Writes};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// A label and its value.
type Label = [(&'static str, &'static str); 1];

/// See the module.
#[derive(Debug)]
pub(super) struct Metrics {
    pub(super) connections: Gauge,
    pub(super) connections_accepted: Counter,
    pub(super) connections_refused: Counter,
    pub(super) requests: Family<Label, Counter>,
    pub(super) events_read: Counter,
    appends: [Counter; OUTCOMES.len()],
    events_appended: Counter,
    append_seconds: Histogram,
    registry: Registry,
}

/// What becomes of appends.
const OUTCOMES: [&str; 4] = ["appended", "repeated", "conflict", "failed"];
const APPENDED: usize = 0;
const REPEATED: usize = 1;
const CONFLICT: usize = 2;
const FAILED: usize = 3;

impl Metrics {
    pub(super) fn new(stores: &Arc<Stores>) -> Self {
        let mut registry = Registry::with_prefix("annals");
        let (connections, connections_accepted, connections_refused) =
            (Gauge::default(), Counter::default(), Counter::default());
        let (requests, events_read, events_appended) =
            (Family::<Label, Counter>::default(), Counter::default(), Counter::default());
        let outcomes = Family::<Label, Counter>::default();
        let appends = OUTCOMES.map(|outcome| outcomes.get_or_create(&[("outcome", outcome)]).clone());
        let append_seconds = Histogram::new(exponential_buckets(0.000_064, 2.0, 16));
        registry.register("connections", "Clients that are connected", connections.clone());
        registry.register("connections_accepted", "Connections that were made", connections_accepted.clone());
        registry.register(
            "connections_refused",
            "Connections that ended before their welcome: a wrong token or certificate, or no client at all",
            connections_refused.clone(),
        );
        registry.register("requests", "Requests other than appends, by kind", requests.clone());
        registry.register("appends", "Batches that clients sent, by what became of them", outcomes);
        registry.register("events_appended", "Events that became durable", events_appended.clone());
        registry.register("events_read", "Events that were sent to clients", events_read.clone());
        registry.register_with_unit(
            "append",
            "From the arrival of an append until its answer",
            Unit::Seconds,
            append_seconds.clone(),
        );
        registry.register_collector(Box::new(OfStores(Arc::clone(stores))));
        Self {
            connections,
            connections_accepted,
            connections_refused,
            requests,
            events_read,
            appends,
            events_appended,
            append_seconds,
            registry,
        }
    }

    /// An append is durable, and has its answer after so long.
    pub(super) fn appended(&self, appended: &Appended, took: Duration) {
        if appended.repeated {
            self.appends[REPEATED].inc();
        } else {
            self.appends[APPENDED].inc();
            self.events_appended.inc_by(appended.positions.end.get() - appended.positions.start.get());
        }
        self.append_seconds.observe(took.as_secs_f64());
    }

    /// An append was refused, after so long.
    pub(super) fn refused(&self, error: &AppendError, took: Duration) {
        let is_conflict = matches!(
            error,
            AppendError::WrongVersion { .. }
                | AppendError::QueryMatched { .. }
                | AppendError::WrongCursor { .. }
        );
        self.appends[if is_conflict { CONFLICT } else { FAILED }].inc();
        self.append_seconds.observe(took.as_secs_f64());
    }

    /// All of it as text, in the OpenMetrics format. It may wait: stores are asked.
    pub(super) fn text(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

/// What the stores know.
#[derive(Debug)]
struct OfStores(Arc<Stores>);

/// What is known of a store at one moment.
struct Seen {
    name: String,
    next_position: u64,
    is_poisoned: bool,
    writes: Writes,
}

impl Collector for OfStores {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let stores = self.0.all_open();
        let seen = stores.iter().map(|open| Seen {
            name: open.name.clone(),
            next_position: open.store.next_position().get(),
            is_poisoned: open.store.poison().is_some(),
            writes: open.store.writes(),
        });
        let seen: Vec<Seen> = seen.collect();
        type Value = fn(&Seen) -> u64;
        let each: [(_, _, _, Value); 5] = [
            ("store_groups", "Writes to the device", MetricType::Counter, |seen| seen.writes.groups),
            ("store_batches", "Batches in them", MetricType::Counter, |seen| seen.writes.batches),
            ("store_written_bytes", "Bytes of the log", MetricType::Counter, |seen| seen.writes.bytes),
            (
                "store_next_position",
                "Events in the store, as positions begin at 0",
                MetricType::Gauge,
                |seen| seen.next_position,
            ),
            (
                "store_poisoned",
                "1: a write failed, and the store takes appends no more",
                MetricType::Gauge,
                |seen| u64::from(seen.is_poisoned),
            ),
        ];
        for (name, help, kind, value) in each {
            numbers(&mut encoder, (name, help, kind), &seen, value)?;
        }
        let help = "Batches that one write to the device made durable";
        histograms(&mut encoder, "store_group_batches", help, None, &seen, |seen| {
            (&seen.writes.group_batches, 1.0)
        })?;
        let help = "How long one write to the device took until it was durable";
        histograms(&mut encoder, "store_group", help, Some(&Unit::Seconds), &seen, |seen| {
            (&seen.writes.group_nanoseconds, 1e9)
        })?;
        self.subscriptions(&mut encoder)
    }
}

impl OfStores {
    fn subscriptions(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let mut all = Vec::new();
        for open in self.0.all_open() {
            // Those that cannot be read now are told the next time.
            for status in open.store.subscriptions().unwrap_or_default() {
                let labels =
                    [("store", open.name.clone()), ("subscription", status.settings.name.to_string())];
                all.push((labels, status));
            }
        }
        let mut gauge = |name, help, value: &dyn Fn(&annals::SubscriptionStatus) -> u64| {
            let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            all.iter()
                .try_for_each(|(labels, status)| metric.encode_family(labels)?.encode_gauge(&value(status)))
        };
        gauge("subscription_lag", "Events of the log that were not looked at yet", &|status| status.lag)?;
        gauge("subscription_in_flight", "Events that members hold", &|status| status.in_flight.unwrap_or(0))?;
        gauge("subscription_parked", "Events that were set aside", &|status| status.parked)?;
        gauge("subscription_members", "Members", &|status| status.members.unwrap_or(0))?;
        gauge("subscription_stopped", "1: it hands out nothing", &|status| {
            u64::from(status.stopped.is_some())
        })
    }
}

/// One number of each store.
fn numbers(
    encoder: &mut DescriptorEncoder<'_>,
    (name, help, kind): (&str, &str, MetricType),
    seen: &[Seen],
    value: impl Fn(&Seen) -> u64,
) -> Result<(), fmt::Error> {
    let is_counter = matches!(kind, MetricType::Counter);
    let mut metric = encoder.encode_descriptor(name, help, None, kind)?;
    seen.iter().try_for_each(|seen| {
        let labels = [("store", seen.name.clone())];
        let mut metric = metric.encode_family(&labels)?;
        if is_counter {
            metric.encode_counter::<NoLabelSet, _, u64>(&value(seen), None)
        } else {
            metric.encode_gauge(&value(seen))
        }
    })
}

fn histograms<'s>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    unit: Option<&Unit>,
    seen: &'s [Seen],
    value: impl Fn(&'s Seen) -> (&'s StoreHistogram, f64),
) -> Result<(), fmt::Error> {
    let mut metric = encoder.encode_descriptor(name, help, unit, MetricType::Histogram)?;
    seen.iter().try_for_each(|seen| {
        let (histogram, scale) = value(seen);
        let labels = [("store", seen.name.clone())];
        histogram_of(&mut metric.encode_family(&labels)?, histogram, scale)
    })
}

#[expect(clippy::cast_precision_loss, reason = "a figure to look at")]
fn histogram_of(
    metric: &mut MetricEncoder<'_>,
    histogram: &StoreHistogram,
    scale: f64,
) -> Result<(), fmt::Error> {
    let bounds = histogram.bounds.iter().map(|bound| *bound as f64 / scale).chain([f64::INFINITY]);
    let buckets: Vec<(f64, u64)> = bounds.zip(histogram.counts.iter().copied()).collect();
    let count = histogram.counts.iter().sum();
    metric.encode_histogram::<NoLabelSet>(histogram.sum as f64 / scale, count, &buckets, None)
}
