//! What tests against real services share.

pub mod kafka;
