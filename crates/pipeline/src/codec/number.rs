//! Text into exact numbers. Owns nothing; never rounds an integer or a decimal, and never
//! lets a float become infinite.
//!
//! The `read_*` functions read a number of JSON's grammar from within a record and say where it
//! ends. They answer `None` where the common case ends (an exponent, many digits, bad grammar);
//! the caller then finds the token and asks the exact functions.

/// Why a number does not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unfit {
    /// It is no number.
    NotNumber,
    /// It has digits below the last one kept.
    Inexact,
    /// It is too large.
    Overflow,
}

/// The digits at `at`, if there are fewer than eight and eight bytes to look at: their value and
/// count. Without a branch per digit: how long the next number is, no processor can guess.
#[inline]
fn short_digits(bytes: &[u8], at: usize) -> Option<(u64, usize)> {
    const EACH: u64 = 0x0101_0101_0101_0101;
    let word = u64::from_le_bytes(*bytes.get(at..)?.first_chunk::<8>()?);
    let digits = word ^ (EACH * 0x30);
    // The high bit of each byte that is no digit. Bytes are added to below their high bits, so
    // that none carries into the next.
    let others = ((digits & (EACH * 0x7F)).wrapping_add(EACH * 0x76) | digits) & (EACH * 0x80);
    let count = others.trailing_zeros() as usize / 8;
    if count == 0 || count == 8 {
        return None;
    }
    // Zeros in front, then tens and ones to pairs, pairs to fours, fours to the eight.
    let eight = digits << (64 - 8 * count);
    let pairs = eight.wrapping_mul(2561) >> 8 & 0x00FF_00FF_00FF_00FF;
    let fours = pairs.wrapping_mul(6_553_601) >> 16 & 0x0000_FFFF_0000_FFFF;
    Some((fours.wrapping_mul(42_949_672_960_001) >> 32, count))
}

/// The digits at `at`, however many: their value (wrapped beyond 19 of them) and count.
#[inline]
fn digits(bytes: &[u8], at: usize) -> (u64, usize) {
    if let Some(short) = short_digits(bytes, at) {
        return short;
    }
    let rest = bytes.get(at..).unwrap_or_default();
    let mut value = 0_u64;
    for (count, byte) in rest.iter().enumerate() {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return (value, count);
        }
        value = value.wrapping_mul(10).wrapping_add(u64::from(digit));
    }
    (value, rest.len())
}

/// Reads a whole number of at most 18 digits.
#[inline]
pub(super) fn read_integer(bytes: &[u8], at: usize) -> Option<(i64, usize)> {
    let negative = bytes.get(at) == Some(&b'-');
    let first = at + usize::from(negative);
    let (value, count) = digits(bytes, first);
    let end = first + count;
    if count == 0 || count > 18 || (count > 1 && bytes.get(first) == Some(&b'0')) {
        return None;
    }
    if matches!(bytes.get(end), Some(b'.' | b'e' | b'E')) {
        return None;
    }
    // Two's complement: minus is every bit turned, and one added.
    let sign = -i64::from(negative);
    Some(((value as i64 ^ sign) - sign, end))
}

/// The whole number that stands between `from` and `to`, if it has at most 18 digits.
#[inline]
pub(super) fn integer_between(bytes: &[u8], from: usize, to: usize) -> Option<i64> {
    let rest = bytes.get(from..)?;
    let negative = rest.first() == Some(&b'-');
    let first = from + usize::from(negative);
    let count = to.wrapping_sub(first);
    let Some(word) = bytes.get(first..)?.first_chunk::<8>() else {
        return long_integer(bytes, from, to);
    };
    if count.wrapping_sub(1) >= 8 {
        return long_integer(bytes, from, to);
    }
    let value = eight_digits(u64::from_le_bytes(*word), count)?;
    // Two's complement: minus is every bit turned, and one added.
    let sign = -i64::from(negative);
    Some((value as i64 ^ sign) - sign)
}

/// The value of the first `count` (1 to 8) bytes of a word, if all of them are digits.
#[inline]
fn eight_digits(word: u64, count: usize) -> Option<u64> {
    const EACH: u64 = 0x0101_0101_0101_0101;
    // Zeros in front.
    let digits = (word ^ (EACH * 0x30)) << (64 - 8 * count);
    let others = ((digits & (EACH * 0x7F)).wrapping_add(EACH * 0x76) | digits) & (EACH * 0x80);
    if others != 0 {
        return None;
    }
    let pairs = digits.wrapping_mul(2561) >> 8 & 0x00FF_00FF_00FF_00FF;
    let fours = pairs.wrapping_mul(6_553_601) >> 16 & 0x0000_FFFF_0000_FFFF;
    Some(fours.wrapping_mul(42_949_672_960_001) >> 32)
}

#[cold]
fn long_integer(bytes: &[u8], from: usize, to: usize) -> Option<i64> {
    let (value, end) = read_integer(bytes, from)?;
    (end == to).then_some(value)
}

/// The number that stands between `from` and `to`, if it is of a common spelling.
#[inline]
pub(super) fn double_between(bytes: &[u8], from: usize, to: usize) -> Option<f64> {
    match integer_between(bytes, from, to) {
        // It may be a negative zero; and beyond 53 bits a double is not exact.
        Some(value) if value != 0 && value.unsigned_abs() <= 1 << 53 => Some(value as f64),
        _ => {
            let (value, end) = read_double(bytes, from)?;
            (end == to).then_some(value)
        }
    }
}

const POWERS: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16,
    1e17, 1e18, 1e19, 1e20, 1e21, 1e22,
];

/// Reads a number whose digits, without the point, are exact in a double. The quotient of two
/// exact doubles is rounded once, so it is the nearest double.
#[inline]
pub(super) fn read_double(bytes: &[u8], at: usize) -> Option<(f64, usize)> {
    let (mantissa, negative, fraction, end) = read_digits(bytes, at)?;
    if mantissa > 1 << 53 {
        return None;
    }
    let value = mantissa as f64 / POWERS.get(fraction)?;
    Some((if negative { -value } else { value }, end))
}

/// As [`read_double`], for a single-precision float.
#[inline]
pub(super) fn read_real(bytes: &[u8], at: usize) -> Option<(f32, usize)> {
    let (mantissa, negative, fraction, end) = read_digits(bytes, at)?;
    if mantissa > 1 << 24 || fraction > 10 {
        return None;
    }
    let value = mantissa as f32 / *POWERS.get(fraction)? as f32;
    Some((if negative { -value } else { value }, end))
}

/// The digits of a number without exponent: their value, sign, how many follow the point, end.
#[inline]
fn read_digits(bytes: &[u8], at: usize) -> Option<(u64, bool, usize, usize)> {
    let negative = bytes.get(at) == Some(&b'-');
    let first = at + usize::from(negative);
    let (mut mantissa, whole) = digits(bytes, first);
    let mut end = first + whole;
    if whole == 0 || (whole > 1 && bytes.get(first) == Some(&b'0')) {
        return None;
    }
    let mut fraction = 0;
    if bytes.get(end) == Some(&b'.') {
        let (value, count) = digits(bytes, end + 1);
        if count == 0 || whole + count > 19 {
            return None;
        }
        mantissa = mantissa.wrapping_mul(10_u64.pow(count as u32)).wrapping_add(value);
        fraction = count;
        end += 1 + count;
    }
    if whole + fraction > 19 || matches!(bytes.get(end), Some(b'e' | b'E')) {
        return None;
    }
    Some((mantissa, negative, fraction, end))
}

/// Where a number of JSON's grammar that begins at `at` ends; an error is where it is broken.
pub(super) fn number_end(bytes: &[u8], at: usize) -> Result<usize, usize> {
    let digits = |mut at: usize| {
        let first = at;
        while bytes.get(at).is_some_and(u8::is_ascii_digit) {
            at += 1;
        }
        if at == first { Err(at) } else { Ok(at) }
    };
    let first = at + usize::from(bytes.get(at) == Some(&b'-'));
    let mut end = digits(first)?;
    if end - first > 1 && bytes.get(first) == Some(&b'0') {
        return Err(first + 1);
    }
    if bytes.get(end) == Some(&b'.') {
        end = digits(end + 1)?;
    }
    if matches!(bytes.get(end), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(bytes.get(end + 1), Some(b'+' | b'-')));
        end = digits(end + 1 + sign)?;
    }
    Ok(end)
}

/// True if the whole text is a number of JSON's grammar.
pub(super) fn is_number(text: &[u8]) -> bool {
    number_end(text, 0) == Ok(text.len())
}

/// A decimal text times ten to the `scale`, exactly. Takes what JSON takes as a number, and
/// beyond it leading zeros and a point without digits on one side (CSV).
pub(super) fn scaled(text: &[u8], scale: i8) -> Result<i128, Unfit> {
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        rest => (false, rest),
    };
    let mut mantissa = 0_i128;
    let mut too_many = false;
    // Zeros wait until a digit follows them: those at the end only move the point.
    let mut zeros = 0_u32;
    let (mut seen, mut point, mut places, mut at) = (false, false, 0_i64, 0);
    while let Some(&byte) = digits.get(at) {
        match byte {
            b'0'..=b'9' => {
                seen = true;
                places += i64::from(point);
                if byte == b'0' {
                    zeros = zeros.saturating_add(u32::from(mantissa != 0));
                } else {
                    let next = 10_i128
                        .checked_pow(zeros + 1)
                        .and_then(|power| mantissa.checked_mul(power))
                        .and_then(|shifted| shifted.checked_add(i128::from(byte - b'0')));
                    too_many |= next.is_none();
                    mantissa = next.unwrap_or(1);
                    zeros = 0;
                }
            }
            b'.' if !point => point = true,
            b'e' | b'E' => break,
            _ => return Err(Unfit::NotNumber),
        }
        at += 1;
    }
    if !seen {
        return Err(Unfit::NotNumber);
    }
    let exponent = match digits.get(at + 1..) {
        Some(text) if at < digits.len() => exponent(text).ok_or(Unfit::NotNumber)?,
        _ => 0,
    };
    if mantissa == 0 {
        return Ok(0);
    }
    let shift = exponent - places + i64::from(scale) + i64::from(zeros);
    if shift < 0 {
        return Err(Unfit::Inexact);
    }
    let value = u32::try_from(shift)
        .ok()
        .filter(|_| !too_many)
        .and_then(|shift| 10_i128.checked_pow(shift))
        .and_then(|power| mantissa.checked_mul(power))
        .ok_or(Unfit::Overflow)?;
    Ok(if negative { -value } else { value })
}

/// The exponent of a number, clamped far outside what any type holds.
fn exponent(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        rest => (false, rest),
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let value = digits
        .iter()
        .fold(0_i64, |value, digit| (value * 10 + i64::from(digit - b'0')).min(100_000_000));
    Some(if negative { -value } else { value })
}

/// A whole number, however it is written (`5`, `5.0`, `5e0`).
pub(super) fn integer(text: &[u8]) -> Result<i128, Unfit> {
    scaled(text, 0)
}

/// A decimal of `precision` digits, `scale` of them after the point, as its scaled integer.
pub(super) fn decimal(text: &[u8], precision: u8, scale: i8) -> Result<i128, Unfit> {
    let value = scaled(text, scale)?;
    let bound = 10_i128.checked_pow(u32::from(precision)).unwrap_or(i128::MAX);
    if value.unsigned_abs() < bound.unsigned_abs() { Ok(value) } else { Err(Unfit::Overflow) }
}

/// The text of a DECIMAL(`precision`,`scale`) as its scaled integer, exactly; `None` if it is no
/// number or does not fit.
pub fn parse_decimal(text: &str, precision: u8, scale: i8) -> Option<i128> {
    decimal(text.as_bytes(), precision, scale).ok()
}

/// The nearest double. NaN, infinities and what is too large are refused.
pub(super) fn double(text: &[u8]) -> Result<f64, Unfit> {
    let value: f64 = fast_float2::parse(text).map_err(|_| Unfit::NotNumber)?;
    if value.is_finite() { Ok(value) } else { Err(Unfit::Overflow) }
}

/// The nearest single-precision float, as [`double`].
pub(super) fn real(text: &[u8]) -> Result<f32, Unfit> {
    let value: f32 = fast_float2::parse(text).map_err(|_| Unfit::NotNumber)?;
    if value.is_finite() { Ok(value) } else { Err(Unfit::Overflow) }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_decimal_is_exact_or_refused() {
        let cases: [(&str, i8, Result<i128, Unfit>); 16] = [
            ("1.50", 2, Ok(150)),
            ("1.500", 2, Ok(150)),
            ("1.505", 2, Err(Unfit::Inexact)),
            ("-0.01", 2, Ok(-1)),
            ("1e2", 2, Ok(10_000)),
            ("1.5e-1", 2, Ok(15)),
            ("1.5e-2", 2, Err(Unfit::Inexact)),
            ("0e999999999999", 2, Ok(0)),
            ("1e999999999999", 2, Err(Unfit::Overflow)),
            ("1e-999999999999", 2, Err(Unfit::Inexact)),
            ("-0", 0, Ok(0)),
            ("100", -2, Ok(1)),
            ("150", -2, Err(Unfit::Inexact)),
            ("", 0, Err(Unfit::NotNumber)),
            ("1.2.3", 2, Err(Unfit::NotNumber)),
            ("1e", 2, Err(Unfit::NotNumber)),
        ];
        for (text, scale, expected) in cases {
            assert_eq!(scaled(text.as_bytes(), scale), expected, "{text} at scale {scale}");
        }
        let most = "99999999999999999999999999999999999999";
        assert_eq!(decimal(most.as_bytes(), 38, 0), Ok(most.parse().unwrap()));
        assert_eq!(decimal(format!("{most}0").as_bytes(), 38, 0), Err(Unfit::Overflow));
        assert_eq!(decimal(b"100", 2, 0), Err(Unfit::Overflow));
    }

    #[test]
    fn the_quick_reading_of_a_float_is_the_nearest_float() {
        let mut state = 1_u64;
        for round in 0..20_000_u32 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let digits = (state >> 33) % 10_u64.pow(round % 17 + 1);
            let text =
                format!("{}{digits}.{}", if state & 1 == 0 { "-" } else { "" }, round % 1000);
            let token = text.as_bytes();
            if let Some((value, end)) = read_double(token, 0) {
                assert_eq!((value, end), (text.parse::<f64>().unwrap(), text.len()), "{text}");
            }
            if let Some((value, _)) = read_real(token, 0) {
                assert_eq!(value, text.parse::<f32>().unwrap(), "{text}");
            }
        }
    }

    #[test]
    fn the_grammar_of_numbers_is_that_of_json() {
        for good in ["0", "-0", "10", "1.5", "1e5", "1E+5", "0.0e-0"] {
            assert!(is_number(good.as_bytes()), "{good}");
        }
        for bad in ["", "-", "01", "1.", ".5", "1e", "1e+", "+1", "0x1", "1 ", "NaN", "-Inf"] {
            assert!(!is_number(bad.as_bytes()), "{bad}");
        }
    }
}
