//! Integration tests of the engine; one binary, one module a subject.
#![allow(missing_docs)]

mod append;
mod model;
mod support;
