//! Where bodies are cut.

use bytes::Bytes;
use forebay_pipeline::codec::{Format, Limits};

use crate::{CSV, cut, cut_pieces};

fn small(chunk_bytes: usize, record_bytes: usize) -> Limits {
    Limits { chunk_bytes, record_bytes, ..Limits::default() }
}

/// The chunks of a body as texts; the last one ends in `$`.
fn texts(format: Format, limits: Limits, body: &str) -> Vec<String> {
    match cut(format, limits, body.as_bytes()) {
        Ok(chunks) => chunks
            .iter()
            .map(|chunk| {
                let text = String::from_utf8_lossy(&chunk.bytes);
                format!("{text}{}", if chunk.last { "$" } else { "" })
            })
            .collect(),
        Err(error) => vec![error.to_string()],
    }
}

#[test]
fn a_chunk_ends_at_the_first_record_boundary_at_or_after_its_size() {
    let cases: [(Format, usize, &str, &[&str]); 12] = [
        (Format::Ndjson, 5, "{}\n{}\n{}\n{}\n", &["{}\n{}\n", "{}\n{}\n$"]),
        (Format::Ndjson, 6, "{}\n{}\n{}\n{}", &["{}\n{}\n", "{}\n{}$"]),
        (Format::Ndjson, 7, "{}\n{}\n{}\n{}", &["{}\n{}\n{}\n", "{}$"]),
        (Format::Ndjson, 1, "{}\n", &["{}\n$"]),
        (Format::Ndjson, 1, "{}\n\n", &["{}\n", "\n$"]),
        (CSV, 4, "a,b\n1,2\n3,4\n", &["1,2\n", "3,4\n$"]),
        (CSV, 1, "a\r\n1\r\n2\r\n", &["1\r\n", "2\r\n$"]),
        (CSV, 1, "a\r1\r2\r3", &["1\r", "2\r", "3$"]),
        (CSV, 1, "a\n\"1\n1\"\n\"2\"\"\n\"\n", &["\"1\n1\"\n", "\"2\"\"\n\"\n$"]),
        (CSV, 1, "a,b\nx\"y,1\nz,2", &["x\"y,1\n", "z,2$"]),
        (Format::Json, 1, "[{}, {\"a\":\"}]\"}\n]", &["[{}", ", {\"a\":\"}]\"}", "\n]$"]),
        (Format::Json, 1, " {\"a\":[{}]} ", &[" {\"a\":[{}]}", " $"]),
    ];
    for (format, size, body, expected) in cases {
        assert_eq!(texts(format, small(size, 100), body), expected, "{body:?} at {size}");
    }
}

#[test]
fn a_chunk_ends_after_its_count_of_records_however_short() {
    let limits = Limits { chunk_records: 2, ..Limits::default() };
    assert_eq!(texts(Format::Ndjson, limits, "{}\n\n{}\n{}\n"), ["{}\n\n{}\n", "{}\n$"]);
    assert_eq!(texts(CSV, limits, "a\n1\n2\n3\n"), ["1\n2\n", "3\n$"]);
    assert_eq!(texts(Format::Json, limits, "[1,2,3]"), ["[1,2", ",3]$"]);
}

#[test]
fn offsets_and_lines_say_where_a_chunk_stands_in_the_body() {
    let body = "\u{feff}a,b\r\n1,\"x\r\ny\"\r\n\r\n2,z\r\n3,w";
    let chunks = cut(CSV, small(1, 100), body.as_bytes()).unwrap_or_default();
    let places: Vec<_> = chunks.iter().map(|c| (c.offset, c.end, c.line, c.records)).collect();
    assert_eq!(places, [(8, 18, 2, 1), (18, 20, 4, 0), (20, 25, 5, 1), (25, 28, 6, 1)]);
    assert_eq!(chunks.last().map(|chunk| chunk.end), Some(body.len() as u64));
}

#[test]
fn a_body_without_a_record_has_no_chunk() {
    for body in ["", " ", "\n\n", "\u{feff}", "\u{feff}\n", " \t\r\n "] {
        assert_eq!(texts(Format::Ndjson, Limits::default(), body), [""; 0], "{body:?}");
        assert_eq!(texts(Format::Json, Limits::default(), body), [""; 0], "{body:?}");
    }
    for body in ["", "\n\r\n\r", "\u{feff}\n"] {
        assert_eq!(texts(CSV, Limits::default(), body), [""; 0], "{body:?}");
    }
    assert_eq!(texts(Format::Json, Limits::default(), "[]"), ["[]$"], "an empty array is a body");
    assert_eq!(texts(CSV, Limits::default(), "a,b\n"), ["$"], "a header alone is a body");
}

#[test]
fn a_piece_that_holds_a_whole_chunk_is_sliced_and_not_copied() {
    let body = Bytes::from("{\"a\":1}\n".repeat(100));
    let chunks = cut_pieces(Format::Ndjson, small(80, 100), [body.clone()]).unwrap_or_default();
    assert_eq!(chunks.len(), 10);
    for (chunk, expected) in chunks.iter().zip(body.chunks(80)) {
        assert_eq!(chunk.bytes.as_ptr(), expected.as_ptr());
    }
}

#[test]
fn f3_a_record_that_is_too_long_is_skipped_without_being_held() {
    let long = "x".repeat(1000);
    for (format, body) in [
        (Format::Ndjson, format!("{{}}\n{{\"a\":\"{long}\"}}\n{{}}\n{long}")),
        (CSV, format!("a\n1\n\"{long}\n\"\n2\n{long}")),
    ] {
        let pieces = body.as_bytes().chunks(7).map(Bytes::copy_from_slice);
        let chunks = cut_pieces(format.clone(), small(10_000, 50), pieces).unwrap_or_default();
        assert_eq!(chunks.len(), 1, "{format:?}");
        assert_eq!(chunks[0].records, 4);
        assert_eq!(chunks[0].end, body.len() as u64);
        let lengths: Vec<_> = chunks[0].oversized.iter().map(|o| (o.raw.len(), o.length)).collect();
        let first = if format == CSV { 1004 } else { 1009 };
        assert_eq!(lengths, [(50, first), (50, 1000)]);
    }
}

#[test]
fn a_quote_that_is_never_closed_is_named_alike_however_the_body_arrives() {
    // Found by fuzzing: a doubled quote stands where a piece ends, just behind the longest record.
    for doubled in 0..12 {
        let body = format!("a,b\n1,\"{}\"\"{}", "x".repeat(doubled), "y".repeat(20));
        let body = body.as_bytes();
        let whole = cut(CSV, small(100, 12), body);
        assert!(whole.as_ref().is_err_and(|why| (why.line, why.column) == (2, 3)), "{whole:?}");
        for step in 1..=body.len() {
            let pieces = body.chunks(step).map(Bytes::copy_from_slice);
            let split = cut_pieces(CSV, small(100, 12), pieces);
            assert_eq!(format!("{split:?}"), format!("{whole:?}"), "{step} bytes at a time");
        }
    }
}

#[test]
fn the_line_after_a_skipped_record_is_still_known() {
    let body = format!("a\n\"{}\n\n\"\n1\n2\n", "x".repeat(100));
    let chunks = cut(CSV, small(1, 50), body.as_bytes()).unwrap_or_default();
    let lines: Vec<_> = chunks.iter().map(|chunk| chunk.line).collect();
    assert_eq!(lines, [2, 5, 6]);
}

#[test]
fn what_cannot_be_cut_says_where_and_why() {
    let limits = Limits { columns: 3, record_bytes: 30, ..Limits::default() };
    let cases = [
        (Format::Json, "[{},]", "line 1, column 5: a comma after the last record"),
        (Format::Json, "[{},,{}]", "line 1, column 5: two commas between records"),
        (Format::Json, "[,{}]", "line 1, column 2: a comma before the first record"),
        (Format::Json, "[{}\n {}]", "line 2, column 2: expected a comma or ] after a record"),
        (Format::Json, "[{}]\n\n x", "line 3, column 2: bytes after the end of the array"),
        (
            Format::Json,
            "{}\n{}",
            "line 2, column 1: bytes after the object; send many records as an array or as NDJSON",
        ),
        (Format::Json, "12", "line 1, column 1: expected an object or an array of objects"),
        (Format::Json, "[{}", "line 1, column 4: the body ends inside the array; its ] is missing"),
        (Format::Json, "[{\"a\":", "line 1, column 7: the body ends inside a record"),
        (
            Format::Json,
            "[{\"a\":1]",
            "line 1, column 8: this bracket does not close the one that was opened",
        ),
        (
            Format::Json,
            "[{\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\":1}]",
            "line 1, column 1: a record is longer than 30 bytes",
        ),
        (CSV, "a,b,a\n", "line 1, column 5: the header names the column \"a\" twice"),
        (CSV, "a,,b\n", "line 1, column 3: column 2 of the header has no name"),
        (CSV, "a,b,c,d\n", "line 1, column 7: the header has more than 3 columns"),
        (
            CSV,
            "\n\n\"a\"b,c\n",
            "line 3, column 4: the header: bytes after the closing quote (a quote inside quotes is doubled)",
        ),
        (CSV, "\"a", "line 1, column 1: the header: the quote that opens here is not closed"),
        (
            CSV,
            "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
            "line 1, column 1: the header is longer than 30 bytes",
        ),
        (CSV, "\u{feff}\"a\"\"b\",\"c,d\"\n", ""),
    ];
    for (format, body, expected) in cases {
        for size in [1, 2, 1000] {
            let pieces = body.as_bytes().chunks(size).map(Bytes::copy_from_slice);
            let found = cut_pieces(format.clone(), limits, pieces).err();
            let found = found.map_or(String::new(), |error| error.to_string());
            assert_eq!(found, expected, "{body:?} in pieces of {size}");
        }
    }
    let utf16 = cut(CSV, limits, b"\xFF\xFEa\0").err().map(|error| error.message);
    assert_eq!(utf16.as_deref(), Some("the body is UTF-16; send it as UTF-8"));
}

#[test]
fn a_header_is_unquoted_and_kept_with_every_chunk() {
    let chunks = cut(CSV, small(1, 100), b"\"a\"\"b\",\"c,d\"\n1,2\n3,4\n").unwrap_or_default();
    assert_eq!(chunks.len(), 2);
    for chunk in chunks {
        let names = chunk.header.map(|layout| layout.names.clone());
        assert_eq!(names, Some(vec!["a\"b".to_owned(), "c,d".to_owned()]));
    }
}

#[test]
fn f3_blank_lines_before_a_header_are_not_held_without_bound() {
    let body = vec![b'\n'; 1 << 20];
    let refused = cut(CSV, Limits::default(), &body);
    assert!(refused.is_err_and(|refused| refused.message.contains("no header")));
    let some = [&b"\n".repeat(1000)[..], b"a,b\n1,2\n"].concat();
    assert!(cut(CSV, Limits::default(), &some).is_ok_and(|chunks| chunks.len() == 1));
}
