//! `annals trace`: what followed from what.

use super::arguments::Trace as Options;
use super::read::print_event;
use super::tell;
use crate::config::Config;
use crate::failure::Failure;
use crate::json;
use crate::output::Output;
use crate::source::Source;
use annals::{Position, QueryItem, Read, Record, Uuid};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;

/// Events by what caused them, each cause's in position order.
#[derive(Default)]
struct Effects {
    by_cause: BTreeMap<Option<Uuid>, Vec<Record>>,
    seen: BTreeSet<Position>,
    is_cut: bool,
}

/// Prints the tree of a conversation, or of what an event or a command caused.
pub(super) fn run(config: &Config, options: &Options) -> Result<(), Failure> {
    let store = config.open_for_reading()?;
    let mut effects = Effects::default();
    let id = options.id;
    effects.add(&store, QueryItem::new().correlation(id), options.limit)?;
    if effects.seen.is_empty() {
        effects.follow(&store, id, options.limit)?;
    }
    if effects.seen.is_empty() {
        return Err(Failure::NothingCaused { id });
    }
    let mut output = Output::open();
    let printed = effects.print(&mut output, id, config.json);
    output.finish(printed)?;
    if effects.is_cut {
        let message = format!("there are more than {} events; see --limit", options.limit);
        tell(&if config.json { json!({"note": "cut", "message": message}).to_string() } else { message });
    }
    Ok(())
}

impl Effects {
    /// Adds what is selected; the ids of what was new.
    fn add(&mut self, store: &Source, item: QueryItem<'_>, limit: usize) -> Result<Vec<Uuid>, Failure> {
        let mut added = Vec::new();
        for event in store.read(Read::query(item))? {
            let event = event?;
            if self.seen.contains(&event.position()) {
                continue;
            }
            if self.seen.len() >= limit {
                self.is_cut = true;
                break;
            }
            self.seen.insert(event.position());
            added.push(event.id());
            self.by_cause.entry(event.causation()).or_default().push(event);
        }
        Ok(added)
    }

    /// Adds what an id caused, and what that caused, and so on.
    fn follow(&mut self, store: &Source, id: Uuid, limit: usize) -> Result<(), Failure> {
        let mut causes = vec![id];
        while let Some(cause) = causes.pop() {
            causes.extend(self.add(store, QueryItem::new().causation(cause), limit)?);
        }
        Ok(())
    }

    fn print(&self, output: &mut Output, id: Uuid, json: bool) -> Result<(), Failure> {
        let known: BTreeSet<_> = self.by_cause.values().flatten().map(Record::id).collect();
        // What nothing here caused begins a tree.
        let mut roots: Vec<_> = self
            .by_cause
            .iter()
            .filter(|(cause, _)| cause.is_none_or(|cause| !known.contains(&cause)))
            .flat_map(|(_, events)| events)
            .collect();
        roots.sort_by_key(|event| event.position());
        if !json {
            output.write(|out| writeln!(out, "{id}"))?;
        }
        // Events that caused each other in a circle have no root: they begin with the first of them.
        let mut all: Vec<_> = self.by_cause.values().flatten().collect();
        all.sort_by_key(|event| event.position());
        let mut left: Vec<_> = roots.into_iter().chain(all).rev().map(|event| (1_usize, event)).collect();
        let mut printed = BTreeSet::new();
        while let Some((depth, event)) = left.pop() {
            if !printed.insert(event.position()) {
                continue;
            }
            if json {
                output.write(|out| {
                    write!(out, "{{\"depth\":{depth},\"event\":")?;
                    json::write_event_object(out, event)?;
                    out.write_all(b"}\n")
                })?;
            } else {
                output.write(|out| write!(out, "{:indent$}", "", indent = depth * 2))?;
                print_event(output, event, false)?;
            }
            let effects = self.by_cause.get(&Some(event.id())).into_iter().flatten();
            left.extend(effects.rev().map(|effect| (depth + 1, effect)));
        }
        Ok(())
    }
}
