//! The machine against a small reference, against its invariants in any order of events, and its work in numbers.
//!
//! A world plays the children and the clock: it carries out the machine's actions and checks each as it comes.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use proptest::prelude::*;

use super::intensity::Limit;
use super::machine::{Action, Answer, Event, Machine, Ticket};
use super::plan::{AutoShutdown, Settings, Strategy as Group};
use super::report::{ExitContext, ExitReason, ExitReport, GaveUp};
use super::requests::Asked;
use super::sequence::Sequence;
use super::slots::Phase;
use super::spec::{Heartbeat, Missed, Restart, Rules, Shutdown};
use crate::backoff::Backoff;
use crate::clock::{self, Instant};
use crate::ctx::Cause;

const SEC: Duration = Duration::from_secs(1);

/// What a child does when it is told to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    Obeys,
    /// Ends only when it is aborted.
    Stubborn,
    /// Does not even end then.
    Hangs,
}

#[derive(Debug)]
struct Alive {
    run: u64,
    manner: Manner,
    /// Its end is on its way.
    leaving: Option<ExitReason>,
}

struct World {
    machine: Machine,
    now: Instant,
    alive: BTreeMap<u64, Alive>,
    manner: HashMap<String, Manner>,
    names: HashMap<u64, String>,
    restarts: Vec<Instant>,
    asked: HashSet<Ticket>,
    answers: HashMap<Ticket, Answer>,
    finished: Option<Result<(), GaveUp>>,
    /// The step that is under way serves a request: what it starts was asked for.
    by_request: bool,
    actions: u64,
}

fn settings(strategy: Group, max: usize) -> Settings {
    let backoff = Backoff { initial: SEC, max: 4 * SEC, jitter: 0.5, stable_after: 10 * SEC };
    Settings {
        strategy,
        limit: Limit::GiveUp { max, period: 10 * SEC },
        backoff,
        auto_shutdown: None,
    }
}

fn rules(name: String, restart: Restart) -> Rules {
    Rules { restart, ..Rules::new(name.into()) }
}

impl World {
    fn new(settings: Settings) -> Self {
        let now = clock::now();
        let names = ("sup".to_owned(), "t/sup".to_owned());
        Self {
            machine: Machine::new(names, settings, 0, fastrand::Rng::with_seed(7), now),
            now,
            alive: BTreeMap::new(),
            manner: HashMap::new(),
            names: HashMap::new(),
            restarts: Vec::new(),
            asked: HashSet::new(),
            answers: HashMap::new(),
            finished: None,
            by_request: false,
            actions: 0,
        }
    }

    fn step(&mut self, event: Event) {
        let mut actions = std::collections::VecDeque::from(self.machine.step(self.now, event));
        while let Some(action) = actions.pop_front() {
            self.actions += 1;
            assert!(
                self.finished.is_none() || matches!(action, Action::Answer(..)),
                "{action:?} after the end"
            );
            match action {
                Action::Spawn { seq, run } => self.spawned(seq, run),
                Action::Cancel { seq, .. } => actions.extend(self.told(seq, false)),
                Action::Kill { seq, .. } => actions.extend(self.told(seq, true)),
                Action::TakePulse { seq, run } => {
                    let last = Some(self.now - SEC);
                    actions.extend(self.machine.step(self.now, Event::Pulse { seq, run, last }));
                }
                Action::Answer(ticket, answer) => {
                    assert!(self.asked.contains(&ticket), "nobody asked {ticket}");
                    let twice = self.answers.insert(ticket, answer);
                    assert_eq!(twice, None, "ticket {ticket} was answered before");
                }
                Action::Exit(report) => self.reported(&report),
                Action::Finish(outcome) => {
                    let left = self.alive.values().find(|child| child.manner != Manner::Hangs);
                    assert!(left.is_none(), "{left:?} outlives its supervisor");
                    self.finished = Some(outcome);
                }
                _ => {}
            }
        }
        let counted = self
            .machine
            .slots
            .all()
            .filter(|(_, slot)| slot.rules.significant && slot.phase != Phase::Stopped);
        // Only in small worlds: it looks at all.
        if self.machine.slots.next_seq() < 100 {
            assert_eq!(self.machine.slots.significant, counted.count());
        }
    }

    fn spawned(&mut self, seq: u64, run: u64) {
        let Some(slot) = self.machine.slots.get(seq) else {
            panic!("{seq} is started and unknown");
        };
        let name = slot.rules.name.to_string();
        let by_group = self.machine.settings.strategy != Group::OneForOne;
        if by_group && !self.by_request && matches!(self.machine.sequence, Sequence::Up { .. }) {
            let later =
                self.alive.range(seq + 1..).find(|(_, child)| child.manner != Manner::Hangs);
            assert!(later.is_none(), "{later:?} survived while {seq} is started before it");
        }
        let manner = self.manner.get(&name).copied().unwrap_or(Manner::Obeys);
        self.names.insert(seq, name);
        let before = self.alive.insert(seq, Alive { run, manner, leaving: None });
        let hung = before.is_none_or(|before| before.manner == Manner::Hangs && before.run < run);
        assert!(hung, "child {seq} is alive twice");
    }

    fn told(&mut self, seq: u64, killed: bool) -> Vec<Action> {
        if let Sequence::End { dynamic: 0, .. } = self.machine.sequence
            && let Some(slot) = self.machine.slots.get(seq)
            && !slot.dynamic
            && !killed
        {
            let later =
                self.alive.range(seq + 1..).find(|(_, child)| child.manner != Manner::Hangs);
            assert!(later.is_none(), "{later:?} is stopped after {seq}, which was started before");
        }
        let ends = self.alive.get(&seq).is_some_and(|child| match child.manner {
            Manner::Obeys => true,
            Manner::Stubborn => killed,
            Manner::Hangs => false,
        });
        if !ends {
            return Vec::new();
        }
        self.leaves(seq, if killed { ExitReason::Killed } else { ExitReason::Normal })
    }

    /// A child's own task ends now; that all of it is gone is delivered later.
    fn leaves(&mut self, seq: u64, reason: ExitReason) -> Vec<Action> {
        let Some(child) = self.alive.get_mut(&seq).filter(|child| child.leaving.is_none()) else {
            return Vec::new();
        };
        child.leaving = Some(reason);
        self.machine.step(self.now, Event::Leaving { seq, run: child.run })
    }

    fn reported(&mut self, report: &ExitReport) {
        if report.context != ExitContext::Stop && report.will_restart {
            self.restarts.push(self.now);
            let Limit::GiveUp { max, period } = self.machine.settings.limit else {
                return;
            };
            let recent =
                self.restarts.iter().filter(|at| self.now.duration_since(**at) <= period).count();
            assert!(recent <= max, "{recent} restarts in one period");
        }
    }

    fn exits(&mut self, seq: u64, reason: ExitReason) {
        if self.alive.get(&seq).is_some_and(|child| child.manner != Manner::Hangs) {
            let actions = self.leaves(seq, reason);
            assert!(actions.is_empty(), "{actions:?} before it is gone");
        }
    }

    /// Delivers the end of `seq`, if it is on its way.
    fn deliver(&mut self, seq: u64) -> bool {
        let Some(Alive { run, leaving: Some(reason), .. }) = self.alive.get(&seq) else {
            return false;
        };
        let event = Event::Exited { seq, run: *run, reason: reason.clone() };
        self.alive.remove(&seq);
        self.step(event);
        true
    }

    fn ready(&mut self, seq: u64) {
        if let Some(child) = self.alive.get(&seq) {
            let run = child.run;
            self.step(Event::Ready { seq, run, info: None });
        }
    }

    fn ask(&mut self, asked: Asked) -> Ticket {
        let ticket = self.asked.len() as Ticket;
        self.asked.insert(ticket);
        self.by_request = true;
        self.step(Event::Asked(asked, ticket));
        self.by_request = false;
        ticket
    }

    /// Lets time pass to the next alarm; false when there is none.
    fn next_alarm(&mut self) -> bool {
        let Some(at) = self.machine.deadline() else {
            return false;
        };
        self.now = self.now.max(at);
        self.step(Event::Tick);
        assert!(self.machine.deadline().is_none_or(|at| at > self.now), "time stands still");
        true
    }

    /// Delivers and lets time pass until nothing more happens by itself.
    fn settle(&mut self) {
        for _ in 0..10_000 {
            let leaving: Vec<_> = self.alive.keys().copied().collect();
            let delivered = leaving.into_iter().rev().filter(|seq| self.deliver(*seq)).count();
            let alive: Vec<_> = self.alive.keys().copied().collect();
            alive.into_iter().for_each(|seq| self.ready(seq));
            let moving = self.alive.iter().any(|(seq, child)| {
                child.leaving.is_some()
                    || self
                        .machine
                        .slots
                        .get(*seq)
                        .is_some_and(|slot| slot.phase == Phase::Starting)
            });
            if delivered == 0 && !moving && (self.finished.is_some() || !self.next_alarm()) {
                return;
            }
        }
        panic!("it never comes to rest");
    }
}

fn strategies() -> impl Strategy<Value = Group> {
    prop_oneof![Just(Group::OneForOne), Just(Group::OneForAll), Just(Group::RestForOne)]
}

fn restarts() -> impl Strategy<Value = Restart> {
    prop_oneof![Just(Restart::Permanent), Just(Restart::Transient), Just(Restart::Temporary)]
}

fn reasons() -> impl Strategy<Value = ExitReason> {
    prop_oneof![
        Just(ExitReason::Normal),
        Just(ExitReason::Error("failed".into())),
        Just(ExitReason::Panicked("panicked".into())),
        Just(ExitReason::Killed),
        Just(ExitReason::DoNotRestart),
        Just(ExitReason::Ignored),
    ]
}

/// One thing that happens. Children are named by number, modulo how many there have been.
#[derive(Clone, Debug)]
enum Op {
    Exit(usize, ExitReason),
    Start(Restart),
    Terminate(usize),
    Again(usize),
    Delete(usize),
    Remove(usize),
    Ready(usize),
    Deliver(usize),
    Alarm,
    Wait(u16),
}

fn requests() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (0_usize..8, reasons()).prop_map(|(n, reason)| Op::Exit(n, reason)),
        1 => restarts().prop_map(Op::Start),
        1 => (0_usize..8).prop_map(Op::Terminate),
        1 => (0_usize..8).prop_map(Op::Again),
        1 => (0_usize..8).prop_map(Op::Delete),
        1 => (0_usize..8).prop_map(Op::Remove),
    ]
}

fn ops() -> impl Strategy<Value = Op> {
    prop_oneof![
        5 => requests(),
        3 => (0_usize..8).prop_map(Op::Ready),
        4 => (0_usize..8).prop_map(Op::Deliver),
        1 => Just(Op::Alarm),
        1 => (0_u16..3000).prop_map(Op::Wait),
    ]
}

/// What is expected once everything has come to rest: who is there, whether it is up, in which life.
#[derive(Debug)]
struct Reference {
    strategy: Group,
    children: Vec<Expected>,
    named: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Expected {
    name: String,
    restart: Restart,
    up: bool,
    life: u64,
}

impl Reference {
    fn start(&mut self, restart: Restart) -> String {
        let name = format!("c{}", self.named);
        self.named += 1;
        self.children.push(Expected { name: name.clone(), restart, up: true, life: 1 });
        name
    }

    fn name(&self, n: usize) -> String {
        format!("c{}", n % self.named.max(1))
    }

    fn place(&self, name: &str) -> Option<usize> {
        self.children.iter().position(|child| child.name == name)
    }

    /// Down for good, by itself or by request.
    fn rest(&mut self, at: usize) {
        self.children[at].up = false;
        if self.children[at].restart == Restart::Temporary {
            self.children.remove(at);
        }
    }

    fn exit(&mut self, at: usize, reason: &ExitReason) {
        let failure = reason.is_failure();
        let wish = matches!(reason, ExitReason::DoNotRestart | ExitReason::Ignored);
        let restart = match self.children[at].restart {
            Restart::Permanent => !wish,
            Restart::Transient => failure,
            Restart::Temporary => false,
        };
        if !restart {
            return self.rest(at);
        }
        let group = match self.strategy {
            Group::OneForOne => at..at + 1,
            Group::OneForAll => 0..self.children.len(),
            Group::RestForOne => at..self.children.len(),
        };
        for child in &mut self.children[group.clone()] {
            (child.up, child.life) = (true, child.life + 1);
        }
        let mut at = 0;
        self.children.retain(|child| {
            let bystander = group.contains(&at) && child.restart == Restart::Temporary;
            at += 1;
            !bystander
        });
    }
}

fn seen(world: &World) -> Vec<Expected> {
    let child = |(_, slot): (u64, &super::slots::Slot)| Expected {
        name: slot.rules.name.to_string(),
        restart: slot.rules.restart,
        up: slot.phase == Phase::Running,
        life: slot.run,
    };
    world.machine.slots.all().map(child).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

    /// Every op is played to its end; then world and reference must agree.
    #[test]
    fn one_thing_at_a_time_it_does_what_the_reference_says(
        strategy in strategies(),
        fixed in prop::collection::vec((restarts(), any::<bool>()), 0..5),
        ops in prop::collection::vec(requests(), 0..30),
    ) {
        let mut world = World::new(settings(strategy, usize::MAX));
        let mut reference = Reference { strategy, children: Vec::new(), named: 0 };
        let plan = fixed.iter().map(|(restart, waits)| {
            let name = reference.start(*restart);
            Rules { ready_within: waits.then_some(60 * SEC), ..rules(name, *restart) }
        });
        let plan = plan.collect();
        world.step(Event::Boot(plan));
        world.settle();
        for op in ops {
            let before = reference.children.clone();
            match op.clone() {
                Op::Start(restart) => {
                    let name = reference.start(restart);
                    let ticket = world.ask(Asked::Start(Box::new(rules(name, restart))));
                    prop_assert_eq!(world.answers.get(&ticket), Some(&Answer::Up(None)));
                }
                Op::Exit(n, reason) => {
                    let name = reference.name(n);
                    if let Some(at) = reference.place(&name).filter(|at| reference.children[*at].up) {
                        let seq = world.machine.slots.find(&name);
                        prop_assert!(seq.is_some(), "{name} is up and unknown");
                        world.exits(seq.unwrap_or(0), reason.clone());
                        reference.exit(at, &reason);
                    }
                }
                Op::Terminate(n) | Op::Remove(n) | Op::Again(n) | Op::Delete(n) => {
                    let name = reference.name(n);
                    let at = reference.place(&name);
                    let up = at.is_some_and(|at| reference.children[at].up);
                    let life = at.map_or(0, |at| reference.children[at].life);
                    let seq = world.machine.slots.find(&name);
                    let (asked, expected) = match (&op, at) {
                        (Op::Terminate(_), Some(at)) => {
                            reference.rest(at);
                            (Asked::Terminate(name), Answer::Done)
                        }
                        (Op::Remove(_), Some(at)) => {
                            reference.children.remove(at);
                            (Asked::Remove(seq.unwrap_or(u64::MAX)), Answer::Done)
                        }
                        (Op::Again(_), Some(_)) if up => (Asked::Restart(name), Answer::Runs(life)),
                        (Op::Again(_), Some(at)) => {
                            let child = &mut reference.children[at];
                            (child.up, child.life) = (true, child.life + 1);
                            (Asked::Restart(name), Answer::Up(None))
                        }
                        (Op::Delete(_), Some(_)) if up => (Asked::Delete(name), Answer::Runs(life)),
                        (Op::Delete(_), Some(at)) => {
                            reference.children.remove(at);
                            (Asked::Delete(name), Answer::Done)
                        }
                        (Op::Terminate(_), None) => (Asked::Terminate(name), Answer::NotFound),
                        (Op::Again(_), None) => (Asked::Restart(name), Answer::NotFound),
                        _ => (Asked::Delete(name), Answer::NotFound),
                    };
                    let ticket = world.ask(asked);
                    world.settle();
                    prop_assert_eq!(world.answers.get(&ticket), Some(&expected));
                }
                Op::Ready(_) | Op::Deliver(_) | Op::Alarm | Op::Wait(_) => {}
            }
            world.settle();
            prop_assert_eq!(seen(&world), reference.children.clone(), "after {:?} on {:?}", op, before);
        }
    }

    /// Nothing is waited for: children fail, hang, start and end in any order with requests and time, under small limits.
    #[test]
    fn in_any_order_of_events_nobody_lives_twice_outlives_the_end_or_waits_for_ever(
        (strategy, auto, max) in (strategies(), 0..3_u8, 0..6_usize),
        fixed in prop::collection::vec((restarts(), any::<bool>(), 0..3_u8, 0..4_u8), 0..5),
        ops in prop::collection::vec(ops(), 0..80),
    ) {
        let auto_shutdown = match auto {
            0 => None,
            1 => Some(AutoShutdown::AnySignificant),
            _ => Some(AutoShutdown::AllSignificant),
        };
        let mut world = World::new(Settings { auto_shutdown, ..settings(strategy, max) });
        let mut named = 0;
        let mut plan = Vec::new();
        for (restart, waits, manner, kind) in fixed {
            let name = format!("c{named}");
            named += 1;
            let manner = [Manner::Obeys, Manner::Stubborn, Manner::Hangs][usize::from(manner)];
            world.manner.insert(name.clone(), manner);
            plan.push(Rules {
                ready_within: waits.then_some(2 * SEC),
                significant: kind == 1 && restart != Restart::Permanent,
                shutdown: if kind == 2 { Shutdown::Brutal } else { Shutdown::Deadline(3 * SEC) },
                heartbeat: (kind == 3).then_some(Heartbeat { within: SEC / 2, missed: Missed::Restart }),
                ..rules(name, restart)
            });
        }
        world.step(Event::Boot(plan));
        for op in ops {
            if world.finished.is_some() || world.machine.sequence.is_end() {
                break;
            }
            let name = |n: usize| format!("c{}", n % named.max(1));
            let seq = |n: usize| n as u64 % world.machine.slots.next_seq().max(1);
            match op {
                Op::Exit(n, reason) => world.exits(seq(n), reason),
                Op::Deliver(n) => drop(world.deliver(seq(n))),
                Op::Ready(n) => world.ready(seq(n)),
                Op::Terminate(n) => drop(world.ask(Asked::Terminate(name(n)))),
                Op::Again(n) => drop(world.ask(Asked::Restart(name(n)))),
                Op::Delete(n) => drop(world.ask(Asked::Delete(name(n)))),
                Op::Remove(n) => drop(world.ask(Asked::Remove(seq(n)))),
                Op::Start(restart) => {
                    let new = Rules { ready_within: Some(60 * SEC), ..rules(format!("c{named}"), restart) };
                    named += 1;
                    world.ask(Asked::Start(Box::new(new)));
                }
                Op::Alarm => drop(world.next_alarm()),
                Op::Wait(ms) => {
                    world.now += Duration::from_millis(ms.into());
                    world.step(Event::Tick);
                }
            }
        }
        world.step(Event::Cancelled(Cause::Shutdown));
        world.settle();
        prop_assert!(world.finished.is_some(), "it ends");
        let open: Vec<_> = world.asked.iter().filter(|t| !world.answers.contains_key(t)).collect();
        prop_assert!(open.is_empty(), "{open:?} wait for ever");
    }
}

/// Looks at slots, and actions, from the first start to the end: statics stopped one by one, or all gone by themselves at
/// the moment of shutdown; dynamic ones stopped together.
fn work(n: usize, dynamic: bool, gone_by_themselves: bool) -> u64 {
    let mut world = World::new(settings(Group::OneForOne, 5));
    let plan = |n: usize| (0..n).map(|n| rules(format!("c{n}"), Restart::Temporary));
    if dynamic {
        world.step(Event::Boot(Vec::new()));
        for rules in plan(n) {
            world.ask(Asked::Start(Box::new(rules)));
        }
    } else {
        world.step(Event::Boot(plan(n).collect()));
    }
    assert_eq!(world.alive.len(), n);
    world.step(Event::Cancelled(Cause::Shutdown));
    if gone_by_themselves {
        for seq in 0..n as u64 {
            world.exits(seq, ExitReason::Normal);
            world.deliver(seq);
        }
    }
    while let Some(seq) =
        world.alive.iter().rev().find_map(|(seq, child)| child.leaving.as_ref().map(|_| *seq))
    {
        world.deliver(seq);
    }
    assert_eq!(world.finished, Some(Ok(())));
    world.actions + world.machine.slots.looks.get()
}

#[test]
fn b38_the_work_of_starts_and_stops_grows_with_the_number_of_children_and_no_faster() {
    for (most, dynamic) in [(100, false), (10, true)] {
        for gone_by_themselves in [false, true] {
            let (one, many) = (
                work(1000, dynamic, gone_by_themselves),
                work(1000 * most, dynamic, gone_by_themselves),
            );
            let each = many as f64 / one as f64 / most as f64;
            assert!(each < 1.1, "{each} times the work for each of {most} times as many");
        }
    }
}
