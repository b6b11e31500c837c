//! `sluice grep`.
//!
//! Owns: its arguments, apps one after the other. Does not own: reading, matching.

use std::io;
use std::sync::Arc;

use clap::Args;

use super::reading::{self, PlaceArgs, Sort, TimeArgs, app_name, is_pattern, write_out};
use super::{Exit, SettingsArgs};
use crate::reading::grep::{Around, Grep, Pattern, PatternOptions, Shape, Style};
use crate::reading::reader::Reader;
use crate::reading::survey::Question;
use crate::reading::units::By;

#[derive(Args, Debug)]
pub struct GrepArgs {
    #[command(flatten)]
    place: PlaceArgs,
    /// A regular expression (Rust's syntax), matched against lines
    pattern: String,
    /// An app id, or a pattern of ids with * and ?; may be given several times [default: all]
    #[arg(long, value_name = "ID")]
    app: Vec<String>,
    #[command(flatten)]
    time: TimeArgs,
    /// Another order within each app than that of offsets in each partition
    #[arg(long, value_name = "BY")]
    sort: Option<Sort>,
    /// The pattern is text as it is
    #[arg(short = 'F', long)]
    fixed_strings: bool,
    /// Upper and lower case are the same
    #[arg(short, long)]
    ignore_case: bool,
    /// Lines that do not match
    #[arg(short = 'v', long)]
    invert_match: bool,
    /// Only the number of lines, of each app
    #[arg(short, long)]
    count: bool,
    /// Lines after each match
    #[arg(short = 'A', long, value_name = "NUM")]
    after_context: Option<usize>,
    /// Lines before each match
    #[arg(short = 'B', long, value_name = "NUM")]
    before_context: Option<usize>,
    /// Lines before and after each match
    #[arg(short = 'C', long, value_name = "NUM")]
    context: Option<usize>,
    /// Whole records that match, one JSON object each
    #[arg(long, conflicts_with_all = ["after_context", "before_context", "context"])]
    json: bool,
}

impl GrepArgs {
    fn around(&self) -> (usize, usize) {
        let of = |own: Option<usize>| own.or(self.context).unwrap_or_default();
        (of(self.before_context), of(self.after_context))
    }

    fn shape(&self) -> Shape {
        match (self.count, self.json, self.around()) {
            (true, ..) => Shape::Count,
            (_, true, _) => Shape::Json,
            (_, _, (0, 0)) => Shape::Lines,
            _ => Shape::Around,
        }
    }
}

pub fn run(args: &GrepArgs, settings: &SettingsArgs) -> io::Result<Exit> {
    reading::run(&args.place, settings, async |session| {
        let options =
            PatternOptions { fixed: args.fixed_strings, ignore_case: args.ignore_case, invert: args.invert_match };
        let pattern = Pattern::new(&args.pattern, options).map_err(reading::Failure::usage)?;
        let times = session.times(&args.time)?;
        let apps = session.apps(&args.app).await?;
        let is_one = args.app.len() == 1 && !args.app.iter().any(|app| is_pattern(app));
        let apps: Vec<Option<String>> = apps.map_or(vec![None], |apps| apps.into_iter().map(Some).collect());
        let reader = Reader::new(session.place.clone(), Arc::clone(&session.report));
        let by = if args.sort.is_some() { By::Time } else { By::Offset };
        let mut total = 0;
        for app in apps {
            let prefix = app.as_deref().filter(|_| !is_one).map(app_name);
            let style = Style { prefix, colour: super::colour(&io::stdout()) };
            let grep = Grep { pattern: pattern.clone(), style: style.clone(), shape: args.shape() };
            let (before, after) = args.around();
            let mut around = Around::new(grep.clone(), before, after);
            let mut count = 0;
            let question = Question { app, times };
            let grep = Arc::new(grep);
            reader
                .answer(&question, by, &grep, |found| {
                    count += found.count;
                    match args.shape() {
                        Shape::Around => write_out(&around.push(&found)),
                        _ => write_out(&found.text),
                    }
                })
                .await?;
            total += count;
            if args.shape() == Shape::Count && (is_one || count > 0) {
                let prefix = style.prefix.map(|prefix| prefix + ":").unwrap_or_default();
                write_out(format!("{prefix}{count}\n").as_bytes()).map_err(reading::Stop::Out)?;
            }
        }
        Ok(if total > 0 { Exit::Done } else { Exit::NotSo })
    })
}
