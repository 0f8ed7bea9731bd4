//! Integration tests: one binary.

mod exactly_once;
mod tidy;
