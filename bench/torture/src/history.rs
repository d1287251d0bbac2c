//! What a store behind an adapter was asked, what it acknowledged and what it has shown; and what is wrong with what it holds.

use crate::plan::Planned;
use annals_types::Uuid;
use rand::rngs::SmallRng;
use std::collections::HashMap;
use std::io::Write as _;
use std::path::Path;

/// A moment: of two, the one that came first is smaller.
type Moment = u64;

/// An event that was to be appended.
#[derive(Debug)]
struct Asked {
    held: Held,
    begun: Moment,
    /// When it was acknowledged; `None`: nobody knows what became of it.
    ended: Option<Moment>,
}

/// An event, as a store shows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Held {
    number: u64,
    id: Uuid,
    bytes: usize,
    crc: u32,
}

/// What is wrong, in numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Faults {
    /// Events that were acknowledged and are not there.
    pub(crate) lost: u64,
    /// Events that are not what was asked, or that nobody asked for.
    pub(crate) corrupt: u64,
    /// Events that are there again, or before one that was acknowledged before they were asked, or elsewhere than they were shown.
    pub(crate) disordered: u64,
    /// Events that were never acknowledged, but shown once, and are not there any more.
    pub(crate) vanished: u64,
    /// Stores that do not open, do not pass their own check, or end by themselves.
    pub(crate) unopened: u64,
}

/// See the module. Events are numbered as they are asked, from 0.
#[derive(Debug, Default)]
pub(crate) struct History {
    asked: Vec<Asked>,
    /// Numbers, as they were shown last.
    shown: Vec<u64>,
    moment: Moment,
}

impl Held {
    /// From what an adapter prints of it.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        let held = Self {
            number: words.next()?.parse().ok()?,
            id: words.next()?.parse().ok()?,
            bytes: words.next()?.parse().ok()?,
            crc: u32::from_str_radix(words.next()?, 16).ok()?,
        };
        words.next().is_none().then_some(held)
    }
}

impl Faults {
    pub(crate) fn is_none(self) -> bool {
        self == Self::default()
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.lost += other.lost;
        self.corrupt += other.corrupt;
        self.disordered += other.disordered;
        self.vanished += other.vanished;
        self.unopened += other.unopened;
    }
}

impl History {
    /// Asks for one more event: the line for the adapter.
    pub(crate) fn ask(&mut self, random: &mut SmallRng) -> String {
        let Planned { id, bytes, .. } = Planned::draw(random, String::new(), false);
        let number = self.asked.len() as u64;
        let begun = self.next_moment();
        let held = Held { number, id, bytes, crc: crc32fast::hash(&payload(id, bytes)) };
        self.asked.push(Asked { held, begun, ended: None });
        format!("append {number} {id} {bytes}")
    }

    pub(crate) fn acknowledge(&mut self, number: u64) {
        let moment = self.next_moment();
        if let Some(asked) = usize::try_from(number).ok().and_then(|number| self.asked.get_mut(number)) {
            asked.ended.get_or_insert(moment);
        }
    }

    /// Events that were acknowledged.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.asked.iter().filter(|asked| asked.ended.is_some()).count() as u64
    }

    fn next_moment(&mut self) -> Moment {
        self.moment += 1;
        self.moment
    }

    /// What is wrong with what a store holds. It counts as shown from now on.
    pub(crate) fn compare(&mut self, held: &[Held]) -> Faults {
        let mut faults = Faults::default();
        let mut places = HashMap::new();
        let mut latest_begun = 0;
        for (place, held) in held.iter().enumerate() {
            let is_first = places.insert(held.number, place).is_none();
            let Some(asked) = self.asked(held.number).filter(|asked| asked.held == *held) else {
                faults.corrupt += 1;
                continue;
            };
            let is_late = asked.ended.is_some_and(|ended| ended < latest_begun);
            faults.disordered += u64::from(!is_first || is_late);
            latest_begun = latest_begun.max(asked.begun);
        }
        faults.disordered += self.moved(&places);
        let is_gone = |number: &u64| !places.contains_key(number);
        let acknowledged = self.asked.iter().filter(|asked| asked.ended.is_some());
        faults.lost = acknowledged.filter(|asked| is_gone(&asked.held.number)).count() as u64;
        let unknown = |number: &&u64| self.asked(**number).is_none_or(|asked| asked.ended.is_none());
        faults.vanished = self.shown.iter().filter(unknown).filter(|number| is_gone(number)).count() as u64;
        self.shown = held.iter().map(|held| held.number).collect();
        faults
    }

    fn asked(&self, number: u64) -> Option<&Asked> {
        self.asked.get(usize::try_from(number).ok()?)
    }

    /// Events that were shown behind those that they stand before now.
    fn moved(&self, places: &HashMap<u64, usize>) -> u64 {
        let places: Vec<_> = self.shown.iter().filter_map(|number| places.get(number)).collect();
        places.windows(2).filter(|two| two[0] > two[1]).count() as u64
    }

    /// Writes down all that was asked, for whoever looks for the cause.
    pub(crate) fn write(&self, path: &Path) -> std::io::Result<()> {
        let mut file = std::io::BufWriter::new(std::fs::File::create(path)?);
        for Asked { held, begun, ended } in &self.asked {
            let ended = ended.map_or_else(|| "-".to_owned(), |ended| ended.to_string());
            writeln!(file, "{} {} {} {:08x} {begun} {ended}", held.number, held.id, held.bytes, held.crc)?;
        }
        file.flush()
    }
}

/// The payload of an id, as the adapters have it (`bench/rivals/src/lib.rs`): the words of a SplitMix64 that begins with it.
fn payload(id: Uuid, bytes: usize) -> Vec<u8> {
    let (upper, lower) = id.as_u64_pair();
    let mut state = upper ^ lower;
    let mut payload = Vec::with_capacity(bytes.next_multiple_of(8));
    while payload.len() < bytes {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let word = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        payload.extend((word ^ (word >> 31)).to_le_bytes());
    }
    payload.truncate(bytes);
    payload
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng as _;

    /// Five events, the first three of which were acknowledged one after the other.
    fn history() -> (History, Vec<Held>) {
        let (mut history, mut random) = (History::default(), SmallRng::seed_from_u64(7));
        for number in 0..5 {
            history.ask(&mut random);
            if number < 3 {
                history.acknowledge(number);
            }
        }
        let held = history.asked.iter().map(|asked| asked.held.clone()).collect();
        (history, held)
    }

    #[test]
    fn what_was_acknowledged_is_there_and_the_rest_as_it_happens() {
        for there in [vec![0, 1, 2], vec![0, 1, 2, 4], vec![0, 1, 2, 4, 3]] {
            let (mut history, held) = history();
            let held: Vec<_> = there.into_iter().map(|number: usize| held[number].clone()).collect();
            assert_eq!(history.compare(&held), Faults::default());
        }
    }

    #[test]
    fn each_fault_is_counted() {
        let (mut history, held) = history();
        assert_eq!(history.compare(&held), Faults::default());
        let of = |there: &[usize]| there.iter().map(|number| held[*number].clone()).collect::<Vec<_>>();
        let vanished = Faults { vanished: 1, ..Faults::default() };
        assert_eq!(history.compare(&of(&[0, 1, 2, 3])), vanished);
        assert_eq!(history.compare(&of(&[0, 2, 3])), Faults { lost: 1, ..Faults::default() });
        let disordered = Faults { disordered: 1, ..Faults::default() };
        assert_eq!(self::history().0.compare(&of(&[0, 1, 2, 3, 1])), disordered, "it is there twice");
        assert_eq!(self::history().0.compare(&of(&[1, 0, 2])), disordered, "1 was asked behind 0");
        let mut wrong = of(&[0, 1, 2]);
        wrong[1].crc ^= 1;
        assert_eq!(self::history().0.compare(&wrong), Faults { corrupt: 1, ..Faults::default() });
    }

    #[test]
    fn what_is_elsewhere_than_it_was_shown_is_disordered() {
        let (mut history, held) = history();
        let of = |there: &[usize]| there.iter().map(|number| held[*number].clone()).collect::<Vec<_>>();
        assert!(history.compare(&of(&[0, 1, 2, 3, 4])).is_none());
        assert_eq!(history.compare(&of(&[0, 1, 2, 4, 3])).disordered, 1);
    }

    #[test]
    fn an_event_is_parsed_as_it_is_printed() {
        let id = Uuid::from_u128(7);
        let held = Held { number: 3, id, bytes: 21, crc: CRC };
        assert_eq!(Held::parse(&format!("3 {id} 21 {CRC:08x}")), Some(held));
        assert_eq!(Held::parse(&format!("3 {id} 21")), None);
    }

    /// The adapters have the same figure: they agree, or everything would be called corrupt.
    const CRC: u32 = 0x0fa0_6c9c;

    #[test]
    fn a_payload_follows_from_its_id_alone() {
        assert_eq!(crc32fast::hash(&payload(Uuid::from_u128(7), 21)), CRC);
    }
}
