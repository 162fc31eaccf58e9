//! What holds for every body.

use std::sync::Arc;

use bytes::Bytes;
use forebay_pipeline::codec::{
    Chunk, Decoder, Dialect, Format, Header, Limits, Malformed, Quote, infer, widen,
};
use forebay_pipeline::schema::{Schema, Type, Unknown};
use proptest::prelude::*;

use crate::{CSV, conserved, cut, cut_pieces, refusals, rows, schema};

/// Every way of saying a dialect, and of leaving it open.
fn dialect() -> impl Strategy<Value = Dialect> {
    let byte = |of: &'static [u8]| prop::option::of(prop::sample::select(of));
    let quote = prop::sample::select(vec![None, Some(Quote::None), Some(Quote::Byte(b'\''))]);
    let header = prop::sample::select(vec![None, Some(Header::Present), Some(Header::Absent)]);
    let null = prop::option::of(Just(Box::from("1")));
    let names = prop::option::of(Just(Arc::from(["a".to_owned(), "b".to_owned()])));
    (byte(b",;\t|: "), quote, byte(b"\\^"), byte(b"#2"), null, header, names).prop_map(
        |(delimiter, quote, escape, comment, null, header, names)| Dialect {
            delimiter,
            quote,
            escape,
            comment,
            null,
            header,
            names,
        },
    )
}

/// Separated values by the line: rows that mostly fit, among them quotes, escapes and comments.
fn separated() -> impl Strategy<Value = Vec<u8>> {
    let field = prop::sample::select(vec![
        "1",
        "-2",
        "22",
        "",
        "x",
        "xyz",
        "2013-01-01T10:00:00Z",
        "1.25",
        "NA",
        "\\N",
        "\"q,;q\"",
        "'q|q'",
        "\"a\"\"b\"",
        "a\\,b",
        "\\",
        "a\nb",
        "\"a\nb\"",
        "ü",
        "#",
        "\"",
        "'",
    ]);
    let plain = prop::sample::select(vec!["1", "-2", "22", "x", "2013-01-01T10:00:00Z", "1.25"]);
    let delimiter = prop::sample::select(vec![",", ",", ",", ";", "\t"]);
    let end = prop::sample::select(vec!["\n", "\n", "\r\n", "\r", ""]);
    let fields = prop_oneof![
        4 => prop::collection::vec(plain, 4..5),
        1 => prop::collection::vec(field, 0..6),
    ];
    let line =
        (fields, delimiter, end).prop_map(|(fields, delimiter, end)| fields.join(delimiter) + end);
    let header = prop::sample::select(vec![
        "a,b,c,d\n",
        "a;b;c\r\n",
        "d,a,c,b\n",
        "a\tx\ty\tc\n",
        "#\na,b\n",
        "",
    ]);
    (header, prop::collection::vec(line, 0..60))
        .prop_map(|(header, lines)| (header.to_owned() + &lines.concat()).into_bytes())
}

const FORMATS: [Format; 4] = [Format::Ndjson, Format::Json, CSV, Format::Csv(Dialect::TAB)];

fn limits() -> Limits {
    Limits { chunk_bytes: 40, chunk_records: 4, record_bytes: 60, columns: 5, depth: 5, cells: 12 }
}

fn columns() -> Schema {
    schema(&[
        ("a", Type::BigInt),
        ("b!", Type::Text),
        ("c", Type::Timestamp),
        ("d", Type::Decimal { precision: 5, scale: 2 }),
        ("_extra", Type::Json),
    ])
}

/// Bytes that look like the formats: near misses find more than noise does.
fn body() -> impl Strategy<Value = Vec<u8>> {
    let token = prop_oneof![
        8 => prop::sample::select(vec![
            "{", "}", "[", "]", ",", ":", "\"", "\\", "\n", "\r", "\r\n", "\t", " ", "null",
            "true", "1", "-0", "1.5", "1e3", "\"a\":", "\"b\":", "\"x\"", "\"\\ud800\"", "\"\"",
            "{\"a\":1,\"b\":\"x\"}\n", "{\"b\":\"y\",\"c\":\"2013-01-01T10:00:00Z\"}", "a,b,c\n",
            "1,x,\n", "2,\"q\"\"r\",\n", "a\tb\n", "\u{feff}", "ü", "long long long long long ",
        ]).prop_map(|token| token.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 1..4),
    ];
    prop::collection::vec(token, 0..60).prop_map(|tokens| tokens.concat())
}

/// Everything that a caller can see of a chunk.
fn seen(chunks: &Result<Vec<Chunk>, Malformed>) -> Result<Vec<String>, Malformed> {
    let chunks = chunks.as_ref().map_err(Clone::clone)?;
    Ok(chunks.iter().map(|chunk| format!("{chunk:?}")).collect())
}

fn decode_all(format: &Format, unknown: Unknown, chunks: &[Chunk]) -> Vec<String> {
    let mut decoder = Decoder::new(Arc::new(columns()), unknown, limits());
    let mut texts = Vec::new();
    for chunk in chunks {
        let mut received = 0;
        for batch in decoder.decode(format, chunk) {
            let Ok(batch) = batch else { panic!("a cut chunk can be decoded") };
            conserved(&batch);
            assert!(batch.received * columns().columns.len() as u64 <= limits().cells as u64);
            received += batch.received;
            let batches = [batch];
            texts.extend(rows(&batches));
            texts.extend(refusals(&batches));
        }
        assert_eq!(received, chunk.records, "F6: cutter and decoder count alike");
    }
    texts
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_split_of_any_body_gives_the_same_chunks(body in body(), cuts in prop::collection::vec(0..200_usize, 0..8)) {
        for format in FORMATS {
            let whole = cut(format.clone(), limits(), &body);
            let mut cuts: Vec<_> = cuts.iter().map(|at| at % (body.len() + 1)).collect();
            cuts.extend([0, body.len()]);
            cuts.sort_unstable();
            let pieces = cuts.windows(2).map(|at| Bytes::copy_from_slice(&body[at[0]..at[1]]));
            prop_assert_eq!(seen(&cut_pieces(format.clone(), limits(), pieces)), seen(&whole));
            let bytewise = body.iter().map(|byte| Bytes::copy_from_slice(&[*byte]));
            prop_assert_eq!(seen(&cut_pieces(format.clone(), limits(), bytewise)), seen(&whole));
        }
    }

    #[test]
    fn any_split_of_separated_values_gives_the_same_batches_in_any_dialect(
        body in separated(), dialect in dialect(),
        cuts in prop::collection::vec(0..5000_usize, 0..8), small in any::<bool>(),
    ) {
        // With room enough, whole blocks of plain records are stepped over; bytewise they never are.
        let limits = if small { limits() } else { Limits { chunk_bytes: 400, record_bytes: 300, ..limits() } };
        let format = Format::Csv(dialect);
        let whole = cut(format.clone(), limits, &body);
        let mut cuts: Vec<_> = cuts.iter().map(|at| at % (body.len() + 1)).collect();
        cuts.extend([0, body.len()]);
        cuts.sort_unstable();
        let pieces = cuts.windows(2).map(|at| Bytes::copy_from_slice(&body[at[0]..at[1]]));
        prop_assert_eq!(seen(&cut_pieces(format.clone(), limits, pieces)), seen(&whole));
        let bytewise = body.iter().map(|byte| Bytes::copy_from_slice(&[*byte]));
        prop_assert_eq!(seen(&cut_pieces(format.clone(), limits, bytewise)), seen(&whole));
        let Ok(chunks) = whole else { return Ok(()) };
        let texts = decode_all(&format, Unknown::DeadLetter, &chunks);
        prop_assert_eq!(&texts, &decode_all(&format, Unknown::DeadLetter, &chunks));
        for chunk in &chunks {
            let _ = infer(&format, chunk, limits);
        }
    }

    #[test]
    fn plain_rows_read_together_are_those_read_one_by_one(body in separated()) {
        let limits = Limits { cells: 200, ..Limits::default() };
        // A comment mark that never stands there: records are read one by one.
        let alone = Format::Csv(Dialect { comment: Some(1), ..Dialect::COMMA });
        let all = |format: &Format| {
            let chunks = cut(format.clone(), limits, &body).unwrap_or_default();
            let mut decoder = Decoder::new(Arc::new(columns()), Unknown::DeadLetter, limits);
            let batches: Vec<_> = chunks
                .iter()
                .flat_map(|chunk| decoder.decode(format, chunk).flatten().collect::<Vec<_>>())
                .collect();
            let places: Vec<_> =
                batches.iter().map(|b| (b.numbers.clone(), b.spans.clone())).collect();
            (rows(&batches), refusals(&batches), places)
        };
        prop_assert_eq!(all(&CSV), all(&alone));
    }

    #[test]
    fn f6_every_record_of_any_body_is_a_row_or_a_refusal(body in body()) {
        for format in FORMATS {
            let Ok(chunks) = cut(format.clone(), limits(), &body) else { continue };
            for unknown in [Unknown::DeadLetter, Unknown::Drop, Unknown::Keep] {
                let texts = decode_all(&format, unknown, &chunks);
                prop_assert_eq!(texts, decode_all(&format, unknown, &chunks), "decoding has no memory");
            }
            for chunk in &chunks {
                let first = infer(&format, chunk, limits());
                prop_assert_eq!(&first, &infer(&format, chunk, limits()));
                let _ = widen(&columns(), &format, chunk, limits());
            }
        }
    }

    #[test]
    fn a_row_that_serde_writes_is_a_row_that_is_read(
        a in any::<i64>(), b in ".*", c in any::<f64>().prop_filter("finite", |c| c.is_finite()),
    ) {
        let schema = schema(&[("a", Type::BigInt), ("b", Type::Text), ("c", Type::Double)]);
        let body = serde_json::json!({"c": c, "b": b, "a": a}).to_string();
        let batches = crate::decode(Format::Ndjson, Limits::default(), &schema, Unknown::DeadLetter, body.as_bytes());
        let batches = batches.unwrap_or_default();
        prop_assert_eq!(refusals(&batches), [""; 0]);
        let batch = &batches[0].rows;
        let column = |index: usize| batch.column(index);
        use arrow::array::AsArray;
        use arrow::datatypes::{Float64Type, Int64Type};
        prop_assert_eq!(column(0).as_primitive::<Int64Type>().value(0), a);
        prop_assert_eq!(column(1).as_string::<i32>().value(0), b);
        prop_assert_eq!(column(2).as_primitive::<Float64Type>().value(0).to_bits(), c.to_bits());
    }

    #[test]
    fn a_csv_text_comes_back_as_it_was_quoted(texts in prop::collection::vec("[ -~\n\r\"ü,]{0,12}", 1..6)) {
        let schema = schema(&[("a", Type::Text), ("b", Type::Text)]);
        let quoted = texts.iter().map(|text| format!("\"{}\",x\r\n", text.replace('"', "\"\"")));
        let body = format!("a,b\r\n{}", quoted.collect::<String>());
        let batches = crate::decode(CSV, Limits::default(), &schema, Unknown::DeadLetter, body.as_bytes());
        let expected: Vec<_> = texts.iter().map(|text| format!("{text}|x")).collect();
        prop_assert_eq!(rows(&batches.unwrap_or_default()), expected);
    }
}
