//! From what was written to what the program needs: defaults and judgement, and nothing else.
//! A fault names the setting's path, so that the loader can say where it stands.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use forebay_pipeline::codec::Pattern;
use forebay_pipeline::codec::unpack::Expansion;
use forebay_pipeline::engine::{self, MemoryShares};

use super::raw::{self, Raw};
use super::units::{Size, Span};
use super::{Config, Flush, Http, Limits, Stream, Token, Tokens, Workers};
use super::{check_stream_name, memory, tokens};

/// What is wrong with which setting.
#[derive(Debug)]
pub(super) struct Fault {
    /// The setting's path: `["http", "min_rate"]`; empty for the whole.
    pub path: Vec<String>,
    /// Why, for people.
    pub message: String,
}

fn fault(path: &str, message: impl Into<String>) -> Fault {
    Fault { path: path.split('.').map(str::to_owned).collect(), message: message.into() }
}

const MIB: u64 = 1 << 20;
const SMALLEST_BUDGET: u64 = 16 * MIB;

fn size(value: Option<Size>, default: u64) -> u64 {
    value.map_or(default, |size| size.0)
}

fn span(value: Option<Span>, default_ms: u64) -> Duration {
    value.map_or(Duration::from_millis(default_ms), |span| span.0)
}

fn within<T: PartialOrd + std::fmt::Display>(
    path: &str,
    value: T,
    least: T,
    most: T,
) -> Result<T, Fault> {
    if value < least || value > most {
        return Err(fault(path, format!("must lie between {least} and {most}, not {value}")));
    }
    Ok(value)
}

fn span_within(path: &str, value: Duration, least_ms: u64, most_s: u64) -> Result<Duration, Fault> {
    if value < Duration::from_millis(least_ms) || value > Duration::from_secs(most_s) {
        return Err(fault(
            path,
            format!("must lie between {least_ms}ms and {most_s}s, not {value:?}"),
        ));
    }
    Ok(value)
}

pub(super) fn validate(raw: Raw, faults_allowed: bool) -> Result<Config, Fault> {
    let listen = listen(raw.listen.as_deref())?;
    let insecure = raw.insecure.unwrap_or(false);
    let tokens = holders(raw.tokens.unwrap_or_default())?;
    if !listen.ip().is_loopback() && tokens.is_empty() && !insecure {
        return Err(fault(
            "listen",
            format!(
                "{listen} can be reached from other machines and no [[tokens]] are set, so anyone could write; \
                 add a token, listen on 127.0.0.1, or set insecure = true"
            ),
        ));
    }
    if raw.faults.is_some() && !faults_allowed {
        return Err(fault(
            "faults",
            "faults on purpose need FOREBAY_FAULTS=1 in the environment; they are for tests only",
        ));
    }
    let budget = budget(raw.memory.unwrap_or_default())?;
    let shares = MemoryShares::of(budget);
    let limits = limits(raw.limits.unwrap_or_default(), shares)?;
    let keys = raw.keys.unwrap_or_default();
    let mut streams = std::collections::BTreeMap::new();
    for (name, written) in raw.streams.unwrap_or_default() {
        let path = format!("streams.{name}");
        check_stream_name(&name)
            .map_err(|message| Fault { path: vec!["streams".into(), name.clone()], message })?;
        streams.insert(name, stream(&path, written)?);
    }
    if streams.len() > limits.streams {
        return Err(fault(
            "limits.streams",
            format!("{} streams are declared, which is more than this limit", streams.len()),
        ));
    }
    Ok(Config {
        listen,
        data_dir: raw.data_dir.unwrap_or_else(|| PathBuf::from("forebay-data")),
        insecure,
        auto_create: raw.auto_create.unwrap_or_else(|| listen.ip().is_loopback()),
        memory_budget: budget,
        http: http(raw.http.unwrap_or_default())?,
        admission_wait: span_within(
            "admission.wait",
            span(raw.admission.unwrap_or_default().wait, 100),
            0,
            60,
        )?,
        limits,
        journal_max: least_journal(
            "journal.max",
            size(raw.journal.unwrap_or_default().max, 4 << 30),
        )?,
        flush: flush(raw.flush.unwrap_or_default(), shares)?,
        workers: workers(raw.workers.unwrap_or_default())?,
        key_window: span_within("keys.window", span(keys.window, 86_400_000), 0, 30 * 86_400)?,
        key_count: within("keys.count", keys.count.unwrap_or(1_000_000), 1, 16_000_000)?,
        query_timeout: span_within(
            "query.timeout",
            span(raw.query.unwrap_or_default().timeout, 30_000),
            1,
            86_400,
        )?,
        drain_deadline: span_within(
            "drain.deadline",
            span(raw.drain.unwrap_or_default().deadline, 30_000),
            100,
            3_600,
        )?,
        tokens,
        streams,
        faults: raw.faults,
    })
}

fn listen(written: Option<&str>) -> Result<SocketAddr, Fault> {
    let Some(text) = written else {
        return Ok(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080));
    };
    let numeric = match text.strip_prefix("localhost:") {
        Some(port) => format!("127.0.0.1:{port}"),
        None => text.to_owned(),
    };
    numeric.parse().map_err(|_| {
        fault("listen", format!("`{text}` is not an address and port such as \"127.0.0.1:8080\""))
    })
}

fn holders(written: Vec<raw::Token>) -> Result<Tokens, Fault> {
    let mut tokens: Vec<Token> = Vec::with_capacity(written.len());
    for (index, token) in written.into_iter().enumerate() {
        let path = format!("tokens.{index}");
        let name = token
            .name
            .filter(|name| !name.is_empty() && name.len() <= 128)
            .ok_or_else(|| fault(&path, "a token needs a name of at most 128 characters"))?;
        let hash = token.hash.ok_or_else(|| fault(&path, "a token needs a hash"))?;
        let hash =
            tokens::parse_hash(&hash).map_err(|message| fault(&format!("{path}.hash"), message))?;
        if tokens.iter().any(|other| other.name == name) {
            return Err(fault(&path, format!("two tokens are named `{name}`")));
        }
        let streams = match token.streams {
            Some(streams) if streams.is_empty() => {
                return Err(fault(
                    &format!("{path}.streams"),
                    "an empty list would allow nothing; leave `streams` out to allow everything",
                ));
            }
            Some(streams) if streams.iter().any(|name| name == "*") => Vec::new(),
            other => other.unwrap_or_default(),
        };
        for stream in &streams {
            check_stream_name(stream)
                .map_err(|message| fault(&format!("{path}.streams"), message))?;
        }
        tokens.push(Token { name, hash, streams });
    }
    Ok(Tokens(tokens))
}

fn budget(written: raw::Memory) -> Result<u64, Fault> {
    let budget = size(written.budget, memory::default_budget());
    if budget < SMALLEST_BUDGET {
        return Err(fault(
            "memory.budget",
            format!("{} is too little; the least is {}", Size(budget), Size(SMALLEST_BUDGET)),
        ));
    }
    Ok(budget)
}

fn http(written: raw::Http) -> Result<Http, Fault> {
    for origin in written.origins.iter().flatten() {
        if !origin.starts_with("http://") && !origin.starts_with("https://") {
            return Err(fault(
                "http.origins",
                format!("`{origin}` is not an origin such as \"https://example.org\""),
            ));
        }
    }
    Ok(Http {
        deadline: span_within("http.deadline", span(written.deadline, 30_000), 1, 3_600)?,
        header_deadline: span_within(
            "http.header_deadline",
            span(written.header_deadline, 10_000),
            1,
            3_600,
        )?,
        max_header: within(
            "http.max_header",
            size(written.max_header, 16 << 10) as usize,
            1 << 10,
            1 << 20,
        )?,
        max_body: written.max_body.map(|size| size.0),
        max_connections: within(
            "http.max_connections",
            written.max_connections.unwrap_or(1024),
            1,
            1 << 20,
        )?,
        min_rate: size(written.min_rate, 1 << 10),
        rate_window: span_within("http.rate_window", span(written.rate_window, 10_000), 1, 3_600)?,
        rate_grace: span_within("http.rate_grace", span(written.rate_grace, 5_000), 0, 3_600)?,
        origins: written.origins.unwrap_or_default(),
    })
}

fn limits(written: raw::Limits, shares: MemoryShares) -> Result<Limits, Fault> {
    let limits = Limits {
        streams: within("limits.streams", written.streams.unwrap_or(1000), 1, 100_000)?,
        columns: within("limits.columns", written.columns.unwrap_or(4096), 1, 65_536)?,
        row: within("limits.row", size(written.row, MIB), 1 << 10, 16 * MIB)? as usize,
        depth: within("limits.depth", written.depth.unwrap_or(64), 1, 512)?,
        chunk: within("limits.chunk", size(written.chunk, MIB), 4 << 10, 4 * MIB)? as usize,
        spool: within(
            "limits.spool",
            size(written.spool, (8 * MIB).min(shares.intake / 4)),
            4 << 10,
            shares.intake / 2,
        )?,
        expansion: within(
            "limits.expansion",
            written.expansion.unwrap_or(Expansion::default().ratio),
            1,
            1_000_000,
        )?,
    };
    // Room for one maximal record is reserved at an upload's start; it must fit beside a chunk.
    let largest = (limits.row + limits.chunk) as u64;
    if largest > shares.intake / 2 {
        return Err(fault(
            "limits.row",
            format!(
                "one row and one chunk ({}) need more than half of the intake share ({}); \
                 raise [memory] budget or lower this",
                Size(largest),
                Size(shares.intake)
            ),
        ));
    }
    Ok(limits)
}

fn least_journal(path: &str, max: u64) -> Result<u64, Fault> {
    if max < MIB {
        return Err(fault(path, format!("{} is too little; the least is 1 MiB", Size(max))));
    }
    Ok(max)
}

fn flush(written: raw::Flush, shares: MemoryShares) -> Result<Flush, Fault> {
    let bytes = size(written.bytes, (64 * MIB).min(shares.lanes / 3));
    if bytes == 0 || bytes > shares.lanes / 3 {
        return Err(fault(
            "flush.bytes",
            format!(
                "{} is not between 1 byte and a third of the lanes' share ({})",
                Size(bytes),
                Size(shares.lanes / 3)
            ),
        ));
    }
    let interval = span_within("flush.interval", span(written.interval, 5_000), 1, 3_600)?;
    Ok(Flush { bytes, interval })
}

fn workers(written: raw::Workers) -> Result<Workers, Fault> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let default = engine::Workers::of(cores);
    let of = |stage: &str, written: Option<usize>, default| {
        within(&format!("workers.{stage}"), written.unwrap_or(default), 1, 256)
    };
    Ok(Workers {
        validate: of("validate", written.validate, default.validate)?,
        transform: of("transform", written.transform, default.transform)?,
        persist: of("persist", written.persist, default.persist)?,
    })
}

/// Defaults of a stream; used for the file and for `PUT /api/v1/streams/NAME` alike.
pub(super) fn stream(path: &str, written: raw::Stream) -> Result<Stream, Fault> {
    let journal_max = written.journal.and_then(|journal| journal.max).map(|size| size.0);
    if let Some(max) = journal_max {
        least_journal(&format!("{path}.journal.max"), max)?;
    }
    for (stage, count) in [
        ("validate", written.workers.and_then(|w| w.validate)),
        ("transform", written.workers.and_then(|w| w.transform)),
        ("persist", written.workers.and_then(|w| w.persist)),
    ] {
        if let Some(count) = count {
            within(&format!("{path}.workers.{stage}"), count, 1, 256)?;
        }
    }
    let pattern = written.pattern.as_deref().map(Pattern::parse).transpose();
    let pattern = pattern.map_err(|why| fault(&format!("{path}.pattern"), why))?;
    Ok(Stream {
        pattern,
        schema: written.schema,
        unknown: written.unknown.unwrap_or(raw::Unknown::DeadLetter),
        on_invalid: written.on_invalid.unwrap_or(raw::OnInvalid::DeadLetter),
        transform: written.transform,
        journal_max,
        received_at: written.received_at.unwrap_or(true),
    })
}

impl Stream {
    /// A stream from what a client wrote as JSON.
    ///
    /// # Errors
    /// A text for people that names the setting at fault.
    pub fn from_raw(written: raw::Stream) -> Result<Stream, String> {
        stream("stream", written).map_err(|fault| match fault.path.last() {
            Some(setting) => format!("{setting}: {}", fault.message),
            None => fault.message,
        })
    }
}
