//! Uploads that go on where they were cut: how their parts are known, and how far one has come.
//!
//! An upload under an `Idempotency-Key` is a chain of chunks. Each is one key of the journal, found by
//! where it begins; its checksum stands on the one before, so it vouches for all bytes up to its end:
//!
//! ```text
//! body      │ chunk 0        │ chunk 1        │ chunk 2 …
//! key       │ (tenant, key,0)│ (tenant, key,a)│ (tenant, key,b)
//! checksum  │ s0 = xxh3(0, …)│ s1 = xxh3(s0,…)│ s2 = xxh3(s1, …)
//! note      │ length a, rows │ length b-a     │ …, last
//! ```
//!
//! Nothing else is kept. How far an upload has come is found by walking the chain from 0: the note says
//! where the next link begins. A request that goes on needs no earlier bytes for its checksums.
//!
//! **What a resumed request holds.** The first `prefix` bytes of the body once more, then the bytes from
//! `offset` on. The repeated beginning settles again what the beginning of a body settles (a byte order
//! mark, the dialect and header of CSV, the `[` of an array), and proves that this is the same body: its
//! chunks must all be known. It is the first chunk, or as many as [`PREFIX_BYTES`] take.
//!
//! **Where the chain ends early.** A chunk without a record (a MiB of blank lines) leaves no entry in the
//! journal, one longer than 1 GiB (a line that was skipped) has no length in its note. An upload resumes
//! before such a chunk; what was durable beyond it is still recognised when it comes again.

use forebay_journal::{Journal, KeyState};
use xxhash_rust::xxh3::{Xxh3, xxh3_128_with_seed};

use super::upload::Upload;
use super::{IngestError, Partial};
use crate::codec::Chunk;
use crate::stream::Stream;
use crate::stream::catalog::OnInvalid;

/// The least that a resumed request repeats of the body's start, in bytes (a shorter known part is
/// repeated whole): more than the codecs look at before they settle how a body is written.
pub const PREFIX_BYTES: u64 = 128 << 10;

/// Lookups between two chances for other tasks: a walk of a million links must not hold a thread.
const LOOKUPS: u32 = 256;

/// How far an upload has come: what is durable of it without a gap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Standing {
    /// Bytes of the decompressed body that need not be sent again.
    pub offset: u64,
    /// Bytes of the body's start that a request which goes on at `offset` repeats.
    pub prefix: u64,
    /// Rows accepted in them.
    pub accepted: u64,
    /// Rows refused in them, kept as dead letters.
    pub rejected: u64,
    /// The body is durable to its end.
    pub complete: bool,
    /// The checksum of the last link.
    digest: u64,
    /// The end of the last entry in the journal.
    pub(super) position: u64,
}

/// Where the next link begins, and what it stands on.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Chain {
    digest: u64,
    end: u64,
}

/// One chunk's place in the chain.
#[derive(Debug, Clone, Copy)]
pub(super) struct Link {
    pub(super) from: u64,
    pub(super) checksum: u64,
    length: u64,
    last: bool,
}

impl Chain {
    /// Adds a chunk. Whether the body ends with it is part of its identity, else a shorter body under
    /// the same key would pass for a longer one.
    pub(super) fn link(&mut self, chunk: &Chunk) -> Link {
        let mut hasher = Xxh3::with_seed(self.digest);
        if let (0, Some(layout)) = (self.end, &chunk.header) {
            // The same rows under other column names are another body.
            hasher.update(layout.identity().as_bytes());
        }
        hasher.update(&chunk.bytes);
        for record in &chunk.oversized {
            hasher.update(&record.length.to_le_bytes());
            hasher.update(&record.raw);
        }
        self.digest = hasher.digest();
        let from = std::mem::replace(&mut self.end, chunk.end);
        Link {
            from,
            checksum: self.digest ^ u64::from(chunk.last),
            length: chunk.end.saturating_sub(from),
            last: chunk.last,
        }
    }
}

impl Link {
    /// The note of this link's key.
    pub(super) fn note(&self, accepted: u64, rejected: u64) -> u64 {
        Note { accepted, rejected, length: self.length, last: self.last }.pack()
    }
}

/// What a key's note says of its chunk.
///
/// ```text
/// 1 · last 1 bit · accepted 16 bits · rejected 16 bits · length 30 bits (0: longer)
/// 0 · accepted 31 bits · rejected 32 bits           where the counts do not fit the first form
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Note {
    pub(super) accepted: u64,
    pub(super) rejected: u64,
    /// 0: not known.
    length: u64,
    last: bool,
}

const LENGTH_BITS: u32 = 30;
const COUNT_BITS: u32 = 16;

impl Note {
    fn pack(self) -> u64 {
        let fits = |value: u64, bits: u32| value >> bits == 0;
        if !fits(self.accepted, COUNT_BITS) || !fits(self.rejected, COUNT_BITS) {
            return (self.accepted.min(u64::from(u32::MAX >> 1)) << 32)
                | self.rejected.min(u64::from(u32::MAX));
        }
        let length = if fits(self.length, LENGTH_BITS) { self.length } else { 0 };
        1 << 63
            | u64::from(self.last) << 62
            | self.accepted << (LENGTH_BITS + COUNT_BITS)
            | self.rejected << LENGTH_BITS
            | length
    }

    pub(super) fn unpack(note: u64) -> Note {
        let low = |value: u64, bits: u32| value & ((1 << bits) - 1);
        if note >> 63 == 0 {
            return Note { accepted: note >> 32, rejected: low(note, 32), length: 0, last: false };
        }
        Note {
            accepted: low(note >> (LENGTH_BITS + COUNT_BITS), COUNT_BITS),
            rejected: low(note >> LENGTH_BITS, COUNT_BITS),
            length: low(note, LENGTH_BITS),
            last: note >> 62 & 1 == 1,
        }
    }
}

/// The hash under which the link that begins at `from` is known.
pub(super) fn hash(journal: &Journal, tenant: &str, key: &str, from: u64) -> u128 {
    let mut text = Vec::with_capacity(tenant.len() + key.len() + 16);
    text.extend_from_slice(&(tenant.len() as u64).to_le_bytes());
    text.extend_from_slice(tenant.as_bytes());
    text.extend_from_slice(key.as_bytes());
    text.extend_from_slice(&from.to_le_bytes());
    // The journal's UUID as seed: keys cannot be made to collide from outside.
    xxh3_128_with_seed(&text, journal.uuid().as_u64_pair().0)
}

/// Walks the chain of an upload to its end, or to `until` where a link ends there. The walk is bounded
/// by the keys that the journal remembers. Cancel safe.
pub(crate) async fn walk(stream: &Stream, tenant: &str, key: &str, until: u64) -> Standing {
    let mut found = Standing::default();
    let mut lookups = 0;
    while found.offset != until || until == 0 {
        let hash = hash(&stream.journal, tenant, key, found.offset);
        if !stream.journal.lookup(hash).is_some_and(|state| found.pass(state)) || found.complete {
            break;
        }
        lookups += 1;
        if lookups % LOOKUPS == 0 {
            tokio::task::yield_now().await;
        }
    }
    let whole =
        stream.current().is_some_and(|plan| plan.definition.on_invalid == OnInvalid::Reject);
    // What is taken or refused as a whole goes on nowhere but at its start.
    if whole && !found.complete { Standing::default() } else { found }
}

impl Standing {
    /// Passes a link; false where its note does not say how long it is.
    fn pass(&mut self, state: KeyState) -> bool {
        let note = Note::unpack(state.note);
        if note.length == 0 {
            return false;
        }
        self.offset += note.length;
        self.accepted += note.accepted;
        self.rejected += note.rejected;
        self.complete = note.last;
        self.digest = state.checksum;
        self.position = self.position.max(state.end.0);
        if self.prefix < PREFIX_BYTES {
            self.prefix = self.offset;
        }
        true
    }
}

/// An upload that goes on, while its repeated beginning is read.
#[derive(Debug)]
pub(super) struct Beginning {
    standing: Standing,
    /// Bytes of the beginning that have not come yet.
    pub(super) left: u64,
}

impl Upload {
    /// Makes this an upload that goes on at `offset`: its body is the first `prefix` bytes of the whole
    /// one and then those from `offset` on. Call it before the first push. Cancel safe.
    ///
    /// # Errors
    /// [`IngestError::Offset`] with the right numbers where no chunk of this key ends at `offset`, where
    /// the upload is complete, or where another beginning must be repeated.
    pub async fn go_on_at(&mut self, offset: u64, prefix: u64) -> Result<(), IngestError> {
        let (stream, request) = (self.stream.clone(), &self.request);
        let mut standing = Standing::default();
        if let (Some(stream), Some(key)) = (stream, &request.key) {
            standing = walk(&stream, &request.tenant, key, offset).await;
        }
        let fits = standing.offset == offset && standing.prefix == prefix && !standing.complete;
        if !fits || offset == 0 {
            return Err(IngestError::Offset(standing));
        }
        self.beginning = Some(Beginning { standing, left: prefix });
        Ok(())
    }

    /// The beginning is read whole: goes on at the offset.
    pub(super) async fn jump(&mut self) -> Result<(), IngestError> {
        let Some(Beginning { standing, .. }) = &self.beginning else { return Ok(()) };
        let standing = *standing;
        let jumped = self.cutter.jump(standing.offset);
        self.take_ready().await?;
        if let Some(chunk) = jumped.map_err(|malformed| self.malformed(malformed))? {
            self.take(chunk).await?;
        }
        // Chunks that are not known were refused by `take`; here they must also end where they did.
        if self.chain.end != standing.prefix {
            return Err(self.another_body());
        }
        self.beginning = None;
        self.resumed_at = Some(standing.offset);
        self.chain = Chain { digest: standing.digest, end: standing.offset };
        self.stands_at(&standing);
        Ok(())
    }

    /// The bytes are not those that came under this key.
    pub(super) fn another_body(&self) -> IngestError {
        IngestError::KeyConflict { partial: Partial::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_keeps_what_fits_and_says_when_it_does_not_know_the_length() {
        let note = Note { accepted: 32_768, rejected: 1, length: (1 << 30) - 1, last: true };
        assert_eq!(Note::unpack(note.pack()), note);
        let long = Note { length: 1 << 30, ..note };
        assert_eq!(Note::unpack(long.pack()), Note { length: 0, ..note });
        let many = Note { accepted: 70_000, rejected: 3, length: 5, last: true };
        assert_eq!(Note::unpack(many.pack()), Note { length: 0, last: false, ..many });
    }

    #[test]
    fn a_link_stands_on_the_one_before_and_on_whether_it_is_the_last() {
        let chunk = |bytes: &'static [u8], end, last| Chunk {
            bytes: bytes.into(),
            offset: 0,
            end,
            records: 1,
            oversized: Vec::new(),
            line: 1,
            column: 1,
            last,
            header: None,
        };
        let chain = |first: &'static [u8], last| {
            let mut chain = Chain::default();
            chain.link(&chunk(first, 3, false));
            chain.link(&chunk(b"z\n", 5, last)).checksum
        };
        assert_eq!(chain(b"ab\n", false), chain(b"ab\n", false));
        assert_ne!(chain(b"ab\n", false), chain(b"ac\n", false));
        assert_ne!(chain(b"ab\n", false), chain(b"ab\n", true));
    }
}
