//! One request's body on its way into the journal.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use forebay_flow::budget::Permit;
use forebay_flow::pool::PoolError;
use forebay_journal::{Append, AppendError, Appended, Key, Lsn};
use futures_util::future::BoxFuture;

use super::resume::{self, Beginning, Chain, Link, Note};
use super::unpacking::{Failed, Unpacking};
use super::{
    Ack, Due, IngestError, Partial, REPLY_ERRORS, Refusal, Reply, Request, RowError, Standing,
    Validated, validate,
};
use crate::codec::{Chunk, Cutter, Format, Header, Malformed};
use crate::engine::Inner;
use crate::entry::Meta;
use crate::record::Rejected;
use crate::stream::catalog::{OnInvalid, Origin};
use crate::stream::{Plan, Stream};
use crate::telemetry::Stage;

/// Appends of one upload that may wait for their sync while the next chunk is decoded.
pub const APPENDS: usize = 2;

/// A chunk's key in the journal and its place in the upload.
type Keyed = (Key, Link);

type Pending = BoxFuture<'static, Result<Appended, AppendError>>;

/// An upload that was admitted. Push the body's bytes, then finish.
pub struct Upload {
    pub(super) engine: Arc<Inner>,
    pub(super) request: Request,
    /// `None` until the first chunk of a stream that does not exist yet.
    pub(super) stream: Option<Arc<Stream>>,
    unpacking: Unpacking,
    pub(super) cutter: Cutter,
    /// Shared with appends that outlive the request (`ack=received`).
    permit: Arc<Permit>,
    /// Over every byte cut so far: a key stands for a whole body, not for its last chunk.
    pub(super) chain: Chain,
    /// Set while the repeated beginning of an upload that goes on is read.
    pub(super) beginning: Option<Beginning>,
    /// Where in the body this request went on.
    pub(super) resumed_at: Option<u64>,
    pub(super) received: u64,
    pub(super) tally: Tally,
    pub(super) pending: VecDeque<(Pending, Waiting)>,
    /// Whether the body is taken whole or not at all: settled by the version its first rows meet.
    whole: Option<bool>,
    /// `on_invalid = "reject"`: nothing is appended before the whole body is known to be good.
    spool: Vec<(Validated, Option<Keyed>, u64)>,
    cut: u64,
}

/// What an append still in flight will have made durable.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Waiting {
    pub(super) accepted: u64,
    pub(super) rejected: u64,
    pub(super) offset: u64,
}

/// What is durable so far.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) accepted: u64,
    pub(super) rejected: u64,
    errors: Vec<RowError>,
    pub(super) position: u64,
    pub(super) offset: u64,
    chunks: u64,
    duplicates: u64,
}

impl std::fmt::Debug for Upload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Upload").field("request", &self.request).finish_non_exhaustive()
    }
}

impl Upload {
    pub(crate) fn new(
        engine: Arc<Inner>,
        request: Request,
        stream: Option<Arc<Stream>>,
        permit: Permit,
    ) -> Upload {
        let format = body_format(&request.format, stream.as_deref());
        let cutter = Cutter::new(&format, engine.config.limits);
        let unpacking = Unpacking::new(&engine, request.packing);
        Upload {
            engine,
            request,
            stream,
            unpacking,
            cutter,
            permit: Arc::new(permit),
            chain: Chain::default(),
            beginning: None,
            resumed_at: None,
            received: 0,
            tally: Tally::default(),
            pending: VecDeque::new(),
            whole: None,
            spool: Vec::new(),
            cut: 0,
        }
    }

    /// Bytes of the memory budget that this upload holds.
    pub fn reserved(&self) -> u64 {
        self.permit.bytes()
    }

    /// Takes the next bytes of the body; waits while the validators or the journal are behind, which
    /// slows the client through TCP.
    ///
    /// Cancel safety: not to be called again after it was dropped; drop the upload then.
    ///
    /// # Errors
    /// Any [`IngestError`] but those of [`finish`](Upload::finish) alone. The upload is over then.
    pub async fn push(&mut self, bytes: Bytes) -> Result<(), IngestError> {
        let pushed = self.push_piece(bytes).await;
        self.settled(pushed).await
    }

    async fn push_piece(&mut self, bytes: Bytes) -> Result<(), IngestError> {
        if self.unpacking.is_plain(&bytes) {
            return self.push_text(bytes).await;
        }
        if self.unpacking.feed(&bytes) {
            self.unpack(false).await?;
        }
        Ok(())
    }

    /// Unpacks what was fed, and cuts what comes out.
    async fn unpack(&mut self, last: bool) -> Result<(), IngestError> {
        loop {
            let text = self.unpacking.next(&self.engine, last).await;
            let text = text.map_err(|failed| self.unpack_error(failed))?;
            let Some(text) = text else { return Ok(()) };
            self.push_text(text).await?;
        }
    }

    fn unpack_error(&self, failed: Failed) -> IngestError {
        let partial = self.partial();
        match failed {
            Failed::Body(error) => IngestError::Unpack { error, partial },
            Failed::NoRoom => {
                self.engine.telemetry.refused(Refusal::Memory);
                let retry_after = Duration::from_secs(1);
                IngestError::Overloaded { reason: Refusal::Memory, retry_after, partial }
            }
            Failed::Pool(error) => self.pool_error(self.stream.as_deref(), error),
        }
    }

    async fn push_text(&mut self, mut bytes: Bytes) -> Result<(), IngestError> {
        if let Some(beginning) = &mut self.beginning {
            let left = usize::try_from(beginning.left).unwrap_or(usize::MAX).min(bytes.len());
            beginning.left -= left as u64;
            let ends = beginning.left == 0;
            self.cut_up(bytes.split_to(left)).await?;
            if ends {
                self.jump().await?;
            }
        }
        self.cut_up(bytes).await
    }

    async fn cut_up(&mut self, bytes: Bytes) -> Result<(), IngestError> {
        let pushed = self.cutter.push(bytes);
        self.take_ready().await?;
        pushed.map_err(|malformed| self.malformed(malformed))
    }

    /// Takes the chunks that are complete: they come before whatever the cutter said last.
    pub(super) async fn take_ready(&mut self) -> Result<(), IngestError> {
        while let Some(chunk) = self.cutter.next() {
            self.take(chunk).await?;
        }
        Ok(())
    }

    /// Ends the body and waits for the level of acknowledgement that was asked for.
    ///
    /// Cancel safe in this sense: what was appended stays, the rest is given up.
    ///
    /// # Errors
    /// Any [`IngestError`]; each says what is durable nevertheless.
    pub async fn finish(mut self, due: Due) -> Result<Reply, IngestError> {
        let last_byte = self.engine.clock.now();
        match tokio::time::timeout_at(due.0, self.end()).await {
            Ok(done) => done?,
            Err(_) => return Err(IngestError::DeadlineExceeded { partial: self.partial() }),
        }
        let Some(stream) = self.stream.clone() else { return Err(IngestError::Empty) };
        let mut ack = self.request.ack.min(Ack::Durable);
        if self.request.ack == Ack::Stored {
            stream.want(self.tally.position);
            // Past the deadline the answer is honest about what it is: durable.
            let stored = tokio::time::timeout_at(due.0, stream.stored(self.tally.position)).await;
            ack = if stored.is_ok() { Ack::Stored } else { Ack::Durable };
        }
        let Tally { accepted, rejected, errors, position, .. } = self.tally;
        let waited = self.engine.clock.now() - last_byte;
        self.engine.telemetry.ack_seconds(ack).observe(waited.as_secs_f64());
        let duplicate = self.tally.chunks > 0 && self.tally.duplicates == self.tally.chunks;
        let reply = Reply {
            stream: stream.name.to_string(),
            ack,
            accepted,
            rejected,
            errors,
            position,
            duplicate,
        };
        if accepted == 0 && rejected > 0 {
            return Err(IngestError::NoValidRow(Box::new(reply)));
        }
        Ok(reply)
    }

    async fn end(&mut self) -> Result<(), IngestError> {
        let ended = self.end_body().await;
        self.settled(ended).await
    }

    async fn end_body(&mut self) -> Result<(), IngestError> {
        self.unpack(true).await?;
        if self.beginning.is_some() {
            // Shorter than the beginning that is known.
            return Err(self.another_body());
        }
        let last = self.cutter.finish();
        self.take_ready().await?;
        if let Some(chunk) = last.map_err(|malformed| self.malformed(malformed))? {
            self.take(chunk).await?;
        }
        if self.tally.chunks == 0 {
            return Err(IngestError::Empty);
        }
        self.commit_spool().await?;
        while self.pending.len() > self.allowed_in_flight_at_end() {
            self.settle_one().await?;
        }
        Ok(())
    }

    /// `ack=received` does not wait for the sync, but hands the appends to a task that does: a
    /// future dropped before its bytes were gathered would take them back.
    fn allowed_in_flight_at_end(&mut self) -> usize {
        if self.request.ack == Ack::Received {
            while let Some((append, waiting)) = self.pending.pop_front() {
                self.tally.accepted += waiting.accepted;
                self.tally.rejected += waiting.rejected;
                let permit = Arc::clone(&self.permit);
                self.engine.uploads.spawn("received", async move {
                    let _held = permit;
                    if let Err(error) = append.await {
                        tracing::warn!(%error, "rows acknowledged as received were not kept");
                    }
                });
            }
        }
        0
    }

    pub(super) fn partial(&self) -> Partial {
        Partial {
            accepted: self.tally.accepted,
            rejected: self.tally.rejected,
            offset: self.tally.offset,
        }
    }

    pub(super) fn malformed(&self, mut malformed: Malformed) -> IngestError {
        if let Some(offset) = self.resumed_at {
            let counted = format!(" (lines are counted from byte {offset} of the body)");
            malformed.message.push_str(&counted);
        }
        IngestError::Malformed { malformed, partial: self.partial() }
    }

    /// One chunk: answered from the keys, or validated and appended.
    pub(super) async fn take(&mut self, chunk: Chunk) -> Result<(), IngestError> {
        self.tally.chunks += 1;
        let link = self.chain.link(&chunk);
        self.cut = chunk.end;
        let stream = self.stream_for(&chunk).await?;
        let key = self.key(&stream, link);
        if let Some((key, _)) = key
            && self.known(&stream, key)?
        {
            return Ok(());
        }
        if self.beginning.is_some() {
            return Err(self.another_body());
        }
        let plan = stream.current().ok_or_else(|| no_plan(&stream))?;
        let validated = self.validate(&stream, plan, chunk).await?;
        if validated.received == 0 {
            // A header without rows, blank lines: nothing that a journal entry could stand for.
            return Ok(());
        }
        self.received += validated.received;
        let rejects = || validated.plan.definition.on_invalid == OnInvalid::Reject;
        if *self.whole.get_or_insert_with(rejects) {
            return self.spool(validated, key);
        }
        self.append(&stream, validated, key, self.cut).await
    }

    /// The stream; made from this chunk when it does not exist and may appear by itself.
    async fn stream_for(&mut self, chunk: &Chunk) -> Result<Arc<Stream>, IngestError> {
        if let Some(stream) = &self.stream {
            return Ok(Arc::clone(stream));
        }
        let name = &self.request.stream;
        let created = self.engine.create_from(name, &self.request.format, chunk).await;
        let stream = match created {
            Ok(stream) => stream,
            Err(IngestError::Malformed { malformed, .. }) => return Err(self.malformed(malformed)),
            Err(error) => return Err(error),
        };
        self.stream = Some(Arc::clone(&stream));
        Ok(stream)
    }

    /// The chunk's identity: (stream, tenant, key, offset) and everything sent up to its end.
    fn key(&self, stream: &Stream, link: Link) -> Option<Keyed> {
        let name = self.request.key.as_ref()?;
        let hash = resume::hash(&stream.journal, &self.request.tenant, name, link.from);
        Some((Key { hash, checksum: link.checksum, note: 0 }, link))
    }

    /// True when this chunk is already durable under its key.
    fn known(&mut self, stream: &Stream, key: Key) -> Result<bool, IngestError> {
        let Some(state) = stream.journal.lookup(key.hash) else { return Ok(false) };
        if state.checksum != key.checksum {
            return Err(IngestError::KeyConflict { partial: self.partial() });
        }
        self.duplicate(state.end, state.note, self.cut);
        Ok(true)
    }

    pub(super) fn duplicate(&mut self, end: Lsn, note: u64, offset: u64) {
        let Note { accepted, rejected, .. } = Note::unpack(note);
        self.received += accepted + rejected;
        self.tally.accepted += accepted;
        self.tally.rejected += rejected;
        self.tally.position = self.tally.position.max(end.0);
        self.tally.offset = self.tally.offset.max(offset);
        self.tally.duplicates += 1;
    }

    /// Everything up to an offset was durable before this request, its repeated beginning included.
    pub(super) fn stands_at(&mut self, standing: &Standing) {
        self.received = standing.accepted + standing.rejected;
        self.tally.accepted = standing.accepted;
        self.tally.rejected = standing.rejected;
        self.tally.position = standing.position;
        self.tally.offset = standing.offset;
        self.cut = standing.offset;
    }

    /// Decodes and checks on the CPU's own threads; widens an auto-created stream first where the
    /// chunk brings new columns.
    async fn validate(
        &mut self,
        stream: &Arc<Stream>,
        mut plan: Arc<Plan>,
        chunk: Chunk,
    ) -> Result<Validated, IngestError> {
        let mut widens = stream.origin() == Origin::Auto;
        loop {
            let meta = self.meta(&plan);
            let (job_plan, job_chunk, format) =
                (Arc::clone(&plan), chunk.clone(), self.request.format.clone());
            let job = move || validate(&job_plan, &format, &job_chunk, meta, widens);
            let validated = match self.engine.validators.run(job).await {
                Ok(result) => result,
                Err(error) => return Err(self.pool_error(Some(stream), error)),
            };
            match validated {
                Ok(Some(validated)) => return Ok(validated),
                // New columns: give the stream a wider version and decode again under it.
                Ok(None) => {
                    let next = self.engine.widen(stream, &self.request.format, &chunk).await?;
                    // Nothing could be added: what is still unknown becomes dead letters.
                    widens = next.definition.version != plan.definition.version;
                    plan = next;
                }
                Err(malformed) => return Err(self.malformed(malformed)),
            }
        }
    }

    fn meta(&self, plan: &Plan) -> Meta {
        Meta {
            schema_version: plan.definition.version,
            transform_version: plan.definition.version,
            row_base: self.received,
            client: self.request.client.clone(),
            request: self.request.request_id.clone(),
            tenant: self.request.tenant.clone(),
            ..Meta::default()
        }
    }

    fn pool_error(&self, stream: Option<&Stream>, error: PoolError) -> IngestError {
        if let Some(stream) = stream {
            stream.metrics.error(Stage::Validate);
        }
        match error {
            PoolError::Stopped | PoolError::Cancelled => IngestError::Overloaded {
                reason: Refusal::Draining,
                retry_after: self.engine.config.drain_retry_after(),
                partial: self.partial(),
            },
            error => IngestError::Internal(error.to_string()),
        }
    }

    fn spool(&mut self, validated: Validated, key: Option<Keyed>) -> Result<(), IngestError> {
        let limit = self.engine.config.spool_bytes;
        if self.cut > limit {
            return Err(IngestError::TooLargeToReject { limit });
        }
        self.note_errors(&validated.errors);
        self.spool.push((validated, key, self.cut));
        Ok(())
    }

    /// The whole body is known: all of it is kept, or nothing.
    async fn commit_spool(&mut self) -> Result<(), IngestError> {
        let spool = std::mem::take(&mut self.spool);
        let Some(stream) = self.stream.clone() else { return Ok(()) };
        let rejected: u64 = spool.iter().map(|(validated, ..)| validated.rejected).sum();
        if rejected > 0 {
            return Err(IngestError::Invalid(Box::new(Reply {
                stream: stream.name.to_string(),
                ack: self.request.ack,
                accepted: 0,
                rejected,
                errors: std::mem::take(&mut self.tally.errors),
                position: self.tally.position,
                duplicate: false,
            })));
        }
        for (validated, key, offset) in spool {
            self.append(&stream, validated, key, offset).await?;
        }
        Ok(())
    }

    fn note_errors(&mut self, errors: &[Rejected]) {
        let room = REPLY_ERRORS.saturating_sub(self.tally.errors.len());
        self.tally.errors.extend(errors.iter().take(room).map(|rejected| RowError {
            row: rejected.row,
            column: rejected.column.clone(),
            code: rejected.code,
            message: rejected.message.clone(),
        }));
    }

    /// Hands a validated chunk to the journal and lets it sync while the next one is decoded.
    async fn append(
        &mut self,
        stream: &Arc<Stream>,
        validated: Validated,
        key: Option<Keyed>,
        offset: u64,
    ) -> Result<(), IngestError> {
        if self.whole != Some(true) {
            self.note_errors(&validated.errors);
        }
        let Validated { accepted, rejected, .. } = validated;
        let narrow = |rows: u64| u32::try_from(rows).unwrap_or(u32::MAX);
        let key = key.map(|(key, link)| Key { note: link.note(accepted, rejected), ..key });
        let append = Append {
            kind: ENTRY,
            received_unix_micros: self.engine.clock.unix_micros(),
            key,
            counters: [narrow(accepted), narrow(rejected), 0, 0],
            payload: validated.payload.clone(),
        };
        let (journal, stream) = (Arc::clone(&stream.journal), Arc::clone(stream));
        let counted = async move {
            let appended = journal.append(append).await?;
            if matches!(appended, Appended::New { .. }) {
                stream.metrics.accepted.inc_by(accepted);
                stream.metrics.processed(Stage::Validate, accepted + rejected);
                for (code, rows) in &validated.codes {
                    stream.metrics.rejected(*code, *rows);
                }
            }
            Ok(appended)
        };
        let mut append: Pending = Box::pin(counted);
        // The first poll hands the bytes over; the writer needs no further polling to sync them.
        let first = std::future::poll_fn(|cx| Poll::Ready(append.as_mut().poll(cx))).await;
        if let Poll::Ready(done) = first {
            // Refused at once: nobody is told that these rows were received.
            let appended = done.map_err(|error| self.append_error(error))?;
            append = Box::pin(std::future::ready(Ok(appended)));
        }
        self.pending.push_back((append, Waiting { accepted, rejected, offset }));
        while self.pending.len() > APPENDS {
            self.settle_one().await?;
        }
        Ok(())
    }
}

/// The journal's record kind of an [`entry`](crate::entry).
pub(crate) const ENTRY: u8 = 1;

/// The format as the stream completes it: a CSV body without a header has the stream's columns.
fn body_format(format: &Format, stream: Option<&Stream>) -> Format {
    let mut format = format.clone();
    if let Format::Csv(dialect) = &mut format
        && dialect.names.is_none()
        && dialect.header == Some(Header::Absent)
        && let Some(plan) = stream.and_then(Stream::current)
    {
        let columns = &plan.definition.schema.columns;
        dialect.names = Some(columns.iter().map(|column| column.name.clone()).collect());
    }
    format
}

fn no_plan(stream: &Stream) -> IngestError {
    IngestError::Internal(format!("stream `{}` has no definition", stream.name))
}
