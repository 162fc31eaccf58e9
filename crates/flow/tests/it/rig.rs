//! Children that obey, and write down what happens to them.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use forebay_flow::supervise::{Child, ExitReport, Strategy, Supervisor};
use forebay_flow::{Backoff, Ctx};
use parking_lot::Mutex;
use tokio::sync::oneshot;

/// What a child can be told to do.
#[derive(Debug)]
pub enum Do {
    Return,
    Fail,
    Panic,
    /// No more attention to cancellation.
    Ignore,
}

#[derive(Clone, Default)]
pub struct Rig {
    log: Arc<Mutex<Vec<String>>>,
    lives: Arc<Mutex<HashMap<String, u32>>>,
    strings: Arc<Mutex<HashMap<String, oneshot::Sender<Do>>>>,
    broken: Arc<Mutex<HashMap<String, Arc<AtomicBool>>>>,
    reports: Arc<Mutex<Vec<ExitReport>>>,
}

impl Rig {
    pub fn new() -> Self {
        Self::default()
    }

    /// A child that logs `+name1`, `+name2`, … as its lives begin and `-name1` as they end by cancellation.
    pub fn child(&self, name: &'static str) -> Child {
        let rig = self.clone();
        let broken = rig.broken(name);
        Child::new(name, move |ctx: Ctx| {
            let (rig, broken) = (rig.clone(), Arc::clone(&broken));
            async move {
                let life = {
                    let mut lives = rig.lives.lock();
                    let life = lives.entry(name.to_owned()).or_default();
                    *life += 1;
                    *life
                };
                if broken.load(Ordering::Relaxed) {
                    rig.write(format!("!{name}{life}"));
                    return Err("broken".to_owned());
                }
                rig.write(format!("+{name}{life}"));
                let (string, mut pulled) = oneshot::channel();
                rig.strings.lock().insert(name.to_owned(), string);
                ctx.ready();
                let told = tokio::select! {
                    _cause = ctx.cancelled() => None,
                    told = &mut pulled => Some(told.unwrap()),
                };
                match told {
                    None => {
                        rig.write(format!("-{name}{life}"));
                        Ok(())
                    }
                    Some(Do::Return) => Ok(()),
                    Some(Do::Fail) => Err(format!("{name} failed")),
                    Some(Do::Panic) => panic!("{name} panicked"),
                    Some(Do::Ignore) => std::future::pending().await,
                }
            }
        })
        .ready_within(Duration::from_secs(60))
    }

    /// From now on (or no longer) the child's start fails.
    pub fn break_start(&self, name: &str, broken: bool) {
        self.broken(name).store(broken, Ordering::Relaxed);
    }

    fn broken(&self, name: &str) -> Arc<AtomicBool> {
        Arc::clone(self.broken.lock().entry(name.to_owned()).or_default())
    }

    pub fn tell(&self, name: &str, what: Do) {
        self.strings.lock().remove(name).unwrap().send(what).unwrap();
    }

    pub fn write(&self, line: String) {
        self.log.lock().push(line);
    }

    /// The log since the last call, joined by blanks.
    pub fn take(&self) -> String {
        std::mem::take(&mut *self.log.lock()).join(" ")
    }

    pub fn peek(&self) -> String {
        self.log.lock().join(" ")
    }

    /// Waits until the log reads `expected`, and empties it.
    pub async fn expect(&self, expected: &str) {
        for _ in 0..5000 {
            if self.peek() == expected {
                self.take();
                return;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(self.take(), expected);
    }

    /// Lets everything that can happen soon happen, and says what the log holds then.
    pub async fn settled(&self) -> String {
        tokio::time::sleep(Duration::from_millis(200)).await;
        self.take()
    }

    pub fn supervisor(&self, strategy: Strategy) -> Supervisor {
        let reports = Arc::clone(&self.reports);
        Supervisor::new("sup", strategy)
            .backoff(Backoff::NONE)
            .on_exit(move |report| reports.lock().push(report.clone()))
    }

    pub fn reports(&self) -> Vec<ExitReport> {
        self.reports.lock().clone()
    }
}

/// As [`until`], holding the thread: for tests that block a thread of the runtime.
pub fn until_on_thread(done: impl Fn() -> bool) {
    for _ in 0..60_000 {
        if done() {
            return;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    panic!("waited in vain");
}

/// Waits until `done` says yes.
pub async fn until(done: impl Fn() -> bool) {
    for _ in 0..5000 {
        if done() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("waited in vain");
}
