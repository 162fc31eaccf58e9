//! The beginning of a run: the directory locked, journals recovered, declared streams made, lanes started.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Duration;

use forebay_flow::budget::Budget;
use forebay_flow::pool::{self, ThreadPool};
use forebay_flow::queue::Bound;
use forebay_flow::supervise::{Child, Strategy, Supervisor};
use forebay_flow::{Backoff, Clock, Ctx, Scope, lock};
use forebay_journal::disk::{Disk, read_file, replace_file};
use forebay_journal::{KeyRoom, Writers};

use super::ask::Queries;
use super::bounds::{FILE_WORKERS, LAKE_WORKERS, POOL_WHY, TABLE_WORKERS, WRITERS};
use super::{Engine, EngineConfig, Inner};
use crate::sink::dead_letters::{self, DeadLetters};
use crate::sink::delta::{DeltaOptions, DeltaSink, lake_url};
use crate::sink::disk_store::DiskStore;
use crate::sink::redriven::{self, Redriven};
use crate::stream::Plan;
use crate::stream::catalog::{Catalog, Origin, Record};
use crate::telemetry::Telemetry;

/// Why the engine did not open. The texts are for people.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process works in the data directory.
    #[error("{0} is in use by another Forebay; stop it, or choose another --data-dir")]
    InUse(PathBuf),
    /// The directory was written by a newer program.
    #[error(
        "{path} was written by a newer Forebay (format {found}, this one knows {known}); upgrade to open it"
    )]
    Newer {
        /// The directory.
        path: PathBuf,
        /// What it says.
        found: String,
        /// What this program knows.
        known: u32,
    },
    /// The directory cannot be used.
    #[error("cannot use the data directory {path}: {source}")]
    DataDir {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A stream cannot be opened.
    #[error("{0}")]
    Stream(#[from] super::StreamError),
    /// Threads, tables: anything else.
    #[error("{0}")]
    Start(String),
}

/// The format of the data directory.
const FORMAT: u32 = 1;

/// The pause before a dead worker is replaced: short, because a bisection kills about a dozen.
const WORKER_BACKOFF: Backoff = Backoff {
    initial: Duration::from_millis(10),
    max: Duration::from_millis(200),
    jitter: 0.2,
    stable_after: Duration::from_secs(1),
};

impl Engine {
    /// Opens the data directory and everything in it. Nothing is served before this returns; lanes
    /// run once the supervisor does.
    ///
    /// # Errors
    /// As [`OpenError`] says, for people; nothing was accepted then.
    pub async fn open(
        ctx: &Ctx,
        config: EngineConfig,
        clock: Clock,
        disk: Arc<dyn Disk>,
        telemetry: Arc<Telemetry>,
    ) -> Result<Engine, OpenError> {
        let lock = prepare(&*disk, &config)?;
        let supervisor = Supervisor::new("lanes", Strategy::OneForOne)
            .intensity(5, Duration::from_secs(10))
            .backoff(Backoff::default());
        let handle = supervisor.handle();
        let data_dir_error = |source| OpenError::DataDir { path: config.data_dir.clone(), source };
        let catalog = Catalog::open(Arc::clone(&disk), &config.data_dir).map_err(data_dir_error)?;
        let lake_threads = pool(ctx, "lake", LAKE_WORKERS, false)?;
        let lake_dir = config.data_dir.join("lake");
        let lake = DiskStore::open(Arc::clone(&disk), lake_dir, &lake_threads);
        let lake = lake.map_err(data_dir_error)?;
        let start = |error: &dyn std::fmt::Display| OpenError::Start(error.to_string());
        let persisters = pool(ctx, "persist", config.workers.persist, false)?;
        let tables = pool(ctx, "tables", TABLE_WORKERS, false)?;
        let options = DeltaOptions::new(&persisters, &tables);
        let own = |table: &str| {
            let location = lake_url(table).map_err(|e| start(&e))?;
            let sink = DeltaSink::new(Arc::new(lake.clone()), &location, options.clone());
            Ok::<_, OpenError>(Arc::new(sink.map_err(|e| start(&e))?))
        };
        let dead_letters = DeadLetters::new(own(dead_letters::TABLE)?);
        let redriven = Redriven::new(own(redriven::TABLE)?);
        let budget = Budget::new("memory", config.memory.total());
        let inner = Arc::new(Inner {
            intake: budget.share("intake", config.memory.intake).map_err(|e| start(&e))?,
            lanes: budget.share("lanes", config.memory.lanes).map_err(|e| start(&e))?,
            validators: pool(ctx, "validate", config.workers.validate, false)?,
            transformers: pool(ctx, "transform", config.workers.transform, true)?,
            persisters,
            dead_letters,
            redriven,
            uploads: Scope::new(ctx, "uploads"),
            catalog,
            disk,
            lake,
            lake_threads,
            tables,
            table_options: options,
            streams: Default::default(),
            changing: lock::Mutex::new("catalog changes", ()),
            supervisor: handle,
            writers: Writers::start(ctx, WRITERS).map_err(|e| start(&e))?,
            key_room: KeyRoom::new(config.key_count),
            query: Queries::start(ctx, config.memory.query, config.workers.query)
                .map_err(|e| start(&e))?,
            files: pool(ctx, "files", FILE_WORKERS, false)?,
            draining: AtomicBool::new(false),
            stored: AtomicU64::new(0),
            failure: tokio::sync::watch::Sender::new(None),
            _budget: budget,
            supervised: parking_lot::Mutex::new(None),
            _lock: super::Lock(lock),
            config,
            clock,
            telemetry,
        });
        let lanes = inner.load().await?;
        let supervisor = lanes.into_iter().fold(supervisor, Supervisor::child);
        *inner.supervised.lock() = Some(Child::supervisor(supervisor));
        Ok(Engine { inner })
    }
}

/// Threads of one stage. A worker of the transform ends with a panic and is restarted by its pool.
#[track_caller]
fn pool(
    ctx: &Ctx,
    name: &'static str,
    workers: usize,
    ends: bool,
) -> Result<ThreadPool, OpenError> {
    pool::Builder::new(name, workers, Bound::items(2 * workers))
        .why(POOL_WHY)
        .under(ctx)
        .panic_ends_worker(ends)
        .backoff(WORKER_BACKOFF)
        .threads()
        .map_err(|error| OpenError::Start(format!("the {name} threads: {error}")))
}

/// Creates, checks and locks the data directory.
fn prepare(disk: &dyn Disk, config: &EngineConfig) -> Result<Box<dyn Send + Sync>, OpenError> {
    let path = config.data_dir.clone();
    let failed = |source| OpenError::DataDir { path: path.clone(), source };
    disk.create_dir_all(&path).map_err(failed)?;
    let lock = disk.lock(&path.join("LOCK")).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => OpenError::InUse(path.clone()),
        _ => failed(error),
    })?;
    let format = path.join("FORMAT");
    match read_file(disk, &format, 64) {
        Ok(text) => {
            let found = String::from_utf8_lossy(&text).trim().to_owned();
            if found.parse::<u32>().is_ok_and(|found| found <= FORMAT) {
                return Ok(lock);
            }
            Err(OpenError::Newer { path, found, known: FORMAT })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            replace_file(disk, &format, format!("{FORMAT}\n").as_bytes()).map_err(failed)?;
            Ok(lock)
        }
        Err(error) => Err(failed(error)),
    }
}

impl Inner {
    /// Opens every stream of the catalog, then makes those that the config declares.
    async fn load(self: &Arc<Self>) -> Result<Vec<Child>, OpenError> {
        let catalog = self.catalog.clone();
        let records = self.blocking(move || catalog.load()).await?;
        let records = records
            .map_err(|source| OpenError::DataDir { path: self.config.data_dir.clone(), source })?;
        for (name, record) in records {
            let plans = self.plans(&name, &record)?;
            let stream = self.assemble(&name, record, plans).await?;
            self.streams.write().insert(name, stream);
        }
        for (name, config) in &self.config.streams {
            let Some(definition) = config.definition() else { continue };
            match self.stream(name) {
                Some(stream) => self.alter(&stream, Origin::Config, definition, None).await?,
                None => {
                    let stream = self.make(name, Record::new(Origin::Config, definition)).await?;
                    self.streams.write().insert(name.clone(), stream);
                }
            }
        }
        let streams: Vec<_> = self.streams.read().values().cloned().collect();
        Ok(streams.iter().map(|stream| self.lane(stream)).collect())
    }

    fn plans(&self, name: &str, record: &Record) -> Result<Vec<Arc<Plan>>, OpenError> {
        let mut plans = Vec::with_capacity(record.definitions.len());
        for definition in &record.definitions {
            let plan = Plan::new(name, definition.clone(), self.config.limits);
            let plan =
                plan.map_err(|error| OpenError::Start(format!("stream `{name}`: {error}")))?;
            plans.push(Arc::new(plan));
        }
        Ok(plans)
    }
}
