//! Which of 64 bytes are a given one, as the bits of a word. Owns nothing.

/// How many bytes are looked at together.
pub(super) const BLOCK: usize = 64;

/// A bit for each byte of the block that is `byte`; the first byte's is the lowest.
#[inline]
pub(super) fn equal(block: &[u8; BLOCK], byte: u8) -> u64 {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the function needs SSE2 and nothing else, and every x86-64 has it.
    return unsafe { vector(block, byte) };
    #[cfg(not(target_arch = "x86_64"))]
    portable(block, byte)
}

/// As [`equal`], sixteen bytes at a time.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "sse2")]
fn vector(block: &[u8; BLOCK], byte: u8) -> u64 {
    use std::arch::x86_64::{_mm_cmpeq_epi8, _mm_movemask_epi8, _mm_set_epi64x, _mm_set1_epi8};
    let wanted = _mm_set1_epi8(byte as i8);
    let mut bits = 0;
    for (index, part) in block.as_chunks::<16>().0.iter().enumerate() {
        // The compiler makes one load of the halves.
        let [low, high] = halves(part);
        let same = _mm_movemask_epi8(_mm_cmpeq_epi8(_mm_set_epi64x(high, low), wanted));
        bits |= u64::from(same as u16) << (16 * index);
    }
    bits
}

#[cfg(target_arch = "x86_64")]
#[inline]
fn halves(part: &[u8; 16]) -> [i64; 2] {
    let whole = u128::from_le_bytes(*part);
    [whole as i64, (whole >> 64) as i64]
}

/// As [`equal`], eight bytes at a time.
#[cfg(any(test, not(target_arch = "x86_64")))]
fn portable(block: &[u8; BLOCK], byte: u8) -> u64 {
    const EACH: u64 = 0x0101_0101_0101_0101;
    const LOW: u64 = EACH * 0x7F;
    let mut bits = 0;
    for (index, word) in block.as_chunks::<8>().0.iter().enumerate() {
        let word = u64::from_le_bytes(*word) ^ (EACH * u64::from(byte));
        // The high bit of each byte that is zero: the sum cannot carry into the next byte.
        let zeros = !(((word & LOW) + LOW) | word | LOW);
        // The eight high bits, side by side.
        bits |= ((zeros >> 7).wrapping_mul(0x0102_0408_1020_4080) >> 56) << (8 * index);
    }
    bits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bit_is_set_for_each_byte_that_is_the_one_looked_for() {
        let mut state = 1_u64;
        for _ in 0..2000 {
            let mut block = [0; BLOCK];
            for slot in &mut block {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                // Few values, the ones around the high bit among them.
                *slot = [0, 1, b'\n', b',', 0x7F, 0x80, 0x81, 0xFF][(state >> 60) as usize % 8];
            }
            for byte in [0, 1, b'\n', b',', 0x7F, 0x80, 0xFF, b'x'] {
                let bits = block.iter().enumerate();
                let expected = bits.fold(0, |all, (at, b)| all | u64::from(*b == byte) << at);
                assert_eq!(equal(&block, byte), expected);
                assert_eq!(portable(&block, byte), expected);
            }
        }
    }
}
