//! The numbered faults, each on an image of a journal that was really written. 1, 2, 3, 5, 14, 23 and 25 also run in
//! the model.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::path::Path;
use std::sync::Arc;

use forebay_journal::disk::{Disk, NoSpace};
use forebay_journal::{
    AppendError, Checkpoint, Corruption, Journal, Lsn, OpenError, repair, verify,
};

use crate::rig::{Rig, block_at, plain, reseal};

const BLOCK: usize = 4096;

/// A rig with `n` records of one block each, three in the first segment and seven in the next; not closed.
fn filled(n: u8) -> Rig {
    let rig = Rig::new(u64::from(n));
    let (journal, _) = rig.open();
    for i in 0..n {
        rig.put(&journal, vec![i; 100]);
    }
    drop(journal);
    rig.disk.kill();
    rig
}

fn change(rig: &Rig, path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = rig.bytes_of(path);
    change(&mut bytes);
    rig.rewrite(path, &bytes);
}

/// Opens and returns which records are there.
#[track_caller]
fn survivors(rig: &Rig) -> Vec<u8> {
    let (journal, _) = rig.open();
    let found = rig.payloads(&journal).iter().map(|payload| payload[0]).collect();
    assert!(
        rig.payloads(&journal).iter().all(|payload| payload.iter().all(|byte| *byte == payload[0]))
    );
    drop(journal);
    rig.disk.kill();
    found
}

#[track_caller]
fn corruption(rig: &Rig) -> Corruption {
    let before: Vec<_> = rig.segments().iter().map(|path| rig.bytes_of(path)).collect();
    let found = match rig.try_open() {
        Err(OpenError::Corrupt(corruption)) => corruption,
        Err(e) => panic!("another error: {e}"),
        Ok(_) => panic!("F1: it opened"),
    };
    rig.disk.kill();
    let after: Vec<_> = rig.segments().iter().map(|path| rig.bytes_of(path)).collect();
    assert_eq!(before, after, "a refusal changes nothing");
    assert_eq!(
        verify(&rig.disk, &rig.dir).unwrap().corruption.as_ref(),
        Some(&found),
        "verify says the same"
    );
    found
}

/// After any fault: a fresh record flows, and survives a power cut.
#[track_caller]
fn goes_on(rig: &Rig) {
    let (journal, before) = rig.open();
    let appended = rig.put(&journal, "fresh");
    assert!(appended.end() > before.tail);
    rig.disk.crash(1);
    let (journal, _) = rig.open();
    assert_eq!(rig.payloads(&journal).last().unwrap(), "fresh");
    drop(journal);
    rig.disk.kill();
}

fn in_order(n: u8) -> Vec<u8> {
    (0..n).collect()
}

#[test]
fn fault_01_a_power_cut_before_the_write_loses_only_what_was_never_acknowledged() {
    let rig = filled(2);
    let (journal, _) = rig.open();
    rig.disk.crash_after(0);
    assert!(matches!(rig.try_put(&journal, plain("never")), Err(AppendError::Poisoned(_))));
    rig.disk.restart(3);
    assert_eq!(survivors(&rig), in_order(2));
    goes_on(&rig);
}

#[test]
fn fault_02_what_a_killed_process_wrote_but_did_not_sync_is_durable_once_it_was_recovered() {
    for seed in 0..20 {
        let rig = filled(2);
        let (journal, _) = rig.open();
        rig.put(&journal, vec![2; 100]);
        // Of the next append's operations the write still succeeds, the sync no more.
        rig.disk.crash_after(1);
        assert!(matches!(
            rig.try_put(&journal, plain(vec![3; 100])),
            Err(AppendError::Poisoned(_))
        ));
        rig.disk.kill();
        assert_eq!(survivors(&rig), in_order(4), "the page cache has it");
        rig.disk.crash(seed);
        assert_eq!(survivors(&rig), in_order(4), "F1: a reader may have stored it by now");
        goes_on(&rig);
    }
}

#[test]
fn fault_03_what_was_synced_but_not_acknowledged_stays() {
    let rig = filled(2);
    let (journal, _) = rig.open();
    let mut append = Box::pin(journal.append(plain(vec![2; 100])));
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(append.as_mut().poll(&mut cx).is_pending());
    assert!(rig.writers.step());
    drop(append);
    rig.disk.crash(9);
    assert_eq!(survivors(&rig), in_order(3));
}

#[test]
fn fault_04_a_torn_write_is_cut_at_the_last_whole_block_wherever_it_tore() {
    for garbage in [0u8, 0xA5] {
        // Beyond these there is only padding.
        for sectors in 0..=(128 + 72 + 2 * BLOCK + 100) / 512 {
            let rig = filled(2);
            let (journal, _) = rig.open();
            rig.put(&journal, vec![2; 2 * BLOCK + 100]);
            drop(journal);
            rig.disk.kill();
            let path = rig.last_segment();
            change(&rig, &path, |bytes| bytes[block_at(sectors * 512)..].fill(garbage));
            let (journal, recovered) = rig.open();
            let dropped = sectors > 0 || garbage > 0;
            assert_eq!(
                recovered.torn.map(|torn| torn.at),
                dropped.then_some(Lsn(2 * 4096)),
                "sector {sectors}"
            );
            assert_eq!(recovered.tail, Lsn(2 * 4096));
            drop(journal);
            rig.disk.kill();
            assert_eq!(survivors(&rig), in_order(2));
            assert_eq!(rig.open().1.torn, None, "it is cut once");
            rig.disk.kill();
            goes_on(&rig);
        }
    }
}

#[test]
fn fault_05_sectors_that_persist_out_of_order_never_make_a_record() {
    for seed in 0..60 {
        let rig = filled(2);
        let (journal, _) = rig.open();
        rig.put(&journal, vec![2; 100]);
        rig.disk.crash_after(1);
        rig.try_put(&journal, plain(vec![3; 3 * BLOCK])).unwrap_err();
        rig.disk.restart(seed);
        let found = survivors(&rig);
        assert!(found == in_order(3) || found == in_order(4), "seed {seed}: {found:?}");
        goes_on(&rig);
    }
}

/// Lets the last block of three say that only what is before the second was durable when it was written.
fn pipelined(bytes: &mut [u8]) {
    let last = block_at(2 * BLOCK);
    bytes[last + 32..last + 40].copy_from_slice(&4096u64.to_le_bytes());
    reseal(&mut bytes[last..last + 128], 124);
}

#[test]
fn fault_06_a_pipelined_hole_is_a_torn_tail_and_what_follows_it_is_dropped() {
    let rig = filled(3);
    change(&rig, &rig.last_segment(), |bytes| {
        pipelined(bytes);
        bytes[block_at(BLOCK)..block_at(2 * BLOCK)].fill(0);
    });
    let (_, recovered) = rig.open();
    assert_eq!(recovered.torn.unwrap().at, Lsn(4096));
    rig.disk.kill();
    assert_eq!(survivors(&rig), in_order(1));
    goes_on(&rig);
}

#[test]
fn fault_07_a_rotten_body_under_a_whole_header_is_seen() {
    let rig = filled(3);
    change(&rig, &rig.last_segment(), |bytes| bytes[block_at(2 * BLOCK) + 128 + 72 + 50] ^= 1);
    assert_eq!(survivors(&rig), in_order(2), "the last one looks like a torn tail");
    let rig = filled(3);
    change(&rig, &rig.last_segment(), |bytes| bytes[block_at(BLOCK) + 128 + 72 + 50] ^= 1);
    assert_eq!(corruption(&rig).at, Lsn(4096));
}

#[test]
fn fault_08_a_flipped_length_is_never_trusted() {
    for len in [0u32, 1, 79, 81, 1 << 30, u32::MAX] {
        for seal in [false, true] {
            let rig = filled(2);
            change(&rig, &rig.last_segment(), |bytes| {
                let block = &mut bytes[block_at(BLOCK)..block_at(BLOCK) + 128];
                block[72..76].copy_from_slice(&len.to_le_bytes());
                if seal {
                    reseal(block, 124);
                }
            });
            assert_eq!(survivors(&rig), in_order(1), "block length {len}, sealed {seal}");

            let rig = filled(2);
            change(&rig, &rig.last_segment(), |bytes| {
                let record = &mut bytes[block_at(BLOCK) + 128..block_at(BLOCK) + 200];
                record[0..4].copy_from_slice(&len.to_le_bytes());
                if seal {
                    reseal(record, 68);
                }
            });
            assert_eq!(survivors(&rig), in_order(1), "record length {len}, sealed {seal}");
        }
    }
}

#[test]
fn fault_09_a_stale_block_of_a_recycled_segment_is_not_taken_for_a_new_one() {
    let rig = filled(3);
    let path = rig.last_segment();
    change(&rig, &path, |bytes| {
        let block = &mut bytes[block_at(BLOCK)..block_at(BLOCK) + 128];
        block[8..16].copy_from_slice(&77u64.to_le_bytes());
        reseal(block, 124);
        bytes.truncate(block_at(2 * BLOCK));
    });
    assert_eq!(survivors(&rig), in_order(1), "the salt of another life");

    let rig = filled(3);
    change(&rig, &path, |bytes| {
        let block = &mut bytes[block_at(BLOCK)..block_at(BLOCK) + 128];
        block[80..84].copy_from_slice(&77u32.to_le_bytes());
        reseal(block, 124);
        bytes.truncate(block_at(2 * BLOCK));
    });
    assert_eq!(survivors(&rig), in_order(1), "the chain is broken");

    let rig = filled(3);
    change(&rig, &path, |bytes| {
        let old = bytes[block_at(0)..block_at(BLOCK)].to_vec();
        bytes.extend_from_slice(&old);
    });
    assert_eq!(survivors(&rig), in_order(3), "the position of another place");
    goes_on(&rig);
}

#[test]
fn fault_10_a_flipped_bit_in_the_middle_keeps_the_journal_shut_until_it_is_repaired() {
    for sick in 0..9usize {
        let rig = filled(10);
        let segments = rig.segments();
        let (path, at) = if sick < 3 { (&segments[0], sick) } else { (&segments[1], sick - 3) };
        change(&rig, path, |bytes| bytes[block_at(at * BLOCK) + 300 - 128] ^= 0x10);
        let found = corruption(&rig);
        assert_eq!(
            (found.at, found.next),
            (Lsn(sick as u64 * 4096), Some(Lsn((sick as u64 + 1) * 4096)))
        );

        let lost = repair(&rig.disk, &rig.dir, Path::new("/quarantine")).unwrap();
        assert_eq!(lost.len(), 1);
        assert_eq!(
            (lost[0].from, Some(lost[0].to)),
            (found.at, found.next),
            "exactly the range is lost"
        );
        let kept = rig.bytes_of(lost[0].quarantined.as_ref().unwrap());
        assert_eq!(kept.len(), BLOCK, "the damaged bytes are kept");
        let left: Vec<u8> = in_order(10).into_iter().filter(|i| usize::from(*i) != sick).collect();
        assert_eq!(survivors(&rig), left);
        goes_on(&rig);
    }
}

#[test]
fn fault_11_a_flipped_bit_in_the_last_acknowledged_block_is_seen_after_a_quiet_moment_or_a_close() {
    for close in [false, true] {
        let rig = filled(0);
        let (journal, _) = rig.open();
        rig.put(&journal, vec![0; 100]);
        rig.put(&journal, vec![1; 100]);
        if close {
            rig.drive(journal.close()).unwrap();
        } else {
            rig.quiet();
        }
        drop(journal);
        rig.disk.kill();
        assert!(rig.disk.flip_bit(&rig.last_segment(), block_at(BLOCK) as u64 + 250, 3));
        assert_eq!(corruption(&rig).at, Lsn(4096), "F1");
    }
}

#[test]
fn fault_12_a_missing_segment_is_seen_in_the_middle_and_at_either_end() {
    let rig = filled(15);
    let segments = rig.segments();
    assert_eq!(segments.len(), 3);
    rig.disk.remove_file(&segments[1]).unwrap();
    let found = corruption(&rig);
    assert_eq!((found.at, found.next), (Lsn(3 * 4096), Some(Lsn(10 * 4096))));
    let lost = repair(&rig.disk, &rig.dir, Path::new("/quarantine")).unwrap();
    assert_eq!((lost[0].from, lost[0].to, lost.len()), (Lsn(3 * 4096), Lsn(10 * 4096), 1));
    assert_eq!(survivors(&rig), [0, 1, 2, 10, 11, 12, 13, 14]);

    let rig = filled(15);
    rig.disk.remove_file(&rig.segments()[0]).unwrap();
    assert!(corruption(&rig).reason.contains("front"));

    let rig = filled(15);
    let (journal, _) = rig.open();
    let end = journal.durable();
    journal.checkpoint(Checkpoint { positions: vec![(0, end)], counters: [0; 4] }).unwrap();
    drop(journal);
    rig.disk.kill();
    rig.disk.remove_file(&rig.last_segment()).unwrap();
    assert_eq!(corruption(&rig).at, Lsn(10 * 4096), "fault 24: the sink is ahead of the journal");
    let lost = repair(&rig.disk, &rig.dir, Path::new("/quarantine")).unwrap();
    assert_eq!(
        (lost.len(), lost[0].from, lost[0].to),
        (1, Lsn(10 * 4096), end),
        "the log begins anew where the sink is"
    );
    goes_on(&rig);
}

#[test]
fn fault_13_duplicate_and_foreign_segments_are_refused() {
    let rig = filled(5);
    let segments = rig.segments();
    let copy = rig.dir.join("seg-0000000000001000.log");
    rig.rewrite(&copy, &rig.bytes_of(&segments[0]));
    assert!(corruption(&rig).reason.contains("disagree"), "a copy under another name");
    change(&rig, &copy, |bytes| {
        bytes[40..48].copy_from_slice(&4096u64.to_le_bytes());
        reseal(bytes, 4092);
    });
    assert!(corruption(&rig).reason.contains("same range"));

    let rig = filled(5);
    let foreign = Rig::new(99);
    let (journal, _) = foreign.open();
    foreign.put(&journal, "theirs");
    rig.rewrite(
        &rig.dir.join("seg-0000000000000000.log"),
        &foreign.bytes_of(&foreign.last_segment()),
    );
    assert!(matches!(rig.try_open(), Err(OpenError::Foreign(_))));
}

#[test]
fn fault_14_a_segment_whose_directory_entry_is_lost_held_nothing_acknowledged() {
    let operations = |rig: &Rig| rig.disk.operations();
    let rig = filled(3);
    let (journal, _) = rig.open();
    let before = operations(&rig);
    rig.put(&journal, vec![3; 100]);
    let steps = operations(&rig) - before;
    for at in 0..=steps {
        for seed in 0..8 {
            let rig = filled(3);
            let (journal, _) = rig.open();
            rig.disk.crash_after(at);
            let acked = rig.try_put(&journal, plain(vec![3; 100])).is_ok();
            rig.disk.restart(seed);
            let found = survivors(&rig);
            assert!(
                found == in_order(4) || (!acked && found == in_order(3)),
                "after {at}, seed {seed}: {found:?}"
            );
            goes_on(&rig);
        }
    }
}

#[test]
fn fault_15_a_crash_during_the_recycling_of_a_segment_leaves_no_trace_of_its_old_life() {
    let rig = filled(5);
    let old = rig.bytes_of(&rig.segments()[0]);
    rig.rewrite(&rig.dir.join("free-0001"), &old);
    rig.rewrite(&rig.dir.join("seg-0000000000005000.tmp"), &old);
    assert_eq!(survivors(&rig), in_order(5), "before the rename it is no segment");

    // After the rename: a new header before the blocks of the old life.
    let rig = filled(4);
    let last = rig.last_segment();
    let old = rig.bytes_of(&rig.segments()[0]);
    change(&rig, &last, |bytes| bytes.extend_from_slice(&old[block_at(0)..]));
    assert_eq!(survivors(&rig), in_order(4));
    goes_on(&rig);
}

#[test]
fn fault_16_a_torn_footer_is_not_missed() {
    for sealed_is_last in [false, true] {
        let rig = filled(4);
        let segments = rig.segments();
        if sealed_is_last {
            rig.disk.remove_file(&segments[1]).unwrap();
        }
        assert_eq!(
            rig.bytes_of(&segments[0]).len(),
            block_at(4 * BLOCK),
            "three blocks and the footer"
        );
        assert_eq!(rig.open().1.torn, None, "a footer is no torn block");
        rig.disk.kill();
        change(&rig, &segments[0], |bytes| bytes[block_at(3 * BLOCK) + 100..].fill(0));
        assert_eq!(survivors(&rig), in_order(if sealed_is_last { 3 } else { 4 }));
        goes_on(&rig);
    }
}

#[test]
fn fault_17_18_a_sync_that_fails_once_poisons_and_is_never_retried() {
    for later in 0..3 {
        let rig = filled(1);
        let (journal, _) = rig.open();
        rig.put(&journal, vec![1; 100]);
        rig.disk.fail_sync_after(later);
        let mut acked = 2u8;
        let failed = loop {
            match rig.try_put(&journal, plain(vec![acked; 100])) {
                Ok(_) => acked += 1,
                Err(e) => break e,
            }
        };
        assert!(matches!(failed, AppendError::Poisoned(_)) && !failed.is_retryable());
        assert!(journal.is_poisoned());
        assert!(matches!(rig.try_put(&journal, plain("more")), Err(AppendError::Poisoned(_))));
        assert!(rig.drive(journal.poisoned()).is_some_and(|why| why.contains("Input/output")));
        assert!(rig.drive(journal.close()).is_err());
        rig.disk.kill();
        let after_restart = survivors(&rig);
        assert!(after_restart.starts_with(&in_order(acked)), "F1");
        rig.disk.crash(later);
        assert_eq!(survivors(&rig), after_restart, "F1: what a restart showed stays");
        goes_on(&rig);
    }
}

#[test]
fn fault_19_short_and_interrupted_writes_are_continued() {
    let rig = filled(0);
    rig.disk.short_writes(true);
    let (journal, _) = rig.open();
    for i in 0..20 {
        rig.put(&journal, vec![i; 3000]);
    }
    rig.disk.crash(4);
    assert_eq!(survivors(&rig), in_order(20));
}

#[test]
fn fault_20_no_space_is_back_pressure_and_nothing_is_poisoned() {
    for kind in [NoSpace::Device, NoSpace::Quota] {
        // The segment has three blocks: room runs out while it grows, or when the next one is created.
        for fit in 0..8u8 {
            let rig = filled(0);
            let (journal, _) = rig.open();
            rig.put(&journal, vec![0; 100]);
            rig.disk.set_capacity(rig.disk.used_bytes() + u64::from(fit) * 2048, kind);
            let mut acked = 1u8;
            let refused = loop {
                match rig.try_put(&journal, plain(vec![acked; 100])) {
                    Ok(_) => acked += 1,
                    Err(e) => break e,
                }
            };
            assert!(
                matches!(refused, AppendError::DiskFull(_)) && refused.is_retryable(),
                "{refused}"
            );
            assert!(!journal.is_poisoned());
            let durable = journal.durable();
            rig.disk.clear_no_space();
            rig.put(&journal, vec![acked; 100]);
            assert!(durable < journal.durable());
            rig.disk.crash(u64::from(fit));
            assert_eq!(survivors(&rig), in_order(acked + 1), "fit {fit}");
        }
    }
}

#[test]
fn fault_21_a_checkpoint_needs_no_space_and_a_failed_one_leaves_the_last() {
    let rig = filled(2);
    let (journal, _) = rig.open();
    let at = |lsn| Checkpoint { positions: vec![(0, Lsn(lsn))], counters: [lsn, 0, 0, 0] };
    rig.disk.no_space_below(Path::new("/"), NoSpace::Quota);
    journal.checkpoint(at(300)).unwrap();
    rig.disk.fail_sync_after(0);
    journal.checkpoint(at(4096)).unwrap_err();
    assert_eq!(journal.last_checkpoint(), at(300));
    rig.disk.crash(5);
    assert_eq!(rig.open().1.checkpoint, at(300));
    rig.disk.kill();

    let (journal, _) = rig.open();
    rig.disk.fail_sync_after(0);
    journal.checkpoint(at(4096)).unwrap_err();
    journal.checkpoint(at(4097)).unwrap();
    assert!(journal.checkpoint(at(1 << 40)).is_err(), "beyond the durable end");
    rig.disk.crash(6);
    assert_eq!(rig.open().1.checkpoint, at(4097));
}

#[test]
fn fault_22_one_torn_slot_leaves_the_other_and_two_leave_the_log() {
    let at = |lsn| Checkpoint { positions: vec![(0, Lsn(lsn))], counters: [0; 4] };
    for torn in ["ckpt.a", "ckpt.b", "both"] {
        let rig = filled(6);
        let (journal, before) = rig.open();
        journal.checkpoint(at(208)).unwrap();
        journal.checkpoint(at(4096)).unwrap();
        drop(journal);
        rig.disk.kill();
        for slot in ["ckpt.a", "ckpt.b"] {
            if torn == slot || torn == "both" {
                assert!(rig.disk.flip_bit(&rig.dir.join(slot), 90, 1));
            }
        }
        let (journal, recovered) = rig.open();
        assert!(recovered.checkpoint_damaged);
        assert_eq!(recovered.uuid, before.uuid, "the segments know the identity too");
        let left = recovered.checkpoint;
        if torn == "both" {
            assert_eq!(left, Checkpoint::default());
        } else {
            assert!(left == at(208) || left == at(4096));
        }
        assert_eq!(rig.payloads(&journal).len(), 6);
        journal.checkpoint(at(3 * 4096)).unwrap();
        drop(journal);
        rig.disk.crash(1);
        assert_eq!(rig.open().1.checkpoint, at(3 * 4096));
    }
}

#[test]
fn fault_23_a_crash_between_checkpoint_and_trim_only_leaves_work_to_do() {
    let rig = filled(10);
    let (journal, _) = rig.open();
    let end = journal.durable();
    journal.checkpoint(Checkpoint { positions: vec![(0, end)], counters: [0; 4] }).unwrap();
    rig.disk.crash(2);
    let (journal, recovered) = rig.open();
    assert_eq!((recovered.first, recovered.checkpoint.lowest()), (Lsn(0), Some(end)));
    assert_eq!(journal.backlog(), 0);
    assert!(journal.trim(end).unwrap() > 0);
    assert_eq!(journal.first(), Lsn(3 * 4096), "the last segment stays");
}

#[test]
fn every_row_of_the_decision_table_holds_on_disk() {
    type Damage = fn(&Rig);
    // Ten blocks in two segments, a third segment with one; the first row is that nothing is wrong.
    let rows: [(&str, Damage, Result<u8, &str>); 9] = [
        ("1 continues", |_| {}, Ok(11)),
        ("2 none, nothing stated", |rig| cut_after(rig, 2, 0, 100), Ok(10)),
        ("3 none, a hole", hole_in_the_last, Ok(11)),
        ("4 none, stated above", |rig| flip(rig, 2, 0), Err("damaged")),
        ("5 after, a hole", segments_in_a_hole, Ok(3)),
        (
            "6 after, stated above",
            |rig| drop(rig.disk.remove_file(&rig.segments()[1])),
            Err("missing"),
        ),
        ("7 before", overlap, Err("same range")),
        ("8 header rotten, never used", |rig| rotten_header(rig, 2, true), Ok(10)),
        (
            "9 header rotten, stated above",
            |rig| rotten_header(rig, 2, false),
            Err("header is rotten"),
        ),
    ];
    for (name, damage, expected) in rows {
        // Row 3 and 4 want more than one block in the last segment.
        let rig = filled(if name.starts_with(['3', '4', '9']) { 13 } else { 11 });
        damage(&rig);
        match expected {
            Ok(n) => assert_eq!(survivors(&rig), in_order(n), "{name}"),
            Err(reason) => {
                let found = corruption(&rig);
                assert!(found.reason.contains(reason), "{name}: {found}");
            }
        }
    }
}

fn cut_after(rig: &Rig, segment: usize, block: usize, bytes: usize) {
    change(rig, &rig.segments()[segment], |file| file.truncate(block_at(block * BLOCK) + bytes));
}

fn flip(rig: &Rig, segment: usize, block: usize) {
    change(rig, &rig.segments()[segment], |file| file[block_at(block * BLOCK) + 200] ^= 4);
}

fn hole_in_the_last(rig: &Rig) {
    change(rig, &rig.segments()[2], |file| {
        let last = block_at(2 * BLOCK);
        file[last + 32..last + 40].copy_from_slice(&(11 * 4096u64).to_le_bytes());
        reseal(&mut file[last..last + 128], 124);
        file[block_at(BLOCK)..block_at(2 * BLOCK)].fill(0);
    });
}

/// Later segments that say they were begun while the first was not durable to its end.
fn segments_in_a_hole(rig: &Rig) {
    rig.disk.remove_file(&rig.segments()[1]).unwrap();
    change(rig, &rig.segments()[1], |file| {
        file[72..80].copy_from_slice(&(3 * 4096u64).to_le_bytes());
        reseal(&mut file[..4096], 4092);
        file[block_at(32)..block_at(40)].copy_from_slice(&(3 * 4096u64).to_le_bytes());
        reseal(&mut file[block_at(0)..block_at(128)], 124);
    });
}

fn overlap(rig: &Rig) {
    let bytes = rig.bytes_of(&rig.segments()[1]);
    let copy = rig.dir.join("seg-0000000000004000.log");
    rig.rewrite(&copy, &bytes);
    change(rig, &copy, |file| {
        file[40..48].copy_from_slice(&0x4000u64.to_le_bytes());
        reseal(&mut file[..4096], 4092);
    });
}

fn rotten_header(rig: &Rig, segment: usize, unused: bool) {
    change(rig, &rig.segments()[segment], |file| {
        file[50] ^= 1;
        if unused {
            file.truncate(4096);
        }
    });
}

#[test]
fn a_journal_that_is_open_cannot_be_repaired() {
    let rig = filled(1);
    let (_journal, _): (Arc<Journal>, _) = rig.open();
    assert!(matches!(
        repair(&rig.disk, &rig.dir, Path::new("/quarantine")),
        Err(OpenError::Locked(_))
    ));
}
