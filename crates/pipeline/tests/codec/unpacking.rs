//! Compressed and foreign-encoded bodies: what comes out, in which bounds, and what is refused where.

use std::io::Write;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
use forebay_pipeline::codec::unpack::{
    Charset, Coding, Expansion, Packing, STEP_BYTES, Step, UnpackError, Unpacker, WINDOW_BYTES,
};
use forebay_pipeline::codec::{Format, Limits};
use forebay_pipeline::schema::{Type, Unknown};

use crate::{CSV, cut_pieces, decode, refusals, rows, schema, shared};

/// Unpacks a body that arrives in pieces.
pub(crate) fn unpack(
    packing: Packing,
    expansion: Expansion,
    pieces: impl IntoIterator<Item = Bytes>,
) -> Result<Vec<Bytes>, UnpackError> {
    let mut unpacker = Unpacker::new(packing, expansion);
    let mut pieces = pieces.into_iter().peekable();
    let (mut input, mut out, mut window) = (Bytes::new(), Vec::new(), 0);
    loop {
        let last = pieces.peek().is_none();
        match unpacker.step(&mut input, last)? {
            Step::Output(text) => {
                assert!(text.len() <= STEP_BYTES, "F3: {} bytes in one step", text.len());
                out.push(text);
            }
            Step::Room(bytes) => {
                window += bytes;
                assert!(window <= WINDOW_BYTES + (1 << 20), "F3: {window} bytes of windows");
                unpacker.grant();
            }
            Step::Hungry => {
                assert!(input.is_empty(), "hungry with {} bytes before it", input.len());
                input = pieces.next().unwrap_or_default();
            }
            Step::End(text) => {
                out.push(text);
                return Ok(out);
            }
        }
    }
}

pub(crate) fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(body).and_then(|()| encoder.finish()).unwrap_or_default()
}

pub(crate) fn zlib(body: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(body).and_then(|()| encoder.finish()).unwrap_or_default()
}

pub(crate) fn deflate(body: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(body).and_then(|()| encoder.finish()).unwrap_or_default()
}

pub(crate) fn zstd_frame(body: &[u8]) -> Vec<u8> {
    zstd::bulk::compress(body, 3).unwrap_or_default()
}

/// A frame that names its window, as encoders of streams write it.
fn zstd_stream(body: &[u8], window_log: u32) -> Vec<u8> {
    let encode = || -> std::io::Result<Vec<u8>> {
        let mut encoder = zstd::stream::Encoder::new(Vec::new(), 1)?;
        encoder.window_log(window_log)?;
        encoder.include_checksum(true)?;
        encoder.write_all(body)?;
        encoder.finish()
    };
    encode().unwrap_or_default()
}

pub(crate) fn coded(coding: Coding) -> Packing {
    Packing { coding, ..Packing::default() }
}

fn in_charset(label: &str) -> Packing {
    Packing { charset: Charset::parse(label).unwrap_or_default(), ..Packing::default() }
}

/// Unpacks a body that comes whole, and again one byte at a time.
fn whole(packing: Packing, body: &[u8]) -> Result<Vec<u8>, UnpackError> {
    let bytewise = body.iter().map(|byte| Bytes::copy_from_slice(&[*byte]));
    let by_byte = unpack(packing, Expansion::default(), bytewise).map(|out| out.concat());
    let at_once = unpack(packing, Expansion::default(), [Bytes::copy_from_slice(body)]);
    let at_once = at_once.map(|out| out.concat());
    match (&at_once, &by_byte) {
        (Ok(_), _) | (_, Ok(_)) => assert_eq!(at_once, by_byte),
        (Err(_), Err(_)) => {}
    }
    at_once
}

fn broken(packing: Packing, body: &[u8]) -> (u64, String) {
    match whole(packing, body) {
        Err(UnpackError::Broken { at, message }) => (at, message),
        other => panic!("expected a broken body, got {other:?}"),
    }
}

const TEXT: &[u8] = b"a,b\n1,x\n2,y\n";

#[test]
fn every_coding_gives_the_body_back_however_many_parts_it_has() {
    let long: Vec<u8> = (0..200_000).flat_map(|n: u32| format!("{n},x\n").into_bytes()).collect();
    for body in [TEXT, &long[..], b""] {
        for (coding, packed) in [
            (Coding::Identity, body.to_vec()),
            (Coding::Gzip, gzip(body)),
            (Coding::Deflate, zlib(body)),
            (Coding::Deflate, deflate(body)),
            (Coding::Zstd, zstd_frame(body)),
            (Coding::Zstd, zstd_stream(body, 17)),
        ] {
            let pieces = packed.chunks(1000).map(Bytes::copy_from_slice);
            let out = unpack(coded(coding), Expansion::default(), pieces).map(|out| out.concat());
            assert!(out.is_ok_and(|out| out == body), "{coding:?}");
        }
    }
    let members = [gzip(b"a,b\n"), gzip(b""), gzip(b"1,x\n2,y\n")].concat();
    assert_eq!(whole(coded(Coding::Gzip), &members), Ok(TEXT.to_vec()));
    let skipped = b"\x50\x2A\x4D\x18\x03\0\0\0abc";
    let frames = [&skipped[..], &zstd_frame(b"a,b\n"), skipped, &zstd_stream(b"1,x\n2,y\n", 20)];
    assert_eq!(whole(coded(Coding::Zstd), &frames.concat()), Ok(TEXT.to_vec()));
}

#[test]
fn a_body_cut_off_anywhere_is_refused_saying_at_which_byte() {
    for (coding, packed) in [
        (Coding::Gzip, [gzip(b"a,b\n"), gzip(TEXT)].concat()),
        (Coding::Deflate, zlib(TEXT)),
        (Coding::Zstd, [zstd_frame(b"a,b\n"), zstd_stream(TEXT, 20)].concat()),
    ] {
        let first = match coding {
            Coding::Gzip => gzip(b"a,b\n").len(),
            Coding::Zstd => zstd_frame(b"a,b\n").len(),
            _ => 0,
        };
        for length in (1..packed.len()).filter(|length| *length != first) {
            let (at, message) = broken(coded(coding), &packed[..length]);
            assert_eq!(at, length as u64, "{coding:?}");
            assert!(message.contains("ends in the middle"), "{coding:?} {length}: {message}");
        }
    }
}

#[test]
fn garbage_behind_a_body_or_instead_of_it_is_refused() {
    for (coding, packed) in [
        (Coding::Gzip, gzip(TEXT)),
        (Coding::Deflate, zlib(TEXT)),
        (Coding::Deflate, deflate(TEXT)),
        (Coding::Zstd, zstd_frame(TEXT)),
    ] {
        let (at, message) = broken(coded(coding), &[&packed[..], b"garbage"].concat());
        assert!(at >= packed.len() as u64, "{coding:?}: byte {at} of {}", packed.len());
        let expected = ["behind the end", "no zstd frame"];
        assert!(expected.iter().any(|text| message.contains(text)), "{coding:?}: {message}");
        let _refused = broken(coded(coding), b"\xFFthis is no compressed body at all");
    }
}

#[test]
fn a_wrong_checksum_is_refused() {
    for (coding, mut packed, from_end) in [
        (Coding::Gzip, gzip(TEXT), 8),
        (Coding::Deflate, zlib(TEXT), 1),
        (Coding::Zstd, zstd_stream(TEXT, 20), 1),
    ] {
        let at = packed.len() - from_end;
        packed[at] ^= 1;
        let (_, message) = broken(coded(coding), &packed);
        assert!(message.contains("check"), "{coding:?}: {message}");
    }
}

#[test]
fn f3_a_bomb_is_refused_where_it_passes_the_limit() {
    let expansion = Expansion { ratio: 20, floor: 1 << 20 };
    let zeros = vec![b'0'; 32 << 20];
    for (coding, packed) in [
        (Coding::Gzip, gzip(&zeros)),
        (Coding::Deflate, zlib(&zeros)),
        (Coding::Zstd, zstd_stream(&zeros, 20)),
    ] {
        let length = packed.len() as u64;
        match unpack(coded(coding), expansion, [Bytes::from(packed)]) {
            Err(UnpackError::Expansion { taken, most }) => {
                assert!(taken <= length && most == expansion.floor.max(taken * 20), "{coding:?}");
            }
            other => panic!("{coding:?}: {:?} pieces", other.map(|out| out.len())),
        }
        let within = Expansion { ratio: 1, floor: 64 << 20 };
        let packed = if coding == Coding::Zstd { zstd_stream(&zeros, 20) } else { gzip(&zeros) };
        if coding != Coding::Deflate {
            assert!(unpack(coded(coding), within, [Bytes::from(packed)]).is_ok());
        }
    }
}

#[test]
fn f3_a_zstd_frame_that_wants_a_larger_window_is_refused_saying_so() {
    let body = vec![b'x'; 1000];
    assert!(whole(coded(Coding::Zstd), &zstd_stream(&body, 23)).is_ok());
    let error = whole(coded(Coding::Zstd), &zstd_stream(&body, 24)).err();
    assert_eq!(error, Some(UnpackError::Window { wanted: 16 << 20 }));
    let text = error.map(|error| error.to_string()).unwrap_or_default();
    assert!(text.contains("--long=23"), "{text}");
}

fn utf16(text: &str, unit: impl Fn(u16) -> [u8; 2]) -> Vec<u8> {
    text.encode_utf16().flat_map(unit).collect()
}

#[test]
fn utf16_is_known_by_its_mark_or_by_its_name() {
    let text = "a,b\n1,größe 😀\n";
    let marked = "\u{feff}".to_owned() + text;
    for body in [utf16(&marked, u16::to_le_bytes), utf16(&marked, u16::to_be_bytes)] {
        assert_eq!(whole(Packing::default(), &body), Ok(text.as_bytes().to_vec()));
        // A mark is stronger than the name.
        assert_eq!(whole(in_charset("latin1"), &body), Ok(text.as_bytes().to_vec()));
    }
    let named = whole(in_charset("UTF-16LE"), &utf16(text, u16::to_le_bytes));
    assert_eq!(named, Ok(text.as_bytes().to_vec()));
    let named = whole(in_charset("utf-16be"), &utf16(text, u16::to_be_bytes));
    assert_eq!(named, Ok(text.as_bytes().to_vec()));
}

#[test]
fn latin_1_is_read_where_it_is_declared() {
    for label in ["iso-8859-1", "latin1", "windows-1252"] {
        let out = whole(in_charset(label), b"a\ngr\xF6\xDFe \x80\n");
        assert_eq!(out, Ok("a\ngröße €\n".as_bytes().to_vec()), "{label}");
    }
    assert_eq!(Charset::parse("klingon"), None);
    assert!(Charset::parse("US-ASCII").is_some_and(Charset::is_utf8));
}

#[test]
fn malformed_utf16_costs_the_row_that_holds_it_and_no_other() {
    let mut body = utf16("\u{feff}a\nx\n", u16::to_le_bytes);
    body.extend_from_slice(b"\x00\xD8!\0\n\0");
    body.extend(utf16("y\n", u16::to_le_bytes));
    // Half a unit at the end.
    body.extend_from_slice(b"z\0\n\0w");
    let text = whole(Packing::default(), &body).unwrap_or_default();
    let schema = schema(&[("a", Type::Text)]);
    let batches = decode(CSV, Limits::default(), &schema, Unknown::DeadLetter, &text);
    let batches = batches.unwrap_or_default();
    assert_eq!(rows(&batches), ["x", "y", "z"]);
    let refused = refusals(&batches);
    assert_eq!(refused.len(), 2, "{refused:?}");
    assert!(refused.iter().all(|refusal| refusal.contains("invalid_utf8")), "{refused:?}");
}

#[test]
fn a_real_file_in_utf16_is_read_whole() {
    let Some(body) = shared("csv-odd/utf16le.csv") else { return };
    let pieces = body.chunks(777).map(Bytes::copy_from_slice);
    let text = unpack(Packing::default(), Expansion::default(), pieces).unwrap_or_default();
    let expected = String::from_utf16_lossy(
        &body[2..]
            .chunks_exact(2)
            .map(|unit| u16::from_le_bytes([unit[0], unit[1]]))
            .collect::<Vec<_>>(),
    );
    assert_eq!(String::from_utf8_lossy(&text.concat()), expected);
    let format = Format::Csv(forebay_pipeline::codec::Dialect::default());
    let chunks = cut_pieces(format, Limits::default(), text).unwrap_or_default();
    let records: u64 = chunks.iter().map(|chunk| chunk.records).sum();
    assert!(records > 100, "{records} records");
}
