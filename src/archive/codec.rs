//! Codecs.

/// How frames are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Codec {
    Lz4,
    Zstd,
    Gzip,
    None,
}
