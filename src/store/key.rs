//! Which keys every store takes.
//!
//! Owns: the check that a key is one and the same thing in a bucket and in a directory tree.
//! Does not own: how keys are made (`archive::key`).

/// Begins the names of unfinished files in a local store; no key segment may begin so.
pub(super) const TEMP_PREFIX: &str = ".sluice-tmp-";

/// S3 counts bytes, the store's own prefix included.
pub(super) const MAX_KEY_BYTES: usize = 1024;

/// Checks a whole key: `/`-separated segments, none empty, `.` or `..`, no control characters.
pub(super) fn check_key(key: &str) -> Result<(), String> {
    if key.is_empty() {
        return Err("the key is empty".to_owned());
    }
    check_text(key)?;
    key.split('/').try_for_each(check_segment)
}

/// Checks a string prefix of keys: its last segment may be unfinished, or empty.
pub(super) fn check_prefix(prefix: &str) -> Result<(), String> {
    check_text(prefix)?;
    match prefix.rsplit_once('/') {
        None => Ok(()),
        Some((folder, _)) => folder.split('/').try_for_each(check_segment),
    }
}

fn check_text(text: &str) -> Result<(), String> {
    if text.len() > MAX_KEY_BYTES {
        return Err(format!("the key has {} bytes, more than {MAX_KEY_BYTES}", text.len()));
    }
    match text.chars().find(|c| c.is_control()) {
        Some(c) => Err(format!("the key holds the control character {c:?}")),
        None => Ok(()),
    }
}

fn check_segment(segment: &str) -> Result<(), String> {
    match segment {
        "" => Err("the key has an empty segment".to_owned()),
        "." | ".." => Err(format!("the key has the segment {segment:?}")),
        _ if segment.starts_with(TEMP_PREFIX) => {
            Err(format!("the key has a segment that begins with {TEMP_PREFIX}, which is reserved"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_could_leave_the_store_or_mean_two_things_are_refused() {
        for bad in [
            "",
            "/",
            "/a",
            "a/",
            "a//b",
            "..",
            "../a",
            "a/../b",
            "a/..",
            ".",
            "a/./b",
            "a\0b",
            "a\nb",
            "x/.sluice-tmp-1",
        ] {
            assert!(check_key(bad).is_err(), "{bad:?} passed");
        }
        assert!(check_key(&"k".repeat(1025)).is_err());
        for good in ["a", "a/b", "...", "a..b", ".hidden", "a+b/c d/%2F~ü", "a\\b"] {
            assert!(check_key(good).is_ok(), "{good:?} was refused");
        }
    }

    #[test]
    fn a_prefix_may_end_anywhere() {
        for good in ["", "a", "a/", "a/b", "."] {
            assert!(check_prefix(good).is_ok(), "{good:?} was refused");
        }
        for bad in ["/", "../", "a//", "a//b", "/a"] {
            assert!(check_prefix(bad).is_err(), "{bad:?} passed");
        }
    }
}
