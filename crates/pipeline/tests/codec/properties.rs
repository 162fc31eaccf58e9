//! What holds for every body.

use std::sync::Arc;

use bytes::Bytes;
use forebay_pipeline::codec::{Chunk, Decoder, Dialect, Format, Limits, Malformed, infer, widen};
use forebay_pipeline::schema::{Schema, Type, Unknown};
use proptest::prelude::*;

use crate::{CSV, conserved, cut, cut_pieces, refusals, rows, schema};

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
