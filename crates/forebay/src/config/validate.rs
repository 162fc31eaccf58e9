//! From what was written to what the program needs: defaults and judgement, and nothing else.
//! A fault names the setting's path, so that the loader can say where it stands.

use std::collections::BTreeMap;
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
    /// Line and column within the setting's text, from 1, where it is SQL.
    pub within: Option<(u64, u64)>,
    /// Why, for people.
    pub message: String,
}

/// Every fault found so far. A setting at fault gets some value that holds, so that the rest is judged too.
#[derive(Debug, Default)]
pub(super) struct Faults(pub Vec<Fault>);

impl Faults {
    fn add(&mut self, path: &str, message: impl Into<String>) {
        self.at(path.split('.').map(str::to_owned).collect(), message);
    }

    /// As [`Faults::add`], for names that may hold a dot.
    fn at(&mut self, path: Vec<String>, message: impl Into<String>) {
        self.0.push(Fault { path, within: None, message: message.into() });
    }
}

const MIB: u64 = 1 << 20;
const SMALLEST_BUDGET: u64 = 16 * MIB;

fn size(value: Option<Size>, default: u64) -> u64 {
    value.map_or(default, |size| size.0)
}

fn span(value: Option<Span>, default_ms: u64) -> Duration {
    value.map_or(Duration::from_millis(default_ms), |span| span.0)
}

impl Faults {
    fn within<T: PartialOrd + std::fmt::Display>(
        &mut self,
        path: &str,
        value: T,
        least: T,
        most: T,
    ) -> T {
        if value < least || value > most {
            self.add(path, format!("must lie between {least} and {most}, not {value}"));
            return least;
        }
        value
    }

    fn size_within(&mut self, path: &str, value: u64, least: u64, most: u64) -> u64 {
        if value < least || value > most {
            let (least, most, value) = (Size(least), Size(most), Size(value));
            self.add(path, format!("must lie between {least} and {most}, not {value}"));
            return least.0;
        }
        value
    }

    fn span_within(&mut self, path: &str, value: Duration, least_ms: u64, most_s: u64) -> Duration {
        if value < Duration::from_millis(least_ms) || value > Duration::from_secs(most_s) {
            let message = format!("must lie between {least_ms}ms and {most_s}s, not {value:?}");
            self.add(path, message);
        }
        value
    }
}

/// Judges everything; the settings hold only where no fault was found.
pub(super) fn validate(raw: Raw, faults_allowed: bool) -> (Config, Faults) {
    let mut found = Faults::default();
    let faults = &mut found;
    let listen = listen(faults, raw.listen.as_deref());
    let insecure = raw.insecure.unwrap_or(false);
    let named = raw.tokens.as_ref().is_some_and(|tokens| !tokens.is_empty());
    let tokens = holders(faults, raw.tokens.unwrap_or_default());
    if !listen.ip().is_loopback() && !named && !insecure {
        faults.add(
            "listen",
            format!(
                "{listen} can be reached from other machines and no [[tokens]] are set, so anyone could write; \
                 add a token, listen on 127.0.0.1, or set insecure = true"
            ),
        );
    }
    if raw.faults.is_some() && !faults_allowed {
        faults.add(
            "faults",
            "faults on purpose need FOREBAY_FAULTS=1 in the environment; they are for tests only",
        );
    }
    let budget = budget(faults, raw.memory.unwrap_or_default());
    let shares = MemoryShares::of(budget);
    let limits = limits(faults, raw.limits.unwrap_or_default(), shares);
    let keys = raw.keys.unwrap_or_default();
    let streams = streams(faults, raw.streams.unwrap_or_default(), limits);
    let wait = span(raw.admission.unwrap_or_default().wait, 100);
    let timeout = span(raw.query.unwrap_or_default().timeout, 30_000);
    let deadline = span(raw.drain.unwrap_or_default().deadline, 30_000);
    let journal_max = size(raw.journal.unwrap_or_default().max, 4 << 30);
    let config = Config {
        listen,
        data_dir: raw.data_dir.unwrap_or_else(|| PathBuf::from("forebay-data")),
        insecure,
        auto_create: raw.auto_create.unwrap_or_else(|| listen.ip().is_loopback()),
        memory_budget: budget,
        http: http(faults, raw.http.unwrap_or_default()),
        admission_wait: faults.span_within("admission.wait", wait, 0, 60),
        limits,
        journal_max: least_journal(faults, &["journal", "max"], journal_max),
        flush: flush(faults, raw.flush.unwrap_or_default(), shares),
        workers: workers(faults, raw.workers.unwrap_or_default()),
        key_window: faults.span_within(
            "keys.window",
            span(keys.window, 86_400_000),
            0,
            30 * 86_400,
        ),
        key_count: faults.within("keys.count", keys.count.unwrap_or(1_000_000), 1, 16_000_000),
        query_timeout: faults.span_within("query.timeout", timeout, 1, 86_400),
        drain_deadline: faults.span_within("drain.deadline", deadline, 100, 3_600),
        tokens,
        streams,
        faults: raw.faults,
    };
    (config, found)
}

fn listen(faults: &mut Faults, written: Option<&str>) -> SocketAddr {
    let default = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);
    let Some(text) = written else { return default };
    let numeric = match text.strip_prefix("localhost:") {
        Some(port) => format!("127.0.0.1:{port}"),
        None => text.to_owned(),
    };
    numeric.parse().unwrap_or_else(|_| {
        let message = format!("`{text}` is not an address and port such as \"127.0.0.1:8080\"");
        faults.add("listen", message);
        default
    })
}

fn holders(faults: &mut Faults, written: Vec<raw::Token>) -> Tokens {
    let mut tokens: Vec<Token> = Vec::with_capacity(written.len());
    for (index, token) in written.into_iter().enumerate() {
        let path = format!("tokens.{index}");
        if let Some(token) = holder(faults, &path, token) {
            if tokens.iter().any(|other| other.name == token.name) {
                faults.add(&path, format!("two tokens are named `{}`", token.name));
            }
            tokens.push(token);
        }
    }
    Tokens(tokens)
}

fn holder(faults: &mut Faults, path: &str, written: raw::Token) -> Option<Token> {
    let name = written.name.filter(|name| !name.is_empty() && name.len() <= 128);
    if name.is_none() {
        faults.add(path, "a token needs a name of at most 128 characters");
    }
    let hash = match written.hash.as_deref().map(tokens::parse_hash) {
        Some(Ok(hash)) => Some(hash),
        Some(Err(message)) => {
            faults.add(&format!("{path}.hash"), message);
            None
        }
        None => {
            faults.add(path, "a token needs a hash");
            None
        }
    };
    let streams = match written.streams {
        Some(streams) if streams.is_empty() => {
            faults.add(
                &format!("{path}.streams"),
                "an empty list would allow nothing; leave `streams` out to allow everything",
            );
            return None;
        }
        Some(streams) if streams.iter().any(|name| name == "*") => Vec::new(),
        other => other.unwrap_or_default(),
    };
    for stream in &streams {
        if let Err(message) = check_stream_name(stream) {
            faults.add(&format!("{path}.streams"), message);
        }
    }
    Some(Token { name: name?, hash: hash?, streams })
}

fn budget(faults: &mut Faults, written: raw::Memory) -> u64 {
    let budget = size(written.budget, memory::default_budget());
    if budget < SMALLEST_BUDGET {
        faults.add(
            "memory.budget",
            format!("{} is too little; the least is {}", Size(budget), Size(SMALLEST_BUDGET)),
        );
        // What depends on it is judged by the default, else one mistake would be told five times.
        return memory::default_budget();
    }
    budget
}

fn http(faults: &mut Faults, written: raw::Http) -> Http {
    for origin in written.origins.iter().flatten() {
        if !origin.starts_with("http://") && !origin.starts_with("https://") {
            let message = format!("`{origin}` is not an origin such as \"https://example.org\"");
            faults.add("http.origins", message);
        }
    }
    let max_header = size(written.max_header, 16 << 10);
    let connections = written.max_connections.unwrap_or(1024);
    Http {
        deadline: faults.span_within("http.deadline", span(written.deadline, 30_000), 1, 3_600),
        header_deadline: faults.span_within(
            "http.header_deadline",
            span(written.header_deadline, 10_000),
            1,
            3_600,
        ),
        max_header: faults.size_within("http.max_header", max_header, 1 << 10, MIB) as usize,
        max_body: written.max_body.map(|size| size.0),
        max_connections: faults.within("http.max_connections", connections, 1, 1 << 20),
        min_rate: size(written.min_rate, 1 << 10),
        rate_window: faults.span_within(
            "http.rate_window",
            span(written.rate_window, 10_000),
            1,
            3_600,
        ),
        rate_grace: faults.span_within(
            "http.rate_grace",
            span(written.rate_grace, 5_000),
            0,
            3_600,
        ),
        origins: written.origins.unwrap_or_default(),
    }
}

fn limits(faults: &mut Faults, written: raw::Limits, shares: MemoryShares) -> Limits {
    let (row, chunk) = (size(written.row, MIB), size(written.chunk, MIB));
    let spool = size(written.spool, (8 * MIB).min(shares.intake / 4));
    let limits = Limits {
        streams: faults.within("limits.streams", written.streams.unwrap_or(1000), 1, 100_000),
        columns: faults.within("limits.columns", written.columns.unwrap_or(4096), 1, 65_536),
        row: faults.size_within("limits.row", row, 1 << 10, 16 * MIB) as usize,
        depth: faults.within("limits.depth", written.depth.unwrap_or(64), 1, 512),
        chunk: faults.size_within("limits.chunk", chunk, 4 << 10, 4 * MIB) as usize,
        spool: faults.size_within("limits.spool", spool, 4 << 10, shares.intake / 2),
        expansion: faults.within(
            "limits.expansion",
            written.expansion.unwrap_or(Expansion::default().ratio),
            1,
            1_000_000,
        ),
    };
    // Room for one maximal record is reserved at an upload's start; it must fit beside a chunk.
    let largest = (limits.row + limits.chunk) as u64;
    if largest > shares.intake / 2 {
        faults.add(
            "limits.row",
            format!(
                "one row and one chunk ({}) need more than half of the intake share ({}); \
                 raise [memory] budget or lower this",
                Size(largest),
                Size(shares.intake)
            ),
        );
    }
    limits
}

fn least_journal(faults: &mut Faults, path: &[&str], max: u64) -> u64 {
    if max < MIB {
        let path = path.iter().map(|part| (*part).to_owned()).collect();
        faults.at(path, format!("{} is too little; the least is 1 MiB", Size(max)));
    }
    max
}

fn flush(faults: &mut Faults, written: raw::Flush, shares: MemoryShares) -> Flush {
    let bytes = size(written.bytes, (64 * MIB).min(shares.lanes / 3));
    if bytes == 0 || bytes > shares.lanes / 3 {
        faults.add(
            "flush.bytes",
            format!(
                "{} is not between 1 byte and a third of the lanes' share ({})",
                Size(bytes),
                Size(shares.lanes / 3)
            ),
        );
    }
    let interval = faults.span_within("flush.interval", span(written.interval, 5_000), 1, 3_600);
    Flush { bytes, interval }
}

fn workers(faults: &mut Faults, written: raw::Workers) -> Workers {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let default = engine::Workers::of(cores);
    let mut of = |stage: &str, written: Option<usize>, default| {
        faults.within(&format!("workers.{stage}"), written.unwrap_or(default), 1, 256)
    };
    Workers {
        validate: of("validate", written.validate, default.validate),
        transform: of("transform", written.transform, default.transform),
        persist: of("persist", written.persist, default.persist),
    }
}

fn streams(
    faults: &mut Faults,
    written: BTreeMap<String, raw::Stream>,
    limits: Limits,
) -> BTreeMap<String, Stream> {
    let mut streams = BTreeMap::new();
    for (name, written) in written {
        if let Err(message) = check_stream_name(&name) {
            faults.at(vec!["streams".into(), name.clone()], message);
        }
        let stream = stream(faults, &["streams", &name], written);
        streams.insert(name, stream);
    }
    if streams.len() > limits.streams {
        let message =
            format!("{} streams are declared, which is more than this limit", streams.len());
        faults.add("limits.streams", message);
    }
    streams
}

/// Defaults of a stream; used for the file and for `PUT /api/v1/streams/NAME` alike.
fn stream(faults: &mut Faults, path: &[&str], written: raw::Stream) -> Stream {
    let under = |tail: &[&'static str]| path.iter().chain(tail).copied().collect::<Vec<&str>>();
    let journal_max = written.journal.and_then(|journal| journal.max).map(|size| size.0);
    if let Some(max) = journal_max {
        least_journal(faults, &under(&["journal", "max"]), max);
    }
    let workers = written.workers.unwrap_or_default();
    for (stage, count) in [
        ("validate", workers.validate),
        ("transform", workers.transform),
        ("persist", workers.persist),
    ] {
        if let Some(count) = count.filter(|count| !(1..=256).contains(count)) {
            let path = under(&["workers", stage]).into_iter().map(str::to_owned).collect();
            faults.at(path, format!("must lie between 1 and 256, not {count}"));
        }
    }
    let pattern = written.pattern.as_deref().and_then(|text| match Pattern::parse(text) {
        Ok(pattern) => Some(pattern),
        Err(why) => {
            faults.at(under(&["pattern"]).into_iter().map(str::to_owned).collect(), why);
            None
        }
    });
    Stream {
        format: written.format,
        pattern,
        schema: written.schema,
        unknown: written.unknown.unwrap_or(raw::Unknown::DeadLetter),
        on_invalid: written.on_invalid.unwrap_or(raw::OnInvalid::DeadLetter),
        transform: written.transform,
        journal_max,
        received_at: written.received_at.unwrap_or(true),
    }
}

impl Stream {
    /// A stream from what a client wrote as JSON.
    ///
    /// # Errors
    /// A text for people that names each setting at fault.
    pub fn from_raw(written: raw::Stream) -> Result<Stream, String> {
        let mut faults = Faults::default();
        let stream = stream(&mut faults, &[], written);
        if faults.0.is_empty() {
            return Ok(stream);
        }
        let tell = |fault: &Fault| format!("{}: {}", fault.path.join("."), fault.message);
        Err(faults.0.iter().map(tell).collect::<Vec<_>>().join("; "))
    }
}
