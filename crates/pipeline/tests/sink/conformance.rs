//! The contract of `Sink`, asked of every implementation.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;

use arrow::array::{Int32Array, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema};
use forebay_journal::disk::{RealDisk, SimDisk};
use forebay_pipeline::sink::delta::{DeltaOptions, DeltaSink, lake_url};
use forebay_pipeline::sink::disk_store::DiskStore;
use forebay_pipeline::sink::memory::{Fault, MemorySink};
use forebay_pipeline::sink::{Committed, Flush, Sink, SinkError};

use crate::support::{APP, ask, assert_exactly, counts, flush, flush_as, threads};

/// Asks all of it; `reopen` gives the same table to a new owner.
async fn conforms<S: Sink>(mut reopen: impl FnMut() -> S) {
    let sink = reopen();
    assert_eq!(sink.position(APP).await.unwrap(), None);
    assert!(sink.table().await.unwrap().is_none(), "nothing is committed yet");

    sink.commit(flush(0, 10)).await.unwrap();
    sink.commit(flush(10, 25)).await.unwrap();
    let committed = Some(Committed { end: 25, counts: counts(25) });
    assert_eq!(sink.position(APP).await.unwrap(), committed);
    assert_exactly(&sink, 25).await;

    // A commit that is already there adds nothing and succeeds.
    sink.commit(flush(10, 25)).await.unwrap();
    sink.commit(flush(0, 10)).await.unwrap();
    // One that starts elsewhere is refused.
    for (start, end) in [(30, 40), (20, 30)] {
        let refused = sink.commit(flush(start, end)).await;
        assert!(matches!(refused, Err(SinkError::Position { committed: 25, .. })), "{refused:?}");
    }
    assert_exactly(&sink, 25).await;

    // No rows: the position alone moves.
    let counts_25 = counts(25);
    sink.commit(Flush { batches: Vec::new(), counts: counts_25, ..flush(25, 40) }).await.unwrap();
    assert_eq!(sink.position(APP).await.unwrap(), Some(Committed { end: 40, counts: counts_25 }));
    assert_exactly(&sink, 25).await;

    // Lanes do not see each other.
    sink.commit(flush_as("journal/other/0", 1000, 1001)).await.unwrap();
    assert_eq!(sink.position(APP).await.unwrap().unwrap().end, 40);
    assert_eq!(ask(&sink, "SELECT count(*) FROM t").await, 26);

    widens(&sink).await;

    let again = reopen();
    assert_eq!(again.position(APP).await.unwrap().unwrap().end, 41);
    assert_eq!(again.position("journal/other/0").await.unwrap().unwrap().end, 1001);
    assert_eq!(again.position("journal/strange/0").await.unwrap(), None);
    assert_eq!(ask(&again, "SELECT count(*) FROM t").await, 27);
    assert_eq!(ask(&again, "SELECT sum(extra) FROM t").await, 7);
    again.commit(flush(40, 41)).await.unwrap();
    assert_eq!(ask(&again, "SELECT count(*) FROM t").await, 27, "F2: committed before the restart");
}

/// A new column is added; a changed type is refused, and nothing of that flush stays.
async fn widens<S: Sink>(sink: &S) {
    let number = Field::new("n", DataType::Int64, false);
    let wide = Arc::new(Schema::new(vec![number, Field::new("extra", DataType::Int32, false)]));
    let columns =
        [Arc::new(Int64Array::from(vec![40])) as _, Arc::new(Int32Array::from(vec![7])) as _];
    let batch = RecordBatch::try_new(Arc::clone(&wide), columns.to_vec()).unwrap();
    let batches = vec![batch];
    sink.takes(&wide).await.unwrap();
    sink.commit(Flush { schema: wide, batches, ..flush(40, 41) }).await.unwrap();
    assert_eq!(ask(sink, "SELECT count(*) FROM t WHERE extra IS NULL").await, 26);

    let changed = Arc::new(Schema::new(vec![Field::new("n", DataType::Int32, false)]));
    let told = sink.takes(&changed).await;
    assert!(matches!(told, Err(SinkError::Schema(ref why)) if why.contains("\"n\"")), "{told:?}");
    let batch =
        RecordBatch::try_new(Arc::clone(&changed), vec![Arc::new(Int32Array::from(vec![1]))])
            .unwrap();
    let refused =
        sink.commit(Flush { schema: changed, batches: vec![batch], ..flush(41, 42) }).await;
    assert!(
        matches!(refused, Err(SinkError::Schema(ref why)) if why.contains("\"n\"")),
        "{refused:?}"
    );
    assert_eq!(sink.position(APP).await.unwrap().unwrap().end, 41);
    assert_eq!(ask(sink, "SELECT count(*) FROM t").await, 27);
}

#[tokio::test]
async fn the_memory_sink_conforms() {
    let sink = MemorySink::new();
    conforms(|| sink.clone()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_delta_sink_conforms_on_a_real_disk() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("lake");
    conforms(|| {
        let store = DiskStore::open(Arc::new(RealDisk::new()), root.clone(), &threads()).unwrap();
        DeltaSink::new(
            Arc::new(store),
            &lake_url("flights").unwrap(),
            DeltaOptions::standalone().unwrap(),
        )
        .unwrap()
    })
    .await;
}

#[tokio::test]
async fn the_delta_sink_conforms_on_a_simulated_disk_and_one_thread() {
    let disk = Arc::new(SimDisk::new(1));
    conforms(|| {
        let store = DiskStore::open(Arc::clone(&disk) as _, "/lake".into(), &threads()).unwrap();
        DeltaSink::new(
            Arc::new(store),
            &lake_url("flights").unwrap(),
            DeltaOptions::standalone().unwrap(),
        )
        .unwrap()
    })
    .await;
}

#[tokio::test]
async fn a_lost_reply_of_the_memory_sink_is_found_by_reading_the_position() {
    let sink = MemorySink::new();
    sink.fail_next(Fault::Before);
    assert!(sink.commit(flush(0, 10)).await.is_err());
    assert_eq!(sink.position(APP).await.unwrap(), None);
    sink.fail_next(Fault::After);
    assert!(sink.commit(flush(0, 10)).await.is_err());
    assert_eq!(sink.position(APP).await.unwrap().unwrap().end, 10);
    sink.commit(flush(0, 10)).await.unwrap();
    assert_exactly(&sink, 10).await;
}
