//! Real volume: every flight of 2013 goes in three ways, and three readers get the same sums out.
//!
//! The sample writes a missing value as `NA`, which is NULL in every column but a text one.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

use crate::server::{Home, Server};

const TIME: &str = "time_hour";

/// How the sample writes a missing value.
const NA: &str = "NA";

const SCHEMA: &str = "year INT NOT NULL, month INT NOT NULL CHECK (month BETWEEN 1 AND 12), day INT NOT NULL, \
    dep_time INT, sched_dep_time INT NOT NULL, dep_delay DOUBLE, arr_time INT, sched_arr_time INT NOT NULL, \
    arr_delay DOUBLE, carrier TEXT NOT NULL CHECK (length(carrier) = 2), flight INT NOT NULL, tailnum TEXT, \
    origin TEXT NOT NULL, dest TEXT NOT NULL, air_time DOUBLE, distance INT CHECK (distance > 0), \
    hour INT NOT NULL, minute INT NOT NULL, time_hour TIMESTAMP NOT NULL";

/// What a column holds: whether it is text, how many values are there, and their sum; for text the sum
/// of lengths.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
struct Column {
    text: bool,
    present: u64,
    sum: f64,
}

#[test]
fn every_flight_arrives_as_csv_and_as_ndjson_with_the_same_sums_in_every_reader() {
    let Some(raw) = flights() else {
        println!(
            "skipped: no flights.csv.zst in shared/data beside the workspace, or in FOREBAY_SHARED"
        );
        return;
    };
    let home = Home::new(&format!(
        "[streams.flights_csv]\nschema = \"\"\"{SCHEMA}\"\"\"\n\
         [streams.flights_ndjson]\nschema = \"\"\"{SCHEMA}\"\"\"\n"
    ));
    let server = home.start();
    let rows = raw.lines().count() as u64 - 1;
    for stream in ["flights_auto", "flights_csv"] {
        let answer = server.ingest_as(stream, "text/csv", raw.as_bytes()).json();
        assert_eq!(
            (&answer["accepted"], &answer["rejected"]),
            (&rows.into(), &0.into()),
            "{answer}"
        );
    }
    for body in ndjson(&raw) {
        let answer = server.ingest("flights_ndjson", &body).json();
        assert_eq!(answer["rejected"], 0, "{answer}");
    }

    let expected = sums(&raw);
    for stream in ["flights_auto", "flights_csv", "flights_ndjson"] {
        server.drained(stream);
        assert_eq!(server.number(&format!("SELECT count(*) FROM {stream}")), rows, "{stream}");
        assert_eq!(queried(&server, stream, &expected), expected, "{stream}");
    }
    server.stop();
    let table = |stream: &str| home.data_dir().join("lake").join(stream);
    let streams = ["flights_auto", "flights_csv", "flights_ndjson"];
    python_agrees(&home, &raw, &streams.map(table));
}

/// The `deltalake` and `duckdb` packages against Python's csv module.
fn python_agrees(home: &Home, csv: &str, tables: &[PathBuf]) {
    let Some(python) = std::env::var_os("FOREBAY_PY") else {
        println!("skipped in part: FOREBAY_PY names no Python with deltalake and duckdb");
        return;
    };
    let (script, input) = (home.path("volume.py"), home.path("flights.csv"));
    std::fs::write(&script, include_str!("volume.py")).unwrap();
    std::fs::write(&input, csv).unwrap();
    let output = Command::new(python).arg(script).arg(input).args(tables).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    print!("{said}");
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
}

/// The same figures through the query route.
fn queried(
    server: &Server,
    stream: &str,
    like: &BTreeMap<String, Column>,
) -> BTreeMap<String, Column> {
    let mut columns = BTreeMap::new();
    for (name, Column { text, .. }) in like {
        let value = match name.as_str() {
            TIME => "0".to_owned(),
            name if *text => format!("length({name})"),
            name => name.to_owned(),
        };
        let rows = server.query(&format!("SELECT count({name}), sum({value}) FROM {stream}"));
        let field = |at: usize| rows[0][at].parse::<f64>().unwrap();
        columns
            .insert(name.clone(), Column { text: *text, present: field(0) as u64, sum: field(1) });
    }
    columns
}

/// What the CSV itself holds. The sample has no quotes.
fn sums(csv: &str) -> BTreeMap<String, Column> {
    let mut lines = csv.lines();
    let names: Vec<&str> = lines.next().unwrap().split(',').collect();
    let mut columns = BTreeMap::new();
    for (at, name) in names.iter().enumerate() {
        let fields = lines.clone().filter_map(|line| line.split(',').nth(at));
        let given = fields.clone().filter(|field| !field.is_empty() && *field != NA);
        let numbers: Option<f64> = given.map(|field| field.parse::<f64>().ok()).sum();
        let text = numbers.is_none() && *name != TIME;
        let present = fields.filter(|field| !field.is_empty() && (text || *field != NA));
        let lengths = present.clone().map(str::len).sum::<usize>() as f64;
        let sum = numbers.unwrap_or(if text { lengths } else { 0.0 });
        let column = Column { text, present: present.count() as u64, sum };
        columns.insert((*name).to_owned(), column);
    }
    columns
}

/// The rows as NDJSON, in bodies of about 4 MiB.
fn ndjson(csv: &str) -> Vec<String> {
    let mut lines = csv.lines();
    let names: Vec<&str> = lines.next().unwrap().split(',').collect();
    let kinds = sums(csv);
    let mut bodies = vec![String::new()];
    for line in lines {
        let value = |(field, name): (&str, &&str)| match field {
            "" => format!("\"{name}\":null"),
            NA if !kinds[*name].text => format!("\"{name}\":null"),
            text if *name == TIME || kinds[*name].text => format!("\"{name}\":\"{text}\""),
            number => format!("\"{name}\":{number}"),
        };
        let fields: Vec<String> = line.split(',').zip(&names).map(value).collect();
        if bodies.last().is_some_and(|body| body.len() > 4 << 20) {
            bodies.push(String::new());
        }
        if let Some(body) = bodies.last_mut() {
            body.push_str(&format!("{{{}}}\n", fields.join(",")));
        }
    }
    bodies
}

fn flights() -> Option<String> {
    let shared = std::env::var_os("FOREBAY_SHARED").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared")),
        PathBuf::from,
    );
    let packed = std::fs::File::open(shared.join("data/flights.csv.zst")).ok()?;
    let mut text = String::new();
    std::io::Read::read_to_string(&mut zstd::Decoder::new(packed).ok()?, &mut text).ok()?;
    Some(text)
}
