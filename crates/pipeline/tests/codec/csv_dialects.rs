//! The ways in which separated values are written, said or sniffed.

use std::sync::Arc;

use forebay_pipeline::codec::{Dialect, Format, Header, Limits, infer};
use forebay_pipeline::schema::{Schema, Type, Unknown};

use crate::{CSV, cut, decode, refusals, rows, schema};

/// The dialect of parameters written `name=value`.
fn said(parameters: &[&str]) -> Dialect {
    let mut dialect = Dialect::default();
    for parameter in parameters {
        let (name, value) = parameter.split_once('=').unwrap_or_default();
        assert_eq!(dialect.set(name, value), Ok(()), "{parameter}");
    }
    assert_eq!(dialect.check(), Ok(()));
    dialect
}

/// The rows and refusals of a body whose columns are `a BIGINT, b TEXT`.
fn read(dialect: &Dialect, body: &str) -> (Vec<String>, Vec<String>) {
    let schema = schema(&[("a", Type::BigInt), ("b", Type::Text)]);
    let format = Format::Csv(dialect.clone());
    let unknown = Unknown::DeadLetter;
    match decode(format, Limits::default(), &schema, unknown, body.as_bytes()) {
        Ok(batches) => (rows(&batches), refusals(&batches)),
        Err(error) => (Vec::new(), vec![error.to_string()]),
    }
}

#[test]
fn a_body_is_read_in_the_dialect_that_was_said_or_sniffed() {
    let cases: [(&[&str], &str, &[&str]); 19] = [
        (&[], "a,b\n1,x\n2,y;z\n", &["1|x", "2|y;z"]),
        (&[], "a;b\n1;x\n2;y,z\n", &["1|x", "2|y,z"]),
        (&[], "\u{feff}a\tb\r\n1\tx\r\n2\t\"y\tz\"\r\n", &["1|x", "2|y\tz"]),
        (&[], "b|a\rx|1\r\r|2", &["1|x", "2|~"]),
        (&["delimiter=semicolon"], "a;b\n1;x,y\n", &["1|x,y"]),
        (&["delimiter=:"], "a:b\n1:x\n", &["1|x"]),
        (&["quote='"], "a,b\n1,'it''s, \"q\"'\n", &["1|it's, \"q\""]),
        (&["quote=none"], "a,b\n1,\"x\n2,y\"\n", &["1|\"x", "2|y\""]),
        (&["escape=backslash"], "a,b\n1,x\\,y\\\nz\\\\\n2,\"q\\\"r\"\n", &["1|x,y\nz\\", "2|q\"r"]),
        (&["escape=backslash"], "a,b\n\\N,\\N\n2,\"\\N\"\n", &["~|~", "2|N"]),
        (&["escape=\""], "a,b\n1,\"x\"\"y\"\n", &["1|x\"y"]),
        (&["comment=#"], "# made by hand\n\na,b\n#1,x\n2,#y\n# \"z\n3,z", &["2|#y", "3|z"]),
        (&["comment=#"], "a,b\r#1,\"x\r2,y\r#", &["2|y"]),
        (&["null=-"], "a,b\n-,-\n1,\"-\"\n,x\n", &["~|~", "1|-", "~|x"]),
        (&["null=7"], "a,b\n7,7\n77,\"7\"\n", &["~|~", "77|7"]),
        (&["null=NA"], "a,b\n1,NA\n", &["1|~"]),
        (&["header=present"], "b,a\nx,1\n", &["1|x"]),
        (&["delimiter=space", "quote='"], "a b\n1 'x y'\n", &["1|x y"]),
        (&["delimiter=tab", "quote=none", "escape=none"], "a\tb\n1\t\\\"x\n", &["1|\\\"x"]),
    ];
    for (parameters, body, expected) in cases {
        let (rows, refused) = read(&said(parameters), body);
        assert_eq!(rows, expected, "{parameters:?} {body:?} {refused:?}");
        assert_eq!(refused, [""; 0], "{parameters:?} {body:?}");
    }
}

#[test]
fn a_body_without_a_header_has_the_columns_of_its_stream_or_numbered_ones() {
    let mut dialect = said(&["header=absent"]);
    let body = "\n1;x\n2;y\n";
    let format = Format::Csv(dialect.clone());
    let chunks = cut(format.clone(), Limits::default(), body.as_bytes()).unwrap_or_default();
    assert_eq!((chunks.len(), chunks[0].records, chunks[0].line), (1, 2, 1));
    let layout = chunks[0].header.as_ref().map(|layout| (layout.names.clone(), layout.header));
    let numbered = vec!["column_1".to_owned(), "column_2".to_owned()];
    assert_eq!(layout, Some((numbered, Header::Absent)));
    let schema = infer(&format, &chunks[0], Limits::default()).unwrap_or_default();
    let types: Vec<_> = schema.columns.iter().map(|column| column.ty).collect();
    assert_eq!(types, [Type::BigInt, Type::Text]);

    dialect.names = Some(Arc::new(["a".to_owned(), "b".to_owned()]));
    assert_eq!(read(&dialect, body), (vec!["1|x".to_owned(), "2|y".to_owned()], vec![]));
    let (rows, refused) = read(&dialect, "1,x\n2\n3,y,z\n4,z");
    assert_eq!(rows, ["1|x", "4|z"]);
    let why = "and the body has 2 columns (without a header they are the stream's, or as many as \
               the first record has fields)";
    assert_eq!(
        refused,
        [format!("2 field_count -: 1 field, {why}"), format!("3 field_count -: 3 fields, {why}")]
    );
    for empty in ["", "\n\n", "\u{feff}"] {
        let chunks = cut(Format::Csv(dialect.clone()), Limits::default(), empty.as_bytes());
        assert_eq!(chunks.map(|chunks| chunks.len()), Ok(0), "{empty:?}");
    }
    let broken = read(&said(&["header=absent"]), "\"1\"x,y\n").1;
    assert!(broken[0].starts_with("line 1, column 1: the first record has a quote"), "{broken:?}");
}

#[test]
fn a_header_at_fault_is_a_fault_of_the_body_that_names_the_column() {
    let cases: [(&[&str], &str, &str); 4] = [
        (&[], "a;b;a\n1;2;3\n", "line 1, column 5: the header names the column \"a\" twice"),
        (&["comment=#"], "#\n\na,,b\n", "line 3, column 3: column 2 of the header has no name"),
        (
            &["quote='"],
            "'a\nb','c'd\n",
            "line 2, column 7: the header: bytes after the closing quote (a quote inside quotes is \
             doubled)",
        ),
        (&[], "a\t\n", "line 1, column 3: column 2 of the header has no name"),
    ];
    for (parameters, body, expected) in cases {
        assert_eq!(read(&said(parameters), body).1, [expected], "{body:?}");
    }
}

/// A header or a row of `count` columns.
fn line(prefix: &str, count: usize) -> String {
    let fields: Vec<_> = (1..=count).map(|number| format!("{prefix}{number}")).collect();
    fields.join(",") + "\n"
}

#[test]
fn a_new_header_in_the_middle_costs_the_rows_below_it_and_says_what_was_seen() {
    let names: Vec<_> = (1..=11).map(|number| format!("c{number}")).collect();
    let columns: Vec<_> = names.iter().map(|name| (name.as_str(), Type::BigInt)).collect();
    let schema = schema(&columns);
    let run = |body: &str| {
        let unknown = Unknown::DeadLetter;
        let batches = decode(CSV, Limits::default(), &schema, unknown, body.as_bytes());
        let batches = batches.unwrap_or_default();
        (rows(&batches).len(), refusals(&batches))
    };
    let old = line("c", 11) + &line("", 11).repeat(3);
    let body = format!("{old}{}{}{}", line("c", 14), line("", 14).repeat(2), line("", 11));
    let (rows, refused) = run(&body);
    assert_eq!(rows, 4);
    assert_eq!(
        refused,
        [
            "4 field_count -: a header line of 14 columns in the middle of the body, and its header \
             has 11; send what follows it as a body of its own",
            "5 field_count -: 14 fields, and the header has 11",
            "6 field_count -: 14 fields, and the header has 11",
        ]
    );
    let (rows, refused) = run(&format!("{old}{}{}", line("c", 11), line("", 11)));
    assert_eq!(rows, 4);
    assert_eq!(refused, ["4 field_count -: the header line once more; it is no row"]);
}

#[test]
fn a_quote_that_is_never_closed_is_named_with_its_line() {
    // Within a record's limit it costs what it swallowed, which is kept whole.
    let (rows, refused) = read(&Dialect::COMMA, "a,b\n1,x\n2,\"y\n3,z\n");
    assert_eq!(rows, ["1|x"]);
    assert_eq!(refused, ["2 syntax b: line 3, column 3: the quote that opens here is not closed"]);

    // Beyond it the body ends there: what came before is kept, the rest is not taken for one row.
    let limits = Limits { chunk_bytes: 20, record_bytes: 50, ..Limits::default() };
    let body = format!("a,b\r\n1,x\r\n\r\n2,\"y\"\r\n3,\"z\r\n{}", "4,w\r\n".repeat(100));
    for size in [1, 7, 1000] {
        let mut cutter = forebay_pipeline::codec::Cutter::new(&CSV, limits);
        let pieces = body.as_bytes().chunks(size).map(bytes::Bytes::copy_from_slice);
        for piece in pieces {
            assert_eq!(cutter.push(piece), Ok(()));
        }
        let error = cutter.finish().err().map(|error| error.to_string());
        assert_eq!(
            error.as_deref(),
            Some(
                "line 5, column 3: the quote that opens here is never closed: it would make the \
                 last 504 bytes of the body one field"
            )
        );
    }
}

#[test]
fn lines_are_counted_past_records_that_were_too_long() {
    let limits = Limits { record_bytes: 50, ..Limits::default() };
    let long = format!("1,\"{}\n\n\"\n", "x".repeat(100));
    let body = format!("a,b\n1,x\n{long}2,y\n3,\"z\"z\n");
    let schema = schema(&[("a", Type::BigInt), ("b", Type::Text)]);
    let batches = decode(CSV, limits, &schema, Unknown::DeadLetter, body.as_bytes());
    let refused = refusals(&batches.unwrap_or_default());
    assert_eq!(refused.len(), 2);
    assert!(refused[1].starts_with("4 syntax b: line 7, column 6: bytes after"), "{refused:?}");
}

/// A body of mostly plain rows with every kind of trouble among them.
fn mixed(line_end: &str) -> String {
    let mut body = format!("a,b,c,d{line_end}");
    for n in 0..3000 {
        let row = match n % 97 {
            13 => format!("{n},short"),
            29 => "x,text,2013-01-01T10:00:00Z,1".to_owned(),
            31 => format!("{n},text,2013-02-30T10:00:00Z,1"),
            37 => format!("{n},\"quoted, \"\"twice\"\"\",2013-01-01T10:00:00Z,1"),
            41 => String::new(),
            43 => format!("{n},,,"),
            47 => format!(" {n} ,NA,NA,NA"),
            53 => format!("{n},\"two{line_end}lines\",2013-01-01 10:00:00,1"),
            59 => format!("-{n},long,{},1", "9".repeat(30)),
            61 => format!("00{n},-,2013-01-01T10:00:00.5+01:00,1e3"),
            67 => ",b,2013-01-01T10:00:00Z,-0".to_owned(),
            71 => format!("{n},b,2013-01-01T10:00:00Z,1{}", "0".repeat(n % 40)),
            _ => format!(
                "{n},{},2013-01-{:02}T10:00:{:02}Z,{}.25",
                "ü".repeat(n % 20),
                n % 31 + 1,
                n % 60,
                n as i64 - 1500
            ),
        };
        body += &row;
        body += line_end;
    }
    body
}

#[test]
fn rows_read_together_are_those_read_one_by_one() {
    let schema = Schema {
        columns: schema(&[
            ("a!", Type::Int),
            ("missing", Type::Date),
            ("d", Type::Double),
            ("b", Type::Text),
            ("c", Type::Timestamp),
        ])
        .columns,
        checks: Vec::new(),
    };
    // A comment mark that never stands there: reading takes the longer way.
    let alone = Format::Csv(Dialect { comment: Some(1), ..Dialect::COMMA });
    for line_end in ["\n", "\r\n", "\r"] {
        let body = mixed(line_end);
        for limits in
            [Limits::default(), Limits { chunk_bytes: 5000, cells: 700, ..Limits::default() }]
        {
            let all = |format: &Format| {
                let unknown = Unknown::DeadLetter;
                let batches = decode(format.clone(), limits, &schema, unknown, body.as_bytes());
                let batches = batches.unwrap_or_default();
                let numbers: Vec<_> = batches.iter().flat_map(|b| b.numbers.clone()).collect();
                let spans: Vec<_> = batches.iter().flat_map(|b| b.spans.clone()).collect();
                let raw = batches.iter().flat_map(|b| &b.rejected).map(|r| r.raw.clone());
                (rows(&batches), refusals(&batches), numbers, spans, raw.collect::<Vec<_>>())
            };
            let (one_by_one, together) = (all(&alone), all(&CSV));
            assert!(one_by_one.0.len() > 2500 && one_by_one.1.len() > 100);
            assert_eq!(together, one_by_one, "{line_end:?} {limits:?}");
        }
    }
}
