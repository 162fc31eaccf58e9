//! Sizes and durations as people write them: `512MiB`, `1MB`, `30s`, `1h30m`.
//! Pure text to numbers; knows nothing of what they bound.

use std::fmt;
use std::time::Duration;

use serde::de::{self, Deserialize, Deserializer, Visitor};

/// A number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

/// A length of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

const SIZE_UNITS: [(&str, u64); 10] = [
    ("", 1),
    ("b", 1),
    ("kb", 1_000),
    ("mb", 1_000_000),
    ("gb", 1_000_000_000),
    ("tb", 1_000_000_000_000),
    ("kib", 1 << 10),
    ("mib", 1 << 20),
    ("gib", 1 << 30),
    ("tib", 1 << 40),
];

const SPAN_UNITS: [(&str, u64); 6] = [
    ("us", 1),
    ("ms", 1_000),
    ("s", 1_000_000),
    ("m", 60_000_000),
    ("h", 3_600_000_000),
    ("d", 86_400_000_000),
];

fn digits(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    text.split_at(end)
}

impl Size {
    /// Reads a size.
    ///
    /// # Errors
    /// A text for people when `text` is not a whole number and a unit, or is past 2⁶⁴.
    pub fn parse(text: &str) -> Result<Size, String> {
        let wrong = || {
            format!(
                "`{text}` is not a size; write a whole number and a unit, such as \"512MiB\" or \"1MB\""
            )
        };
        let (number, unit) = digits(text.trim());
        let unit = unit.trim().to_ascii_lowercase();
        let count: u64 = number.parse().map_err(|_| wrong())?;
        let (_, factor) =
            SIZE_UNITS.into_iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?;
        count.checked_mul(factor).map(Size).ok_or_else(|| format!("`{text}` is too large"))
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.0;
        for (name, factor) in [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)] {
            if bytes >= factor {
                return if bytes.is_multiple_of(factor) {
                    write!(f, "{} {name}", bytes / factor)
                } else {
                    write!(f, "{:.1} {name}", bytes as f64 / factor as f64)
                };
            }
        }
        write!(f, "{bytes} B")
    }
}

impl Span {
    /// Reads a duration: numbers with units, largest first by custom.
    ///
    /// # Errors
    /// A text for people when `text` has no unit, an unknown one, or is past what a clock can hold.
    pub fn parse(text: &str) -> Result<Span, String> {
        let wrong = || {
            format!(
                "`{text}` is not a duration; write a number and a unit, such as \"100ms\", \"30s\" or \"24h\""
            )
        };
        let mut rest = text.trim();
        let mut micros: u64 = 0;
        if rest.is_empty() {
            return Err(wrong());
        }
        while !rest.is_empty() {
            let (number, tail) = digits(rest);
            let end = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
            let (unit, tail) = tail.split_at(end);
            let count: u64 = number.parse().map_err(|_| wrong())?;
            let (_, factor) =
                SPAN_UNITS.into_iter().find(|(name, _)| *name == unit.trim()).ok_or_else(wrong)?;
            micros = count
                .checked_mul(factor)
                .and_then(|part| micros.checked_add(part))
                .filter(|sum| *sum <= 36_500 * 86_400_000_000)
                .ok_or_else(|| format!("`{text}` is too long"))?;
            rest = tail.trim_start();
        }
        Ok(Span(Duration::from_micros(micros)))
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Size, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Size;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a size such as \"512MiB\"")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Size, E> {
                Size::parse(text).map_err(E::custom)
            }
            fn visit_u64<E: de::Error>(self, bytes: u64) -> Result<Size, E> {
                Ok(Size(bytes))
            }
            fn visit_i64<E: de::Error>(self, bytes: i64) -> Result<Size, E> {
                u64::try_from(bytes).map(Size).map_err(|_| E::custom("a size cannot be negative"))
            }
        }
        deserializer.deserialize_any(Text)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Span, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Span;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a duration such as \"30s\"")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Span, E> {
                Span::parse(text).map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_in_decimal_and_binary_units() {
        for (text, bytes) in
            [("512MiB", 512 << 20), ("1MB", 1_000_000), ("4 GiB", 4 << 30), ("0", 0), ("7b", 7)]
        {
            assert_eq!(Size::parse(text), Ok(Size(bytes)), "{text}");
        }
        for text in ["", "MiB", "1.5GiB", "-1", "1 parsec", "99999999999TiB"] {
            assert!(Size::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations_need_a_unit_and_may_have_several() {
        for (text, millis) in
            [("30s", 30_000), ("100ms", 100), ("1h30m", 5_400_000), ("2d", 172_800_000)]
        {
            assert_eq!(Span::parse(text), Ok(Span(Duration::from_millis(millis))), "{text}");
        }
        for text in ["", "30", "s", "1 fortnight", "99999999999d", "1h-3m"] {
            assert!(Span::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_size_is_shown_in_the_largest_unit_it_reaches() {
        assert_eq!(Size(512 << 20).to_string(), "512 MiB");
        assert_eq!(Size(1_000_000).to_string(), "976.6 KiB");
        assert_eq!(Size(12).to_string(), "12 B");
    }
}
