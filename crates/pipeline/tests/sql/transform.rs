//! The transform: what it gives and what it refuses.

#![expect(clippy::unwrap_used, reason = "tests")]

use arrow::array::AsArray;
use arrow::datatypes::{DataType, Float64Type, Int32Type, Int64Type};
use forebay_pipeline::schema::{Schema, TYPE_KEY};
use forebay_pipeline::transform::Transform;

use crate::rows::{flights, good, schema};

fn plan(sql: &str) -> Transform {
    Transform::plan("flights", &schema(), Some(sql))
        .unwrap_or_else(|error| panic!("{sql}: {error}"))
}

#[track_caller]
fn refused(sql: &str, at: &str, words: &str) {
    let error = Transform::plan("flights", &schema(), Some(sql)).unwrap_err().to_string();
    assert!(error.starts_with(at), "{sql}: {error}");
    assert!(error.contains(words), "{sql}: {error}");
}

#[test]
fn the_example_of_the_manual_projects_and_filters() {
    let transform = plan("SELECT *, distance * 1.609 AS km FROM flights WHERE carrier <> 'UA'");
    let output = transform.apply(&good()).unwrap();
    assert_eq!(output.kept, Some(vec![1, 2, 3]));
    assert_eq!(output.rows.schema(), transform.output());
    assert_eq!(output.rows.num_columns(), 8);
    let km = output.rows.column_by_name("km").unwrap().as_primitive::<Float64Type>();
    assert!((km.value(0) - 1416.0 * 1.609).abs() < 1e-9);
    assert!(km.is_null(1), "NULL in, NULL out");
}

use arrow::array::Array;

#[test]
fn without_sql_rows_pass_untouched() {
    let transform = Transform::plan("flights", &schema(), None).unwrap();
    let rows = good();
    let output = transform.apply(&rows).unwrap();
    assert!(transform.is_identity());
    assert_eq!(output.kept, None);
    assert_eq!(output.rows, rows);
}

#[test]
fn a_where_that_all_rows_pass_keeps_all() {
    let output = plan("SELECT month FROM flights WHERE month > 0").apply(&good()).unwrap();
    assert_eq!(output.kept, None);
    assert_eq!(output.rows.num_rows(), 5);
    let none = plan("SELECT month FROM flights WHERE distance > 9999999").apply(&good()).unwrap();
    assert_eq!((none.kept, none.rows.num_rows()), (Some(vec![]), 0));
}

#[test]
fn output_types_are_storable_and_json_stays_json() {
    let transform = plan(
        "SELECT upper(carrier) AS c, CAST(month AS TEXT) || 'x' AS t, length(carrier) AS n,
           date_trunc('day', time_hour) AS day, to_timestamp('2020-01-01') AS ts, fare * 2 AS f2,
           extra, json_get(extra, 'crew', 0) AS first, json_get_int(extra, 'crew', 0, 'id') AS id,
           json_get_float(extra, 'crew', 1, 'id') AS fl, json_get_str(extra, 'gate') AS gate,
           json_get_bool(extra, 'late') AS late, month, CASE WHEN month > 2 THEN 'a' END AS half,
           regexp_replace(carrier, 'A', 'B') AS rx, month = 1 AS first_month
         FROM flights",
    );
    let rows = transform.apply(&good()).unwrap().rows;
    for field in transform.output().fields() {
        let ok = matches!(
            field.data_type(),
            DataType::Utf8
                | DataType::Int32
                | DataType::Int64
                | DataType::Float64
                | DataType::Boolean
                | DataType::Decimal128(..)
        ) || *field.data_type()
            == DataType::Timestamp(arrow::datatypes::TimeUnit::Microsecond, Some("UTC".into()));
        assert!(ok, "{field}");
        let json = matches!(field.name().as_str(), "extra" | "first");
        assert_eq!(field.metadata().contains_key(TYPE_KEY), json, "{field}");
        assert_eq!(field.is_nullable(), field.name() != "month", "{field}");
    }
    let text = |name: &str, row: usize| {
        rows.column_by_name(name).unwrap().as_string::<i32>().value(row).to_owned()
    };
    assert_eq!(text("c", 0), "UA");
    assert_eq!(text("t", 3), "12x");
    assert_eq!(text("first", 0), r#"{"id":7}"#);
    assert_eq!(text("gate", 0), "B7");
    assert_eq!(rows.column_by_name("id").unwrap().as_primitive::<Int64Type>().value(0), 7);
    assert!(
        (rows.column_by_name("fl").unwrap().as_primitive::<Float64Type>().value(0) - 8.5).abs()
            < 1e-9
    );
    assert!(rows.column_by_name("late").unwrap().as_boolean().value(0));
    assert!(rows.column_by_name("gate").unwrap().is_null(3));
}

#[test]
fn a_wildcard_leaves_out_and_replaces() {
    let transform =
        plan("SELECT f.* EXCEPT (extra, fare) REPLACE (month + 1 AS month) FROM flights AS f");
    let output = transform.apply(&good()).unwrap().rows;
    let schema = output.schema();
    let names: Vec<_> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    assert_eq!(names, ["month", "carrier", "distance", "dep_delay", "time_hour"]);
    let months = output.column(0);
    let months = arrow::compute::cast(months, &DataType::Int32).unwrap();
    assert_eq!(months.as_primitive::<Int32Type>().values(), &[2, 3, 4, 13, 6]);
}

#[test]
fn what_is_not_projection_and_filter_is_refused_at_its_place() {
    refused("SELECT sum(distance) AS s FROM flights", "line 1, column 8:", "aggregate");
    refused("SELECT count(*) AS n FROM flights", "line 1, column 8:", "aggregate");
    refused("SELECT month FROM flights\nGROUP BY month", "line 2, column 10:", "GROUP BY");
    refused("SELECT row_number() OVER () AS n FROM flights", "line 1, column 8:", "window");
    refused("SELECT DISTINCT month FROM flights", "line 1, column 1:", "DISTINCT");
    refused("SELECT month FROM flights ORDER BY month", "line 1, column 36:", "ORDER BY");
    refused("SELECT month FROM flights LIMIT 5", "line 1, column 33:", "LIMIT");
    refused(
        "SELECT month FROM flights UNION ALL SELECT month FROM flights",
        "line 1, column 37:",
        "UNION",
    );
    refused("SELECT a.month FROM flights a JOIN flights b ON a.month = b.month", "line 1,", "join");
    refused("SELECT month FROM flights, other", "line 1, column 28:", "second table");
    refused("SELECT month FROM (SELECT * FROM flights) x", "line 1,", "anything but the stream");
    refused(
        "SELECT month FROM flights WHERE month IN (SELECT 1)",
        "line 1, column 43:",
        "subquery",
    );
    refused("WITH x AS (SELECT 1) SELECT month FROM flights", "line 1,", "WITH");
    refused("DELETE FROM flights", "line 1, column 1:", "a transform is one");
    refused("SELECT month FROM flights; SELECT 1", "line 1, column 28:", "expected the end");
    refused("SELECT random() AS r FROM flights", "line 1,", "r");
    refused("SELECT uuid() AS r FROM flights", "line 1, column 8:", "another result");
    refused("SELECT now() AS r FROM flights", "line 1, column 8:", "another result");
    refused("SELECT CURRENT_DATE AS r FROM flights", "line 1, column 8:", "another result");
    refused("SELECT month", "line 1, column 13:", "FROM flights");
}

#[test]
fn an_unknown_name_is_refused_at_its_place_with_a_suggestion() {
    refused("SELECT mnth FROM flights", "line 1, column 8:", "did you mean `month`?");
    refused("SELECT month\nFROM flight", "line 2, column 6:", "did you mean `flights`?");
    refused("SELECT Month FROM flights", "line 1, column 8:", "did you mean `month`?");
    refused("SELECT uper(carrier) AS c FROM flights", "line 1, column 8:", "did you mean `upper`?");
    refused("SELECT * EXCEPT (mont) FROM flights", "line 1, column 18:", "did you mean `month`?");
    refused("SELECT month + 1 FROM flights", "line 1, column 8:", "AS name");
    refused("SELECT *, 1 AS month FROM flights", "line 1, column 16:", "two columns `month`");
    refused("SELECT month AS _extra FROM flights", "line 1, column 17:", "Forebay fills itself");
    refused("SELECT month FROM flights WHERE carrier", "line 1, column 33:", "condition");
    refused("SELECT carrier - 1.5 AS x, month FROM flights WHERE", "line 1,", "expected");
    refused("SELECT NULL AS x FROM flights", "line 1, column 8:", "CAST");
    refused(
        "SELECT month, substr(carrier) AS s FROM flights",
        "line 1, column 22:",
        "Substring without for/from is not valid",
    );
    refused("SELEC month FROM flights", "line 1, column 1:", "SELEC");
}

#[test]
fn a_stream_whose_name_has_points_is_named_with_and_without_quotes() {
    for sql in ["SELECT a FROM shop.v2", "SELECT a FROM \"shop.v2\"", "SELECT s.a FROM shop.v2 s"] {
        Transform::plan("shop.v2", &Schema::parse("a INT").unwrap(), Some(sql)).unwrap();
    }
}

#[test]
fn rows_that_cannot_be_evaluated_are_sifted_out_and_the_rest_goes_on() {
    let transform = plan("SELECT month, 100 / distance AS q FROM flights WHERE month <> 3");
    let rows = flights(
        [1, 2, 3, 4, 5],
        ["UA", "AA", "B6", "DL", "UA"],
        [Some(10), Some(0), Some(0), Some(50), Some(0)],
    );
    assert!(transform.apply(&rows).is_err());
    let sifted = transform.sift(&rows);
    assert_eq!(sifted.output.kept, Some(vec![0, 3]), "row 2 is filtered, not failed");
    let failed: Vec<_> = sifted.failed.iter().map(|(row, _)| *row).collect();
    assert_eq!(failed, [1, 4]);
    assert!(sifted.failed[0].1.message.contains("ivide by zero"));
    let none = transform.sift(&good());
    assert!(none.failed.is_empty());
}

#[test]
fn integer_overflow_is_an_error_and_never_wraps() {
    for sql in [
        "SELECT distance + 2147483647 AS x FROM flights WHERE CAST(distance AS BIGINT) < 0",
        "SELECT CAST(distance AS BIGINT) * 9223372036854775807 AS x FROM flights",
        "SELECT CAST(distance AS SMALLINT) * CAST(3000 AS SMALLINT) AS x FROM flights",
        "SELECT CAST(distance AS SMALLINT) AS x FROM flights WHERE distance = 2147483647",
    ] {
        let rows = flights(
            [1, 2, 3, 4, 5],
            ["UA", "AA", "B6", "DL", "UA"],
            [Some(2_147_483_647), Some(30_000), Some(1), Some(2), Some(3)],
        );
        match Transform::plan("flights", &schema(), Some(sql)).unwrap().apply(&rows) {
            Ok(output) => assert_eq!(output.rows.num_rows(), 0, "{sql}: {:?}", output.rows),
            Err(error) => assert!(!error.message.is_empty()),
        }
    }
}
