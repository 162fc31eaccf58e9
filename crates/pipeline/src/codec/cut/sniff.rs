//! What a body's delimiter is, where its sender did not say: judged by its first records, which are
//! read with each of the usual ones. Owns nothing; the same first bytes give the same answer.

use super::csv_record;
use crate::codec::csv_fields;
use crate::codec::dialect::{Dialect, Marks};

/// How much of a body is looked at, in bytes.
pub(super) const PREFIX: usize = 64 << 10;

/// How many records are looked at.
const RECORDS: u64 = 100;

/// The usual delimiters, the likeliest first.
const DELIMITERS: [u8; 4] = [b',', b';', b'\t', b'|'];

/// How the first records look between delimiters of one kind.
#[derive(Debug, Clone, Copy)]
struct Look {
    /// Fields of the first record.
    fields: usize,
    /// Records with as many fields as the first, of how many.
    agree: u64,
    of: u64,
}

impl Look {
    /// A delimiter that separates nothing, or of which most records know nothing, is none.
    fn separates(&self) -> bool {
        self.fields > 1 && self.agree * 2 > self.of
    }

    /// The records agree better; or as well, on more fields.
    fn better_than(&self, other: &Look) -> bool {
        let (ours, theirs) = (self.agree * other.of, other.agree * self.of);
        ours > theirs || ours == theirs && self.fields > other.fields
    }
}

/// The delimiter of the body that begins with `prefix` (and is that, if `whole`): the one on whose
/// count of fields the first records agree best. A comma where nothing speaks for another.
pub(super) fn delimiter(prefix: &[u8], whole: bool, dialect: &Dialect) -> u8 {
    let mut best: Option<(u8, Look)> = None;
    for delimiter in DELIMITERS {
        let marks = dialect.marks(delimiter);
        if [marks.quote, marks.escape, marks.comment].contains(&Some(delimiter)) {
            continue;
        }
        let look = look(prefix, whole, marks);
        if look.separates() && best.is_none_or(|(_, best)| look.better_than(&best)) {
            best = Some((delimiter, look));
        }
    }
    best.map_or(b',', |(delimiter, _)| delimiter)
}

fn look(prefix: &[u8], whole: bool, marks: Marks) -> Look {
    let mut look = Look { fields: 0, agree: 0, of: 0 };
    let mut rest = prefix;
    while !rest.is_empty() && look.of < RECORDS {
        let (record, after) = rest.split_at(csv_record(rest, marks).max(1));
        rest = after;
        let cut_off = rest.is_empty() && !whole;
        if cut_off || is_no_record(record, marks) {
            continue;
        }
        let fields = csv_fields::count(record, marks).unwrap_or(0);
        if look.of == 0 {
            look.fields = fields;
        }
        look.of += 1;
        look.agree += u64::from(fields == look.fields);
    }
    look
}

/// True for a blank line and a comment.
pub(in crate::codec) fn is_no_record(line: &[u8], marks: Marks) -> bool {
    let Some(first) = line.first() else { return true };
    matches!(first, b'\n' | b'\r') || marks.comment == Some(*first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_delimiter_is_the_one_on_which_the_first_records_agree() {
        let cases = [
            ("a,b\n1,2\n", b','),
            ("a;b;c\n1,5;2,5;3\n4;5;6\n", b';'),
            ("a;b;c\n1,5;2;3", b';'),
            ("Name;Preis, EUR;Menge\nx;1,5;2\ny;2,5;1\n", b';'),
            ("a\tb\nx, y\tz\n", b'\t'),
            ("a|b|c\n1|2|3\n", b'|'),
            ("a|b|c", b'|'),
            // Quoted ones separate nothing.
            ("a,b\n\"1;2;3\",x\n\"4;5;6\",y\n", b','),
            ("\"a;b\",c\n\"1;2\",3\n", b','),
            // Texts that hold others here and there.
            ("id,note\n1,a; b\n2,c|d\n3,e\n", b','),
            ("a;b\n1,2\n3,4\n5,6\n", b','),
            // Nothing to tell by: a comma.
            ("a\n1\n2\n", b','),
            ("a,b;c\n1,2;3\n", b','),
            ("", b','),
            ("\n\n", b','),
            // Some rows are ragged.
            ("a;b\n1;2\n3\n4;5\n", b';'),
        ];
        for (body, expected) in cases {
            let found = delimiter(body.as_bytes(), true, &Dialect::default());
            assert_eq!(char::from(found), char::from(expected), "{body:?}");
        }
    }

    #[test]
    fn a_record_that_the_prefix_cuts_off_has_no_say_and_said_marks_are_no_delimiters() {
        let dialect = Dialect::default();
        assert_eq!(delimiter(b"a;b\n1;2\n3;", false, &dialect), b';');
        assert_eq!(delimiter(b"a;b\n1,2\n3,4", true, &dialect), b',');
        let comment = Dialect { comment: Some(b';'), ..Dialect::default() };
        assert_eq!(delimiter(b"; x; y\na|b\n1|2\n", true, &comment), b'|');
    }
}
