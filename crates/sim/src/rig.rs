//! An engine on a simulated disk, with its lanes running. Owns both; knows nothing of what is sent.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::AsArray as _;
use arrow::datatypes::Int64Type;
use bytes::Bytes;
use forebay_flow::supervise::{Strategy, Supervisor};
use forebay_flow::{Cause, Clock, Ctx, Task};
use forebay_journal::disk::{Disk, SimDisk};
use forebay_pipeline::codec::Format;
use forebay_pipeline::codec::unpack::Packing;
use forebay_pipeline::engine::{Engine, EngineConfig};
use forebay_pipeline::intake::{Ack, Due, IngestError, Request};
use forebay_pipeline::telemetry::Telemetry;

/// The stream that numbered rows go to.
pub const STREAM: &str = "rows";

/// An engine whose lanes run until it is [closed](Rig::close) or [abandoned](Rig::abandon).
#[derive(Debug)]
pub struct Rig {
    /// The engine.
    pub engine: Engine,
    ctx: Ctx,
    lanes: Task<()>,
}

impl Rig {
    /// Opens an engine on what the disk holds.
    ///
    /// # Errors
    /// Why it does not open, as text.
    pub async fn open(disk: SimDisk) -> Result<Rig, String> {
        let ctx = Ctx::root("simulation");
        let mut config = EngineConfig::new(PathBuf::from("/data"), 128 << 20, 2);
        config.flush_interval = Duration::from_millis(20);
        config.sink_timeout = Duration::from_secs(5);
        config.limits.chunk_bytes = 2048;
        let registry = prometheus::Registry::new();
        let telemetry = Telemetry::new(&registry).map_err(|error| error.to_string())?;
        let disk: Arc<dyn Disk> = Arc::new(disk);
        let engine = Engine::open(&ctx, config, Clock::system(), disk, Arc::new(telemetry)).await;
        let engine = engine.map_err(|error| error.to_string())?;
        let lanes = supervised(&ctx, &engine);
        Ok(Rig { engine, ctx, lanes })
    }

    /// How often each number is in the table.
    ///
    /// # Errors
    /// Why the query failed, as text.
    pub async fn count(&self) -> Result<BTreeMap<i64, u64>, String> {
        let sql = format!("SELECT id, count(*) AS times FROM {STREAM} GROUP BY id");
        let mut rows = self.engine.query(&sql, None).await.map_err(|error| error.to_string())?;
        let mut found = BTreeMap::new();
        while let Some(batch) = rows.next().await {
            let batch = batch.map_err(|error| error.to_string())?;
            let ids = batch.column(0).as_primitive::<Int64Type>();
            let times = batch.column(1).as_primitive::<Int64Type>();
            for (id, times) in ids.values().iter().zip(times.values()) {
                found.insert(*id, u64::try_from(*times).unwrap_or(0));
            }
        }
        Ok(found)
    }

    /// True while the supervisor of the lanes has not given up.
    pub fn runs(&self) -> bool {
        !self.lanes.is_finished()
    }

    /// Stops the lanes and lets go of the rest, as a process that is killed does.
    pub async fn abandon(self) {
        self.ctx.cancel(Cause::Shutdown);
        self.lanes.join().await.ok();
    }

    /// Stops the lanes and closes the engine.
    ///
    /// # Errors
    /// How the lanes' supervisor ended, if not well.
    pub async fn close(self) -> Result<(), String> {
        self.ctx.cancel(Cause::Shutdown);
        self.lanes.join().await.map_err(|error| error.to_string())?;
        self.engine.close().await;
        Ok(())
    }
}

fn supervised(ctx: &Ctx, engine: &Engine) -> Task<()> {
    let supervisor = Supervisor::new("root", Strategy::OneForOne);
    let supervisor = engine.supervisor().into_iter().fold(supervisor, Supervisor::child);
    let under = ctx.child("root");
    ctx.spawn("supervisor", async move {
        // Giving up is what a lane on a dead disk must do; the oracle judges the rows.
        drop(supervisor.run(under).await);
    })
}

/// Sends one body of numbered rows.
///
/// # Errors
/// As the engine answers.
pub async fn send(
    engine: &Engine,
    rows: Range<i64>,
    key: Option<String>,
    ack: Ack,
) -> Result<(), IngestError> {
    let body: String =
        rows.map(|row| format!("{{\"id\":{row},\"text\":\"row {row}\"}}\n")).collect();
    let request = Request {
        stream: STREAM.to_owned(),
        format: Format::Ndjson,
        packing: Packing::default(),
        ack,
        key,
        tenant: "client".to_owned(),
        client: "127.0.0.1".to_owned(),
        request_id: "sim".to_owned(),
        wait: None,
        content_length: Some(body.len() as u64),
    };
    let mut upload = engine.begin(request).await?;
    upload.push(Bytes::from(body)).await?;
    let due = Due(forebay_flow::clock::now() + Duration::from_millis(500));
    upload.finish(due).await.map(drop)
}
