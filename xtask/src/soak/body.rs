//! A body of any size that is never held: each row follows from its number, and all have one length, so that a
//! body can be begun anywhere. Does no I/O but into the writer it is given.

use std::io::{self, Write};

/// Rows are numbered from here, so that each number has as many digits.
const FIRST: u64 = 1_000_000_000;
/// Rows written at once.
const BATCH: u64 = 4096;

/// How the rows are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Ndjson,
    Csv,
}

impl Form {
    pub(super) fn name(self) -> &'static str {
        match self {
            Form::Ndjson => "ndjson",
            Form::Csv => "csv",
        }
    }

    pub(super) fn content_type(self) -> &'static str {
        match self {
            Form::Ndjson => "application/x-ndjson",
            Form::Csv => "text/csv",
        }
    }

    fn header(self) -> &'static str {
        match self {
            Form::Ndjson => "",
            Form::Csv => "n,name,value,at\n",
        }
    }

    fn row(self, number: u64) -> String {
        let (n, value) = (FIRST + number, number.wrapping_mul(7919) % 1_000_000);
        let at = format!("2013-01-{:02}T{:02}:00:00Z", 1 + number % 28, number % 24);
        match self {
            Form::Ndjson => {
                format!(
                    "{{\"n\":{n},\"name\":\"row {n}\",\"value\":0.{value:06},\"at\":\"{at}\"}}\n"
                )
            }
            Form::Csv => format!("{n},row {n},0.{value:06},{at}\n"),
        }
    }
}

/// A body of so many rows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Body {
    pub(super) form: Form,
    pub(super) rows: u64,
}

impl Body {
    /// A body of about `bytes`.
    pub(super) fn of(form: Form, bytes: u64) -> Body {
        Body { form, rows: bytes / form.row(0).len() as u64 }
    }

    /// What the numbers of all rows add up to.
    pub(super) fn sum(&self) -> u128 {
        let rows = u128::from(self.rows);
        rows * u128::from(FIRST) + rows * rows.saturating_sub(1) / 2
    }

    /// Writes the first `prefix` bytes, and then everything from `offset` on.
    pub(super) fn write(&self, prefix: u64, offset: u64, out: &mut dyn Write) -> io::Result<()> {
        self.slice(0, prefix, out)?;
        self.slice(offset, u64::MAX, out)?;
        out.flush()
    }

    /// Writes the bytes of `from..to`, as far as there are any.
    fn slice(&self, from: u64, to: u64, out: &mut dyn Write) -> io::Result<()> {
        let header = self.form.header().as_bytes();
        let (width, head) = (self.form.row(0).len() as u64, header.len() as u64);
        let mut at = from;
        while at < to {
            let (start, text) = match at.checked_sub(head) {
                None => (0, header.to_vec()),
                Some(behind) => {
                    let first = behind / width;
                    let rows = first..self.rows.min(first + BATCH);
                    let text: String = rows.map(|number| self.form.row(number)).collect();
                    (head + first * width, text.into_bytes())
                }
            };
            let place = |at: u64| usize::try_from(at - start).unwrap_or(usize::MAX).min(text.len());
            let piece = text.get(place(at)..place(to)).unwrap_or_default();
            if piece.is_empty() {
                break;
            }
            out.write_all(piece)?;
            at += piece.len() as u64;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_begun_anywhere_is_the_tail_of_the_whole() -> io::Result<()> {
        for form in [Form::Ndjson, Form::Csv] {
            let body = Body { form, rows: 5000 };
            let mut whole = Vec::new();
            body.write(0, 0, &mut whole)?;
            for offset in [0, 1, 15, 16, 17, 100, whole.len() - 1, whole.len()] {
                for prefix in [0, 3, 1000, 200_000] {
                    let mut parts = Vec::new();
                    body.write(prefix as u64, offset as u64, &mut parts)?;
                    assert_eq!(parts.get(..prefix), whole.get(..prefix));
                    assert_eq!(parts.get(prefix..), whole.get(offset..), "{form:?} from {offset}");
                }
            }
        }
        Ok(())
    }

    #[test]
    fn the_sum_is_that_of_the_rows() {
        let body = Body { form: Form::Csv, rows: 4 };
        assert_eq!(body.sum(), 4_000_000_006);
    }
}
