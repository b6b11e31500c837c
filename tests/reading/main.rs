//! Reading archives back, as a library: what is found, what it costs, what damage does.

#[path = "../support/mod.rs"]
mod support;

mod answers;
mod finding;
mod program;
