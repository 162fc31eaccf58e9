//! The growth detector: what it names, and what it is silent about.

use forebay_flow::growth::{Config, Detector};
use proptest::prelude::*;

/// Feeds one key with `counts` and says after which snapshots, from 1, it was named.
fn named_after(counts: impl IntoIterator<Item = usize>) -> Vec<usize> {
    let mut detector = Detector::new(Config::default());
    let mut named = Vec::new();
    for (at, count) in counts.into_iter().enumerate() {
        detector.observe([("place", count), ("steady", 100)]);
        let growing = detector.growing();
        assert!(growing.iter().all(|growing| growing.key == "place"), "{growing:?}");
        if !growing.is_empty() {
            named.push(at + 1);
        }
    }
    named
}

#[test]
fn b89_a_leak_is_named_at_the_third_snapshot_with_its_growth() {
    let mut detector = Detector::new(Config::default());
    for (leaking, swinging) in [(40, 5), (70, 90), (100, 12)] {
        assert!(detector.growing().is_empty());
        detector.observe([("leaking", leaking), ("steady", 5000), ("swinging", swinging)]);
    }
    let [found] = &detector.growing()[..] else { panic!("one: {:?}", detector.growing()) };
    assert_eq!((found.key, found.from, found.to, found.snapshots), ("leaking", 40, 100, 2));
}

#[test]
fn b89_a_steady_and_an_oscillating_load_are_silent() {
    assert_eq!(named_after(std::iter::repeat_n(5000, 100)), [0_usize; 0]);
    let oscillating = (0..200).map(|at| if at % 2 == 0 { 10 } else { 5000 });
    assert_eq!(named_after(oscillating), [0_usize; 0]);
    let climbs_often = (0..200).map(|at| [1000, 1400, 1100][at % 3]);
    assert_eq!(named_after(climbs_often), [0_usize; 0]);
    // Days of 288 snapshots, up for one half and down for the other: only the first morning is news.
    let days = (0..10 * 288).map(|at: usize| 1000 + 50 * (at % 288).min(288 - at % 288));
    let named = named_after(days);
    assert!(named.iter().all(|at| *at < 144 + 2 * 12), "the slow pace ends last: {named:?}");
}

#[test]
fn b89_a_ramp_that_levels_off_is_silent_and_an_even_one_is_named_only_while_it_climbs() {
    assert_eq!(named_after([0, 10_000, 10_003, 10_005, 10_006, 10_006, 10_006]), [0_usize; 0]);
    assert_eq!(named_after([500, 750, 875, 937, 968, 984, 992, 996, 998, 999, 1000]), [0_usize; 0]);
    assert_eq!(named_after([100, 500, 900, 1300, 1300, 1300]), [3, 4]);
}

#[test]
fn b89_a_leak_after_a_ramp_is_named_and_one_that_ended_can_be_named_again() {
    let (ramp, leak) = ([0, 10_000, 10_000], (1..=3).map(|n| 10_000 + 300 * n));
    assert_eq!(named_after(ramp.into_iter().chain(leak)), [5, 6]);
    assert_eq!(named_after([0, 50, 100, 150, 150, 150, 200, 250]), [3, 4, 8]);
    assert_eq!(named_after([0, 50, 100, 0, 50, 100, 150, 200]), [3, 8], "past its peak again");
}

#[test]
fn a_leak_under_a_load_that_comes_and_goes_is_found_by_its_rising_floor() {
    // Between 0 and 2000 come and go; one in a snapshot stays. No three snapshots in a row say so.
    let hidden = (0..120_usize).map(|at| at * 4 + [2000, 0, 700][at % 3]);
    let named = named_after(hidden);
    assert_eq!(named.first(), Some(&36), "the third step of the slow pace");
    assert_eq!(named.len(), 120 - 36 + 1, "and it stays named: {named:?}");
}

#[test]
fn no_more_keys_are_followed_than_the_limit_says() {
    let mut detector = Detector::new(Config { keys: 10, ..Config::default() });
    for round in 1..=3 {
        detector.observe((0..100).map(|key| (key, 100 * round)));
        assert_eq!(detector.passed_over(), 90);
    }
    assert_eq!(detector.growing().len(), 10);
    for _ in 0..2 {
        detector.observe((200..210).map(|key| (key, 7)));
    }
    assert_eq!(
        (detector.growing().len(), detector.passed_over()),
        (0, 0),
        "the others are forgotten"
    );
}

proptest! {
    #[test]
    fn b89_any_leak_faster_than_noise_is_named_at_its_third_snapshot(
        base in 0_usize..100_000,
        rate in 8_usize..10_000,
        lead in 0_usize..20,
    ) {
        let rate = rate + 2 * base.isqrt();
        let leak = (1..=3).map(|n| base + rate * n);
        let counts = std::iter::repeat_n(base, lead + 1).chain(leak);
        // Two steps after the first higher count at the latest.
        prop_assert_eq!(named_after(counts)[0], lead + 3);
    }

    #[test]
    fn b89_what_was_just_named_grew_twice_and_beyond_the_floor(
        counts in proptest::collection::vec(0_usize..300, 1..12),
    ) {
        for at in named_after(counts.iter().copied()) {
            let seen = &counts[..at];
            prop_assert!(seen.len() >= 3);
            prop_assert!(seen.windows(2).rev().take(2).all(|pair| pair[0] < pair[1]), "{:?}", seen);
            prop_assert!(seen[at - 1] >= seen.iter().min().unwrap() + 16);
        }
    }

    #[test]
    fn b89_a_load_within_the_floor_is_never_named(
        base in 0_usize..100_000,
        noise in proptest::collection::vec(0_usize..16, 0..200),
    ) {
        prop_assert_eq!(named_after(noise.into_iter().map(|noise| base + noise)), [0_usize; 0]);
    }

    #[test]
    fn b89_a_ramp_that_halves_what_is_missing_is_never_named(
        goal in 1_usize..1_000_000,
        begin in 0_usize..1000,
    ) {
        let begin = begin.min(goal);
        let ramp = (0..30).map(|at| goal - ((goal - begin) >> at));
        prop_assert_eq!(named_after(ramp), [0_usize; 0]);
    }
}
