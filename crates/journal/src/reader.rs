//! A tailing reader: from memory near the head, from disk otherwise. Owns its place; never holds back the writer.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::watch;

use crate::disk::{Disk, DiskFile, Open, read_full};
use crate::error::ReadError;
use crate::format::{BLOCK_HEADER, BlockHeader, SegmentHeader, check_body, record_at};
use crate::journal::{Phase, Progress};
use crate::scan::offset;
use crate::{Journal, Lsn};

/// Bytes read from disk at once, unless one block is longer.
const READ: u64 = 1 << 20;

/// A durable record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Where it begins.
    pub start: Lsn,
    /// Where it ends; the next record begins there or later.
    pub end: Lsn,
    /// The caller's tag.
    pub kind: u8,
    /// When it was received, in microseconds since 1970.
    pub received_unix_micros: i64,
    /// The hash of its idempotency key, if it has one.
    pub key_hash: Option<u128>,
    /// What it added to the cumulative counters.
    pub counters: [u32; 4],
    /// The bytes. They share the memory of their block.
    pub payload: Bytes,
}

/// Whole, checked blocks in memory.
#[derive(Clone, Debug)]
struct Chunk {
    lsn: u64,
    bytes: Bytes,
}

impl Chunk {
    fn end(&self) -> u64 {
        self.lsn + self.bytes.len() as u64
    }
}

/// Where in a chunk the reader stands.
#[derive(Clone, Copy, Debug, Default)]
struct Cursor {
    block: usize,
    record: usize,
}

/// Reads a journal's records in order, and waits at the head for more.
#[derive(Debug)]
pub struct Reader {
    journal: Arc<Journal>,
    progress: watch::Receiver<Progress>,
    at: u64,
    chunk: Option<(Chunk, Cursor)>,
    file: Option<(u64, Arc<dyn DiskFile>)>,
}

enum Source {
    Memory(Chunk),
    Disk(Plan),
    /// Nothing is at the position; the log goes on here.
    Skip(u64),
}

/// A read of blocks from a segment.
struct Plan {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    header: SegmentHeader,
    file: Option<Arc<dyn DiskFile>>,
    /// A block begins here.
    from: u64,
    /// The block that holds this position is wanted.
    at: u64,
    /// Blocks end here.
    end: u64,
}

impl Journal {
    /// A reader that begins with the first record that starts at `from` or later.
    #[must_use]
    pub fn reader(self: &Arc<Self>, from: Lsn) -> Reader {
        let progress = self.progress.subscribe();
        Reader { journal: self.clone(), progress, at: from.0, chunk: None, file: None }
    }
}

impl Reader {
    /// Every record that starts before this position has been returned.
    #[must_use]
    pub fn position(&self) -> Lsn {
        Lsn(self.at)
    }

    /// The next record; waits at the head. Cancel safe: a dropped call has consumed nothing.
    ///
    /// # Errors
    /// [`ReadError::Closed`] and [`ReadError::Poisoned`] once everything durable was returned; [`ReadError::Trimmed`]
    /// if the position is gone; [`ReadError::Corrupt`] and [`ReadError::Io`] for what the disk did.
    pub async fn next(&mut self) -> Result<Record, ReadError> {
        loop {
            if let Some(record) = self.next_in_chunk()? {
                return Ok(record);
            }
            self.wait_beyond().await?;
            match self.source()? {
                Source::Memory(chunk) => self.chunk = Some((chunk, Cursor::default())),
                Source::Skip(to) => self.at = to,
                Source::Disk(plan) => self.load(plan).await?,
            }
        }
    }

    /// The next record if it is durable now; does not wait for more, but may wait for the disk. Cancel safe.
    ///
    /// # Errors
    /// Those of [`Reader::next`], save the end of the journal.
    pub async fn try_next(&mut self) -> Result<Option<Record>, ReadError> {
        loop {
            if let Some(record) = self.next_in_chunk()? {
                return Ok(Some(record));
            }
            if self.progress.borrow_and_update().durable <= self.at {
                return Ok(None);
            }
            match self.source()? {
                Source::Memory(chunk) => self.chunk = Some((chunk, Cursor::default())),
                Source::Skip(to) => self.at = to,
                Source::Disk(plan) => self.load(plan).await?,
            }
        }
    }

    fn next_in_chunk(&mut self) -> Result<Option<Record>, ReadError> {
        let Some((chunk, cursor)) = &mut self.chunk else {
            return Ok(None);
        };
        let rotten =
            |lsn| ReadError::Corrupt { at: Lsn(lsn), reason: "a checked block changed".to_owned() };
        while let Some(block) = chunk.bytes.get(cursor.block..).filter(|block| !block.is_empty()) {
            let lsn = chunk.lsn + cursor.block as u64;
            let header = BlockHeader::decode(block).ok_or_else(|| rotten(lsn))?;
            let body_end = BLOCK_HEADER + header.body_len as usize;
            cursor.record = cursor.record.max(BLOCK_HEADER);
            while cursor.record < body_end {
                let found = record_at(block, cursor.record, body_end).ok_or_else(|| rotten(lsn))?;
                let start = lsn + found.at as u64;
                cursor.record = found.end;
                if start < self.at {
                    continue;
                }
                let payload = found.payload();
                self.at = lsn + found.end as u64;
                return Ok(Some(Record {
                    start: Lsn(start),
                    end: Lsn(self.at),
                    kind: found.header.kind,
                    received_unix_micros: found.header.received_unix_micros,
                    key_hash: found.header.key.map(|key| key.hash),
                    counters: found.header.counters,
                    payload: chunk
                        .bytes
                        .slice(cursor.block + payload.start..cursor.block + payload.end),
                }));
            }
            *cursor = Cursor {
                block: cursor.block + usize::try_from(header.len()).unwrap_or(usize::MAX),
                record: 0,
            };
        }
        self.at = self.at.max(chunk.end());
        self.chunk = None;
        Ok(None)
    }

    /// Waits until something beyond the position is durable.
    async fn wait_beyond(&mut self) -> Result<(), ReadError> {
        let at = self.at;
        let more =
            |p: &Progress| p.durable > at || matches!(p.phase, Phase::Closed | Phase::Poisoned(_));
        let seen = self.progress.wait_for(more).await.map_err(|_| ReadError::Closed)?;
        match &seen.phase {
            _ if seen.durable > at => Ok(()),
            Phase::Poisoned(why) => Err(ReadError::Poisoned(why.clone())),
            _ => Err(ReadError::Closed),
        }
    }

    fn source(&self) -> Result<Source, ReadError> {
        let state = self.journal.state.lock();
        if let Some((lsn, bytes)) = state.cache.get(self.at) {
            return Ok(Source::Memory(Chunk { lsn, bytes }));
        }
        let after = state.segments.partition_point(|segment| segment.header.base <= self.at);
        let Some(segment) = after.checked_sub(1).and_then(|i| state.segments.get(i)) else {
            let first = state.segments.front().map_or(state.head, |segment| segment.header.base);
            return Err(ReadError::Trimmed { at: Lsn(self.at), first: Lsn(first) });
        };
        if self.at >= segment.end {
            let next = state.segments.get(after).map_or(state.head, |segment| segment.header.base);
            return Ok(Source::Skip(next.max(self.at)));
        }
        let indexed = segment.index.partition_point(|lsn| *lsn <= self.at);
        let from = indexed.checked_sub(1).and_then(|i| segment.index.get(i)).copied();
        Ok(Source::Disk(Plan {
            disk: self.journal.disk.clone(),
            path: segment.path.clone(),
            header: segment.header.clone(),
            file: self
                .file
                .clone()
                .filter(|(base, _)| *base == segment.header.base)
                .map(|(_, file)| file),
            from: from.unwrap_or(segment.header.base),
            at: self.at,
            end: segment.end,
        }))
    }

    async fn load(&mut self, plan: Plan) -> Result<(), ReadError> {
        let (at, base) = (self.at, plan.header.base);
        let io = |source| ReadError::Io { at: Lsn(at), source };
        let read = match self.journal.writers.readers() {
            Some(pool) => pool.run(move || read_chunk(plan)).await,
            None => Ok(read_chunk(plan)),
        };
        match read.map_err(|e| io(io::Error::other(e)))? {
            Ok((chunk, file)) => {
                self.file = Some((base, file));
                self.chunk = Some((chunk, Cursor::default()));
                Ok(())
            }
            Err(ReadError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                let first = self.journal.first();
                let trimmed = ReadError::Trimmed { at: Lsn(at), first };
                Err(if first.0 > at { trimmed } else { io(source) })
            }
            Err(e) => Err(e),
        }
    }
}

/// Reads and checks blocks, beginning with the one that holds `plan.at`.
fn read_chunk(plan: Plan) -> Result<(Chunk, Arc<dyn DiskFile>), ReadError> {
    let io = |lsn| move |source| ReadError::Io { at: Lsn(lsn), source };
    let file = match plan.file {
        Some(file) => file,
        None => plan.disk.open(&plan.path, Open::Read).map_err(io(plan.at))?,
    };
    let base = plan.header.base;
    let mut lsn = plan.from;
    let mut head = vec![0; BLOCK_HEADER];
    let first = loop {
        read_full(&*file, &mut head, offset(base, lsn)).map_err(io(lsn))?;
        let header = sound_header(&head, &plan.header, lsn)?;
        if header.end() > plan.at {
            break header;
        }
        lsn = header.end();
    };
    let want = first.len().max(READ.min(plan.end - lsn));
    let mut bytes = vec![0; usize::try_from(want).unwrap_or(usize::MAX)];
    let have = read_full(&*file, &mut bytes, offset(base, lsn)).map_err(io(lsn))?;
    let mut whole = 0;
    while let Some(rest) = bytes.get(whole..have).filter(|rest| rest.len() >= BLOCK_HEADER) {
        let at = lsn + whole as u64;
        let header = sound_header(rest, &plan.header, at)?;
        let len = usize::try_from(header.len()).unwrap_or(usize::MAX);
        let Some(block) = rest.get(..len) else { break };
        check_body(&header, block).map_err(|why| rotten(at, why))?;
        whole += len;
    }
    if whole == 0 {
        return Err(rotten(lsn, "the block is cut"));
    }
    bytes.truncate(whole);
    Ok((Chunk { lsn, bytes: Bytes::from(bytes) }, file))
}

fn sound_header(bytes: &[u8], segment: &SegmentHeader, lsn: u64) -> Result<BlockHeader, ReadError> {
    let header = BlockHeader::decode(bytes).filter(|h| h.salt == segment.salt && h.lsn == lsn);
    header.ok_or_else(|| rotten(lsn, "the block's header is rotten"))
}

fn rotten(lsn: u64, why: &str) -> ReadError {
    ReadError::Corrupt { at: Lsn(lsn), reason: why.to_owned() }
}
