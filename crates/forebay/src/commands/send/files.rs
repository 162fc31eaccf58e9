//! What is to be sent: names and patterns into files, and what a file's name says of it.
//! Reads no content.

use std::fs::Metadata;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use anyhow::{Context, anyhow, bail};
use clap::ValueEnum;
use sha2::{Digest, Sha256};

use super::SendFiles;
use crate::config::check_stream_name;

/// The formats that a body may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Form {
    /// Comma-separated values with a header line.
    Csv,
    /// Tab-separated values with a header line.
    Tsv,
    /// One JSON object a line.
    #[value(alias = "jsonl")]
    Ndjson,
    /// One object, or an array of objects.
    Json,
    /// One row a line.
    #[value(aliases = ["log", "txt"])]
    Text,
}

impl Form {
    fn of_extension(extension: &str) -> Option<Form> {
        Some(match extension {
            "csv" => Form::Csv,
            "tsv" | "tab" => Form::Tsv,
            "ndjson" | "jsonl" => Form::Ndjson,
            "json" => Form::Json,
            "log" | "txt" => Form::Text,
            _ => return None,
        })
    }

    pub(super) fn content_type(self) -> &'static str {
        match self {
            Form::Csv => "text/csv",
            Form::Tsv => "text/tab-separated-values",
            Form::Ndjson => "application/x-ndjson",
            Form::Json => "application/json",
            Form::Text => "text/plain",
        }
    }
}

/// What a file was when it was looked at; another value is another file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) size: u64,
    /// Since 1970.
    modified_nanos: u128,
}

impl Identity {
    pub(super) fn of(metadata: &Metadata) -> Identity {
        let modified = metadata.modified().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
        Identity {
            size: metadata.len(),
            modified_nanos: modified.map_or(0, |since| since.as_nanos()),
        }
    }
}

/// Where the bytes come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    File(PathBuf, Identity),
    Stdin,
}

/// One upload to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Item {
    /// As people know it.
    pub(super) name: String,
    pub(super) place: Place,
    pub(super) stream: String,
    pub(super) form: Form,
    /// The body's `Content-Encoding`: the file is sent as it is.
    pub(super) encoding: Option<&'static str>,
    /// The `Idempotency-Key`.
    pub(super) key: String,
}

/// Settles everything that the command line says. Nothing was sent if this fails.
///
/// # Errors
/// A text for people: which argument, and what to give instead.
pub(super) fn settle(send: &SendFiles) -> anyhow::Result<Vec<Item>> {
    let paths = expand(&send.files)?;
    if paths.len() > 1 && send.key.is_some() {
        bail!(
            "one --key cannot stand for {} files; leave it out and each file gets its own",
            paths.len()
        );
    }
    paths.iter().map(|path| item(send, path)).collect()
}

fn expand(arguments: &[String]) -> anyhow::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for argument in arguments {
        let path = PathBuf::from(argument);
        let is_pattern = argument.contains(['*', '?', '[']) && !path.exists();
        if !is_pattern {
            paths.push(path);
            continue;
        }
        let found = glob::glob(argument)
            .with_context(|| format!("`{argument}` is not a pattern of file names"))?;
        let before = paths.len();
        for path in found {
            let path = path.map_err(|error| anyhow!("cannot look into {error}"))?;
            if path.is_file() {
                paths.push(path);
            }
        }
        if paths.len() == before {
            bail!("no file matches `{argument}`");
        }
    }
    let mut seen = std::collections::HashSet::new();
    paths.retain(|path| seen.insert(path.clone()));
    Ok(paths)
}

fn item(send: &SendFiles, path: &Path) -> anyhow::Result<Item> {
    let stdin = path.as_os_str() == "-";
    let name = path.display().to_string();
    let file_name = path.file_name().map(|name| name.to_string_lossy().into_owned());
    let guess = Guess::of(&file_name.unwrap_or_default());
    let form = match (send.format.or(guess.form), stdin) {
        (Some(form), _) => form,
        (None, true) => bail!("stdin has no name to tell its format by; say --format ndjson"),
        (None, false) => bail!(
            "cannot tell the format of {name} by its name; say --format csv, tsv, ndjson, json or text"
        ),
    };
    let stream = match (&send.stream, stdin) {
        (Some(stream), _) => stream.clone(),
        (None, true) => bail!("stdin has no name to take the stream's from; say --stream NAME"),
        (None, false) => guess.stem,
    };
    if let Err(why) = check_stream_name(&stream) {
        bail!("`{stream}` cannot be a stream's name: {why}; say --stream NAME");
    }
    let (place, encoding) =
        if stdin { (Place::Stdin, None) } else { (file(path)?, guess.encoding) };
    let key = match (&send.key, &place) {
        (Some(key), _) => key.clone(),
        (None, Place::Stdin) => format!("send-{}", uuid::Uuid::new_v4().simple()),
        (None, Place::File(path, identity)) => derive(send, path, *identity, &stream, form)?,
    };
    Ok(Item { name, place, stream, form, encoding, key })
}

fn file(path: &Path) -> anyhow::Result<Place> {
    let name = path.display();
    let metadata = std::fs::metadata(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => anyhow!("there is no file {name}"),
        _ => anyhow!("cannot read {name}: {error}"),
    })?;
    if metadata.is_dir() {
        bail!("{name} is a directory; name its files, for example '{name}/*.csv'");
    }
    if !metadata.is_file() {
        bail!("{name} is no regular file; send it through stdin: forebay send - < {name}");
    }
    // Seen now, not after the files before it were sent.
    std::fs::File::open(path).map_err(|error| anyhow!("cannot read {name}: {error}"))?;
    Ok(Place::File(path.to_owned(), Identity::of(&metadata)))
}

/// The key of a file: the same for the same file, stream and reading, so that a second run goes on
/// where the first was cut. A changed file has another.
fn derive(
    send: &SendFiles,
    path: &Path,
    identity: Identity,
    stream: &str,
    form: Form,
) -> anyhow::Result<String> {
    let path = path.canonicalize().with_context(|| format!("cannot read {}", path.display()))?;
    let mut hasher = Sha256::new();
    let reading = [stream, form.content_type(), &send.reading()];
    for part in reading.into_iter().map(str::as_bytes).chain([path.as_os_str().as_encoded_bytes()])
    {
        hasher.update((part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    hasher.update(identity.size.to_le_bytes());
    hasher.update(identity.modified_nanos.to_le_bytes());
    let hex: String = hasher.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("send-{hex}"))
}

/// What a file's name says.
#[derive(Debug, PartialEq, Eq)]
struct Guess {
    stem: String,
    form: Option<Form>,
    encoding: Option<&'static str>,
}

impl Guess {
    fn of(file_name: &str) -> Guess {
        let mut rest = file_name;
        let mut encoding = None;
        for (extension, name) in [(".gz", "gzip"), (".zst", "zstd"), (".zz", "deflate")] {
            if let Some(before) = strip(rest, extension) {
                (rest, encoding) = (before, Some(name));
                break;
            }
        }
        let (stem, form) = match rest.rsplit_once('.') {
            Some((stem, extension)) => (stem, Form::of_extension(&extension.to_ascii_lowercase())),
            None => (rest, None),
        };
        let stem = if form.is_some() { stem } else { rest };
        Guess { stem: stem.to_owned(), form, encoding }
    }
}

fn strip<'a>(name: &'a str, extension: &str) -> Option<&'a str> {
    let at = name.len().checked_sub(extension.len())?;
    let (before, end) = name.split_at_checked(at)?;
    end.eq_ignore_ascii_case(extension).then_some(before)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_tells_stream_format_and_encoding() {
        let guess = |name: &str| {
            let Guess { stem, form, encoding } = Guess::of(name);
            (stem, form, encoding)
        };
        assert_eq!(guess("flights.csv"), ("flights".into(), Some(Form::Csv), None));
        assert_eq!(guess("a.2024.JSONL.GZ"), ("a.2024".into(), Some(Form::Ndjson), Some("gzip")));
        assert_eq!(guess("x.log.zst"), ("x".into(), Some(Form::Text), Some("zstd")));
        assert_eq!(guess("x.parquet"), ("x.parquet".into(), None, None));
        assert_eq!(guess("é.gz"), ("é".into(), None, Some("gzip")));
        assert_eq!(guess("z"), ("z".into(), None, None));
    }
}
