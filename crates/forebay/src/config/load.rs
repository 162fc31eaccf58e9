//! Gathers settings from flags, environment and file, and says where a wrong one stands.
//! Reads nothing itself: the caller hands over texts, so that every case can be tested.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::Spanned;
use toml::de::{DeTable, DeValue, Deserializer};

use super::places::{at, offset_of, offset_within};
use super::raw::Raw;
use super::validate::{Fault, validate};
use super::{Config, sql};

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

/// Every setting that cannot hold, in the order of the file; one a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigErrors(pub Vec<ConfigError>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            write!(f, "{}{error}", if index == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

/// The most errors that are told; a file with more has another problem.
const MOST_ERRORS: usize = 100;

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
    "faults.disk_full_after_bytes",
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
    /// Every setting that cannot hold, with its place: SQL at its line and column in the file, too.
    pub fn load(&self) -> Result<Loaded, ConfigErrors> {
        let mut errors = Errors::default();
        let mut written = Written { file: None, overrides: Vec::new() };
        let mut table = toml::Table::new();
        if let Some((name, text)) = &self.file {
            let tree = parse(name, text, &mut errors)?;
            table = shaped(name, text, tree.clone(), &mut errors);
            written.file = Some((name, text, tree));
        }
        let warnings = self.overrule(&mut table, &mut written.overrides, &mut errors);
        let raw = match Raw::deserialize(table) {
            Ok(raw) => raw,
            Err(error) => {
                errors.elsewhere(String::new(), explain(error.message()));
                return Err(errors.sorted());
            }
        };
        let faults_allowed =
            self.env.iter().any(|(name, value)| name == "FOREBAY_FAULTS" && value == "1");
        let (config, faults) = validate(raw, faults_allowed);
        for fault in faults.0.iter().chain(&sql::judge(&config)) {
            written.locate(fault, &mut errors);
        }
        if errors.0.is_empty() { Ok(Loaded { config, warnings }) } else { Err(errors.sorted()) }
    }

    /// Environment and flags over the file; returns remarks on variables that look like settings.
    fn overrule(
        &self,
        table: &mut toml::Table,
        overrides: &mut Vec<(Vec<String>, String)>,
        errors: &mut Errors,
    ) -> Vec<String> {
        let mut warnings = Vec::new();
        let mut env: Vec<_> =
            self.env.iter().filter(|(name, _)| name.starts_with(PREFIX)).collect();
        env.sort();
        for (name, value) in env {
            let Some(path) = path_of(name) else {
                warnings.extend(misspelt(name));
                continue;
            };
            let origin = format!("environment variable {name}");
            match override_with(table, &path, value) {
                Ok(()) => overrides.push((path, origin)),
                Err(message) => errors.elsewhere(origin, message),
            }
        }
        if let Some(dir) = &self.flags.data_dir {
            match text_of(dir) {
                Ok(text) => {
                    table.insert("data_dir".into(), toml::Value::String(text));
                    overrides.push((vec!["data_dir".into()], "--data-dir".into()));
                }
                Err(message) => errors.elsewhere("--data-dir".to_owned(), message),
            }
        }
        if let Some(listen) = &self.flags.listen {
            table.insert("listen".into(), toml::Value::String(listen.clone()));
            overrides.push((vec!["listen".into()], "--listen".into()));
        }
        warnings
    }
}

/// What was found so far, with the offset in the file where it is in the file.
#[derive(Debug, Default)]
struct Errors(Vec<(Option<usize>, ConfigError)>);

impl Errors {
    fn in_file(&mut self, name: &str, text: &str, offset: Option<usize>, message: String) {
        let origin = offset.map_or_else(|| name.to_owned(), |offset| at(name, text, offset));
        self.0.push((offset, ConfigError { origin, message }));
    }

    fn elsewhere(&mut self, origin: String, message: String) {
        self.0.push((None, ConfigError { origin, message }));
    }

    /// In the order of the file; what stands elsewhere comes last.
    fn sorted(mut self) -> ConfigErrors {
        self.0.sort_by_key(|(offset, _)| offset.unwrap_or(usize::MAX));
        self.0.truncate(MOST_ERRORS);
        ConfigErrors(self.0.into_iter().map(|(_, error)| error).collect())
    }
}

/// Where settings were written, and by what they were overruled.
struct Written<'a> {
    file: Option<(&'a str, &'a str, Spanned<DeTable<'a>>)>,
    overrides: Vec<(Vec<String>, String)>,
}

impl Written<'_> {
    fn locate(&self, fault: &Fault, errors: &mut Errors) {
        let mut message = format!("{}: {}", fault.path.join("."), fault.message);
        let overridden = self.overrides.iter().rev().find(|(path, _)| *path == fault.path);
        if let (None, Some((name, text, tree))) = (overridden, &self.file) {
            let table = tree.get_ref();
            let place = |place| offset_within(text, table, &fault.path, place);
            let offset = fault.within.and_then(place).or_else(|| offset_of(table, &fault.path));
            return errors.in_file(name, text, offset, message);
        }
        if let Some((line, column)) = fault.within {
            message = format!(
                "{}: line {line}, column {column}: {}",
                fault.path.join("."),
                fault.message
            );
        }
        errors.elsewhere(overridden.map(|(_, origin)| origin.clone()).unwrap_or_default(), message);
    }
}

/// The file as TOML. What is no TOML is told alone: everything after it may be a consequence.
fn parse<'a>(
    name: &str,
    text: &'a str,
    errors: &mut Errors,
) -> Result<Spanned<DeTable<'a>>, ConfigErrors> {
    let (tree, faults) = DeTable::parse_recoverable(text);
    let mut lines = Vec::new();
    for fault in &faults {
        let start = fault.span().map(|span| span.start);
        let line = start.map(|start| text.get(..start).unwrap_or(text).matches('\n').count());
        // The parser goes on in the middle of a line, and stumbles over what is left of it.
        if !lines.contains(&line) {
            lines.push(line);
            errors.in_file(name, text, start, explain(fault.message()));
        }
    }
    if faults.is_empty() { Ok(tree) } else { Err(std::mem::take(errors).sorted()) }
}

/// The file's settings without those of the wrong shape, which become errors.
fn shaped(
    name: &str,
    text: &str,
    mut tree: Spanned<DeTable<'_>>,
    errors: &mut Errors,
) -> toml::Table {
    while let Err(error) = Raw::deserialize(Deserializer::from(tree.clone())) {
        let start = error.span().map(|span| span.start);
        errors.in_file(name, text, start, explain(error.message()));
        // Each round takes something out of the tree, so the rounds end.
        if errors.0.len() >= MOST_ERRORS
            || !start.is_some_and(|start| take_out(tree.get_mut(), start))
        {
            return toml::Table::new();
        }
    }
    toml::Table::deserialize(Deserializer::from(tree)).unwrap_or_default()
}

/// Takes the smallest setting out whose name or value stands at `offset`; false if there is none.
fn take_out(table: &mut DeTable<'_>, offset: usize) -> bool {
    let mut here = None;
    for (key, value) in table.iter_mut() {
        let span = value.span();
        let inside = match value.get_mut() {
            DeValue::Table(inner) => take_out(inner, offset),
            DeValue::Array(items) => items.iter_mut().any(|item| match item.get_mut() {
                DeValue::Table(inner) => take_out(inner, offset),
                _ => false,
            }),
            _ => false,
        };
        if inside {
            return true;
        }
        if key.span().contains(&offset) || span.contains(&offset) {
            here = Some(key.get_ref().to_string());
        }
    }
    here.is_some_and(|name| table.remove(name.as_str()).is_some())
}

fn text_of(path: &Path) -> Result<String, String> {
    path.to_str().map(str::to_owned).ok_or_else(|| format!("{} is not UTF-8", path.display()))
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
