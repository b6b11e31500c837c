//! Which offsets of a window were found, one bit each.
//!
//! Owns: the bits, and the runs of what is missing or there twice. Does not own: where the offsets come from.

/// Offsets that are looked at together: three bits each, 48 MiB at most.
pub const WINDOW_OFFSETS: u64 = 1 << 27;

/// Offsets of one partition within a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    pub partition: i32,
    pub first: i64,
    pub end: i64,
}

impl Span {
    pub fn len(&self) -> u64 {
        self.end.abs_diff(self.first)
    }

    pub fn is_empty(&self) -> bool {
        self.end <= self.first
    }
}

/// Cuts runs of offsets into windows of at most `most` offsets.
pub fn windows(runs: impl IntoIterator<Item = Span>, most: u64) -> Vec<Vec<Span>> {
    let mut windows: Vec<Vec<Span>> = Vec::new();
    let mut room = 0;
    for mut run in runs {
        while !run.is_empty() {
            if room == 0 {
                windows.push(Vec::new());
                room = most;
            }
            let take = run.len().min(room);
            let end = run.first.saturating_add_unsigned(take);
            if let Some(window) = windows.last_mut() {
                window.push(Span { end, ..run });
            }
            run.first = end;
            room -= take;
        }
    }
    windows
}

/// What was found of a window.
#[derive(Debug)]
pub struct Coverage {
    spans: Vec<(Span, u64)>,
    once: Bits,
    twice: Bits,
    told: Bits,
}

#[derive(Debug)]
struct Bits(Vec<u64>);

impl Bits {
    fn new(len: u64) -> Self {
        Self(vec![0; usize::try_from(len.div_ceil(64)).unwrap_or(usize::MAX)])
    }

    /// Sets a bit; `true`: it was set before.
    fn set(&mut self, at: u64) -> bool {
        let Some(word) = usize::try_from(at / 64).ok().and_then(|index| self.0.get_mut(index)) else { return false };
        let bit = 1 << (at % 64);
        let before = *word & bit != 0;
        *word |= bit;
        before
    }

    fn get(&self, at: u64) -> bool {
        usize::try_from(at / 64).ok().and_then(|index| self.0.get(index)).is_some_and(|word| word >> (at % 64) & 1 == 1)
    }
}

impl Coverage {
    pub fn new(window: &[Span]) -> Self {
        let mut base = 0;
        let mut spans = Vec::with_capacity(window.len());
        for &span in window {
            spans.push((span, base));
            base += span.len();
        }
        Self { spans, once: Bits::new(base), twice: Bits::new(base), told: Bits::new(base) }
    }

    fn at(&self, partition: i32, offset: i64) -> Option<u64> {
        self.spans
            .iter()
            .find(|(span, _)| span.partition == partition && (span.first..span.end).contains(&offset))
            .map(|(span, base)| base + offset.abs_diff(span.first))
    }

    /// Whether any offset from `first` to `last` lies in the window.
    pub fn touches(&self, partition: i32, first: i64, last: i64) -> bool {
        self.spans.iter().any(|(span, _)| span.partition == partition && first < span.end && last >= span.first)
    }

    /// A record was found.
    pub fn found(&mut self, partition: i32, offset: i64) {
        if let Some(at) = self.at(partition, offset)
            && self.once.set(at)
        {
            self.twice.set(at);
        }
    }

    /// The offsets from `first` to `last` are known to be in no object.
    pub fn tell(&mut self, partition: i32, first: i64, last: i64) {
        let within: Vec<(Span, u64)> =
            self.spans.iter().filter(|(span, _)| span.partition == partition).copied().collect();
        for (span, base) in within {
            for offset in first.max(span.first)..last.saturating_add(1).min(span.end) {
                self.told.set(base + offset.abs_diff(span.first));
            }
        }
    }

    pub fn is_missing(&self, partition: i32, offset: i64) -> bool {
        self.at(partition, offset).is_some_and(|at| !self.once.get(at) && !self.told.get(at))
    }

    pub fn is_twice(&self, partition: i32, offset: i64) -> bool {
        self.at(partition, offset).is_some_and(|at| self.twice.get(at))
    }

    pub fn has_twice(&self) -> bool {
        self.twice.0.iter().any(|word| *word != 0)
    }

    /// Runs of offsets that are neither in an object nor known to be in none.
    pub fn missing(&self) -> impl Iterator<Item = Span> {
        self.runs(|at| !self.once.get(at) && !self.told.get(at))
    }

    /// The first missing offset of a partition at or above `from`.
    pub fn next_missing(&self, partition: i32, from: i64) -> Option<i64> {
        let spans = self.spans.iter().filter(|(span, _)| span.partition == partition && span.end > from);
        let missing = |&(span, base): &(Span, u64)| {
            let at = |offset: i64| base + offset.abs_diff(span.first);
            (from.max(span.first)..span.end).find(|&offset| !self.once.get(at(offset)) && !self.told.get(at(offset)))
        };
        spans.filter_map(missing).min()
    }

    /// Partitions of which something is missing.
    pub fn missing_partitions(&self) -> std::collections::BTreeSet<i32> {
        self.missing().map(|run| run.partition).collect()
    }

    fn runs(&self, is: impl Fn(u64) -> bool + Copy) -> impl Iterator<Item = Span> {
        self.spans.iter().flat_map(move |&(span, base)| Runs { span, base, at: span.first, is })
    }
}

struct Runs<F> {
    span: Span,
    base: u64,
    at: i64,
    is: F,
}

impl<F: Fn(u64) -> bool> Iterator for Runs<F> {
    type Item = Span;

    fn next(&mut self) -> Option<Span> {
        let is = |offset: i64| (self.is)(self.base + offset.abs_diff(self.span.first));
        let first = (self.at..self.span.end).find(|&offset| is(offset))?;
        let end = (first..self.span.end).find(|&offset| !is(offset)).unwrap_or(self.span.end);
        self.at = end;
        Some(Span { partition: self.span.partition, first, end })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(partition: i32, first: i64, end: i64) -> Span {
        Span { partition, first, end }
    }

    #[test]
    fn windows_hold_so_many_offsets() {
        let cut = windows([span(0, 0, 10), span(1, 5, 5), span(2, 100, 107)], 8);
        assert_eq!(cut, [vec![span(0, 0, 8)], vec![span(0, 8, 10), span(2, 100, 106)], vec![span(2, 106, 107)]]);
    }

    #[test]
    fn what_is_missing_and_what_is_there_twice() {
        let mut coverage = Coverage::new(&[span(0, 10, 80), span(3, 1000, 1010)]);
        (0..75).filter(|offset| !(20..25).contains(offset)).for_each(|offset| coverage.found(0, offset));
        (1000..1010).for_each(|offset| coverage.found(3, offset));
        coverage.found(9, 12);
        assert_eq!(coverage.missing().collect::<Vec<_>>(), [span(0, 20, 25), span(0, 75, 80)]);
        assert!(!coverage.has_twice() && coverage.is_missing(0, 24) && !coverage.is_missing(0, 9));
        assert_eq!([0, 24, 25, 80].map(|from| coverage.next_missing(0, from)), [Some(20), Some(24), Some(75), None]);
        coverage.tell(0, 22, 23);
        coverage.tell(0, 70, 200);
        assert_eq!(coverage.missing().collect::<Vec<_>>(), [span(0, 20, 22), span(0, 24, 25)]);
        coverage.found(3, 1009);
        assert!(coverage.has_twice() && coverage.is_twice(3, 1009) && !coverage.is_twice(3, 1008));
        assert!(coverage.touches(0, 0, 10) && !coverage.touches(0, 80, 90) && !coverage.touches(1, 0, 99));
    }
}
