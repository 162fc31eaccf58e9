//! The checkpoint: how far each lane's sink is, in two 4 KiB slots written in turn. A hint; the sink is the truth.
//!
//! ```text
//! slot   0 magic "FBCKPT01" · 8 version u32 · 12 lanes u32 · 16 journal uuid · 32 generation u64
//!        40 counters 4×u64 · 72 floor u64 · 80 per lane: lane u32, reserved u32, lsn u64 · 4092 crc
//! ```
//!
//! Both slots exist, whole, from the journal's birth, so that a full device cannot keep a checkpoint from being
//! written. The floor is the lowest position, moved over padding and empty blocks up to the next record: segments below
//! it may be gone. A write goes to the older slot; a torn one leaves the younger.

use std::io;
use std::path::Path;

use crate::Lsn;
use crate::disk::{Disk, Open, read_file};
use crate::format::{
    Totals, array, crc_holds, put, put_totals, seal_crc, totals_at, u32_at, u64_at,
};

const SLOT: usize = 4096;
const MAGIC: [u8; 8] = *b"FBCKPT01";
const VERSION: u32 = 1;
const LANES_AT: usize = 80;
/// Lanes that fit a slot.
pub(crate) const MAX_LANES: usize = (SLOT - 4 - LANES_AT) / 16;
const NAMES: [&str; 2] = ["ckpt.a", "ckpt.b"];

/// How far the sinks are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checkpoint {
    /// Per lane, the end of what its sink has made durable.
    pub positions: Vec<(u32, Lsn)>,
    /// Four cumulative counters of the caller's, stored with the positions.
    pub counters: [u64; 4],
}

impl Checkpoint {
    /// The position below which no lane needs anything.
    #[must_use]
    pub fn lowest(&self) -> Option<Lsn> {
        self.positions.iter().map(|(_, lsn)| *lsn).min()
    }

    /// The highest position of any lane.
    #[must_use]
    pub fn highest(&self) -> Option<Lsn> {
        self.positions.iter().map(|(_, lsn)| *lsn).max()
    }
}

#[derive(Clone, Debug)]
struct Slot {
    uuid: uuid::Uuid,
    generation: u64,
    floor: u64,
    checkpoint: Checkpoint,
}

impl Slot {
    fn encode(&self) -> Vec<u8> {
        let mut b = vec![0; SLOT];
        let totals: &Totals = &self.checkpoint.counters;
        put(&mut b, 0, &MAGIC);
        put(&mut b, 8, &VERSION.to_le_bytes());
        put(
            &mut b,
            12,
            &u32::try_from(self.checkpoint.positions.len()).unwrap_or(u32::MAX).to_le_bytes(),
        );
        put(&mut b, 16, self.uuid.as_bytes());
        put(&mut b, 32, &self.generation.to_le_bytes());
        put_totals(&mut b, 40, totals);
        put(&mut b, 72, &self.floor.to_le_bytes());
        for (i, (lane, lsn)) in self.checkpoint.positions.iter().enumerate() {
            put(&mut b, LANES_AT + 16 * i, &lane.to_le_bytes());
            put(&mut b, LANES_AT + 16 * i + 8, &lsn.0.to_le_bytes());
        }
        seal_crc(&mut b, SLOT - 4);
        b
    }

    fn decode(b: &[u8]) -> Option<Self> {
        let b = b.get(..SLOT)?;
        if !b.starts_with(&MAGIC) || !crc_holds(b, SLOT - 4) || u32_at(b, 8)? != VERSION {
            return None;
        }
        let lanes = u32_at(b, 12)? as usize;
        if lanes > MAX_LANES {
            return None;
        }
        let position =
            |i| Some((u32_at(b, LANES_AT + 16 * i)?, Lsn(u64_at(b, LANES_AT + 16 * i + 8)?)));
        Some(Self {
            uuid: uuid::Uuid::from_bytes(array(b, 16)?),
            generation: u64_at(b, 32)?,
            floor: u64_at(b, 72)?,
            checkpoint: Checkpoint {
                positions: (0..lanes).map(position).collect::<Option<_>>()?,
                counters: totals_at(b, 40)?,
            },
        })
    }
}

/// What the slots say at open.
#[derive(Debug)]
pub(crate) struct Read {
    pub uuid: Option<uuid::Uuid>,
    pub checkpoint: Option<Checkpoint>,
    /// Some slot is there but does not hold: an older checkpoint may stand for a younger one.
    pub damaged: bool,
    /// Segments below this position may be gone.
    pub floor: u64,
    generation: u64,
    /// The slot to write next.
    target: usize,
    /// Slots that are not whole files yet.
    missing: bool,
}

pub(crate) fn read(disk: &dyn Disk, dir: &Path) -> io::Result<Read> {
    let mut read = Read {
        uuid: None,
        checkpoint: None,
        damaged: false,
        floor: 0,
        generation: 0,
        target: 0,
        missing: false,
    };
    for (i, name) in NAMES.iter().enumerate() {
        let bytes = match read_file(disk, &dir.join(name), SLOT) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                read.missing = true;
                continue;
            }
            other => other?,
        };
        match Slot::decode(&bytes) {
            Some(slot) if slot.generation > read.generation => {
                read.uuid = Some(slot.uuid);
                read.generation = slot.generation;
                read.floor = slot.floor;
                read.checkpoint = Some(slot.checkpoint);
                read.target = 1 - i;
            }
            Some(_) => {}
            None => {
                read.damaged = true;
                read.missing |= bytes.len() < SLOT;
            }
        }
    }
    Ok(read)
}

/// The two slots of an open journal.
#[derive(Debug)]
pub(crate) struct Slots {
    uuid: uuid::Uuid,
    generation: u64,
    target: usize,
    /// Segments below this position may be removed.
    pub floor: u64,
    pub current: Checkpoint,
}

impl Slots {
    /// Takes the slots as read. Writes both if one is missing, which is the birth of the journal; else writes the
    /// younger one again where it stands, since after a failed sync it may be in the page cache only.
    pub(crate) fn open(
        disk: &dyn Disk,
        dir: &Path,
        read: Read,
        uuid: uuid::Uuid,
    ) -> io::Result<Self> {
        let mut slots = Self {
            uuid,
            generation: read.generation,
            target: read.target,
            floor: read.floor,
            current: read.checkpoint.unwrap_or_default(),
        };
        if read.missing || read.uuid.is_none() {
            for _ in 0..2 {
                let (checkpoint, floor) = (slots.current.clone(), slots.floor);
                slots.write_slot(disk, dir, checkpoint, floor, Open::CreateOrTruncate)?;
                disk.sync_dir(dir)?;
            }
        } else {
            slots.target = 1 - slots.target;
            slots.generation = slots.generation.saturating_sub(1);
            let (checkpoint, floor) = (slots.current.clone(), slots.floor);
            slots.write_slot(disk, dir, checkpoint, floor, Open::Write)?;
        }
        Ok(slots)
    }

    /// Writes and syncs; on an error the younger slot is untouched and still counts.
    pub(crate) fn write(
        &mut self,
        disk: &dyn Disk,
        dir: &Path,
        checkpoint: Checkpoint,
        floor: u64,
    ) -> io::Result<()> {
        if checkpoint.positions.len() > MAX_LANES {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "too many lanes for a checkpoint",
            ));
        }
        self.write_slot(disk, dir, checkpoint, floor, Open::Write)
    }

    fn write_slot(
        &mut self,
        disk: &dyn Disk,
        dir: &Path,
        checkpoint: Checkpoint,
        floor: u64,
        mode: Open,
    ) -> io::Result<()> {
        let slot = Slot { uuid: self.uuid, generation: self.generation + 1, floor, checkpoint };
        let name = NAMES.get(self.target).copied().unwrap_or("ckpt.a");
        let file = disk.open(&dir.join(name), mode)?;
        file.write_all_at(&slot.encode(), 0)?;
        file.sync_data()?;
        self.generation = slot.generation;
        self.floor = floor;
        self.current = slot.checkpoint;
        self.target = 1 - self.target;
        Ok(())
    }
}
