//! An event as JSON text, and JSON text as an event. Data and metadata pass through byte for byte.

mod fields;
mod parse;
mod print;

pub(crate) use parse::{BadEvent, EventText, parse_event};
pub(crate) use print::{is_plain_json, write_event, write_event_object};
