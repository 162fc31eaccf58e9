//! A stream put together: its journal, its sink, its lane. Decides nothing about what it may be.

use std::io;
use std::sync::Arc;

use forebay_flow::supervise::{Child, Restart, Shutdown};
use forebay_journal::{Journal, KeyBounds, Observer, Options};

use super::{Inner, StreamError};
use crate::lane;
use crate::ledger::Totals;
use crate::sink::delta::{DeltaSink, lake_url};
use crate::sink::{Sink, SinkError};
use crate::stream::catalog::Record;
use crate::stream::{Parts, Plan, Progress, Stream};
use crate::telemetry::Stage;

pub(super) fn lane_name(stream: &str) -> String {
    format!("lane/{stream}")
}

impl Inner {
    /// Makes what the catalog does not have: planned, its table judged, durable in the catalog, opened.
    pub(super) async fn make(
        self: &Arc<Self>,
        name: &str,
        record: Record,
    ) -> Result<Arc<Stream>, StreamError> {
        let mut plans = Vec::with_capacity(1);
        let sink = self.sink(name)?;
        for definition in &record.definitions {
            let plan = self.plan(name, definition.clone())?;
            self.kept_table_takes(name, &*sink, &plan).await?;
            plans.push(plan);
        }
        self.store(name, &record).await?;
        self.assemble(name, record, plans).await
    }

    /// The stream's table; no I/O.
    fn sink(&self, name: &str) -> Result<Arc<dyn Sink>, StreamError> {
        let start = |error: SinkError| StreamError::Start(error.to_string());
        let location = lake_url(name).map_err(start)?;
        let options = self.table_options.clone();
        let sink = DeltaSink::new(Arc::new(self.lake.clone()), &location, options);
        Ok(Arc::new(sink.map_err(start)?))
    }

    /// Opens a stream's journal and sink.
    pub(super) async fn assemble(
        self: &Arc<Self>,
        name: &str,
        record: Record,
        plans: Vec<Arc<Plan>>,
    ) -> Result<Arc<Stream>, StreamError> {
        let (journal, known) = self.open_journal(name).await?;
        let sink = self.sink(name)?;
        let stream = Arc::new(Stream::new(Parts {
            name: name.into(),
            record,
            plans,
            journal,
            sink,
            metrics: self.telemetry.stream(name),
        }));
        stream.progress.send_replace(known);
        let progress = lane::recover(&stream).await;
        let progress = progress.map_err(|error| StreamError::Start(error.to_string()))?;
        stream.progress.send_replace(progress);
        self.watch_poison(&stream);
        Ok(stream)
    }

    /// The journal, and the progress that its checkpoint knows of.
    async fn open_journal(&self, name: &str) -> Result<(Arc<Journal>, Progress), StreamError> {
        let dir = self.catalog.dir(name).join("journal");
        let declared = self.config.streams.get(name).and_then(|stream| stream.journal_max);
        let clock = self.clock.clone();
        let clock = forebay_journal::Clock::new(move || clock.unix_micros());
        let synced = self.telemetry.journal_sync_seconds();
        let window = self.config.key_window.as_micros();
        let options = Options {
            keys: KeyBounds {
                count: self.config.key_count,
                room: self.key_room.clone(),
                window_micros: i64::try_from(window).unwrap_or(i64::MAX),
            },
            synced: Observer::new(move |took| synced.observe(took.as_secs_f64())),
            cache: self.config.journal_cache(),
            ..Options::new(declared.unwrap_or(self.config.journal_max), clock)
        };
        let (disk, writers) = (Arc::clone(&self.disk), self.writers.clone());
        let opened = self.blocking(move || {
            disk.create_dir_all(&dir)?;
            Ok::<_, io::Error>(Journal::open(disk, &dir, options, &writers))
        });
        let (journal, recovered) = opened
            .await??
            .map_err(|error| StreamError::Start(format!("stream `{name}`: {error}")))?;
        if let Some(torn) = &recovered.torn {
            tracing::warn!(
                stream = name,
                ?torn,
                "the journal's torn tail was cut; nothing of it was acknowledged"
            );
        }
        let mut progress = Progress::default();
        if let Some(position) = recovered.checkpoint.lowest() {
            progress.committed = position.0;
            progress.passed = Totals::from_counters(recovered.checkpoint.counters);
        }
        Ok((journal, progress))
    }

    fn watch_poison(self: &Arc<Self>, stream: &Arc<Stream>) {
        let (inner, stream) = (Arc::downgrade(self), Arc::clone(stream));
        self.uploads.spawn("poison watch", async move {
            let Some(reason) = stream.journal.poisoned().await else { return };
            stream.metrics.error(Stage::Persist);
            if let Some(inner) = inner.upgrade() {
                inner.failure.send_replace(Some(format!(
                    "the journal of `{}` failed ({reason}); a restart reads what is really there",
                    stream.name
                )));
            }
        });
    }

    /// The stream's lane, as a child of the supervisor of lanes.
    pub(super) fn lane(self: &Arc<Self>, stream: &Arc<Stream>) -> Child {
        let (inner, lane_stream) = (Arc::clone(self), Arc::clone(stream));
        Child::new(lane_name(&stream.name), move |ctx| {
            lane::run(ctx, Arc::clone(&inner), Arc::clone(&lane_stream))
        })
        .restart(Restart::Permanent)
        .shutdown(Shutdown::Deadline(self.config.sink_timeout))
    }

    /// Makes a stream findable and starts its lane; without a lane it does not stay findable.
    pub(super) async fn reveal(
        self: &Arc<Self>,
        name: &str,
        stream: &Arc<Stream>,
    ) -> Result<(), StreamError> {
        self.streams.write().insert(name.to_owned(), Arc::clone(stream));
        let Err(error) = self.supervisor.start_child(self.lane(stream)).await else {
            return Ok(());
        };
        self.streams.write().remove(name);
        if let Err(error) = stream.journal.close().await {
            tracing::warn!(stream = name, %error, "the journal was not closed cleanly");
        }
        Err(StreamError::Start(error.to_string()))
    }
}
