//! What a reader has to say beside the data.
//!
//! Owns: problems and notes, each said once; the worst problem. Does not own: where they are shown.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use super::ReadError;

/// More different notes than this are not remembered, and so may be said twice.
const MAX_REMEMBERED: usize = 10_000;

/// What the problems of single files add up to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Worst {
    #[default]
    Fine,
    /// Some file could not be read, for another reason than damage.
    Unread,
    Damaged,
}

/// Collects what is said, and says it.
pub struct Report {
    say: Box<dyn Fn(&str) + Send + Sync>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    said: BTreeSet<String>,
    inexact: bool,
    worst: Worst,
}

impl std::fmt::Debug for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Report").field("state", &self.state).finish_non_exhaustive()
    }
}

impl Report {
    pub fn new(say: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Self { say: Box::new(say), state: Mutex::default() }
    }

    /// A file that is left out.
    pub fn problem(&self, error: &ReadError) {
        let worst = match error {
            ReadError::Damaged { .. } => Worst::Damaged,
            _ => Worst::Unread,
        };
        self.once(&error.to_string(), worst);
    }

    /// Something that the user should know of the answer.
    pub fn note(&self, text: &str) {
        self.once(text, Worst::Fine);
    }

    /// The order of what is given out is not exact from here on.
    pub fn inexact(&self, text: &str) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).inexact = true;
        self.note(text);
    }

    pub fn is_inexact(&self) -> bool {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).inexact
    }

    pub fn worst(&self) -> Worst {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).worst
    }

    fn once(&self, text: &str, worst: Worst) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.worst = state.worst.max(worst);
        if state.said.contains(text) {
            return;
        }
        if state.said.len() < MAX_REMEMBERED {
            state.said.insert(text.to_owned());
        }
        (self.say)(text);
    }
}
