//! Everything that is wrong is told at once, with its place and the nearest valid word, and no secret.

use std::path::PathBuf;

use sluice::config::{Environment, LoadOptions, load};

/// The messages are the interface; `WRITE_GOLDEN=1 cargo test` writes them anew, for reading the difference.
#[test]
fn all_problems_of_all_files_are_told_in_order() {
    let options = LoadOptions {
        config: Some(PathBuf::from("tests/fixtures/problems/configs/worker.yaml")),
        host_name: "host".to_owned(),
        ..LoadOptions::default()
    };
    let environment: Environment = [
        ("SLUICE_SPOOL__MAXBYTES", "1GiB"),
        ("SLUICE_MEMORY_MAX_BYTES", "1KiB"),
        ("SLUICE_HTTP__AUTH", "off"),
        ("PLANTED", "planted secret"),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .collect();
    let found = load(&options, &environment).unwrap_err().to_string() + "\n";
    assert!(!found.contains("planted"), "{found}");
    let golden = "tests/fixtures/problems/expected.txt";
    if std::env::var_os("WRITE_GOLDEN").is_some() {
        std::fs::write(golden, &found).unwrap();
    }
    assert_eq!(found, std::fs::read_to_string(golden).unwrap());
}
