//! Who should have which task.
//!
//! Owns: the rule: every task that somebody can take has an owner, loads differ by one at most where capacity and offers allow,
//! what need not move stays. Does not own: when anything moves ([`super::standing`]).
//!
//! A pure function of what all workers see alike, so that each can decide for itself what it takes and gives, and all agree.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::{Card, Instance, TaskName};

/// Shares `tasks` out. `owners` of tasks that are not candidates any more do not count. A task that nobody has room for is left
/// out of the answer.
pub fn share(
    candidates: &BTreeMap<&Instance, &Card>,
    tasks: &BTreeSet<TaskName>,
    owners: &BTreeMap<TaskName, Instance>,
) -> BTreeMap<TaskName, Instance> {
    let instances: Vec<&Instance> = candidates.keys().copied().collect();
    let topics: BTreeSet<String> = tasks.iter().map(TaskName::topic_name).collect();
    let topics: Vec<String> = topics.into_iter().collect();
    let mut shares = Shares {
        capacity: candidates.values().map(|card| card.max_tasks.map_or(usize::MAX, |max| max as usize)).collect(),
        fits: tasks.iter().map(|task| candidates.values().map(|card| card.can_run(task)).collect()).collect(),
        topic: tasks.iter().map(|task| topics.binary_search(&task.topic_name()).unwrap_or_default()).collect(),
        owner: vec![None; tasks.len()],
        load: vec![0; instances.len()],
    };
    let present: Vec<Option<usize>> =
        tasks.iter().map(|task| instances.binary_search(&owners.get(task)?).ok()).collect();
    shares.settle(&present);
    let decided = tasks.iter().zip(&shares.owner);
    decided.filter_map(|(task, owner)| Some((task.clone(), instances.get((*owner)?).copied()?.clone()))).collect()
}

/// Tasks and workers by number.
#[derive(Debug)]
struct Shares {
    /// Per worker.
    capacity: Vec<usize>,
    /// Per task and worker: whether the worker can run it.
    fits: Vec<Vec<bool>>,
    /// Per task.
    topic: Vec<usize>,
    owner: Vec<Option<usize>>,
    load: Vec<usize>,
}

impl Shares {
    fn settle(&mut self, present: &[Option<usize>]) {
        for (task, owner) in present.iter().enumerate() {
            if let Some(owner) = *owner
                && self.fits[task][owner]
                && self.has_room(owner)
            {
                self.give(task, owner);
            }
        }
        for task in 0..self.owner.len() {
            if self.owner[task].is_none() {
                self.place(task);
            }
        }
        while self.level() {}
    }

    fn has_room(&self, worker: usize) -> bool {
        self.load[worker] < self.capacity[worker]
    }

    fn give(&mut self, task: usize, worker: usize) {
        if let Some(before) = self.owner[task].replace(worker) {
            self.load[before] -= 1;
        }
        self.load[worker] += 1;
    }

    /// How many tasks of the same topic a worker has: a topic's load is spread too.
    fn siblings(&self, task: usize, worker: usize) -> usize {
        let same = |&other: &usize| self.owner[other] == Some(worker) && self.topic[other] == self.topic[task];
        (0..self.owner.len()).filter(same).count()
    }

    /// Gives a free task to the least loaded; where all that can run it are full, one of them passes a task on to somebody who
    /// is not.
    fn place(&mut self, task: usize) {
        let able: Vec<usize> = (0..self.load.len()).filter(|&worker| self.fits[task][worker]).collect();
        let least = able.iter().copied().filter(|&worker| self.has_room(worker));
        if let Some(worker) = least.min_by_key(|&worker| (self.load[worker], self.siblings(task, worker))) {
            self.give(task, worker);
            return;
        }
        let reached = self.reach(&able);
        let end = (0..self.load.len())
            .filter(|&worker| reached[worker].is_some() && self.has_room(worker))
            .min_by_key(|&worker| self.load[worker]);
        if let Some(end) = end
            && let Some(&first) = self.pass_on(&reached, end).first()
        {
            self.give(task, first);
        }
    }

    /// Moves one task from a worker with more to one with at least two less; false: there is no such pair.
    fn level(&mut self) -> bool {
        let mut workers: Vec<usize> = (0..self.load.len()).collect();
        workers.sort_by_key(|&worker| std::cmp::Reverse(self.load[worker]));
        let least = (0..self.load.len()).filter(|&worker| self.has_room(worker)).map(|worker| self.load[worker]).min();
        for from in workers {
            if least.is_none_or(|least| self.load[from] < least + 2) {
                return false;
            }
            let reached = self.reach(&[from]);
            let end = (0..self.load.len())
                .filter(|&to| reached[to].is_some() && self.has_room(to) && self.load[to] + 2 <= self.load[from])
                .min_by_key(|&to| self.load[to]);
            if let Some(end) = end {
                self.pass_on(&reached, end);
                return true;
            }
        }
        false
    }

    /// Whom tasks can get to from `sources` by being passed on, over the fewest workers: per worker from whom, itself where it is
    /// a source.
    fn reach(&self, sources: &[usize]) -> Vec<Option<usize>> {
        let mut reached = vec![None; self.load.len()];
        let mut queue = VecDeque::new();
        for &source in sources {
            reached[source] = Some(source);
            queue.push_back(source);
        }
        while let Some(from) = queue.pop_front() {
            for task in (0..self.owner.len()).filter(|&task| self.owner[task] == Some(from)) {
                for (to, &fits) in self.fits[task].iter().enumerate() {
                    if fits && reached[to].is_none() {
                        reached[to] = Some(from);
                        queue.push_back(to);
                    }
                }
            }
        }
        reached
    }

    /// Passes a task on along the way to `end`, from its far end on; answers with the way, the source first.
    fn pass_on(&mut self, reached: &[Option<usize>], end: usize) -> Vec<usize> {
        let mut way = vec![end];
        let mut to = end;
        while let Some(from) = reached[to]
            && from != to
        {
            let fit = (0..self.owner.len()).filter(|&task| self.owner[task] == Some(from) && self.fits[task][to]);
            // Of the topic of which the giver has the most more than the taker.
            let more = |task: usize| self.siblings(task, from).saturating_sub(self.siblings(task, to));
            if let Some(task) = fit.max_by_key(|&task| more(task)) {
                self.give(task, to);
            }
            way.push(from);
            to = from;
        }
        way.reverse();
        way
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::cluster::Phase;

    /// Workers with room for so many tasks, and who has which at first.
    #[derive(Clone, Debug)]
    struct Case {
        rooms: Vec<Option<u32>>,
        /// Per worker and topic: how many of its tasks it can run.
        offers: Vec<Vec<u32>>,
        /// A number beyond the workers: nobody.
        owners: Vec<usize>,
    }

    const TOPIC_TASKS: u32 = 5;

    fn topics(tasks: usize) -> usize {
        tasks.div_ceil(TOPIC_TASKS as usize)
    }

    fn task(number: usize) -> TaskName {
        let (topic, task) = (number as u32 / TOPIC_TASKS, number as u32 % TOPIC_TASKS);
        TaskName::new("c", &format!("t{topic:03}"), task)
    }

    fn instance(number: usize) -> Instance {
        Instance(format!("{number:03}"))
    }

    impl Case {
        fn cards(&self) -> BTreeMap<Instance, Card> {
            let card = |worker: usize| Card {
                worker: worker.to_string(),
                max_tasks: self.rooms[worker],
                phase: Phase::Ready,
                offers: (0..topics(self.owners.len()))
                    .map(|topic| (format!("c/t{topic:03}"), self.offers[worker][topic]))
                    .collect(),
            };
            (0..self.rooms.len()).map(|worker| (instance(worker), card(worker))).collect()
        }

        fn tasks(&self) -> BTreeSet<TaskName> {
            (0..self.owners.len()).map(task).collect()
        }

        fn before(&self) -> BTreeMap<TaskName, Instance> {
            let owned = self.owners.iter().enumerate().filter(|(_, owner)| **owner < self.rooms.len());
            owned.map(|(number, &owner)| (task(number), instance(owner))).collect()
        }

        fn after(&self, before: &BTreeMap<TaskName, Instance>) -> BTreeMap<TaskName, Instance> {
            let cards = self.cards();
            share(&cards.iter().collect(), &self.tasks(), before)
        }

        fn loads(&self, shared: &BTreeMap<TaskName, Instance>) -> Vec<usize> {
            let load = |worker: usize| shared.values().filter(|owner| **owner == instance(worker)).count();
            (0..self.rooms.len()).map(load).collect()
        }

        fn room(&self, worker: usize) -> usize {
            self.rooms[worker].map_or(usize::MAX, |room| room as usize)
        }
    }

    /// `alike`: every worker can run everything.
    fn cases(alike: bool) -> impl Strategy<Value = Case> {
        (1..6_usize, 0..30_usize).prop_flat_map(move |(workers, tasks)| {
            let room = prop_oneof![3 => Just(None), 1 => (0..12_u32).prop_map(Some)];
            let offer = prop_oneof![3 => Just(TOPIC_TASKS), 1 => 0..TOPIC_TASKS];
            let offers = if alike {
                Just(vec![vec![TOPIC_TASKS; topics(tasks)]; workers]).boxed()
            } else {
                prop::collection::vec(prop::collection::vec(offer, topics(tasks)), workers).boxed()
            };
            let rooms = prop::collection::vec(room, workers);
            let owners = prop::collection::vec(0..=workers, tasks);
            (rooms, offers, owners).prop_map(|(rooms, offers, owners)| Case { rooms, offers, owners })
        })
    }

    proptest! {
        /// Whatever the offers: nobody gets what it can't run or has no room for; and what is shared stays as it is.
        #[test]
        fn it_is_legal_and_moves_nothing_twice(case in cases(false)) {
            let after = case.after(&case.before());
            let cards = case.cards();
            prop_assert!(after.iter().all(|(task, owner)| cards[owner].can_run(task)));
            prop_assert!(case.loads(&after).iter().enumerate().all(|(worker, &load)| load <= case.room(worker)));
            prop_assert_eq!(&case.after(&after), &after);
        }

        /// Nothing is left while a chain of moves would make room for it. Compared with a matching by augmenting paths.
        #[test]
        fn all_that_can_be_owned_is(case in cases(false)) {
            let cards = case.cards();
            let fits: Vec<Vec<bool>> = case.tasks().iter().map(|task| cards.values().map(|card| card.can_run(task)).collect()).collect();
            let mut held: Vec<Vec<usize>> = vec![Vec::new(); case.rooms.len()];
            let most = (0..fits.len()).filter(|&task| augment(&case, &fits, &mut held, task, &mut vec![false; case.rooms.len()])).count();
            prop_assert_eq!(case.after(&case.before()).len(), most);
        }

        /// Where all can run all: loads differ by one, except for who is full; who has more than its part gives, who has less takes,
        /// nobody does both.
        #[test]
        fn it_is_even_and_moves_no_more_than_it_must(case in cases(true)) {
            let before = case.before();
            let after = case.after(&before);
            let (had, has) = (case.loads(&before), case.loads(&after));
            let highest = has.iter().max().copied().unwrap_or_default();
            for (worker, &load) in has.iter().enumerate() {
                prop_assert!(load + 1 >= highest || load == case.room(worker), "{:?}", has);
            }
            let room: usize = (0..has.len()).map(|worker| case.room(worker).min(case.owners.len())).sum();
            prop_assert_eq!(after.len(), room.min(case.owners.len()));
            for worker in 0..has.len() {
                let gave = before.iter().filter(|(task, owner)| **owner == instance(worker) && after.get(*task) != Some(*owner)).count();
                let took = after.iter().filter(|(task, owner)| **owner == instance(worker) && before.get(*task) != Some(*owner)).count();
                prop_assert!(gave == 0 || took == 0, "worker {} gave {} and took {}", worker, gave, took);
                prop_assert_eq!(had[worker] + took, has[worker] + gave);
            }
        }
    }

    fn augment(case: &Case, fits: &[Vec<bool>], held: &mut Vec<Vec<usize>>, task: usize, seen: &mut Vec<bool>) -> bool {
        for worker in 0..held.len() {
            if !fits[task][worker] || std::mem::replace(&mut seen[worker], true) {
                continue;
            }
            if held[worker].len() < case.room(worker) {
                held[worker].push(task);
                return true;
            }
            for place in 0..held[worker].len() {
                if augment(case, fits, held, held[worker][place], seen) {
                    held[worker][place] = task;
                    return true;
                }
            }
        }
        false
    }

    #[test]
    fn six_tasks_and_three_workers() {
        let case = |rooms: Vec<Option<u32>>, owners: Vec<usize>| {
            let offers = vec![vec![TOPIC_TASKS; 2]; rooms.len()];
            let case = Case { rooms, offers, owners };
            let after = case.after(&case.before());
            (
                case.loads(&after),
                after.into_iter().filter(|(task, owner)| case.before().get(task) != Some(owner)).count(),
            )
        };
        assert_eq!(case(vec![None; 3], vec![9; 6]), (vec![2, 2, 2], 6), "all are free");
        assert_eq!(case(vec![None; 3], vec![0; 6]), (vec![2, 2, 2], 4), "one has all");
        assert_eq!(case(vec![None; 3], vec![0, 0, 1, 1, 9, 9]), (vec![2, 2, 2], 2), "one died");
        assert_eq!(case(vec![None; 4], vec![0, 0, 1, 1, 2, 2]), (vec![1, 2, 2, 1], 1), "one joined");
        assert_eq!(case(vec![Some(1), None], vec![9; 6]), (vec![1, 5], 6), "a canary");
        assert_eq!(case(vec![Some(0), Some(2)], vec![9; 6]), (vec![0, 2], 2), "too little room");
        assert_eq!(case(vec![None; 9], vec![0; 6]), (vec![1, 1, 1, 1, 1, 1, 0, 0, 0], 5), "more workers than tasks");
    }

    #[test]
    fn a_topic_is_spread_too() {
        let case = Case { rooms: vec![None; 2], offers: vec![vec![4; 2]; 2], owners: vec![9; 9] };
        let after = case.after(&case.before());
        for topic in ["c/t000", "c/t001"] {
            let of_first = after.iter().filter(|(task, owner)| task.topic_name() == topic && owner.0 == "000").count();
            assert_eq!(of_first, 2, "{topic}: {after:?}");
        }
    }
}
