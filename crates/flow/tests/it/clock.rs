//! The clock.

use std::time::Duration;

use forebay_flow::Clock;

const SEC: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn a_fake_clock_follows_paused_time_and_its_wall_can_go_backwards() {
    let clock = Clock::fake(1_000_000_000);
    let began = clock.now();
    tokio::time::advance(2 * SEC).await;
    assert_eq!((clock.unix_micros(), clock.now() - began), (1_002_000_000, 2 * SEC));
    clock.advance(SEC);
    assert_eq!((clock.unix_micros(), clock.now() - began), (1_003_000_000, 3 * SEC));
    clock.clone().jump(-500_000_000);
    assert_eq!((clock.unix_micros(), clock.now() - began), (503_000_000, 3 * SEC));
}

#[test]
fn the_system_clock_needs_no_runtime_and_cannot_be_moved() {
    let clock = Clock::system();
    let (wall, mono) = (clock.unix_micros(), clock.now());
    clock.jump(-10_000_000_000_000);
    clock.advance(1000 * SEC);
    assert!(clock.unix_micros() >= wall && clock.now() - mono < 100 * SEC);
}
