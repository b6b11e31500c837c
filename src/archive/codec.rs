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

/// # Errors
/// The codec has no such level.
pub fn validate_level(codec: Codec, level: Option<i32>) -> Result<(), String> {
    match (codec, level) {
        (_, None) => Ok(()),
        (Codec::Lz4 | Codec::None, Some(_)) => Err("this codec has no levels".to_owned()),
        (Codec::Zstd, Some(level)) if !(-7..=22).contains(&level) => Err("zstd has levels -7 to 22".to_owned()),
        (Codec::Gzip, Some(level)) if !(1..=9).contains(&level) => Err("gzip has levels 1 to 9".to_owned()),
        (Codec::Zstd | Codec::Gzip, Some(_)) => Ok(()),
    }
}
