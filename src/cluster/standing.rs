//! One worker's standing in its group.
//!
//! Owns: which tasks it may run, what it takes, what it gives up, what follows from lost leases and from Redis being away.
//! Does not own: I/O, clocks, tasks. Driven by [`super::group`] and by tests.
//!
//! ```text
//!             acquired                 somebody should have it              ended
//!   Free ----------------> Held -------------------------------> GivingUp --------> Releasing ----> Free
//!                           |  another holds the lease                                 ^
//!                           +----------------------------> Lost ----> Free             | fenced, or the worker leaves
//!                           +-----------------------------------------------------------+
//! ```
//!
//! Times are milliseconds of a clock that never jumps; wall-clock times are for showing only.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::sharing::share;
use super::{Card, Instance, Phase, TaskName, View};

/// The times of a standing.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// From coming, or coming back to Redis, to taking the first task: all owners come back within it and assert what they hold.
    pub hold_off: Duration,
    /// A task that somebody outside took over is left alone for the first of these, each further time twice as long, up to the
    /// second.
    pub cool_off: (Duration, Duration),
}

impl Default for Timing {
    fn default() -> Self {
        Self { hold_off: Duration::from_secs(6), cool_off: (Duration::from_secs(10), Duration::from_secs(600)) }
    }
}

/// Who this worker is.
#[derive(Clone, Debug)]
pub struct Me {
    pub instance: Instance,
    pub worker: String,
    pub max_tasks: Option<u32>,
    /// `--until-caught-up`.
    pub job: bool,
}

/// What a task's supervisor may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Permit {
    Run,
    /// Why not.
    Wait(String),
    /// A job does not wait.
    Refused(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Free,
    Held,
    /// The lease is still ours; the task is stopping.
    GivingUp,
    /// The lease may be ours; it is to be freed.
    Releasing,
    /// The lease is another's; the task is stopping.
    Lost,
}

/// A task that somebody outside the group took over.
#[derive(Clone, Debug)]
struct Cooling {
    by: String,
    until_ms: u64,
    wait_ms: u64,
}

#[derive(Clone, Debug)]
struct Seat {
    stage: Stage,
    running: bool,
    /// Somebody had its lease since this worker came: where it is free now it was given up, or its holder died.
    was_leased: bool,
    cooling: Option<Cooling>,
    /// This worker does not offer to run it any more; the seat goes with its lease.
    withdrawn: bool,
}

/// Since when and why Redis can't be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Away {
    /// Milliseconds since the Unix epoch.
    pub since_ms: i64,
    pub why: String,
}

/// See the module.
#[derive(Debug)]
pub struct Standing {
    me: Me,
    timing: Timing,
    seats: BTreeMap<TaskName, Seat>,
    view: Option<View>,
    away: Option<Away>,
    /// Nothing is taken or given up before.
    hold_off_until_ms: u64,
    /// When something in the group was last seen to come, go, be taken or given.
    moved_at_ms: u64,
    leaving: bool,
}

impl Standing {
    pub fn new(me: Me, timing: Timing) -> Self {
        Self {
            me,
            timing,
            seats: BTreeMap::new(),
            view: None,
            away: None,
            hold_off_until_ms: 0,
            moved_at_ms: 0,
            leaving: false,
        }
    }

    pub fn me(&self) -> &Me {
        &self.me
    }

    pub fn view(&self) -> Option<&View> {
        self.view.as_ref()
    }

    pub fn away(&self) -> Option<&Away> {
        self.away.as_ref()
    }

    /// The worker can run this task.
    pub fn offer(&mut self, task: &TaskName) {
        let seat = self.seats.entry(task.clone()).or_insert(Seat {
            stage: Stage::Free,
            running: false,
            was_leased: false,
            cooling: None,
            withdrawn: false,
        });
        seat.withdrawn = false;
    }

    /// The worker does not run a connector's tasks any more; they have ended.
    pub fn withdraw(&mut self, connector: &str) {
        self.seats.retain(|task, seat| {
            if task.connector != connector {
                return true;
            }
            seat.withdrawn = true;
            let leased = matches!(seat.stage, Stage::Held | Stage::GivingUp | Stage::Releasing);
            if leased {
                seat.stage = Stage::Releasing;
            }
            leased
        });
    }

    pub fn phase(&self, now_ms: u64) -> Phase {
        if self.leaving {
            Phase::Leaving
        } else if self.me.job {
            Phase::Job
        } else if self.view.is_none() || now_ms < self.hold_off_until_ms {
            Phase::Joining
        } else {
            Phase::Ready
        }
    }

    /// What the next sync says: the card, and the leases that are this worker's.
    pub fn request(&self, now_ms: u64) -> (Card, Vec<TaskName>) {
        let mut offers: BTreeMap<String, u32> = BTreeMap::new();
        for (task, _) in self.seats.iter().filter(|(_, seat)| !seat.withdrawn) {
            let tasks = offers.entry(task.topic_name()).or_default();
            *tasks = (*tasks).max(task.task + 1);
        }
        let worker = self.me.worker.clone();
        let card = Card { worker, max_tasks: self.me.max_tasks, phase: self.phase(now_ms), offers };
        (card, self.in_stage(&[Stage::Held, Stage::GivingUp]))
    }

    /// Leases to free.
    pub fn releases(&self) -> Vec<TaskName> {
        self.in_stage(&[Stage::Releasing])
    }

    /// Tasks whose lease this worker has, as far as it knows.
    pub fn held(&self) -> Vec<TaskName> {
        self.in_stage(&[Stage::Held, Stage::GivingUp])
    }

    /// Something of this worker's own is on its way: a task that comes or goes, the worker itself.
    fn is_moving(&self, now_ms: u64) -> bool {
        let phase = self.phase(now_ms);
        !matches!(phase, Phase::Ready | Phase::Job)
            || !self.in_stage(&[Stage::GivingUp, Stage::Releasing, Stage::Lost]).is_empty()
    }

    fn in_stage(&self, stages: &[Stage]) -> Vec<TaskName> {
        let chosen = self.seats.iter().filter(|(_, seat)| stages.contains(&seat.stage));
        chosen.map(|(task, _)| task.clone()).collect()
    }

    pub fn on_released(&mut self, tasks: &[TaskName]) {
        for task in tasks {
            if let Some(seat) = self.seats.get_mut(task).filter(|seat| seat.stage == Stage::Releasing) {
                seat.stage = Stage::Free;
            }
        }
        self.seats.retain(|_, seat| !(seat.withdrawn && seat.stage == Stage::Free));
    }

    /// Redis answered: what follows. The answer says which leases to take.
    pub fn on_view(&mut self, view: View, now_ms: u64) -> Vec<TaskName> {
        let came = self.view.is_none() || self.away.is_some() || !view.known;
        if came {
            let hold_off = u64::try_from(self.timing.hold_off.as_millis()).unwrap_or(u64::MAX);
            self.hold_off_until_ms = now_ms.saturating_add(if self.me.job { 0 } else { hold_off });
        }
        self.away = None;
        for (task, seat) in &mut self.seats {
            let Some(holder) = view.leases.get(task) else { continue };
            seat.was_leased = true;
            if *holder == self.me.instance {
                if seat.stage == Stage::Free {
                    // An answer was lost on the way: of taking it, or of freeing it.
                    let cooling = seat.cooling.as_ref().is_some_and(|cooling| now_ms < cooling.until_ms);
                    seat.stage = if cooling || self.leaving { Stage::Releasing } else { Stage::Held };
                }
                continue;
            }
            // Whoever took it over is of the group: no reason to leave it alone.
            seat.cooling = None;
            seat.stage = if seat.running { Stage::Lost } else { Stage::Free };
        }
        let changed = self.view.as_ref() != Some(&view);
        self.view = Some(view);
        self.give_up(now_ms);
        let wanted = self.wanted(now_ms);
        if changed || !wanted.is_empty() || self.is_moving(now_ms) {
            self.moved_at_ms = now_ms;
        }
        wanted
    }

    /// Nothing in the group has moved for so long.
    pub fn is_still(&self, for_ms: u64, now_ms: u64) -> bool {
        now_ms.saturating_sub(self.moved_at_ms) >= for_ms
    }

    /// Candidates in one of the phases, and what should be whose among them. Tasks that others hold (a job, somebody who leaves or
    /// whose card can't be read) are not theirs to share.
    fn target(&self, phases: &[Phase]) -> BTreeMap<TaskName, Instance> {
        let Some(view) = &self.view else { return BTreeMap::new() };
        let candidates: BTreeMap<&Instance, &Card> =
            view.members.iter().filter(|(_, card)| phases.contains(&card.phase)).collect();
        let mut tasks: BTreeSet<TaskName> = candidates
            .values()
            .flat_map(|card| &card.offers)
            .filter_map(|(topic, &count)| Some((topic.split_once('/')?, count)))
            .flat_map(|((connector, topic), count)| (0..count).map(|task| TaskName::new(connector, topic, task)))
            .collect();
        tasks.retain(|task| view.leases.get(task).is_none_or(|holder| candidates.contains_key(holder)));
        share(&candidates, &tasks, &view.leases)
    }

    /// One task at a time, for somebody who can take it now.
    fn give_up(&mut self, now_ms: u64) {
        let moving = self.seats.values().any(|seat| matches!(seat.stage, Stage::GivingUp | Stage::Releasing));
        if moving || self.phase(now_ms) != Phase::Ready {
            return;
        }
        let target = self.target(&[Phase::Ready]);
        let mine = &self.me.instance;
        let another = self
            .seats
            .iter_mut()
            .find(|(task, seat)| seat.stage == Stage::Held && target.get(*task).is_some_and(|wanted| wanted != mine));
        if let Some((_, seat)) = another {
            seat.stage = if seat.running { Stage::GivingUp } else { Stage::Releasing };
        }
    }

    /// Free tasks that should be this worker's. What somebody had is taken by who is ready; what nobody had yet, at the start of a
    /// group, waits for those who are about to be.
    fn wanted(&self, now_ms: u64) -> Vec<TaskName> {
        let Some(view) = &self.view else { return Vec::new() };
        let phase = self.phase(now_ms);
        let free = self.seats.iter().filter(|(task, seat)| {
            let cooling = seat.cooling.as_ref().is_some_and(|cooling| now_ms < cooling.until_ms);
            seat.stage == Stage::Free && !seat.running && !cooling && !view.leases.contains_key(*task)
        });
        let free: Vec<(&TaskName, &Seat)> = free.collect();
        if free.is_empty() || matches!(phase, Phase::Joining | Phase::Leaving) {
            return Vec::new();
        }
        let ready = self.target(&[Phase::Ready]);
        let coming = self.target(&[Phase::Ready, Phase::Joining]);
        let mine = free.into_iter().filter(|(task, seat)| {
            let target = if seat.was_leased { &ready } else { &coming };
            phase == Phase::Job || target.get(*task) == Some(&self.me.instance)
        });
        mine.map(|(task, _)| task.clone()).collect()
    }

    pub fn on_acquired(&mut self, tasks: &[TaskName]) {
        for task in tasks {
            if let Some(seat) = self.seats.get_mut(task).filter(|seat| seat.stage == Stage::Free) {
                seat.stage = if self.leaving { Stage::Releasing } else { Stage::Held };
                seat.was_leased = true;
            }
            if let Some(view) = &mut self.view {
                view.leases.insert(task.clone(), self.me.instance.clone());
            }
        }
    }

    /// Redis gave no answer. True: it did before.
    pub fn on_away(&mut self, why: &str, wall_ms: i64) -> bool {
        let since_ms = self.away.as_ref().map_or(wall_ms, |away| away.since_ms);
        self.away.replace(Away { since_ms, why: why.to_owned() }).is_none()
    }

    /// The supervisor starts the task; false: it may not any more.
    pub fn begin(&mut self, task: &TaskName) -> bool {
        match self.seats.get_mut(task) {
            Some(seat) if seat.stage == Stage::Held && !self.leaving => {
                seat.running = true;
                true
            }
            _ => false,
        }
    }

    /// The task does not run any more: it was told to stop, or it failed.
    pub fn ended(&mut self, task: &TaskName) {
        let (leaving, away) = (self.leaving, self.away.is_some());
        let Some(seat) = self.seats.get_mut(task) else { return };
        seat.running = false;
        seat.stage = match seat.stage {
            Stage::Held if leaving => Stage::Releasing,
            // Nobody could take it now: it goes on here.
            Stage::GivingUp if away && !leaving => Stage::Held,
            Stage::GivingUp => Stage::Releasing,
            Stage::Lost => Stage::Free,
            stage => stage,
        };
    }

    /// The task's log was taken over by `by` while it ran.
    pub fn fenced(&mut self, task: &TaskName, by: &str, now_ms: u64) {
        let Some(seat) = self.seats.get_mut(task) else { return };
        seat.running = false;
        if seat.stage == Stage::Lost {
            seat.stage = Stage::Free;
            return;
        }
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let (first, most) = self.timing.cool_off;
        let wait_ms = seat.cooling.as_ref().map_or(millis(first), |cooling| cooling.wait_ms.saturating_mul(2));
        let wait_ms = wait_ms.min(millis(most));
        seat.cooling = Some(Cooling { by: by.to_owned(), until_ms: now_ms.saturating_add(wait_ms), wait_ms });
        if seat.stage != Stage::Free {
            seat.stage = Stage::Releasing;
        }
    }

    /// The worker stops: nothing is taken any more, what does not run is freed, the rest when it has ended.
    pub fn leave(&mut self) {
        self.leaving = true;
        for seat in self.seats.values_mut() {
            if seat.stage == Stage::Held && !seat.running {
                seat.stage = Stage::Releasing;
            }
        }
    }

    /// What the task's supervisor may do now.
    pub fn permit(&self, task: &TaskName, now_ms: u64) -> Permit {
        let Some(seat) = self.seats.get(task) else { return Permit::Wait("is not known".to_owned()) };
        let holder = self.view.as_ref().and_then(|view| {
            let holder = view.leases.get(task).filter(|holder| **holder != self.me.instance)?;
            Some(view.members.get(holder).map_or("that left", |card| card.worker.as_str()))
        });
        let held_by = |worker: &str| format!("worker {worker} of the group runs it");
        let message = match seat.stage {
            Stage::Held => return Permit::Run,
            Stage::GivingUp => "it is given up: another worker has less to do".to_owned(),
            Stage::Lost | Stage::Free if let Some(worker) = holder => held_by(worker),
            _ if let Some(cooling) = seat.cooling.as_ref().filter(|cooling| now_ms < cooling.until_ms) => {
                format!(
                    "worker {} has taken this task over; it is left alone for {} s",
                    cooling.by,
                    cooling.wait_ms / 1000
                )
            }
            _ if let Some(away) = &self.away => {
                format!("coordination is away, and without it no task is taken: {}", away.why)
            }
            Stage::Lost => held_by("that is not known yet"),
            Stage::Releasing => "its lease is given back".to_owned(),
            Stage::Free if self.phase(now_ms) == Phase::Joining => "the worker joins the group".to_owned(),
            Stage::Free => "nobody of the group has it yet, or has room for it".to_owned(),
        };
        let decided = holder.is_some() || self.away.is_some();
        if self.me.job && decided && !seat.running { Permit::Refused(message) } else { Permit::Wait(message) }
    }
}

#[cfg(test)]
#[path = "standing_tests.rs"]
mod tests;
