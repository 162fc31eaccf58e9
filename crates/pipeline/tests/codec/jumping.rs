//! A body of which a middle part is left out is cut as it is cut whole.

use bytes::Bytes;
use forebay_pipeline::codec::{Chunk, Cutter, Format, Limits, Malformed};
use proptest::prelude::*;

use crate::{CSV, cut};

/// What names a chunk and decides its rows; lines are counted anew after a jump.
fn seen(chunk: &Chunk) -> impl PartialEq + std::fmt::Debug + use<> {
    let text = String::from_utf8_lossy(&chunk.bytes).into_owned();
    let oversized = format!("{:?}", chunk.oversized);
    (text, chunk.end, chunk.records, oversized, chunk.last, chunk.header.clone())
}

/// Cuts the first `prefix` bytes of a body and those from `offset` on, in pieces.
fn jump(
    format: &Format,
    limits: Limits,
    body: &[u8],
    [prefix, offset]: [u64; 2],
    piece: usize,
) -> Result<Vec<Chunk>, Malformed> {
    let at = |offset: u64| usize::try_from(offset).unwrap_or(usize::MAX);
    let mut cutter = Cutter::new(format, limits);
    let mut chunks = Vec::new();
    for piece in body[..at(prefix)].chunks(piece) {
        cutter.push(Bytes::copy_from_slice(piece))?;
        chunks.extend(std::iter::from_fn(|| cutter.next()));
    }
    let last_known = cutter.jump(offset)?;
    chunks.extend(std::iter::from_fn(|| cutter.next()));
    chunks.extend(last_known);
    for piece in body[at(offset)..].chunks(piece) {
        cutter.push(Bytes::copy_from_slice(piece))?;
        chunks.extend(std::iter::from_fn(|| cutter.next()));
    }
    let last = cutter.finish()?;
    chunks.extend(std::iter::from_fn(|| cutter.next()));
    chunks.extend(last);
    Ok(chunks)
}

fn body(format: &Format) -> impl Strategy<Value = Vec<u8>> + use<> {
    let (start, records, end) = match format {
        Format::Json => ("[", vec!["{\"a\":1}", "12", "\"x\"", "{\"a\":\"]}\"}"], "]"),
        Format::Ndjson => {
            ("\u{feff}", vec!["{\"a\":1}\n", "\n", "{}\r\n", "long long long long\n"], "")
        }
        _ => ("a,b\r", vec!["1,2\n", "\"x\ny\",\r", "\r\n", "3,\"q\"\"\"\r\n", "long,long\r"], ""),
    };
    let comma = if matches!(format, Format::Json) { "," } else { "" };
    prop::collection::vec(prop::sample::select(records), 1..40)
        .prop_map(move |records| format!("{start}{}{end}", records.join(comma)).into_bytes())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_follows_a_part_left_out_is_cut_as_in_the_whole_body(
        (format, body) in prop_oneof![Just(CSV), Just(Format::Json), Just(Format::Ndjson)]
            .prop_flat_map(|format| (Just(format.clone()), body(&format))),
        first in 0..20_usize,
        second in 0..20_usize,
        piece in 1..50_usize,
    ) {
        let limits = Limits { chunk_bytes: 12, chunk_records: 4, record_bytes: 15, ..Limits::default() };
        let Ok(whole) = cut(format.clone(), limits, &body) else { return Ok(()) };
        prop_assume!(whole.len() > 1);
        let known = whole.len() - 1;
        let (first, second) = (first % known, second % known);
        let (first, second) = (first.min(second), first.max(second));
        let places = [whole[first].end, whole[second].end];
        let jumped = jump(&format, limits, &body, places, piece);
        let jumped = jumped.map(|chunks| chunks.iter().map(seen).collect::<Vec<_>>());
        let expected = whole[..=first].iter().chain(&whole[second + 1..]);
        prop_assert_eq!(jumped, Ok(expected.map(seen).collect::<Vec<_>>()));
    }
}
