//! Text into days and microseconds, in the proleptic Gregorian calendar. Owns nothing; never
//! guesses: a day that does not exist, a leap second and a lone time are no values.

const MICROS: i64 = 1_000_000;
const DAY_SECONDS: i64 = 86_400;

/// Microseconds since 1970-01-01 UTC of an RFC 3339 text, or of `YYYY-MM-DD hh:mm:ss[.fraction]`
/// (or with a `T`), which without an offset means UTC. Up to nine digits of fraction are read
/// and cut to microseconds. `None` for anything else; a leap second (`:60`) too.
pub fn parse_timestamp(text: &str) -> Option<i64> {
    timestamp(text.as_bytes())
}

/// Days since 1970-01-01 of `YYYY-MM-DD`; `None` for anything else.
pub fn parse_date(text: &str) -> Option<i32> {
    date(text.as_bytes())
}

#[inline]
pub(super) fn date(text: &[u8]) -> Option<i32> {
    match text.first_chunk::<10>() {
        Some(day) if text.len() == 10 => days(day),
        _ => None,
    }
}

#[inline]
pub(super) fn timestamp(text: &[u8]) -> Option<i64> {
    let (head, rest) = text.split_first_chunk::<19>()?;
    let seconds = head_seconds(head)?;
    if rest == b"Z" {
        return Some(seconds * MICROS);
    }
    tail(seconds, rest)
}

/// Reads times that follow each other: the day of one is mostly that of the one before.
#[derive(Debug)]
pub(super) struct Days {
    /// The last `YYYY-MM-DD` seen, and the seconds up to it.
    text: [u8; 10],
    seconds: i64,
}

impl Default for Days {
    fn default() -> Days {
        Days { text: *b"1970-01-01", seconds: 0 }
    }
}

impl Days {
    /// As [`timestamp`].
    #[inline]
    pub(super) fn timestamp(&mut self, text: &[u8]) -> Option<i64> {
        let (day, rest) = text.split_first_chunk::<10>()?;
        let (head, rest) = rest.split_first_chunk::<9>()?;
        if *day != self.text {
            self.seconds = i64::from(days(day)?) * DAY_SECONDS;
            self.text = *day;
        }
        let [b'T' | b't' | b' ', clock @ ..] = head else { return None };
        let seconds = self.seconds + clock_seconds(clock)?;
        if rest == b"Z" { Some(seconds * MICROS) } else { tail(seconds, rest) }
    }
}

/// Eight bytes of digits and separators, judged and read at once.
struct Shape {
    /// The separators, and a zero for each digit.
    word: u64,
    /// What lifts every byte that is not of the shape, less `word`, to its high bit.
    lift: u64,
}

const DATE: Shape = Shape::of(*b"0000-00-");
const TIME: Shape = Shape::of(*b"00:00:00");

impl Shape {
    const fn of(text: [u8; 8]) -> Shape {
        let mut lift = [0x7F; 8];
        let mut at = 0;
        while at < text.len() {
            if text[at] == b'0' {
                lift[at] = 0x80 - 10;
            }
            at += 1;
        }
        Shape { word: u64::from_le_bytes(text), lift: u64::from_le_bytes(lift) }
    }

    /// For each byte the number of two digits that begins there; only those of digits mean anything.
    #[inline]
    fn read(&self, text: &[u8; 8]) -> Option<[u8; 8]> {
        const HIGH: u64 = 0x8080_8080_8080_8080;
        let digits = u64::from_le_bytes(*text) ^ self.word;
        // Bytes are lifted from below their high bits, so that none carries into the next.
        let wrong = (((digits & !HIGH) + self.lift) | digits) & HIGH;
        (wrong == 0).then(|| (digits * 10 + (digits >> 8)).to_le_bytes())
    }
}

/// `hh:mm:ss`, as seconds.
#[inline]
fn clock_seconds(text: &[u8; 8]) -> Option<i64> {
    let [hour, _, _, minute, _, _, second, _] = TIME.read(text)?;
    let fits = hour < 24 && minute < 60 && second < 60;
    fits.then(|| i64::from(hour) * 3600 + i64::from(minute) * 60 + i64::from(second))
}

/// `YYYY-MM-DDThh:mm:ss`, as seconds.
#[inline]
fn head_seconds(head: &[u8; 19]) -> Option<i64> {
    let (day, rest) = head.split_first_chunk::<10>()?;
    let [b'T' | b't' | b' ', clock @ ..] = rest else { return None };
    Some(i64::from(days(day)?) * DAY_SECONDS + clock_seconds(clock.first_chunk()?)?)
}

/// What may follow the seconds: a fraction, then an offset.
fn tail(seconds: i64, rest: &[u8]) -> Option<i64> {
    let mut rest = rest;
    let mut micros = 0;
    if let [b'.' | b',', fraction @ ..] = rest {
        let length = fraction.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if length == 0 || length > 9 {
            return None;
        }
        let digits = fraction[..length].iter().map(|digit| i64::from(digit - b'0'));
        micros = digits.chain([0; 6]).take(6).fold(0, |micros, digit| micros * 10 + digit);
        rest = &fraction[length..];
    }
    let offset = match rest {
        [] | [b'Z' | b'z'] => 0,
        [sign @ (b'+' | b'-'), offset @ ..] => {
            let (hour, minute) = match offset {
                [a, b, b':', c, d] | [a, b, c, d] => (two(*a, *b)?, two(*c, *d)?),
                [a, b] => (two(*a, *b)?, 0),
                _ => return None,
            };
            if hour > 23 || minute > 59 {
                return None;
            }
            let offset = i64::from(hour * 3600 + minute * 60);
            if *sign == b'-' { -offset } else { offset }
        }
        _ => return None,
    };
    Some((seconds - offset) * MICROS + micros)
}

#[inline]
fn two(tens: u8, ones: u8) -> Option<u32> {
    let (tens, ones) = (tens.wrapping_sub(b'0'), ones.wrapping_sub(b'0'));
    (tens < 10 && ones < 10).then(|| u32::from(tens) * 10 + u32::from(ones))
}

/// `YYYY-MM-DD` as days since 1970-01-01, by Hinnant's `days_from_civil`.
#[inline]
fn days(text: &[u8; 10]) -> Option<i32> {
    let [century, _, year, _, _, month, _, _] = DATE.read(text.first_chunk()?)?;
    let (year, month) = (u32::from(century) * 100 + u32::from(year), u32::from(month));
    let day = two(text[8], text[9])?;
    if month == 0 || month > 12 || day == 0 || day > month_length(year, month) {
        return None;
    }
    // Years begin in March, so that the leap day is the last of its year.
    let year = year as i32 - i32::from(month <= 2);
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let month = (month as i32 + 9) % 12;
    let day_of_year = (153 * month + 2) / 5 + day as i32 - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    Some(era * 146_097 + day_of_era - 719_468)
}

#[inline]
fn month_length(year: u32, month: u32) -> u32 {
    match month {
        2 if year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400)) => {
            29
        }
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_day_of_ten_thousand_years_counts_one_more_than_the_day_before() {
        let mut expected = -719_528;
        for year in 0..10_000 {
            for month in 1..=12 {
                for day in 1..=31 {
                    let text = format!("{year:04}-{month:02}-{day:02}");
                    let exists = day <= month_length(year, month);
                    assert_eq!(parse_date(&text), exists.then_some(expected), "{text}");
                    expected += i32::from(exists);
                }
            }
        }
        assert_eq!(parse_date("1970-01-01"), Some(0));
    }

    #[test]
    fn a_timestamp_is_read_in_every_documented_shape_and_no_other() {
        let cases = [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("2013-01-01T10:00:00Z", Some(1_357_034_400_000_000)),
            ("2013-01-01 10:00:00", Some(1_357_034_400_000_000)),
            ("2013-01-01t10:00:00z", Some(1_357_034_400_000_000)),
            ("2013-01-01T12:00:00+02:00", Some(1_357_034_400_000_000)),
            ("2013-01-01T05:30:00-0430", Some(1_357_034_400_000_000)),
            ("2013-01-01T10:00:00+00", Some(1_357_034_400_000_000)),
            ("2013-01-01T10:00:00.5Z", Some(1_357_034_400_500_000)),
            ("2013-01-01T10:00:00.123456789Z", Some(1_357_034_400_123_456)),
            ("1969-12-31T23:59:59.999999Z", Some(-1)),
            ("2013-01-01T10:00:00.1234567890Z", None),
            ("2013-01-01T10:00:00.Z", None),
            ("2016-12-31T23:59:60Z", None),
            ("2013-02-29T10:00:00Z", None),
            ("2013-01-01T24:00:00Z", None),
            ("2013-01-01T10:00Z", None),
            ("2013-01-01", None),
            ("2013-01-01T10:00:00+24:00", None),
            ("2013-01-01T10:00:00 Z", None),
            ("2013-1-1T10:00:00Z", None),
            ("20130101T100000Z", None),
            ("1357034400", None),
            ("", None),
        ];
        for (text, expected) in cases {
            assert_eq!(parse_timestamp(text), expected, "{text}");
            let mut days = Days::default();
            for _ in 0..2 {
                assert_eq!(days.timestamp(text.as_bytes()), expected, "{text}");
            }
        }
    }
}
