//! The unpacking of one upload: its CPU work runs on the validators' threads, a step at a time, and
//! its memory is charged to the intake share.
//!
//! Owns the unpacker and what came of the body and was not unpacked yet.

use bytes::{Bytes, BytesMut};
use forebay_flow::budget::Permit;
use forebay_flow::pool::PoolError;

use crate::codec::unpack::{Packing, Step, UnpackError, Unpacker};
use crate::engine::Inner;

/// Bytes that are gathered before a step: a thread is not woken for each packet.
const GATHER_BYTES: usize = 64 << 10;

/// Why a step was not done.
#[derive(Debug)]
pub(super) enum Failed {
    /// The body cannot be unpacked.
    Body(UnpackError),
    /// No memory for a zstd window.
    NoRoom,
    /// The validators stopped, or panicked.
    Pool(PoolError),
}

#[derive(Debug)]
pub(super) struct Unpacking {
    /// `None` while a step has it, and after one that failed.
    unpacker: Option<Unpacker>,
    waiting: BytesMut,
    /// What the body's zstd frames asked for.
    windows: Vec<Permit>,
    /// Nothing is left to do.
    ended: bool,
}

impl Unpacking {
    pub(super) fn new(engine: &Inner, packing: Packing) -> Unpacking {
        let unpacker = Unpacker::new(packing, engine.config.expansion);
        Unpacking {
            unpacker: Some(unpacker),
            waiting: BytesMut::new(),
            windows: Vec::new(),
            ended: false,
        }
    }

    /// True if this piece, and what follows, is text as it stands.
    pub(super) fn is_plain(&mut self, piece: &Bytes) -> bool {
        let plain = self.waiting.is_empty()
            && self.unpacker.as_mut().is_some_and(|unpacker| unpacker.is_plain(piece));
        // What is plain once stays so: no step at its end either.
        self.ended |= plain;
        plain
    }

    /// Takes a piece of the body. True when there is enough for a step.
    pub(super) fn feed(&mut self, piece: &Bytes) -> bool {
        self.waiting.extend_from_slice(piece);
        self.waiting.len() >= GATHER_BYTES
    }

    /// The next text; `None` when all that was fed is unpacked. With `last` nothing more will be fed.
    ///
    /// # Errors
    /// The body is over.
    pub(super) async fn next(
        &mut self,
        engine: &Inner,
        last: bool,
    ) -> Result<Option<Bytes>, Failed> {
        while !self.ended {
            let Some(mut unpacker) = self.unpacker.take() else { break };
            let mut input = std::mem::take(&mut self.waiting).freeze();
            let job = move || {
                let step = unpacker.step(&mut input, last);
                (unpacker, input, step)
            };
            let (unpacker, input, step) = engine.validators.run(job).await.map_err(Failed::Pool)?;
            self.waiting = input.try_into_mut().unwrap_or_else(|input| BytesMut::from(&input[..]));
            let unpacker = self.unpacker.insert(unpacker);
            match step.map_err(Failed::Body)? {
                Step::Output(text) if text.is_empty() => {}
                Step::Output(text) => return Ok(Some(text)),
                Step::Room(bytes) => {
                    // Never waits: it holds memory that others may wait for.
                    let permit = engine.intake.try_acquire(bytes).ok_or(Failed::NoRoom)?;
                    self.windows.push(permit);
                    unpacker.grant();
                }
                Step::Hungry => return Ok(None),
                Step::End(text) => {
                    self.ended = true;
                    return Ok(Some(text).filter(|text| !text.is_empty()));
                }
            }
        }
        Ok(None)
    }
}
