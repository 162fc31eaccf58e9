//! Multipart uploads: parts written where they belong in one staged file, which gets its name at the end.
//!
//! Owns one staged file. It never shows a name before `complete`, and not then if a part is missing.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use object_store::path::Path;
use object_store::{Error, MultipartUpload, PutPayload, PutResult, Result, UploadPart};

use super::files::{Publish, STORE, Staged, error};
use super::{DiskStore, on};

#[derive(Debug)]
pub(super) struct Upload {
    store: DiskStore,
    location: Path,
    staged: Option<Staged>,
    end: u64,
    written: Arc<AtomicU64>,
}

impl Upload {
    pub(super) fn new(store: DiskStore, location: Path, staged: Staged) -> Self {
        Self { store, location, staged: Some(staged), end: 0, written: Arc::new(AtomicU64::new(0)) }
    }

    fn closed(&self) -> Error {
        error(&self.location, io::Error::other("the upload is already complete or aborted"))
    }
}

#[async_trait]
impl MultipartUpload for Upload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let Some(staged) = &self.staged else {
            let closed = self.closed();
            return Box::pin(async move { Err(closed) });
        };
        let (file, location) = (Arc::clone(&staged.file), self.location.clone());
        let threads = self.store.threads.clone();
        let (mut at, len) = (self.end, data.content_length() as u64);
        let written = Arc::clone(&self.written);
        self.end += len;
        let write = move || {
            for chunk in &data {
                file.write_all_at(chunk, at).map_err(|e| error(&location, e))?;
                at += chunk.len() as u64;
            }
            written.fetch_add(len, Ordering::AcqRel);
            Ok(())
        };
        Box::pin(async move { on(&threads, write).await })
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let staged = self.staged.take().ok_or_else(|| self.closed())?;
        let written = self.written.load(Ordering::Acquire);
        if written != self.end {
            let source = format!("{}: {written} of {} bytes were written", self.location, self.end);
            return Err(Error::Generic { store: STORE, source: source.into() });
        }
        let location = self.location.clone();
        self.store.with(move |files| files.publish(staged, &location, Publish::Replace)).await
    }

    async fn abort(&mut self) -> Result<()> {
        let staged = self.staged.take();
        self.store
            .with(move |_| {
                drop(staged);
                Ok(())
            })
            .await
    }
}
