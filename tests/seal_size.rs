//! What a log entry costs is in proportion to what it decides, not to how many lanes are open.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "test code")]

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use sluice::config::{Environment, load_connector_str};

use sluice::ledger::encoding::Stored;
use sluice::ledger::{Entry, Identity, State, StepId, Token};
use sluice::pipeline::spool::FrameStored;
use sluice::record::BlockBuilder;
use sluice::task::core::{Action, Core, Taken};
use sluice::task::settings::TaskSettings;

const CONNECTOR: &str = "topics: [t]\napp_id: { from: json, pointer: /app_id }\nsink: { url: \"file:///archive\" }\n\
                         time: { bucket: none }\nrotate: { max_bytes: 1GiB, max_interval: 30m }\n";
const MINUTE_MS: i64 = 60_000;

fn stored(number: u64, entry: Entry) -> Stored {
    let (token, step) = (Token("0".repeat(32)), StepId("0".repeat(32)));
    Stored { number, token, step, entry }
}

/// Bytes of the entry that seals three lanes, opened first of `lanes`, and of the one that says they are done.
fn entry_bytes(lanes: i64) -> usize {
    let environment = Environment::default();
    let (connector, _) = load_connector_str(Path::new("c.yaml"), CONNECTOR, &environment).unwrap();
    let settings = TaskSettings::new(Arc::new(connector), "t", 0);
    let mut state = State::default();
    state.apply(&stored(1, Entry::Takeover { worker: "w".to_owned(), time_ms: 0 })).unwrap();
    let (identity, lows) = (Identity::default(), BTreeMap::from([(0, 0)]));
    let start = Entry::Start { settings: settings.record.clone(), identity, lows, skipped: Vec::new(), time_ms: 0 };
    state.apply(&stored(2, start)).unwrap();
    let missing = HashSet::new();
    let live_ends = BTreeMap::new();
    let taken = Taken { partitions: &[0], missing: &missing, live_ends, entries_since_snapshot: 0, adoption: None };
    let mut core = Core::new(settings, state, taken, 0);
    core.begin(0).unwrap();
    let mut at_ms = 0;
    for (from, to) in [(0, 3), (3, lanes)] {
        let mut block = BlockBuilder::default();
        for offset in from..to {
            let value = format!("{{\"app_id\":\"app-{:06}\"}}", 100_000 + offset);
            block.push(offset, at_ms, None, Some(value.as_bytes()), |_| 0).unwrap();
        }
        core.on_block(&block.finish(0, to, to), at_ms).unwrap();
        at_ms += 20 * MINUTE_MS;
    }
    let now_ms = 31 * MINUTE_MS;
    for _ in 0..10 {
        core.on_tick(now_ms);
        core.on_tick(now_ms + MINUTE_MS);
        for action in core.take_actions() {
            match action {
                Action::Compress { file, sequence, .. } => {
                    let frame = FrameStored { sequence, stored_bytes: 100, raw_bytes: 100 };
                    core.on_stored(file, &[frame], now_ms);
                }
                Action::Append(entry) => {
                    let Entry::Commit(commit) = &entry else { panic!("{entry:?}") };
                    assert_eq!(commit.seal.len(), 3);
                    return stored(3, entry).encode().unwrap().len();
                }
                _ => {}
            }
        }
    }
    panic!("nothing was sealed");
}

#[test]
fn sealing_three_lanes_costs_the_same_with_ten_and_with_ten_thousand_open() {
    let (few, many) = (entry_bytes(10), entry_bytes(10_000));
    println!("sealing 3 lanes: {few} bytes with 10 open lanes, {many} with 10,000");
    assert!(many < few + 64, "{few} bytes with 10 open lanes, {many} with 10,000");
}
