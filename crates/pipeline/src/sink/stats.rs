//! What a Delta log says of a file: rows, NULLs and bounds per column, so that queries skip it unread.
//!
//! Bounds are exact or too wide, never too narrow: decimals are written digit by digit (not through a float), text is
//! cut to a shorter lower and a greater upper bound, and where NaN or an unprintable date occurs none are given.

use std::fmt::Write as _;

use arrow::datatypes::{DataType, Schema};
use chrono::{DateTime, Datelike, Days, NaiveDate};
use parquet::data_type::{ByteArray, FixedLenByteArray};
use parquet::file::metadata::ParquetMetaData;
use parquet::file::statistics::Statistics;

/// Columns that get statistics, from the left: Delta's default.
const INDEXED_COLUMNS: usize = 32;

/// Bytes of text kept in a bound.
pub(super) const TEXT_BOUND_BYTES: usize = 32;

#[derive(Debug, Clone, PartialEq, PartialOrd)]
enum Bound {
    Int(i128),
    Double(f64),
    Text(String),
}

#[derive(Debug, Default)]
struct Column {
    nulls: u64,
    bounds: Option<(Bound, Bound)>,
    unbounded: bool,
}

/// The statistics of a flat file, as the JSON text of an `add` action. `nan[i]`: column `i` holds a NaN.
pub(super) fn of_file(file: &ParquetMetaData, schema: &Schema, nan: &[bool]) -> String {
    let mut minima = Vec::new();
    let mut maxima = Vec::new();
    let mut nulls = Vec::new();
    for (index, field) in schema.fields().iter().enumerate().take(INDEXED_COLUMNS) {
        let name = serde_json::Value::from(field.name().as_str());
        let column = column(file, index);
        nulls.push(format!("{name}:{}", column.nulls));
        if column.unbounded || nan.get(index).copied().unwrap_or(true) {
            continue;
        }
        let Some((least, greatest)) = column.bounds else { continue };
        let texts = (render(&least, field.data_type()), render(&greatest, field.data_type()));
        if let (Some(least), Some(greatest)) = texts {
            minima.push(format!("{name}:{least}"));
            maxima.push(format!("{name}:{greatest}"));
        }
    }
    format!(
        "{{\"numRecords\":{},\"minValues\":{{{}}},\"maxValues\":{{{}}},\"nullCount\":{{{}}}}}",
        file.file_metadata().num_rows(),
        minima.join(","),
        maxima.join(","),
        nulls.join(",")
    )
}

fn column(file: &ParquetMetaData, index: usize) -> Column {
    let mut all = Column::default();
    for group in file.row_groups() {
        let rows = u64::try_from(group.num_rows()).unwrap_or(0);
        let Some(stats) = group.columns().get(index).and_then(|chunk| chunk.statistics()) else {
            all.unbounded = true;
            continue;
        };
        let nulls = stats.null_count_opt().unwrap_or(0);
        all.nulls += nulls;
        match (bounds(stats), all.bounds.take()) {
            (Some((low, high)), Some((least, greatest))) => {
                let low = if low < least { low } else { least };
                let high = if high > greatest { high } else { greatest };
                all.bounds = Some((low, high));
            }
            (Some(found), None) => all.bounds = Some(found),
            (None, kept) => {
                all.bounds = kept;
                all.unbounded |= nulls < rows;
            }
        }
    }
    all
}

fn bounds(stats: &Statistics) -> Option<(Bound, Bound)> {
    let int = |v: i128| Bound::Int(v);
    Some(match stats {
        Statistics::Int32(s) => (int((*s.min_opt()?).into()), int((*s.max_opt()?).into())),
        Statistics::Int64(s) => (int((*s.min_opt()?).into()), int((*s.max_opt()?).into())),
        Statistics::Float(s) => {
            (Bound::Double((*s.min_opt()?).into()), Bound::Double((*s.max_opt()?).into()))
        }
        Statistics::Double(s) => (Bound::Double(*s.min_opt()?), Bound::Double(*s.max_opt()?)),
        Statistics::ByteArray(s) => (text(s.min_opt()?)?, text(s.max_opt()?)?),
        Statistics::FixedLenByteArray(s) => {
            (int(big_endian(s.min_opt()?)?), int(big_endian(s.max_opt()?)?))
        }
        Statistics::Boolean(_) | Statistics::Int96(_) => return None,
    })
}

fn text(bytes: &ByteArray) -> Option<Bound> {
    std::str::from_utf8(bytes.data()).ok().map(|text| Bound::Text(text.to_owned()))
}

/// A decimal's two's complement, as Parquet writes it.
fn big_endian(bytes: &FixedLenByteArray) -> Option<i128> {
    let bytes = bytes.data();
    let negative = *bytes.first()? & 0x80 != 0;
    let mut wide = [if negative { 0xff } else { 0 }; 16];
    wide.get_mut(16usize.checked_sub(bytes.len())?..)?.copy_from_slice(bytes);
    Some(i128::from_be_bytes(wide))
}

/// A bound as JSON; `None` where the type or the value has no such text.
fn render(bound: &Bound, ty: &DataType) -> Option<String> {
    match (bound, ty) {
        (Bound::Int(v), DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64) => {
            Some(v.to_string())
        }
        (Bound::Int(v), DataType::Decimal128(_, scale)) => {
            Some(decimal(*v, u32::try_from(*scale).ok()?))
        }
        (Bound::Int(v), DataType::Date32) => {
            let days = i64::try_from(*v).ok()?;
            let epoch = NaiveDate::from_ymd_opt(1970, 1, 1)?;
            let shift = Days::new(days.unsigned_abs());
            let date = if days < 0 {
                epoch.checked_sub_days(shift)?
            } else {
                epoch.checked_add_days(shift)?
            };
            in_range(date.year()).then(|| format!("\"{}\"", date.format("%Y-%m-%d")))
        }
        (Bound::Int(v), DataType::Timestamp(..)) => {
            let at = DateTime::from_timestamp_micros(i64::try_from(*v).ok()?)?;
            in_range(at.year()).then(|| format!("\"{}\"", at.format("%Y-%m-%dT%H:%M:%S%.6fZ")))
        }
        (Bound::Double(v), DataType::Float32 | DataType::Float64) => {
            v.is_finite().then(|| serde_json::Value::from(*v).to_string())
        }
        (Bound::Text(v), DataType::Utf8) => Some(serde_json::Value::from(v.as_str()).to_string()),
        _ => None,
    }
}

/// Four-digit years, which every reader parses.
fn in_range(year: i32) -> bool {
    (1..=9999).contains(&year)
}

fn decimal(unscaled: i128, scale: u32) -> String {
    let digits = unscaled.unsigned_abs();
    let unit = 10u128.checked_pow(scale).unwrap_or(u128::MAX);
    let mut out = String::with_capacity(41);
    if unscaled < 0 {
        out.push('-');
    }
    let written = if scale == 0 {
        write!(out, "{digits}")
    } else {
        write!(out, "{}.{:0width$}", digits / unit, digits % unit, width = scale as usize)
    };
    debug_assert!(written.is_ok(), "writing to a String does not fail");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_written_digit_by_digit() {
        assert_eq!(decimal(0, 2), "0.00");
        assert_eq!(decimal(-5, 2), "-0.05");
        assert_eq!(decimal(99_999_999_999_999_999_999_999_999_999_999_999_999, 0).len(), 38);
        assert_eq!(decimal(123_456_789_012_345_678_901, 10), "12345678901.2345678901");
    }

    #[test]
    fn a_negative_decimal_is_read_with_its_sign() {
        let bytes: FixedLenByteArray = vec![0xff, 0xfe].into();
        assert_eq!(big_endian(&bytes), Some(-2));
        let bytes: FixedLenByteArray = vec![0x01, 0x00].into();
        assert_eq!(big_endian(&bytes), Some(256));
    }

    #[test]
    fn years_beyond_four_digits_have_no_bound() {
        let year_10000 = 253_402_300_800_000_000;
        let ty = DataType::Timestamp(arrow::datatypes::TimeUnit::Microsecond, Some("UTC".into()));
        assert_eq!(render(&Bound::Int(year_10000), &ty), None);
        assert_eq!(
            render(&Bound::Int(1_500_000), &ty).as_deref(),
            Some("\"1970-01-01T00:00:01.500000Z\"")
        );
        assert_eq!(render(&Bound::Int(-1), &DataType::Date32).as_deref(), Some("\"1969-12-31\""));
    }
}
