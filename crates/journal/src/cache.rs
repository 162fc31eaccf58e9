//! The youngest blocks of a journal in memory, for readers near the head. Bounded in bytes; oldest out first.

use std::collections::VecDeque;

use bytes::Bytes;

#[derive(Debug)]
pub(crate) struct Cache {
    blocks: VecDeque<(u64, Bytes)>,
    bytes: usize,
    max: usize,
}

impl Cache {
    pub(crate) fn new(max: usize) -> Self {
        Self { blocks: VecDeque::new(), bytes: 0, max }
    }

    /// Takes the block at `lsn`, which follows all others.
    pub(crate) fn push(&mut self, lsn: u64, block: Bytes) {
        self.bytes += block.len();
        self.blocks.push_back((lsn, block));
        while self.bytes > self.max {
            let Some((_, old)) = self.blocks.pop_front() else {
                return;
            };
            self.bytes -= old.len();
        }
    }

    /// The block that holds a position.
    pub(crate) fn get(&self, at: u64) -> Option<(u64, Bytes)> {
        let i = self.blocks.partition_point(|(lsn, _)| *lsn <= at).checked_sub(1)?;
        let (lsn, block) = self.blocks.get(i)?;
        (at < lsn + block.len() as u64).then(|| (*lsn, block.clone()))
    }
}
