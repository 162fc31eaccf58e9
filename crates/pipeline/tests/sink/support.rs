//! Flushes to commit, and questions to ask of a table.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;

use arrow::array::{AsArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use datafusion::prelude::SessionContext;
use forebay_flow::pool::{self, ThreadPool};
use forebay_flow::queue::Bound;
use forebay_pipeline::sink::{Counts, Flush, Sink};

/// How many threads the stores of these tests have.
pub const THREADS: usize = 2;

/// The threads of a store.
pub fn threads() -> ThreadPool {
    pool::Builder::new("lake", THREADS, Bound::items(2 * THREADS)).threads().unwrap()
}

pub const APP: &str = "journal/stream/0";

/// `n BIGINT NOT NULL, word TEXT`.
pub fn schema() -> SchemaRef {
    let fields =
        vec![Field::new("n", DataType::Int64, false), Field::new("word", DataType::Utf8, true)];
    Arc::new(Schema::new(fields))
}

/// The rows numbered `from..to`.
pub fn rows(from: u64, to: u64) -> RecordBatch {
    let numbers = Int64Array::from_iter_values((from..to).map(|n| i64::try_from(n).unwrap()));
    let words: StringArray =
        (from..to).map(|n| (n % 3 != 0).then(|| format!("word {n}"))).collect();
    RecordBatch::try_new(schema(), vec![Arc::new(numbers), Arc::new(words)]).unwrap()
}

pub fn counts(stored: u64) -> Counts {
    Counts { stored, filtered: 1, dead_later: 2, dead_at_door: 3 }
}

/// A flush whose rows are numbered as its positions are.
pub fn flush(start: u64, end: u64) -> Flush {
    flush_as(APP, start, end)
}

pub fn flush_as(app_id: &str, start: u64, end: u64) -> Flush {
    let batches = vec![rows(start, end)];
    Flush { app_id: app_id.to_owned(), start, end, counts: counts(end), schema: schema(), batches }
}

/// The integer that a query over table `t` answers.
pub async fn ask(sink: &dyn Sink, sql: &str) -> i64 {
    let table = sink.table().await.unwrap().unwrap();
    let session = SessionContext::new();
    session.register_table("t", table).unwrap();
    let answer = session.sql(sql).await.unwrap().collect().await.unwrap();
    answer[0].column(0).as_primitive::<Int64Type>().value(0)
}

/// Every number of `0..end` exactly once.
pub async fn assert_exactly(sink: &dyn Sink, end: i64) {
    assert_eq!(ask(sink, "SELECT count(*) FROM t").await, end, "F2: rows");
    assert_eq!(ask(sink, "SELECT count(DISTINCT n) FROM t").await, end, "F2: distinct rows");
    assert_eq!(
        ask(sink, "SELECT coalesce(sum(n), 0) FROM t").await,
        end * (end - 1) / 2,
        "F2: sum"
    );
}
