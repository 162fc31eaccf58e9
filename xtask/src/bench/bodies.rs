//! What the load generator sends: real rows, rendered before the clock starts.
//!
//! A missing value is `NA` in the sample; it becomes null in NDJSON and the empty field in CSV.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// Distinct bodies of each kind: enough that no cache holds them, few enough to render quickly.
const DISTINCT: usize = 48;

/// Text columns of the sample; every other one is a number.
const TEXT: [&str; 5] = ["carrier", "tailnum", "origin", "dest", "time_hour"];

/// The shape of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// One JSON object a line.
    Ndjson,
    /// With a header.
    Csv,
}

impl Shape {
    /// Its media type.
    pub(super) fn content_type(self) -> &'static str {
        match self {
            Shape::Ndjson => "application/x-ndjson",
            Shape::Csv => "text/csv",
        }
    }
}

/// A body and how many rows it holds.
#[derive(Debug)]
pub(super) struct Body {
    pub(super) bytes: Vec<u8>,
    pub(super) rows: u64,
}

/// Where large samples are kept: `FOREBAY_SHARED`, else beside the workspace.
pub(super) fn shared(root: &Path) -> PathBuf {
    let shared = std::env::var_os("FOREBAY_SHARED").map(PathBuf::from);
    shared.unwrap_or_else(|| root.join("../shared"))
}

/// The sample of flights: the large one, packed, else what ships with the workspace.
pub(super) fn sample_file(root: &Path) -> Result<PathBuf> {
    let packed = shared(root).join("data/flights.csv.zst");
    let own = root.join("examples/flights.csv");
    if packed.is_file() {
        Ok(packed)
    } else if own.is_file() {
        Ok(own)
    } else {
        bail!("no sample of flights: neither {} nor {}", packed.display(), own.display())
    }
}

/// The sample as CSV.
pub(super) fn sample(root: &Path) -> Result<String> {
    let path = sample_file(root)?;
    let mut text = String::new();
    let mut file = File::open(&path).with_context(|| path.display().to_string())?;
    if path.extension().is_some_and(|extension| extension == "zst") {
        zstd::Decoder::new(file)?.read_to_string(&mut text)?;
    } else {
        file.read_to_string(&mut text)?;
    }
    Ok(text)
}

/// Bodies of about `size` bytes, of whole rows, each of other rows as far as the sample reaches.
pub(super) fn render(sample: &str, shape: Shape, size: usize) -> Result<Vec<Body>> {
    let (header, rows) = sample.split_once('\n').context("the sample is empty")?;
    let names: Vec<&str> = header.trim_end().split(',').collect();
    let mut rows = rows.lines().cycle();
    let mut bodies = Vec::with_capacity(DISTINCT);
    let mut next = String::new();
    for _ in 0..DISTINCT {
        let mut bytes = Vec::with_capacity(size);
        if shape == Shape::Csv {
            bytes.extend_from_slice(header.trim_end().as_bytes());
            bytes.push(b'\n');
        }
        let mut count = 0;
        loop {
            if next.is_empty() {
                next = row(rows.next().context("the sample has no rows")?, &names, shape);
            }
            if count > 0 && bytes.len() + next.len() > size {
                break;
            }
            bytes.extend_from_slice(next.as_bytes());
            next.clear();
            count += 1;
        }
        bodies.push(Body { bytes, rows: count });
    }
    Ok(bodies)
}

fn row(line: &str, names: &[&str], shape: Shape) -> String {
    let fields = line.trim_end().split(',').map(|field| if field == "NA" { "" } else { field });
    match shape {
        Shape::Csv => fields.collect::<Vec<_>>().join(",") + "\n",
        Shape::Ndjson => {
            let pair = |(field, name): (&str, &&str)| match field {
                "" => format!("\"{name}\":null"),
                text if TEXT.contains(name) => format!("\"{name}\":\"{text}\""),
                number => format!("\"{name}\":{number}"),
            };
            format!("{{{}}}\n", fields.zip(names).map(pair).collect::<Vec<_>>().join(","))
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    const SAMPLE: &str = "year,carrier,air_time\n2013,UA,227\n2013,AA,NA\n";

    #[test]
    fn bodies_hold_whole_rows_up_to_their_size() {
        for shape in [Shape::Ndjson, Shape::Csv] {
            for body in render(SAMPLE, shape, 200).unwrap() {
                assert!(body.bytes.len() <= 200 && body.bytes.ends_with(b"\n"));
                let lines = body.bytes.iter().filter(|byte| **byte == b'\n').count() as u64;
                assert_eq!(lines, body.rows + u64::from(shape == Shape::Csv));
            }
        }
    }

    #[test]
    fn a_missing_value_is_null_or_empty() {
        let json = row("2013,AA,NA", &["year", "carrier", "air_time"], Shape::Ndjson);
        assert_eq!(json, "{\"year\":2013,\"carrier\":\"AA\",\"air_time\":null}\n");
        assert_eq!(row("2013,AA,NA", &["year", "carrier", "air_time"], Shape::Csv), "2013,AA,\n");
    }
}
