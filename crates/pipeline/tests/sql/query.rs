//! Queries: what they give, what they refuse, and their bounds.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{
    Array, ArrayRef, FixedSizeListArray, Int64Array, RecordBatch, TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, Schema as ArrowSchema};
use datafusion::catalog::TableProvider;
use datafusion::datasource::MemTable;
use forebay_flow::Ctx;
use forebay_pipeline::query::{Config, Encoder, ErrorKind, Format, QueryEngine, QueryError};

use crate::rows::good;

const LONG: Duration = Duration::from_secs(60);

fn engine(memory_bytes: usize) -> QueryEngine {
    let config = Config { memory_bytes, spill: None };
    QueryEngine::new(&Ctx::root("test"), &config, tokio::runtime::Handle::current()).unwrap()
}

fn tables() -> Vec<(String, Arc<dyn TableProvider>)> {
    let rows = good();
    let flights = MemTable::try_new(rows.schema(), vec![vec![rows]]).unwrap();
    let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..200_000));
    let schema = Arc::new(ArrowSchema::new(vec![Field::new("n", DataType::Int64, false)]));
    let batch = RecordBatch::try_new(Arc::clone(&schema), vec![numbers]).unwrap();
    let numbers = MemTable::try_new(schema, vec![vec![batch]]).unwrap();
    vec![("flights".into(), Arc::new(flights)), ("big.numbers".into(), Arc::new(numbers))]
}

async fn answer(sql: &str, format: Format) -> Result<String, QueryError> {
    let mut stream = engine(64 << 20).query(sql, tables(), LONG).await?;
    let mut encoder = Encoder::new(format, stream.schema()).unwrap();
    let mut out = Vec::new();
    while let Some(batch) = stream.next().await {
        out.extend_from_slice(&encoder.encode(&batch?).unwrap());
    }
    out.extend_from_slice(&encoder.finish().unwrap());
    Ok(String::from_utf8(out).unwrap())
}

async fn refused(sql: &str) -> QueryError {
    answer(sql, Format::Json).await.expect_err(sql)
}

const WIDE: &str = "SELECT month, carrier, distance, dep_delay, fare, time_hour, extra FROM flights ORDER BY month";

#[tokio::test]
async fn rows_come_as_json_with_numbers_times_and_nested_values() {
    let text = answer(WIDE, Format::Json).await.unwrap();
    let rows: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(rows.as_array().unwrap().len(), 5);
    assert!(text.contains(r#""time_hour":"2013-01-01T06:00:00Z""#), "{text}");
    assert!(text.contains(r#""fare":123.45"#), "{text}");
    assert!(
        text.contains(r#""extra":{"gate":"B7","crew":[{"id":7},{"id":8.5}],"late":true}"#),
        "{text}"
    );
    assert!(text.contains(r#""time_hour":"1970-01-01T00:00:01.500Z""#), "{text}");
    assert_eq!(rows[2]["dep_delay"], serde_json::Value::Null, "NaN has no JSON form");
    assert_eq!(rows[2]["distance"], serde_json::Value::Null);
    assert_eq!(rows[3]["extra"], serde_json::Value::Null, "JSON null is a value");
}

#[tokio::test]
async fn rows_come_as_ndjson_csv_and_arrow() {
    let text =
        answer("SELECT month, extra FROM flights ORDER BY month", Format::Ndjson).await.unwrap();
    assert_eq!(text.lines().count(), 5);
    text.lines().for_each(|line| drop(serde_json::from_str::<serde_json::Value>(line).unwrap()));
    let text = answer("SELECT month, distance, fare, time_hour, make_array(month, 2) AS pair FROM flights ORDER BY month LIMIT 3", Format::Csv).await.unwrap();
    assert_eq!(
        text,
        "month,distance,fare,time_hour,pair\n1,1400,123.45,2013-01-01T06:00:00Z,\"[1,2]\"\n\
         2,1416,-0.05,1970-01-01T00:00:01.500Z,\"[2,2]\"\n3,,,1970-01-01T00:00:00Z,\"[3,2]\"\n"
    );
    let mut stream = engine(64 << 20).query(WIDE, tables(), LONG).await.unwrap();
    let mut encoder = Encoder::new(Format::Arrow, stream.schema()).unwrap();
    let mut out = Vec::new();
    while let Some(batch) = stream.next().await {
        out.extend_from_slice(&encoder.encode(&batch.unwrap()).unwrap());
    }
    out.extend_from_slice(&encoder.finish().unwrap());
    let reader = arrow::ipc::reader::StreamReader::try_new(out.as_slice(), None).unwrap();
    assert_eq!(reader.map(|batch| batch.unwrap().num_rows()).sum::<usize>(), 5);
}

#[tokio::test]
async fn an_empty_answer_is_still_whole() {
    let none = "SELECT month FROM flights WHERE month > 99";
    assert_eq!(answer(none, Format::Json).await.unwrap(), "[]\n");
    assert_eq!(answer(none, Format::Ndjson).await.unwrap(), "");
    assert_eq!(answer(none, Format::Csv).await.unwrap(), "month\n");
}

#[tokio::test]
async fn names_keep_their_case_and_points() {
    for sql in [
        "SELECT count(*) AS \"N\" FROM big.numbers",
        "SELECT count(*) AS N FROM \"big.numbers\" AS b",
        "WITH big AS (SELECT n FROM big.numbers) SELECT COUNT(*) AS N FROM big",
    ] {
        assert_eq!(answer(sql, Format::Ndjson).await.unwrap(), "{\"N\":200000}\n", "{sql}");
    }
    let text = answer(
        "SELECT json_get_str(extra, 'gate') AS g FROM flights WHERE json_get_bool(extra, 'late')",
        Format::Ndjson,
    )
    .await
    .unwrap();
    assert_eq!(text, "{\"g\":\"B7\"}\n");
    let sum =
        answer("SELECT sum(value) AS s FROM generate_series(1, 10)", Format::Ndjson).await.unwrap();
    assert_eq!(sum, "{\"s\":55}\n");
    assert!(
        answer("EXPLAIN SELECT month FROM flights", Format::Csv).await.unwrap().contains("month")
    );
    assert!(answer("DESCRIBE flights", Format::Csv).await.unwrap().contains("carrier"));
}

#[tokio::test]
async fn what_does_more_than_read_is_refused() {
    for sql in [
        "CREATE TABLE t (a INT)",
        "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '/etc/passwd'",
        "CREATE VIEW v AS SELECT 1",
        "INSERT INTO flights SELECT * FROM flights",
        "DELETE FROM flights",
        "UPDATE flights SET month = 1",
        "DROP TABLE flights",
        "COPY flights TO '/tmp/x.parquet'",
        "COPY (SELECT 1) TO '/tmp/x.csv'",
        "SET datafusion.execution.batch_size = 1",
        "SHOW TABLES",
        "EXPLAIN ANALYZE INSERT INTO flights SELECT * FROM flights",
        "PREPARE p AS SELECT 1",
        "WITH x AS (DELETE FROM flights RETURNING *) SELECT * FROM x",
        "SELECT * INTO t FROM flights",
        "TRUNCATE TABLE flights",
    ] {
        let error = refused(sql).await;
        assert_eq!(error.kind, ErrorKind::NotReadOnly, "{sql}: {error}");
        assert!(error.kind.is_callers());
    }
}

#[tokio::test]
async fn files_and_urls_are_no_tables() {
    for sql in [
        "SELECT * FROM '/etc/passwd'",
        "SELECT * FROM \"/etc/passwd.csv\"",
        "SELECT * FROM 'https://example.com/a.parquet'",
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM information_schema.tables",
        "SELECT * FROM flights WHERE month IN (SELECT a FROM '/tmp/x.csv')",
    ] {
        let error = refused(sql).await;
        assert_eq!(error.kind, ErrorKind::UnknownTable, "{sql}: {error}");
    }
}

#[tokio::test]
async fn a_fault_in_the_sql_is_named_at_its_place() {
    for (sql, kind, position, words) in [
        ("SELECT\n  FROM flights WHERE", ErrorKind::Syntax, Some((2, 21)), "ends here"),
        ("SELCT 1", ErrorKind::Syntax, Some((1, 1)), "SELCT"),
        ("", ErrorKind::Syntax, Some((1, 1)), "empty"),
        ("SELECT 1; SELECT 2", ErrorKind::Syntax, Some((1, 11)), "one statement"),
        ("SELECT 'x", ErrorKind::Syntax, Some((1, 8)), "string"),
        (
            "SELECT month\nFROM fligths",
            ErrorKind::UnknownTable,
            Some((2, 6)),
            "did you mean `flights`?",
        ),
        ("SELECT 1 FROM zebra", ErrorKind::UnknownTable, Some((1, 15)), "there are: flights"),
        ("SELECT mnth FROM flights", ErrorKind::Invalid, Some((1, 8)), "mnth"),
        ("SELECT nosuch(month) FROM flights", ErrorKind::Invalid, None, "nosuch"),
        ("SELECT 100 / (month - 1) FROM flights", ErrorKind::Data, None, "ivide by zero"),
    ] {
        let error = refused(sql).await;
        assert_eq!(error.kind, kind, "{sql}: {error}");
        if position.is_some() {
            assert_eq!(error.position, position, "{sql}: {error}");
        }
        assert!(error.message.contains(words), "{sql}: {error}");
    }
}

#[tokio::test]
async fn a_query_that_needs_more_than_its_share_fails_alone_and_gives_all_back() {
    let engine = engine(256 << 10);
    let sql = "SELECT n FROM big.numbers ORDER BY n % 7, n DESC";
    let result = async {
        let mut stream = engine.query(sql, tables(), LONG).await?;
        while let Some(batch) = stream.next().await {
            batch?;
        }
        Ok::<_, QueryError>(())
    };
    assert_eq!(result.await.unwrap_err().kind, ErrorKind::Resources);
    at_rest(&engine).await;
}

#[tokio::test]
async fn now_is_the_time_of_the_query() {
    let year = "SELECT date_part('year', now()) > 2024 AS late";
    assert_eq!(answer(year, Format::Ndjson).await.unwrap(), "{\"late\":true}\n");
}

#[test]
fn a_time_beyond_the_calendar_is_an_error_in_every_text_form_and_no_value() {
    let times: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![0, 9_000_000_000 << 30]));
    let lists: ArrayRef = Arc::new(FixedSizeListArray::new(
        Arc::new(Field::new("item", times.data_type().clone(), true)),
        2,
        Arc::clone(&times),
        None,
    ));
    for (column, form) in [
        (&times, Format::Json),
        (&times, Format::Ndjson),
        (&times, Format::Csv),
        (&lists, Format::Json),
        (&lists, Format::Ndjson),
    ] {
        let batch = RecordBatch::try_from_iter([("t", Arc::clone(column))]).unwrap();
        let mut encoder = Encoder::new(form, batch.schema()).unwrap();
        assert!(encoder.encode(&batch).is_err(), "{form:?}");
        assert!(encoder.encode(&batch.slice(0, 0)).is_ok(), "{form:?}");
    }
}

const ENDLESS: &str = "SELECT sum(a.n * b.n % 7) AS s FROM big.numbers a CROSS JOIN big.numbers b";

/// F5: no query runs, and once the tasks it had spawned have seen that they are cancelled, no memory
/// is held either.
async fn at_rest(engine: &QueryEngine) {
    let wait = async {
        while engine.running() > 0 || engine.reserved_bytes() > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LONG, wait).await.expect("F5: a cancelled query ends and gives all back");
}

#[test]
fn a_query_that_runs_hot_meets_its_deadline_and_dies_when_dropped() {
    let queries =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let front = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let config = Config { memory_bytes: 64 << 20, spill: None };
    let engine = QueryEngine::new(&Ctx::root("test"), &config, queries.handle().clone()).unwrap();
    front.block_on(async {
        let mut stream = engine.query(ENDLESS, tables(), Duration::from_millis(300)).await.unwrap();
        let error = stream.next().await.unwrap().unwrap_err();
        assert_eq!(error.kind, ErrorKind::Timeout);
        assert!(stream.next().await.is_none());
        drop(stream);
        at_rest(&engine).await;
        let stream = engine.query(ENDLESS, tables(), LONG).await.unwrap();
        assert_eq!(engine.running(), 1);
        drop(stream);
        at_rest(&engine).await;
    });
}

#[tokio::test]
async fn a_deep_or_long_query_is_refused_and_not_a_crash() {
    let deep = format!("SELECT {}1{}", "(".repeat(5000), ")".repeat(5000));
    assert_eq!(refused(&deep).await.kind, ErrorKind::Syntax);
    let chain = format!("SELECT month{} FROM flights", " + month".repeat(5000));
    assert_eq!(refused(&chain).await.kind, ErrorKind::Syntax);
    let allowed = format!("SELECT month{} AS m FROM flights", " + month".repeat(120));
    assert!(answer(&allowed, Format::Csv).await.is_ok());
    let list = (0..20_000).map(|n| n.to_string()).collect::<Vec<_>>().join(",");
    assert!(
        answer(&format!("SELECT month FROM flights WHERE month IN ({list})"), Format::Csv)
            .await
            .is_ok()
    );
}
