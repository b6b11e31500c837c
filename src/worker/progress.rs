//! The progress bar of `--until-caught-up`, on a terminal only.
//!
//! Owns: the bar. Does not own: the figures.

use std::io::IsTerminal as _;
use std::sync::Arc;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::Shared;

const EVERY: Duration = Duration::from_millis(500);

/// Shows a bar until `stop`.
pub fn show(shared: &Arc<Shared>, stop: &CancellationToken) -> JoinHandle<()> {
    let shared = Arc::clone(shared);
    let stop = stop.clone();
    tokio::spawn(async move {
        if !shared.options.until_caught_up || !std::io::stderr().is_terminal() {
            return;
        }
        let bar = ProgressBar::new(0);
        let style = "{bar:40} {percent}% of {len} records, {per_sec}, {eta} left, {msg}";
        if let Ok(style) = ProgressStyle::with_template(style) {
            bar.set_style(style);
        }
        while tokio::time::timeout(EVERY, stop.cancelled()).await.is_err() {
            let reports = shared.board.reports();
            let partitions = reports.iter().flat_map(|report| report.partitions.values());
            let (mut done, mut all) = (0, 0);
            for partition in partitions {
                let start = partition.log_start.unwrap_or_default();
                all += partition.end.unwrap_or(partition.position).saturating_sub(start).max(0);
                done += partition.position.saturating_sub(start).max(0);
            }
            bar.set_length(all.unsigned_abs());
            bar.set_position(done.unsigned_abs());
            bar.set_message(format!("{} objects", reports.iter().map(|report| report.objects).sum::<u64>()));
        }
        bar.finish_and_clear();
    })
}
