//! The requests of one upload: how far it is, and its body from there.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use forebay_flow::Ctx;
use futures_util::stream;
use http_body_util::{BodyExt, Empty, Limited, StreamBody};
use hyper::body::Frame;
use hyper::{Method, Request, header};
use parking_lot::Mutex;

use super::answer::{self, Answer, Standing};
use super::files::Item;
use super::input::{Input, Reader};
use super::report::Line;
use crate::commands::client::{Lost, Server};

/// A request on which nothing moves for this long is given up: the server is gone.
const STALL: Duration = Duration::from_secs(300);
/// The most that is read of an answer.
const ANSWER_BYTES: usize = 1 << 20;

/// Where the requests of one upload go, and what they say.
#[derive(Debug)]
pub(super) struct Upload<'a> {
    pub(super) ctx: &'a Ctx,
    pub(super) server: &'a Server,
    pub(super) item: &'a Item,
    pub(super) input: Input,
    /// The query string, with its `?`.
    pub(super) parameters: &'a str,
    pub(super) line: &'a Line,
}

/// Why a request has no answer that could be judged.
#[derive(Debug)]
pub(super) enum Failure {
    Lost(Lost),
    /// The bytes cannot be read.
    Input(String),
    Other(String),
}

impl From<Lost> for Failure {
    fn from(lost: Lost) -> Failure {
        Failure::Lost(lost)
    }
}

impl Upload<'_> {
    fn path(&self) -> String {
        format!("/ingest/{}", self.item.stream)
    }

    /// Asks how far the upload is. Cancel safe.
    pub(super) async fn standing(&self) -> Result<Result<Option<Standing>, Answer>, Failure> {
        let request = self
            .server
            .request(Method::HEAD, &self.path())
            .header("idempotency-key", &self.item.key)
            .body(Empty::new())
            .map_err(|error| Failure::Other(error.to_string()))?;
        let sent = tokio::time::timeout(STALL, self.server.send(self.ctx, request)).await;
        let (response, _driver) = sent.map_err(|_| stalled())??;
        Ok(answer::judge_head(&self.server.url, response.status(), response.headers()))
    }

    /// Sends the body, from where `splice` says. Cancel safe in this sense: the connection closes, and
    /// the server keeps what it has made durable.
    pub(super) async fn post(&self, splice: Option<Standing>) -> Result<Answer, Failure> {
        let fault = Arc::default();
        let request = self.request(splice, &fault).await?;
        let sending = async {
            let (response, driver) = self.server.send(self.ctx, request).await?;
            let (head, body) = response.into_parts();
            let body = Limited::new(body, ANSWER_BYTES).collect().await;
            drop(driver);
            let body = body.map_err(|_| Failure::Other("the answer broke off".into()))?;
            let body = body.to_bytes();
            Ok(answer::judge(&self.server.url, head.status, &head.headers, &body))
        };
        let answer = tokio::select! {
            answer = sending => answer,
            () = self.stall() => Err(stalled()),
        };
        // A body that could not be read looks like a broken connection.
        match fault.lock().take() {
            Some(why) if answer.is_err() => Err(Failure::Input(why)),
            _ => answer,
        }
    }

    async fn request(
        &self,
        splice: Option<Standing>,
        fault: &Arc<Mutex<Option<String>>>,
    ) -> Result<Request<BoxedBody>, Failure> {
        let path = format!("{}{}", self.path(), self.parameters);
        let mut request = self
            .server
            .request(Method::POST, &path)
            .header(header::CONTENT_TYPE, self.item.form.content_type())
            .header("idempotency-key", &self.item.key);
        if let Some(encoding) = self.item.encoding {
            request = request.header(header::CONTENT_ENCODING, encoding);
        }
        let (prefix, offset) = splice.map_or((0, 0), |at| (at.prefix, at.offset));
        if splice.is_some() {
            request = request.header("upload-offset", offset).header("upload-prefix", prefix);
        }
        if let Some(size) = self.input.size() {
            let length = prefix + size.saturating_sub(offset);
            request = request.header(header::CONTENT_LENGTH, length);
        }
        let reader = self.input.open().await.map_err(|error| Failure::Input(error.to_string()))?;
        let pieces = Pieces {
            reader,
            at: 0,
            prefix,
            offset,
            line: self.line.clone(),
            fault: Arc::clone(fault),
        };
        let body = stream::try_unfold(pieces, Pieces::next);
        let body: BoxedBody = BodyExt::boxed_unsync(StreamBody::new(body));
        request.body(body).map_err(|error| Failure::Other(error.to_string()))
    }

    /// Ends when no byte was taken for [`STALL`].
    async fn stall(&self) {
        let mut seen = self.line.sent();
        loop {
            tokio::time::sleep(STALL).await;
            let now = self.line.sent();
            if now == seen {
                return;
            }
            seen = now;
        }
    }
}

fn stalled() -> Failure {
    Failure::Other(format!("nothing moved for {} s", STALL.as_secs()))
}

type BoxedBody = http_body_util::combinators::UnsyncBoxBody<Bytes, io::Error>;

/// The body as it is pulled by the connection.
struct Pieces {
    reader: Reader,
    at: u64,
    /// Where the repeated beginning ends, and where the body goes on then.
    prefix: u64,
    offset: u64,
    line: Line,
    fault: Arc<Mutex<Option<String>>>,
}

impl Pieces {
    async fn next(mut self) -> io::Result<Option<(Frame<Bytes>, Pieces)>> {
        let most = match self.prefix.checked_sub(self.at) {
            Some(left) if left > 0 => left,
            _ => u64::MAX,
        };
        let piece = match self.reader.read(self.at, most).await {
            Ok(piece) => piece,
            Err(error) => {
                *self.fault.lock() = Some(error.to_string());
                return Err(error);
            }
        };
        if piece.is_empty() {
            return Ok(None);
        }
        self.at += piece.len() as u64;
        if self.at == self.prefix {
            self.at = self.offset;
        }
        self.line.moved(self.at.max(self.offset), piece.len() as u64);
        Ok(Some((Frame::data(piece), self)))
    }
}
