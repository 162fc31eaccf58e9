//! Every metric of the data path, in one place. One update per batch, never per row; labels are
//! streams, stages and reasons from enums, never a client, a key or a message.

use prometheus::core::Collector;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGaugeVec, Opts, Registry,
};

use crate::intake::{Ack, Refusal};
use crate::record::Code;

/// A stage of the data path, as a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Decode and check.
    Validate,
    /// The stream's SQL.
    Transform,
    /// Encode and commit.
    Persist,
}

impl Stage {
    /// All stages, in flow order.
    pub const ALL: [Stage; 3] = [Stage::Validate, Stage::Transform, Stage::Persist];

    /// The label.
    pub fn as_str(self) -> &'static str {
        match self {
            Stage::Validate => "validate",
            Stage::Transform => "transform",
            Stage::Persist => "persist",
        }
    }
}

/// The families of the data path.
#[derive(Debug, Clone)]
pub struct Telemetry {
    accepted: IntCounterVec,
    rejected: IntCounterVec,
    refused: IntCounterVec,
    processed: IntCounterVec,
    errors: IntCounterVec,
    ack_seconds: HistogramVec,
    flush_seconds: HistogramVec,
    journal_sync_seconds: Histogram,
    lane_lag_bytes: IntGaugeVec,
    journal_bytes: IntGaugeVec,
    ledger_difference: IntGaugeVec,
}

/// One stream's counters, looked up once.
#[derive(Debug, Clone)]
pub struct StreamMetrics {
    /// Rows accepted.
    pub accepted: IntCounter,
    rejected: Vec<IntCounter>,
    processed: [IntCounter; 3],
    errors: [IntCounter; 3],
}

impl StreamMetrics {
    /// Counts `rows` rows refused for `code`.
    pub fn rejected(&self, code: Code, rows: u64) {
        if let Some(counter) = self.rejected.get(code as usize) {
            counter.inc_by(rows);
        }
    }

    /// Counts rows that passed a stage.
    pub fn processed(&self, stage: Stage, rows: u64) {
        self.processed[stage as usize].inc_by(rows);
    }

    /// Counts an error of a stage: a failed batch, a panic, a failed commit.
    pub fn error(&self, stage: Stage) {
        self.errors[stage as usize].inc();
    }
}

fn counter(name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec, prometheus::Error> {
    IntCounterVec::new(Opts::new(name, help), labels)
}

fn gauge(name: &str, help: &str) -> Result<IntGaugeVec, prometheus::Error> {
    IntGaugeVec::new(Opts::new(name, help), &["stream"])
}

fn seconds(
    name: &str,
    help: &str,
    label: &str,
    start: f64,
) -> Result<HistogramVec, prometheus::Error> {
    let buckets = prometheus::exponential_buckets(start, 2.0, 16)?;
    HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets), &[label])
}

impl Telemetry {
    /// Makes the families and registers them; every series with fixed labels exists from here on.
    pub fn new(registry: &Registry) -> Result<Telemetry, prometheus::Error> {
        let telemetry = Telemetry {
            accepted: counter(
                "forebay_records_accepted_total",
                "Rows accepted into the journal.",
                &["stream"],
            )?,
            rejected: counter(
                "forebay_records_rejected_total",
                "Rows refused, by reason.",
                &["stream", "reason"],
            )?,
            refused: counter(
                "forebay_requests_refused_total",
                "Requests refused before acceptance, by reason and class.",
                &["reason", "class"],
            )?,
            processed: counter(
                "forebay_records_processed_total",
                "Rows that passed a stage.",
                &["stage", "stream"],
            )?,
            errors: counter(
                "forebay_processing_errors_total",
                "Batches, panics and commits that failed in a stage.",
                &["stage", "stream"],
            )?,
            ack_seconds: seconds(
                "forebay_ack_seconds",
                "Time from the last byte read to the answer, by level reached.",
                "level",
                0.000_25,
            )?,
            flush_seconds: seconds(
                "forebay_flush_seconds",
                "Time that a commit to a sink took.",
                "sink",
                0.002,
            )?,
            journal_sync_seconds: Histogram::with_opts(
                HistogramOpts::new(
                    "forebay_journal_sync_seconds",
                    "Time that a group commit took to be written and synced.",
                )
                .buckets(prometheus::exponential_buckets(0.000_25, 2.0, 16)?),
            )?,
            lane_lag_bytes: gauge(
                "forebay_lane_lag_bytes",
                "Journal bytes that are durable and not yet committed to the sink.",
            )?,
            journal_bytes: gauge(
                "forebay_journal_bytes",
                "Bytes that a stream's journal holds against its bound.",
            )?,
            ledger_difference: gauge(
                "forebay_ledger_difference",
                "Accepted rows that neither the sink nor the journal accounts for. Not zero is a bug.",
            )?,
        };
        for family in telemetry.families() {
            registry.register(family)?;
        }
        for reason in Refusal::ALL {
            telemetry.refused.with_label_values(&[reason.as_str(), "normal"]);
        }
        for ack in [Ack::Received, Ack::Durable, Ack::Stored] {
            telemetry.ack_seconds.with_label_values(&[ack.as_str()]);
        }
        telemetry.flush_seconds.with_label_values(&["delta"]);
        telemetry.stream("_dead_letters");
        Ok(telemetry)
    }

    fn families(&self) -> Vec<Box<dyn Collector>> {
        vec![
            Box::new(self.accepted.clone()),
            Box::new(self.rejected.clone()),
            Box::new(self.refused.clone()),
            Box::new(self.processed.clone()),
            Box::new(self.errors.clone()),
            Box::new(self.ack_seconds.clone()),
            Box::new(self.flush_seconds.clone()),
            Box::new(self.journal_sync_seconds.clone()),
            Box::new(self.lane_lag_bytes.clone()),
            Box::new(self.journal_bytes.clone()),
            Box::new(self.ledger_difference.clone()),
        ]
    }

    /// A stream's counters; its series exist from here on.
    pub fn stream(&self, name: &str) -> StreamMetrics {
        self.gauges(name, 0, 0, 0);
        StreamMetrics {
            accepted: self.accepted.with_label_values(&[name]),
            rejected: Code::ALL
                .iter()
                .map(|code| self.rejected.with_label_values(&[name, code.as_str()]))
                .collect(),
            processed: Stage::ALL
                .map(|stage| self.processed.with_label_values(&[stage.as_str(), name])),
            errors: Stage::ALL.map(|stage| self.errors.with_label_values(&[stage.as_str(), name])),
        }
    }

    /// Drops a stream's series, when the stream is dropped. A series that is not there is no error.
    pub fn forget(&self, name: &str) {
        let gone = |result: Result<(), prometheus::Error>| drop(result);
        gone(self.accepted.remove_label_values(&[name]));
        for code in Code::ALL {
            gone(self.rejected.remove_label_values(&[name, code.as_str()]));
        }
        for stage in Stage::ALL {
            gone(self.processed.remove_label_values(&[stage.as_str(), name]));
            gone(self.errors.remove_label_values(&[stage.as_str(), name]));
        }
        gone(self.lane_lag_bytes.remove_label_values(&[name]));
        gone(self.journal_bytes.remove_label_values(&[name]));
        gone(self.ledger_difference.remove_label_values(&[name]));
    }

    /// Sets a stream's gauges; called when metrics are read.
    pub fn gauges(&self, name: &str, lag_bytes: u64, journal_bytes: u64, difference: i64) {
        let signed = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        self.lane_lag_bytes.with_label_values(&[name]).set(signed(lag_bytes));
        self.journal_bytes.with_label_values(&[name]).set(signed(journal_bytes));
        self.ledger_difference.with_label_values(&[name]).set(difference);
    }

    /// Counts a request refused before acceptance.
    pub fn refused(&self, reason: Refusal) {
        self.refused.with_label_values(&[reason.as_str(), "normal"]).inc();
    }

    /// The histogram of a level of acknowledgement.
    pub fn ack_seconds(&self, ack: Ack) -> Histogram {
        self.ack_seconds.with_label_values(&[ack.as_str()])
    }

    /// The histogram of group commits.
    pub fn journal_sync_seconds(&self) -> Histogram {
        self.journal_sync_seconds.clone()
    }

    /// The histogram of a kind of sink.
    pub fn flush_seconds(&self, sink: &str) -> Histogram {
        self.flush_seconds.with_label_values(&[sink])
    }
}
