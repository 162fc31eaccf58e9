//! Metrics of the HTTP side. Labels come from enums: never a client, a key or a message.

use std::time::Duration;

use hyper::StatusCode;
use hyper::header::{self, HeaderMap};
use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry};

use crate::http::Route;

/// The counters of the HTTP side.
#[derive(Debug, Clone)]
pub struct Metrics {
    requests: IntCounterVec,
    refused_bytes: IntCounter,
    received_bytes: IntCounter,
    connections: IntGauge,
    accept_failures: IntCounter,
    ingest_seconds: Histogram,
}

const STATUS: [&str; 4] = ["2xx", "3xx", "4xx", "5xx"];

impl Metrics {
    /// Registers the families; every series is there from the start.
    ///
    /// # Errors
    /// When a family of the same name is registered already.
    pub fn new(registry: &Registry) -> prometheus::Result<Metrics> {
        let metrics = Metrics {
            requests: IntCounterVec::new(
                Opts::new("forebay_http_requests_total", "Requests answered."),
                &["route", "status"],
            )?,
            refused_bytes: IntCounter::new(
                "forebay_requests_refused_bytes_total",
                "Declared bytes of refused requests; those bodies are never read.",
            )?,
            received_bytes: IntCounter::new(
                "forebay_http_received_bytes_total",
                "Bytes of ingest bodies read.",
            )?,
            connections: IntGauge::new("forebay_http_connections", "Open connections.")?,
            accept_failures: IntCounter::new(
                "forebay_http_accept_failures_total",
                "Connections that could not be accepted.",
            )?,
            ingest_seconds: Histogram::with_opts(
                HistogramOpts::new(
                    "forebay_http_ingest_seconds",
                    "From an ingest request's head to its answer.",
                )
                .buckets(prometheus::exponential_buckets(0.001, 2.0, 15)?),
            )?,
        };
        for route in Route::ALL {
            for status in STATUS {
                metrics.requests.with_label_values(&[route.as_str(), status]);
            }
        }
        registry.register(Box::new(metrics.requests.clone()))?;
        registry.register(Box::new(metrics.refused_bytes.clone()))?;
        registry.register(Box::new(metrics.received_bytes.clone()))?;
        registry.register(Box::new(metrics.connections.clone()))?;
        registry.register(Box::new(metrics.accept_failures.clone()))?;
        registry.register(Box::new(metrics.ingest_seconds.clone()))?;
        Ok(metrics)
    }

    pub(crate) fn answered(&self, route: Route, status: StatusCode, took: Duration) {
        let status = match status.as_u16() / 100 {
            2 => "2xx",
            3 => "3xx",
            4 => "4xx",
            _ => "5xx",
        };
        self.requests.with_label_values(&[route.as_str(), status]).inc();
        if route == Route::Ingest {
            self.ingest_seconds.observe(took.as_secs_f64());
        }
    }

    /// Counts the bytes of a body that was not asked for.
    pub(crate) fn refused(&self, headers: &HeaderMap) {
        let declared = headers
            .get(header::CONTENT_LENGTH)
            .and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
        self.refused_bytes.inc_by(declared.unwrap_or(0));
    }

    pub(crate) fn received(&self, bytes: usize) {
        self.received_bytes.inc_by(bytes as u64);
    }

    pub(crate) fn accept_failed(&self) {
        self.accept_failures.inc();
    }

    pub(crate) fn connection(&self) -> ConnectionGauge {
        self.connections.inc();
        ConnectionGauge(self.connections.clone())
    }
}

/// Counts one connection while it lives.
#[derive(Debug)]
pub struct ConnectionGauge(IntGauge);

impl Drop for ConnectionGauge {
    fn drop(&mut self) {
        self.0.dec();
    }
}
