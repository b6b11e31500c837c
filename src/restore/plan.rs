//! What there is to restore, from indexes alone.
//!
//! Owns: the sums, what they mean for the target. Does not own: reading records.

use futures::StreamExt;
use serde::Serialize;

use crate::archive::format::Format;
use crate::reading::ReadError;
use crate::reading::catalog::files;
use crate::reading::file::open_all;
use crate::reading::place::Place;
use crate::reading::report::Report;
use crate::reading::survey::{Emitted, fitting};
use crate::reading::times::Times;

/// What the archive holds of the apps in that time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Plan {
    pub files: u64,
    /// Files whose records come back without key and headers.
    pub raw_files: u64,
    /// At most: where the time cuts a frame, the records of all of it count.
    pub records: u64,
    /// Decompressed.
    pub bytes: u64,
    /// Partitions that the target needs where each record keeps its own.
    pub partitions: i32,
    /// Event time of the earliest.
    pub min_time_ms: Option<i64>,
}

/// Adds up the files of some apps (by segment).
///
/// # Errors
/// The store. Files that can't be read are reported and left out.
pub async fn plan(place: &Place, apps: &[String], times: &Times, report: &Report) -> Result<Plan, ReadError> {
    let mut plan = Plan::default();
    for app in apps {
        let mut opened = std::pin::pin!(open_all(place, files(place, Some(app), times)));
        while let Some(opened) = opened.next().await {
            let file = match opened {
                Ok(file) => file,
                Err((Some(_), error)) if error.is_of_one_file() => {
                    report.problem(&error);
                    continue;
                }
                Err((_, error)) => return Err(error),
            };
            let Some(index) = file.index.as_deref().filter(|index| index.facts.app == *app) else { continue };
            let frames = fitting(index, times, &Emitted::new());
            plan.files += u64::from(!frames.is_empty());
            plan.raw_files += u64::from(!frames.is_empty() && index.facts.format == Format::Raw);
            for frame in frames.iter().filter_map(|&number| index.frames.get(number)) {
                plan.bytes += frame.raw_len;
                plan.min_time_ms =
                    Some(plan.min_time_ms.map_or(frame.min_time_ms, |known| known.min(frame.min_time_ms)));
                for held in &frame.partitions {
                    plan.records += held.count;
                    plan.partitions = plan.partitions.max(held.partition.saturating_add(1));
                }
            }
        }
    }
    Ok(plan)
}
