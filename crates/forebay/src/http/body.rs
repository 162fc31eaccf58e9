//! Reading a request's body: not too slow, not too long, and told apart when broken.
//! Owns the body until it ends; never holds more than the frame it hands on.

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use forebay_flow::clock;
use http_body_util::BodyExt;

use super::problem::Problem;
use crate::catalogue;
use crate::config::Http;

/// Judges how fast bytes come, counting only time in which the server was reading.
#[derive(Debug)]
pub struct RateGuard {
    min_rate: u64,
    window: Duration,
    /// Time of this window that is left; the first one is longer by the grace.
    left: Duration,
    bytes: u64,
}

impl RateGuard {
    /// At least `min_rate` bytes a second over each `window`, the first of which is longer by `grace`.
    pub fn new(min_rate: u64, window: Duration, grace: Duration) -> RateGuard {
        RateGuard { min_rate, window, left: window + grace, bytes: 0 }
    }

    /// How long the next read may take before [`RateGuard::expired`] must be asked.
    pub fn patience(&self) -> Duration {
        self.left
    }

    /// Notes a read of `bytes` that took `took`.
    pub fn read(&mut self, took: Duration, bytes: usize) {
        self.left = self.left.saturating_sub(took);
        self.bytes += bytes as u64;
    }

    /// Judges the window once it is over and begins the next: true when too little came.
    pub fn expired(&mut self) -> bool {
        if !self.left.is_zero() {
            return false;
        }
        let due = self.min_rate.saturating_mul(self.window.as_millis() as u64) / 1000;
        let slow = self.bytes < due;
        self.left = self.window;
        self.bytes = 0;
        slow
    }
}

/// Why a body was not read to its end.
#[derive(Debug)]
pub enum BodyError {
    /// Below the least rate.
    TooSlow {
        /// Bytes a second.
        min_rate: u64,
    },
    /// Past `[http] max_body`.
    TooLarge {
        /// Bytes.
        limit: u64,
    },
    /// Cut off, or not as its framing says.
    Broken(String),
}

impl From<BodyError> for Problem {
    fn from(error: BodyError) -> Problem {
        match error {
            BodyError::TooSlow { min_rate } => Problem::new(
                catalogue::SLOW_BODY,
                format!(
                    "the body came at less than {min_rate} bytes a second; \
                     send it again, under the same Idempotency-Key if it had one"
                ),
            ),
            BodyError::TooLarge { limit } => Problem::new(
                catalogue::BODY_TOO_LARGE,
                format!("the body is longer than {limit} bytes ([http] max_body)"),
            )
            .with("limit_bytes", limit),
            BodyError::Broken(why) => {
                Problem::new(catalogue::BROKEN_BODY, format!("the body could not be read: {why}"))
            }
        }
    }
}

/// A body under watch.
#[derive(Debug)]
pub struct Reader {
    body: Body,
    rate: RateGuard,
    limit: Option<u64>,
    read: u64,
}

impl Reader {
    /// Watches `body` by the settings' rules, and `limit` bytes if there is one.
    pub fn new(body: Body, http: &Http, limit: Option<u64>) -> Reader {
        let rate = RateGuard::new(http.min_rate, http.rate_window, http.rate_grace);
        Reader { body, rate, limit, read: 0 }
    }

    /// The next bytes; `None` at the end. Cancel safe.
    ///
    /// # Errors
    /// [`BodyError`]; nothing further can be read.
    pub async fn next(&mut self) -> Result<Option<Bytes>, BodyError> {
        loop {
            let began = clock::now();
            let frame = tokio::time::timeout(self.rate.patience(), self.body.frame()).await;
            let took = began.elapsed();
            let bytes = match frame {
                Err(_) => Bytes::new(),
                Ok(None) => return Ok(None),
                Ok(Some(Err(error))) => return Err(BodyError::Broken(describe(&error))),
                Ok(Some(Ok(frame))) => frame.into_data().unwrap_or_default(),
            };
            self.rate.read(took, bytes.len());
            self.read += bytes.len() as u64;
            if let Some(limit) = self.limit.filter(|limit| self.read > *limit) {
                return Err(BodyError::TooLarge { limit });
            }
            if self.rate.expired() {
                return Err(BodyError::TooSlow { min_rate: self.rate.min_rate });
            }
            if !bytes.is_empty() {
                return Ok(Some(bytes));
            }
        }
    }

    /// The whole body, for those that are small by contract.
    ///
    /// # Errors
    /// As [`Reader::next`].
    pub async fn all(&mut self) -> Result<Vec<u8>, BodyError> {
        let mut whole = Vec::new();
        while let Some(bytes) = self.next().await? {
            whole.extend_from_slice(&bytes);
        }
        Ok(whole)
    }

    /// What was not read.
    pub fn into_rest(self) -> Body {
        self.body
    }
}

/// The innermost cause: hyper's outer texts say little.
fn describe(error: &(dyn std::error::Error + 'static)) -> String {
    let mut inner = error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    inner.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_window_with_enough_bytes_passes_and_one_with_too_few_does_not() {
        let mut guard = RateGuard::new(1024, 10 * SECOND, 5 * SECOND);
        guard.read(14 * SECOND, 10 * 1024);
        assert!(!guard.expired(), "the grace lengthens the first window");
        guard.read(SECOND, 0);
        assert!(!guard.expired(), "enough came");
        assert_eq!(guard.patience(), 10 * SECOND);
        guard.read(10 * SECOND, 10 * 1024 - 1);
        assert!(guard.expired());
    }

    #[test]
    fn time_in_which_the_server_did_not_read_does_not_count() {
        let mut guard = RateGuard::new(1024, SECOND, Duration::ZERO);
        for _ in 0..1000 {
            guard.read(Duration::from_micros(10), 1);
            assert!(!guard.expired());
        }
    }
}
