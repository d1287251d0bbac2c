//! Integration tests of the engine; one binary, one module a subject.
#![allow(missing_docs)]

mod append;
mod format_document;
mod fuzz_bodies;
mod crash;
mod damage;
mod floors;
mod model;
mod promises;
mod support;
