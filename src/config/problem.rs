//! What is wrong with the settings, and where.
//!
//! Owns: the place of a key (file, line, column or environment variable), a problem's wording around its message.
//! Does not own: the checks.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// Where a setting was written. The order is that of reading: file, line, column.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// A file or directory as a whole.
    File(Arc<Path>),
    /// Line and column count from 1, columns in characters.
    Line { file: Arc<Path>, line: usize, column: usize },
    /// An environment variable.
    Variable(String),
}

impl Place {
    pub fn file(path: &Path) -> Self {
        Self::File(Arc::from(path))
    }

    /// The line, where there is one.
    pub fn line(&self) -> Option<usize> {
        match self {
            Self::Line { line, .. } => Some(*line),
            Self::File(_) | Self::Variable(_) => None,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(file) => write!(f, "{}", file.display()),
            Self::Line { file, line, column } => write!(f, "{}:{line}:{column}", file.display()),
            Self::Variable(name) => write!(f, "environment variable {name}"),
        }
    }
}

/// One thing that is wrong (or, in a list of warnings, doubtful). Never holds a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub place: Place,
    /// The key with dots, `rotate.max_bytes`; empty where it is about a whole file.
    pub key: String,
    /// What is wrong and what to write instead; lowercase, no full stop.
    pub message: String,
}

impl Problem {
    pub fn new(place: Place, key: impl Into<String>, message: impl Into<String>) -> Self {
        Self { place, key: key.into(), message: message.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.key.is_empty() {
            write!(f, "{}: {}", self.place, self.message)
        } else {
            write!(f, "{}: {}: {}", self.place, self.key, self.message)
        }
    }
}

/// Everything that is wrong, of all files at once; never empty. One line each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}
