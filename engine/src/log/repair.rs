//! Repair's decision table: what a segment that is not sealed is, given what was found of it.
//!
//! Pure: whoever opens a store looks at the files, asks here, and acts.

use annals_types::DamageKind;

/// The segment's header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum HeaderState {
    Good,
    /// Its block is zero: the file was made and not begun.
    Zero,
    /// Not intact; and whether anything but zeros lies behind its block.
    Bad {
        frames_behind: bool,
    },
    /// There is no such file.
    NoFile,
}

/// The segment's place among the others.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Role {
    /// No later segment was begun.
    Last,
    /// A later one was, and its header names this one's end; `agrees`: the good frames end right there.
    Followed { agrees: bool },
}

/// What lies behind the last good frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Remainder {
    Zero,
    NotZero,
}

/// Whether every batch that is known to have been acknowledged is before the cut.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Evidence {
    AllThere,
    SomeMissing,
}

/// What the mark says of this place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum MarkState {
    /// The store was closed cleanly right behind the last good frame.
    CleanHere,
    Otherwise,
}

/// What a segment is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Outcome {
    /// Complete; to be sealed.
    Closed,
    /// The writer goes on in it.
    GoesOn,
    /// It ends at its last good frame; the writer goes on in a new segment.
    EndsHere,
    /// The same, and what lies behind was never acknowledged and is set aside.
    EndsTorn,
    /// Nothing was written to it.
    Unused,
    /// Acknowledged bytes are missing or wrong.
    Damaged(DamageKind),
}

/// The table.
pub(crate) fn decide(
    header: HeaderState,
    role: Role,
    remainder: Remainder,
    evidence: Evidence,
    mark: MarkState,
) -> Outcome {
    use Outcome::{Closed, Damaged, EndsHere, EndsTorn, GoesOn, Unused};
    match (header, role, evidence) {
        (HeaderState::Good, Role::Followed { agrees: true }, _) => Closed,
        (HeaderState::Good, Role::Followed { agrees: false }, _) => Damaged(DamageKind::Checksum),
        (HeaderState::Good, Role::Last, Evidence::SomeMissing) => Damaged(match remainder {
            Remainder::Zero => DamageKind::Missing,
            Remainder::NotZero => DamageKind::Checksum,
        }),
        (HeaderState::Good, Role::Last, Evidence::AllThere) => match (remainder, mark) {
            (Remainder::Zero, MarkState::CleanHere) => GoesOn,
            (Remainder::Zero, MarkState::Otherwise) => EndsHere,
            (Remainder::NotZero, _) => EndsTorn,
        },
        // A header is durable before a frame behind it is acknowledged, and before a later segment is begun.
        (HeaderState::Bad { .. }, Role::Followed { .. }, _)
        | (HeaderState::Bad { frames_behind: true }, _, _)
        | (HeaderState::Bad { .. }, _, Evidence::SomeMissing) => Damaged(DamageKind::Checksum),
        (HeaderState::Zero | HeaderState::NoFile, Role::Followed { .. }, _)
        | (HeaderState::Zero | HeaderState::NoFile, _, Evidence::SomeMissing) => Damaged(DamageKind::Missing),
        (HeaderState::Bad { frames_behind: false }, Role::Last, Evidence::AllThere)
        | (HeaderState::Zero | HeaderState::NoFile, Role::Last, Evidence::AllThere) => Unused,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADERS: [HeaderState; 5] = [
        HeaderState::Good,
        HeaderState::Zero,
        HeaderState::Bad { frames_behind: false },
        HeaderState::Bad { frames_behind: true },
        HeaderState::NoFile,
    ];
    const ROLES: [Role; 3] = [Role::Last, Role::Followed { agrees: true }, Role::Followed { agrees: false }];

    /// The promises that the table serves, written as rules of their own.
    fn assert_keeps_promises(
        header: HeaderState,
        role: Role,
        remainder: Remainder,
        evidence: Evidence,
        mark: MarkState,
        outcome: Outcome,
    ) {
        let case = format!("{header:?} {role:?} {remainder:?} {evidence:?} {mark:?} -> {outcome:?}");
        let damaged = matches!(outcome, Outcome::Damaged(_));
        let closed_by_successor = header == HeaderState::Good && role == Role::Followed { agrees: true };
        if evidence == Evidence::SomeMissing && !closed_by_successor {
            assert!(damaged, "acknowledged batches are missing, and that is not said: {case}");
        }
        if matches!(role, Role::Followed { .. }) {
            assert!(damaged || outcome == Outcome::Closed, "only the last segment may be cut: {case}");
        }
        if outcome == Outcome::GoesOn {
            assert!(
                mark == MarkState::CleanHere && remainder == Remainder::Zero,
                "unclean and written on: {case}"
            );
        }
        if outcome == Outcome::EndsHere {
            assert_eq!(remainder, Remainder::Zero, "bytes would be lost unsaid: {case}");
        }
        if outcome == Outcome::Unused {
            assert!(header != HeaderState::Good && evidence == Evidence::AllThere, "{case}");
            assert_ne!(header, HeaderState::Bad { frames_behind: true }, "{case}");
        }
    }

    #[test]
    fn every_case_of_the_repair_table_has_the_outcome_that_the_promises_demand() {
        let mut cases = 0;
        for header in HEADERS {
            for role in ROLES {
                for remainder in [Remainder::Zero, Remainder::NotZero] {
                    for evidence in [Evidence::AllThere, Evidence::SomeMissing] {
                        for mark in [MarkState::CleanHere, MarkState::Otherwise] {
                            let outcome = decide(header, role, remainder, evidence, mark);
                            assert_keeps_promises(header, role, remainder, evidence, mark, outcome);
                            cases += 1;
                        }
                    }
                }
            }
        }
        assert_eq!(cases, 5 * 3 * 2 * 2 * 2);
    }
}
