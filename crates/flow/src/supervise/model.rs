//! Models of the supervisor's inbox, run by shuttle under ten thousand schedules each:
//! `RUSTFLAGS="--cfg shuttle" cargo test -p forebay-flow --lib --target-dir target/shuttle supervise::model`.
//!
//! What races in a supervisor is what comes to it: children that tell, handles that ask and give up asking, and its own
//! end, or that of the right to run it. Its decisions do not race (see `properties.rs`). Checked: no wake is lost (who
//! waits for ever is a deadlock, which shuttle reports), every request is taken, refused or withdrawn, exactly once, the
//! bound holds, and every event of a run is seen in its order.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use shuttle::sync::atomic::{AtomicUsize, Ordering};
use shuttle::thread;

use super::inbox::Inbox;

const SCHEDULES: usize = 10_000;

type Mail = Inbox<(usize, usize), usize>;

struct Unpark(thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn block_on<F: Future>(fut: F) -> F::Output {
    let mut fut = pin!(fut);
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut cx = Context::from_waker(&waker);
    loop {
        if let Poll::Ready(value) = fut.as_mut().poll(&mut cx) {
            return value;
        }
        thread::park();
    }
}

fn take(mail: &Mail, events: &mut VecDeque<(usize, usize)>) -> Option<usize> {
    block_on(poll_fn(|cx| mail.poll_take(cx, events)))
}

/// Asks; says whether it was accepted.
fn asks(mail: &Arc<Mail>, request: usize) -> thread::JoinHandle<bool> {
    let mail = Arc::clone(mail);
    thread::spawn(move || block_on(mail.ask(request)).is_ok())
}

#[test]
fn every_request_is_taken_or_refused_once_however_it_races_with_the_begin_and_the_end() {
    let run = || {
        let mail = Arc::new(Mail::new(1));
        let askers: Vec<_> = (0..4).map(|n| asks(&mail, n)).collect();
        let mut events = VecDeque::new();
        assert!(mail.begin());
        let taken: Vec<_> = (0..2).filter_map(|_| take(&mail, &mut events)).collect();
        let left = mail.end();
        assert!(left.len() <= 1, "the bound");
        let accepted = askers.into_iter().map(|asker| asker.join().unwrap());
        let accepted = accepted.filter(|accepted| *accepted).count();
        let mut seen: Vec<_> = taken.into_iter().chain(left).collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), accepted, "none is lost, none seen twice");
        assert!(accepted >= 2);
    };
    shuttle::check_random(run, SCHEDULES);
    shuttle::check_pct(run, SCHEDULES, 3);
}

#[test]
fn b47_who_asks_before_a_run_that_never_comes_is_refused() {
    let run = || {
        let mail = Arc::new(Mail::new(2));
        let askers: Vec<_> = (0..4).map(|n| asks(&mail, n)).collect();
        let dropped = {
            let mail = Arc::clone(&mail);
            thread::spawn(move || mail.end().len())
        };
        let in_the_inbox = dropped.join().unwrap();
        let accepted = askers.into_iter().map(|asker| asker.join().unwrap()).filter(|a| *a).count();
        assert_eq!(accepted, in_the_inbox, "what was accepted was given back to be refused");
        assert!(mail.end().is_empty());
    };
    shuttle::check_random(run, SCHEDULES);
    shuttle::check_pct(run, SCHEDULES, 3);
}

#[test]
fn an_asker_that_gives_up_hands_its_turn_on() {
    let run = || {
        let mail = Arc::new(Mail::new(1));
        assert!(mail.begin());
        let first = asks(&mail, 0);
        let fickle = {
            let mail = Arc::clone(&mail);
            thread::spawn(move || {
                let mut asking = Box::pin(mail.ask(1));
                let mut cx = Context::from_waker(Waker::noop());
                matches!(asking.as_mut().poll(&mut cx), Poll::Ready(Ok(())))
            })
        };
        let last = asks(&mail, 2);
        // Both that stay are served, whether the fickle one was in before them, between them, or not at all.
        let (mut events, mut seen) = (VecDeque::new(), Vec::new());
        while !(seen.contains(&0) && seen.contains(&2)) {
            seen.extend(take(&mail, &mut events));
        }
        assert!(first.join().unwrap() && last.join().unwrap());
        let accepted = fickle.join().unwrap();
        seen.extend(mail.end());
        assert_eq!(seen.contains(&1), accepted);
        assert_eq!(seen.len(), 2 + usize::from(accepted));
    };
    shuttle::check_random(run, SCHEDULES);
    shuttle::check_pct(run, SCHEDULES, 3);
}

#[test]
fn every_event_of_a_run_is_seen_in_its_order_beside_requests_and_no_wake_is_lost() {
    let run = || {
        let mail = Arc::new(Mail::new(1));
        assert!(mail.begin());
        let told = Arc::new(AtomicUsize::new(0));
        let children: Vec<_> = (0..2)
            .map(|child| {
                let (mail, told) = (Arc::clone(&mail), Arc::clone(&told));
                thread::spawn(move || {
                    for word in 0..2 {
                        mail.tell((child, word));
                        told.fetch_add(1, Ordering::SeqCst);
                    }
                })
            })
            .collect();
        let asker = asks(&mail, 9);
        let (mut events, mut requests) = (VecDeque::new(), 0);
        while events.len() < 4 || requests < 1 {
            requests += usize::from(take(&mail, &mut events).is_some());
        }
        assert!(asker.join().unwrap());
        children.into_iter().for_each(|child| child.join().unwrap());
        for child in 0..2 {
            let words: Vec<_> =
                events.iter().filter(|(who, _)| *who == child).map(|(_, word)| *word).collect();
            assert_eq!(words, [0, 1]);
        }
        mail.end();
        mail.tell((0, 0));
        assert!(mail.begin());
        let mut cx = Context::from_waker(Waker::noop());
        events.clear();
        assert!(mail.poll_take(&mut cx, &mut events).is_pending(), "nothing of an earlier run");
    };
    shuttle::check_random(run, SCHEDULES);
    shuttle::check_pct(run, SCHEDULES, 3);
}

#[test]
fn a_rebuild_beside_askers_leaves_nobody_waiting_and_the_bound_holds() {
    let run = || {
        let mail = Arc::new(Mail::new(1));
        assert!(mail.begin());
        let askers: Vec<_> = (0..3).map(|n| asks(&mail, n)).collect();
        let mut seen: Vec<_> = mail.end().into();
        assert!(mail.begin(), "rebuilt");
        // Refused by the first build or accepted by the second: each is told.
        let mut events = VecDeque::new();
        let server = {
            let mail = Arc::clone(&mail);
            thread::spawn(move || {
                let mut seen = Vec::new();
                loop {
                    match take(&mail, &mut events) {
                        Some(request) => seen.push(request),
                        None => return seen, // the word that all are done
                    }
                }
            })
        };
        let accepted = askers.into_iter().map(|asker| asker.join().unwrap()).filter(|a| *a).count();
        mail.tell((0, 0));
        seen.extend(server.join().unwrap());
        seen.extend(mail.end());
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), accepted);
    };
    shuttle::check_random(run, SCHEDULES);
    shuttle::check_pct(run, SCHEDULES, 3);
}

/// A supervisor of shuttle's threads: the real machine and inbox, an engine of a few lines.
mod whole {
    use std::collections::HashMap;
    use std::time::Duration;

    use shuttle::sync::atomic::AtomicBool;

    use super::*;
    use crate::backoff::Backoff;
    use crate::clock;
    use crate::ctx::Cause;
    use crate::supervise::intensity::Limit;
    use crate::supervise::machine::{Action, Answer, Event, Machine, Ticket};
    use crate::supervise::plan::{Settings, Strategy};
    use crate::supervise::report::ExitReason;
    use crate::supervise::requests::Asked;
    use crate::supervise::spec::{Rules, Shutdown};
    use crate::supervise::sync::Mutex;

    enum Tell {
        Ready(u64, u64),
        Exited(u64, u64, ExitReason),
        Cancel,
    }

    type Reply = Arc<(Mutex<Option<Answer>>, thread::Thread)>;
    type Mail = Inbox<Tell, (Asked, Reply)>;

    fn reply(to: &Reply, answer: Answer) {
        assert_eq!(to.0.lock().replace(answer), None, "answered twice");
        to.1.unpark();
    }

    fn rules(name: &'static str) -> Rules {
        let ready_within = Some(std::time::Duration::from_secs(60));
        Rules { shutdown: Shutdown::Forever, ready_within, ..Rules::new(name.into()) }
    }

    struct Life {
        told: Arc<AtomicBool>,
        thread: thread::JoinHandle<()>,
    }

    struct Engine {
        mail: Arc<Mail>,
        machine: Machine,
        lives: HashMap<u64, Life>,
        ended: Vec<thread::JoinHandle<()>>,
        replies: HashMap<Ticket, Reply>,
        alive: Arc<AtomicUsize>,
        done: bool,
    }

    impl Engine {
        /// The first life of the first child fails by itself; the others wait to be told.
        fn spawn(&mut self, seq: u64, run: u64) {
            let (mail, alive) = (Arc::clone(&self.mail), Arc::clone(&self.alive));
            let told = Arc::new(AtomicBool::new(false));
            let own = Arc::clone(&told);
            alive.fetch_add(1, Ordering::SeqCst);
            let thread = thread::spawn(move || {
                mail.tell(Tell::Ready(seq, run));
                let fails = (seq, run) == (0, 1);
                while !fails && !own.load(Ordering::SeqCst) {
                    thread::park();
                }
                alive.fetch_sub(1, Ordering::SeqCst);
                let failed = ExitReason::Error("failed".into());
                let reason = if fails { failed } else { ExitReason::Normal };
                mail.tell(Tell::Exited(seq, run, reason));
            });
            if let Some(old) = self.lives.insert(seq, Life { told, thread }) {
                self.ended.push(old.thread);
            }
        }

        fn step(&mut self, event: Event) {
            for action in self.machine.step(clock::now(), event) {
                match action {
                    Action::Spawn { seq, run } => self.spawn(seq, run),
                    Action::Cancel { seq, .. } | Action::Kill { seq, .. } => {
                        let life = &self.lives[&seq];
                        life.told.store(true, Ordering::SeqCst);
                        life.thread.thread().unpark();
                    }
                    Action::Answer(ticket, answer) => {
                        reply(&self.replies.remove(&ticket).unwrap(), answer);
                    }
                    Action::Finish(outcome) => {
                        assert_eq!(outcome, Ok(()));
                        assert_eq!(self.alive.load(Ordering::SeqCst), 0, "someone outlives it");
                        self.done = true;
                    }
                    _ => {}
                }
            }
        }

        fn live(mut self) {
            assert!(self.mail.begin());
            self.step(Event::Boot(vec![rules("a"), rules("b")]));
            let mut next = 0;
            while !self.done {
                // Restarts have no pause here: what is due is due now.
                while self.machine.deadline().is_some_and(|at| at <= clock::now()) {
                    self.step(Event::Tick);
                }
                let mut events = VecDeque::new();
                let request = block_on(poll_fn(|cx| self.mail.poll_take(cx, &mut events)));
                for event in events {
                    self.step(match event {
                        Tell::Ready(seq, run) => Event::Ready { seq, run, info: None },
                        Tell::Exited(seq, run, reason) => Event::Exited { seq, run, reason },
                        Tell::Cancel => Event::Cancelled(Cause::Shutdown),
                    });
                }
                if let Some((asked, to)) = request {
                    next += 1;
                    self.replies.insert(next, to);
                    self.step(Event::Asked(asked, next));
                }
            }
            for (_, to) in self.mail.end() {
                reply(&to, Answer::NotRunning);
            }
            assert!(self.replies.is_empty(), "someone waits for ever");
            for thread in self.lives.into_values().map(|life| life.thread).chain(self.ended) {
                thread.join().unwrap();
            }
        }
    }

    fn ask(mail: &Arc<Mail>, asked: Asked) -> thread::JoinHandle<Answer> {
        let mail = Arc::clone(mail);
        thread::spawn(move || {
            let to: Reply = Arc::new((Mutex::new(None), thread::current()));
            if block_on(mail.ask((asked, Arc::clone(&to)))).is_err() {
                return Answer::NotRunning;
            }
            loop {
                if let Some(answer) = to.0.lock().take() {
                    return answer;
                }
                thread::park();
            }
        })
    }

    fn play(strategy: Strategy) {
        let mail = Arc::new(Mail::new(1));
        let settings = Settings {
            strategy,
            limit: Limit::GiveUp { max: 5, period: Duration::from_secs(3600) },
            backoff: Backoff::NONE,
            auto_shutdown: None,
        };
        let names = ("sup".to_owned(), "sup".to_owned());
        let chance = fastrand::Rng::with_seed(1);
        let engine = Engine {
            mail: Arc::clone(&mail),
            machine: Machine::new(names, settings, 0, chance, clock::now()),
            lives: HashMap::new(),
            ended: Vec::new(),
            replies: HashMap::new(),
            alive: Arc::default(),
            done: false,
        };
        let started = ask(&mail, Asked::Start(Box::new(rules("new"))));
        let terminated = ask(&mail, Asked::Terminate("b".to_owned()));
        let running = thread::spawn(move || engine.live());
        let end = {
            let mail = Arc::clone(&mail);
            thread::spawn(move || {
                thread::yield_now();
                // Before the run there is nobody to tell, as a context that is cancelled already is seen by the run.
                while !mail.is_running() {
                    thread::yield_now();
                }
                mail.tell(Tell::Cancel);
            })
        };
        running.join().unwrap();
        end.join().unwrap();
        let (started, terminated) = (started.join().unwrap(), terminated.join().unwrap());
        assert!(matches!(started, Answer::Up(None) | Answer::NotRunning), "{started:?}");
        assert!(matches!(terminated, Answer::Done | Answer::NotRunning), "{terminated:?}");
    }

    #[test]
    fn however_failures_requests_and_the_end_race_it_ends_with_nobody_left_and_all_answered() {
        for strategy in [Strategy::OneForOne, Strategy::OneForAll, Strategy::RestForOne] {
            shuttle::check_random(move || play(strategy), SCHEDULES);
        }
        shuttle::check_pct(|| play(Strategy::OneForAll), SCHEDULES, 3);
    }
}
