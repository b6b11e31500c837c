//! Object keys.

/// A checked key template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyTemplate {
    text: String,
}

/// A template that can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must keep {0}")]
pub struct KeyTemplateError(&'static str);

impl KeyTemplate {
    /// # Errors
    /// A placeholder that keeps keys apart is not there.
    pub fn parse(text: &str) -> Result<Self, KeyTemplateError> {
        for placeholder in ["{app_id}", "{topic}", "{partition}", "{offset}"] {
            if !text.contains(placeholder) {
                return Err(KeyTemplateError(placeholder));
            }
        }
        Ok(Self { text: text.to_owned() })
    }
}

impl std::fmt::Display for KeyTemplate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

impl Default for KeyTemplate {
    fn default() -> Self {
        Self { text: "{app_id}/{date}/{time}_{topic}+{partition}+{offset}.{ext}".to_owned() }
    }
}
