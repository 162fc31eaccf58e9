//! One simulation: rounds of clients and power cuts, then the reckoning.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use forebay_journal::disk::SimDisk;
use forebay_pipeline::engine::Engine;
use forebay_pipeline::intake::Ack;
use parking_lot::Mutex;

use crate::oracle::{Ledger, Obligations};
use crate::rig::{Rig, STREAM, send};

/// How long clients go on in a round if the power does not fail.
const ROUND: Duration = Duration::from_millis(400);

/// How long the last drain may take.
const DRAIN: Duration = Duration::from_secs(30);

/// The shape of a simulation.
#[derive(Debug, Clone, Copy)]
pub struct Simulation {
    /// What everything is drawn from.
    pub seed: u64,
    /// Power cuts.
    pub cuts: u32,
    /// Clients that send at the same time.
    pub clients: u64,
    /// Disk operations after which the power fails, at most.
    pub operations: u64,
}

/// Runs a simulation to its end.
///
/// # Errors
/// What was lost or doubled, or why it could not be run.
pub fn simulate(simulation: Simulation) -> Result<(usize, Ledger), String> {
    let mut rng = Rng::with_seed(simulation.seed);
    let disk = SimDisk::new(simulation.seed);
    let promised = Arc::new(Mutex::new(Obligations::default()));
    let mut next_row = 0;
    for _ in 0..simulation.cuts {
        disk.crash_after(rng.u64(1..=simulation.operations));
        let plan = Round { seed: rng.u64(..), clients: simulation.clients, first_row: next_row };
        next_row += i64::try_from(simulation.clients).unwrap_or(0) * ROWS_PER_CLIENT;
        let outcome = block_on(round(disk.clone(), plan, Arc::clone(&promised)))?;
        if let Err(error) = outcome
            && !disk.is_down()
        {
            return Err(format!("the engine did not open although the power was on: {error}"));
        }
        disk.restart(rng.u64(..));
    }
    let (found, ledger) = block_on(reckon(disk))??;
    let promised = promised.lock();
    promised.check(&found)?;
    if ledger != Ledger::default() {
        return Err(format!("F6: {ledger:?}"));
    }
    Ok((promised.acknowledged_rows(), ledger))
}

fn block_on<T>(future: impl Future<Output = T>) -> Result<T, String> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    let done = runtime.block_on(future);
    runtime.shutdown_timeout(Duration::from_secs(5));
    Ok(done)
}

/// What one round does.
#[derive(Debug, Clone, Copy)]
struct Round {
    seed: u64,
    clients: u64,
    first_row: i64,
}

/// Numbers set aside for each client of a round.
const ROWS_PER_CLIENT: i64 = 100_000;

/// Opens the engine and lets clients send until the power fails or the round is over.
async fn round(
    disk: SimDisk,
    plan: Round,
    promised: Arc<Mutex<Obligations>>,
) -> Result<(), String> {
    let rig = Rig::open(disk.clone()).await?;
    let clients = (0..plan.clients).map(|n| {
        let rows = plan.first_row + i64::try_from(n).unwrap_or(0) * ROWS_PER_CLIENT;
        client(rig.engine.clone(), plan.seed ^ n, rows, Arc::clone(&promised), disk.clone())
    });
    let sending = futures_util::future::join_all(clients);
    drop(tokio::time::timeout(ROUND, sending).await);
    rig.abandon().await;
    if !disk.is_down() {
        disk.kill();
    }
    Ok(())
}

/// Sends bodies of numbered rows; those under a key are sent again until they are answered.
async fn client(
    engine: Engine,
    seed: u64,
    first: i64,
    promised: Arc<Mutex<Obligations>>,
    disk: SimDisk,
) {
    let mut rng = Rng::with_seed(seed);
    let mut next = first;
    while !disk.is_down() {
        let rows = next..next + rng.i64(1..200);
        next = rows.end;
        let key = rng.bool().then(|| format!("{seed}-{next}"));
        let ack = if rng.u8(..8) == 0 { Ack::Stored } else { Ack::Durable };
        promised.lock().unknown(rows.clone());
        let tries = if key.is_some() { 3 } else { 1 };
        for _ in 0..tries {
            match send(&engine, rows.clone(), key.clone(), ack).await {
                Ok(()) => promised.lock().acknowledged(rows.clone()),
                Err(_) => continue,
            }
            // An acknowledged body under a key may be sent again, and adds nothing.
            if key.is_none() || rng.bool() {
                break;
            }
        }
    }
}

/// Opens the engine a last time, drains it, and counts what is in the table.
async fn reckon(disk: SimDisk) -> Result<(BTreeMap<i64, u64>, Ledger), String> {
    let rig = Rig::open(disk).await?;
    rig.engine.drain(forebay_flow::clock::now() + DRAIN).await;
    let found =
        if rig.engine.stream(STREAM).is_some() { rig.count().await? } else { BTreeMap::new() };
    let mut ledger = Ledger::default();
    for row in rig.engine.ledger() {
        ledger.difference += row.difference.abs();
        ledger.in_journal += row.in_journal;
    }
    rig.close().await?;
    Ok((found, ledger))
}
