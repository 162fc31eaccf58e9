//! The Delta sink on a simulated disk whose power is cut, or whose process is killed, at every operation in turn.
//!
//! The workload commits, checkpoints its log and widens nothing; after each crash the table must be readable, hold
//! every acknowledged flush once, hold no part of a flush, and take the rest.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;

use forebay_journal::disk::{Disk, SimDisk};
use forebay_pipeline::sink::Sink;
use forebay_pipeline::sink::delta::{DeltaOptions, DeltaSink, lake_url};
use forebay_pipeline::sink::disk_store::DiskStore;

use crate::support::{APP, assert_exactly, flush, threads};

/// Positions of the workload's flushes.
const ENDS: [u64; 5] = [10, 15, 30, 31, 40];

fn open(disk: &SimDisk) -> std::io::Result<DeltaSink> {
    let store =
        DiskStore::open(Arc::new(disk.clone()) as Arc<dyn Disk>, "/lake".into(), &threads())?;
    let options = DeltaOptions { checkpoint_every: 2, ..DeltaOptions::standalone().unwrap() };
    Ok(DeltaSink::new(Arc::new(store), &lake_url("t").unwrap(), options).unwrap())
}

/// Commits from `start` on until something fails; the end of the last acknowledged flush.
async fn work(sink: &DeltaSink, start: u64) -> u64 {
    let mut at = start;
    for end in ENDS.into_iter().filter(|end| *end > start) {
        if sink.commit(flush(at, end)).await.is_err() {
            break;
        }
        at = end;
    }
    at
}

/// Where the table stands, checked to be a flush's end at or past what was acknowledged.
async fn standing(disk: &SimDisk, acknowledged: u64, at: u64) -> (DeltaSink, u64) {
    let sink = open(disk).unwrap();
    let position = sink.position(APP).await.unwrap().map_or(0, |committed| committed.end);
    assert!(
        position >= acknowledged,
        "F1: acknowledged {acknowledged}, found {position} after operation {at}"
    );
    assert!(
        position == 0 || ENDS.contains(&position),
        "F2: part of a flush after operation {at}: {position}"
    );
    if position > 0 {
        assert_exactly(&sink, i64::try_from(position).unwrap()).await;
    }
    (sink, position)
}

async fn finish(sink: DeltaSink, position: u64) {
    assert_eq!(work(&sink, position).await, 40);
    assert_exactly(&sink, 40).await;
}

/// Runs the workload until the `at`-th operation fails; false once it runs to its end.
async fn until(disk: &SimDisk, at: u64) -> (u64, bool) {
    disk.crash_after(at);
    match open(disk) {
        Err(_) => (0, true),
        Ok(sink) => {
            let acknowledged = work(&sink, 0).await;
            (acknowledged, acknowledged < 40 || disk.is_down())
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f2_power_cut_at_any_operation_leaves_every_acknowledged_row_once() {
    for at in 0.. {
        let disk = SimDisk::new(at);
        let (acknowledged, struck) = until(&disk, at).await;
        disk.restart(at);
        let (sink, position) = standing(&disk, acknowledged, at).await;
        finish(sink, position).await;
        if !struck {
            assert!(at > 40, "the workload has operations to strike at");
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f1_what_is_read_after_a_kill_survives_a_power_cut_that_follows() {
    let mut unacknowledged = 0;
    for at in 0.. {
        for seed in 0..4 {
            let disk = SimDisk::new(at);
            let (acknowledged, struck) = until(&disk, at).await;
            disk.kill();
            // The journal would be trimmed up to this position.
            let (sink, position) = standing(&disk, acknowledged, at).await;
            drop(sink);
            disk.crash(seed);
            let (sink, after) = standing(&disk, position, at).await;
            drop((sink, after));
            if !struck {
                assert!(unacknowledged > 0, "some commit was seen though never acknowledged");
                return;
            }
            // Only there can the power cut take back what was seen; it does so by seed.
            if position == acknowledged {
                break;
            }
            unacknowledged += 1;
        }
    }
}
