//! How strictly JSON records are judged.

use forebay_pipeline::codec::{Format, Limits};
use forebay_pipeline::record::Code;
use forebay_pipeline::schema::{Constant, Type, Unknown};

use crate::{decode, one, refusals, rows, schema};

const DECIMAL: Type = Type::Decimal { precision: 5, scale: 2 };

#[test]
fn a_value_that_fits_its_column_is_taken_exactly() {
    let cases = [
        (Type::Int, "1.0", "1"),
        (Type::Int, "1e3", "1000"),
        (Type::Int, "-0", "0"),
        (Type::Int, "120e-1", "12"),
        (Type::SmallInt, "-32768", "-32768"),
        (Type::Int, "2147483647", "2147483647"),
        (Type::BigInt, "9223372036854775807", "9223372036854775807"),
        (Type::BigInt, "-9223372036854775808", "-9223372036854775808"),
        (Type::BigInt, "9.223372036854775807e18", "9223372036854775807"),
        (Type::Double, "0.1", "0.1"),
        (Type::Double, "-0", "-0.0"),
        (Type::Double, "1e308", "1e308"),
        (Type::Double, "1e-400", "0.0"),
        (Type::Double, "123456789012345678901234567890", "1.2345678901234568e29"),
        (Type::Double, "5", "5.0"),
        (Type::Real, "16777217", "16777216.0"),
        (Type::Real, "0.1", "0.1"),
        (DECIMAL, "1.5", "1.50"),
        (DECIMAL, "-999.99", "-999.99"),
        (DECIMAL, "1.500", "1.50"),
        (DECIMAL, "\"12.34\"", "12.34"),
        (Type::Boolean, "true", "true"),
        (Type::Boolean, "false", "false"),
        (Type::Text, "\"\"", ""),
        (Type::Text, r#""a\"b\\c\/d\n\u00e9\ud83d\ude00""#, "a\"b\\c/d\né😀"),
        (Type::Text, "\"grüße, and more than eight bytes\"", "grüße, and more than eight bytes"),
        (Type::Date, "\"2024-02-29\"", "2024-02-29"),
        (Type::Timestamp, "\"2013-01-01T10:00:00Z\"", "2013-01-01T10:00:00Z"),
        (Type::Timestamp, "\"2013-01-01T10:00:00+02:00\"", "2013-01-01T08:00:00Z"),
        (Type::Json, r#"{ "a" : [1, {"b": null}] }"#, r#"{ "a" : [1, {"b": null}] }"#),
        (Type::Json, "1e400", "1e400"),
        (Type::Json, "\"x\\u0041\"", "\"x\\u0041\""),
        (Type::Json, "null", "~"),
        (Type::Int, "null", "~"),
    ];
    for (ty, text, expected) in cases {
        assert_eq!(one(Format::Ndjson, ty, text).as_deref(), Ok(expected), "{text} as {ty:?}");
    }
}

#[test]
fn a_value_that_does_not_fit_is_refused_with_its_column_value_and_type() {
    use Code::{InvalidDate, OutOfRange, TypeMismatch};
    let cases = [
        (
            Type::Int,
            "1.5",
            TypeMismatch,
            "1.5 has a fraction; the column is INT (alter it to DOUBLE to keep it)",
        ),
        (Type::Int, "\"5\"", TypeMismatch, "expected INT, found \"5\"; send it without quotes"),
        (Type::Int, "\"five\"", TypeMismatch, "expected INT, found \"five\""),
        (Type::Int, "true", TypeMismatch, "expected INT, found true"),
        (Type::Int, "[1]", TypeMismatch, "expected INT, found [1]"),
        (Type::Int, "2147483648", OutOfRange, "2147483648 is outside the range of INT"),
        (Type::SmallInt, "32768", OutOfRange, "32768 is outside the range of SMALLINT"),
        (
            Type::BigInt,
            "9223372036854775808",
            OutOfRange,
            "9223372036854775808 is outside the range of BIGINT",
        ),
        (Type::BigInt, "1e400", OutOfRange, "1e400 is outside the range of BIGINT"),
        (Type::Double, "1e400", OutOfRange, "1e400 is outside the range of DOUBLE"),
        (Type::Real, "1e39", OutOfRange, "1e39 is outside the range of REAL"),
        (
            Type::Double,
            "\"1\"",
            TypeMismatch,
            "expected DOUBLE, found \"1\"; send it without quotes",
        ),
        (
            DECIMAL,
            "1.505",
            OutOfRange,
            "1.505 has more than 2 digits after the point; the column is DECIMAL(5,2)",
        ),
        (DECIMAL, "1000", OutOfRange, "1000 is outside the range of DECIMAL(5,2)"),
        (Type::Text, "5", TypeMismatch, "expected TEXT, found 5"),
        (Type::Text, "{\"a\":1}", TypeMismatch, "expected TEXT, found {\"a\":1}"),
        (Type::Boolean, "1", TypeMismatch, "expected BOOLEAN, found 1"),
        (Type::Boolean, "\"true\"", TypeMismatch, "expected BOOLEAN, found \"true\""),
        (
            Type::Date,
            "\"2023-02-29\"",
            InvalidDate,
            "2023-02-29 is not a day (YYYY-MM-DD); the column is DATE",
        ),
        (
            Type::Timestamp,
            "\"2016-12-31T23:59:60Z\"",
            InvalidDate,
            "2016-12-31T23:59:60Z is not a time (YYYY-MM-DDThh:mm:ss, with an offset or in UTC); the column is TIMESTAMP; clocks of 86,400 seconds a day have no leap second, send :59",
        ),
        (
            Type::Timestamp,
            "1357034400",
            TypeMismatch,
            "expected TIMESTAMP, found 1357034400; send a text, 2013-01-31T10:00:00Z",
        ),
    ];
    for (ty, text, code, message) in cases {
        let found = one(Format::Ndjson, ty, text);
        assert_eq!(found, Err((code, message.to_owned())), "{text} as {ty:?}");
    }
    let long = format!("\"{}\"", "ü".repeat(10_000));
    let message = one(Format::Ndjson, Type::Int, &long).err().map(|(_, message)| message);
    let expected = format!("expected INT, found \"{}…", "ü".repeat(63));
    assert_eq!(message, Some(expected), "a long value is shortened at a character");
}

#[test]
fn a_record_that_is_not_json_is_refused_with_its_place() {
    let schema = schema(&[("a", Type::BigInt), ("b", Type::Text), ("j", Type::Json)]);
    let cases = [
        (
            r#"{"a":1"#,
            "column 7: expected a comma or }, but the record ends; each line is a record of its own (send records of many lines as application/json)",
        ),
        (
            r"{",
            "column 2: expected a key in quotes, but the record ends; each line is a record of its own (send records of many lines as application/json)",
        ),
        (
            r#"{"a":1,}"#,
            "column 8: expected a key in quotes, found '}'; remove the comma before it",
        ),
        (r#"{"a":1,,"b":"x"}"#, "column 8: expected a key in quotes, found ','"),
        (r#"{,"a":1}"#, "column 2: expected a key in quotes, found ','"),
        (r#"{"a":1 "b":"x"}"#, "column 8: expected a comma or }, found '\"'"),
        (r#"{"a" 1}"#, "column 6: expected a colon after the key, found '1'"),
        (r"{a:1}", "column 2: expected a key in quotes, found 'a'"),
        (r"{'a':1}", "column 2: expected a key in quotes, found '\\''; texts have double quotes"),
        (r#"{"a":}"#, "column 6: expected a value, found '}'"),
        (
            r#"{"a":01}"#,
            "column 7: not a number of JSON: 01; drop the leading zeros, or send it as a text",
        ),
        (r#"{"a":+1}"#, "column 6: expected a value, found '+'"),
        (r#"{"a":1.}"#, "column 8: not a number of JSON: 1.}"),
        (r#"{"a":-}"#, "column 7: not a number of JSON: -}"),
        (
            r#"{"a":NaN}"#,
            "column 6: expected a value, found 'N'; JSON has no NaN and no Infinity: send null",
        ),
        (
            r#"{"a":-Infinity}"#,
            "column 7: not a number of JSON: -I; JSON has no NaN and no Infinity: send null",
        ),
        (r#"{"a":nul}"#, "column 6: expected null, found 'n'"),
        (
            r#"{"a":1}{"a":2}"#,
            "column 8: bytes after the object; put each object on a line of its own",
        ),
        (r#"{"a":1},"#, "column 8: bytes after the object; put each object on a line of its own"),
        (
            r#"[{"a":1}]"#,
            "column 1: expected an object, found '['; send an array as application/json",
        ),
        (
            r"12",
            "column 1: expected an object, found '1'; each line is a record of its own (send records of many lines as application/json)",
        ),
        (r#"{"b":"x"#, "column 6: the string is not closed"),
        (r#"{"b":"\x"}"#, "column 7: this escape does not exist in JSON"),
        (
            r#"{"b":"ab\ud800"}"#,
            "column 9: half a surrogate pair is no character; escape both halves",
        ),
        (
            r#"{"b":"\udc00\ud800"}"#,
            "column 7: half a surrogate pair is no character; escape both halves",
        ),
        (
            r#"{"b":"\ud800\u0041"}"#,
            "column 7: half a surrogate pair is no character; escape both halves",
        ),
        (r#"{"b":"\u00g0"}"#, "column 7: \\u needs four hexadecimal digits"),
        ("{\"b\":\"a\tb\"}", "column 8: a control character in a string must be escaped"),
        (r#"{"j":[1,]}"#, "column 9: expected a value, found ']'; remove the comma before it"),
        (r#"{"j":[1 2]}"#, "column 9: expected a comma or ], found '2'"),
        (
            r#"{"j":{"x":"\ud800"}}"#,
            "column 12: half a surrogate pair is no character; escape both halves",
        ),
        (r#"{"a":1}x"#, "column 8: bytes after the object; put each object on a line of its own"),
    ];
    for (record, message) in cases {
        // Good rows around it are kept.
        let body = format!("{{\"a\":1}}\n{record}\n{{\"a\":2}}\n");
        let batches = decode(
            Format::Ndjson,
            Limits::default(),
            &schema,
            Unknown::DeadLetter,
            body.as_bytes(),
        );
        let batches = batches.unwrap_or_default();
        assert_eq!(
            refusals(&batches),
            [format!("2 syntax {}: {message}", column_of(&batches))],
            "{record}"
        );
        assert_eq!(rows(&batches), ["1|~|~", "2|~|~"], "{record}");
        let raw = batches
            .iter()
            .flat_map(|batch| &batch.rejected)
            .next()
            .map(|refused| refused.raw.clone());
        assert_eq!(raw.as_deref(), Some(record.as_bytes()));
    }
}

fn column_of(batches: &[forebay_pipeline::record::Batch]) -> String {
    let refused = batches.iter().flat_map(|batch| &batch.rejected).next();
    refused.and_then(|refused| refused.column.clone()).unwrap_or("-".to_owned())
}

#[test]
fn a_refused_row_leaves_nothing_behind() {
    let schema = schema(&[
        ("a", Type::BigInt),
        ("b", Type::Text),
        ("c", Type::Double),
        ("d", Type::Boolean),
        ("j", Type::Json),
        ("n!", Type::Int),
    ]);
    let body = br#"{"a":1,"b":"one","c":1.5,"d":true,"j":{"x":1},"n":1}
{"a":2,"b":"two","c":2.5,"d":true,"j":{"x":2},"n":2.5}
{"j":null,"b":null,"a":null,"c":null,"d":null}
{"b":"half\u0041 \ud800","n":1}
{"n":3,"j":[],"d":false,"c":3,"b":"three","a":3}
{"n":4,"n":5}
{"n":6}
"#;
    let batches = decode(Format::Ndjson, Limits::default(), &schema, Unknown::DeadLetter, body);
    let batches = batches.unwrap_or_default();
    assert_eq!(
        rows(&batches),
        ["1|one|1.5|true|{\"x\":1}|1", "3|three|3.0|false|[]|3", "~|~|~|~|~|6"]
    );
    assert_eq!(
        refusals(&batches),
        [
            "2 type_mismatch n: 2.5 has a fraction; the column is INT (alter it to DOUBLE to keep it)",
            "3 not_null n: missing, and the column is NOT NULL without a DEFAULT",
            "4 syntax b: column 18: half a surrogate pair is no character; escape both halves",
            "6 duplicate_key n: the record names this key twice; send it once",
        ]
    );
    assert_eq!(batches[0].numbers, [1, 5, 7]);
    let spans: Vec<_> = batches[0]
        .spans
        .iter()
        .map(|&(at, len)| {
            String::from_utf8_lossy(&body[at as usize..(at + len) as usize]).into_owned()
        })
        .collect();
    assert_eq!(spans[1], r#"{"n":3,"j":[],"d":false,"c":3,"b":"three","a":3}"#);
    assert_eq!(spans[2], r#"{"n":6}"#);
}

#[test]
fn a_missing_value_takes_its_default_and_an_explicit_null_does_not() {
    let mut schema = schema(&[("a", Type::BigInt), ("b!", Type::Text)]);
    schema.columns[0].default = Some(Constant::Int(7));
    schema.columns[1].default = Some(Constant::Text("none".to_owned()));
    let body = b"{}\n{\"a\":null}\n{\"b\":null}\n{\"b\":\"x\"}\n";
    let batches = decode(Format::Ndjson, Limits::default(), &schema, Unknown::DeadLetter, body);
    let batches = batches.unwrap_or_default();
    assert_eq!(rows(&batches), ["7|none", "~|none", "7|x"]);
    assert_eq!(refusals(&batches), ["3 not_null b: NULL in a NOT NULL column"]);
}

#[test]
fn nesting_is_bounded_and_never_overflows_the_stack() {
    let schema = schema(&[("v", Type::Json)]);
    let limits = Limits { depth: 4, ..Limits::default() };
    let deep = "[".repeat(100_000);
    let body = format!(
        "{{\"v\":[[[]]]}}\n{{\"v\":[[[[]]]]}}\n{{\"v\":{deep}\n{{\"v\":{deep}{}}}\n",
        "]".repeat(100_000)
    );
    let batches = decode(Format::Ndjson, limits, &schema, Unknown::DeadLetter, body.as_bytes());
    let batches = batches.unwrap_or_default();
    assert_eq!(rows(&batches), ["[[[]]]"]);
    let expected: Vec<_> = [2, 3, 4]
        .map(|row| {
            format!(
                "{row} too_deep v: nested deeper than 4 levels; flatten it, or send it as a text"
            )
        })
        .into();
    assert_eq!(refusals(&batches), expected);
}

#[test]
fn bytes_that_are_not_utf8_cost_their_own_row_alone() {
    let schema = schema(&[("a", Type::Text)]);
    for (format, body) in [
        (Format::Ndjson, &b"{\"a\":\"x\"}\n{\"a\":\"\xff\"}\n{\"a\":\"y\"}\n"[..]),
        (Format::Json, b"[{\"a\":\"x\"},{\"a\":\"\xff\"},{\"a\":\"y\"}]"),
        (crate::CSV, b"a\nx\n\xff\ny\n"),
    ] {
        let batches = decode(format.clone(), Limits::default(), &schema, Unknown::DeadLetter, body);
        let batches = batches.unwrap_or_default();
        assert_eq!(rows(&batches), ["x", "y"], "{format:?}");
        let refused: Vec<_> = batches.iter().flat_map(|batch| &batch.rejected).collect();
        assert_eq!(refused.len(), 1);
        assert_eq!((refused[0].row, refused[0].code), (2, Code::InvalidUtf8));
        assert!(refused[0].message.ends_with("the bytes are not UTF-8"));
    }
}

#[test]
fn a_value_without_a_column_is_refused_dropped_or_kept_as_the_stream_says() {
    let mut schema = schema(&[("a", Type::BigInt)]);
    let body = br#"{"a":1,"x":{"y": 1},"\u0041":"b"}
{"x":null,"a":2}
{"a":3}
{"a":4,"x":1,"x":2}
{"a":5,"x":[1,]}
"#;
    let run = |schema: &_, unknown| {
        decode(Format::Ndjson, Limits::default(), schema, unknown, body).unwrap_or_default()
    };
    let batches = run(&schema, Unknown::DeadLetter);
    assert_eq!(rows(&batches), ["2", "3"], "a null is no value");
    let faults = [
        "4 duplicate_key x: the record names this key twice; send it once",
        "5 syntax -: column 15: expected a value, found ']'; remove the comma before it",
    ];
    let unknown = "1 unknown_column x: the schema has no column \"x\"; alter the stream, or set \
                   unknown = \"drop\" or \"keep\"";
    assert_eq!(refusals(&batches), [unknown, faults[0], faults[1]]);

    let batches = run(&schema, Unknown::Drop);
    assert_eq!(rows(&batches), ["1", "2", "3"]);
    assert_eq!(refusals(&batches), faults);

    schema.columns.extend(crate::schema(&[("_extra", Type::Json)]).columns);
    let batches = run(&schema, Unknown::Keep);
    assert_eq!(rows(&batches), [r#"1|{"x":{"y": 1},"\u0041":"b"}"#, r#"2|{"x":null}"#, "3|~"]);
    assert_eq!(refusals(&batches), faults);
}

#[test]
fn keys_in_any_order_escaped_or_spaced_find_their_column() {
    let schema = schema(&[("a", Type::BigInt), ("b \"q\"", Type::BigInt), ("ü", Type::BigInt)]);
    let body = "{\"ü\":3,\"b \\\"q\\\"\":2,\"\\u0061\":1}\r\n  { \"a\" : 1 ,\t\"b \\\"q\\\"\" : 2, \"\\u00fc\":3 } \n";
    let batches =
        decode(Format::Ndjson, Limits::default(), &schema, Unknown::DeadLetter, body.as_bytes());
    let batches = batches.unwrap_or_default();
    assert_eq!(refusals(&batches), [""; 0]);
    assert_eq!(rows(&batches), ["1|2|3", "1|2|3"]);
}

#[test]
fn an_array_of_objects_is_read_across_chunks_and_its_bad_elements_are_rows() {
    let schema = schema(&[("a", Type::BigInt)]);
    let body =
        b"[{\"a\":1},\n [1,2], {\"a\":2} , 7 ,\"x, ]\", {\"a\"\n:2.5}, {\"a\":,} ,{\"a\":3}]\n";
    for chunk_bytes in [1, 10, 1000] {
        let limits = Limits { chunk_bytes, ..Limits::default() };
        let batches = decode(Format::Json, limits, &schema, Unknown::DeadLetter, body);
        let batches = batches.unwrap_or_default();
        assert_eq!(rows(&batches), ["1", "2", "3"], "chunks of {chunk_bytes}");
        let messages: Vec<_> = batches
            .iter()
            .flat_map(|batch| &batch.rejected)
            .map(|refused| refused.message.as_str())
            .collect();
        assert_eq!(
            messages,
            [
                "line 2, column 2: expected an object, found '['",
                "line 2, column 19: expected an object, found '7'",
                "line 2, column 22: expected an object, found '\"'",
                "2.5 has a fraction; the column is INT (alter it to DOUBLE to keep it)"
                    .replace("INT", "BIGINT")
                    .as_str(),
                "line 3, column 13: expected a value, found ','",
            ],
            "chunks of {chunk_bytes}"
        );
    }
}

#[test]
fn a_batch_has_no_more_cells_than_the_limit() {
    let schema = schema(&[("a", Type::BigInt), ("b", Type::BigInt)]);
    let limits = Limits { cells: 6, ..Limits::default() };
    let body = "{\"a\":1}\n{\"a\":x}\n".repeat(5);
    let batches = decode(Format::Ndjson, limits, &schema, Unknown::DeadLetter, body.as_bytes());
    let received: Vec<_> = batches.unwrap_or_default().iter().map(|batch| batch.received).collect();
    assert_eq!(received, [3, 3, 3, 1]);
}

#[test]
fn a_default_text_cannot_blow_a_batch_up() {
    let mut schema = schema(&[("a", Type::Text)]);
    schema.columns[0].default = Some(Constant::Text("x".repeat(10 << 20)));
    let body = "{}\n".repeat(20);
    let batches =
        decode(Format::Ndjson, Limits::default(), &schema, Unknown::DeadLetter, body.as_bytes());
    let received: Vec<_> = batches.unwrap_or_default().iter().map(|batch| batch.received).collect();
    assert_eq!(received, [7, 7, 6]);
}

#[test]
fn an_oversized_record_is_a_refused_row_in_its_place() {
    let schema = schema(&[("a", Type::BigInt)]);
    let limits = Limits { record_bytes: 20, ..Limits::default() };
    let long = " ".repeat(30);
    let body = format!("{{\"a\":1}}\n{{\"a\":{long}2}}\n{{\"a\":3}}\n{{{long}}}\n");
    let batches = decode(Format::Ndjson, limits, &schema, Unknown::DeadLetter, body.as_bytes());
    let batches = batches.unwrap_or_default();
    assert_eq!(rows(&batches), ["1", "3"]);
    assert_eq!(batches[0].numbers, [1, 3]);
    assert_eq!(
        refusals(&batches),
        [
            "2 row_too_large -: the record has 38 bytes, the limit is 20; only its beginning is kept",
            "4 row_too_large -: the record has 33 bytes, the limit is 20; only its beginning is kept",
        ]
    );
}
