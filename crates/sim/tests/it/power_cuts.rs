//! The obligation oracle over power cuts of the simulated disk.
//!
//! `FOREBAY_SEED=7 cargo nextest run --workspace power_cuts` runs one seed;
//! `FOREBAY_SEEDS=500` runs that many.

use forebay_sim::{Simulation, simulate};

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn f1_f2_power_cuts_lose_nothing_acknowledged_and_double_nothing() {
    let seeds = match number("FOREBAY_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("FOREBAY_SEEDS").unwrap_or(24),
    };
    let mut acknowledged = 0;
    for seed in seeds.clone() {
        let operations = 40 << (seed % 5);
        let simulation = Simulation { seed, cuts: 4, clients: 3, operations };
        match simulate(simulation) {
            Ok((rows, _)) => acknowledged += rows,
            Err(wrong) => panic!(
                "seed {seed}: {wrong}\nreplay: FOREBAY_SEED={seed} cargo nextest run --workspace power_cuts"
            ),
        }
    }
    println!("seeds {seeds:?}: {acknowledged} acknowledged rows, each in the table exactly once");
    assert!(acknowledged > 0, "no seed acknowledged a row: the simulation tests nothing");
}
