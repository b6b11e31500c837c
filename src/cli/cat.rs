//! `sluice cat`.
//!
//! Owns: its arguments. Does not own: reading.

use std::io;
use std::sync::Arc;

use clap::Args;

use super::reading::{self, PlaceArgs, Sort, TimeArgs, is_pattern, write_out};
use super::{Exit, SettingsArgs};
use crate::reading::cat::Cat;
use crate::reading::reader::Reader;
use crate::reading::survey::Question;
use crate::reading::units::By;

#[derive(Args, Debug)]
pub struct CatArgs {
    #[command(flatten)]
    place: PlaceArgs,
    /// The app id, or the name of a lane without one (_unknown)
    #[arg(long, value_name = "ID")]
    app: String,
    #[command(flatten)]
    time: TimeArgs,
    /// Another order than that of offsets in each partition
    #[arg(long, value_name = "BY")]
    sort: Option<Sort>,
    /// One JSON object a record, with topic, partition, offset and timestamp
    #[arg(long)]
    json: bool,
}

pub fn run(args: &CatArgs, settings: &SettingsArgs) -> io::Result<Exit> {
    reading::run(&args.place, settings, async |session| {
        if is_pattern(&args.app) {
            let message = format!("--app {}: cat writes one app; grep and ls take patterns", args.app);
            return Err(reading::Failure::usage(message).into());
        }
        let question = Question { app: Some(session.place.app_segment(&args.app)), times: session.times(&args.time)? };
        let by = if args.sort.is_some() { By::Time } else { By::Offset };
        let work = Arc::new(Cat { json: args.json });
        let reader = Reader::new(session.place.clone(), Arc::clone(&session.report));
        let mut written = false;
        reader
            .answer(&question, by, &work, |text| {
                written |= !text.is_empty();
                write_out(&text)
            })
            .await?;
        if !written {
            session.report.note(&format!("there is nothing of app {} in that time", args.app));
        }
        Ok(Exit::Done)
    })
}
