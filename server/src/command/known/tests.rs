//! The store is a map from streams to events here; what was asked of it is counted.

use super::*;
use std::cell::Cell;
use std::collections::BTreeMap;

#[derive(Default)]
struct Model {
    streams: BTreeMap<String, Vec<(Uuid, String)>>,
    asked: Cell<u64>,
}

impl Model {
    fn holding(stream: &str, ids: impl IntoIterator<Item = u128>) -> Self {
        let mut model = Self::default();
        ids.into_iter().for_each(|id| model.add(stream, id, "T"));
        model
    }

    fn add(&mut self, stream: &str, id: u128, event_type: &str) {
        let events = self.streams.entry(stream.to_owned()).or_default();
        events.push((Uuid::from_u128(id), event_type.to_owned()));
    }
}

impl Stored for Model {
    fn count(&self, stream: &str) -> Result<u64, Failure> {
        self.asked.set(self.asked.get() + 1);
        Ok(self.streams.get(stream).map_or(0, |events| events.len() as u64))
    }

    fn ids(&self, stream: &str, versions: Range<u64>, take: &mut dyn FnMut(Uuid)) -> Result<(), Failure> {
        self.asked.set(self.asked.get() + 1);
        let range = usize::try_from(versions.start).unwrap()..usize::try_from(versions.end).unwrap();
        self.streams[stream][range].iter().for_each(|(id, _)| take(*id));
        Ok(())
    }

    fn is_same(&self, stream: &str, version: u64, event: &NewEvent<'_>) -> Result<bool, Failure> {
        self.asked.set(self.asked.get() + 1);
        Ok(self.streams[stream][usize::try_from(version).unwrap()].1 == event.event_type)
    }
}

/// Judges events of the stream `s`, and stores the new ones as an import does.
fn import(
    model: &mut Model,
    known: &mut Known,
    ids: impl IntoIterator<Item = u128>,
    given: bool,
) -> Vec<bool> {
    ids.into_iter()
        .map(|id| {
            let event = NewEvent::new("s", "T");
            let uuid = Uuid::from_u128(id);
            let mut verdict = known.judge(model, &event, uuid, given).unwrap();
            if verdict == Verdict::Unsettled {
                verdict = known.judge_settled(model, &event, uuid).unwrap();
            }
            match verdict {
                Verdict::New => model.add("s", id, "T"),
                Verdict::Repeated => {}
                other => panic!("{other:?}"),
            }
            verdict == Verdict::New
        })
        .collect()
}

fn stored(model: &Model) -> Vec<u128> {
    model.streams["s"].iter().map(|(id, _)| id.as_u128()).collect()
}

#[test]
fn an_empty_store_is_asked_nothing() {
    let mut model = Model::default();
    let mut known = Known::new(true);
    import(&mut model, &mut known, 0..500, true);
    assert_eq!((model.asked.get(), known.streams()), (0, 1));
    assert_eq!(stored(&model).len(), 500);
}

#[test]
fn the_same_file_again_is_all_repeated_and_is_walked_through_in_order() {
    for given in [false, true] {
        let mut model = Model::holding("s", 0..500);
        let mut known = Known::new(false);
        assert!(import(&mut model, &mut known, 0..500, given).iter().all(|is_new| !is_new));
        let same_checks = if given { 500 } else { 0 };
        assert_eq!(model.asked.get() - same_checks, 1 + 500_u64.div_ceil(IDS_AT_ONCE));
        assert!(known.streams["s"].as_ref().unwrap().all.is_none());
    }
}

#[test]
fn a_grown_file_adds_what_is_new() {
    let mut model = Model::holding("s", 0..100);
    let is_new = import(&mut model, &mut Known::new(false), 0..150, false);
    assert_eq!(is_new, [vec![false; 100], vec![true; 50]].concat());
    assert_eq!(stored(&model), (0..150).collect::<Vec<_>>());
}

#[test]
fn events_in_between_and_gaps_do_not_confuse() {
    // 900 and 901 came from elsewhere; 3 had been skipped.
    for given in [false, true] {
        let mut model = Model::holding("s", [900, 0, 1, 2, 901, 4, 5]);
        let mut known = Known::new(false);
        let is_new = import(&mut model, &mut known, 0..8, given);
        assert_eq!(is_new, [false, false, false, true, false, false, true, true]);
        assert_eq!(stored(&model), [900, 0, 1, 2, 901, 4, 5, 3, 6, 7]);
        assert!(import(&mut model, &mut Known::new(false), 0..8, given).iter().all(|is_new| !is_new));
    }
}

#[test]
fn an_id_given_twice_in_one_file_is_added_once() {
    for before in [0, 5, 10] {
        let mut model = Model::holding("s", 0..before);
        let mut known = Known::new(before == 0);
        let doubled = (0..10).chain(0..12).chain([3, 3, 11]);
        import(&mut model, &mut known, doubled, true);
        assert_eq!(stored(&model), (0..12).collect::<Vec<_>>(), "{before} before");
    }
}

#[test]
fn shared_fingerprints_are_different_events() {
    let (one, other) = (1_u128, 1_u128 << 96);
    assert_eq!(fingerprint(Uuid::from_u128(one)), fingerprint(Uuid::from_u128(other)));
    let mut model = Model::default();
    assert_eq!(import(&mut model, &mut Known::new(true), [one, other], true), [true, true]);
}

#[test]
fn a_given_id_with_another_type_is_a_conflict() {
    let model = Model::holding("s", 0..3);
    let mut known = Known::new(false);
    let other = NewEvent::new("s", "Other");
    let verdict = known.judge(&model, &other, Uuid::from_u128(1), true).unwrap();
    assert_eq!(verdict, Verdict::Conflict(1));
    let again = known.judge(&model, &other, Uuid::from_u128(1), true).unwrap();
    assert_eq!(again, Verdict::Unsettled);
    assert_eq!(known.judge_settled(&model, &other, Uuid::from_u128(1)).unwrap(), Verdict::Conflict(1));
}
