//! Integration tests of the engine; one binary, one module a subject.
#![allow(missing_docs)]
#![allow(clippy::unwrap_used, reason = "a helper of a test fails it as the test itself would")]

mod append;

mod beside;
mod boundary;
mod crash;
mod cursor;
mod damage;
mod floors;
mod follow;
mod followers;
mod format_document;
mod format_tables;
mod fuzz_bodies;
mod golden;
mod members;
mod model;
mod opening;
mod promises;
mod query;
mod snapshot;
mod subscription;
mod subscription_lasts;
mod subscription_lives;
mod subscription_wakes;
mod support;
mod torn_tail;
