//! Contestants in turns, each beside the first.

/// A name, and what takes one round and says how many nanoseconds one operation took.
pub type Contestant = (&'static str, fn() -> f64);

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Prints each one's median of so many rounds, and the median of its distances from the first of the same round.
pub fn match_up(rounds: usize, title: &str, contestants: &[Contestant]) {
    let mut times = vec![Vec::with_capacity(rounds); contestants.len()];
    for round in 0..rounds {
        for turn in 0..contestants.len() {
            let at = (round + turn) % contestants.len();
            let (_, run) = contestants[at];
            times[at].push(run());
        }
    }
    println!("{title}");
    for ((name, _), own) in contestants.iter().zip(&times) {
        let above = own.iter().zip(&times[0]).map(|(own, first)| own - first).collect();
        println!("  {name:<28} {:>8.1} ns  {:>+7.1}", median(own.clone()), median(above));
    }
}
