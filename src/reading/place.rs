//! Where an archive is, and what is known of it before its first file is read.
//!
//! Owns: a connector's name or a URL as an open store, the segment of an app id, the days of a range of time.
//! Does not own: listing ([`super::catalog`]), settings.

use std::path::Path;
use std::sync::Arc;

use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use super::counted::{Counted, Counters};
use super::times::Times;
use crate::archive::app_id::path_segment;
use crate::archive::key::KeyTemplate;
use crate::clock::Environment;
use crate::config::{Bucket, ConnectorConfig, MissingAppId, SinkConfig, SinkUrl};
use crate::store::{self, Fault, Store, StoreError};

/// An archive that can be read.
#[derive(Clone, Debug)]
pub struct Place {
    /// Counts and retries; keys are relative to the archive's prefix.
    pub store: Arc<dyn Store>,
    pub counters: Arc<Counters>,
    /// The settings, where a connector was named.
    pub connector: Option<Arc<ConnectorConfig>>,
    /// The connector's, else the default (or what the caller says of it).
    pub key: KeyTemplate,
    /// `None`: unknown, so that the date in a key promises nothing.
    pub bucket: Option<Bucket>,
    /// Of the dates in keys, and of dates that are asked for.
    pub zone: TimeZone,
}

impl Place {
    /// Opens a connector's archive.
    ///
    /// # Errors
    /// Settings that can't work, or there is no such directory.
    pub async fn of_connector(connector: ConnectorConfig, environment: &Environment) -> Result<Self, StoreError> {
        let store = open(&connector.sink).await?;
        Ok(Self {
            key: connector.sink.key.clone(),
            bucket: Some(connector.time.bucket),
            zone: connector.time.zone.clone(),
            connector: Some(Arc::new(connector)),
            ..Self::of_store(store, environment)
        })
    }

    /// Opens what a URL names, of which nothing else is known.
    ///
    /// # Errors
    /// Settings that can't work, or there is no such directory.
    pub async fn of_sink(sink: &SinkConfig, environment: &Environment) -> Result<Self, StoreError> {
        let store = open(sink).await?;
        Ok(Self { key: sink.key.clone(), ..Self::of_store(store, environment) })
    }

    /// Takes a store as the archive.
    pub fn of_store(store: Arc<dyn Store>, environment: &Environment) -> Self {
        let counters = Arc::new(Counters::default());
        Self {
            store: Arc::new(Counted::new(store, environment.clone(), Arc::clone(&counters))),
            counters,
            connector: None,
            key: KeyTemplate::default(),
            bucket: None,
            zone: TimeZone::UTC,
        }
    }

    /// The first key segment of an app. Names of the lanes without an id (`_unknown`) stand for those.
    pub fn app_segment(&self, app: &str) -> String {
        let reserved = match self.connector.as_deref() {
            None => matches!(app, "_unknown" | "_dead_letter"),
            Some(connector) => {
                let missing = matches!(&connector.app_id.missing, MissingAppId::Name(name) if name == app);
                missing || connector.dead_letter.path == app
            }
        };
        if reserved { app.to_owned() } else { path_segment(app.as_bytes()) }
    }

    /// The least and greatest local time of a bucket that can hold records within `times`, as far as keys promise it.
    pub fn days(&self, times: &Times) -> (Option<DateTime>, Option<DateTime>) {
        match self.bucket {
            Some(Bucket::Day | Bucket::Hour) => times.local(&self.zone),
            Some(Bucket::None) | None => (None, None),
        }
    }
}

/// A directory that is not there is an empty store to a writer; a reader meant another one.
async fn open(sink: &SinkConfig) -> Result<Arc<dyn Store>, StoreError> {
    if let SinkUrl::File { dir } = &sink.url
        && !Path::new(dir).is_dir()
    {
        return Err(StoreError::new(Fault::Invalid, "open", &sink.url.to_string(), "", "there is no such directory"));
    }
    store::open(sink).await
}
