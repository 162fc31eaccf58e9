//! The figures as a table for people and as JSON: every rate beside the probe it is judged by.

use std::fmt;

use anyhow::{Result, bail};
use serde_json::{Value, json};

use super::probes::Probes;
use super::{Figures, Shape};

/// One run of the bench.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) machine: String,
    pub(super) connections: usize,
    pub(super) probes: Probes,
    pub(super) measured: Vec<Figures>,
}

/// Cores and processor, as Linux names them.
pub(super) fn machine() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = text.lines().find_map(|line| line.strip_prefix("model name"));
    let model = model.map_or("unknown processor", |rest| rest.trim_start_matches([' ', '\t', ':']));
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    format!("{cores} cores, {model}")
}

impl Report {
    /// Everything, in base units as the names say.
    pub(super) fn json(&self) -> Value {
        let scenario = |one: &Figures| {
            json!({
                "name": one.scenario.name,
                "mb_s": one.load.megabytes_per_second(),
                "rows_s": one.load.rows as f64 / one.load.seconds,
                "seconds": one.load.seconds,
                "bytes": one.load.bytes,
                "rows": one.load.rows,
                "rows_in_table": one.rows_in_table,
                "refused": one.load.refused,
                "ack_p50_ms": one.load.latency_ms(50.0),
                "ack_p99_ms": one.load.latency_ms(99.0),
                "ack_max_ms": one.load.latency_ms(100.0),
                "server_cpu_s_per_gb": one.cpu_seconds_per_gb,
                "generator_cpu_s_per_gb": one.generator_seconds_per_gb,
                "catch_up_s": one.catch_up_seconds,
                "peak_rss_bytes": one.peak_bytes,
                "idle_rss_bytes": one.idle_bytes,
                "ready_ms": one.ready_ms,
                "of_discard": self.of_discard(one),
                "of_device": self.of_device(one),
                "of_decoder": self.of_decoder(one),
            })
        };
        let probes = &self.probes;
        json!({
            "machine": self.machine,
            "connections": self.connections,
            "probes": {
                "device_mb_s": probes.device.mb_s,
                "device_sync_p50_ms": probes.device.sync_p50_ms,
                "device_sync_p99_ms": probes.device.sync_p99_ms,
                "discard_mb_s": probes.discard_mb_s,
                "discard_p99_ms": probes.discard_p99_ms,
                "arrow_ndjson_mb_s": probes.ndjson_mb_s,
                "arrow_csv_mb_s": probes.csv_mb_s,
                "parquet_of_arrow_mb_s": probes.parquet_arrow_mb_s,
                "parquet_of_ndjson_mb_s": probes.parquet_ndjson_mb_s,
            },
            "scenarios": self.measured.iter().map(scenario).collect::<Vec<_>>(),
        })
    }

    /// An error where a row is missing or doubled: a rate of lost rows is none.
    pub(super) fn check(&self) -> Result<()> {
        let lost = |one: &&Figures| one.rows_in_table != one.load.rows;
        let Some(one) = self.measured.iter().find(lost) else {
            return Ok(());
        };
        let (name, table, rows) = (one.scenario.name, one.rows_in_table, one.load.rows);
        bail!("{name}: {rows} rows were acknowledged, {table} are in the table");
    }

    fn of_discard(&self, one: &Figures) -> f64 {
        one.load.megabytes_per_second() / self.probes.discard_mb_s
    }

    fn of_device(&self, one: &Figures) -> f64 {
        one.load.megabytes_per_second() / self.probes.device.mb_s
    }

    /// Against Arrow's decoder of the same format on one core.
    fn of_decoder(&self, one: &Figures) -> f64 {
        let decoder = match one.scenario.shape {
            Shape::Ndjson => self.probes.ndjson_mb_s,
            Shape::Csv => self.probes.csv_mb_s,
        };
        one.load.megabytes_per_second() / decoder
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let probes = &self.probes;
        writeln!(f, "{}; {} connections; MB is 10⁶ bytes of body", self.machine, self.connections)?;
        writeln!(f, "\nprobes, same run")?;
        let line = |f: &mut fmt::Formatter<'_>, what: &str, rate: f64, more: String| {
            writeln!(f, "  {what:<44} {rate:>7.0} MB/s{more}")
        };
        let device = &probes.device;
        let syncs =
            format!("   sync p50 {:.2} ms, p99 {:.2} ms", device.sync_p50_ms, device.sync_p99_ms);
        line(f, "device: append 256 KiB, fdatasync, one by one", device.mb_s, syncs)?;
        let p99 = format!("   p99 {:.1} ms", probes.discard_p99_ms);
        line(f, "HTTP server that reads and discards", probes.discard_mb_s, p99)?;
        line(f, "arrow-json on one core, of NDJSON", probes.ndjson_mb_s, String::new())?;
        line(f, "arrow-csv on one core, of CSV", probes.csv_mb_s, String::new())?;
        let ndjson = format!("   {:.0} MB/s of the NDJSON", probes.parquet_ndjson_mb_s);
        line(f, "zstd-1 Parquet on one core, of Arrow", probes.parquet_arrow_mb_s, ndjson)?;

        writeln!(
            f,
            "\nscenario      MB/s    krows/s   ack p50     p99     max ms   refused   in table after"
        )?;
        for one in &self.measured {
            let load = &one.load;
            writeln!(
                f,
                "{:<10} {:>7.1} {:>10.0} {:>9.2} {:>7.2} {:>9.2} {:>9} {:>10.1} s {}",
                one.scenario.name,
                load.megabytes_per_second(),
                load.rows as f64 / load.seconds / 1000.0,
                load.latency_ms(50.0),
                load.latency_ms(99.0),
                load.latency_ms(100.0),
                load.refused,
                one.catch_up_seconds,
                if one.rows_in_table == load.rows { "all rows" } else { "ROWS DIFFER" },
            )?;
        }
        writeln!(
            f,
            "\nscenario   of discard  of device  of decoder   CPU s/GB  generator   peak MB   idle MB   ready ms"
        )?;
        for one in &self.measured {
            writeln!(
                f,
                "{:<10} {:>10.2} {:>10.2} {:>11.2} {:>10.2} {:>10.2} {:>9.0} {:>9.0} {:>10.0}",
                one.scenario.name,
                self.of_discard(one),
                self.of_device(one),
                self.of_decoder(one),
                one.cpu_seconds_per_gb,
                one.generator_seconds_per_gb,
                one.peak_bytes as f64 / 1e6,
                one.idle_bytes as f64 / 1e6,
                one.ready_ms,
            )?;
        }
        Ok(())
    }
}
