//! Damaged and hostile input for everything that reads bytes of brokers and producers: no panic, no endless loop, no
//! memory for lengths that are not there.
//!
//! Owns: the targets ([`targets`]), how long they run, where the corpus lies. Does not own: the damage ([`mutation`]).
//!
//! `cargo test` runs a fixed number of rounds by fixed seeds; with SLUICE_FUZZ_SECONDS (`make fuzz`) each target runs that
//! long with new seeds. An input that fails is written to a file; put into tests/fuzz_corpus/found as `<target>-<what>.bin`
//! it is tried first from then on.

#![allow(clippy::panic, clippy::print_stderr, reason = "a failed expectation ends the test, and says with what")]

mod allocations;
mod corpus;
mod mutation;
mod targets;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::{Duration, Instant};

use crate::kafka::native::fuzz::mutation::{Dice, mutate};

/// Rounds of each target in `cargo test`.
const ROUNDS: u64 = 2000;

type Run = Box<dyn Fn(&[u8])>;

/// What is tried: input goes in, and must do no harm.
struct Target {
    name: &'static str,
    seeds: Vec<Vec<u8>>,
    run: Run,
    /// Makes a damaged input valid on the outside, so that the damage gets past the first check.
    mend: fn(&mut [u8]),
}

impl Target {
    fn fuzz(&self) {
        assert!(!self.seeds.is_empty(), "no corpus for {}", self.name);
        let found = corpus::found(self.name);
        found.iter().chain(&self.seeds).for_each(|input| self.try_input(input, 0));
        let seconds: Option<u64> = std::env::var("SLUICE_FUZZ_SECONDS").ok().and_then(|seconds| seconds.parse().ok());
        let end = seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
        let first = if end.is_some() { getrandom::u64().unwrap() >> 16 } else { 0 };
        let mut round = 0;
        while end.map_or(round < ROUNDS, |end| Instant::now() < end) {
            self.round(first + round);
            round += 1;
        }
        eprintln!("{}: {} inputs, {round} rounds from seed {first}", self.name, found.len() + self.seeds.len());
    }

    fn round(&self, seed: u64) {
        let mut dice = Dice::new(seed);
        let mut input = self.seeds[dice.below(self.seeds.len())].clone();
        mutate(&mut input, &self.seeds[dice.below(self.seeds.len())], &mut dice);
        if dice.below(4) > 0 {
            (self.mend)(&mut input);
        }
        self.try_input(&input, seed);
    }

    fn try_input(&self, input: &[u8], seed: u64) {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| (self.run)(input))) {
            let file = std::env::temp_dir().join(format!("sluice-fuzz-{}-{seed:x}.bin", self.name));
            std::fs::write(&file, input).unwrap();
            eprintln!("{} fails with seed {seed}, {} bytes: {}", self.name, input.len(), file.display());
            resume_unwind(panic);
        }
    }
}

#[test]
fn batches() {
    targets::batches().fuzz();
}

#[test]
fn codecs() {
    targets::codecs().iter().for_each(Target::fuzz);
}

#[test]
fn answers() {
    targets::answers().iter().for_each(Target::fuzz);
}
