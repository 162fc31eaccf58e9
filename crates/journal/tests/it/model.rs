//! The journal against a model, with power cuts at every operation and from seeds (faults 1, 2, 3, 5, 14, 23, 25).
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use forebay_journal::{
    Append, AppendError, Appended, Checkpoint, Journal, Key, Lsn, OpenError, Recovered,
};
use proptest::prelude::*;

use crate::rig::{NOW, Rig, plain};

#[derive(Clone, Debug)]
enum Op {
    /// Appends that share a block; each with a length and perhaps a key.
    Append(Vec<(usize, bool)>),
    /// The same key again.
    Retry(usize),
    Quiet,
    /// A checkpoint at the end of a record, in 256ths of those there are.
    Checkpoint(u8),
    Trim,
    Mark(u8),
    ClearMarks(u8),
    Reopen,
    Kill,
    Crash(u64),
    /// The power goes after so many operations.
    CrashAfter(u8),
    FailSync,
    ClockBack,
}

#[derive(Clone, Debug, PartialEq)]
struct Known {
    start: Lsn,
    end: Lsn,
    payload: Bytes,
    hash: Option<u128>,
}

/// What must hold, whatever happens.
struct Model {
    rig: Rig,
    journal: Option<Arc<Journal>>,
    seed: u64,
    next: u64,
    acked: Vec<Known>,
    /// Sent, outcome unknown, in order.
    unknown: Vec<(Bytes, Option<u128>)>,
    checkpoint: Lsn,
    /// A checkpoint whose write failed may count or not.
    checkpoint_maybe: Lsn,
    marks: BTreeMap<Lsn, Vec<u8>>,
    /// Marks of which the last write failed.
    marks_unsure: bool,
    uuid: Option<uuid::Uuid>,
}

impl Model {
    fn new(seed: u64) -> Self {
        Self {
            rig: Rig::new(seed),
            journal: None,
            seed,
            next: 0,
            acked: Vec::new(),
            unknown: Vec::new(),
            checkpoint: Lsn(0),
            checkpoint_maybe: Lsn(0),
            marks: BTreeMap::new(),
            marks_unsure: false,
            uuid: None,
        }
    }

    fn random(&mut self) -> u64 {
        self.seed = self
            .seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        self.seed >> 11
    }

    /// The open journal; opens one if need be, through as many power cuts as come.
    fn journal(&mut self) -> Arc<Journal> {
        if let Some(journal) = self
            .journal
            .clone()
            .filter(|journal| !journal.is_poisoned() && !self.rig.disk.is_down())
        {
            return journal;
        }
        self.journal = None;
        for _ in 0..3 {
            if self.rig.disk.is_down() {
                let seed = self.random();
                self.rig.disk.restart(seed);
            }
            match self.rig.try_open() {
                Ok((journal, recovered)) => {
                    self.check(&journal, &recovered);
                    self.journal = Some(journal.clone());
                    return journal;
                }
                // A cut or a failed sync during recovery (fault 25): once more.
                Err(OpenError::Io { .. }) if !self.rig.disk.is_down() => self.rig.disk.kill(),
                Err(e) => assert!(self.rig.disk.is_down(), "does not open: {e}"),
            }
        }
        panic!("no power");
    }

    fn check(&mut self, journal: &Arc<Journal>, recovered: &Recovered) {
        assert_eq!(*self.uuid.get_or_insert(recovered.uuid), recovered.uuid);
        let position = recovered.checkpoint.lowest().unwrap_or_default();
        assert!(
            position == self.checkpoint || position == self.checkpoint_maybe,
            "checkpoint {position}, was {} or {}",
            self.checkpoint,
            self.checkpoint_maybe
        );
        self.checkpoint = position;
        self.checkpoint_maybe = position;
        for known in self.acked.iter().filter(|known| known.start >= position) {
            assert!(known.start >= recovered.first, "F1: {known:?} was trimmed");
        }

        let found = self.rig.read(journal, recovered.first);
        let kept: Vec<&Known> =
            self.acked.iter().filter(|known| known.start >= recovered.first).collect();
        assert!(
            found.len() >= kept.len(),
            "F1: {} of {} acknowledged records",
            found.len(),
            kept.len()
        );
        for (record, known) in found.iter().zip(&kept) {
            assert_eq!((record.start, record.end), (known.start, known.end), "F1");
            assert_eq!(record.payload, known.payload, "F1");
        }
        let mut unknown = std::mem::take(&mut self.unknown).into_iter();
        for record in &found[kept.len()..] {
            let sent = unknown.find(|(payload, _)| *payload == record.payload);
            assert_eq!(
                sent.map(|(_, hash)| hash),
                Some(record.key_hash),
                "a record that was never sent"
            );
            self.acked.push(Known {
                start: record.start,
                end: record.end,
                payload: record.payload.clone(),
                hash: record.key_hash,
            });
        }
        let bytes: usize = self.acked.iter().map(|known| known.payload.len()).sum();
        assert_eq!(recovered.counters, [self.acked.len() as u64, bytes as u64, 0, 0], "F6");
        for known in &self.acked {
            let Some(hash) = known.hash else { continue };
            let state = journal.lookup(hash);
            assert_eq!(
                state.map(|s| (s.start, s.end)),
                Some((known.start, known.end)),
                "F2: key {hash} is forgotten"
            );
        }
        let marks: BTreeMap<_, _> = recovered.attempts.iter().cloned().collect();
        if self.marks_unsure {
            self.marks = marks;
            self.marks_unsure = false;
        } else {
            assert_eq!(marks, self.marks, "F8");
        }
    }

    fn run(&mut self, op: &Op) {
        let journal = self.journal();
        match op {
            Op::Append(batch) => self.append(&journal, batch),
            Op::Retry(i) => self.retry(&journal, *i),
            Op::Quiet => self.rig.quiet(),
            Op::Checkpoint(part) => self.write_checkpoint(&journal, *part),
            Op::Trim => drop(journal.trim(Lsn(u64::MAX))),
            Op::Mark(note) => {
                let lsn = Lsn(u64::from(*note % 8) * 100);
                match journal.attempts().mark(lsn, &[*note]) {
                    Ok(()) => drop(self.marks.insert(lsn, vec![*note])),
                    Err(_) => self.marks_unsure = true,
                }
            }
            Op::ClearMarks(below) => {
                let below = Lsn(u64::from(*below % 8) * 100);
                match journal.attempts().clear_below(below) {
                    Ok(()) => self.marks = self.marks.split_off(&below),
                    Err(_) => self.marks_unsure = true,
                }
            }
            Op::Reopen => {
                if self.rig.drive(journal.close()).is_ok() {
                    self.journal = None;
                }
            }
            Op::Kill => {
                self.rig.disk.kill();
                self.journal = None;
            }
            Op::Crash(seed) => {
                self.rig.disk.crash(*seed);
                self.journal = None;
            }
            Op::CrashAfter(n) => self.rig.disk.crash_after(u64::from(*n)),
            Op::FailSync => self.rig.disk.fail_sync_after(0),
            Op::ClockBack => drop(self.rig.clock.fetch_sub(1_000_000, Ordering::Relaxed)),
        }
        if journal.is_poisoned() {
            // What a process does that is told so: it ends.
            self.journal = None;
            if !self.rig.disk.is_down() {
                self.rig.disk.kill();
            }
        }
    }

    fn append(&mut self, journal: &Arc<Journal>, batch: &[(usize, bool)]) {
        let appends: Vec<Append> = batch
            .iter()
            .map(|(len, keyed)| {
                self.next += 1;
                let mut payload = self.next.to_le_bytes().to_vec();
                payload.resize(8 + len, u8::try_from(self.next % 251).unwrap());
                let hash = u128::from(self.next) << 64 | 5;
                Append {
                    key: keyed.then_some(Key { hash, checksum: 3, note: self.next }),
                    ..plain(payload)
                }
            })
            .collect();
        let mut futures: Vec<_> =
            appends.iter().map(|append| Box::pin(journal.append(append.clone()))).collect();
        // Polling all of them once puts them into one block.
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        let mut early: Vec<Option<_>> = Vec::new();
        for future in &mut futures {
            early.push(match future.as_mut().poll(&mut cx) {
                std::task::Poll::Ready(outcome) => Some(outcome),
                std::task::Poll::Pending => None,
            });
        }
        for ((append, future), early) in appends.iter().zip(futures).zip(early) {
            let outcome = early.unwrap_or_else(|| self.rig.drive(future));
            let hash = append.key.map(|key| key.hash);
            match outcome {
                Ok(Appended::New { start, end }) => {
                    assert!(journal.durable() >= end);
                    self.acked.push(Known { start, end, payload: append.payload.clone(), hash });
                }
                Ok(Appended::Duplicate { .. }) => panic!("a fresh key was a duplicate"),
                Err(AppendError::Poisoned(_)) => self.unknown.push((append.payload.clone(), hash)),
                Err(AppendError::Full { backlog, max }) => {
                    assert!(backlog <= max && max - backlog < 64 << 10)
                }
                Err(e) => panic!("{e}"),
            }
        }
        assert!(journal.backlog() <= self.rig.options.max_bytes, "F3");
    }

    fn retry(&mut self, journal: &Arc<Journal>, i: usize) {
        let keyed: Vec<_> = self.acked.iter().filter(|known| known.hash.is_some()).collect();
        let Some(known) = keyed.get(i % keyed.len().max(1)) else {
            return;
        };
        let key = known.hash.map(|hash| Key { hash, checksum: 3, note: 0 });
        match self.rig.drive(journal.append(Append { key, ..plain(known.payload.clone()) })) {
            Ok(Appended::Duplicate { start, end, .. }) => {
                assert_eq!((start, end), (known.start, known.end), "F2")
            }
            Ok(Appended::New { .. }) => panic!("F2: a retry was appended"),
            Err(_) => assert!(journal.is_poisoned()),
        }
    }

    fn write_checkpoint(&mut self, journal: &Arc<Journal>, part: u8) {
        let Some(known) = self.acked.get(self.acked.len() * usize::from(part) / 256) else {
            return;
        };
        let position = known.end.max(self.checkpoint);
        self.checkpoint_maybe = position;
        let checkpoint =
            Checkpoint { positions: vec![(0, position), (1, position)], counters: [1, 2, 3, 4] };
        if journal.checkpoint(checkpoint).is_ok() {
            self.checkpoint = position;
        }
    }

    /// In the end: a power cut, a look, a fresh record, and another look.
    fn finish(&mut self) {
        let seed = self.random();
        self.rig.disk.crash(seed);
        self.journal = None;
        let journal = self.journal();
        self.append(&journal, &[(10, true)]);
        let seed = self.random();
        self.rig.disk.crash(seed);
        self.journal = None;
        self.journal();
    }
}

fn every_way() -> Vec<Op> {
    let some = |n: usize, len| Op::Append((0..n).map(|i| (len + i, i % 2 == 0)).collect());
    vec![
        some(1, 10),
        some(3, 2000),
        Op::Quiet,
        Op::Mark(3),
        some(2, 6000),
        Op::Retry(1),
        Op::Checkpoint(120),
        some(4, 5000),
        Op::Mark(6),
        Op::Trim,
        Op::ClearMarks(5),
        some(1, 9000),
        Op::Checkpoint(255),
        Op::Trim,
        Op::Reopen,
        some(2, 100),
        Op::Checkpoint(255),
        Op::Kill,
        some(1, 1),
        Op::Trim,
    ]
}

#[test]
fn fault_01_02_03_05_14_23_a_power_cut_after_any_operation_loses_nothing_acknowledged() {
    let mut model = Model::new(1);
    for op in every_way() {
        model.run(&op);
    }
    let operations = model.rig.disk.operations();
    assert!(operations > 60, "{operations}");
    for at in 0..=operations {
        for seed in 0..3 {
            let run = catch_unwind(AssertUnwindSafe(|| {
                let mut model = Model::new(seed);
                model.rig.disk.crash_after(at);
                for op in every_way() {
                    model.run(&op);
                }
                model.finish();
            }));
            if let Err(panic) = run {
                eprintln!("power cut after operation {at}, seed {seed}");
                resume_unwind(panic);
            }
        }
    }
}

fn an_op() -> impl Strategy<Value = Op> {
    let batch = prop::collection::vec((0usize..7000, any::<bool>()), 1..5);
    prop_oneof![
        8 => batch.prop_map(Op::Append),
        2 => any::<usize>().prop_map(Op::Retry),
        1 => Just(Op::Quiet),
        3 => any::<u8>().prop_map(Op::Checkpoint),
        3 => Just(Op::Trim),
        1 => any::<u8>().prop_map(Op::Mark),
        1 => any::<u8>().prop_map(Op::ClearMarks),
        1 => Just(Op::Reopen),
        1 => Just(Op::Kill),
        1 => any::<u64>().prop_map(Op::Crash),
        2 => (0u8..30).prop_map(Op::CrashAfter),
        1 => Just(Op::FailSync),
        1 => Just(Op::ClockBack),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn the_journal_does_what_the_model_says_through_crashes_from_seeds(
        seed: u64,
        ops in prop::collection::vec(an_op(), 1..60),
    ) {
        let mut model = Model::new(seed);
        for op in &ops {
            model.run(op);
        }
        model.finish();
        prop_assert!(model.rig.clock.load(Ordering::Relaxed) <= NOW);
    }
}
