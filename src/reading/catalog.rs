//! Which objects of an archive are data, and may hold what is asked for.
//!
//! Owns: listing page by page, leaving out state and sidecars, narrowing by app and by the day that keys promise.
//! Does not own: what is in a file ([`super::file`]): a key narrows, the index decides.

use std::collections::VecDeque;

use futures::stream::{self, Stream, StreamExt, TryStreamExt};
use jiff::civil::DateTime;

use super::ReadError;
use super::place::Place;
use super::times::Times;
use crate::archive::index::is_sidecar;
use crate::archive::key::{KeyParts, KeyReader, KeySpan};
use crate::config::Bucket;
use crate::store::{Depth, Listed};
use crate::worker::layout::STATE_FOLDER;

/// Entries asked for at a time: a page is all that a listing holds in memory.
const PAGE: usize = 1000;

/// A data object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub key: String,
    /// As listed.
    pub size: u64,
    /// What the key says, where it is of the archive's template.
    pub parts: Option<KeyParts>,
}

/// The objects that may hold records of an app (its segment; `None`: of all) within `times`, in key order.
pub fn files(place: &Place, app: Option<&str>, times: &Times) -> impl Stream<Item = Result<Entry, ReadError>> + use<> {
    let days = place.days(times);
    let span = match app {
        Some(app) => place.key.span(app, days),
        None => KeySpan { prefix: String::new(), after: None, last: None },
    };
    let filter = Filter {
        reader: place.key.reader(),
        app: app.map(str::to_owned),
        days,
        hours: place.bucket == Some(Bucket::Hour),
    };
    listed(place, span).try_filter_map(move |object| std::future::ready(Ok(filter.entry(object))))
}

/// The segments of all apps that have a folder, in the order of their keys. `None`: the key template has no folders of apps.
pub fn apps(place: &Place) -> Option<impl Stream<Item = Result<String, ReadError>> + use<>> {
    let folder = place.key.app_folder()?.to_owned();
    let place = place.clone();
    let pages = stream::try_unfold(Some(None::<String>), move |after| {
        let (place, folder) = (place.clone(), folder.clone());
        async move {
            let Some(after) = after else { return Ok::<_, ReadError>(None) };
            let page = place.store.list(&folder, Depth::Folder, after.as_deref(), PAGE).await?;
            let names = page.folders.iter().filter_map(|name| name.strip_prefix(&folder));
            let names: Vec<_> = names.map(|name| name.trim_end_matches('/').to_owned()).collect();
            let names = names.into_iter().filter(|name| name != STATE_FOLDER).map(Ok).collect::<Vec<_>>();
            Ok(Some((stream::iter(names), page.next.map(Some))))
        }
    });
    Some(pages.try_flatten())
}

#[derive(Debug)]
struct Filter {
    reader: KeyReader,
    app: Option<String>,
    days: (Option<DateTime>, Option<DateTime>),
    /// Whether the hour in a key is its bucket's.
    hours: bool,
}

impl Filter {
    fn entry(&self, object: Listed) -> Option<Entry> {
        if is_sidecar(&object.key) {
            return None;
        }
        let parts = self.reader.read(&object.key);
        if let Some(parts) = &parts
            && (self.app.as_ref().is_some_and(|app| *app != parts.app) || !self.fits(parts))
        {
            return None;
        }
        Some(Entry { key: object.key, size: object.size, parts })
    }

    fn fits(&self, parts: &KeyParts) -> bool {
        let Some(date) = parts.date else { return true };
        let hour = parts.hour.filter(|_| self.hours);
        // Without an hour the bucket may be any of its day.
        let place = |at: DateTime| (at.date(), hour.map(|_| at.hour()));
        let bucket = (date, hour);
        self.days.0.is_none_or(|first| place(first) <= bucket) && self.days.1.is_none_or(|last| bucket <= place(last))
    }
}

/// The objects of a stretch of the listing, without what is ours and no data.
fn listed(place: &Place, span: KeySpan) -> impl Stream<Item = Result<Listed, ReadError>> + use<> {
    struct State {
        place: Place,
        span: KeySpan,
        waiting: VecDeque<Listed>,
        after: Option<String>,
        more: bool,
    }
    let state = State { place: place.clone(), after: span.after.clone(), span, waiting: VecDeque::new(), more: true };
    stream::try_unfold(state, |mut state| async move {
        loop {
            if let Some(object) = state.waiting.pop_front() {
                let beyond = |last: &String| object.key > *last && !object.key.starts_with(last.as_str());
                if state.span.last.as_ref().is_some_and(beyond) {
                    return Ok(None);
                }
                return Ok(Some((object, state)));
            }
            if !state.more {
                return Ok(None);
            }
            let page = state.place.store.list(&state.span.prefix, Depth::All, state.after.as_deref(), PAGE).await?;
            state.more = page.next.is_some();
            state.after = page.next;
            let is_state = |key: &str| key.strip_prefix(STATE_FOLDER).is_some_and(|rest| rest.starts_with('/'));
            // Logs may have many entries: the listing goes on behind them (no name of ours has a `~`).
            if state.after.as_deref().is_some_and(is_state) {
                state.after = Some(format!("{STATE_FOLDER}/~"));
            }
            state.waiting.extend(page.objects.into_iter().filter(|object| !is_state(&object.key)));
        }
    })
    .boxed()
}
