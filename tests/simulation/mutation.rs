//! Rules that are broken on purpose, to see the oracle fail.
//!
//! Owns: a door in front of the log that breaks one rule each, and what its owner believes.
//! Does not own: anything of the product: no switch in it turns a rule off.
//!
//! Most rules are about what the log says to whom, so that a door that writes or tells something else is as good as code that
//! does not keep the rule.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use sluice::ledger::encoding::Stored;
use sluice::ledger::{Commit, Entry, State, StepId};
use sluice::log::LogDoor;
use sluice::store::{Created, StoreError};

use crate::process::Process;
use crate::world::World;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutation {
    None,
    /// All that mutations work with, and no rule broken.
    Control,
    /// An owner that was taken over goes on.
    NoFencing,
    /// The log says yes before it has the entry: an upload may begin without its intent.
    NoIntentBeforeUpload,
    /// A new owner does not know what was sealed.
    NoMarks,
    /// A new owner forgets what was decided and not uploaded.
    NoRebuild,
    /// Clean-up deletes Takeovers too.
    TakeoversDeleted,
    /// A new owner does not look for a snapshot above its Takeover.
    NoLookAbove,
    /// A retry says something else than the first attempt.
    OtherRetries,
    /// The first start's offsets are written down with the first decision only.
    StartWrittenLate,
    /// Low follows what was fetched.
    PositionFetched,
    /// A spool is taken for the last owner's, whoever left it.
    SpoolOfAnotherOwner,
    /// As `Control`, in groups of workers.
    GroupControl,
    /// Who has a lease does not ask the log whether the task is still its own.
    LeaseInsteadOfFencing,
    /// Other settings begin where low stands, not where the earlier ones ended.
    NoCut,
    /// A log that was ended for another mapping takes entries still.
    ClosedStaysOpen,
    /// A change of `tasks_max` does not take the old tasks over.
    MappingWithoutTakeover,
}

pub const ALL: [Mutation; 14] = [
    Mutation::NoFencing,
    Mutation::NoIntentBeforeUpload,
    Mutation::NoMarks,
    Mutation::NoRebuild,
    Mutation::TakeoversDeleted,
    Mutation::NoLookAbove,
    Mutation::OtherRetries,
    Mutation::StartWrittenLate,
    Mutation::PositionFetched,
    Mutation::SpoolOfAnotherOwner,
    Mutation::LeaseInsteadOfFencing,
    Mutation::NoCut,
    Mutation::ClosedStaysOpen,
    Mutation::MappingWithoutTakeover,
];

impl Mutation {
    /// Harm needs a Takeover that lands after clean-up has freed its number: much has to be frozen and cleaned for it.
    pub fn is_about_late_takeovers(self) -> bool {
        matches!(self, Self::TakeoversDeleted | Self::NoLookAbove)
    }

    /// Harm needs several workers of the whole.
    pub fn is_about_groups(self) -> bool {
        matches!(
            self,
            Self::GroupControl
                | Self::LeaseInsteadOfFencing
                | Self::NoCut
                | Self::ClosedStaysOpen
                | Self::MappingWithoutTakeover
        )
    }

    /// What becomes of records: the words of the violation.
    pub fn harm(self) -> &'static str {
        match self {
            Self::NoRebuild | Self::StartWrittenLate | Self::PositionFetched | Self::SpoolOfAnotherOwner => {
                "is in no object"
            }
            _ => " and in ",
        }
    }
}

/// What the owners of a mutated log believe: the fold that a mutated reader would have.
#[derive(Debug, Default)]
pub struct Belief {
    state: State,
    /// Owners that were taken over and were not told.
    unfenced: BTreeSet<u32>,
    /// Entries as first tried, by owner and number.
    tried: BTreeMap<(u32, u64), Bytes>,
    /// By owner: the start that it did not write yet.
    held_back: BTreeMap<u32, (u64, Bytes)>,
    /// By owner and partition: the end of what it fetched.
    pub fetched: BTreeMap<(u32, i32), i64>,
}

/// A log that breaks one rule.
#[derive(Debug)]
pub struct Mutated {
    mutation: Mutation,
    log: Arc<dyn LogDoor>,
    process: Arc<Process>,
    /// What a reader is told of the tip, while it opens the log.
    told: Mutex<Option<(u64, Bytes)>>,
}

impl Mutated {
    pub fn wrap(mutation: Mutation, log: Arc<dyn LogDoor>, process: &Arc<Process>) -> Arc<dyn LogDoor> {
        match mutation {
            Mutation::None => log,
            _ => Arc::new(Self { mutation, log, process: Arc::clone(process), told: Mutex::default() }),
        }
    }

    fn world(&self) -> &World {
        &self.process.world
    }

    /// The tip as a snapshot of what a mutated reader believes.
    fn tell(&self, tip: u64, forget: impl Fn(&mut State)) {
        let mut belief = self.world().belief();
        if belief.state.tip != tip || !belief.state.is_started() {
            return;
        }
        forget(&mut belief.state);
        let Some(owner) = &belief.state.owner else { return };
        let snapshot = Entry::Snapshot { state: Box::new(belief.state.clone()) };
        let stored = Stored { number: tip, token: owner.token.clone(), step: StepId(String::new()), entry: snapshot };
        *self.told.lock().unwrap() = Some((tip, stored.encode().unwrap().into()));
    }

    /// The owner does not learn that its number is another's: it goes on, and the log does not hear of it.
    async fn create_without_fencing(&self, number: u64, entry: Bytes) -> Result<Created, StoreError> {
        let me = self.process.id;
        if self.world().belief().unfenced.contains(&me) {
            return Ok(Created::New);
        }
        let created = self.log.create(number, entry.clone()).await?;
        if created == Created::New {
            return Ok(created);
        }
        let mine = Stored::decode(number, &entry).unwrap();
        let found = self.log.read(number).await?.and_then(|bytes| Stored::decode(number, &bytes).ok());
        if mine.entry.is_takeover() || found.is_some_and(|found| found.token == mine.token) {
            return Ok(created);
        }
        self.world().belief().unfenced.insert(me);
        Ok(Created::New)
    }

    /// Follows what landed, for mutations of the reader.
    fn believe(&self, number: u64, entry: &Bytes) {
        let mut belief = self.world().belief();
        if number == belief.state.tip + 1
            && let Ok(stored) = Stored::decode(number, entry)
        {
            // What breaks a rule of the ledger is judged by its objects.
            let _ = belief.state.apply(&stored);
            belief.state.tip = number;
        }
    }

    fn with_fetched_lows(&self, stored: &mut Stored) {
        let mut belief = self.world().belief();
        if let Entry::Snapshot { state } = &mut stored.entry {
            **state = belief.state.pruned();
            return;
        }
        let Entry::Commit(commit) = &mut stored.entry else { return };
        let Belief { state, fetched, .. } = &mut *belief;
        for (&partition, low) in &state.lows {
            let fetched = fetched.get(&(self.process.id, partition)).copied().unwrap_or(low.offset);
            let first = |ranges: &BTreeMap<i32, sluice::ledger::Range>| ranges.get(&partition).map(|range| range.first);
            let pending = state.intents.values().filter(|pending| !commit.done.contains(&pending.intent.id));
            let pending = pending.filter_map(|pending| first(&pending.intent.ranges));
            let sealed = commit.seal.iter().filter_map(|intent| first(&intent.ranges));
            let moved = pending.chain(sealed).fold(fetched, i64::min).max(low.offset);
            if moved > low.offset {
                commit.lows.insert(partition, moved);
            } else {
                commit.lows.remove(&partition);
            }
        }
    }
}

#[async_trait]
impl LogDoor for Mutated {
    async fn create(&self, number: u64, entry: Bytes) -> Result<Created, StoreError> {
        let me = self.process.id;
        let takeover = Stored::decode(number, &entry).is_ok_and(|stored| stored.entry.is_takeover());
        match self.mutation {
            Mutation::NoFencing => self.create_without_fencing(number, entry).await,
            Mutation::NoIntentBeforeUpload if !takeover => {
                let (log, dead) = (Arc::clone(&self.log), self.process.dead.clone());
                let delay = self.world().rng().between(0, 5_000);
                tokio::spawn(async move {
                    let landing = async {
                        tokio::time::sleep(std::time::Duration::from_millis(delay)).await;
                        // In the order of their numbers: an entry follows the one before it.
                        while number > 1 && log.read(number - 1).await.is_ok_and(|before| before.is_none()) {
                            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                        }
                        while log.create(number, entry.clone()).await.is_err() {}
                    };
                    dead.run_until_cancelled(landing).await;
                });
                Ok(Created::New)
            }
            Mutation::StartWrittenLate => {
                let is_start =
                    Stored::decode(number, &entry).is_ok_and(|stored| matches!(stored.entry, Entry::Start { .. }));
                if is_start {
                    self.world().belief().held_back.insert(me, (number, entry));
                    return Ok(Created::New);
                }
                let held = self.world().belief().held_back.get(&me).cloned();
                if let Some((before, start)) = held {
                    self.log.create(before, start).await?;
                    self.world().belief().held_back.remove(&me);
                }
                self.log.create(number, entry).await
            }
            Mutation::OtherRetries => {
                let first = self.world().belief().tried.get(&(me, number)).cloned();
                let Some(first) = first else {
                    self.world().belief().tried.insert((me, number), entry.clone());
                    return self.log.create(number, entry).await;
                };
                // The decision of then is forgotten, and what remains is said.
                let mut other = Stored::decode(number, &first).unwrap();
                if let Entry::Commit(Commit { seal, .. }) = &mut other.entry {
                    seal.clear();
                }
                self.log.create(number, other.encode().unwrap().into()).await
            }
            Mutation::PositionFetched => {
                let mut stored = Stored::decode(number, &entry).unwrap();
                let first = self.world().belief().tried.get(&(me, number)).cloned();
                let entry = match first {
                    Some(first) => first,
                    None => {
                        self.with_fetched_lows(&mut stored);
                        Bytes::from(stored.encode().unwrap())
                    }
                };
                self.world().belief().tried.insert((me, number), entry.clone());
                let created = self.log.create(number, entry.clone()).await?;
                let landed = self.log.read(number).await?;
                if let Some(landed) = landed {
                    self.believe(number, &landed);
                }
                Ok(created)
            }
            Mutation::Control | Mutation::NoMarks | Mutation::NoRebuild => {
                let created = self.log.create(number, entry).await?;
                if let Some(landed) = self.log.read(number).await? {
                    self.believe(number, &landed);
                }
                Ok(created)
            }
            _ => self.log.create(number, entry).await,
        }
    }

    async fn read(&self, number: u64) -> Result<Option<Bytes>, StoreError> {
        let told = self.told.lock().unwrap().clone();
        if let Some((tip, bytes)) = told
            && tip == number
        {
            return Ok(Some(bytes));
        }
        self.log.read(number).await
    }

    async fn numbers(&self, after: u64) -> Result<Vec<u64>, StoreError> {
        if self.mutation == Mutation::NoLookAbove && after > 0 {
            return Ok(Vec::new());
        }
        let numbers = self.log.numbers(after).await?;
        if after == 0
            && let Some(&tip) = numbers.last()
        {
            match self.mutation {
                Mutation::Control => self.tell(tip, |_| {}),
                Mutation::NoMarks => self.tell(tip, |state| state.marks.clear()),
                Mutation::NoRebuild => self.tell(tip, |state| state.intents.clear()),
                _ => {}
            }
        }
        Ok(numbers)
    }

    async fn delete(&self, number: u64) -> Result<(), StoreError> {
        if self.mutation == Mutation::TakeoversDeleted {
            let takeovers = self.world().oracle().state().takeovers.clone();
            for takeover in takeovers.into_iter().filter(|takeover| *takeover < number) {
                self.log.delete(takeover).await?;
            }
        }
        self.log.delete(number).await
    }

    fn place(&self) -> String {
        self.log.place()
    }
}
