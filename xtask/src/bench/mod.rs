//! `cargo xtask bench`: a release build against what this machine can do, in the same run.
//!
//! Probes first: the device with the journal's pattern, a server that only discards, Arrow's decoders
//! and Parquet on one core. Then the scenarios, each on a server and a directory of its own. The
//! generator runs on the same cores, and its own cost is printed beside the server's.
//! `cargo xtask bench codec` measures the codecs alone, `cargo xtask bench flow [BENCH…]` the toolkit.

mod bodies;
mod codec;
mod flow;
mod load;
mod probes;
mod report;
mod server;

use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use self::bodies::{Body, Shape};
use self::load::{Outcome, Pace};
use self::probes::Probes;
use self::server::{Server, own_cpu_seconds};
use crate::shell::{self, now};

/// What to measure.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) seconds: u64,
    pub(crate) json: Option<PathBuf>,
    pub(crate) connections: usize,
    pub(crate) names: Vec<String>,
}

/// A load on the stream `flights`.
#[derive(Debug, Clone, Copy)]
struct Scenario {
    name: &'static str,
    what: &'static str,
    shape: Shape,
    body_bytes: usize,
    transform: bool,
    /// Open loop at half the rate that `ndjson` reached.
    half: bool,
    /// Every request is logged into a pipe that nobody reads.
    unread: bool,
}

const NDJSON: Scenario = Scenario {
    name: "ndjson",
    what: "NDJSON, 256 KiB, closed loop",
    shape: Shape::Ndjson,
    body_bytes: 256 * 1024,
    transform: false,
    half: false,
    unread: false,
};

const SCENARIOS: [Scenario; 6] = [
    NDJSON,
    Scenario { name: "csv", what: "CSV, 256 KiB, closed loop", shape: Shape::Csv, ..NDJSON },
    Scenario { name: "small", what: "NDJSON, 4 KiB, closed loop", body_bytes: 4096, ..NDJSON },
    Scenario {
        name: "transform",
        what: "NDJSON, 256 KiB, SQL transform",
        transform: true,
        ..NDJSON
    },
    Scenario { name: "unread", what: "NDJSON, 256 KiB, log unread", unread: true, ..NDJSON },
    Scenario { name: "half", what: "NDJSON, 256 KiB, open loop, half", half: true, ..NDJSON },
];

/// How long the table may take to catch up before the run counts as failed.
const CATCH_UP: Duration = Duration::from_secs(180);

/// One scenario's figures.
#[derive(Debug)]
struct Figures {
    scenario: Scenario,
    load: Outcome,
    /// From the end of the load until every row was in the table.
    catch_up_seconds: f64,
    rows_in_table: u64,
    /// Of the server, from the start of the load until every row was in the table, per 10⁹ bytes.
    cpu_seconds_per_gb: f64,
    /// Of the load generator, likewise.
    generator_seconds_per_gb: f64,
    peak_bytes: u64,
    idle_bytes: u64,
    ready_ms: f64,
}

/// Builds, probes, measures, prints.
pub(crate) fn run(root: &Path, plan: &Plan) -> Result<()> {
    if let Some((first, rest)) = plan.names.split_first()
        && first == flow::NAME
    {
        return flow::run(root, rest);
    }
    if plan.names == [codec::NAME] {
        build(root)?;
        return codec::run(root);
    }
    let scenarios = pick(&plan.names)?;
    build(root)?;
    let target = shell::target_dir(root);
    let (binary, example) = (target.join("release/forebay"), target.join("release/examples/probe"));
    let dir = target.join("bench");
    std::fs::create_dir_all(&dir)?;
    warn_if_in_memory(&dir);
    let sample = bodies::sample(root)?;

    let probes = probe(&example, &dir, &sample, plan.connections)?;
    let mut measured: Vec<Figures> = Vec::new();
    for scenario in scenarios {
        let pace =
            match (scenario.half, measured.iter().find(|one| one.scenario.name == NDJSON.name)) {
                (false, _) => Pace::Closed,
                (true, Some(full)) => Pace::Open(full.load.requests() / full.load.seconds / 2.0),
                (true, None) => bail!("`half` needs `ndjson` before it"),
            };
        eprintln!("bench: {}", scenario.what);
        measured.push(measure(&binary, &dir.join(scenario.name), &sample, scenario, pace, plan)?);
    }
    let report = report::Report {
        machine: report::machine(),
        connections: plan.connections,
        probes,
        measured,
    };
    println!("{report}");
    if let Some(path) = &plan.json {
        std::fs::write(path, format!("{:#}\n", report.json())).context("write the figures")?;
    }
    report.check()
}

/// Builds all that any bench or soak runs, at once: another choice would be another set of features.
pub(crate) fn build(root: &Path) -> Result<()> {
    let mut build = shell::cargo(root);
    build.args(["build", "--release", "-p", "forebay", "--bin", "forebay"]);
    build.args(["--example", "probe", "--example", "codec"]);
    shell::run(&mut build)
}

fn pick(names: &[String]) -> Result<Vec<Scenario>> {
    if names.is_empty() {
        return Ok(SCENARIOS.to_vec());
    }
    let known = |name: &String| SCENARIOS.iter().any(|scenario| scenario.name == name);
    if let Some(unknown) = names.iter().find(|name| !known(name)) {
        let all: Vec<_> = SCENARIOS.iter().map(|scenario| scenario.name).collect();
        bail!(
            "no scenario `{unknown}`; there are {}, and `{}` by itself",
            all.join(", "),
            codec::NAME
        );
    }
    let wants = |name: &str| names.iter().any(|other| other == name);
    // `half` is half of what `ndjson` reaches in the same run.
    let picked = |one: &&Scenario| wants(one.name) || (one.name == NDJSON.name && wants("half"));
    Ok(SCENARIOS.iter().filter(picked).copied().collect())
}

fn probe(example: &Path, dir: &Path, sample: &str, connections: usize) -> Result<Probes> {
    let window = Duration::from_secs(3);
    eprintln!("bench: probes");
    let ndjson = bodies::render(sample, Shape::Ndjson, NDJSON.body_bytes)?;
    let csv = bodies::render(sample, Shape::Csv, 8 << 20)?;
    let (ndjson_file, csv_file) = (dir.join("probe.ndjson"), dir.join("probe.csv"));
    let all: Vec<u8> = ndjson.iter().flat_map(|body| body.bytes.iter().copied()).collect();
    std::fs::write(&ndjson_file, all)?;
    std::fs::write(&csv_file, csv.first().map_or(&[][..], |body| body.bytes.as_slice()))?;
    let columns = probes::columns(example, &ndjson_file, &csv_file)?;
    let device = probes::device(dir, &ndjson, window)?;
    let discard = probes::discard(&ndjson, connections, window)?;
    std::fs::remove_file(&ndjson_file)?;
    std::fs::remove_file(&csv_file)?;
    let (discard_mb_s, discard_p99_ms) = (discard.megabytes_per_second(), discard.latency_ms(99.0));
    Ok(Probes { device, discard_mb_s, discard_p99_ms, ..columns })
}

fn measure(
    binary: &Path,
    dir: &Path,
    sample: &str,
    scenario: Scenario,
    pace: Pace,
    plan: &Plan,
) -> Result<Figures> {
    let bodies: Vec<Body> = bodies::render(sample, scenario.shape, scenario.body_bytes)?;
    if dir.exists() {
        std::fs::remove_dir_all(dir)?;
    }
    let server = Server::start(binary, dir, scenario.transform, scenario.unread)?;
    // What a server does just after its start is no rest.
    thread::sleep(Duration::from_secs(1));
    let (idle_bytes, _) = server.resident()?;
    let (cpu, own_cpu) = (server.cpu_seconds()?, own_cpu_seconds()?);
    let duration = Duration::from_secs(plan.seconds);
    let load = (scenario.shape, bodies.as_slice());
    let load =
        load::run(server.address, "/ingest/flights", load, plan.connections, pace, duration)?;
    let own_cpu = own_cpu_seconds()? - own_cpu;
    let end = now();
    while server.in_journal()? > 0 && end.elapsed() < CATCH_UP {
        thread::sleep(Duration::from_millis(50));
    }
    let catch_up_seconds = end.elapsed().as_secs_f64();
    let cpu = server.cpu_seconds()? - cpu;
    let rows_in_table = server.rows_in_table()?;
    let gigabytes = load.bytes as f64 / 1e9;
    let (_, peak_bytes) = server.resident()?;
    Ok(Figures {
        scenario,
        catch_up_seconds,
        rows_in_table,
        cpu_seconds_per_gb: cpu / gigabytes,
        generator_seconds_per_gb: own_cpu / gigabytes,
        peak_bytes,
        idle_bytes,
        ready_ms: server.ready.as_secs_f64() * 1000.0,
        load,
    })
}

/// A disk that is memory has no sync to wait for.
fn warn_if_in_memory(dir: &Path) {
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap_or_default();
    let dir = dir.canonicalize().unwrap_or_else(|_| dir.to_path_buf());
    let mounted = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        Some((fields.next()?, fields.next()?))
    });
    let holds = mounted.filter(|(point, _)| dir.starts_with(point));
    if let Some((point, kind)) = holds.max_by_key(|(point, _)| point.len())
        && ["tmpfs", "ramfs"].contains(&kind)
    {
        eprintln!(
            "bench: {point} is {kind}, not a disk: set CARGO_TARGET_DIR; no sync below is real"
        );
    }
}
