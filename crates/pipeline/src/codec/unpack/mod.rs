//! From a body as it was sent to the text that the cutter reads: decompression, then charset.
//! Sans-I/O and in bounded steps; owns the decoders' state and one step of output.
//!
//! ```text
//! pieces ─► Content-Encoding (gzip, zstd, deflate) ─► charset (UTF-16, latin-1, …) ─► UTF-8 pieces
//!              │ more than the expansion allows: refused   │ what is malformed: a byte that no
//!              │ broken, cut off, garbage behind: refused  │ UTF-8 has, so its row is refused
//! ```
//!
//! Offsets of chunks, of idempotency and of resuming count what comes out of here; positions in
//! errors of this module count the body as it was sent.

mod charset;
mod inflate;
mod zstd;

use bytes::{Buf, Bytes};

pub use self::charset::Charset;
use self::charset::Text;
use self::inflate::Inflate;
use self::zstd::Frames;

/// The most bytes that one step gives out.
pub const STEP_BYTES: usize = 256 << 10;

/// The most that a zstd frame may look back, in bytes: what RFC 8878 asks every decoder to bear.
pub const WINDOW_BYTES: u64 = 8 << 20;

/// A `Content-Encoding`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Coding {
    /// As it is.
    #[default]
    Identity,
    /// RFC 1952, of one member or more.
    Gzip,
    /// RFC 1950; RFC 1951 without the zlib header too, which some programs send.
    Deflate,
    /// RFC 8878, of one frame or more.
    Zstd,
}

impl Coding {
    /// The codings that are understood, as `Accept-Encoding` writes them.
    pub const SUPPORTED: &str = "gzip, zstd, deflate";

    /// The coding of a name, in any case.
    pub fn parse(name: &str) -> Option<Coding> {
        match name.to_ascii_lowercase().as_str() {
            "identity" | "" => Some(Coding::Identity),
            "gzip" | "x-gzip" => Some(Coding::Gzip),
            "deflate" => Some(Coding::Deflate),
            "zstd" => Some(Coding::Zstd),
            _ => None,
        }
    }

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Coding::Identity => "identity",
            Coding::Gzip => "gzip",
            Coding::Deflate => "deflate",
            Coding::Zstd => "zstd",
        }
    }
}

/// How a body was packed, as its head says.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Packing {
    /// Its `Content-Encoding`.
    pub coding: Coding,
    /// The charset of its text. A UTF-16 byte order mark needs none.
    pub charset: Charset,
}

impl Packing {
    /// What unpacking holds beside the body, in bytes; a zstd window comes on top, see [`Step::Room`].
    pub fn state_bytes(self) -> u64 {
        let step = STEP_BYTES as u64;
        match (self.coding, self.charset.is_utf8()) {
            (Coding::Identity, true) => 0,
            (Coding::Identity, false) => 2 * step,
            // Inflate's window and tables, or zstd's context and blocks, fit in a step as well.
            (_, _) => 4 * step,
        }
    }
}

/// How far a body may expand (F3, F7): a few bytes must not keep the server busy for hours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expansion {
    /// Bytes out for each byte in,
    pub ratio: u64,
    /// but at least so many.
    pub floor: u64,
}

impl Default for Expansion {
    /// Text compresses by 5 to 50; what exceeds 200 in the long run is made to.
    fn default() -> Expansion {
        Expansion { ratio: 200, floor: 64 << 20 }
    }
}

/// Why a body cannot be unpacked any further. Positions count the body as it was sent, from 0.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnpackError {
    /// It is not what its `Content-Encoding` says.
    #[error("byte {at} of the body as sent: {message}")]
    Broken {
        /// Where, in bytes.
        at: u64,
        /// What was found.
        message: String,
    },
    /// A zstd frame wants to look back further than is allowed.
    #[error(
        "a zstd frame wants a window of {wanted} bytes; at most {WINDOW_BYTES} are granted, \
         so compress with `--long=23` or less, or at level 19 or lower"
    )]
    Window {
        /// What it wants, in bytes.
        wanted: u64,
    },
    /// It becomes larger than [`Expansion`] allows.
    #[error("{taken} bytes became more than {most}, which is the limit ([limits] expansion)")]
    Expansion {
        /// Bytes read of the body as sent.
        taken: u64,
        /// Bytes allowed for them.
        most: u64,
    },
}

/// What a step did.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Text, at most [`STEP_BYTES`]; it may be empty.
    Output(Bytes),
    /// The next zstd frame needs so many bytes of memory: [`Unpacker::grant`] them, then go on.
    Room(u64),
    /// All input was taken: the next step needs more of it.
    Hungry,
    /// The body is over; its last bytes.
    End(Bytes),
}

enum Stage {
    Identity,
    Inflate(Inflate),
    Frames(Frames),
}

/// Unpacks one body.
///
/// ```
/// use bytes::Bytes;
/// use forebay_pipeline::codec::unpack::{Packing, Step, Unpacker};
/// # fn main() -> Result<(), forebay_pipeline::codec::unpack::UnpackError> {
/// let mut unpacker = Unpacker::new(Packing::default(), Default::default());
/// let mut utf16 = Bytes::from_static(b"\xFF\xFEh\0i\0");
/// assert_eq!(unpacker.step(&mut utf16, true)?, Step::Output("hi".into()));
/// assert_eq!(unpacker.step(&mut utf16, true)?, Step::End("".into()));
/// # Ok(())
/// # }
/// ```
pub struct Unpacker {
    stage: Stage,
    text: Text,
    expansion: Expansion,
    /// Bytes taken of the body as sent.
    taken: u64,
    /// Bytes that they became, before the charset.
    given: u64,
    /// Decompressed, not yet read as text.
    raw: Bytes,
    scratch: Vec<u8>,
}

impl std::fmt::Debug for Unpacker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Unpacker")
            .field("taken", &self.taken)
            .field("given", &self.given)
            .finish_non_exhaustive()
    }
}

impl Unpacker {
    /// An unpacker for one body.
    pub fn new(packing: Packing, expansion: Expansion) -> Unpacker {
        let (stage, scratch) = match packing.coding {
            Coding::Identity => (Stage::Identity, 0),
            Coding::Gzip => (Stage::Inflate(Inflate::gzip()), STEP_BYTES),
            Coding::Deflate => (Stage::Inflate(Inflate::deflate()), STEP_BYTES),
            Coding::Zstd => (Stage::Frames(Frames::default()), STEP_BYTES),
        };
        Unpacker {
            stage,
            text: Text::new(packing.charset),
            expansion,
            taken: 0,
            given: 0,
            raw: Bytes::new(),
            scratch: vec![0; scratch],
        }
    }

    /// True if this piece is text as it stands, and so is what follows it: no step is needed then.
    /// The first piece may decide it.
    pub fn is_plain(&mut self, piece: &Bytes) -> bool {
        matches!(self.stage, Stage::Identity) && self.text.is_plain(piece)
    }

    /// Takes bytes from the front of `input` and gives at most [`STEP_BYTES`] out. With `last`
    /// nothing follows `input`.
    ///
    /// # Errors
    /// The body cannot be unpacked any further; nothing more may be asked.
    pub fn step(&mut self, input: &mut Bytes, last: bool) -> Result<Step, UnpackError> {
        if self.raw.is_empty()
            && let Some(room) = self.decompress(input)?
        {
            return Ok(Step::Room(room));
        }
        if !self.raw.is_empty() {
            return Ok(Step::Output(self.text.decode(&mut self.raw)));
        }
        if !last {
            return Ok(Step::Hungry);
        }
        let whole = match &self.stage {
            Stage::Identity => Ok(()),
            Stage::Inflate(inflate) => inflate.finish(),
            Stage::Frames(frames) => frames.finish(),
        };
        whole.map_err(|message| self.broken(message))?;
        Ok(Step::End(self.text.finish()))
    }

    /// Answers [`Step::Room`]: the memory is there.
    pub fn grant(&mut self) {
        if let Stage::Frames(frames) = &mut self.stage {
            frames.grant();
        }
    }

    /// Fills `raw`, unless the input does not suffice. Some(room): memory is wanted first.
    fn decompress(&mut self, input: &mut Bytes) -> Result<Option<u64>, UnpackError> {
        let before = input.remaining();
        let made = match &mut self.stage {
            Stage::Identity => {
                self.raw = input.split_to(before.min(STEP_BYTES));
                return Ok(None);
            }
            Stage::Inflate(inflate) => inflate.run(input, &mut self.scratch),
            Stage::Frames(frames) => match frames.run(input, &mut self.scratch) {
                Ok(zstd::Made::Bytes(made)) => Ok(made),
                Ok(zstd::Made::Room(room)) => {
                    self.taken += (before - input.remaining()) as u64;
                    return Ok(Some(room));
                }
                Err(zstd::Wrong::Window(wanted)) => return Err(UnpackError::Window { wanted }),
                Err(zstd::Wrong::Broken(message)) => Err(message),
            },
        };
        self.taken += (before - input.remaining()) as u64;
        let made = made.map_err(|message| self.broken(message))?;
        self.given += made as u64;
        let most = self.expansion.floor.max(self.taken.saturating_mul(self.expansion.ratio));
        if self.given > most {
            return Err(UnpackError::Expansion { taken: self.taken, most });
        }
        // A copy of its own size: a slice of a larger buffer would keep all of that alive.
        self.raw = Bytes::copy_from_slice(self.scratch.get(..made).unwrap_or_default());
        Ok(None)
    }

    fn broken(&self, message: String) -> UnpackError {
        UnpackError::Broken { at: self.taken, message }
    }
}
