//! Unpacking: the first byte chooses coding and charset, the second how the body is split. Steps end, give out no
//! more than they may, and expand no further than allowed; how the body is split changes nothing.
#![no_main]

use bytes::Bytes;
use forebay_pipeline::codec::unpack::{
    Charset, Coding, Expansion, Packing, STEP_BYTES, Step, UnpackError, Unpacker,
};
use libfuzzer_sys::fuzz_target;

const CODINGS: [Coding; 4] = [Coding::Identity, Coding::Gzip, Coding::Deflate, Coding::Zstd];
const CHARSETS: [&str; 4] = ["utf-8", "utf-16le", "utf-16be", "latin1"];
const EXPANSION: Expansion = Expansion { ratio: 200, floor: 1 << 20 };

fn unpack<'a>(
    packing: Packing,
    pieces: impl Iterator<Item = &'a [u8]>,
) -> Result<Vec<u8>, UnpackError> {
    let mut unpacker = Unpacker::new(packing, EXPANSION);
    let mut text = Vec::new();
    let mut pieces = pieces.peekable();
    let mut input = Bytes::new();
    loop {
        match unpacker.step(&mut input, pieces.peek().is_none())? {
            Step::Output(piece) => {
                assert!(piece.len() <= STEP_BYTES);
                text.extend_from_slice(&piece);
            }
            Step::Room(_) => unpacker.grant(),
            Step::Hungry => input = pieces.next().map_or_else(Bytes::new, Bytes::copy_from_slice),
            Step::End(piece) => {
                text.extend_from_slice(&piece);
                return Ok(text);
            }
        }
    }
}

fuzz_target!(|input: &[u8]| {
    let [choice, step, body @ ..] = input else { return };
    let coding = CODINGS[usize::from(*choice) % 4];
    let charset = Charset::parse(CHARSETS[usize::from(*choice) / 4 % 4]).unwrap_or_default();
    let packing = Packing { coding, charset };
    let whole = unpack(packing, std::iter::once(body));
    let split = unpack(packing, body.chunks(usize::from(*step).max(1)));
    if let (Ok(whole), Ok(split)) = (&whole, &split) {
        assert_eq!(whole, split);
        // UTF-8 may take three bytes for one of a charset.
        assert!(whole.len() as u64 <= 3 * EXPANSION.floor.max(EXPANSION.ratio * body.len() as u64));
    }
    assert_eq!(whole.is_ok(), split.is_ok(), "{whole:?} {split:?}");
});
