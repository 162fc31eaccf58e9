//! What is special to the Delta sink: types, statistics, other writers, checkpoints, cost over a long log.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{
    ArrayRef, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int64Array, RecordBatch,
    StringArray, StringViewArray, TimestampMicrosecondArray, TimestampNanosecondArray, UInt64Array,
};
use arrow::datatypes::{DataType, Field, Schema};
use forebay_flow::clock;
use forebay_journal::disk::RealDisk;
use forebay_pipeline::record::{Code, Rejected};
use forebay_pipeline::sink::dead_letters::{self, DeadLetter, DeadLetters, Origin};
use forebay_pipeline::sink::delta::{DeltaOptions, DeltaSink, lake_url};
use forebay_pipeline::sink::disk_store::DiskStore;
use forebay_pipeline::sink::{Flush, Sink, SinkError};
use futures_util::TryStreamExt;
use object_store::{ObjectStore, ObjectStoreExt};
use serde_json::Value;

use crate::support::{APP, ask, assert_exactly, counts, flush, flush_as, threads};

fn lake() -> (tempfile::TempDir, DiskStore) {
    let dir = tempfile::tempdir().unwrap();
    let store =
        DiskStore::open(Arc::new(RealDisk::new()), dir.path().to_owned(), &threads()).unwrap();
    (dir, store)
}

fn sink(store: &DiskStore, options: DeltaOptions) -> DeltaSink {
    DeltaSink::new(Arc::new(store.clone()), &lake_url("t").unwrap(), options).unwrap()
}

/// The actions of one log entry, by kind.
async fn entry(store: &DiskStore, version: u64, kind: &str) -> Vec<Value> {
    let bytes = store
        .get(&format!("t/_delta_log/{version:020}.json").into())
        .await
        .unwrap()
        .bytes()
        .await
        .unwrap();
    let actions =
        bytes.split(|b| *b == b'\n').map(|line| serde_json::from_slice::<Value>(line).unwrap());
    actions.filter_map(|action| action.get(kind).cloned()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_type_is_stored_with_its_bounds_and_read_back() {
    let (_dir, store) = lake();
    let sink = sink(&store, DeltaOptions::standalone().unwrap());
    let decimal = Decimal128Array::from(vec![Some(-12_345_678_901_234_567_890_123), Some(1), None]);
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("flag", Arc::new(BooleanArray::from(vec![Some(true), None, Some(false)]))),
        ("big", Arc::new(Int64Array::from(vec![Some(i64::MIN), Some(i64::MAX), None]))),
        ("money", Arc::new(decimal.with_precision_and_scale(38, 2).unwrap())),
        ("ratio", Arc::new(Float64Array::from(vec![0.5, -0.25, 1e300]))),
        ("maybe", Arc::new(Float64Array::from(vec![0.5, f64::NAN, 1.0]))),
        ("text", Arc::new(StringArray::from(vec!["é".repeat(40).as_str(), "a", "\"quoted\""]))),
        ("day", Arc::new(Date32Array::from(vec![0, -1, 19_000]))),
        (
            "at",
            Arc::new(
                TimestampMicrosecondArray::from(vec![0, 1, 1_700_000_000_123_456])
                    .with_timezone("UTC"),
            ),
        ),
        ("nanos", Arc::new(TimestampNanosecondArray::from(vec![0, 1_000, 2_000]))),
        ("view", Arc::new(StringViewArray::from(vec!["x", "y", "z"]))),
        ("unsigned", Arc::new(UInt64Array::from(vec![0, 1, u64::MAX]))),
        ("nothing", Arc::new(Int64Array::from(vec![None, None, None]))),
        ("with space, and (more)", Arc::new(Int64Array::from(vec![1, 2, 3]))),
    ];
    let fields =
        columns.iter().map(|(name, column)| Field::new(*name, column.data_type().clone(), true));
    let mut fields: Vec<Field> = fields.collect();
    fields[5] =
        fields[5].clone().with_metadata([("forebay.type".to_owned(), "json".to_owned())].into());
    let schema = Arc::new(Schema::new(fields));
    let batch =
        RecordBatch::try_new(Arc::clone(&schema), columns.into_iter().map(|(_, c)| c).collect())
            .unwrap();
    sink.commit(Flush { schema, batches: vec![batch], ..flush(0, 3) }).await.unwrap();

    let add = entry(&store, 0, "add").await.remove(0);
    let text = add["stats"].as_str().unwrap();
    assert!(
        text.contains("\"money\":-123456789012345678901.23"),
        "exact to the last digit: {text}"
    );
    let stats: Value = serde_json::from_str(text).unwrap();
    let (min, max, nulls) = (&stats["minValues"], &stats["maxValues"], &stats["nullCount"]);
    assert_eq!(stats["numRecords"], 3);
    assert_eq!((min["big"].as_i64(), max["big"].as_i64()), (Some(i64::MIN), Some(i64::MAX)));
    assert_eq!((&min["day"], &max["day"]), (&"1969-12-31".into(), &"2022-01-08".into()));
    assert_eq!(max["at"], "2023-11-14T22:13:20.123456Z");
    assert_eq!(min["text"], "\"quoted\"");
    assert!(
        max["text"].as_str().unwrap() > "é".repeat(40).as_str(),
        "a cut bound is greater: {max}"
    );
    assert_eq!(max["ratio"], 1e300);
    assert!(
        min.get("maybe").is_none() && min.get("nothing").is_none() && min.get("flag").is_none()
    );
    assert_eq!(
        (&nulls["nothing"], &nulls["flag"], &nulls["text"]),
        (&3.into(), &1.into(), &0.into())
    );

    for (sql, answer) in [
        ("SELECT count(*) FROM t WHERE flag", 1),
        (
            "SELECT count(*) FROM t WHERE money = CAST('-123456789012345678901.23' AS DECIMAL(38, 2))",
            1,
        ),
        ("SELECT count(*) FROM t WHERE text >= 'é'", 1),
        ("SELECT count(*) FROM t WHERE day < DATE '1970-01-01'", 1),
        ("SELECT count(*) FROM t WHERE at = TIMESTAMP '2023-11-14T22:13:20.123456Z'", 1),
        (
            "SELECT count(*) FROM t WHERE view = 'y' AND nanos = TIMESTAMP '1970-01-01T00:00:00.000001Z'",
            1,
        ),
        ("SELECT count(*) FROM t WHERE unsigned = 18446744073709551615", 1),
        ("SELECT sum(\"with space, and (more)\") FROM t", 6),
    ] {
        assert_eq!(ask(&sink, sql).await, answer, "{sql}");
    }
    let table = sink.table().await.unwrap().unwrap().schema();
    assert_eq!(table.field(5).metadata().get("forebay.type").map(String::as_str), Some("json"));
}

#[tokio::test]
async fn types_and_names_that_a_table_cannot_hold_are_refused_by_name() {
    let (_dir, store) = lake();
    let sink = sink(&store, DeltaOptions::standalone().unwrap());
    let list = DataType::List(Arc::new(Field::new("item", DataType::Int64, true)));
    for (fields, part) in [
        (vec![Field::new("deep", list, true)], "\"deep\""),
        (vec![Field::new("a", DataType::Int64, true), Field::new("A", DataType::Int64, true)], "A"),
    ] {
        let schema = Arc::new(Schema::new(fields));
        let refused = sink.commit(Flush { schema, batches: Vec::new(), ..flush(0, 1) }).await;
        assert!(
            matches!(refused, Err(SinkError::Schema(ref why)) if why.contains(part)),
            "{refused:?}"
        );
    }
    assert!(sink.table().await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f2_positions_and_counts_outlive_checkpoints_and_the_cleanup_of_the_log() {
    let (_dir, store) = lake();
    let options = || DeltaOptions { checkpoint_every: 10, ..DeltaOptions::standalone().unwrap() };
    let first = sink(&store, options());
    first.commit(flush_as("quiet/lane/0", 0, 5)).await.unwrap();
    assert_exactly(&first, 5).await;
    for n in 0..35 {
        first.commit(flush(5 + n, 6 + n)).await.unwrap();
    }
    // The log's beginning is gone, as after its retention.
    let log = first.log_store();
    let gone = deltalake::checkpoints::cleanup_expired_logs_for(30, log.as_ref(), i64::MAX, None)
        .await
        .unwrap();
    assert!(gone >= 20, "{gone} entries were removed");
    let again = sink(&store, options());
    let quiet = again.position("quiet/lane/0").await.unwrap().unwrap();
    assert_eq!((quiet.end, quiet.counts), (5, counts(5)));
    assert_eq!(again.position(APP).await.unwrap().unwrap().counts, counts(40));
    again.commit(flush(40, 50)).await.unwrap();
    assert_exactly(&again, 50).await;
    // The first owner finds out that it was overtaken.
    first.commit(flush(40, 50)).await.unwrap();
    assert_exactly(&first, 50).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f2_a_commit_beside_other_writers_lands_behind_theirs() {
    let (_dir, store) = lake();
    let (a, b) = (
        sink(&store, DeltaOptions::standalone().unwrap()),
        sink(&store, DeltaOptions::standalone().unwrap()),
    );
    a.commit(flush(0, 10)).await.unwrap();
    b.commit(flush_as("other/lane/0", 10, 20)).await.unwrap();
    a.commit(flush(10, 10)).await.unwrap();
    a.commit(flush_as("third/lane/0", 20, 30)).await.unwrap();
    assert_exactly(&b, 30).await;

    // Compaction by the stock library replaces the files under the sink.
    let mut table = deltalake::DeltaTable::new(a.log_store());
    table.load().await.unwrap();
    let (_, metrics) = table.optimize().await.unwrap();
    assert_eq!((metrics.num_files_added, metrics.num_files_removed), (1, 3));
    a.commit(flush_as("third/lane/0", 30, 40)).await.unwrap();
    assert_exactly(&a, 40).await;
    assert_eq!(a.position(APP).await.unwrap().unwrap().end, 10);
    assert_eq!(a.version().await.unwrap(), Some(4));

    // The same lane from two owners at once: one wins, nothing is stored twice.
    let (left, right) = tokio::join!(
        a.commit(flush_as("third/lane/0", 40, 50)),
        b.commit(flush_as("third/lane/0", 40, 50))
    );
    assert!(left.is_ok() && right.is_ok(), "{left:?} {right:?}");
    assert_exactly(&b, 50).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retry_of_a_flush_takes_the_file_it_has_already_put() {
    let (_dir, store) = lake();
    let sink = sink(&store, DeltaOptions::standalone().unwrap());
    sink.commit(flush(0, 10)).await.unwrap();
    // The entry's name is a directory: the file gets in, the entry does not.
    let taken = store.root().join("t/_delta_log").join(format!("{:020}.json", 1));
    std::fs::create_dir(&taken).unwrap();
    for _ in 0..3 {
        assert!(sink.commit(flush(10, 20)).await.is_err());
    }
    std::fs::remove_dir(&taken).unwrap();
    sink.commit(flush(10, 20)).await.unwrap();
    assert_exactly(&sink, 20).await;
    let all: Vec<_> = store.list(Some(&"t".into())).try_collect().await.unwrap();
    assert_eq!(all.iter().filter(|meta| meta.location.as_ref().ends_with(".parquet")).count(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_after_a_thousand_costs_what_the_first_did() {
    let (_dir, store) = lake();
    let sink = sink(&store, DeltaOptions::standalone().unwrap());
    let mut slowest = Duration::ZERO;
    for n in 0..1_000 {
        let before = clock::now();
        sink.commit(Flush { batches: Vec::new(), ..flush(n, n + 1) }).await.unwrap();
        if (n + 1) % 100 != 0 {
            slowest = slowest.max(before.elapsed());
        }
    }
    println!("slowest commit without a checkpoint: {slowest:?}");
    let before = clock::now();
    sink.commit(flush(1_000, 1_010)).await.unwrap();
    assert!(before.elapsed() < Duration::from_secs(2), "took {:?}", before.elapsed());
    assert_eq!(ask(&sink, "SELECT count(*) FROM t").await, 10);
    let before = clock::now();
    let again = self::sink(&store, DeltaOptions::standalone().unwrap());
    assert_eq!(again.position(APP).await.unwrap().unwrap().end, 1_010);
    println!("position after reopening: {:?}", before.elapsed());
}

fn letter(position: u64, row: u64, raw: &'static [u8]) -> DeadLetter {
    let origin = Origin {
        stream: "flights".into(),
        stream_id: "id".into(),
        position,
        client: Some("shop".into()),
        request_id: None,
        received_unix_micros: 1_700_000_000_000_000,
    };
    let message = "abc is no INT".to_owned();
    let rejected = Rejected {
        row,
        column: Some("n".to_owned()),
        code: Code::TypeMismatch,
        message,
        raw: raw.into(),
    };
    DeadLetter::new(&origin, rejected)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f2_a_dead_letter_is_committed_once_whoever_asks_again() {
    let (_dir, store) = lake();
    let table = lake_url(dead_letters::TABLE).unwrap();
    let open = || {
        DeltaSink::new(Arc::new(store.clone()), &table, DeltaOptions::standalone().unwrap())
            .unwrap()
    };
    let delta: Arc<dyn Sink> = Arc::new(open());
    let letters = DeadLetters::new(Arc::clone(&delta));
    assert!(letters.table().await.unwrap().is_none());
    assert_eq!(letters.commit(APP, 50, Vec::new()).await.unwrap(), 0);
    assert_eq!(letters.position(APP).await.unwrap(), None, "nothing dead, nothing written");

    let range = || vec![letter(60, 1, b"abc,1"), letter(60, 7, b"\xff\xfe"), letter(80, 2, b"")];
    assert_eq!(letters.commit(APP, 100, range()).await.unwrap(), 3);
    assert_eq!(letters.commit(APP, 100, range()).await.unwrap(), 0);
    // A longer flush of the same range, after a crash before the rows were committed.
    let mut longer = range();
    longer.push(letter(100, 1, b"xyz"));
    assert_eq!(letters.commit(APP, 120, longer).await.unwrap(), 1);
    let elsewhere = vec![letter(0, 1, b"of another lane")];
    assert_eq!(letters.commit("journal/other/0", 9, elsewhere).await.unwrap(), 1);

    let again = DeadLetters::new(Arc::new(open()));
    let committed = again.position(APP).await.unwrap().unwrap();
    assert_eq!(
        (committed.end, committed.counts.stored),
        (120, 4),
        "F6: letters are counted in the table"
    );
    for (sql, answer) in [
        ("SELECT count(*) FROM t", 5),
        ("SELECT count(*) FROM t WHERE raw_text IS NULL", 1),
        (
            "SELECT count(*) FROM t WHERE raw_text = 'abc,1' AND code = 'type_mismatch' AND \"column\" = 'n'",
            1,
        ),
        ("SELECT count(*) FROM t WHERE raw = X'fffe' AND row = 7 AND position = 60", 1),
    ] {
        assert_eq!(ask(delta.as_ref(), sql).await, answer, "{sql}");
    }
}
