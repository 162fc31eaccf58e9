//! Plain separated values into columns, one column after the other: the quick way for records
//! without quotes that have the right number of fields. What it makes of them is what `csv_rows`
//! makes of each: a value that is not of its column's common spelling is read there.
//!
//! Owns nothing. Rows at fault are taken back when all their columns are done.

use std::collections::BTreeMap;

use super::columns::{Builder, Texts, Values};
use super::csv_fields::Token;
use super::csv_index::Index;
use super::csv_rows::{Cell, Field, Fields};
use super::target::Target;
use super::{Fault, datetime, number};

/// Rows of a run that are refused, by their place in it, and why.
pub(super) type Faults = BTreeMap<usize, Box<Fault>>;

/// Lines of a stretch that have as many fields as there are columns.
#[derive(Debug, Clone, Copy)]
pub(super) struct Run<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) index: &'a Index,
    /// The first of them, and how many.
    pub(super) line: usize,
    pub(super) lines: usize,
}

impl Target {
    /// True if records of these fields may be read column by column: each field has its column, and
    /// those that have no field are NULL.
    pub(super) fn takes_columns(&self, fields: &Fields) -> bool {
        let marks = fields.layout.marks;
        let all = fields.all.iter().all(|field| matches!(field, Field::Column(_)));
        // In a single column a line end and a blank line cannot be told apart here.
        let plain = marks.escape.is_none() && marks.comment.is_none() && fields.all.len() > 1;
        let mut missing = self.columns.builders.iter().enumerate().filter(|(index, _)| {
            !fields.all.iter().any(|field| matches!(field, Field::Column(known) if known == index))
        });
        plain
            && all
            && missing
                .all(|(_, builder)| builder.column.nullable && builder.column.default.is_none())
    }

    /// Reads the lines of a run into the columns. Rows at fault are left out and returned.
    pub(super) fn csv_run(&mut self, run: Run<'_>, fields: &Fields) -> Faults {
        let mut faults = Faults::new();
        let base = self.columns.rows();
        let scratch = &mut self.scratch;
        for (index, field) in fields.all.iter().enumerate() {
            let Field::Column(column) = field else { continue };
            let Some(builder) = self.columns.builders.get_mut(*column) else { continue };
            let cell = Cell { layout: &fields.layout, row: base, depth: self.limits.depth };
            let mut slow = |builder: &mut Builder, at: usize, from: usize, to: usize| {
                let token = Token { from, to, quoted: false, escaped: false, end: to };
                let cell = Cell { row: base + at, ..cell };
                if let Err(mut fault) = cell.put(run.bytes, token, builder, scratch) {
                    builder.values.push_blank();
                    fault.column = Some(builder.column.name.clone());
                    faults.entry(at).or_insert(fault);
                }
            };
            run.column(index, fields, builder, &mut slow);
        }
        self.columns.end_run(run.lines);
        if !faults.is_empty() {
            let rows: Vec<usize> = faults.keys().copied().collect();
            self.columns.remove(base, &rows);
        }
        faults
    }
}

impl<'a> Run<'a> {
    /// Where each record begins and ends, without its line end.
    pub(super) fn spans(self) -> impl Iterator<Item = (usize, usize)> + use<'a> {
        let Run { bytes, index, line, lines } = self;
        (line..line + lines).map(move |line| {
            let start = index.start(line).unwrap_or(0);
            let mut end = index.start(line + 1).unwrap_or(start + 1) - 1;
            if index.returns && end > start && bytes.get(end - 1) == Some(&b'\r') {
                end -= 1;
            }
            (start, end)
        })
    }

    /// Reads one field of every line.
    fn column(
        self,
        field: usize,
        fields: &Fields,
        builder: &mut Builder,
        slow: &mut impl FnMut(&mut Builder, usize, usize, usize),
    ) {
        let bytes = self.bytes;
        let filling = Filling { run: self, field, fields };
        match &builder.values {
            Values::SmallInt(_) => filling.fill(builder, slow, smallints, |from, to| {
                i16::try_from(number::integer_between(bytes, from, to)?).ok()
            }),
            Values::Int(_) => filling.fill(builder, slow, ints, |from, to| {
                i32::try_from(number::integer_between(bytes, from, to)?).ok()
            }),
            Values::BigInt(_) => filling
                .fill(builder, slow, bigints, |from, to| number::integer_between(bytes, from, to)),
            Values::Double(_) => filling
                .fill(builder, slow, doubles, |from, to| number::double_between(bytes, from, to)),
            Values::Timestamp(_) => {
                let mut days = datetime::Days::default();
                filling.fill(builder, slow, timestamps, |from, to| {
                    days.timestamp(bytes.get(from..to)?)
                });
            }
            Values::Text(_) => filling.texts(builder, slow),
            _ => {
                for (at, (from, to)) in filling.cells().enumerate() {
                    slow(builder, at, from, to);
                }
            }
        }
    }
}

/// Ways to the vector of a type.
macro_rules! vector {
    ($name:ident, $variant:ident, $ty:ty) => {
        fn $name(values: &mut Values) -> Option<&mut Vec<$ty>> {
            match values {
                Values::$variant(vector) => Some(vector),
                _ => None,
            }
        }
    };
}

vector!(smallints, SmallInt, i16);
vector!(ints, Int, i32);
vector!(bigints, BigInt, i64);
vector!(doubles, Double, f64);
vector!(timestamps, Timestamp, i64);

/// One field of every line of a run, on its way into its column.
#[derive(Clone, Copy)]
struct Filling<'a> {
    run: Run<'a>,
    field: usize,
    fields: &'a Fields,
}

impl<'a> Filling<'a> {
    #[inline]
    fn cells(self) -> impl Iterator<Item = (usize, usize)> + use<'a> {
        let Run { bytes, index, line, lines } = self.run;
        let width = self.fields.all.len();
        // Only the last field has a line end behind it.
        let returns = index.returns && self.field + 1 == width;
        index.cells(line, lines, self.field, width).map(move |(from, to)| {
            let cr = returns && to > from && bytes.get(to - 1) == Some(&b'\r');
            (from, to - usize::from(cr))
        })
    }

    /// True if the field says the body's own text for NULL.
    #[inline]
    fn is_named_null(self, from: usize, to: usize) -> bool {
        let null = self.fields.layout.null.as_deref();
        null.is_some_and(|null| self.run.bytes.get(from..to) == Some(null.as_bytes()))
    }

    /// Reads every field that `parse` can, and leaves the others to `slow`.
    #[inline]
    fn fill<T>(
        self,
        builder: &mut Builder,
        slow: &mut impl FnMut(&mut Builder, usize, usize, usize),
        vector: fn(&mut Values) -> Option<&mut Vec<T>>,
        mut parse: impl FnMut(usize, usize) -> Option<T>,
    ) {
        // Held here while it grows: the loop need not look for it.
        let mut values = vector(&mut builder.values).map(std::mem::take).unwrap_or_default();
        values.reserve(self.run.lines);
        for (at, (from, to)) in self.cells().enumerate() {
            match parse(from, to) {
                Some(value) if !self.is_named_null(from, to) => values.push(value),
                _ => {
                    if let Some(home) = vector(&mut builder.values) {
                        std::mem::swap(home, &mut values);
                    }
                    slow(builder, at, from, to);
                    if let Some(home) = vector(&mut builder.values) {
                        std::mem::swap(home, &mut values);
                    }
                }
            }
        }
        if let Some(home) = vector(&mut builder.values) {
            *home = values;
        }
    }

    /// As [`fill`](Self::fill), for texts: all but the empty ones are as they stand.
    fn texts(
        self,
        builder: &mut Builder,
        slow: &mut impl FnMut(&mut Builder, usize, usize, usize),
    ) {
        fn texts(values: &mut Values) -> Option<&mut Texts> {
            match values {
                Values::Text(texts) => Some(texts),
                _ => None,
            }
        }
        let mut held = texts(&mut builder.values).map(std::mem::take).unwrap_or_default();
        for (at, (from, to)) in self.cells().enumerate() {
            if from < to && !self.is_named_null(from, to) {
                held.push_from(self.run.bytes, from, to);
                continue;
            }
            if let Some(home) = texts(&mut builder.values) {
                std::mem::swap(home, &mut held);
            }
            slow(builder, at, from, to);
            if let Some(home) = texts(&mut builder.values) {
                std::mem::swap(home, &mut held);
            }
        }
        if let Some(home) = texts(&mut builder.values) {
            *home = held;
        }
    }
}
