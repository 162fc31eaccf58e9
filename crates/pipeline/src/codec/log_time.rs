//! Times as logs write them, beside those of `datetime`. Owns nothing; a form
//! without a year is no time.

use super::datetime;

const MONTHS: [&[u8]; 12] = [
    b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec",
];

/// Microseconds since 1970-01-01 UTC of what [`datetime::timestamp`] reads, of
/// `10/Oct/2000:13:55:36 -0700` (web servers), and of `Sun Dec 04 04:47:44 2005`, with a fraction
/// behind the seconds or not, which means UTC (Apache's error log, `asctime`).
pub(super) fn parse(text: &[u8]) -> Option<i64> {
    datetime::timestamp(text).or_else(|| clf(text)).or_else(|| asctime(text))
}

fn clf(text: &[u8]) -> Option<i64> {
    let (day, rest) = text.split_at_checked(2)?;
    let (month, rest) = rest.strip_prefix(b"/")?.split_at_checked(3)?;
    let (year, rest) = rest.strip_prefix(b"/")?.split_at_checked(4)?;
    let (time, offset) = rest.strip_prefix(b":")?.split_at_checked(8)?;
    let offset = match offset {
        [] => offset,
        [b' ', offset @ ..] => offset,
        _ => return None,
    };
    instant(year, month, day, time, offset)
}

fn asctime(text: &[u8]) -> Option<i64> {
    let (_weekday, rest) = text.split_at_checked(3)?;
    let (month, rest) = rest.strip_prefix(b" ")?.split_at_checked(3)?;
    let (day, rest) = rest.strip_prefix(b" ")?.split_at_checked(2)?;
    let rest = rest.strip_prefix(b" ")?;
    let (time, year) = rest.split_at_checked(rest.len().checked_sub(5)?)?;
    let day = match day {
        [b' ', digit] => &[b'0', *digit],
        _ => day,
    };
    instant(year.strip_prefix(b" ")?, month, day, time, b"")
}

fn instant(year: &[u8], month: &[u8], day: &[u8], time: &[u8], offset: &[u8]) -> Option<i64> {
    let month = MONTHS.iter().position(|name| *name == month)? + 1;
    let month = format!("-{month:02}-");
    let text = [year, month.as_bytes(), day, b"T", time, offset].concat();
    datetime::timestamp(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_times_of_logs_are_read_and_near_misses_are_not() {
        let cases = [
            ("10/Oct/2000:13:55:36 -0700", Some("2000-10-10T20:55:36Z")),
            ("10/Oct/2000:13:55:36 +0000", Some("2000-10-10T13:55:36Z")),
            ("Sun Dec 04 04:47:44 2005", Some("2005-12-04T04:47:44Z")),
            ("Sun Dec  4 04:47:44 2005", Some("2005-12-04T04:47:44Z")),
            ("Sun Dec 04 04:47:44.123456 2005", Some("2005-12-04T04:47:44.123456Z")),
            ("2005-12-04T04:47:44Z", Some("2005-12-04T04:47:44Z")),
            ("30/Feb/2000:13:55:36 -0700", None),
            ("10/Okt/2000:13:55:36 -0700", None),
            ("10/Oct/2000:13:55:36-0700", None),
            ("10/Oct/2000:13:55:36 PST", None),
            ("Jun 14 15:16:01", None),
            ("", None),
        ];
        for (text, expected) in cases {
            let expected = expected.and_then(|text| datetime::timestamp(text.as_bytes()));
            assert_eq!(parse(text.as_bytes()), expected, "{text}");
        }
    }
}
