//! Where the fields of plain records end: a stretch of records without quotes and lone CRs, looked
//! over 64 bytes at a time. Owns the list of places, which is bounded and kept from stretch to stretch.
//!
//! ```text
//! 1,x\n22,yy\n     at:     -1  1  3  6  9      (the byte before the first, then every , and \n)
//!                  lines:   0     2     4      (which of them end a line)
//! ```

use super::dialect::Marks;
use super::mask::{BLOCK, equal};

/// The most places of one stretch: what is looked over should still be in the nearest cache when it
/// is converted.
const PLACES: usize = 8 << 10;

/// Places written at once, whether they are there or not.
const STEP: usize = 8;

/// A stretch of whole lines.
#[derive(Debug, Default)]
pub(super) struct Index {
    /// The place before the first line, then those of all delimiters and line feeds; what stands
    /// behind the last of `lines` is no whole line. A place before the first byte is `u32::MAX`.
    at: Vec<u32>,
    /// Which of `at` are line ends, the first (the end of what came before) among them.
    lines: Vec<u32>,
    /// Lines may end in CRLF.
    pub(super) returns: bool,
}

/// Sixty-four bytes to look over.
#[derive(Clone, Copy)]
struct Part<'a> {
    block: &'a [u8; BLOCK],
    /// Where they stand.
    base: usize,
    /// Those that are bytes of the chunk.
    valid: u64,
    /// A line feed stands behind them.
    next: bool,
}

impl Index {
    /// Forgets the stretch.
    pub(super) fn clear(&mut self) {
        self.lines.clear();
        self.returns = false;
    }

    /// Looks over `bytes` from `start`, a record's first byte, as far as they are plain and the list
    /// holds them. Chunks are far below 4 GiB.
    pub(super) fn build(&mut self, bytes: &[u8], start: usize, marks: Marks) {
        self.clear();
        self.at.resize(PLACES + BLOCK, 0);
        self.lines.push(0);
        if let Some(first) = self.at.first_mut() {
            *first = (start as u32).wrapping_sub(1);
        }
        let mut count = 1;
        let rest = bytes.get(start..).unwrap_or_default();
        let (blocks, tail) = rest.as_chunks::<BLOCK>();
        let mut base = start;
        for block in blocks {
            let next = bytes.get(base + BLOCK) == Some(&b'\n');
            let all = Part { block, base, valid: u64::MAX, next };
            let more = self.part(all, marks, &mut count);
            base += BLOCK;
            if !more {
                return;
            }
        }
        let mut block = [0; BLOCK];
        if let Some(part) = block.get_mut(..tail.len()) {
            part.copy_from_slice(tail);
        }
        let last = Part { block: &block, base, valid: (1 << tail.len()) - 1, next: false };
        self.part(last, marks, &mut count);
    }

    /// Takes the places of a part. False if it was the last one.
    #[inline]
    fn part(&mut self, part: Part<'_>, marks: Marks, count: &mut usize) -> bool {
        let Part { block, base, valid, next } = part;
        let feeds = equal(block, b'\n');
        let returns = equal(block, b'\r');
        let quotes = marks.quote.map_or(0, |quote| equal(block, quote));
        let odd = quotes | (returns & !(feeds >> 1 | u64::from(next) << 63)) | !valid;
        // All bits below the first odd one.
        let plain = (odd & odd.wrapping_neg()).wrapping_sub(1);
        let mut feeds = feeds & plain;
        let places = (equal(block, marks.delimiter) & plain) | feeds;
        self.returns |= returns != 0;
        let Some(out) = self.at.get_mut(*count..).and_then(|rest| rest.first_chunk_mut::<BLOCK>())
        else {
            return false;
        };
        write(places, base as u32, out);
        while feeds != 0 {
            let before = places & (feeds & feeds.wrapping_neg()).wrapping_sub(1);
            self.lines.push(*count as u32 + before.count_ones());
            feeds &= feeds - 1;
        }
        *count += places.count_ones() as usize;
        odd == 0 && *count < PLACES
    }

    /// How many whole lines there are.
    pub(super) fn len(&self) -> usize {
        self.lines.len().saturating_sub(1)
    }

    /// Where a line begins.
    #[inline]
    pub(super) fn start(&self, line: usize) -> Option<usize> {
        let place = self.at.get(*self.lines.get(line)? as usize)?;
        Some(place.wrapping_add(1) as usize)
    }

    /// How many lines from `line` on, at most `most`, have `fields` fields each.
    pub(super) fn alike(&self, line: usize, most: usize, fields: usize) -> usize {
        let lines = self.lines.get(line..).unwrap_or_default();
        let pairs = lines.iter().zip(lines.iter().skip(1));
        pairs.take(most).take_while(|(from, to)| (**to - **from) as usize == fields).count()
    }

    /// Where field `field` of each line from `line` on begins and ends, if all of them have `fields`.
    #[inline]
    pub(super) fn cells(
        &self,
        line: usize,
        lines: usize,
        field: usize,
        fields: usize,
    ) -> impl Iterator<Item = (usize, usize)> {
        let first = self.lines.get(line).map_or(usize::MAX, |place| *place as usize);
        let places = self.at.get(first.saturating_add(field)..).unwrap_or_default();
        places
            .chunks(fields.max(1))
            .take(lines)
            .zip(places.get(1..).unwrap_or_default().chunks(fields.max(1)))
            .map(|(from, to)| {
                let place = |places: &[u32]| places.first().copied().unwrap_or(0);
                (place(from).wrapping_add(1) as usize, place(to) as usize)
            })
    }
}

/// Writes where the bits are set, and rubbish behind them: to write eight at a time and not to ask
/// for each is quicker.
#[inline]
fn write(places: u64, base: u32, out: &mut [u32; BLOCK]) {
    let mut left = places;
    for step in out.as_chunks_mut::<STEP>().0 {
        for slot in step {
            *slot = base.wrapping_add(left.trailing_zeros());
            left &= left.wrapping_sub(1);
        }
        if left == 0 {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::Dialect;

    /// The fields of each whole line of the stretch from `start`.
    fn lines(bytes: &[u8], start: usize) -> Vec<Vec<String>> {
        let mut index = Index::default();
        index.build(bytes, start, Dialect::COMMA.marks(b','));
        let line = |line: usize| {
            let fields = (1..1000).find(|fields| index.alike(line, 1, *fields) == 1).unwrap_or(0);
            let cell = |field| {
                let (from, to) = index.cells(line, 1, field, fields).next().unwrap_or_default();
                String::from_utf8_lossy(&bytes[from..to]).into_owned()
            };
            (0..fields).map(cell).collect()
        };
        (0..index.len()).map(line).collect()
    }

    #[test]
    fn a_stretch_ends_where_a_quote_or_a_lone_cr_stands_or_a_line_is_not_whole() {
        let expected = [vec!["1", "x"], vec!["22", ""], vec![""]];
        for rest in ["", "a,b", "a,\"b\"\n", "\"", "a\rb\n", "\r"] {
            let body = format!("1,x\n22,\n\n{rest}");
            assert_eq!(lines(body.as_bytes(), 0), expected, "{rest:?}");
            let long = format!("{body}{}", "c,d\n".repeat(100));
            let found = lines(long.as_bytes(), 0);
            assert_eq!(found[..3], expected, "{rest:?}");
            let plain = rest.is_empty() || rest == "a,b";
            assert_eq!(found.len(), if plain { 103 } else { 3 }, "{rest:?}");
        }
    }

    #[test]
    fn every_line_is_found_wherever_the_stretch_begins() {
        let body: String = (0..500).map(|n| format!("{n},{},x\r\n", "y".repeat(n % 70))).collect();
        let all = lines(body.as_bytes(), 0);
        assert_eq!(all.len(), 500);
        for (n, line) in all.iter().enumerate() {
            assert_eq!(line[..], [n.to_string(), "y".repeat(n % 70), "x\r".to_owned()]);
        }
        let start = body.find("7,yyyyyyy,").unwrap_or(0);
        assert_eq!(lines(body.as_bytes(), start), all[7..]);
    }
}
