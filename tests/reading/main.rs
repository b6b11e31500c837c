//! Reading archives back, as a library: what is found, what it costs, what damage does.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a failed step is a failed test, which says what it saw")]

#[path = "../support/mod.rs"]
mod support;

mod answers;
mod finding;
mod live;
mod program;
mod recipes;
mod restore;
