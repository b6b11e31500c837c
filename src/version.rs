//! What this build calls itself.
//!
//! Owns: the version, in one place. Does not own: versions of the file format and of the log.

/// The package's version, or what `SLUICE_VERSION_OVERRIDE` said when it was built: a packager's suffix, two builds of one test.
pub const VERSION: &str = match option_env!("SLUICE_VERSION_OVERRIDE") {
    Some(version) => version,
    None => env!("CARGO_PKG_VERSION"),
};
