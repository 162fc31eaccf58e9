//! DEFAULT constants: from SQL to the column's type, exactly or not at all, and back.

use chrono::{DateTime, NaiveDate, NaiveDateTime};
use datafusion::sql::sqlparser::ast::{Expr as SqlExpr, UnaryOperator, Value};

use super::{Constant, Type};

/// The constant that an expression stands for; `None` for NULL.
pub(super) fn from_sql(expr: &SqlExpr, ty: Type) -> Result<Option<Constant>, String> {
    let (literal, negative) = match expr {
        SqlExpr::UnaryOp { op: UnaryOperator::Minus, expr } => (expr.as_ref(), true),
        SqlExpr::UnaryOp { op: UnaryOperator::Plus, expr } => (expr.as_ref(), false),
        SqlExpr::TypedString(typed) => {
            return match (&typed.value.value, ty) {
                (Value::SingleQuotedString(text), Type::Date | Type::Timestamp) => {
                    from_text(text, ty).map(Some)
                }
                _ => Err(misfit(expr, ty)),
            };
        }
        other => (other, false),
    };
    let SqlExpr::Value(value) = literal else {
        return Err(format!("DEFAULT takes a constant, not `{expr}`"));
    };
    match (&value.value, ty) {
        (Value::Null, _) => Ok(None),
        (Value::Boolean(value), Type::Boolean) => Ok(Some(Constant::Bool(*value))),
        (Value::Number(digits, _), _) => {
            let text = if negative { format!("-{digits}") } else { digits.clone() };
            from_number(&text, ty).map(Some)
        }
        (Value::SingleQuotedString(text), _) if !negative => from_text(text, ty).map(Some),
        _ => Err(misfit(expr, ty)),
    }
}

fn misfit(written: impl std::fmt::Display, ty: Type) -> String {
    format!("DEFAULT {written} does not fit {}", ty.sql())
}

fn from_number(text: &str, ty: Type) -> Result<Constant, String> {
    let range = match ty {
        Type::SmallInt => i64::from(i16::MIN)..=i64::from(i16::MAX),
        Type::Int => i64::from(i32::MIN)..=i64::from(i32::MAX),
        Type::BigInt => i64::MIN..=i64::MAX,
        Type::Real | Type::Double => {
            let number: f64 = text.parse().map_err(|_| misfit(text, ty))?;
            let fits = number.is_finite() && (ty == Type::Double || in_real(number));
            return if fits { Ok(Constant::Double(number)) } else { Err(misfit(text, ty)) };
        }
        Type::Decimal { precision, scale } => {
            return decimal(text, precision, scale)
                .map(Constant::Decimal)
                .ok_or_else(|| misfit(text, ty));
        }
        _ => return Err(misfit(text, ty)),
    };
    match text.parse::<i64>() {
        Ok(number) if range.contains(&number) => Ok(Constant::Int(number)),
        _ => Err(misfit(text, ty)),
    }
}

fn in_real(number: f64) -> bool {
    number.abs() <= f64::from(f32::MAX)
}

/// Exact: digits past the scale must be zero.
fn decimal(text: &str, precision: u8, scale: i8) -> Option<i128> {
    let scale = usize::try_from(scale).ok()?;
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let fraction = fraction.trim_end_matches('0');
    if fraction.len() > scale
        || !(whole.bytes().chain(fraction.bytes())).all(|b| b.is_ascii_digit())
    {
        return None;
    }
    let scaled: i128 = format!("{whole}{fraction:0<scale$}").parse().ok()?;
    let limit = 10_i128.checked_pow(u32::from(precision))?;
    (scaled < limit).then_some(if negative { -scaled } else { scaled })
}

fn from_text(text: &str, ty: Type) -> Result<Constant, String> {
    let wrong = || misfit(format!("'{text}'"), ty);
    match ty {
        Type::Text => Ok(Constant::Text(text.to_owned())),
        Type::Json => match serde_json::from_str::<serde::de::IgnoredAny>(text) {
            Ok(_) => Ok(Constant::Text(text.to_owned())),
            Err(error) => Err(format!("{}: {error}", wrong())),
        },
        Type::Date => {
            let day = NaiveDate::parse_from_str(text, "%Y-%m-%d").map_err(|_| wrong())?;
            let days = day.signed_duration_since(NaiveDate::default()).num_days();
            i32::try_from(days).map(Constant::Date).map_err(|_| wrong())
        }
        Type::Timestamp => timestamp(text).map(Constant::Timestamp).ok_or_else(wrong),
        _ => Err(wrong()),
    }
}

/// Microseconds since 1970 UTC; no offset means UTC.
fn timestamp(text: &str) -> Option<i64> {
    let moment = DateTime::parse_from_rfc3339(text)
        .map(|moment| moment.naive_utc())
        .or_else(|_| NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S%.f"))
        .or_else(|_| NaiveDateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S%.f"))
        .or_else(|_| {
            NaiveDate::parse_from_str(text, "%Y-%m-%d").map(|day| day.and_time(Default::default()))
        })
        .ok()?;
    let exact = moment.and_utc().timestamp_subsec_nanos() % 1000 == 0;
    exact.then(|| moment.and_utc().timestamp_micros())
}

/// The constant as DDL writes it.
pub(super) fn to_sql(constant: &Constant, ty: Type) -> String {
    let quote = |text: &str| format!("'{}'", text.replace('\'', "''"));
    match constant {
        Constant::Bool(value) => if *value { "TRUE" } else { "FALSE" }.to_owned(),
        Constant::Int(value) => value.to_string(),
        Constant::Double(value) => format!("{value:?}"),
        Constant::Decimal(value) => {
            let scale = match ty {
                Type::Decimal { scale, .. } => usize::try_from(scale).unwrap_or(0),
                _ => 0,
            };
            let digits = format!("{:0>width$}", value.unsigned_abs(), width = scale + 1);
            let (whole, fraction) = digits.split_at(digits.len() - scale);
            let sign = if *value < 0 { "-" } else { "" };
            let point = if scale > 0 { "." } else { "" };
            format!("{sign}{whole}{point}{fraction}")
        }
        Constant::Text(text) => quote(text),
        Constant::Date(days) => {
            let day = NaiveDate::default()
                .checked_add_signed(chrono::TimeDelta::days(i64::from(*days)))
                .unwrap_or_default();
            quote(&day.format("%Y-%m-%d").to_string())
        }
        Constant::Timestamp(micros) => {
            let moment = DateTime::from_timestamp_micros(*micros).unwrap_or_default();
            quote(&moment.format("%Y-%m-%dT%H:%M:%S%.6fZ").to_string())
        }
    }
}
