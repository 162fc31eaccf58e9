//! The bytes of one upload by their offset: of a file, or of stdin.
//!
//! Stdin cannot be read twice, and a request that goes on repeats the body's beginning and what was on
//! its way when the connection broke. So [`Replay`] keeps both, within bounds:
//!
//! ```text
//! │ HEAD_BYTES kept │ … given up … │ TAIL_BYTES kept │ not read yet
//! 0                                                 end
//! ```

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncSeekExt};
use tokio::sync::Mutex;

/// The most that one read takes.
const PIECE_BYTES: usize = 256 << 10;
/// What is kept of the beginning: more than a server asks to repeat.
const HEAD_BYTES: usize = 4 << 20;
/// What is kept of the end: more than a server and two sockets hold unacknowledged.
const TAIL_BYTES: usize = 32 << 20;

/// Where an upload's bytes come from. Clones share what was read.
#[derive(Debug, Clone)]
pub(super) enum Input {
    /// A file, up to the size that it had.
    File {
        path: PathBuf,
        size: u64,
    },
    Stdin(Arc<Mutex<Replay>>),
}

impl Input {
    /// # Errors
    /// Stdin is closed.
    pub(super) fn stdin() -> io::Result<Input> {
        let stdin = std::fs::File::from(io::stdin().as_fd().try_clone_to_owned()?);
        let stdin = Box::new(tokio::fs::File::from_std(stdin));
        Ok(Input::Stdin(Arc::new(Mutex::new(Replay::new(stdin)))))
    }

    /// The bytes there are, where that is known.
    pub(super) fn size(&self) -> Option<u64> {
        match self {
            Input::File { size, .. } => Some(*size),
            Input::Stdin(_) => None,
        }
    }

    /// A reader for one request.
    pub(super) async fn open(&self) -> io::Result<Reader> {
        Ok(match self {
            Input::File { path, size } => {
                Reader::File { file: tokio::fs::File::open(path).await?, at: 0, size: *size }
            }
            Input::Stdin(replay) => Reader::Stdin(Arc::clone(replay)),
        })
    }
}

/// Reads one input at any offset.
#[derive(Debug)]
pub(super) enum Reader {
    File { file: tokio::fs::File, at: u64, size: u64 },
    Stdin(Arc<Mutex<Replay>>),
}

impl Reader {
    /// Bytes at `offset`: at least one and at most `most`, or none at the end.
    ///
    /// # Errors
    /// The file cannot be read or has become shorter; stdin's bytes there are given up.
    pub(super) async fn read(&mut self, offset: u64, most: u64) -> io::Result<Bytes> {
        let most = usize::try_from(most).unwrap_or(usize::MAX).min(PIECE_BYTES);
        match self {
            Reader::Stdin(replay) => replay.lock().await.read(offset, most).await,
            Reader::File { file, at, size } => {
                let left = size.saturating_sub(offset);
                let most = usize::try_from(left).unwrap_or(usize::MAX).min(most);
                if most == 0 {
                    return Ok(Bytes::new());
                }
                if *at != offset {
                    file.seek(io::SeekFrom::Start(offset)).await?;
                    *at = offset;
                }
                let piece = read(file, most).await?;
                if piece.is_empty() {
                    return Err(io::Error::other("it became shorter while it was sent"));
                }
                *at += piece.len() as u64;
                Ok(piece)
            }
        }
    }
}

async fn read(from: &mut (impl AsyncRead + Unpin), most: usize) -> io::Result<Bytes> {
    let mut piece = BytesMut::with_capacity(most);
    let mut limited = from.take(most as u64);
    limited.read_buf(&mut piece).await?;
    Ok(piece.freeze())
}

/// What can be read once, with its beginning and its newest part kept.
pub(super) struct Replay {
    from: Box<dyn AsyncRead + Send + Unpin>,
    head: BytesMut,
    tail: VecDeque<Bytes>,
    /// Bytes in `tail`.
    kept: usize,
    /// Where the next live byte stands.
    end: u64,
}

impl std::fmt::Debug for Replay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Replay").field("end", &self.end).field("kept", &self.kept).finish()
    }
}

impl Replay {
    fn new(from: Box<dyn AsyncRead + Send + Unpin>) -> Replay {
        Replay { from, head: BytesMut::new(), tail: VecDeque::new(), kept: 0, end: 0 }
    }

    /// Cancel safe: a piece is kept before it is handed out.
    async fn read(&mut self, offset: u64, most: usize) -> io::Result<Bytes> {
        let head = usize::try_from(offset).ok().and_then(|at| self.head.get(at..));
        if let Some(head) = head.filter(|head| !head.is_empty()) {
            return Ok(Bytes::copy_from_slice(head.get(..most).unwrap_or(head)));
        }
        if offset == self.end {
            let piece = read(&mut self.from, most).await?;
            self.keep(&piece);
            return Ok(piece);
        }
        let mut at = self.end - self.kept as u64;
        for piece in &self.tail {
            let next = at + piece.len() as u64;
            if (at..next).contains(&offset) {
                let from = usize::try_from(offset - at).unwrap_or(0);
                return Ok(piece.slice(from..piece.len().min(from.saturating_add(most))));
            }
            at = next;
        }
        Err(io::Error::other(format!("its bytes before {} were given up", at - self.kept as u64)))
    }

    fn keep(&mut self, piece: &Bytes) {
        let room = HEAD_BYTES.saturating_sub(self.head.len()).min(piece.len());
        self.head.extend_from_slice(piece.get(..room).unwrap_or_default());
        self.tail.push_back(piece.clone());
        self.kept += piece.len();
        self.end += piece.len() as u64;
        while self.kept > TAIL_BYTES {
            self.kept -= self.tail.pop_front().map_or(0, |old| old.len());
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[tokio::test]
    async fn stdin_can_be_read_again_at_its_beginning_and_near_its_end_and_nowhere_else() {
        let whole: Vec<u8> = (0..(48_u32 << 20)).map(|at| (at % 251) as u8).collect();
        let mut replay = Replay::new(Box::new(io::Cursor::new(whole.clone())));
        let mut at = 0;
        loop {
            let piece = replay.read(at as u64, PIECE_BYTES).await.unwrap();
            if piece.is_empty() {
                break;
            }
            assert!(whole[at..].starts_with(&piece), "at {at}");
            at += piece.len();
        }
        assert_eq!(at, whole.len());
        assert!(replay.kept <= TAIL_BYTES && replay.head.len() == HEAD_BYTES);
        for offset in [0, 1, HEAD_BYTES - 1, at - TAIL_BYTES, at - 1] {
            let piece = replay.read(offset as u64, 7).await.unwrap();
            assert!(!piece.is_empty() && whole[offset..].starts_with(&piece), "at {offset}");
        }
        let gone = replay.read(HEAD_BYTES as u64 + 1, 7).await.unwrap_err();
        assert!(gone.to_string().contains("given up"), "{gone}");
    }
}
