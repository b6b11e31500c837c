//! How far low may go on from what objects tell of it.
//!
//! Owns: following the objects above low, offset by offset, to the first that none holds. Does not own: which objects
//! ([`super::scan`]).

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use futures::stream::{self, TryStreamExt};

use super::scan::{Found, Held, PARALLEL};
use crate::archive::index::{FrameEntry, SkipReason};
use crate::reading::ReadError;
use crate::reading::catalog::Entry;
use crate::reading::file;
use crate::reading::place::Place;
use crate::verify::coverage::{Coverage, Span, WINDOW_OFFSETS};
use crate::verify::tables::for_each_table;

/// `floors`: per partition the low to begin with, and where the objects end. Low goes on while each offset is in an object or told
/// as left out, at most over a window's offsets: what is left is read again, and costs no more than that.
///
/// # Errors
/// The store fails, or an object is damaged.
pub async fn extend(
    place: &Place,
    found: &Found,
    floors: &BTreeMap<i32, (i64, i64)>,
) -> Result<BTreeMap<i32, i64>, ReadError> {
    let open: Vec<(i32, i64, i64)> =
        floors.iter().filter(|(_, (low, end))| low < end).map(|(&p, &(low, end))| (p, low, end)).collect();
    let share = (WINDOW_OFFSETS / (open.len() as u64).max(1)).cast_signed();
    let window: Vec<Span> = open
        .iter()
        .map(|&(partition, first, end)| Span { partition, first, end: end.min(first.saturating_add(share)) })
        .collect();
    let coverage = Mutex::new(Coverage::new(&window));
    let counting: BTreeMap<i32, _> =
        open.iter().filter_map(|&(partition, ..)| Some((partition, found.counting(partition)?.0))).collect();
    let touching = found.held.iter().filter(|held| {
        held.intent.ranges.iter().any(|(partition, range)| {
            let counts = counting.get(partition).is_some_and(|counting| counting.contains(&held.incarnation));
            counts && window.iter().any(|span| span.partition == *partition && range.last >= span.first)
        })
    });
    stream::iter(touching.map(Ok::<_, ReadError>))
        .try_for_each_concurrent(PARALLEL, |held| {
            let (coverage, counting) = (&coverage, &counting);
            async move { mark(place, held, coverage, counting).await }
        })
        .await?;
    let coverage = coverage.into_inner().unwrap_or_else(PoisonError::into_inner);
    let reach = |partition: i32, low: i64| {
        let span = window.iter().find(|span| span.partition == partition);
        span.map_or(low, |span| coverage.next_missing(partition, low).unwrap_or(span.end))
    };
    Ok(floors.iter().map(|(&partition, &(low, _))| (partition, reach(partition, low))).collect())
}

async fn mark(
    place: &Place,
    held: &Held,
    coverage: &Mutex<Coverage>,
    counting: &BTreeMap<i32, std::collections::BTreeSet<u32>>,
) -> Result<(), ReadError> {
    let lock = || coverage.lock().unwrap_or_else(PoisonError::into_inner);
    let entry = Entry { key: held.intent.key.clone(), size: held.size, parts: None };
    let file = file::open(place, &entry).await?;
    let Some(index) = &file.index else { return Ok(()) };
    let counts = |partition: i32, incarnation: u32| {
        counting.get(&partition).is_some_and(|counting| counting.contains(&incarnation))
    };
    for skipped in &index.facts.skipped {
        // Only where each offset is known.
        if skipped.scattered.is_none()
            && skipped.reason != SkipReason::Lost
            && counts(skipped.partition, skipped.incarnation)
        {
            lock().tell(skipped.partition, skipped.first, skipped.last);
        }
    }
    let touches =
        |frame: &FrameEntry| frame.partitions.iter().any(|run| lock().touches(run.partition, run.first, run.last));
    let marked = for_each_table(place, &file, index, touches, |_, records| {
        let mut coverage = lock();
        for record in records.iter().filter(|record| counts(record.partition, held.incarnation)) {
            coverage.found(record.partition, record.offset);
        }
    });
    match marked.await {
        // Low stops there; verify names what is wrong with it.
        Err(error) if error.is_of_one_file() => {
            tracing::warn!(%error, "low does not go on past this object");
            Ok(())
        }
        marked => marked,
    }
}
