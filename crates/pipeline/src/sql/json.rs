//! `json_get(json, key…)` and its typed kin: reading inside a JSON column from SQL.
//!
//! A path is keys (text) and indices (integers, from 0). Whatever is not there, or not of the type
//! asked for, is NULL; a text that is not JSON gives NULL, never an error. Nothing is parsed but the
//! way to the value: everything beside it is skipped.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanBuilder, Float64Builder, Int64Builder, StringArray,
    StringBuilder,
};
use arrow::datatypes::{DataType, Field, FieldRef, Int64Type};
use datafusion::common::{Result, ScalarValue, exec_err, plan_err};
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility,
};

/// Field metadata that tells a JSON column from TEXT: what `schema::TYPE_KEY` names.
const JSON: (&str, &str) = ("forebay.type", "json");

/// All JSON functions, for a session's registry.
pub fn functions() -> Vec<Arc<ScalarUDF>> {
    [
        ("json_get", Kind::Json),
        ("json_get_json", Kind::Json),
        ("json_get_str", Kind::Str),
        ("json_get_int", Kind::Int),
        ("json_get_float", Kind::Float),
        ("json_get_bool", Kind::Bool),
    ]
    .into_iter()
    .map(|(name, kind)| {
        Arc::new(ScalarUDF::new_from_impl(JsonGet {
            name,
            kind,
            signature: Signature::user_defined(Volatility::Immutable),
        }))
    })
    .collect()
}

/// What a function gives back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    /// The value's JSON text; NULL for JSON null.
    Json,
    /// A string's content.
    Str,
    /// An integer that fits 64 bits.
    Int,
    /// Any number.
    Float,
    /// true or false.
    Bool,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct JsonGet {
    name: &'static str,
    kind: Kind,
    signature: Signature,
}

impl ScalarUDFImpl for JsonGet {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(match self.kind {
            Kind::Json | Kind::Str => DataType::Utf8,
            Kind::Int => DataType::Int64,
            Kind::Float => DataType::Float64,
            Kind::Bool => DataType::Boolean,
        })
    }

    fn return_field_from_args(&self, arguments: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        let types: Vec<_> =
            arguments.arg_fields.iter().map(|field| field.data_type().clone()).collect();
        let field = Field::new(self.name, self.return_type(&types)?, true);
        Ok(Arc::new(match self.kind {
            Kind::Json => field.with_metadata([(JSON.0.to_owned(), JSON.1.to_owned())].into()),
            _ => field,
        }))
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        let [first, path @ ..] = types else {
            return plan_err!("{} takes a JSON value and a path of keys or indices", self.name);
        };
        if !(first.is_string() || first.is_null()) {
            return plan_err!("{} reads JSON or TEXT, not {first}", self.name);
        }
        let path = path.iter().map(|step| match step {
            step if step.is_string() || step.is_null() => Ok(DataType::Utf8),
            step if step.is_integer() => Ok(DataType::Int64),
            step => plan_err!("a step of {}'s path is a key or an index, not {step}", self.name),
        });
        std::iter::once(Ok(DataType::Utf8)).chain(path).collect()
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let scalar = arguments.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let rows = if scalar { 1 } else { arguments.number_rows };
        let mut arrays = arguments.args.iter().map(|arg| arg.clone().into_array(rows));
        let Some(values) = arrays.next().transpose()? else {
            return exec_err!("{} needs a JSON value", self.name);
        };
        let path = arrays.map(|array| Path::new(array?)).collect::<Result<Vec<_>>>()?;
        let Some(values) = values.as_string_opt::<i32>() else {
            return exec_err!("{} was planned for TEXT", self.name);
        };
        let found = self.collect(values, &path);
        if scalar {
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&found, 0)?));
        }
        Ok(ColumnarValue::Array(found))
    }
}

/// One step of a path, for every row.
enum Path {
    Keys(StringArray),
    Indices(arrow::array::Int64Array),
}

impl Path {
    fn new(array: ArrayRef) -> Result<Path> {
        if let Some(keys) = array.as_string_opt::<i32>() {
            return Ok(Path::Keys(keys.clone()));
        }
        match array.as_primitive_opt::<Int64Type>() {
            Some(indices) => Ok(Path::Indices(indices.clone())),
            None => exec_err!("a step of a JSON path is a key or an index"),
        }
    }

    fn walk<'a>(&self, row: usize, text: &'a str) -> Option<&'a str> {
        match self {
            Path::Keys(keys) if keys.is_valid(row) => member(text, keys.value(row)),
            Path::Indices(indices) if indices.is_valid(row) => {
                element(text, usize::try_from(indices.value(row)).ok()?)
            }
            _ => None,
        }
    }
}

impl JsonGet {
    fn collect(&self, values: &StringArray, path: &[Path]) -> ArrayRef {
        let found = (0..values.len()).map(|row| {
            let text = values.is_valid(row).then(|| values.value(row))?;
            path.iter().try_fold(text.trim_matches(WHITE), |text, step| step.walk(row, text))
        });
        match self.kind {
            Kind::Json => {
                let mut out = StringBuilder::with_capacity(values.len(), 0);
                found.for_each(|text| {
                    out.append_option(text.filter(|text| *text != "null" && is_whole(text)));
                });
                Arc::new(out.finish())
            }
            Kind::Str => {
                let mut out = StringBuilder::with_capacity(values.len(), 0);
                found.for_each(|text| match text.and_then(raw_string) {
                    Some(raw) if !raw.contains('\\') => out.append_value(raw),
                    Some(_) => out.append_option(text.and_then(unescaped)),
                    None => out.append_null(),
                });
                Arc::new(out.finish())
            }
            Kind::Int => {
                let mut out = Int64Builder::with_capacity(values.len());
                found.for_each(|text| out.append_option(text.and_then(|text| text.parse().ok())));
                Arc::new(out.finish())
            }
            Kind::Float => {
                let mut out = Float64Builder::with_capacity(values.len());
                found.for_each(|text| out.append_option(text.and_then(number)));
                Arc::new(out.finish())
            }
            Kind::Bool => {
                let mut out = BooleanBuilder::with_capacity(values.len());
                found.for_each(|text| out.append_option(text.and_then(|text| text.parse().ok())));
                Arc::new(out.finish())
            }
        }
    }
}

const WHITE: [char; 4] = [' ', '\t', '\n', '\r'];

fn number(text: &str) -> Option<f64> {
    let first = text.bytes().next()?;
    if !(first == b'-' || first.is_ascii_digit()) {
        return None;
    }
    text.parse().ok().filter(|number: &f64| number.is_finite())
}

/// True when the text is one JSON value and nothing after it.
fn is_whole(text: &str) -> bool {
    serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok()
}

/// The characters between a string's quotes, escapes as they stand.
fn raw_string(text: &str) -> Option<&str> {
    if !text.starts_with('"') || value_end(text.as_bytes(), 0) != Some(text.len()) {
        return None;
    }
    text.get(1..text.len().checked_sub(1)?)
}

fn unescaped(text: &str) -> Option<String> {
    serde_json::from_str(text).ok()
}

fn skip_white(bytes: &[u8], mut at: usize) -> usize {
    while matches!(bytes.get(at), Some(b' ' | b'\t' | b'\n' | b'\r')) {
        at += 1;
    }
    at
}

/// The offset just past the string that begins at `at`.
fn string_end(bytes: &[u8], at: usize) -> Option<usize> {
    let mut at = at + 1;
    loop {
        at += memchr::memchr2(b'"', b'\\', bytes.get(at..)?)?;
        match bytes.get(at)? {
            b'"' => return Some(at + 1),
            _ => at += 2,
        }
    }
}

/// The offset just past the value that begins at `at`. Not recursive: brackets are counted.
fn value_end(bytes: &[u8], at: usize) -> Option<usize> {
    let mut depth = 0_usize;
    let mut at = at;
    loop {
        at = match bytes.get(at)? {
            b'"' => string_end(bytes, at)?,
            b'{' | b'[' => {
                depth += 1;
                at + 1
            }
            b'}' | b']' => {
                depth = depth.checked_sub(1)?;
                at + 1
            }
            b',' | b':' | b' ' | b'\t' | b'\n' | b'\r' if depth > 0 => {
                at += 1;
                continue;
            }
            b',' | b':' | b' ' | b'\t' | b'\n' | b'\r' => return None,
            _ => {
                let rest = bytes.get(at..)?;
                let word = rest.iter().position(|byte| {
                    matches!(byte, b',' | b'}' | b']' | b':' | b' ' | b'\t' | b'\n' | b'\r' | b'"')
                });
                at + word.unwrap_or(rest.len())
            }
        };
        if depth == 0 {
            return Some(at);
        }
    }
}

/// The text of an object's member.
fn member<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let bytes = text.as_bytes();
    if bytes.first() != Some(&b'{') {
        return None;
    }
    let mut at = skip_white(bytes, 1);
    while bytes.get(at) == Some(&b'"') {
        let name_end = string_end(bytes, at)?;
        let name = text.get(at..name_end)?;
        let colon = skip_white(bytes, name_end);
        if bytes.get(colon) != Some(&b':') {
            return None;
        }
        let start = skip_white(bytes, colon + 1);
        let end = value_end(bytes, start)?;
        if is_key(name, key) {
            return text.get(start..end);
        }
        at = skip_white(bytes, end);
        if bytes.get(at) != Some(&b',') {
            return None;
        }
        at = skip_white(bytes, at + 1);
    }
    None
}

/// The text of an array's element.
fn element(text: &str, index: usize) -> Option<&str> {
    let bytes = text.as_bytes();
    if bytes.first() != Some(&b'[') {
        return None;
    }
    let mut at = skip_white(bytes, 1);
    for passed in 0.. {
        let end = value_end(bytes, at)?;
        if passed == index {
            return text.get(at..end);
        }
        at = skip_white(bytes, end);
        if bytes.get(at) != Some(&b',') {
            return None;
        }
        at = skip_white(bytes, at + 1);
    }
    None
}

fn is_key(quoted: &str, key: &str) -> bool {
    if quoted.contains('\\') {
        return unescaped(quoted).is_some_and(|name| name == key);
    }
    quoted.get(1..quoted.len().saturating_sub(1)) == Some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_walks_past_everything_beside_it() {
        let text = r#"{"a":{"}":"]"},"b\"c":[1,[2,"x,y"],{"d":-1.5e3}],"e":"\u00e9"}"#;
        assert_eq!(member(text, "a"), Some(r#"{"}":"]"}"#));
        let list = member(text, "b\"c").unwrap_or_default();
        assert_eq!(element(list, 1), Some(r#"[2,"x,y"]"#));
        assert_eq!(element(list, 2).and_then(|object| member(object, "d")), Some("-1.5e3"));
        assert_eq!(element(list, 3), None);
        assert_eq!(member(text, "e").and_then(unescaped).as_deref(), Some("é"));
        assert_eq!(member(text, "z"), None);
    }

    #[test]
    fn what_is_not_json_gives_nothing() {
        for text in ["", "{", "[", "{\"a\"", "{\"a\":", "{\"a\":}", "[,]", "]", "\"", "{\"a\":\"\\"]
        {
            assert_eq!(member(text, "a"), None, "{text}");
            assert_eq!(element(text, 0), None, "{text}");
            assert!(!is_whole(text), "{text}");
        }
    }
}
