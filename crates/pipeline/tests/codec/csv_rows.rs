//! How CSV records are read.

use forebay_pipeline::codec::{Cutter, Decoder, Dialect, Format, Limits};
use forebay_pipeline::record::Code;
use forebay_pipeline::schema::{Constant, Type, Unknown};

use crate::{CSV, decode, one, refusals, rows, schema};

#[test]
fn a_field_that_fits_its_column_is_taken_exactly() {
    let cases = [
        (Type::Int, "", "~"),
        (Type::Int, "\"\"", "~"),
        (Type::Text, "", "~"),
        (Type::Text, "\"\"", ""),
        (Type::Text, " a ", " a "),
        (Type::Text, "\"a \"\"b\"\", c\n\"", "a \"b\", c\n"),
        (Type::Text, "a\"b", "a\"b"),
        (
            Type::Text,
            "a text that is longer than a few words",
            "a text that is longer than a few words",
        ),
        (Type::Int, "007", "7"),
        (Type::Int, " 5 ", "5"),
        (Type::Int, "\"5\"", "5"),
        (Type::Int, "1.0", "1"),
        (Type::BigInt, "-9223372036854775808", "-9223372036854775808"),
        (Type::Double, "0.1", "0.1"),
        (Type::Double, "1e5", "100000.0"),
        (Type::Real, "2.5", "2.5"),
        (Type::Decimal { precision: 5, scale: 2 }, "1.5", "1.50"),
        (Type::Boolean, "t", "true"),
        (Type::Boolean, "FALSE", "false"),
        (Type::Boolean, "1", "true"),
        (Type::Date, "2024-02-29", "2024-02-29"),
        (Type::Timestamp, "2013-01-01 10:00:00", "2013-01-01T10:00:00Z"),
        (Type::Json, "\"{\"\"a\"\":[1]}\"", "{\"a\":[1]}"),
    ];
    for (ty, text, expected) in cases {
        assert_eq!(one(CSV, ty, text).as_deref(), Ok(expected), "{text:?} as {ty:?}");
    }
}

#[test]
fn a_field_that_does_not_fit_is_refused_with_its_column_value_and_type() {
    use Code::{FieldCount, InvalidDate, OutOfRange, Syntax, TypeMismatch};
    let cases = [
        (Type::Int, "abc", TypeMismatch, "expected INT, found abc"),
        (
            Type::Int,
            "1.9",
            TypeMismatch,
            "1.9 has a fraction; the column is INT (alter it to DOUBLE to keep it)",
        ),
        (Type::Int, "2147483648", OutOfRange, "2147483648 is outside the range of INT"),
        (Type::Int, "+5", TypeMismatch, "expected INT, found +5"),
        (Type::Int, "  ", TypeMismatch, "expected INT, found "),
        (Type::Double, "NaN", OutOfRange, "NaN is outside the range of DOUBLE"),
        (Type::Double, "-Infinity", OutOfRange, "-Infinity is outside the range of DOUBLE"),
        (Type::Double, "1e400", OutOfRange, "1e400 is outside the range of DOUBLE"),
        (Type::Double, "1.5x", TypeMismatch, "expected DOUBLE, found 1.5x"),
        (Type::Boolean, "yes", TypeMismatch, "expected BOOLEAN, found yes"),
        (
            Type::Date,
            "2023-02-30",
            InvalidDate,
            "2023-02-30 is not a day (YYYY-MM-DD); the column is DATE",
        ),
        (Type::Json, "{a}", TypeMismatch, "expected JSON, found {a}"),
        (
            Type::Text,
            "\"a\"b",
            Syntax,
            "line 2, column 4: bytes after the closing quote (a quote inside quotes is doubled)",
        ),
        (Type::Text, "a,b", FieldCount, "3 fields, and the header has 2"),
        (Type::Int, "x,1", FieldCount, "3 fields, and the header has 2"),
    ];
    for (ty, text, code, message) in cases {
        assert_eq!(one(CSV, ty, text), Err((code, message.to_owned())), "{text:?} as {ty:?}");
    }
}

#[test]
fn ragged_rows_and_open_quotes_cost_their_own_row_alone() {
    let schema = schema(&[("a", Type::BigInt), ("b", Type::Text)]);
    for end in ["\n", "\r\n", "\r"] {
        let body =
            ["a,b", "1,x", "2", "3,y,z", "", "4,\"q\"", "5,\"q\"r", "6,w", "7,\"open", "8,v"];
        let body = body.join(end);
        let batches = decode(CSV, Limits::default(), &schema, Unknown::DeadLetter, body.as_bytes());
        let batches = batches.unwrap_or_default();
        assert_eq!(rows(&batches), ["1|x", "4|q", "6|w"], "{end:?}");
        assert_eq!(
            refusals(&batches),
            [
                "2 field_count -: 1 field, and the header has 2",
                "3 field_count -: 3 fields, and the header has 2",
                "5 syntax b: line 7, column 6: bytes after the closing quote (a quote inside quotes is doubled)",
                "7 syntax b: line 9, column 3: the quote that opens here is not closed",
            ],
            "{end:?}"
        );
        let raw: Vec<_> = batches[0].rejected.iter().map(|refused| refused.raw.to_vec()).collect();
        assert_eq!(raw[..3], [&b"2"[..], b"3,y,z", b"5,\"q\"r"]);
        assert_eq!(raw[3], format!("7,\"open{end}8,v").as_bytes());
    }
}

#[test]
fn columns_are_matched_by_name_and_missing_ones_take_their_default() {
    let mut schema = schema(&[("a", Type::BigInt), ("b", Type::Text), ("c!", Type::BigInt)]);
    schema.columns[1].default = Some(Constant::Text("none".to_owned()));
    let run = |body: &str| {
        decode(CSV, Limits::default(), &schema, Unknown::DeadLetter, body.as_bytes())
            .unwrap_or_default()
    };
    assert_eq!(rows(&run("c,a\n1,2\n3,\n")), ["2|none|1", "~|none|3"]);
    assert_eq!(rows(&run("c,b\n1,\n3,\"\"\n")), ["~|~|1", "~||3"], "an empty field is NULL");
    assert_eq!(
        refusals(&run("a\n1\n")),
        ["1 not_null c: missing, and the column is NOT NULL without a DEFAULT"]
    );
    assert_eq!(refusals(&run("c\n\"\"\n")), ["1 not_null c: NULL in a NOT NULL column"]);
}

#[test]
fn a_column_that_the_schema_lacks_is_refused_dropped_or_kept_as_the_stream_says() {
    let mut schema = schema(&[("a", Type::BigInt)]);
    let body = b"x,a,y z\n,1,\nq,2,\n\"say \"\"hi\"\"\",3,9\n";
    let run = |schema: &_, unknown| {
        decode(CSV, Limits::default(), schema, unknown, body).unwrap_or_default()
    };
    let batches = run(&schema, Unknown::DeadLetter);
    assert_eq!(rows(&batches), ["1"]);
    let refused: Vec<_> =
        batches[0].rejected.iter().map(|r| (r.code, r.column.as_deref())).collect();
    assert_eq!(refused, [(Code::UnknownColumn, Some("x")), (Code::UnknownColumn, Some("x"))]);
    assert_eq!(rows(&run(&schema, Unknown::Drop)), ["1", "2", "3"]);
    schema.columns.extend(crate::schema(&[("_extra", Type::Json)]).columns);
    assert_eq!(
        rows(&run(&schema, Unknown::Keep)),
        ["1|~", r#"2|{"x":"q"}"#, r#"3|{"x":"say \"hi\"","y z":"9"}"#]
    );
}

#[test]
fn the_usual_words_for_null_are_null_where_they_cannot_be_a_text() {
    for word in ["NA", "N/A", "NULL", "null", "\\N"] {
        for ty in [Type::Int, Type::Double, Type::Timestamp, Type::Boolean, Type::Json] {
            assert_eq!(one(CSV, ty, word).as_deref(), Ok("~"), "{word} as {ty:?}");
        }
        assert_eq!(one(CSV, Type::Text, word).as_deref(), Ok(word));
        assert!(one(CSV, Type::Int, &format!("\"{word}\"")).is_err(), "a quoted word is a word");
    }
}

#[test]
fn tabs_separate_when_the_format_says_so() {
    let schema = schema(&[("a", Type::BigInt), ("b", Type::Text)]);
    let format = Format::Csv(Dialect::TAB);
    let body = b"a\tb\n1\tx,y\n2\t\"p\tq\"\n";
    let batches = decode(format, Limits::default(), &schema, Unknown::DeadLetter, body);
    assert_eq!(rows(&batches.unwrap_or_default()), ["1|x,y", "2|p\tq"]);
}

#[test]
fn a_decoding_names_the_unknown_columns_that_had_values() {
    let schema = schema(&[("a", Type::BigInt)]);
    let mut decoder = Decoder::new(schema.into(), Unknown::DeadLetter, Limits::default());
    let mut cutter = Cutter::new(&CSV, Limits::default());
    assert_eq!(cutter.push("a,x,y,z\n1,,,\n2,,p,\n3,,p,q\n".into()), Ok(()));
    let chunk = cutter.finish().ok().flatten();
    let Some(chunk) = chunk else { panic!("the body has a chunk") };
    assert!(decoder.estimate(&chunk) >= chunk.bytes.len());
    let format = CSV;
    let mut decoding = decoder.decode(&format, &chunk);
    assert!(decoding.by_ref().all(|batch| batch.is_ok()));
    assert_eq!(decoding.unknown_columns(), ["y", "z"]);
}
