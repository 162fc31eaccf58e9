//! Gathers settings from flags, environment and file, and says where a wrong one stands.
//! Reads nothing itself: the caller hands over texts, so that every case can be tested.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::de::{DeTable, DeValue};

use super::Config;
use super::raw::Raw;
use super::validate::{Fault, validate};

/// What the command line says.
#[derive(Debug, Default, Clone)]
pub struct Flags {
    /// `--data-dir`
    pub data_dir: Option<PathBuf>,
    /// `--listen`
    pub listen: Option<String>,
}

/// Everything that settings come from.
#[derive(Debug, Default, Clone)]
pub struct Sources {
    /// The file's name, as the user would recognise it, and its text.
    pub file: Option<(String, String)>,
    /// The environment; names that do not begin with `FOREBAY_` are ignored.
    pub env: Vec<(String, String)>,
    /// The command line.
    pub flags: Flags,
}

/// Settings that hold, and remarks for the log.
#[derive(Debug)]
pub struct Loaded {
    /// The settings.
    pub config: Config,
    /// Likely mistakes that are no errors.
    pub warnings: Vec<String>,
}

/// A setting that cannot hold: where and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// `forebay.toml:3:10`, an environment variable, or a flag; empty when it is none of them.
    pub origin: String,
    /// Why, for people.
    pub message: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.origin.is_empty() {
            f.write_str(&self.message)
        } else {
            write!(f, "{}: {}", self.origin, self.message)
        }
    }
}

impl std::error::Error for ConfigError {}

/// Every setting outside of lists and streams. Its environment variable is `FOREBAY_` and its path
/// in capitals, joined by `_`.
const SETTINGS: &[&str] = &[
    "listen",
    "data_dir",
    "insecure",
    "auto_create",
    "memory.budget",
    "http.deadline",
    "http.header_deadline",
    "http.max_header",
    "http.max_body",
    "http.max_connections",
    "http.min_rate",
    "http.rate_window",
    "http.rate_grace",
    "http.origins",
    "admission.wait",
    "limits.streams",
    "limits.columns",
    "limits.row",
    "limits.depth",
    "limits.chunk",
    "limits.spool",
    "limits.expansion",
    "journal.max",
    "flush.bytes",
    "flush.interval",
    "workers.validate",
    "workers.transform",
    "workers.persist",
    "keys.window",
    "keys.count",
    "query.timeout",
    "drain.deadline",
    "faults.disk_bytes_per_second",
    "faults.disk_error_after_bytes",
    "faults.stall_sinks",
    "faults.panic_on",
];

const PREFIX: &str = "FOREBAY_";
/// Variables that are read elsewhere.
const OTHERS: &[&str] =
    &["FOREBAY_CONFIG", "FOREBAY_FAULTS", "FOREBAY_LOG", "FOREBAY_URL", "FOREBAY_TOKEN"];

fn variable(setting: &str) -> String {
    format!("{PREFIX}{}", setting.replace('.', "_").to_ascii_uppercase())
}

/// The path of a variable: by the list, or `A__B__C` as `a.b.c`. A stream's name keeps its case.
fn path_of(name: &str) -> Option<Vec<String>> {
    if let Some(setting) = SETTINGS.iter().find(|setting| variable(setting) == name) {
        return Some(setting.split('.').map(str::to_owned).collect());
    }
    let rest = name.strip_prefix(PREFIX)?;
    if !rest.contains("__") {
        return None;
    }
    let mut path: Vec<String> = rest.split("__").map(str::to_owned).collect();
    let named = path.first().is_some_and(|first| first.eq_ignore_ascii_case("streams"));
    for (index, part) in path.iter_mut().enumerate() {
        if !(named && index == 1) {
            part.make_ascii_lowercase();
        }
    }
    Some(path)
}

impl Sources {
    /// Settles every setting: flags before environment before file before defaults.
    ///
    /// # Errors
    /// The first setting that cannot hold, with its place.
    pub fn load(&self) -> Result<Loaded, ConfigError> {
        let mut table = toml::Table::new();
        if let Some((name, text)) = &self.file {
            toml::from_str::<Raw>(text).map_err(|error| in_file(name, text, &error))?;
            table = text.parse().map_err(|error| in_file(name, text, &error))?;
        }
        let mut warnings = Vec::new();
        let mut overrides: Vec<(Vec<String>, String)> = Vec::new();
        let mut env: Vec<_> =
            self.env.iter().filter(|(name, _)| name.starts_with(PREFIX)).collect();
        env.sort();
        for (name, value) in env {
            match path_of(name) {
                Some(path) => {
                    override_with(&mut table, &path, value).map_err(|message| ConfigError {
                        origin: format!("environment variable {name}"),
                        message,
                    })?;
                    overrides.push((path, format!("environment variable {name}")));
                }
                None => warnings.extend(misspelt(name)),
            }
        }
        if let Some(dir) = &self.flags.data_dir {
            table.insert("data_dir".into(), toml::Value::String(text_of(dir)?));
            overrides.push((vec!["data_dir".into()], "--data-dir".into()));
        }
        if let Some(listen) = &self.flags.listen {
            table.insert("listen".into(), toml::Value::String(listen.clone()));
            overrides.push((vec!["listen".into()], "--listen".into()));
        }
        let raw = Raw::deserialize(table).map_err(|error| ConfigError {
            origin: String::new(),
            message: explain(error.message()),
        })?;
        let faults_allowed =
            self.env.iter().any(|(name, value)| name == "FOREBAY_FAULTS" && value == "1");
        let config =
            validate(raw, faults_allowed).map_err(|fault| self.locate(&fault, &overrides))?;
        Ok(Loaded { config, warnings })
    }

    fn locate(&self, fault: &Fault, overrides: &[(Vec<String>, String)]) -> ConfigError {
        let overridden = overrides.iter().rev().find(|(path, _)| *path == fault.path);
        let origin = match (overridden, &self.file) {
            (Some((_, origin)), _) => origin.clone(),
            (None, Some((name, text))) => match offset_of(text, &fault.path) {
                Some(offset) => at(name, text, offset),
                None => name.clone(),
            },
            (None, None) => String::new(),
        };
        let setting = fault.path.join(".");
        ConfigError { origin, message: format!("{setting}: {}", fault.message) }
    }
}

fn text_of(path: &Path) -> Result<String, ConfigError> {
    path.to_str().map(str::to_owned).ok_or_else(|| ConfigError {
        origin: "--data-dir".into(),
        message: format!("{} is not UTF-8", path.display()),
    })
}

/// Sets `path` to `value`, as text or, where the setting is of another type, as TOML.
fn override_with(table: &mut toml::Table, path: &[String], value: &str) -> Result<(), String> {
    let mut candidates = vec![toml::Value::String(value.to_owned())];
    if let Ok(mut parsed) = format!("v = {value}").parse::<toml::Table>() {
        candidates.extend(parsed.remove("v"));
    }
    let mut failure = String::new();
    for candidate in candidates {
        let mut attempt = table.clone();
        set(&mut attempt, path, candidate)?;
        match Raw::deserialize(attempt.clone()) {
            Ok(_) => {
                *table = attempt;
                return Ok(());
            }
            Err(error) => failure = explain(error.message()),
        }
    }
    Err(failure)
}

fn set(table: &mut toml::Table, path: &[String], value: toml::Value) -> Result<(), String> {
    match path {
        [] => Ok(()),
        [last] => {
            table.insert(last.clone(), value);
            Ok(())
        }
        [first, rest @ ..] => {
            let inner = table
                .entry(first.clone())
                .or_insert_with(|| toml::Value::Table(toml::Table::new()));
            match inner {
                toml::Value::Table(inner) => set(inner, rest, value),
                _ => Err(format!("`{first}` is not a table")),
            }
        }
    }
}

fn misspelt(name: &str) -> Option<String> {
    if OTHERS.contains(&name) {
        return None;
    }
    let names: Vec<String> = SETTINGS.iter().map(|setting| variable(setting)).collect();
    let nearest = nearest(name, names.iter().map(String::as_str))?;
    Some(format!("{name} is not a setting and is ignored; did you mean {nearest}?"))
}

fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    known
        .map(|candidate| (strsim::damerau_levenshtein(name, candidate), candidate))
        .min()
        .filter(|(distance, _)| *distance <= 1 + name.len() / 4)
        .map(|(_, candidate)| candidate)
}

fn in_file(name: &str, text: &str, error: &toml::de::Error) -> ConfigError {
    let origin = error.span().map_or_else(|| name.to_owned(), |span| at(name, text, span.start));
    ConfigError { origin, message: explain(error.message()) }
}

/// `unknown field` in the words of a user, with the likely intention.
fn explain(message: &str) -> String {
    let message = message.trim().replace('\n', ", ");
    let quoted: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    for (begins, word) in [("unknown field", "setting"), ("unknown variant", "value")] {
        if !message.starts_with(begins) {
            continue;
        }
        if let [wrong, known @ ..] = quoted.as_slice() {
            return match nearest(wrong, known.iter().copied()) {
                Some(meant) => format!("unknown {word} `{wrong}`; did you mean `{meant}`?"),
                None => format!("unknown {word} `{wrong}`; known here: {}", known.join(", ")),
            };
        }
    }
    message
}

/// `name:line:column`, both from 1; the column counts characters.
fn at(name: &str, text: &str, offset: usize) -> String {
    let before = text.get(..offset).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().map_or(0, |tail| tail.chars().count()) + 1;
    format!("{name}:{line}:{column}")
}

/// Where the deepest part of `path` that was written stands.
fn offset_of(text: &str, path: &[String]) -> Option<usize> {
    let table = DeTable::parse(text).ok()?;
    let mut found = None;
    let mut here = table.get_ref();
    let mut rest = path;
    while let [name, tail @ ..] = rest {
        let (key, value) = here.iter().find(|(key, _)| key.get_ref().as_ref() == name)?;
        let shown =
            if tail.is_empty() && !value.get_ref().is_table() { value.span() } else { key.span() };
        found = Some(shown.start);
        rest = tail;
        match value.get_ref() {
            DeValue::Table(inner) => here = inner,
            DeValue::Array(items) => {
                let Some(item) =
                    rest.first().and_then(|index| items.get(index.parse::<usize>().ok()?))
                else {
                    return found;
                };
                found = Some(item.span().start);
                rest = rest.get(1..).unwrap_or_default();
                match item.get_ref() {
                    DeValue::Table(inner) => here = inner,
                    _ => return found,
                }
            }
            _ => return found,
        }
        if !rest.is_empty()
            && !here
                .iter()
                .any(|(key, _)| Some(key.get_ref().as_ref()) == rest.first().map(String::as_str))
        {
            return found;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    /// Serde knows every field; the list of variables must not lag behind it.
    #[test]
    fn every_setting_has_an_environment_variable() {
        for section in [
            "",
            "memory",
            "http",
            "admission",
            "limits",
            "journal",
            "flush",
            "workers",
            "keys",
            "query",
            "drain",
            "faults",
        ] {
            let text = if section.is_empty() {
                "zzz = 1".to_owned()
            } else {
                format!("[{section}]\nzzz = 1")
            };
            let error = toml::from_str::<Raw>(&text).unwrap_err().message().to_owned();
            for field in error.split('`').skip(3).step_by(2) {
                let setting = if section.is_empty() {
                    field.to_owned()
                } else {
                    format!("{section}.{field}")
                };
                let is_section =
                    SETTINGS.iter().any(|known| known.starts_with(&format!("{setting}.")));
                let listed = is_section || ["tokens", "streams"].contains(&field);
                assert!(listed || SETTINGS.contains(&setting.as_str()), "{setting}");
            }
        }
    }

    #[test]
    fn a_double_underscore_reaches_into_any_table() {
        assert_eq!(
            path_of("FOREBAY_STREAMS__Shop__TRANSFORM").unwrap(),
            ["streams", "Shop", "transform"]
        );
        assert_eq!(path_of("FOREBAY_HTTP_MIN_RATE").unwrap(), ["http", "min_rate"]);
        assert_eq!(path_of("FOREBAY_HTTP__MIN_RATE").unwrap(), ["http", "min_rate"]);
        assert_eq!(path_of("FOREBAY_NONE"), None);
    }
}
