//! Owning a task: taking its log over and appending to it.
//!
//! Owns: the tip, the token, verbatim retries, telling one's own entry from another's, clean-up below snapshots.
//! Does not own: what is appended.

use std::sync::Arc;

use bytes::Bytes;
use futures::stream::{self, StreamExt, TryStreamExt};

use super::LogDoor;
use crate::clock::Environment;
use crate::ledger::encoding::{DecodeError, Stored};
use crate::ledger::{Entry, Intent, LedgerError, State, StepId, Token};
use crate::store::retrying::retrying;
use crate::store::{Created, StoreError};

/// Entries read at a time when a log is opened.
const READ_AHEAD: usize = 16;
/// Attempts to take a log over that others are taking over at the same time.
const MAX_TAKEOVER_ATTEMPTS: usize = 8;

/// Why a log can't be used, or not any more.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LogError {
    /// Somebody else owns the task now.
    #[error("worker {by} has taken this task over (log entry {number} of {place})")]
    Fenced { by: String, number: u64, place: String },
    /// The log is not what was written.
    #[error(
        "log entry {number} of {place} is damaged: {why}. Restore the object from a backup or a bucket version, or stop the connector's workers and rebuild the log from the archived files with `sluice recover`"
    )]
    Damaged { number: u64, place: String, why: String },
    /// The log comes from a newer version of this program.
    #[error("log entry {number} of {place}: {why}")]
    Newer { number: u64, place: String, why: String },
    /// The store refuses for good.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The right to append to a log, as long as nobody takes it over.
#[derive(Debug)]
pub struct Journal {
    door: Arc<dyn LogDoor>,
    environment: Environment,
    token: Token,
    /// Whose log it was before.
    predecessor: Option<Token>,
    tip: u64,
    /// Numbers that clean-up may delete once a newer snapshot covers them.
    deletable: Vec<u64>,
    entries_since_snapshot: u64,
}

impl Journal {
    /// Takes the task over: reads its log to the tip and appends a Takeover.
    ///
    /// # Errors
    /// [`LogError`]; transient failures of the store are retried inside.
    pub async fn take_over(
        door: Arc<dyn LogDoor>,
        environment: Environment,
        worker: &str,
    ) -> Result<(Self, State), LogError> {
        let token = Token(format!("{:032x}", environment.random.next_u128()));
        let mut last = None;
        for _ in 0..MAX_TAKEOVER_ATTEMPTS {
            let (mut state, deletable, since_snapshot) = read_log(door.as_ref(), &environment).await?;
            let mut journal = Self {
                door: Arc::clone(&door),
                environment: environment.clone(),
                token: token.clone(),
                predecessor: state.owner.as_ref().map(|owner| owner.token.clone()),
                tip: state.tip,
                deletable,
                entries_since_snapshot: since_snapshot,
            };
            let time_ms = environment.clock.now_ms();
            match journal.append(Entry::Takeover { worker: worker.to_owned(), time_ms }).await {
                Ok(stored) if journal.landed_late(stored.number).await? => {
                    last =
                        Some(LogError::Fenced { by: "unknown".to_owned(), number: stored.number, place: door.place() });
                }
                Ok(stored) => {
                    state.apply(&stored).map_err(|error| damaged(door.as_ref(), &error))?;
                    return Ok((journal, state));
                }
                // Another worker was faster; it has a right to be taken over in turn.
                Err(error @ LogError::Fenced { .. }) => last = Some(error),
                Err(error) => return Err(error),
            }
        }
        Err(last.unwrap_or_else(|| LogError::Fenced { by: "unknown".to_owned(), number: 0, place: door.place() }))
    }

    /// Takes a log over that can't be read: behind what is left of it, and not below `at_least`, where it had entries before. Where
    /// its tip is gone, `fence` numbers are taken, since it is not known which is the next one of an owner that still runs. The
    /// caller appends a Snapshot next; until then the log can't be read. Answers with the numbers that must be kept: all that are
    /// there.
    ///
    /// # Errors
    /// [`LogError::Fenced`]: somebody appends to it at this moment.
    pub async fn begin_anew(
        door: Arc<dyn LogDoor>,
        environment: Environment,
        worker: &str,
        at_least: u64,
        fence: u64,
    ) -> Result<(Self, Vec<u64>), LogError> {
        let mut kept = retrying(&environment, || door.numbers(0)).await?;
        let is_tip_lost = kept.last().is_none_or(|last| *last < at_least);
        let fence = if is_tip_lost { fence.max(1) } else { 1 };
        let mut journal = Self {
            door,
            token: Token(format!("{:032x}", environment.random.next_u128())),
            predecessor: None,
            tip: kept.last().copied().unwrap_or_default().max(at_least),
            environment,
            deletable: Vec::new(),
            entries_since_snapshot: 0,
        };
        for _ in 0..fence {
            let time_ms = journal.environment.clock.now_ms();
            let stored = journal.append(Entry::Takeover { worker: worker.to_owned(), time_ms }).await?;
            kept.push(stored.number);
        }
        Ok((journal, kept))
    }

    /// Whether the Takeover just created at `number` landed on a number that clean-up had freed: then a snapshot lies above it,
    /// and it decides nothing. So does an entry above it that is gone before it can be read: only clean-up below a newer
    /// snapshot deletes.
    async fn landed_late(&self, number: u64) -> Result<bool, LogError> {
        let door = self.door.as_ref();
        let above = retrying(&self.environment, || door.numbers(number)).await?;
        for number in above {
            let found = read_entry(door, &self.environment, number).await?;
            if found.is_none_or(|stored| stored.entry.is_snapshot()) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    pub fn tip(&self) -> u64 {
        self.tip
    }

    pub fn token(&self) -> &Token {
        &self.token
    }

    /// The token of the last owner before us.
    pub fn predecessor(&self) -> Option<&Token> {
        self.predecessor.as_ref()
    }

    pub fn entries_since_snapshot(&self) -> u64 {
        self.entries_since_snapshot
    }

    /// Appends an entry. Repeats the same bytes at the same number until its fate is known.
    ///
    /// # Errors
    /// [`LogError::Fenced`]: the number holds another's entry. Transient failures are retried inside, for ever.
    pub async fn append(&mut self, entry: Entry) -> Result<Stored, LogError> {
        let number = self.tip + 1;
        let step = StepId(format!("{:032x}", self.environment.random.next_u128()));
        let stored = Stored { number, token: self.token.clone(), step, entry };
        let bytes = stored.encode().map_err(|error| LogError::Damaged {
            number,
            place: self.door.place(),
            why: format!("can't be encoded: {error}"),
        })?;
        let bytes = Bytes::from(bytes);
        let door = self.door.as_ref();
        let created = retrying(&self.environment, || door.create(number, bytes.clone())).await?;
        if created == Created::Exists {
            self.expect_own(&stored).await?;
        }
        self.tip = number;
        self.entries_since_snapshot += 1;
        if stored.entry.is_snapshot() {
            self.entries_since_snapshot = 0;
        }
        if !stored.entry.is_takeover() {
            self.deletable.push(number);
        }
        Ok(stored)
    }

    /// The number is taken: by an earlier attempt of this very step, or by another owner.
    async fn expect_own(&self, mine: &Stored) -> Result<(), LogError> {
        let found = read_entry(self.door.as_ref(), &self.environment, mine.number).await?;
        let by = match found {
            Some(found) if found.step == mine.step && found.token == mine.token => return Ok(()),
            Some(Stored { entry: Entry::Takeover { worker, .. }, .. }) => worker,
            // Cleaned in the meantime, or not a Takeover: whoever wrote it took over further down.
            _ => "unknown (it took over earlier)".to_owned(),
        };
        Err(LogError::Fenced { by, number: mine.number, place: self.door.place() })
    }

    /// Deletes what the snapshot at the tip covers; Takeovers stay for ever, so that a late append of any age still collides.
    /// Stops at the first failure: the next clean-up goes on.
    pub async fn clean_up(&mut self) -> Result<usize, StoreError> {
        let tip = self.tip;
        let mut deleted = 0;
        while let Some(&number) = self.deletable.first() {
            if number >= tip {
                break;
            }
            self.door.delete(number).await?;
            self.deletable.remove(0);
            deleted += 1;
        }
        Ok(deleted)
    }
}

/// Reads a log without taking it over.
///
/// # Errors
/// [`LogError`]; transient failures are retried inside.
pub async fn read_state(door: &dyn LogDoor, environment: &Environment) -> Result<State, LogError> {
    Ok(read_log(door, environment).await?.0)
}

/// The intents in all entries that are still there. Entries that can't be read, or vanish meanwhile, are passed over: this tells
/// more of what is known, and decides nothing.
///
/// # Errors
/// The store refuses for good.
pub async fn decided_intents(door: &dyn LogDoor, environment: &Environment) -> Result<Vec<Intent>, LogError> {
    let numbers = retrying(environment, || door.numbers(0)).await?;
    let reads: Vec<_> = numbers.iter().map(|&number| read_entry(door, environment, number)).collect();
    let mut entries = stream::iter(reads).buffered(READ_AHEAD);
    let mut intents = Vec::new();
    while let Some(entry) = entries.next().await {
        match entry {
            Ok(Some(Stored { entry: Entry::Commit(commit), .. })) => {
                let replaced = commit.replaced.into_iter().filter_map(|replaced| replaced.by);
                intents.extend(commit.seal.into_iter().chain(replaced));
            }
            Ok(Some(Stored { entry: Entry::Snapshot { state }, .. })) => {
                intents.extend(state.intents.into_values().map(|pending| pending.intent));
            }
            Err(LogError::Store(error)) => return Err(error.into()),
            Ok(_) | Err(_) => {}
        }
    }
    Ok(intents)
}

/// The state at the tip, the numbers that clean-up may delete, and how many entries follow the newest snapshot.
async fn read_log(door: &dyn LogDoor, environment: &Environment) -> Result<(State, Vec<u64>, u64), LogError> {
    let mut missing_before = None;
    loop {
        let numbers = retrying(environment, || door.numbers(0)).await?;
        match newest_snapshot_and_after(door, environment, &numbers).await? {
            Ok(tail) => return fold(door, &numbers, &tail),
            // A live owner's clean-up may have deleted it between the listing and the reading; then the next listing has moved
            // on. The same entry missing twice was lost.
            Err(number) if missing_before == Some(number) => return Err(missing(door, number)),
            Err(number) => missing_before = Some(number),
        }
    }
}

fn fold(door: &dyn LogDoor, numbers: &[u64], tail: &[Stored]) -> Result<(State, Vec<u64>, u64), LogError> {
    let first = tail.first().map_or(1, |stored| stored.number);
    if tail.first().is_some_and(|stored| !stored.entry.is_snapshot() && stored.number != 1) {
        return Err(missing(door, first - 1));
    }
    let mut state = State::default();
    let mut since_snapshot = 0;
    for stored in tail {
        if stored.number != first && stored.number != state.tip + 1 {
            return Err(missing(door, state.tip + 1));
        }
        state.apply(stored).map_err(|error| damaged(door, &error))?;
        since_snapshot = if stored.entry.is_snapshot() { 0 } else { since_snapshot + 1 };
    }
    // Also what an interrupted clean-up left below the snapshot.
    let deletable = numbers.iter().copied().filter(|number| state.takeovers.binary_search(number).is_err()).collect();
    Ok((state, deletable, since_snapshot))
}

/// The entries from the newest snapshot on, or all where there is none. Reads downwards from the tip. The inner error is the
/// number of a listed entry that could not be found.
async fn newest_snapshot_and_after(
    door: &dyn LogDoor,
    environment: &Environment,
    numbers: &[u64],
) -> Result<Result<Vec<Stored>, u64>, LogError> {
    let reads: Vec<_> = numbers
        .iter()
        .rev()
        .map(|&number| async move { read_entry(door, environment, number).await.map(|stored| (number, stored)) })
        .collect();
    let mut downwards = stream::iter(reads).buffered(READ_AHEAD);
    let mut tail = Vec::new();
    while let Some((number, stored)) = downwards.try_next().await? {
        let Some(stored) = stored else { return Ok(Err(number)) };
        let found = stored.entry.is_snapshot();
        tail.push(stored);
        if found {
            break;
        }
    }
    tail.reverse();
    Ok(Ok(tail))
}

async fn read_entry(door: &dyn LogDoor, environment: &Environment, number: u64) -> Result<Option<Stored>, LogError> {
    let Some(bytes) = retrying(environment, || door.read(number)).await? else { return Ok(None) };
    match Stored::decode(number, &bytes) {
        Ok(stored) => Ok(Some(stored)),
        Err(error @ DecodeError::Newer { .. }) => {
            Err(LogError::Newer { number, place: door.place(), why: error.to_string() })
        }
        Err(error) => Err(LogError::Damaged { number, place: door.place(), why: error.to_string() }),
    }
}

fn damaged(door: &dyn LogDoor, error: &LedgerError) -> LogError {
    LogError::Damaged { number: error.number, place: door.place(), why: error.rule.clone() }
}

fn missing(door: &dyn LogDoor, number: u64) -> LogError {
    LogError::Damaged { number, place: door.place(), why: "it is missing".to_owned() }
}

#[cfg(test)]
#[path = "journal_tests.rs"]
mod tests;
