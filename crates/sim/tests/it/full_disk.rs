//! A disk without room is waited out (F1, F8): what was accepted is stored once there is room again, and
//! nothing gives up in between.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::time::Duration;

use forebay_journal::disk::{NoSpace, SimDisk};
use forebay_pipeline::intake::{Ack, IngestError};
use forebay_sim::{Rig, STREAM, send};

const PATIENCE: Duration = Duration::from_secs(60);
const ROWS: i64 = 50;

/// Waits until every row that the journal holds is in the table.
async fn drained(rig: &Rig) {
    let drained = async {
        while rig.engine.stream(STREAM).unwrap().lag_bytes > 0 {
            assert!(rig.runs(), "F8: the lanes' supervisor gave up");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, drained).await.expect("F1: the rows reach the table");
}

/// Sends until the disk refuses; returns the number after the last accepted row.
async fn fill(rig: &Rig, mut next: i64) -> i64 {
    loop {
        match send(&rig.engine, next..next + ROWS, None, Ack::Durable).await {
            Ok(()) => next += ROWS,
            Err(IngestError::DiskFull { .. }) => return next,
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f1_f8_a_full_disk_refuses_rows_and_stores_the_accepted_ones_when_there_is_room_again() {
    for kind in [NoSpace::Device, NoSpace::Quota] {
        let disk = SimDisk::new(7);
        let rig = Rig::open(disk.clone()).await.unwrap();
        send(&rig.engine, 0..ROWS, None, Ack::Stored).await.unwrap();
        disk.set_capacity(disk.used_bytes() + (256 << 10), kind);
        let mut next = fill(&rig, ROWS).await;
        // Also from the very start of a lane, whose first act is a note on disk.
        rig.abandon().await;
        disk.kill();
        disk.set_capacity(disk.used_bytes(), kind);
        let rig = Rig::open(disk.clone()).await.unwrap();
        assert!(matches!(
            send(&rig.engine, next..next + ROWS, None, Ack::Durable).await,
            Err(IngestError::DiskFull { .. })
        ));
        assert!(rig.runs(), "F8: a full disk is no reason to give up");
        disk.clear_no_space();
        drained(&rig).await;
        send(&rig.engine, next..next + ROWS, None, Ack::Stored).await.unwrap();
        next += ROWS;
        let found = rig.count().await.unwrap();
        assert!(found.into_iter().eq((0..next).map(|row| (row, 1))), "F1, F2: each row once");
        rig.close().await.unwrap();
    }
}
