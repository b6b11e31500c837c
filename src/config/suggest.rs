//! The nearest valid word for a mistyped one.
//!
//! Owns: the measure of likeness. Does not own: which words are valid.

use std::cmp::Reverse;

/// The candidate most like `word`, if one is near enough to be meant.
///
/// Case, `-`, `.` and `_` make no difference; each wrong, missing or extra letter and each swap of neighbours counts one, and
/// a third of the word may be wrong. Of two equally near ones the one that begins alike longer was meant.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // Nobody means a word of the schema by something this long, and the distance costs its square.
    const MAX_CHARS: usize = 64;
    let word = plain(word);
    if word.len() > MAX_CHARS {
        return None;
    }
    candidates
        .into_iter()
        .map(|candidate| (plain(candidate), candidate))
        .map(|(letters, candidate)| (distance(&word, &letters), Reverse(alike(&word, &letters)), candidate))
        .filter(|(distance, _, candidate)| *distance <= (word.len().max(candidate.len()) / 3).max(1))
        .min_by_key(|(distance, alike, _)| (*distance, *alike))
        .map(|(_, _, candidate)| candidate)
}

fn plain(word: &str) -> Vec<char> {
    word.chars().map(|char| if matches!(char, '-' | '.') { '_' } else { char.to_ascii_lowercase() }).collect()
}

/// Letters that both begin with.
fn alike(left: &[char], right: &[char]) -> usize {
    left.iter().zip(right).take_while(|(a, b)| a == b).count()
}

/// Edit distance with swaps of neighbours (optimal string alignment).
fn distance(left: &[char], right: &[char]) -> usize {
    let width = right.len() + 1;
    let mut before_last: Vec<usize> = vec![0; width];
    let mut last: Vec<usize> = (0..width).collect();
    for (row, &a) in left.iter().enumerate() {
        let mut current = vec![row + 1; width];
        for (column, &b) in right.iter().enumerate() {
            let substituted = last[column] + usize::from(a != b);
            let mut best = substituted.min(last[column + 1] + 1).min(current[column] + 1);
            if row > 0 && column > 0 && a == right[column - 1] && left[row - 1] == b {
                best = best.min(before_last[column - 1] + 1);
            }
            current[column + 1] = best;
        }
        before_last = std::mem::replace(&mut last, current);
    }
    last[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_was_meant_and_nothing_far_away() {
        let keys = ["max_bytes", "max_interval", "url"];
        assert_eq!(nearest("max_byte", keys), Some("max_bytes"));
        assert_eq!(nearest("max-bytes", keys), Some("max_bytes"));
        assert_eq!(nearest("MAX.INTERVAL", keys), Some("max_interval"));
        assert_eq!(nearest("ulr", keys), Some("url"));
        assert_eq!(nearest("1w", ["none", "1h", "1d"]), Some("1h"));
        assert_eq!(nearest("cat", ["hat", "car"]), Some("car"));
        assert_eq!(nearest("colour", keys), None);
        assert_eq!(nearest("", keys), None);
        assert_eq!(nearest(&"x".repeat(100_000), keys), None);
    }

    #[test]
    fn counts_a_swap_once() {
        let chars = |text: &str| text.chars().collect::<Vec<_>>();
        assert_eq!(distance(&chars("abcd"), &chars("abdc")), 1);
        assert_eq!(distance(&chars("abc"), &chars("")), 3);
        assert_eq!(distance(&chars(""), &chars("abc")), 3);
        assert_eq!(distance(&chars("kitten"), &chars("sitting")), 3);
    }
}
