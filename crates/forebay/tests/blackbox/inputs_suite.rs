//! The JSON test suite through the whole server: each file as a value in a record, each in a stream of its own.

use std::fmt::Write as _;
use std::io::Read;
use std::path::PathBuf;

use serde_json::json;

use crate::inputs::{JSON, NDJSON};
use crate::server::Home;
use crate::wait::eventually;

/// What the suite holds: files that must be accepted, that must not, and that may be either.
const FILES: [(char, usize); 3] = [('y', 95), ('n', 188), ('i', 35)];

#[test]
fn the_json_test_suite_is_judged_right_from_the_request_to_the_table() {
    let Some(files) = suite() else {
        println!(
            "skipped: no JSONTestSuite in shared/data beside the workspace, or in FOREBAY_SHARED"
        );
        return;
    };
    for (kind, count) in FILES {
        assert_eq!(
            files.iter().filter(|(name, _)| name.starts_with(kind)).count(),
            count,
            "{kind}_"
        );
    }
    let mut config = "[limits]\nstreams = 400\n[flush]\ninterval = \"1s\"\n".to_owned();
    for (index, _) in files.iter().enumerate() {
        writeln!(config, "[streams.f{index}]\nschema = \"v JSON\"").unwrap();
    }
    let home = Home::new(&config);
    let server = home.start();
    let mut accepted = vec![0; files.len()];
    for (index, (name, content)) in files.iter().enumerate() {
        let body = [b"{\"v\": ", &content[..], b"}"].concat();
        // A value over several lines is no line.
        let kinds: &[&str] = if content.contains(&b'\n') { &[JSON] } else { &[JSON, NDJSON] };
        for kind in kinds {
            let answer = server.ingest_as(&format!("f{index}"), kind, &body);
            let taken = answer.is_success();
            assert!(taken || [400, 422].contains(&answer.status), "{name}: {}", answer.text());
            if taken {
                accepted[index] += 1;
                let reply = answer.json();
                assert_eq!(
                    (&reply["accepted"], &reply["rejected"]),
                    (&json!(1), &json!(0)),
                    "{name}"
                );
            }
            match name.as_bytes()[0] {
                b'y' => assert!(taken, "{name} as {kind}: {}", answer.text()),
                b'n' => assert!(!taken, "{name} as {kind}"),
                _ => {}
            }
        }
    }
    eventually("every row is in its table", || {
        let waiting = |index: usize| {
            let row = server.ledger(&format!("f{index}")).unwrap();
            row["in_journal"] != 0 || row["rejected_in_journal"] != 0
        };
        (!(0..files.len()).any(waiting)).then_some(())
    });
    for (index, (name, _)) in files.iter().enumerate() {
        let row = server.ledger(&format!("f{index}")).unwrap();
        assert_eq!(
            (&row["stored"], &row["difference"]),
            (&json!(accepted[index]), &json!(0)),
            "{name}: {row}"
        );
    }
    server.stop();
}

/// Names and contents of the suite's files.
fn suite() -> Option<Vec<(String, Vec<u8>)>> {
    let shared = std::env::var_os("FOREBAY_SHARED").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared")),
        PathBuf::from,
    );
    let packed =
        std::fs::File::open(shared.join("data/JSONTestSuite/test_parsing.tar.zst")).ok()?;
    let mut archive = Vec::new();
    zstd::Decoder::new(packed).ok()?.read_to_end(&mut archive).ok()?;
    let files = untar(&archive).into_iter().filter(|(name, _)| name.ends_with(".json")).collect();
    Some(files)
}

/// The files of a tar archive: base names and contents.
fn untar(mut archive: &[u8]) -> Vec<(String, Vec<u8>)> {
    const BLOCK: usize = 512;
    let text = |field: &[u8]| {
        let end = field.iter().position(|&byte| byte == 0).unwrap_or(field.len());
        String::from_utf8_lossy(&field[..end]).into_owned()
    };
    let mut files = Vec::new();
    while archive.len() > BLOCK && archive[0] != 0 {
        let (header, rest) = archive.split_at(BLOCK);
        let size = usize::from_str_radix(text(&header[124..136]).trim(), 8).unwrap_or(0);
        if matches!(header[156], b'0' | 0) {
            let path = text(&header[..100]);
            let name = path.rsplit('/').next().unwrap_or_default().to_owned();
            files.push((name, rest[..size].to_vec()));
        }
        archive = rest.get(size.next_multiple_of(BLOCK)..).unwrap_or_default();
    }
    files
}
