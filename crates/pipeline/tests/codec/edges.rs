//! The edges of numbers and of the calendar: what each format answers, exactly.

use forebay_pipeline::codec::{Format, Limits};
use forebay_pipeline::record::Code;
use forebay_pipeline::schema::{Type, Unknown};

use crate::{CSV, decode, one, refusals, rows, schema};

const DECIMAL: Type = Type::Decimal { precision: 5, scale: 2 };

/// The value as it is stored, or the code it is refused with.
fn answer(format: Format, ty: Type, text: &str) -> String {
    match one(format, ty, text) {
        Ok(value) => value,
        Err((code, _)) => format!("! {}", code.as_str()),
    }
}

#[test]
fn a_number_at_the_edge_of_its_type_is_stored_exactly_or_refused_in_both_formats() {
    let (out, syntax, mismatch) = ("! out_of_range", "! syntax", "! type_mismatch");
    // Type, text, what JSON makes of it, what CSV makes of it.
    let cases = [
        (Type::SmallInt, "32767", "32767", "32767"),
        (Type::SmallInt, "32768", out, out),
        (Type::SmallInt, "-32769", out, out),
        (Type::Int, "2147483648", out, out),
        (Type::Int, "-2147483648", "-2147483648", "-2147483648"),
        (Type::Int, "-2147483649", out, out),
        (Type::BigInt, "9223372036854775807", "9223372036854775807", "9223372036854775807"),
        (Type::BigInt, "9223372036854775808", out, out),
        (Type::BigInt, "-9223372036854775808", "-9223372036854775808", "-9223372036854775808"),
        (Type::BigInt, "-9223372036854775809", out, out),
        (Type::BigInt, "99999999999999999999999999999999999999999999", out, out),
        (Type::BigInt, "1e999999999999999999999", out, out),
        (Type::Double, "9223372036854775808", "9.223372036854776e18", "9.223372036854776e18"),
        (
            Type::Double,
            "1.7976931348623157e308",
            "1.7976931348623157e308",
            "1.7976931348623157e308",
        ),
        (Type::Double, "1e309", out, out),
        (Type::Double, "-1e400", out, out),
        (Type::Double, "1e-400", "0.0", "0.0"),
        (Type::Real, "3.5e38", out, out),
        (Type::Int, "1e400", out, out),
        (DECIMAL, "1e400", out, out),
        (DECIMAL, "999.99", "999.99", "999.99"),
        (DECIMAL, "999.995", out, out),
        (Type::Text, "1e400", mismatch, "1e400"),
        (Type::Int, "-0", "0", "0"),
        (Type::Double, "-0", "-0.0", "-0.0"),
        (DECIMAL, "-0", "0.00", "0.00"),
        (Type::Int, "NaN", syntax, mismatch),
        (Type::Double, "NaN", syntax, out),
        (Type::Real, "Infinity", syntax, out),
        (Type::Double, "-Infinity", syntax, out),
        (Type::Int, "007", syntax, "7"),
        (Type::Double, "-007.5", syntax, "-7.5"),
        (Type::Text, "007", syntax, "007"),
        (Type::Text, "\"007\"", "007", "007"),
        (Type::Int, "\"007\"", mismatch, "7"),
        (Type::Int, "0x10", syntax, mismatch),
        (Type::Int, "1_000", syntax, mismatch),
        (Type::Int, "+1", syntax, mismatch),
        (Type::Int, "1.", syntax, "1"),
        (Type::Double, ".5", syntax, "0.5"),
        (Type::Int, "1.5", mismatch, mismatch),
        (Type::Int, "1.0", "1", "1"),
        (Type::Int, "--1", syntax, mismatch),
        (Type::Double, "1e", syntax, mismatch),
    ];
    for (ty, text, json, csv) in cases {
        assert_eq!(answer(Format::Ndjson, ty, text), json, "{text} as {ty:?} in JSON");
        assert_eq!(answer(CSV, ty, text), csv, "{text} as {ty:?} in CSV");
    }
}

#[test]
fn a_day_or_time_that_does_not_exist_is_refused_and_an_offset_is_taken_off() {
    let bad = "! invalid_date";
    let cases = [
        (Type::Date, "2024-02-29", "2024-02-29"),
        (Type::Date, "2023-02-29", bad),
        (Type::Date, "1900-02-29", bad),
        (Type::Date, "2000-02-29", "2000-02-29"),
        (Type::Date, "2024-04-31", bad),
        (Type::Date, "2024-13-01", bad),
        (Type::Date, "2024-00-01", bad),
        (Type::Date, "2024-01-00", bad),
        (Type::Date, "0000-00-00", bad),
        (Type::Date, "31.12.2024", bad),
        (Type::Date, "2024-12-31T00:00:00Z", bad),
        (Type::Timestamp, "2023-02-29T10:00:00Z", bad),
        (Type::Timestamp, "2024-01-01T24:00:00Z", bad),
        (Type::Timestamp, "2024-01-01T23:60:00Z", bad),
        (Type::Timestamp, "2024-01-01", bad),
        (Type::Timestamp, "2024-01-01T00:30:00+01:00", "2023-12-31T23:30:00Z"),
        (Type::Timestamp, "2024-12-31T20:00:00-05:30", "2025-01-01T01:30:00Z"),
        (Type::Timestamp, "2024-01-01T14:00:00+1400", "2024-01-01T00:00:00Z"),
        (Type::Timestamp, "2024-01-01T00:00:00+24:00", bad),
        (Type::Timestamp, "2024-01-01T00:00:00+01:60", bad),
        (Type::Timestamp, "2024-01-01T00:00:00 CET", bad),
        (Type::Timestamp, "9999-12-31T23:59:59.999999Z", "9999-12-31T23:59:59.999999Z"),
        (Type::Timestamp, "2016-12-31T23:59:60Z", bad),
        (Type::Timestamp, "2016-12-31T23:59:60.5+00:00", bad),
        (Type::Timestamp, "2016-12-31T23:59:61Z", bad),
    ];
    for (ty, text, expected) in cases {
        assert_eq!(answer(Format::Ndjson, ty, &format!("\"{text}\"")), expected, "{text} in JSON");
        assert_eq!(answer(CSV, ty, text), expected, "{text} in CSV");
    }
    for format in [Format::Ndjson, CSV] {
        let leap = one(format, Type::Timestamp, "\"2016-12-31T23:59:60Z\"");
        let message = leap.err().map(|(_, message)| message).unwrap_or_default();
        assert!(message.ends_with("no leap second, send :59"), "{message}");
    }
}

#[test]
fn objects_over_many_lines_sent_as_ndjson_are_refused_line_by_line_with_the_way_out() {
    let schema = schema(&[("a", Type::BigInt), ("b", Type::BigInt)]);
    let pretty =
        b"{\n  \"a\": 1,\n  \"b\": 2\n}\n{\"a\":3,\"b\":4}\n[{\"a\":5}]\n{\"a\":6}{\"a\":7}\n";
    let limits = Limits::default();
    let batches = decode(Format::Ndjson, limits, &schema, Unknown::DeadLetter, pretty);
    let batches = batches.unwrap_or_default();
    assert_eq!(rows(&batches), ["3|4"]);
    let refusals = refusals(&batches);
    assert_eq!(refusals.len(), 6);
    for refusal in refusals.iter().take(4) {
        let hint =
            "each line is a record of its own (send records of many lines as application/json)";
        assert!(refusal.ends_with(hint), "{refusal}");
    }
    let ends = ["send an array as application/json", "put each object on a line of its own"];
    for (refusal, end) in refusals.iter().skip(4).zip(ends) {
        assert!(refusal.ends_with(end), "{refusal}");
    }
    // The same objects, sent as what they are.
    let object =
        decode(Format::Json, limits, &schema, Unknown::DeadLetter, b"{\n\"a\": 1,\n\"b\": 2\n}");
    assert_eq!(rows(&object.unwrap_or_default()), ["1|2"]);
}

#[test]
fn a_hundred_thousand_levels_are_refused_whatever_becomes_of_their_column() {
    const LEVELS: usize = 100_000;
    let bodies = [
        "[".repeat(LEVELS) + &"]".repeat(LEVELS),
        "{\"v\":".repeat(LEVELS) + "1" + &"}".repeat(LEVELS),
        "[".repeat(LEVELS),
    ];
    let limits = Limits::default();
    for (column, unknown) in
        [("v", Unknown::DeadLetter), ("w", Unknown::DeadLetter), ("w", Unknown::Drop)]
    {
        for value in &bodies {
            let body = format!("{{\"v\":{value}}}\n{{\"{column}\":[]}}\n");
            let schema = schema(&[(column, Type::Json)]);
            let batches = decode(Format::Ndjson, limits, &schema, unknown, body.as_bytes());
            let batches = batches.unwrap_or_default();
            assert_eq!(rows(&batches), ["[]"]);
            let codes: Vec<_> = batches.iter().flat_map(|b| &b.rejected).map(|r| r.code).collect();
            assert_eq!(codes, [Code::TooDeep]);
            let refusal = refusals(&batches).concat();
            assert!(refusal.ends_with("levels; flatten it, or send it as a text"), "{refusal}");
        }
    }
}
