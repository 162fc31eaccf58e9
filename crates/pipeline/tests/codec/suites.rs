//! Suites and real files of others.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{Float64Type, Int64Type, TimestampMicrosecondType};
use forebay_pipeline::codec::{Decoder, Format, Limits, infer, parse_timestamp};
use forebay_pipeline::schema::{Schema, Type, Unknown};

use crate::{CSV, cut, decode, refusals, rows, schema, shared};

/// The files of a tar archive: names and contents.
fn untar(mut archive: &[u8]) -> Vec<(String, Vec<u8>)> {
    const BLOCK: usize = 512;
    let text = |field: &[u8]| {
        let end = field.iter().position(|&byte| byte == 0).unwrap_or(field.len());
        String::from_utf8_lossy(&field[..end]).into_owned()
    };
    let mut files = Vec::new();
    while archive.len() > BLOCK && archive[0] != 0 {
        let (header, rest) = archive.split_at(BLOCK);
        let size = usize::from_str_radix(text(&header[124..136]).trim(), 8).unwrap_or(0);
        if matches!(header[156], b'0' | 0) {
            files.push((text(&header[..100]), rest[..size].to_vec()));
        }
        archive = rest.get(size.next_multiple_of(BLOCK)..).unwrap_or_default();
    }
    files
}

#[test]
fn the_json_test_suite_is_judged_right_as_a_value_in_a_record() {
    let Some(archive) = shared("JSONTestSuite/test_parsing.tar.zst") else {
        return;
    };
    let schema = schema(&[("v", Type::Json)]);
    let limits = Limits::default();
    let (mut good, mut bad) = (0, 0);
    for (path, content) in untar(&archive) {
        let name = path.rsplit('/').next().unwrap_or_default();
        if !name.ends_with(".json") {
            continue;
        }
        let body = [b"{\"v\": ", &content[..], b"}"].concat();
        let mut formats = vec![Format::Json];
        if !content.contains(&b'\n') {
            formats.push(Format::Ndjson);
        }
        for format in formats {
            let decoded = decode(format.clone(), limits, &schema, Unknown::DeadLetter, &body);
            let (taken, refused) = match &decoded {
                Ok(batches) => (rows(batches).len(), refusals(batches).len()),
                // The body as a whole was refused.
                Err(_) => (0, 1),
            };
            match name.as_bytes()[0] {
                b'y' => assert_eq!((taken, refused), (1, 0), "{name} is good as {format:?}"),
                b'n' => assert!(taken == 0 && refused > 0, "{name} is bad as {format:?}"),
                _ => assert_eq!(taken + refused, 1, "{name} has one answer as {format:?}"),
            }
        }
        good += usize::from(name.starts_with('y'));
        bad += usize::from(name.starts_with('n'));
    }
    assert_eq!((good, bad), (95, 188));
}

#[test]
fn csv_spectrum_gives_the_expected_values() {
    const CASES: [&str; 11] = [
        "comma_in_quotes",
        "empty",
        "empty_crlf",
        "escaped_quotes",
        "json",
        "newlines",
        "newlines_crlf",
        "quotes_and_newlines",
        "simple",
        "simple_crlf",
        "utf8",
    ];
    for case in CASES {
        let Some(mut csv) = shared(&format!("csv-spectrum/csvs/{case}.csv")) else {
            return;
        };
        if case.ends_with("_crlf") && !csv.contains(&b'\r') {
            // A copy whose line ends were normalised.
            csv = String::from_utf8_lossy(&csv).replace('\n', "\r\n").into_bytes();
        }
        let Some(json) = shared(&format!("csv-spectrum/json/{case}.json")) else {
            return;
        };
        let expected: Vec<serde_json::Map<String, serde_json::Value>> =
            serde_json::from_slice(&json).unwrap_or_default();
        assert!(!expected.is_empty(), "{case}");
        let columns: Vec<_> = expected[0].keys().map(|name| (name.as_str(), Type::Text)).collect();
        let batches = decode(CSV, Limits::default(), &schema(&columns), Unknown::DeadLetter, &csv);
        let text = |value: &serde_json::Value| value.as_str().unwrap_or("?").to_owned();
        let expected: Vec<_> = expected
            .iter()
            .map(|row| row.values().map(text).collect::<Vec<_>>().join("|"))
            .collect();
        assert_eq!(rows(&batches.unwrap_or_default()), expected, "{case}");
    }
}

#[test]
fn a_file_of_lone_carriage_returns_is_read_whole() {
    let Some(body) = shared("csv-odd/cr_only_311.csv.zst") else {
        return;
    };
    let chunks = cut(CSV, Limits::default(), &body).unwrap_or_default();
    let records: u64 = chunks.iter().map(|chunk| chunk.records).sum();
    let sums = decode_inferred(CSV, &body);
    assert_eq!(sums.rows, records);
    assert_eq!((sums.rows, sums.refused), (39_627, 0));
}

#[test]
fn github_events_are_all_rows() {
    let Some(body) = shared("gh.ndjson.zst") else {
        return;
    };
    let sums = decode_inferred(Format::Ndjson, &body);
    assert_eq!((sums.rows, sums.refused), (1000, 0));
}

/// What a body came to.
#[derive(Debug, Default, PartialEq)]
struct Sums {
    rows: u64,
    refused: u64,
    nulls: Vec<u64>,
    /// Numbers added up; texts as their bytes.
    sums: Vec<i128>,
}

impl Sums {
    fn add(&mut self, column: usize, value: Option<i128>) {
        if self.sums.len() <= column {
            self.sums.resize(column + 1, 0);
            self.nulls.resize(column + 1, 0);
        }
        match value {
            Some(value) => self.sums[column] += value,
            None => self.nulls[column] += 1,
        }
    }
}

fn text_sum(text: &str) -> i128 {
    text.bytes().map(i128::from).sum()
}

fn number_at(array: &ArrayRef, row: usize) -> Option<i128> {
    if array.is_null(row) {
        return None;
    }
    let integer = array.as_primitive_opt::<Int64Type>().map(|a| i128::from(a.value(row)));
    let float = || array.as_primitive_opt::<Float64Type>().map(|a| a.value(row) as i128);
    let time =
        || array.as_primitive_opt::<TimestampMicrosecondType>().map(|a| i128::from(a.value(row)));
    let text = || array.as_string_opt::<i32>().map(|a| text_sum(a.value(row)));
    integer.or_else(float).or_else(time).or_else(text)
}

fn decode_inferred(format: Format, body: &[u8]) -> Sums {
    let chunks = cut(format.clone(), Limits::default(), body).unwrap_or_default();
    let Some(first) = chunks.first() else {
        return Sums::default();
    };
    let schema = infer(&format, first, Limits::default()).unwrap_or_default();
    decode_sums(format, &schema, body)
}

fn decode_sums(format: Format, schema: &Schema, body: &[u8]) -> Sums {
    let chunks = cut(format.clone(), Limits::default(), body).unwrap_or_default();
    let mut decoder =
        Decoder::new(Arc::new(schema.clone()), Unknown::DeadLetter, Limits::default());
    let mut sums = Sums::default();
    for chunk in &chunks {
        for batch in decoder.decode(&format, chunk).flatten() {
            sums.rows += batch.rows.num_rows() as u64;
            sums.refused += batch.rejected.len() as u64;
            for (index, column) in batch.rows.columns().iter().enumerate() {
                for row in 0..column.len() {
                    sums.add(index, number_at(column, row));
                }
            }
        }
    }
    sums
}

/// The column `tailnum` of the flights.
const TAILNUM: usize = 11;

/// The flights as NDJSON: numbers bare, texts quoted, empty fields null.
fn as_ndjson(csv: &str) -> String {
    let mut lines = csv.lines();
    let names: Vec<_> = lines.next().unwrap_or_default().split(',').collect();
    let mut body = String::with_capacity(csv.len() * 5);
    for line in lines {
        for (index, (name, value)) in names.iter().zip(line.split(',')).enumerate() {
            body += if index == 0 { "{\"" } else { ",\"" };
            body += name;
            body += "\":";
            if value.is_empty() || value == "NA" && index != TAILNUM {
                body += "null";
            } else if value.parse::<f64>().is_ok() {
                body += value;
            } else {
                body.extend(["\"", value, "\""]);
            }
        }
        body += "}\n";
    }
    body
}

#[test]
fn all_flights_have_the_sums_and_null_counts_of_a_plain_reading() {
    let Some(body) = shared("flights.csv.zst") else {
        return;
    };
    let text = String::from_utf8_lossy(&body);
    let mut expected = Sums::default();
    for line in text.lines().skip(1) {
        expected.rows += 1;
        for (column, value) in line.split(',').enumerate() {
            // The file says NA for NULL; in the TEXT column that is a text.
            if value.is_empty() || value == "NA" && column != TAILNUM {
                expected.add(column, None);
                continue;
            }
            let number = value.parse::<i128>().ok();
            let time = || parse_timestamp(value).map(i128::from);
            let sum = number.or_else(time).unwrap_or_else(|| text_sum(value));
            expected.add(column, Some(sum));
        }
    }
    assert_eq!(expected.rows, 336_776);
    assert_eq!(expected.nulls.iter().sum::<u64>(), 44_083);
    assert_eq!(decode_inferred(CSV, &body), expected);
    let ndjson = as_ndjson(&text);
    assert_eq!(decode_inferred(Format::Ndjson, ndjson.as_bytes()), expected);

    // The same from a schema that was declared, and by what JSON arrays make of it.
    let first = cut(CSV, Limits::default(), &body).unwrap_or_default();
    let schema = infer(&CSV, &first[0], Limits::default()).unwrap_or_default();
    let array = format!("[{}]", ndjson.trim_end().replace('\n', ",\n"));
    assert_eq!(decode_sums(Format::Json, &schema, array.as_bytes()), expected);
}
