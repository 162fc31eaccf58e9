//! zstd frames, one behind the other. Owns the decoder and the head of the frame that begins.
//!
//! The head is read here as well, because it says how much memory the frame wants: that is asked
//! for before the decoder takes it.
//!
//! ```text
//! magic 4 │ descriptor 1 │ window 0-1 │ dictionary 0-4 │ content size 0-8 │ blocks … │ checksum 0-4
//! ```

use bytes::{Buf, Bytes};
use zstd::stream::raw::{DParameter, Decoder, InBuffer, Operation, OutBuffer};

use super::WINDOW_BYTES;

const MAGIC: u32 = 0xFD2F_B528;
/// Frames to be skipped: sixteen magics that differ in the last four bits.
const SKIPPABLE: u32 = 0x184D_2A50;
const SKIPPABLE_HEAD: usize = 8;
/// What a decoder holds beside its window: two blocks.
const BLOCKS: u64 = 256 << 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum State {
    /// Reading a frame's head.
    #[default]
    Head,
    /// Inside a frame; the head is fed first.
    Body,
    /// Inside a frame without content, so many bytes before its end.
    Skip(u64),
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Made {
    Bytes(usize),
    Room(u64),
}

#[derive(Debug)]
pub(super) enum Wrong {
    Window(u64),
    Broken(String),
}

#[derive(Default)]
pub(super) struct Frames {
    decoder: Option<Decoder<'static>>,
    state: State,
    head: Vec<u8>,
    /// The largest window that was granted, and the one that is asked for.
    granted: u64,
    asked: u64,
    /// The last run filled its output, so there may be more without input.
    full: bool,
}

impl Frames {
    /// Takes input until there is output, or memory is wanted.
    pub(super) fn run(&mut self, input: &mut Bytes, out: &mut [u8]) -> Result<Made, Wrong> {
        loop {
            match self.state {
                State::Head => match self.read_head(input)? {
                    None => return Ok(Made::Bytes(0)),
                    Some(window) if window > self.granted => {
                        self.asked = window;
                        let held = if self.granted == 0 { 0 } else { self.granted + BLOCKS };
                        return Ok(Made::Room(window + BLOCKS - held));
                    }
                    Some(_) => {}
                },
                State::Skip(left) => {
                    let skipped = left.min(input.remaining() as u64);
                    input.advance(usize::try_from(skipped).unwrap_or(usize::MAX));
                    if skipped < left {
                        self.state = State::Skip(left - skipped);
                        return Ok(Made::Bytes(0));
                    }
                    self.state = State::Head;
                }
                State::Body if input.is_empty() && self.head.is_empty() && !self.full => {
                    return Ok(Made::Bytes(0));
                }
                State::Body => {
                    let made = self.decode(input, out)?;
                    if made > 0 {
                        return Ok(Made::Bytes(made));
                    }
                }
            }
        }
    }

    pub(super) fn grant(&mut self) {
        self.granted = self.granted.max(self.asked);
    }

    /// Reads the head to its end. Then the state is `Body` or `Skip`, unless the window it names was
    /// not granted yet: the head is looked at again after that.
    fn read_head(&mut self, input: &mut Bytes) -> Result<Option<u64>, Wrong> {
        loop {
            match head(&self.head) {
                Head::More(length) => {
                    let wanted = length - self.head.len();
                    let piece = input.split_to(wanted.min(input.len()));
                    self.head.extend_from_slice(&piece);
                    if piece.len() < wanted {
                        return Ok(None);
                    }
                }
                Head::Skip(length) => {
                    self.head.clear();
                    self.state = State::Skip(length);
                    return Ok(Some(0));
                }
                Head::Window(window) if window > WINDOW_BYTES => {
                    return Err(Wrong::Window(window));
                }
                Head::Window(window) => {
                    if window <= self.granted {
                        self.state = State::Body;
                    }
                    return Ok(Some(window));
                }
                Head::Wrong => {
                    return Err(Wrong::Broken("no zstd frame begins here".to_owned()));
                }
            }
        }
    }

    fn decode(&mut self, input: &mut Bytes, out: &mut [u8]) -> Result<usize, Wrong> {
        let broken = |error: std::io::Error| Wrong::Broken(format!("this is not zstd: {error}"));
        let decoder = match &mut self.decoder {
            Some(decoder) => decoder,
            none => {
                let mut decoder = Decoder::new().map_err(broken)?;
                let bits = DParameter::WindowLogMax(WINDOW_BYTES.ilog2());
                decoder.set_parameter(bits).map_err(broken)?;
                none.insert(decoder)
            }
        };
        let room = out.len();
        let mut output = OutBuffer::around(out);
        let from_head = !self.head.is_empty();
        let mut source = InBuffer::around(if from_head { &self.head } else { &input[..] });
        let left = decoder.run(&mut source, &mut output);
        let (took, made) = (source.pos(), output.pos());
        if from_head {
            self.head.drain(..took);
        } else {
            input.advance(took);
        }
        self.full = made == room;
        if left.map_err(broken)? == 0 {
            self.full = false;
            self.state = State::Head;
        }
        Ok(made)
    }

    /// Whether the input could end here.
    pub(super) fn finish(&self) -> Result<(), String> {
        if self.state == State::Head && self.head.is_empty() {
            return Ok(());
        }
        Err("the body ends in the middle of its zstd data".to_owned())
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Head {
    /// So many bytes are needed to say more.
    More(usize),
    /// A frame with this window, in bytes.
    Window(u64),
    /// A frame to be skipped, with so many bytes behind its head.
    Skip(u64),
    Wrong,
}

/// What the first bytes of a frame say.
fn head(bytes: &[u8]) -> Head {
    let Some((magic, rest)) = bytes.split_first_chunk::<4>() else { return Head::More(4) };
    let magic = u32::from_le_bytes(*magic);
    if magic & !0xF == SKIPPABLE {
        return match rest.first_chunk::<4>() {
            Some(length) => Head::Skip(u64::from(u32::from_le_bytes(*length))),
            None => Head::More(SKIPPABLE_HEAD),
        };
    }
    if magic != MAGIC {
        return Head::Wrong;
    }
    let Some((&descriptor, rest)) = rest.split_first() else { return Head::More(5) };
    let single = descriptor & 0x20 != 0;
    if !single {
        // A power of two from 1 KiB, and eighths of it.
        return match rest.first() {
            None => Head::More(6),
            Some(byte) => {
                let base = 1_u64 << (10 + (byte >> 3));
                Head::Window(base + base / 8 * u64::from(byte & 7))
            }
        };
    }
    // The window is the content itself, whose size stands behind the dictionary's id.
    let dictionary = [0, 1, 2, 4][usize::from(descriptor & 3)];
    let width = [1, 2, 4, 8][usize::from(descriptor >> 6)];
    let Some(size) = rest.get(dictionary..dictionary + width) else {
        return Head::More(5 + dictionary + width);
    };
    let mut wide = [0; 8];
    wide[..width].copy_from_slice(size);
    // Two bytes begin to count where one byte ends.
    let size = u64::from_le_bytes(wide).saturating_add(if width == 2 { 256 } else { 0 });
    Head::Window(size.max(1))
}
