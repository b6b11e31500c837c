use super::*;
use crate::archive::digest::ContentDigest;
use crate::archive::index::{SkipReason, Skipped};
use crate::ledger::SettingsRecord;
use crate::ledger::entry::{IntentId, Lane};
use crate::ledger::entry::{Range, StepId};
use crate::ledger::{Fate, Recovery};

fn lane(app: &str) -> Lane {
    Lane { app: app.to_owned(), bucket_start_secs: None }
}

fn intent(app: &str, ranges: &[(i32, i64, i64)]) -> Intent {
    let ranges: BTreeMap<i32, Range> = ranges
        .iter()
        .map(|&(p, first, last)| {
            (p, Range { first, last, count: last.abs_diff(first) + 1, digest: ContentDigest::default() })
        })
        .collect();
    Intent::new(format!("{app}/{ranges:?}"), lane(app), ranges, "settings".to_owned())
}

/// A log in memory with one owner.
struct Log(Vec<Stored>);

impl Log {
    fn started(lows: &[(i32, i64)]) -> Self {
        let mut log = Self(Vec::new());
        log.push(Entry::Takeover { worker: "w".to_owned(), time_ms: 1 });
        log.push(Entry::Start {
            settings: SettingsRecord::new(serde_json::json!({"format": "raw"})),
            identity: Identity::default(),
            lows: lows.iter().copied().collect(),
            skipped: Vec::new(),
            time_ms: 2,
        });
        log
    }

    fn push(&mut self, entry: Entry) {
        let number = self.0.len() as u64 + 1;
        self.0.push(Stored { number, token: Token("t".to_owned()), step: StepId(number.to_string()), entry });
    }

    fn commit(&mut self, seal: &[Intent], done: &[&Intent], lows: &[(i32, i64)]) {
        self.push(Entry::Commit(Commit {
            seal: seal.to_vec(),
            done: done.iter().map(|intent| intent.id.clone()).collect(),
            lows: lows.iter().copied().collect(),
            time_ms: self.0.len() as i64 * 10,
            ..Commit::default()
        }));
    }

    fn fold(&self) -> Result<State, LedgerError> {
        let mut state = State::default();
        for stored in &self.0 {
            state.apply(stored)?;
        }
        Ok(state)
    }

    fn broken_rule(&self) -> String {
        self.fold().unwrap_err().rule
    }
}

#[test]
fn seals_set_marks_and_done_clears_intents() {
    let mut log = Log::started(&[(0, 5), (1, 0)]);
    let a = intent("a", &[(0, 5, 9), (1, 0, 3)]);
    let b = intent("b", &[(0, 6, 6)]);
    log.commit(&[a.clone(), b.clone()], &[], &[]);
    let state = log.fold().unwrap();
    assert_eq!(state.mark(&lane("a"), 0), Some(10));
    assert_eq!(state.mark(&lane("a"), 1), Some(4));
    assert_eq!(state.mark(&lane("b"), 0), Some(7));
    assert_eq!(state.intents.len(), 2);
    log.commit(&[], &[&a], &[(0, 6), (1, 4)]);
    let state = log.fold().unwrap();
    assert_eq!(state.intents.keys().collect::<Vec<_>>(), [&b.id]);
    assert_eq!(state.lows[&0], Low { offset: 6, since_ms: 30 });
}

#[test]
fn a_low_that_does_not_move_keeps_its_age() {
    let mut log = Log::started(&[(0, 5)]);
    log.commit(&[], &[], &[(0, 5)]);
    assert_eq!(log.fold().unwrap().lows[&0], Low { offset: 5, since_ms: 2 });
}

#[test]
fn each_rule_stops_the_fold() {
    let a = intent("a", &[(0, 5, 9)]);
    let case = |build: &dyn Fn(&mut Log)| {
        let mut log = Log::started(&[(0, 5)]);
        build(&mut log);
        log.broken_rule()
    };
    assert!(case(&|log| log.commit(&[], &[], &[(0, 4)])).contains("goes back"));
    assert!(case(&|log| log.commit(&[], &[], &[(7, 4)])).contains("does not own"));
    assert!(case(&|log| log.commit(std::slice::from_ref(&a), &[], &[(0, 6)])).contains("past 5 of pending"));
    assert!(case(&|log| log.commit(&[], &[&a], &[])).contains("not pending"));
    assert!(case(&|log| log.commit(&[a.clone(), a.clone()], &[], &[])).contains("sealed already"));
    assert!(case(&|log| log.commit(&[intent("a", &[(0, 4, 9)])], &[], &[])).contains("sealed already"));
    assert!(case(&|log| log.commit(&[intent("a", &[(3, 4, 9)])], &[], &[])).contains("does not own"));
    assert!(case(&|log| log.commit(&[intent("a", &[])], &[], &[])).contains("no records"));
    assert!(
        case(&|log| {
            let mut changed = a.clone();
            changed.key.push('x');
            log.commit(&[changed], &[], &[]);
        })
        .contains("does not match its content")
    );
    assert!(
        case(&|log| {
            let mut ranges = a.ranges.clone();
            ranges.get_mut(&0).unwrap().count = 6;
            log.commit(&[Intent::new("k".into(), lane("a"), ranges, "s".into())], &[], &[]);
        })
        .contains("claims 6 records")
    );
    assert!(case(&|log| log.push(log_start(&[(0, 0)]))).contains("second start"));
    assert!(
        case(&|log| log.push(Entry::Partitions { lows: [(0, 0)].into(), time_ms: 1 })).contains("begins a second time")
    );
    assert!(case(&|log| log.push(Entry::Snapshot { state: Box::default() })).contains("not the fold"));
    assert!(
        case(&|log| {
            log.commit(&[], &[], &[]);
            log.0.last_mut().unwrap().token = Token("other".to_owned());
        })
        .contains("not the owner")
    );
    assert!(
        case(&|log| {
            log.commit(&[], &[], &[]);
            log.0.last_mut().unwrap().number += 1;
        })
        .contains("follows entry 2")
    );
}

fn log_start(lows: &[(i32, i64)]) -> Entry {
    Entry::Start {
        settings: SettingsRecord::new(serde_json::Value::Null),
        identity: Identity::default(),
        lows: lows.iter().copied().collect(),
        skipped: Vec::new(),
        time_ms: 0,
    }
}

#[test]
fn a_state_is_settled_when_low_has_passed_all_that_was_decided() {
    let mut log = Log::started(&[(0, 0)]);
    assert!(log.fold().unwrap().is_settled());
    let a = intent("a", &[(0, 3, 9)]);
    log.commit(std::slice::from_ref(&a), &[], &[]);
    assert!(!log.fold().unwrap().is_settled());
    log.commit(&[], &[&a], &[(0, 5)]);
    assert!(!log.fold().unwrap().is_settled(), "offset 5 to 9 would be split again");
    log.commit(&[], &[], &[(0, 10)]);
    assert!(log.fold().unwrap().is_settled());
}

#[test]
fn an_unknown_identity_is_adopted_once() {
    let known = |topic: &str| Identity {
        cluster_id: Some("c".to_owned()),
        topic_id: Some(crate::pipeline::source::TopicId(topic.to_owned())),
        incarnation: 0,
    };
    let mut log = Log::started(&[(0, 0)]);
    log.push(Entry::Adopt { identity: known("t1") });
    assert_eq!(log.fold().unwrap().identity, known("t1"));
    log.push(Entry::Adopt { identity: known("t2") });
    assert!(log.broken_rule().contains("replaces a known"));
}

#[test]
fn the_old_owner_is_refused_after_a_takeover() {
    let mut log = Log::started(&[(0, 0)]);
    log.push(Entry::Takeover { worker: "w2".to_owned(), time_ms: 9 });
    log.0.last_mut().unwrap().token = Token("t2".to_owned());
    log.commit(&[], &[], &[]);
    assert!(log.broken_rule().contains("not the owner, worker w2"));
}

#[test]
fn recovery_tells_rebuild_from_skip_from_fresh() {
    let mut log = Log::started(&[(0, 0), (1, 0)]);
    let done = intent("a", &[(0, 0, 4)]);
    let pending = intent("a", &[(0, 6, 9), (1, 2, 3)]);
    log.commit(&[done.clone(), pending.clone()], &[], &[]);
    log.commit(&[], &[&done], &[(0, 5)]);
    let state = log.fold().unwrap();
    let recovery = Recovery::new(&state, |_| true);
    assert!(recovery.concerns(0, 9) && !recovery.concerns(0, 10) && !recovery.concerns(2, 0));
    assert_eq!(recovery.fate("a", None, 0, 5), Fate::Skip);
    assert_eq!(recovery.fate("a", None, 0, 6), Fate::Rebuild(&pending.id));
    assert_eq!(recovery.fate("a", None, 0, 10), Fate::Fresh);
    assert_eq!(recovery.fate("a", None, 1, 1), Fate::Skip);
    assert_eq!(recovery.fate("a", Some(0), 0, 6), Fate::Fresh);
    assert_eq!(recovery.fate("b", None, 0, 6), Fate::Fresh);
    let stored = Recovery::new(&state, |_| false);
    assert_eq!(stored.fate("a", None, 0, 6), Fate::Skip);
}

fn hole(partition: i32, first: i64, last: i64) -> Skipped {
    Skipped { partition, first, last, reason: SkipReason::Hole, incarnation: 0, scattered: None }
}

fn moved(lows: &[(i32, i64)], skipped: &[Skipped]) -> Entry {
    let (lows, skipped) = (lows.iter().copied().collect(), skipped.to_vec());
    Entry::Commit(Commit { lows, skipped, time_ms: 5, ..Commit::default() })
}

#[test]
fn what_low_passes_waits_for_the_next_intent_and_is_told_once() {
    let mut log = Log::started(&[(0, 5), (1, 0)]);
    log.push(moved(&[(0, 8), (1, 2)], &[hole(0, 5, 7), hole(1, 1, 1)]));
    log.push(moved(&[(0, 9)], &[hole(0, 8, 8)]));
    assert_eq!(log.fold().unwrap().skips.as_slice(), [hole(0, 5, 8), hole(1, 1, 1)], "neighbours are one");
    let whole = intent("a", &[(0, 9, 9)]);
    let a = whole.clone().with_skipped(vec![hole(0, 5, 8)]);
    assert_ne!(a.id, whole.id, "the id covers it");
    log.commit(std::slice::from_ref(&a), &[], &[]);
    let state = log.fold().unwrap();
    assert_eq!((state.skips.as_slice(), &state.intents[&a.id].intent.skipped), (&[hole(1, 1, 1)][..], &a.skipped));
    // Once more is a lie.
    log.commit(&[intent("b", &[(0, 9, 9)]).with_skipped(vec![hole(0, 5, 8)])], &[], &[]);
    assert!(log.broken_rule().contains("not left out"));
    log.0.pop();
    // An object that is not made tells nothing.
    log.push(replaced(&a.id, Some(&intent("a", &[(0, 9, 9)]))));
    assert!(log.broken_rule().contains("leaves out others"));
    log.0.pop();
    log.push(replaced(&a.id, None));
    assert_eq!(log.fold().unwrap().skips.as_slice(), [hole(1, 1, 1), hole(0, 5, 8)]);
}

#[test]
fn nothing_is_left_out_but_where_low_passes() {
    let case = |lows: &[(i32, i64)], skipped: &[Skipped]| {
        let mut log = Log::started(&[(0, 5), (1, 0)]);
        log.push(moved(lows, skipped));
        log.fold().map_err(|error| error.rule)
    };
    assert!(case(&[(0, 8)], &[hole(0, 6, 6), Skipped { reason: SkipReason::Rule, ..hole(0, 7, 7) }]).is_ok());
    assert!(case(&[(0, 8)], &[hole(0, 4, 6)]).unwrap_err().contains("low passes from 5 to 8"));
    assert!(case(&[(0, 8)], &[hole(0, 7, 8)]).unwrap_err().contains("low passes from 5 to 8"));
    assert!(case(&[], &[hole(0, 5, 5)]).unwrap_err().contains("low passes from 5 to 5"));
    assert!(case(&[(0, 8)], &[hole(7, 5, 5)]).unwrap_err().contains("not the task's"));
    assert!(case(&[(0, 8)], &[hole(0, 5, 6), hole(0, 6, 7)]).unwrap_err().contains("twice"));
    let everything = Skipped { reason: SkipReason::Rule, ..hole(0, 5, 7) };
    assert!(case(&[(0, 8)], &[hole(0, 5, 5), everything]).unwrap_err().contains("twice"));
    assert!(case(&[(0, 8)], &[Skipped { incarnation: 1, ..hole(0, 5, 5) }]).unwrap_err().contains("can't be so"));
    assert!(
        case(&[(0, 8)], &[Skipped { reason: SkipReason::Lost, ..hole(0, 5, 5) }]).unwrap_err().contains("can't be")
    );
    assert!(case(&[(0, 8)], &[hole(0, 6, 5)]).unwrap_err().contains("can't be so"));
}

#[test]
fn what_waits_for_long_is_joined_to_the_same() {
    let mut log = Log::started(&[(0, 0)]);
    let (a, b) = (hole(0, 1, 2), hole(0, 5, 5));
    log.push(moved(&[(0, 9)], &[a, b]));
    let mut joined = a;
    joined.join(&b, 1);
    let join = |joined| Entry::Commit(Commit { joined: vec![joined], time_ms: 9, ..Commit::default() });
    log.push(join(joined));
    assert_eq!(log.fold().unwrap().skips.as_slice(), [joined]);
    for other in [a, Skipped { last: 6, ..joined }, Skipped { reason: SkipReason::Rule, ..joined }] {
        log.push(join(other));
        assert!(log.broken_rule().contains("joined to others"), "{other:?}");
        log.0.pop();
    }
}

#[test]
fn a_start_takes_over_what_the_mapping_before_left_out() {
    let mut log = Log(Vec::new());
    log.push(Entry::Takeover { worker: "w".to_owned(), time_ms: 1 });
    let mut start = log_start(&[(0, 5)]);
    if let Entry::Start { skipped, .. } = &mut start {
        skipped.push(hole(0, 3, 4));
    }
    log.push(start);
    log.push(moved(&[(0, 6)], &[hole(0, 5, 5)]));
    assert_eq!(log.fold().unwrap().skips.as_slice(), [hole(0, 3, 5)]);
}

#[test]
fn an_accepted_loss_is_told_and_a_new_incarnation_begins_anew() {
    let mut log = Log::started(&[(0, 5), (1, 0)]);
    log.push(moved(&[(0, 8)], &[hole(0, 6, 6)]));
    log.push(reset(0, &[(0, Some((20, i64::MAX))), (1, Some((0, i64::MAX)))]));
    let lost = Skipped { reason: SkipReason::Lost, ..hole(0, 8, 19) };
    assert_eq!(log.fold().unwrap().skips.as_slice(), [hole(0, 6, 6), lost]);
    // What will be seen again is told then.
    log.push(reset(0, &[(0, Some((7, 7)))]));
    assert_eq!(log.fold().unwrap().skips.as_slice(), [hole(0, 6, 6)]);
    // Offsets of another incarnation are others.
    log.push(reset(1, &[(0, Some((2, 0))), (1, None)]));
    log.push(moved(&[(0, 7)], &[Skipped { incarnation: 1, ..hole(0, 6, 6) }]));
    assert_eq!(log.fold().unwrap().skips.as_slice(), [hole(0, 6, 6), Skipped { incarnation: 1, ..hole(0, 6, 6) }]);
}

mod algebra {
    use proptest::prelude::*;

    use super::*;

    /// A random legal history: for each step a lane, a length, and whether something gets done. A hole follows each file, of
    /// those that low has passed the next one tells.
    fn history() -> impl Strategy<Value = Vec<(u8, u8, bool)>> {
        prop::collection::vec((0u8..4, 1u8..20, any::<bool>()), 1..40)
    }

    fn build(steps: &[(u8, u8, bool)]) -> Log {
        let mut log = Log::started(&[(0, 0)]);
        let mut next = 0;
        let (mut pending, mut holes): (Vec<Intent>, Vec<Skipped>) = Default::default();
        for &(app, len, finish) in steps {
            let waiting = log.fold().unwrap().skips.as_slice().to_vec();
            let sealed = intent(&format!("app{app}"), &[(0, next, next + i64::from(len) - 1)]).with_skipped(waiting);
            next += i64::from(len) + 1;
            holes.push(hole(0, next - 1, next - 1));
            log.commit(std::slice::from_ref(&sealed), &[], &[]);
            pending.push(sealed);
            if finish {
                let done = pending.remove(0);
                let low = pending.iter().map(|intent| intent.ranges[&0].first).min().unwrap_or(next);
                let passed = holes.iter().filter(|hole| hole.first < low).count();
                let skipped = holes.drain(..passed).collect();
                let (done, lows) = (vec![done.id], [(0, low)].into());
                log.push(Entry::Commit(Commit { done, lows, skipped, time_ms: 1, ..Commit::default() }));
            }
        }
        log
    }

    proptest! {
        /// Fold of a snapshot and its tail is the fold of everything.
        #[test]
        fn a_snapshot_anywhere_changes_nothing(steps in history(), at in any::<prop::sample::Index>()) {
            let log = build(&steps);
            let whole = log.fold().unwrap();
            let cut = 2 + at.index(log.0.len() - 1);
            let mut state = State::default();
            for stored in &log.0[..cut] {
                state.apply(stored).unwrap();
            }
            // The snapshot takes a number of its own, so the tail moves up by one.
            let snapshot = Stored {
                number: cut as u64 + 1,
                token: Token("t".to_owned()),
                step: StepId("snapshot".to_owned()),
                entry: Entry::Snapshot { state: Box::new(state.pruned()) },
            };
            let bytes = snapshot.encode().unwrap();
            let snapshot = Stored::decode(snapshot.number, &bytes).unwrap();
            let mut resumed = State::default();
            resumed.apply(&snapshot).unwrap();
            state.apply(&snapshot).unwrap();
            prop_assert_eq!(&state, &resumed);
            for stored in &log.0[cut..] {
                resumed.apply(&Stored { number: stored.number + 1, ..stored.clone() }).unwrap();
            }
            resumed.tip -= 1;
            for pending in resumed.intents.values_mut() {
                pending.log_number -= u64::from(pending.log_number > cut as u64);
            }
            prop_assert_eq!(resumed.pruned(), whole.pruned());
        }
    }
}

fn cut(offsets: &[(i32, i64)]) -> Entry {
    Entry::Cut { offsets: offsets.iter().copied().collect(), time_ms: 1 }
}

fn other_settings() -> Entry {
    Entry::Settings { settings: SettingsRecord::new(serde_json::json!({"format": "json"})), time_ms: 1 }
}

#[test]
fn a_cut_lies_where_nothing_decided_reaches_and_ends_with_new_settings() {
    let mut log = Log::started(&[(0, 5), (1, 0)]);
    let a = intent("a", &[(0, 5, 9)]);
    log.commit(std::slice::from_ref(&a), &[], &[]);
    assert_eq!(log.fold().unwrap().least_cut(), [(0, 10), (1, 0)].into());
    log.push(cut(&[(0, 10), (1, 0)]));
    let b = intent("b", &[(0, 6, 8)]);
    log.commit(std::slice::from_ref(&b), &[&a, &b], &[(0, 10)]);
    log.push(other_settings());
    let state = log.fold().unwrap();
    assert_eq!((state.cut, state.settings.unwrap().content["format"].as_str()), (None, Some("json")));
}

#[test]
fn nothing_is_decided_past_a_cut() {
    let a = intent("a", &[(0, 5, 9)]);
    let case = |offsets: &[(i32, i64)], build: &dyn Fn(&mut Log)| {
        let mut log = Log::started(&[(0, 5), (1, 0)]);
        log.commit(std::slice::from_ref(&a), &[], &[]);
        log.push(cut(offsets));
        build(&mut log);
        log.broken_rule()
    };
    let least = [(0, 10), (1, 0)];
    assert!(case(&[(0, 9), (1, 0)], &|_| {}).contains("below what was decided"));
    assert!(case(&[(0, 10)], &|_| {}).contains("each partition"));
    assert!(case(&least, &|log| log.push(cut(&least))).contains("second cut"));
    assert!(case(&least, &|log| log.commit(&[intent("b", &[(0, 6, 10)])], &[], &[])).contains("past the cut"));
    assert!(case(&least, &|log| log.commit(&[], &[&a], &[(0, 11)])).contains("past the cut"));
    assert!(case(&least, &|log| log.push(other_settings())).contains("not all in the store"));
    let new = Entry::Partitions { lows: [(7, 0)].into(), time_ms: 1 };
    assert!(case(&least, &|log| log.push(new.clone())).contains("within a cut"));
}

#[test]
fn a_closed_log_takes_takeovers_only() {
    let closed = Entry::Closed { next: 2, time_ms: 1 };
    let mut log = Log::started(&[(0, 5)]);
    log.commit(&[intent("a", &[(0, 5, 9)])], &[], &[]);
    log.push(closed.clone());
    assert!(log.broken_rule().contains("not all in the store"));
    let mut log = Log::started(&[(0, 5)]);
    log.push(closed.clone());
    log.push(Entry::Takeover { worker: "w".to_owned(), time_ms: 1 });
    assert_eq!(log.fold().unwrap().closed, Some(2));
    log.commit(&[], &[], &[(0, 6)]);
    assert!(log.broken_rule().contains("mapping 2 took its place"));
    // Also one that never began.
    let mut log = Log(Vec::new());
    log.push(Entry::Takeover { worker: "w".to_owned(), time_ms: 1 });
    log.push(closed);
    assert_eq!(log.fold().unwrap().closed, Some(2));
    log.push(log_start(&[(0, 0)]));
    assert!(log.broken_rule().contains("mapping 2"));
}

fn reset(incarnation: u32, partitions: &[(i32, Option<(i64, i64)>)]) -> Entry {
    let partitions = partitions
        .iter()
        .map(|&(p, restart)| (p, restart.map(|(low, marks_to)| Restart { low, marks_to, seen: None })))
        .collect();
    let identity = Identity { incarnation, ..Identity::default() };
    Entry::Reset { identity, partitions, why: "test".to_owned(), time_ms: 7 }
}

fn replaced(id: &IntentId, by: Option<&Intent>) -> Entry {
    let replaced = vec![Replaced { id: id.clone(), by: by.cloned() }];
    Entry::Commit(Commit { replaced, time_ms: 8, ..Commit::default() })
}

#[test]
fn a_reset_moves_lows_clips_marks_and_shortens_what_is_pending() {
    let mut log = Log::started(&[(0, 5), (1, 0)]);
    let a = intent("a", &[(0, 5, 9), (1, 0, 3)]);
    let b = intent("b", &[(0, 10, 30)]);
    log.commit(&[a.clone(), b.clone()], &[&b], &[]);
    log.push(reset(1, &[(0, Some((8, 20)))]));
    let state = log.fold().unwrap();
    assert_eq!((state.low(0), state.low(1)), (Some(8), Some(0)));
    assert_eq!((state.mark(&lane("a"), 0), state.mark(&lane("b"), 0)), (Some(10), Some(20)));
    assert_eq!((state.span(&a, 0), state.span(&a, 1)), (Some((8, 9)), Some((0, 3))));
    // The span holds low, what lies before it does not.
    log.commit(&[], &[], &[(0, 9)]);
    assert!(log.broken_rule().contains("past 8 of pending"));
    log.0.pop();
    let left = intent("a", &[(0, 8, 9)]);
    log.push(replaced(&a.id, Some(&left)));
    log.commit(&[], &[&left], &[(0, 10), (1, 4)]);
    let state = log.fold().unwrap();
    assert!(state.intents.is_empty() && state.short.is_empty() && state.identity.incarnation == 1);
}

#[test]
fn a_partition_that_is_no_more_leaves_nothing() {
    let mut log = Log::started(&[(0, 5), (1, 0)]);
    let a = intent("a", &[(1, 0, 3)]);
    log.commit(std::slice::from_ref(&a), &[], &[]);
    log.push(reset(1, &[(0, Some((0, 0))), (1, None)]));
    let state = log.fold().unwrap();
    assert_eq!((state.low(1), state.mark(&lane("a"), 1), state.span(&a, 1)), (None, None, None));
    log.push(replaced(&a.id, None));
    assert!(log.fold().unwrap().is_settled());
}

#[test]
fn resets_and_replacements_keep_their_rules() {
    let a = intent("a", &[(0, 5, 9)]);
    let case = |entry: Entry| {
        let mut log = Log::started(&[(0, 5)]);
        log.commit(std::slice::from_ref(&a), &[], &[]);
        log.push(reset(1, &[(0, Some((5, i64::MAX)))]));
        log.push(entry);
        log.broken_rule()
    };
    assert!(case(reset(0, &[])).contains("earlier incarnation"));
    assert!(case(reset(1, &[(7, None)])).contains("does not own"));
    assert!(case(replaced(&intent("b", &[(0, 5, 9)]).id, None)).contains("not pending"));
    assert!(case(replaced(&a.id, Some(&intent("b", &[(0, 5, 6)])))).contains("other records"));
    assert!(case(replaced(&a.id, Some(&intent("a", &[(0, 5, 10)])))).contains("other records"));
    assert!(case(replaced(&a.id, Some(&intent("a", &[(0, 4, 9)])))).contains("other records"));
    assert!(case(replaced(&a.id, Some(&intent("a", &[])))).contains("no records"));
}
