//! Object keys.

/// A checked key template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyTemplate;
