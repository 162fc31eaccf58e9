//! Rows for the tests: five flights, the way a decoder hands them on.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;

use arrow::array::{
    ArrayRef, Decimal128Array, Float64Array, Int32Array, RecordBatch, StringArray,
    TimestampMicrosecondArray,
};
use bytes::Bytes;
use forebay_pipeline::record::Batch;
use forebay_pipeline::schema::Schema;

pub const DDL: &str = "month INT NOT NULL CHECK (month BETWEEN 1 AND 12),
  carrier TEXT NOT NULL CHECK (length(carrier) = 2),
  distance INT CHECK (distance > 0),
  dep_delay DOUBLE, fare DECIMAL(10,2), time_hour TIMESTAMP NOT NULL, extra JSON";

pub fn schema() -> Schema {
    Schema::parse(DDL).unwrap()
}

pub fn flights(month: [i32; 5], carrier: [&str; 5], distance: [Option<i32>; 5]) -> RecordBatch {
    let extra = [
        Some(r#"{"gate":"B7","crew":[{"id":7},{"id":8.5}],"late":true}"#),
        None,
        Some("{\"note\":\"a\\nb\"}"),
        Some("[1, 2]"),
        Some("null"),
    ];
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int32Array::from(month.to_vec())),
        Arc::new(StringArray::from(carrier.to_vec())),
        Arc::new(Int32Array::from(distance.to_vec())),
        Arc::new(Float64Array::from(vec![Some(1.5), None, Some(f64::NAN), Some(-3.0), Some(0.0)])),
        Arc::new(
            Decimal128Array::from(vec![Some(12_345), Some(-5), None, Some(0), Some(100)])
                .with_precision_and_scale(10, 2)
                .unwrap(),
        ),
        Arc::new(
            TimestampMicrosecondArray::from(vec![1_357_020_000_000_000_i64, 1_500_000, 0, -1, 7])
                .with_timezone("UTC"),
        ),
        Arc::new(StringArray::from(extra.to_vec())),
    ];
    RecordBatch::try_new(schema().arrow(), columns).unwrap()
}

pub fn good() -> RecordBatch {
    flights(
        [1, 2, 3, 12, 5],
        ["UA", "AA", "B6", "DL", "UA"],
        [Some(1400), Some(1416), None, Some(762), Some(719)],
    )
}

/// A batch of rows, its chunk being lines `row 1`, `row 2`, …
pub fn batch(rows: RecordBatch) -> (Batch, Bytes) {
    let count = rows.num_rows() as u32;
    let batch = Batch {
        numbers: (1..=count).collect(),
        spans: (0..count).map(|row| (row * 6, 5)).collect(),
        rejected: Vec::new(),
        received: u64::from(count),
        rows,
    };
    let chunk: String = (1..=count).map(|row| format!("row {row}\n")).collect();
    (batch, Bytes::from(chunk))
}
