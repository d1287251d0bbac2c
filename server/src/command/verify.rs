//! `annals verify`: checks everything, and says what is damaged.

use crate::config::Config;
use crate::failure::{Failure, damage_fields};
use crate::output::Output;
use crate::progress::{Progress, Unit};
use annals::{Damage, OpenError, ReadError, Verified};
use serde::{Serialize, Serializer};
use std::io::Write;

/// One damaged place, as it is printed.
struct Place<'a>(&'a Damage);

impl Serialize for Place<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(damage_fields(self.0))
    }
}

/// What was found, in the order in which it is printed.
#[derive(Serialize)]
struct Findings<'a> {
    ok: bool,
    events: u64,
    segments: u64,
    torn_tail_bytes: u64,
    damage: Vec<Place<'a>>,
}

/// Checks the store and prints what was found; fails where anything is damaged.
pub(super) fn run(config: &Config) -> Result<(), Failure> {
    let verified = verify(config)?;
    let mut output = Output::open();
    let printed = if config.json {
        output.json_line(&findings(&verified))
    } else {
        output.write(|out| write_readable(out, &verified))
    };
    let verdict = match verified.damage.len() {
        0 => Ok(()),
        count => Err(Failure::Damaged { count }),
    };
    output.finish(printed.and(verdict))
}

/// Damage that ends the check early, or even prevents opening, is a finding like any other.
fn verify(config: &Config) -> Result<Verified, Failure> {
    let only = |damage| Verified {
        events: 0,
        segments: 0,
        torn_tail_bytes: 0,
        chain: String::new(),
        damage: vec![damage],
    };
    let store = match config.open_for_reading() {
        Err(Failure::Open(OpenError::Damage(damage))) => return Ok(only(damage)),
        opened => opened?,
    };
    let mut progress = Progress::start(Unit::Events);
    let outcome = store.verify(|done, total| progress.show(done, Some(total)));
    progress.clear();
    match outcome {
        Err(Failure::Read(ReadError::Damage(damage))) => Ok(only(damage)),
        outcome => outcome,
    }
}

fn findings(verified: &Verified) -> Findings<'_> {
    Findings {
        ok: verified.damage.is_empty(),
        events: verified.events,
        segments: verified.segments,
        torn_tail_bytes: verified.torn_tail_bytes,
        damage: verified.damage.iter().map(Place).collect(),
    }
}

fn write_readable(out: &mut impl Write, verified: &Verified) -> std::io::Result<()> {
    let verdict = if verified.damage.is_empty() { "sound" } else { "DAMAGED" };
    writeln!(out, "{verdict}: {} events in {} segments checked", verified.events, verified.segments)?;
    writeln!(out, "chain of digests behind the sealed segments: {}", verified.chain)?;
    if verified.torn_tail_bytes > 0 {
        let bytes = verified.torn_tail_bytes;
        writeln!(out, "torn tail: {bytes} bytes that were never acknowledged (no damage)")?;
    }
    verified.damage.iter().try_for_each(|damage| writeln!(out, "damage: {damage}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use annals::{DamageKind, Position};

    #[test]
    fn findings_are_printed_as_the_contract_has_them() {
        let mut verified =
            Verified { events: 3, segments: 1, torn_tail_bytes: 8, chain: String::new(), damage: Vec::new() };
        assert_eq!(
            serde_json::to_string(&findings(&verified)).unwrap(),
            r#"{"ok":true,"events":3,"segments":1,"torn_tail_bytes":8,"damage":[]}"#
        );
        verified.damage.push(Damage {
            file: "log-1".into(),
            offset: 64,
            first_position: Some(Position::new(2)),
            last_position: None,
            kind: DamageKind::Checksum,
        });
        let place =
            r#"{"file":"log-1","offset":64,"first_position":2,"last_position":null,"kind":"checksum"}"#;
        let text = serde_json::to_string(&findings(&verified)).unwrap();
        assert!(text.starts_with(r#"{"ok":false,"#) && text.ends_with(&format!("[{place}]}}")), "{text}");
    }
}
