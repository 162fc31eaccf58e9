//! Row numbers of an entry, and how they are written: a first number, or LEB128 gaps.

use super::{EntryError, count32, damaged};

/// Row numbers, stored only where they are not simply one after the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Numbers {
    /// Contiguous, from this one.
    From(u32),
    /// Listed, ascending.
    Listed(Vec<u32>),
}

impl Numbers {
    /// The number of the row at an index of the batch.
    pub fn get(&self, index: usize) -> Option<u32> {
        match self {
            Numbers::From(first) => first.checked_add(u32::try_from(index).ok()?),
            Numbers::Listed(numbers) => numbers.get(index).copied(),
        }
    }

    pub(super) fn of(numbers: &[u32]) -> Numbers {
        let first = numbers.first().copied().unwrap_or(1);
        let last = numbers.last().copied().unwrap_or(0);
        let contiguous = u64::from(last) + 1 == u64::from(first) + numbers.len() as u64
            && numbers
                .windows(2)
                .all(|pair| matches!(pair, [a, b] if a.checked_add(1) == Some(*b)));
        if numbers.is_empty() || contiguous {
            Numbers::From(first)
        } else {
            Numbers::Listed(numbers.to_vec())
        }
    }
}

pub(super) fn write_numbers(out: &mut Vec<u8>, numbers: &Numbers) -> Result<(), EntryError> {
    match numbers {
        Numbers::From(first) => {
            out.push(0);
            out.extend_from_slice(&first.to_le_bytes());
        }
        Numbers::Listed(numbers) => {
            out.push(1);
            let length_at = out.len();
            out.extend_from_slice(&[0; 4]);
            let mut before = 0;
            for number in numbers {
                let Some(gap) = number.checked_sub(before) else {
                    return Err(damaged("row numbers are not ascending"));
                };
                write_varint(out, gap);
                before = *number;
            }
            let length = count32(out.len() - length_at - 4)?;
            if let Some(place) = out.get_mut(length_at..length_at + 4) {
                place.copy_from_slice(&length.to_le_bytes());
            }
        }
    }
    Ok(())
}

fn write_varint(out: &mut Vec<u8>, mut value: u32) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub(super) fn read_varint(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let mut value = 0_u32;
    for (index, byte) in bytes.iter().enumerate().take(5) {
        let part = u32::from(byte & 0x7f);
        let shift = 7 * u32::try_from(index).ok()?;
        value |= part.checked_shl(shift).filter(|shifted| shifted >> shift == part)?;
        if byte & 0x80 == 0 {
            return Some((value, bytes.get(index + 1..)?));
        }
    }
    None
}
