//! Streams on disk: one `stream.json` a stream, replaced whole.
//!
//! ```text
//! <data_dir>/streams/<name>/stream.json     definition versions, the stream's UUID
//! <data_dir>/streams/<name>/journal/        its journal
//! <data_dir>/lake/<name>/                   its table
//! ```
//!
//! A definition is durable (file and directory entry) before an entry is accepted under it, and is
//! never changed: altering a stream appends a version. It goes through [`Disk`], so that the
//! simulation tears it like everything else; that is why it is a file and not a database.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use forebay_journal::disk::{Disk, read_file, replace_file};
use serde::{Deserialize, Serialize};

use crate::codec::{FormatName, Pattern};
use crate::schema::{Schema, Unknown};

/// The format of `stream.json` that this program writes; it refuses newer ones.
const FORMAT: u32 = 1;

/// The largest `stream.json` that is read: thousands of columns in hundreds of versions.
const MAX_FILE: usize = 256 << 20;

/// Who made a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// Declared in the TOML, which wins over the API.
    Config,
    /// Created through the API.
    Api,
    /// Appeared with its first row; its schema was inferred and may gain columns.
    Auto,
}

/// What happens to a request with a refused row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnInvalid {
    /// The row becomes a dead letter, the others are accepted.
    #[default]
    DeadLetter,
    /// The whole request is refused and nothing is kept.
    Reject,
}

/// One version of what a stream is.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Definition {
    /// From 1, ascending.
    pub version: u32,
    /// Columns and constraints.
    pub schema: Schema,
    /// Values under names that the schema lacks.
    #[serde(default)]
    pub unknown: Unknown,
    /// Requests with refused rows.
    #[serde(default)]
    pub on_invalid: OnInvalid,
    /// The SQL, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transform: Option<String>,
    /// What a body is, where its head does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<FormatName>,
    /// How lines of text are read, where the request does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pattern: Option<Pattern>,
    /// Whether the table gets `_received_at`.
    #[serde(default = "yes")]
    pub received_at: bool,
}

fn yes() -> bool {
    true
}

impl Definition {
    /// True when the two differ in their version at most.
    pub fn same(&self, other: &Definition) -> bool {
        Definition { version: 0, ..self.clone() } == Definition { version: 0, ..other.clone() }
    }
}

/// The file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Format of the file.
    pub format: u32,
    /// The stream's UUID: a recreated stream is another one.
    pub id: uuid::Uuid,
    /// Who made it.
    pub origin: Origin,
    /// Its versions, ascending; never empty.
    pub definitions: Vec<Definition>,
}

impl Record {
    /// A new stream with its first definition.
    pub fn new(origin: Origin, definition: Definition) -> Record {
        let definitions = vec![Definition { version: 1, ..definition }];
        Record { format: FORMAT, id: uuid::Uuid::new_v4(), origin, definitions }
    }
}

/// The directory of streams.
#[derive(Debug, Clone)]
pub struct Catalog {
    disk: Arc<dyn Disk>,
    root: PathBuf,
}

impl Catalog {
    /// The catalog below `data_dir`; creates its directory.
    pub fn open(disk: Arc<dyn Disk>, data_dir: &Path) -> io::Result<Catalog> {
        let root = data_dir.join("streams");
        disk.create_dir_all(&root)?;
        Ok(Catalog { disk, root })
    }

    /// The directory of a stream.
    pub fn dir(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// Every stream that was made whole, by name. A directory without its file is a creation that a
    /// crash cut short: it is removed, for nothing was acknowledged under it.
    pub fn load(&self) -> io::Result<Vec<(String, Record)>> {
        let mut streams = Vec::new();
        for entry in self.disk.read_dir(&self.root)? {
            if !entry.is_dir {
                continue;
            }
            let path = self.dir(&entry.name).join("stream.json");
            match read_file(&*self.disk, &path, MAX_FILE) {
                Ok(bytes) => streams.push((entry.name, parse(&path, &bytes)?)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    self.disk.remove_dir_all(&self.dir(&entry.name))?;
                }
                Err(error) => return Err(error),
            }
        }
        streams.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(streams)
    }

    /// Writes a stream's file; durable on return.
    pub fn store(&self, name: &str, record: &Record) -> io::Result<()> {
        let dir = self.dir(name);
        self.disk.create_dir_all(&dir)?;
        let bytes = serde_json::to_vec_pretty(record).map_err(io::Error::other)?;
        if bytes.len() > MAX_FILE {
            let why = format!("the versions of stream `{name}` take {} bytes", bytes.len());
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, why));
        }
        replace_file(&*self.disk, &dir.join("stream.json"), &bytes)
    }

    /// Removes a stream: its file first, so that a crash in between leaves no stream.
    pub fn remove(&self, name: &str) -> io::Result<()> {
        let dir = self.dir(name);
        self.disk.remove_file(&dir.join("stream.json"))?;
        self.disk.sync_dir(&dir)?;
        self.disk.remove_dir_all(&dir)?;
        self.disk.sync_dir(&self.root)
    }
}

fn parse(path: &Path, bytes: &[u8]) -> io::Result<Record> {
    let broken = |what: String| {
        io::Error::new(io::ErrorKind::InvalidData, format!("{}: {what}", path.display()))
    };
    let record: Record =
        serde_json::from_slice(bytes).map_err(|error| broken(error.to_string()))?;
    if record.format > FORMAT {
        return Err(broken(format!(
            "written by a newer Forebay (format {}, this one knows {FORMAT}); upgrade to open it",
            record.format
        )));
    }
    if record.definitions.is_empty() {
        return Err(broken("holds no definition".to_owned()));
    }
    Ok(record)
}
