//! Durable subscriptions, by the document.

use super::Reader;
use crate::format_tables::number;
use annals::{Member, Nack, NewSubscription, Position, QueryItem, Read, Start, Store, Uuid};
use std::path::Path;
use std::time::Duration;

const CORRELATION: Uuid = Uuid::from_u128(77);

/// A subscription with everything that one can have.
pub(super) fn write_subscriptions(dir: &Path) {
    let store = Store::open(dir).unwrap();
    let item = QueryItem::new().of_type("A").of_type("Bö").tag("t").stream("s").category("c");
    let full = NewSubscription::new("full")
        .stream("large")
        .query(annals::Query::from(item.correlation(CORRELATION)).or(QueryItem::new().tag("other")))
        .start(Start::After(Position::new(3).into()))
        .shared()
        .in_flight_max(7)
        .handling_timeout(Duration::from_millis(1_500))
        .retries(2, Duration::from_millis(30), Duration::from_millis(70));
    store.create_subscription(&full).unwrap();
    store.delete_subscription("full").unwrap();
    let used = NewSubscription::new("used").retries(9, Duration::ZERO, Duration::from_secs(9));
    store.create_subscription(&used.order(annals::DeliveryOrder::Unordered)).unwrap();
    let mut member = store.join("used").unwrap();
    let take = |member: &mut Member| member.next_within(Duration::ZERO).unwrap().unwrap().id;
    let ids: Vec<_> = (0..4).map(|_| take(&mut member)).collect();
    member.nack(ids[1], &Nack::retry("again")).unwrap();
    member.nack(ids[0], &Nack::park("wrong, später")).unwrap();
    member.ack(ids[2]).unwrap();
    store.stop_subscription("used", "stopped, später").unwrap();
    store.replay_parked("used", &Position::ZERO.into()).unwrap();
    store.close().unwrap();
}

impl Reader<'_> {
    /// The subscriptions of the store in a directory of its own.
    pub(super) fn check_subscriptions(&self, dir: &Path) {
        let side = Store::open_read_only(dir).unwrap();
        let read =
            |name: &str| -> Vec<_> { side.read(Read::stream(name)).unwrap().map(Result::unwrap).collect() };
        let full = read("full");
        let types: Vec<&str> = full.iter().map(annals::Record::event_type).collect();
        assert_eq!(types, ["Created", "Progress", "Deleted"]);
        self.check_created(full[0].data());
        assert_eq!((self.format.number("progress", "next", full[1].data()), full[2].data()), (4, &[][..]));

        let used = read("used");
        let last = |event_type: &str| {
            used.iter()
                .rfind(|record| record.event_type() == event_type)
                .unwrap_or_else(|| panic!("no {event_type}"))
                .data()
        };
        let parked = last("Parked");
        let of = |table, field, bytes| self.format.number(table, field, bytes);
        assert_eq!((of("parked", "position", parked), of("parked", "failures", parked)), (0, 1));
        assert!(of("parked", "time", parked) > 1_700_000_000_000_000_000);
        assert_eq!(&parked[28..], "wrong, später".as_bytes());
        assert_eq!(last("Unparked"), 0_u64.to_le_bytes());
        // The last one but for the one that replays: stopped, with three that are open.
        let progress = last("Progress");
        assert_eq!((of("progress", "next", progress), of("progress", "start", progress)), (4, 0));
        assert_eq!((of("progress", "stopped", progress), of("progress", "open", progress)), (1, 3));
        let (reason, open) = progress[self.format.start("progress", "reason")..].split_at(self.format.size(
            "progress",
            "reason length",
            progress,
        ));
        assert_eq!(reason, "stopped, später".as_bytes());
        let open: Vec<_> = open
            .chunks(20)
            .map(|one| (of("open", "position", one), of("open", "lane", one), of("open", "failures", one)))
            .collect();
        let seed = number(&self.store[..8]);
        let lane = |position: usize| {
            twox_hash::XxHash3_64::oneshot_with_seed(seed, self.events[position].stream.as_bytes())
        };
        assert_eq!(open, [(0, lane(0), 0), (1, lane(1), 1), (3, lane(3), 0)]);
    }

    fn check_created(&self, bytes: &[u8]) {
        let of = |field| self.format.number("created", field, bytes);
        let kinds = ["start", "of", "membership", "order", "by cursor", "place"].map(of);
        assert_eq!(kinds, [3, 0, 1, 0, 0, 3]);
        assert_eq!(["in flight", "retries"].map(of), [7, 2]);
        let milliseconds = ["timeout", "pause", "longest pause"].map(|field| of(field) / 1_000_000);
        assert_eq!(milliseconds, [1_500, 30, 70]);
        let rest = &bytes[self.format.start("created", "names")..];
        let (stream, mut rest) = rest.split_at(self.format.size("created", "stream length", bytes));
        assert_eq!((stream, of("items")), (&b"large"[..], 2));
        let mut items = Vec::new();
        for _ in 0..of("items") {
            let item = |field| self.format.size("item", field, rest);
            let (types, tags, ids) = (item("types"), item("tags"), item("ids"));
            let (stream, category) = (item("stream length"), item("category length"));
            let mut texts = &rest[self.format.start("item", "texts")..];
            let mut take = |count: usize| {
                let (taken, behind) = texts.split_at(count);
                texts = behind;
                taken.to_vec()
            };
            let mut found = Vec::new();
            for _ in 0..types + tags {
                let count = number(&take(2));
                found.push(take(usize::try_from(count).unwrap()));
            }
            found.push(take(stream));
            found.push(take(category));
            for bit in [1, 2] {
                found.push(take(if ids & bit == 0 { 0 } else { 16 }));
            }
            items.push((types, tags, found));
            rest = texts;
        }
        let text = |text: &str| text.as_bytes().to_vec();
        let first = vec![
            text("A"),
            text("Bö"),
            text("t"),
            text("s"),
            text("c"),
            CORRELATION.as_bytes().to_vec(),
            text(""),
        ];
        let second = vec![text("other"), text(""), text(""), text(""), text("")];
        assert_eq!(items, [(2, 1, first), (0, 1, second)]);
        assert!(rest.is_empty());
    }
}
