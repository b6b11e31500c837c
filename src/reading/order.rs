//! In which order things that hold offsets are read, so that each partition's records come in offset order.
//!
//! Owns: the order, and which things have to be merged record by record.
//! Does not own: what the things are: files at first, then the frames of files that overlap.
//!
//! Files follow one another in a partition unless records came late for their time bucket: then files of two buckets hold
//! offsets of the same stretch, or each holds what the other must precede. Such things form a knot, which is read as one.

use std::collections::BTreeMap;

/// Offsets of one partition within a thing; `stream` numbers the (topic, incarnation, partition).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    pub stream: u32,
    pub first: i64,
    pub last: i64,
}

/// Groups of things (by number), in reading order: all offsets of a stream in one group are below those in later groups. A
/// group of one is read as it lies, the things of a larger one are merged. Things that no offset relates keep their order.
pub fn order(things: &[Vec<Span>]) -> Vec<Vec<usize>> {
    let edges = edges(things);
    let mut groups = components(things.len(), &edges);
    let mut group_of = vec![0; things.len()];
    for (number, group) in groups.iter_mut().enumerate() {
        group.sort_unstable();
        group.iter().for_each(|&thing| group_of[thing] = number);
    }
    sorted(groups, &group_of, &edges)
}

/// For each thing those that must not come before it. Things that overlap have edges both ways.
fn edges(things: &[Vec<Span>]) -> Vec<Vec<usize>> {
    let mut streams: BTreeMap<u32, Vec<(i64, i64, usize)>> = BTreeMap::new();
    for (thing, spans) in things.iter().enumerate() {
        for span in spans {
            streams.entry(span.stream).or_default().push((span.first, span.last, thing));
        }
    }
    let mut edges = vec![Vec::new(); things.len()];
    for spans in streams.values_mut() {
        spans.sort_unstable();
        // The thing that reaches furthest so far.
        let mut furthest: Option<(i64, usize)> = None;
        let mut before: Option<usize> = None;
        for &(first, last, thing) in spans.iter() {
            if let Some(before) = before {
                edges[before].push(thing);
            }
            match furthest {
                Some((end, other)) if first <= end => {
                    edges[thing].push(other);
                    if last > end {
                        furthest = Some((last, thing));
                    }
                }
                _ => furthest = Some((last, thing)),
            }
            before = Some(thing);
        }
    }
    edges
}

/// Strongly connected components (Tarjan, without recursion).
fn components(count: usize, edges: &[Vec<usize>]) -> Vec<Vec<usize>> {
    const NEW: usize = usize::MAX;
    let (mut index, mut low, mut on_stack) = (vec![NEW; count], vec![NEW; count], vec![false; count]);
    let (mut stack, mut components, mut next) = (Vec::new(), Vec::new(), 0);
    for root in 0..count {
        if index[root] != NEW {
            continue;
        }
        let mut work = vec![(root, 0)];
        while let Some((thing, edge)) = work.pop() {
            if edge == 0 {
                (index[thing], low[thing]) = (next, next);
                next += 1;
                stack.push(thing);
                on_stack[thing] = true;
            }
            if let Some(&to) = edges[thing].get(edge) {
                work.push((thing, edge + 1));
                if index[to] == NEW {
                    work.push((to, 0));
                } else if on_stack[to] {
                    low[thing] = low[thing].min(index[to]);
                }
                continue;
            }
            if let Some(&(parent, _)) = work.last() {
                low[parent] = low[parent].min(low[thing]);
            }
            if low[thing] == index[thing] {
                let mut component = Vec::new();
                while let Some(member) = stack.pop() {
                    on_stack[member] = false;
                    component.push(member);
                    if member == thing {
                        break;
                    }
                }
                components.push(component);
            }
        }
    }
    components
}

/// Topological order of the groups; of those that may come next, the one that was given first.
fn sorted(mut groups: Vec<Vec<usize>>, group_of: &[usize], edges: &[Vec<usize>]) -> Vec<Vec<usize>> {
    let mut waits_for = vec![0usize; groups.len()];
    let mut leads_to = vec![Vec::new(); groups.len()];
    for (thing, targets) in edges.iter().enumerate() {
        for &target in targets {
            let (from, to) = (group_of[thing], group_of[target]);
            if from != to {
                leads_to[from].push(to);
                waits_for[to] += 1;
            }
        }
    }
    let mut ready = std::collections::BTreeSet::new();
    let first = |group: &Vec<usize>| group.first().copied().unwrap_or_default();
    for (number, group) in groups.iter().enumerate() {
        if waits_for[number] == 0 {
            ready.insert((first(group), number));
        }
    }
    let mut sorted = Vec::with_capacity(groups.len());
    while let Some((_, number)) = ready.pop_first() {
        for &to in &leads_to[number] {
            waits_for[to] -= 1;
            if waits_for[to] == 0 {
                ready.insert((first(&groups[to]), to));
            }
        }
        sorted.push(std::mem::take(&mut groups[number]));
    }
    sorted
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn span(stream: u32, first: i64, last: i64) -> Span {
        Span { stream, first, last }
    }

    #[test]
    fn files_in_a_row_stay_apart_and_late_records_tie_two_together() {
        let row = [vec![span(0, 20, 29)], vec![span(0, 0, 9)], vec![span(0, 10, 19)], vec![span(1, 5, 6)]];
        assert_eq!(order(&row), [vec![1], vec![2], vec![0], vec![3]]);
        let late = [vec![span(0, 0, 12)], vec![span(0, 11, 20)], vec![span(0, 21, 30)]];
        assert_eq!(order(&late), [vec![0, 1], vec![2]]);
        // No overlap in any partition, and yet none can come first.
        let cycle = [vec![span(0, 0, 9), span(1, 10, 19)], vec![span(0, 10, 19), span(1, 0, 9)]];
        assert_eq!(order(&cycle), [vec![0, 1]]);
        // One that reaches over two others.
        let over = [vec![span(0, 0, 100)], vec![span(0, 10, 20)], vec![span(0, 30, 40)], vec![span(0, 101, 102)]];
        assert_eq!(order(&over), [vec![0, 1, 2], vec![3]]);
        assert_eq!(order(&[vec![], vec![]]), [vec![0], vec![1]]);
    }

    proptest! {
        #[test]
        fn later_groups_hold_later_offsets(
            things in proptest::collection::vec(
                proptest::collection::btree_map(0u32..3, (0i64..40, 0i64..6), 0..3), 0..20),
        ) {
            let things: Vec<Vec<Span>> = things.iter().map(|spans| {
                spans.iter().map(|(&stream, &(first, len))| span(stream, first, first + len)).collect()
            }).collect();
            let groups = order(&things);
            let mut all: Vec<usize> = groups.concat();
            all.sort_unstable();
            prop_assert_eq!(all, (0..things.len()).collect::<Vec<_>>());
            let mut ends: BTreeMap<u32, i64> = BTreeMap::new();
            for group in groups {
                let spans = || group.iter().flat_map(|&thing| &things[thing]);
                for span in spans() {
                    prop_assert!(ends.get(&span.stream).is_none_or(|&end| end < span.first));
                }
                for span in spans() {
                    let end = ends.entry(span.stream).or_insert(span.last);
                    *end = span.last.max(*end);
                }
            }
        }
    }
}
