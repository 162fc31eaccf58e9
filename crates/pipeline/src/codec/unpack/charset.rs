//! Text of other charsets into UTF-8. Owns the decoder and the bytes before a byte order mark is
//! told from text.
//!
//! Nothing is replaced: what is malformed becomes a byte that no UTF-8 has, so the row that holds
//! it is refused as `invalid_utf8`, and the rows beside it are kept.

use bytes::{Bytes, BytesMut};
use encoding_rs::{DecoderResult, Encoding};

use super::STEP_BYTES;

/// Stands for what is malformed: never a part of UTF-8.
const MALFORMED: u8 = 0xFF;
/// The longest UTF-8 that one character becomes, and one malformed sequence beside it.
const LARGEST_STEP: usize = 8;

/// A charset by the labels of the WHATWG Encoding Standard; latin-1 is windows-1252, as everywhere
/// on the web. The default is UTF-8.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Charset(Option<&'static Encoding>);

impl Charset {
    /// The charset of a label such as `utf-8`, `utf-16le`, `iso-8859-1`, in any case.
    pub fn parse(label: &str) -> Option<Charset> {
        let utf8 = ["utf-8", "utf8", "us-ascii", "ascii"];
        if utf8.iter().any(|known| label.eq_ignore_ascii_case(known)) {
            return Some(Charset(None));
        }
        let encoding = Encoding::for_label_no_replacement(label.as_bytes())?;
        Some(Charset((encoding != encoding_rs::UTF_8).then_some(encoding)))
    }

    /// True if text of it is taken as it stands.
    pub fn is_utf8(self) -> bool {
        self.0.is_none()
    }
}

/// Reads the text of one body.
pub(super) enum Text {
    /// UTF-8, unless a byte order mark says UTF-16; the first byte, if it came alone.
    Undecided(BytesMut),
    Plain,
    Coded(Box<encoding_rs::Decoder>),
}

impl Text {
    pub(super) fn new(charset: Charset) -> Text {
        match charset.0 {
            None => Text::Undecided(BytesMut::new()),
            // A byte order mark is stronger than the label.
            Some(encoding) => Text::Coded(Box::new(encoding.new_decoder())),
        }
    }

    /// True if the piece, and what follows it, is UTF-8 as it stands.
    pub(super) fn is_plain(&mut self, piece: &[u8]) -> bool {
        if let Text::Undecided(head) = self
            && head.is_empty()
            && piece.len() >= 2
            && !has_mark(piece)
        {
            *self = Text::Plain;
        }
        matches!(self, Text::Plain)
    }

    /// Reads from the front of `raw`; at most a step of text comes out, and all of `raw` is read
    /// unless that is full.
    pub(super) fn decode(&mut self, raw: &mut Bytes) -> Bytes {
        if let Text::Undecided(head) = self {
            if head.len() + raw.len() < 2 {
                head.extend_from_slice(&std::mem::take(raw));
                return Bytes::new();
            }
            if !head.is_empty() {
                head.extend_from_slice(raw);
                *raw = std::mem::take(head).freeze();
            }
            *self = match Encoding::for_bom(raw) {
                Some((encoding, _)) if encoding != encoding_rs::UTF_8 => {
                    Text::Coded(Box::new(encoding.new_decoder_with_bom_removal()))
                }
                _ => Text::Plain,
            };
        }
        match self {
            Text::Coded(decoder) => transcode(decoder, raw, false),
            Text::Plain | Text::Undecided(_) => std::mem::take(raw),
        }
    }

    /// What is left at the end of the body.
    pub(super) fn finish(&mut self) -> Bytes {
        match self {
            Text::Undecided(head) => std::mem::take(head).freeze(),
            Text::Plain => Bytes::new(),
            Text::Coded(decoder) => transcode(decoder, &mut Bytes::new(), true),
        }
    }
}

/// True for the byte order mark of UTF-16.
fn has_mark(piece: &[u8]) -> bool {
    piece.starts_with(b"\xFF\xFE") || piece.starts_with(b"\xFE\xFF")
}

fn transcode(decoder: &mut encoding_rs::Decoder, raw: &mut Bytes, last: bool) -> Bytes {
    let room = decoder.max_utf8_buffer_length_without_replacement(raw.len());
    let room = room.unwrap_or(STEP_BYTES).clamp(2 * LARGEST_STEP, STEP_BYTES);
    let mut out = vec![0; room];
    let mut made = 0;
    // The last byte is kept for what is malformed; the decoder stops where a character does not fit.
    let end = out.len() - 1;
    while end - made >= LARGEST_STEP {
        let (result, read, written) =
            decoder.decode_to_utf8_without_replacement(raw, &mut out[made..end], last);
        drop(raw.split_to(read));
        made += written;
        match result {
            DecoderResult::InputEmpty | DecoderResult::OutputFull => break,
            DecoderResult::Malformed(..) => {
                out[made] = MALFORMED;
                made += 1;
            }
        }
    }
    Bytes::copy_from_slice(&out[..made])
}
