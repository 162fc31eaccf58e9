//! Where decoded rows are written: the columns, and what becomes of values that have none.
//! Owns the column buffers and what is known of the row being written; knows no format.

use std::collections::{HashMap, HashSet};

use super::columns::{Columns, Values};
use super::{Fallible, Fault, Limits, shorten};
use crate::record::{Code, EXTRA};
use crate::schema::{Schema, Unknown};

/// Where rows are written: the columns, and what becomes of values that have none.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) columns: Columns,
    pub(super) policy: Unknown,
    pub(super) limits: Limits,
    names: HashMap<Box<[u8]>, usize>,
    /// Which key came after which the last time; the first entry is for the start of a record.
    pub(super) follows: Vec<usize>,
    /// The index of `_extra`, if it is kept.
    extra_index: Option<usize>,
    /// The members of this row's `_extra`, without the braces.
    pub(super) extra: Vec<u8>,
    /// Names without a column in this row, for duplicates.
    strangers: HashSet<Box<[u8]>>,
    /// The first of them that has a value.
    pub(super) stranger: Option<String>,
    /// Names without a column that had a value in this chunk.
    pub(super) unknown: Vec<String>,
    pub(super) scratch: Vec<u8>,
}

impl Target {
    pub(super) fn new(schema: &Schema, policy: Unknown, limits: Limits) -> Target {
        let extra_index = match policy {
            Unknown::Keep => schema.column(EXTRA).map(|(index, _)| index),
            Unknown::DeadLetter | Unknown::Drop => None,
        };
        let names = schema.columns.iter().enumerate();
        Target {
            columns: Columns::new(schema),
            policy,
            limits,
            names: names
                .filter(|(index, _)| Some(*index) != extra_index)
                .map(|(index, column)| (column.name.as_bytes().into(), index))
                .collect(),
            follows: (0..=schema.columns.len()).collect(),
            extra_index,
            extra: Vec::new(),
            strangers: HashSet::new(),
            stranger: None,
            unknown: Vec::new(),
            scratch: Vec::new(),
        }
    }

    pub(super) fn index(&self, name: &[u8]) -> Option<usize> {
        self.names.get(name).copied()
    }

    pub(super) fn begin_row(&mut self) {
        self.columns.begin_row();
        self.extra.clear();
        self.stranger = None;
        if !self.strangers.is_empty() {
            self.strangers.clear();
        }
    }

    /// Ends the row: fills what it does not mention, and refuses it for a value without a column.
    pub(super) fn end_row(&mut self) -> Fallible<()> {
        if let Some(name) = self.stranger.take() {
            let message = format!(
                "the schema has no column {:?}; alter the stream, or set unknown = \"drop\" or \"keep\"",
                shorten(&name)
            );
            let mut fault = Fault::new(Code::UnknownColumn, message);
            fault.column = Some(name);
            return Err(fault);
        }
        if let (false, Some(index)) = (self.extra.is_empty(), self.extra_index) {
            self.columns.charge(self.extra.len());
            let builder = self.columns.slot(index)?;
            if let Values::Json(texts) | Values::Text(texts) = &mut builder.values {
                texts.data.push(b'{');
                texts.data.extend_from_slice(&self.extra);
                texts.data.push(b'}');
                texts.end();
            }
        }
        self.columns.end_row()
    }

    /// Notes a name without a column. Refuses the second of the same name in a row.
    pub(super) fn meet(&mut self, name: &[u8]) -> Fallible<()> {
        if self.strangers.len() >= self.limits.columns {
            let message = format!("more than {} keys without a column", self.limits.columns);
            return Err(Fault::new(Code::RowTooLarge, message));
        }
        if !self.strangers.insert(name.into()) {
            let mut fault =
                Fault::new(Code::DuplicateKey, "the record names this key twice; send it once");
            fault.column = Some(String::from_utf8_lossy(name).into_owned());
            return Err(fault);
        }
        Ok(())
    }

    /// Notes that a name without a column has a value.
    pub(super) fn unknown_value(&mut self, name: &[u8]) {
        let known = self.unknown.iter().any(|unknown| unknown.as_bytes() == name);
        if !known && self.unknown.len() < MOST_UNKNOWN {
            self.unknown.push(String::from_utf8_lossy(name).into_owned());
        }
        if self.policy == Unknown::DeadLetter && self.stranger.is_none() {
            self.stranger = Some(String::from_utf8_lossy(name).into_owned());
        }
    }

    pub(super) fn keeps(&self) -> bool {
        self.extra_index.is_some()
    }
}

/// How many unknown columns a decoding reports: that there is one is what matters.
const MOST_UNKNOWN: usize = 32;
