//! What a connector's logs say of what is to be proven.
//!
//! Owns: reading all logs of a topic, old mappings too, into a scope and into what is known of the objects above low.
//! Does not own: the logs, the fold.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use super::scope::{Extent, Scope};
use super::skips::Told;
use crate::clock::Environment;
use crate::ledger::{Begin, Identity, Intent, Lane, State};
use crate::log::journal::{decided_intents, read_state};
use crate::log::store_log::StoreLog;
use crate::store::Store;
use crate::task::TaskError;
use crate::worker::layout::{self, Mapping};

/// Where a connector's logs are.
#[derive(Clone, Debug)]
pub struct Logs {
    pub connector: String,
    pub state: Arc<dyn Store>,
    pub environment: Environment,
}

/// What the logs of a topic say.
#[derive(Clone, Debug)]
pub struct TopicLogs {
    pub scope: Scope,
    pub known: Known,
    /// What was left out, and by which pending intent's object it will be told, if that is decided.
    pub(super) told: Vec<(Option<String>, Told)>,
}

/// What was decided above low.
#[derive(Clone, Debug, Default)]
pub struct Known {
    lows: BTreeMap<i32, i64>,
    marks: BTreeMap<Lane, BTreeMap<i32, i64>>,
    pending: HashSet<String>,
}

impl Known {
    /// What one log has decided.
    pub fn of(state: &State) -> Self {
        let mut known = Self::default();
        known.add(state);
        known
    }

    /// Whether the log has decided this object, as far as it lies above low.
    pub fn has(&self, intent: &Intent) -> bool {
        let marks = self.marks.get(&intent.lane);
        self.pending.contains(&intent.id.0)
            || intent.ranges.iter().all(|(partition, range)| {
                let mark = marks.and_then(|marks| marks.get(partition)).copied();
                let low = self.lows.get(partition).copied();
                [mark, low].into_iter().flatten().any(|decided| range.last < decided)
            })
    }

    pub fn is_pending(&self, intent_id: &str) -> bool {
        self.pending.contains(intent_id)
    }

    fn add(&mut self, state: &State) {
        self.lows.extend(state.lows.iter().map(|(&partition, low)| (partition, low.offset)));
        for (lane, marks) in &state.marks {
            self.marks.entry(lane.clone()).or_default().extend(marks);
        }
        self.pending.extend(state.intents.keys().map(|id| id.0.clone()));
    }
}

impl Logs {
    fn log(&self, topic: &str, mapping: u32, task: u32) -> StoreLog {
        StoreLog::new(Arc::clone(&self.state), &layout::log_path(&self.connector, topic, mapping, task))
    }

    /// All topics that have logs.
    ///
    /// # Errors
    /// The store fails.
    pub async fn topics(&self) -> Result<Vec<String>, TaskError> {
        Ok(layout::topics(self.state.as_ref(), &self.environment, &self.connector).await?)
    }

    /// `None`: the topic has no log, or it never began.
    ///
    /// # Errors
    /// A log is damaged, or the store fails.
    pub async fn read(&self, topic: &str) -> Result<Option<TopicLogs>, TaskError> {
        let newest = layout::find_mapping(self.state.as_ref(), &self.environment, &self.connector, topic).await?;
        let Some((newest, mapping)) = newest else { return Ok(None) };
        let mut identity: Option<Identity> = None;
        let mut extents: BTreeMap<i32, Extent> = BTreeMap::new();
        let mut started = HashSet::new();
        let (mut known, mut told) = (Known::default(), Vec::<(Option<String>, Told)>::new());
        for task in 0..mapping.tasks_max {
            let state = read_state(&self.log(topic, newest, task), &self.environment).await?;
            if !state.is_started() {
                continue;
            }
            known.add(&state);
            told.extend(state.skips.as_slice().iter().map(|skipped| (None, skipped.into())));
            for (id, pending) in &state.intents {
                told.extend(pending.intent.skipped.iter().map(|skipped| (Some(id.0.clone()), skipped.into())));
            }
            started.insert(task);
            add_extents(&mut extents, &state);
            if identity.as_ref().is_none_or(|identity| identity.incarnation <= state.identity.incarnation) {
                identity = Some(state.identity);
            }
        }
        if let Some(origin) = &mapping.origin {
            for (&partition, &low) in &origin.lows {
                known.lows.entry(partition).or_insert(low);
                let incarnation = origin.identity.incarnation;
                extents.entry(partition).or_insert(Extent { incarnation, ..Extent::new(None, low) });
            }
            let unread = origin
                .skipped
                .iter()
                .filter(|skipped| !started.contains(&(skipped.partition.unsigned_abs() % mapping.tasks_max.max(1))));
            told.extend(unread.map(|skipped| (None, skipped.into())));
            identity = identity.or_else(|| Some(origin.identity.clone()));
        }
        let Some(identity) = identity else { return Ok(None) };
        let begins = self.begins_before(topic, newest).await?;
        for (partition, extent) in &mut extents {
            if newest > 1 {
                // A log of a later mapping begins where the one before ended.
                join_begin(extent, begins.get(partition));
            }
        }
        for (_, told) in told.iter().filter(|(_, told)| told.lost) {
            if let Some(extent) = extents.get_mut(&told.partition) {
                let (first, end) = told.run(extent);
                extent.lose(first, end);
            }
        }
        Ok(Some(TopicLogs { scope: Scope { topic: topic.to_owned(), identity, partitions: extents }, known, told }))
    }

    /// Where the partitions began in the mappings before the newest, the earliest first.
    async fn begins_before(&self, topic: &str, newest: u32) -> Result<BTreeMap<i32, Vec<Begin>>, TaskError> {
        let mut begins: BTreeMap<i32, Vec<Begin>> = BTreeMap::new();
        for number in 1..newest {
            let mapping = self.mapping(topic, number).await?;
            let Some(Mapping { tasks_max, .. }) = mapping else { continue };
            for task in 0..tasks_max {
                let state = read_state(&self.log(topic, number, task), &self.environment).await?;
                for (partition, begin) in state.begins {
                    begins.entry(partition).or_default().push(begin);
                }
            }
        }
        Ok(begins)
    }

    async fn mapping(&self, topic: &str, number: u32) -> Result<Option<Mapping>, TaskError> {
        Ok(layout::read_mapping(self.state.as_ref(), &self.environment, &self.connector, topic, number).await?)
    }

    /// Intents that the entries name which are still there: what was decided lately. In the order of the logs.
    ///
    /// # Errors
    /// A log is damaged, or the store fails.
    pub async fn decided(&self, topic: &str) -> Result<Vec<Intent>, TaskError> {
        let newest = layout::find_mapping(self.state.as_ref(), &self.environment, &self.connector, topic).await?;
        let Some((newest, _)) = newest else { return Ok(Vec::new()) };
        let mut intents = Vec::new();
        for number in 1..=newest {
            let Some(Mapping { tasks_max, .. }) = self.mapping(topic, number).await? else { continue };
            for task in 0..tasks_max {
                intents.extend(decided_intents(&self.log(topic, number, task), &self.environment).await?);
            }
        }
        Ok(intents)
    }
}

fn add_extents(extents: &mut BTreeMap<i32, Extent>, state: &State) {
    for (&partition, low) in &state.lows {
        let begin = state.begins.get(&partition);
        let extent = Extent {
            start: begin.map(|begin| begin.offset),
            low: low.offset,
            incarnation: state.identity.incarnation,
            limits: begin.map(|begin| begin.limits.clone()).unwrap_or_default(),
            lost: Vec::new(),
        };
        extents.insert(partition, extent);
    }
}

/// Where a partition began before its newest log did. That log began where the last of these ended, unless it was reset since.
fn join_begin(extent: &mut Extent, before: Option<&Vec<Begin>>) {
    let reset = !extent.limits.is_empty();
    let Some(before) = before.and_then(|begins| begins.last().map(|last| (begins, last))) else {
        if !reset {
            extent.start = None;
        }
        return;
    };
    let (begins, last) = before;
    let first = begins.iter().map(|begin| begin.offset).min().unwrap_or(last.offset);
    // The newest log's own reset may have begun anew above all of it.
    let goes_on = !reset || extent.limits.iter().any(|&(_, limit)| extent.start.is_some_and(|start| limit > start));
    if goes_on {
        extent.start = Some(extent.start.map_or(first, |start| start.min(first)));
        let mut limits = last.limits.clone();
        limits.append(&mut extent.limits);
        extent.limits = limits;
    }
}
