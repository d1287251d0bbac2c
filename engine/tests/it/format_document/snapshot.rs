//! Snapshots, by the document.

use super::Reader;
use crate::format_tables::Format;
use annals::{Append, NewEvent, NewSnapshot, Read, Store, Uuid, Version};
use std::path::Path;

/// Snapshots with everything that they can have.
pub(super) fn write_snapshots(dir: &Path) {
    let store = Store::open(dir).unwrap();
    let state = vec![7; (16 << 20) + 5];
    let append =
        Append::from(NewEvent::new("large", "Folded")).snapshot(NewSnapshot::new("large", 4, &state));
    store.append(append).unwrap().wait().unwrap();
    store.write_snapshot(&NewSnapshot::new("large", 9, "named").name("ü"), Version::ZERO).unwrap();
    store.delete_snapshots("large", "ü", Some(Version::ZERO)).unwrap();
    store.close().unwrap();
}

impl Reader<'_> {
    /// The snapshots of the store in a directory of its own, of events that this one has read.
    pub(super) fn check_snapshots(&self, dir: &Path) {
        let format: &Format = self.format;
        let side = Store::open_read_only(dir).unwrap();
        let records: Vec<_> = side.read(Read::stream("large")).unwrap().map(Result::unwrap).collect();
        let types: Vec<&str> = records.iter().map(annals::Record::event_type).collect();
        assert_eq!(types, ["Part", "Snapshot", "Snapshot", "Deleted"]);
        let of = |number: usize, field| format.number("snapshot", field, records[number].metadata());
        let folded = self.events.iter().find(|event| event.stream == "large").unwrap();
        for (number, parts, schema) in [(1, 1, 4), (2, 0, 9)] {
            let id = format.bytes("snapshot", "event", records[number].metadata());
            assert_eq!(Uuid::from_slice(id).unwrap(), folded.id);
            assert_eq!((of(number, "parts"), of(number, "schema")), (parts, schema));
            assert_eq!((of(number, "version"), of(number, "position")), (folded.version, folded.position));
            assert_eq!((of(number, "time"), of(number, "batch")), (folded.time, self.next_batch - 1));
            assert!(of(number, "epoch") > 0);
        }
        assert_eq!(records[0].correlation(), Some(records[1].id()));
        assert_eq!(records[0].data().len() + records[1].data().len(), (16 << 20) + 5);
        assert_eq!(&records[2].metadata()[64..], "ü".as_bytes());
        assert_eq!(format.number("deleted", "version", records[3].metadata()), 0);
        assert_eq!(&records[3].metadata()[8..], "ü".as_bytes());
    }
}
