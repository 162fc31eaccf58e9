//! Schemas of streams that nobody declared.

use forebay_pipeline::codec::{Format, Limits, infer, widen};
use forebay_pipeline::schema::{Schema, Type};

use crate::{CSV, cut, schema};

fn inferred(format: Format, body: &str) -> Result<Schema, String> {
    let chunks = cut(format.clone(), Limits::default(), body.as_bytes())
        .map_err(|error| error.to_string())?;
    let chunk = chunks.first().ok_or("no chunk")?;
    infer(&format, chunk, Limits::default()).map_err(|error| error.to_string())
}

fn types(format: Format, body: &str) -> Vec<(String, Type)> {
    let schema = inferred(format, body).unwrap_or_default();
    assert!(schema.columns.iter().all(|column| column.nullable && column.default.is_none()));
    schema.columns.into_iter().map(|column| (column.name, column.ty)).collect()
}

#[test]
fn json_values_decide_the_type_of_their_column() {
    use Type::{BigInt, Boolean, Double, Json, Text, Timestamp};
    let cases: [(&[&str], Type); 16] = [
        (&["1", "-2", "null"], BigInt),
        (&["1", "1.5"], Double),
        (&["1.0"], Double),
        (&["9223372036854775807"], BigInt),
        (&["9223372036854775808"], Double),
        (&["true", "false"], Boolean),
        (&["\"a\""], Text),
        (&["\"2013-01-01T10:00:00Z\""], Timestamp),
        (&["\"2013-01-01T10:00:00Z\"", "\"later\""], Text),
        (&["\"2013-01-01T10:00:00.123456789Z\""], Text),
        (&["\"2013-01-01 10:00:00\""], Text),
        (&["\"2013-01-01\""], Text),
        (&["{}", "[]"], Json),
        (&["1", "\"a\""], Json),
        (&["1", "true"], Json),
        (&["[]", "1"], Json),
    ];
    for (values, ty) in cases {
        let body: String = values.iter().map(|value| format!("{{\"v\":{value}}}\n")).collect();
        assert_eq!(types(Format::Ndjson, &body), [("v".to_owned(), ty)], "{body}");
        let body = format!("[{}]", body.trim_end().replace('\n', ","));
        assert_eq!(types(Format::Json, &body), [("v".to_owned(), ty)], "{body}");
    }
}

#[test]
fn csv_fields_decide_the_type_of_their_column() {
    use Type::{BigInt, Boolean, Double, Text, Timestamp};
    let cases: [(&[&str], Type); 15] = [
        (&["1", "-2", "", "NA"], BigInt),
        (&["NA"], Text),
        (&["0"], BigInt),
        (&["007", "1"], Text),
        (&["1", "1.5"], Double),
        (&["1e5"], Double),
        (&["99999999999999999999"], Text),
        (&["true", "FALSE"], Boolean),
        (&["t", "f"], Text),
        (&["2013-01-01T10:00:00Z", ""], Timestamp),
        (&["2013-01-01"], Text),
        (&["", "\"\""], Text),
        (&["\"12\""], BigInt),
        (&["NaN"], Text),
        (&["1", "x"], Text),
    ];
    for (values, ty) in cases {
        let body: String = values.iter().map(|value| format!("{value},\n")).collect();
        let expected = [("v".to_owned(), ty), ("w".to_owned(), Text)];
        assert_eq!(types(CSV, &format!("v,w\n{body}")), expected, "{body}");
    }
}

#[test]
fn columns_stand_in_the_order_of_their_first_appearance() {
    let body = "{\"b\":1}\n{\"broken\":1,}\n{\"a\":1,\"b\":2,\"n\":null,\"_extra\":1}\n{\"c\":1}\n";
    let names: Vec<_> = types(Format::Ndjson, body).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["b", "a", "c"], "what is broken, null or reserved has no column");
}

#[test]
fn a_chunk_that_no_schema_can_come_from_says_why() {
    let message = |body| inferred(Format::Ndjson, body).err().unwrap_or_default();
    assert_eq!(
        message("{\"a\":1,}\n[1]\n"),
        "line 1, column 1: no record is well-formed: expected a string, found '}'; remove the comma before it"
    );
    assert_eq!(message("{}\n"), "line 1, column 1: no record has a column to infer a schema from");
    let many: Vec<_> = (0..5000).map(|n| format!("\"c{n}\":1")).collect();
    assert_eq!(
        message(&format!("{{{}}}", many.join(","))),
        "line 1, column 1: more than 4096 columns"
    );
}

#[test]
fn what_is_inferred_can_be_declared() {
    let own = "{\"_id\":1,\"_extra\":2,\"_received_at\":3,\"\":4}";
    let inferred = inferred(Format::Ndjson, own).unwrap_or_default();
    assert_eq!(inferred, schema(&[("_id", Type::BigInt)]));
    assert_eq!(Schema::parse(&inferred.to_ddl()), Ok(inferred));
    // Found by fuzzing: what has only nulls, or none of its keys can be a column's name.
    for body in ["{\"\":1e400}", "{\"_extra\":null}"] {
        assert!(
            self::inferred(Format::Ndjson, body)
                .is_err_and(|why| why.contains("no record has a column"))
        );
    }
}

#[test]
fn a_schema_widens_by_the_columns_that_have_values() {
    let narrow = schema(&[("a!", Type::BigInt)]);
    let widened = |format: Format, body: &str| {
        let chunks = cut(format.clone(), Limits::default(), body.as_bytes()).unwrap_or_default();
        chunks.first().and_then(|chunk| widen(&narrow, &format, chunk, Limits::default()))
    };
    let wide = widened(Format::Ndjson, "{\"a\":\"x\",\"c\":1.5}\n{\"b\":[],\"d\":null}\n");
    let mut expected = narrow.clone();
    expected.columns.extend(schema(&[("c", Type::Double), ("b", Type::Json)]).columns);
    assert_eq!(wide, Some(expected), "columns that exist are left alone");
    assert_eq!(widened(Format::Ndjson, "{\"a\":1.5,\"d\":null}\n"), None);
    assert_eq!(widened(CSV, "a,e\n1,\n"), None);
    let names = widened(CSV, "a,e,f\n1,,007\n").map(|schema| schema.columns);
    let names: Vec<_> = names.iter().flatten().map(|c| (c.name.as_str(), c.ty)).collect();
    assert_eq!(names, [("a", Type::BigInt), ("f", Type::Text)]);
}
