//! What lies in the store: keys, frames, the index at the end of each file. The contract with readers, byte by byte in
//! docs/file-format.md.
//!
//! Owns: names of objects, record formats, frames, index, how they are read back.
//! Does not own: which records an object holds (the ledger's), where bytes wait (the spool's).

pub mod app_id;
pub mod codec;
pub mod digest;
pub mod format;
pub mod frame;
pub mod index;
pub mod key;
pub mod varint;
