//! One suite for all formats: chunking by content gives the same batches however a body arrives,
//! and however it was packed.

use std::sync::Arc;

use bytes::Bytes;
use forebay_pipeline::codec::unpack::{Charset, Coding, Expansion, Packing};
use forebay_pipeline::codec::{Decoder, Dialect, Format, Limits, Pattern};
use forebay_pipeline::schema::{Type, Unknown};
use proptest::prelude::*;

use crate::unpacking::{coded, deflate, gzip, unpack, zlib, zstd_frame};
use crate::{conserved, cut_pieces, refusals, rows, schema};

fn limits() -> Limits {
    Limits { chunk_bytes: 60, chunk_records: 4, record_bytes: 80, ..Limits::default() }
}

/// Every format, with its settings said and not.
fn formats() -> Vec<Format> {
    let patterns = ["line", "logfmt", "syslog3164", r"(?<a>\w+)[ =,](?<b>.*)"];
    let patterns = patterns.into_iter().filter_map(|text| Pattern::parse(text).ok());
    let csv = [Dialect::default(), Dialect::TAB, Dialect::separated_by(b';')];
    let mut formats = vec![Format::Ndjson, Format::Json];
    formats.extend(csv.into_iter().map(Format::Csv));
    formats.extend(patterns.map(Format::Text));
    formats
}

/// All that a stream would see of a body: its chunks, their rows, and what was refused.
fn outcome(format: &Format, pieces: Vec<Bytes>) -> Result<Vec<String>, String> {
    let chunks = cut_pieces(format.clone(), limits(), pieces).map_err(|why| why.to_string())?;
    let columns = [("a", Type::BigInt), ("b", Type::Text), ("line", Type::Text)];
    let schema = Arc::new(schema(&columns));
    let mut decoder = Decoder::new(schema, Unknown::DeadLetter, limits());
    let mut seen = Vec::new();
    for chunk in &chunks {
        seen.push(format!("{chunk:?}"));
        let mut received = 0;
        for batch in decoder.decode(format, chunk) {
            let batch = batch.map_err(|why| why.to_string())?;
            conserved(&batch);
            received += batch.received;
            let batches = [batch];
            seen.extend(rows(&batches));
            seen.extend(refusals(&batches));
        }
        assert_eq!(received, chunk.records, "F6: cutter and decoder count alike");
    }
    Ok(seen)
}

/// Text that looks like the formats.
fn body() -> impl Strategy<Value = String> {
    let token = prop::sample::select(vec![
        "{\"a\":1,\"b\":\"x\"}\n",
        "{\"a\":\"no\"}\r\n",
        "[{\"a\":2},",
        "]",
        "a,b\n",
        "1,x\r\n",
        "2,\"q\nr\"\n",
        "a\tb\n",
        "a;b\n3;z\n",
        "a=1 b=\"x y\"\n",
        "a=2 c\n",
        "Feb  5 17:32:18 host app[1]: message\n",
        "plain line\n",
        "größe 😀\n",
        "\n",
        "\r\n",
        " ",
        "\"",
        "long long long long long long long long long long long long long long long long line ",
    ]);
    prop::collection::vec(token, 0..30).prop_map(|tokens| tokens.concat())
}

fn split(body: &[u8], cuts: &[usize]) -> Vec<Bytes> {
    let mut cuts: Vec<_> = cuts.iter().map(|at| at % (body.len() + 1)).collect();
    cuts.extend([0, body.len()]);
    cuts.sort_unstable();
    cuts.windows(2).map(|at| Bytes::copy_from_slice(&body[at[0]..at[1]])).collect()
}

/// The body in every packing, of two parts where a coding has parts.
fn packings(body: &str, at: usize) -> Vec<(Packing, Vec<u8>)> {
    let bytes = body.as_bytes();
    let (first, second) = bytes.split_at(at % (bytes.len() + 1));
    let utf16: Vec<u8> = body.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let in_utf16 =
        |coding| Packing { coding, charset: Charset::parse("utf-16le").unwrap_or_default() };
    vec![
        (coded(Coding::Identity), bytes.to_vec()),
        (coded(Coding::Gzip), [gzip(first), gzip(second)].concat()),
        (coded(Coding::Zstd), [zstd_frame(first), zstd_frame(second)].concat()),
        (coded(Coding::Deflate), zlib(bytes)),
        (coded(Coding::Deflate), deflate(bytes)),
        (in_utf16(Coding::Identity), utf16.clone()),
        (in_utf16(Coding::Gzip), gzip(&utf16)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_body_has_one_outcome_however_it_arrives_and_however_it_was_packed(
        body in body(), at in 0..500_usize, cuts in prop::collection::vec(0..1000_usize, 0..8),
    ) {
        let packed = packings(&body, at);
        for format in formats() {
            let expected = outcome(&format, vec![Bytes::copy_from_slice(body.as_bytes())]);
            for (packing, packed) in &packed {
                let pieces = unpack(*packing, Expansion::default(), split(packed, &cuts));
                let pieces = pieces.map_err(|why| TestCaseError::fail(why.to_string()))?;
                prop_assert_eq!(&outcome(&format, pieces), &expected, "{:?} {:?}", format, packing);
            }
        }
    }

    #[test]
    fn no_bytes_make_the_unpacker_panic_or_hold_more_than_a_step(
        body in prop::collection::vec(any::<u8>(), 0..300), coding in 0..4_usize, cuts in prop::collection::vec(0..300_usize, 0..4),
        good in any::<bool>(), flip in 0..300_usize,
    ) {
        let coding = [Coding::Identity, Coding::Gzip, Coding::Deflate, Coding::Zstd][coding];
        let mut packed = match coding {
            _ if !good => body.clone(),
            Coding::Identity => body.clone(),
            Coding::Gzip => gzip(&body),
            Coding::Deflate => zlib(&body),
            Coding::Zstd => zstd_frame(&body),
        };
        // One bit wrong: found, or harmless; never more than was there.
        let length = packed.len().max(1);
        if let Some(byte) = packed.get_mut(flip % length) {
            *byte ^= 4;
        }
        for charset in ["utf-8", "utf-16le", "latin1", "shift_jis"] {
            let charset = Charset::parse(charset).unwrap_or_default();
            let expansion = Expansion { ratio: 10, floor: 1 << 20 };
            let _outcome = unpack(Packing { coding, charset }, expansion, split(&packed, &cuts));
        }
    }
}
