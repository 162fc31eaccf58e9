//! gzip of many members, and deflate with or without the zlib header. Owns inflate's window.

use bytes::{Buf, Bytes};
use flate2::{Decompress, FlushDecompress, Status};

/// The largest window that deflate has, as a power of two.
const WINDOW_BITS: u8 = 15;
const ZLIB_METHOD: u8 = 8;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before a member's or the stream's first byte.
    Start,
    Inside,
    /// Behind the end of a member or of the stream.
    End,
}

#[derive(Debug)]
pub(super) struct Inflate {
    inner: Decompress,
    gzip: bool,
    state: State,
    /// deflate: the first two bytes, until it is known whether they are a zlib header, and fed.
    head: Vec<u8>,
    /// Bytes were seen at all.
    any: bool,
}

impl Inflate {
    pub(super) fn gzip() -> Inflate {
        Inflate::new(Decompress::new_gzip(WINDOW_BITS), true)
    }

    pub(super) fn deflate() -> Inflate {
        Inflate::new(Decompress::new(true), false)
    }

    fn new(inner: Decompress, gzip: bool) -> Inflate {
        Inflate { inner, gzip, state: State::Start, head: Vec::new(), any: false }
    }

    fn name(&self) -> &'static str {
        if self.gzip { "gzip" } else { "deflate" }
    }

    /// Takes input until there is output; returns how much of it there is.
    pub(super) fn run(&mut self, input: &mut Bytes, out: &mut [u8]) -> Result<usize, String> {
        loop {
            match self.state {
                State::Start => {
                    if !self.start(input) {
                        return Ok(0);
                    }
                    self.state = State::Inside;
                }
                State::End if input.is_empty() => return Ok(0),
                State::End => self.next_member(input)?,
                State::Inside => {
                    let (took, made) = self.inflate(input, out)?;
                    if made > 0 || took == 0 {
                        return Ok(made);
                    }
                }
            }
        }
    }

    /// True when enough is there to begin.
    fn start(&mut self, input: &mut Bytes) -> bool {
        self.any |= !input.is_empty();
        if self.gzip {
            return !input.is_empty();
        }
        while self.head.len() < 2 && input.has_remaining() {
            self.head.push(input.get_u8());
        }
        let [first, second] = self.head[..] else { return false };
        // RFC 1950: method, window, and the two bytes together a multiple of 31.
        let check = u16::from_be_bytes([first, second]).is_multiple_of(31);
        if first & 0x0F != ZLIB_METHOD || first >> 4 > 7 || !check {
            self.inner = Decompress::new(false);
        }
        true
    }

    fn next_member(&mut self, input: &Bytes) -> Result<(), String> {
        if !self.gzip || !input.starts_with(&[0x1F]) {
            return Err(format!("there are bytes behind the end of the {} data", self.name()));
        }
        self.inner = Decompress::new_gzip(WINDOW_BITS);
        self.state = State::Start;
        Ok(())
    }

    fn inflate(&mut self, input: &mut Bytes, out: &mut [u8]) -> Result<(usize, usize), String> {
        let (before_in, before_out) = (self.inner.total_in(), self.inner.total_out());
        let from_head = !self.head.is_empty();
        let source = if from_head { &self.head[..] } else { &input[..] };
        let status = self.inner.decompress(source, out, FlushDecompress::None);
        let took = (self.inner.total_in() - before_in) as usize;
        let made = (self.inner.total_out() - before_out) as usize;
        if from_head {
            self.head.drain(..took.min(self.head.len()));
        } else {
            input.advance(took.min(input.len()));
        }
        match status {
            Ok(Status::StreamEnd) => self.state = State::End,
            Ok(Status::Ok | Status::BufError) => {}
            Err(error) => {
                let why = error.message().unwrap_or("it needs a dictionary");
                return Err(format!("this is not {}: {why}", self.name()));
            }
        }
        Ok((took, made))
    }

    /// Whether the input could end here.
    pub(super) fn finish(&self) -> Result<(), String> {
        if self.state == State::End || !self.any {
            return Ok(());
        }
        Err(format!("the body ends in the middle of its {} data", self.name()))
    }
}
