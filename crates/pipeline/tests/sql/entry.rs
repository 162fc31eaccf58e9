//! The journal's payload.

#![expect(clippy::unwrap_used, reason = "tests")]

use arrow::array::{Array, RecordBatch};
use bytes::Bytes;
use forebay_pipeline::entry::{
    self, EntryError, EntryWriter, LetterId, Meta, Numbers, Reading, Totals,
};
use forebay_pipeline::record::{Batch, Code, Rejected};
use proptest::prelude::*;

use crate::rows::{batch, flights, good, schema};

fn meta() -> Meta {
    Meta {
        schema_version: 3,
        transform_version: 9,
        row_base: 1000,
        client: "shop".into(),
        request: "r-1".into(),
        ..Meta::default()
    }
}

fn rejected(row: u64) -> Rejected {
    Rejected {
        row,
        column: row.is_multiple_of(2).then(|| "month".to_owned()),
        code: Code::ALL[row as usize % Code::ALL.len()],
        message: format!("row {row} is wrong"),
        raw: Bytes::from(vec![row as u8; row as usize % 50]),
    }
}

fn write(batches: &[Batch]) -> (Bytes, Totals) {
    let mut writer = EntryWriter::new(meta());
    for batch in batches {
        writer.push(batch).unwrap();
    }
    writer.finish()
}

fn read(payload: &Bytes) -> Result<entry::Entry, EntryError> {
    entry::read(payload, |version| (version == 3).then(|| schema().arrow()))
}

/// Some rows of the five, some refused.
fn part(keep: &[usize], refused: &[u64], numbers: Vec<u32>) -> Batch {
    let rows = good();
    let indices = arrow::array::UInt32Array::from_iter_values(keep.iter().map(|row| *row as u32));
    let rows = arrow::compute::take_record_batch(&rows, &indices).unwrap();
    let rejected: Vec<_> = refused.iter().copied().map(rejected).collect();
    Batch {
        spans: vec![(0, 0); keep.len()],
        received: (keep.len() + rejected.len()) as u64,
        rows,
        numbers,
        rejected,
    }
}

#[test]
fn an_entry_reads_back_with_rows_numbers_and_refused_rows() {
    let (whole, _) = batch(good());
    let holes = part(&[0, 2, 4], &[2, 4], vec![1, 3, 5]);
    let none = part(&[], &[1, 2, 3], vec![]);
    let (payload, totals) = write(&[whole.clone(), holes.clone(), none.clone()]);
    assert_eq!(totals, Totals { received: 13, accepted: 8, rejected: 5 });
    let header = entry::meta(&payload).unwrap();
    assert_eq!((header.meta, header.totals), (meta(), totals));
    let entry = read(&payload).unwrap();
    let [a, b, c] = entry.batches.as_slice() else { panic!("three batches") };
    assert_eq!((&a.rows, &b.rows, &c.rows), (&whole.rows, &holes.rows, &none.rows));
    assert_eq!(a.rows.schema(), schema().arrow());
    // Row numbers run through the chunk, so its batches have one base.
    assert_eq!((a.base, b.base, c.base), (1000, 1000, 1000));
    assert_eq!(a.numbers, Numbers::From(1));
    assert_eq!(b.numbers, Numbers::Listed(vec![1, 3, 5]));
    assert_eq!((b.numbers.get(2), b.numbers.get(3), a.numbers.get(4)), (Some(5), None, Some(5)));
    assert_eq!(b.rejected, holes.rejected);
    assert_eq!(c.rejected, none.rejected);
}

#[test]
fn a_batch_whose_counts_disagree_is_refused_f6() {
    let mut wrong = part(&[0, 1], &[3], vec![1, 2]);
    wrong.received = 4;
    assert!(matches!(EntryWriter::new(meta()).push(&wrong), Err(EntryError::Damaged(_))));
}

#[test]
fn another_format_and_an_unknown_schema_are_told_apart_from_damage() {
    let (payload, _) = write(&[batch(good()).0]);
    assert!(matches!(entry::read(&payload, |_| None), Err(EntryError::Schema(3))));
    let mut newer = payload.to_vec();
    newer[0] = 3;
    assert!(matches!(read(&Bytes::from(newer)), Err(EntryError::Format(3))));
}

fn noted() -> Meta {
    let letter = |row| LetterId { stream_id: uuid::Uuid::from_u128(7), position: 4096, row };
    Meta {
        reading: Some(Reading { format: "csv".into(), header: Some("{\"é\":1}".into()) }),
        redriven: vec![letter(1), letter(u64::MAX)],
        ..meta()
    }
}

fn write_as(meta: Meta, batch: &Batch) -> Bytes {
    let mut writer = EntryWriter::new(meta);
    writer.push(batch).unwrap();
    writer.finish().0
}

#[test]
fn an_entry_with_notes_reads_back_and_one_without_is_of_the_older_format() {
    let rows = part(&[0, 2], &[2], vec![1, 3]);
    let headless = Reading { format: "ndjson".into(), header: None };
    for meta in [noted(), Meta { reading: Some(headless), ..meta() }] {
        let payload = write_as(meta.clone(), &rows);
        assert_eq!(payload.first(), Some(&2));
        assert_eq!(entry::meta(&payload).unwrap().meta, meta);
        let entry = read(&payload).unwrap();
        assert_eq!((entry.meta, entry.batches[0].rows.num_rows()), (meta, 2));
    }
    assert_eq!(write_as(meta(), &rows).first(), Some(&1), "what knows format 1 reads it");
}

#[test]
fn a_header_too_long_to_keep_is_left_out_of_the_notes() {
    let header = Some("x".repeat(entry::HEADER_BYTES + 1));
    let long = Meta { reading: Some(Reading { format: "csv".into(), header }), ..meta() };
    let payload = write_as(long, &part(&[0], &[2], vec![1]));
    let reading = entry::meta(&payload).unwrap().meta.reading.unwrap();
    assert_eq!(reading, Reading { format: "csv".into(), header: None });
}

#[test]
fn damaged_notes_are_an_error_and_never_a_panic() {
    let payload = write_as(noted(), &part(&[0, 2], &[2], vec![1, 3]));
    for at in 0..payload.len() {
        assert!(read(&payload.slice(..at)).is_err(), "cut at {at} of {}", payload.len());
        let mut bytes = payload.to_vec();
        bytes[at] ^= 0xff;
        drop(read(&Bytes::from(bytes)));
    }
}

#[test]
fn a_letters_id_reads_back_and_anything_else_is_refused() {
    let id = noted().redriven[0];
    assert_eq!(id.to_string().parse(), Ok(id));
    let long = format!("{id}:1");
    for wrong in ["", "1:2", "x:1:2", &long, "00000000-0000-0000-0000-000000000007:-1:2"] {
        assert!(wrong.parse::<LetterId>().is_err(), "{wrong}");
    }
}

#[test]
fn an_entry_cut_anywhere_is_an_error() {
    let (payload, _) = write(&[part(&[0, 2], &[2], vec![1, 3])]);
    for length in 0..payload.len() {
        assert!(read(&payload.slice(..length)).is_err(), "cut at {length} of {}", payload.len());
    }
}

#[test]
fn a_flipped_byte_never_panics() {
    let (payload, _) = write(&[part(&[0, 2, 3], &[2, 5], vec![1, 3, 4])]);
    for at in 0..payload.len() {
        for flip in [1, 0x80, 0xff] {
            let mut bytes = payload.to_vec();
            bytes[at] ^= flip;
            if let Ok(entry) = read(&Bytes::from(bytes)) {
                let rows: usize = entry.batches.iter().map(|batch| batch.rows.num_rows()).sum();
                assert_eq!(entry.totals.accepted, rows as u64, "F6");
            }
        }
    }
}

fn any_batch() -> impl Strategy<Value = Batch> {
    let cell = (any::<i32>(), "[a-zé\\PC]{0,12}", proptest::option::of(any::<i32>()));
    (
        proptest::collection::vec(cell, 0..40),
        proptest::collection::vec(0_u64..300, 0..6),
        proptest::collection::vec(1_u32..1000, 40),
        any::<bool>(),
    )
        .prop_map(|(cells, refused, gaps, contiguous)| {
            let parts: Vec<RecordBatch> = cells
                .iter()
                .map(|(month, carrier, distance)| {
                    flights([*month; 5], [carrier.as_str(); 5], [*distance; 5]).slice(0, 1)
                })
                .collect();
            let rows = arrow::compute::concat_batches(&schema().arrow(), &parts).unwrap();
            let mut number = 0;
            let numbers = gaps.iter().take(cells.len()).map(|gap| {
                number += if contiguous { 1 } else { *gap };
                number
            });
            Batch {
                numbers: numbers.collect(),
                spans: vec![(0, 0); cells.len()],
                received: (cells.len() + refused.len()) as u64,
                rejected: refused.into_iter().map(rejected).collect(),
                rows,
            }
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_written_is_read(batches in proptest::collection::vec(any_batch(), 0..4)) {
        let (payload, totals) = write(&batches);
        // The journal hands out payloads at any address.
        let mut shifted = vec![0; 3];
        shifted.extend_from_slice(&payload);
        let entry = read(&Bytes::from(shifted).slice(3..)).unwrap();
        prop_assert_eq!(entry.totals, totals);
        prop_assert_eq!(entry.batches.len(), batches.len());
        for (found, batch) in entry.batches.iter().zip(&batches) {
            for (a, b) in found.rows.columns().iter().zip(batch.rows.columns()) {
                prop_assert_eq!(a.to_data(), b.to_data());
            }
            let numbers: Vec<_> = (0..batch.numbers.len()).filter_map(|row| found.numbers.get(row)).collect();
            prop_assert_eq!(&numbers, &batch.numbers);
            prop_assert_eq!(&found.rejected, &batch.rejected);
        }
    }
}
