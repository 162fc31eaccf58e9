//! Why rows are refused, in words. Every message is bounded: values are shortened.

use super::number::{self, Unfit};
use crate::record::Code;
use crate::schema::Type;

/// A value for a message: at most 64 characters of it.
pub(super) fn shorten(value: &str) -> String {
    const MOST: usize = 64;
    match value.char_indices().nth(MOST) {
        None => value.to_owned(),
        Some((end, _)) => value.get(..end).unwrap_or_default().to_owned() + "…",
    }
}

/// As [`shorten`], for bytes of which nothing is known.
pub(super) fn shorten_bytes(value: &[u8]) -> String {
    shorten(&String::from_utf8_lossy(value.get(..300).unwrap_or(value)))
}

/// The DDL word of a type, for messages.
pub(super) fn type_name(ty: Type) -> String {
    let name = match ty {
        Type::Boolean => "BOOLEAN",
        Type::SmallInt => "SMALLINT",
        Type::Int => "INT",
        Type::BigInt => "BIGINT",
        Type::Real => "REAL",
        Type::Double => "DOUBLE",
        Type::Decimal { precision, scale } => return format!("DECIMAL({precision},{scale})"),
        Type::Text => "TEXT",
        Type::Date => "DATE",
        Type::Timestamp => "TIMESTAMP",
        Type::Json => "JSON",
    };
    name.to_owned()
}

/// Why a row is refused, before its raw bytes and number are put to it.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) code: Code,
    /// Where in the record, for faults of grammar.
    pub(super) at: Option<usize>,
    pub(super) column: Option<String>,
    pub(super) message: String,
}

/// Boxed: rows are rarely refused, and the good ones should not carry room for it.
pub(super) type Fallible<T> = Result<T, Box<Fault>>;

impl Fault {
    pub(super) fn new(code: Code, message: impl Into<String>) -> Box<Fault> {
        Box::new(Fault { code, at: None, column: None, message: message.into() })
    }

    pub(super) fn syntax(at: usize, message: impl Into<String>) -> Box<Fault> {
        Box::new(Fault { code: Code::Syntax, at: Some(at), column: None, message: message.into() })
    }
}

/// The fault of a number that its column cannot hold.
#[cold]
pub(super) fn unfit(why: Unfit, text: &[u8], ty: Type) -> Box<Fault> {
    let (value, name) = (shorten_bytes(text), type_name(ty));
    match (why, ty) {
        (Unfit::Overflow, _) => {
            Fault::new(Code::OutOfRange, format!("{value} is outside the range of {name}"))
        }
        (Unfit::Inexact, Type::Decimal { scale, .. }) => Fault::new(
            Code::OutOfRange,
            format!("{value} has more than {scale} digits after the point; the column is {name}"),
        ),
        (Unfit::Inexact, _) => Fault::new(
            Code::TypeMismatch,
            format!("{value} has a fraction; the column is {name} (alter it to DOUBLE to keep it)"),
        ),
        (Unfit::NotNumber, _) => mismatch(text, ty),
    }
}

/// The fault of a value of another kind than its column's.
#[cold]
pub(super) fn mismatch(text: &[u8], ty: Type) -> Box<Fault> {
    let value = shorten_bytes(text);
    let hint = match (ty, text.first()) {
        (Type::Timestamp, Some(b'-' | b'0'..=b'9')) => "; send a text, 2013-01-31T10:00:00Z",
        (Type::Date, Some(b'-' | b'0'..=b'9')) => "; send a text, 2013-01-31",
        (Type::SmallInt | Type::Int | Type::BigInt | Type::Real | Type::Double, Some(b'"'))
            if is_quoted_number(text) =>
        {
            "; send it without quotes"
        }
        _ => "",
    };
    Fault::new(Code::TypeMismatch, format!("expected {}, found {value}{hint}", type_name(ty)))
}

fn is_quoted_number(text: &[u8]) -> bool {
    let inner = text.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\""));
    inner.is_some_and(number::is_number)
}

/// The fault of a text that is no day or no instant.
#[cold]
pub(super) fn invalid_date(text: &[u8], ty: Type) -> Box<Fault> {
    let value = shorten_bytes(text);
    let shape = match ty {
        Type::Date => "a day (YYYY-MM-DD)",
        _ => "a time (YYYY-MM-DDThh:mm:ss, with an offset or in UTC)",
    };
    // Where the seconds stand in either.
    let hint = match text.get(16..19) {
        Some(b":60") => "; clocks of 86,400 seconds a day have no leap second, send :59",
        _ => "",
    };
    Fault::new(
        Code::InvalidDate,
        format!("{value} is not {shape}; the column is {}{hint}", type_name(ty)),
    )
}
