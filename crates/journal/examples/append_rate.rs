//! `cargo run --release -p forebay-journal --example append_rate -- DIR [PAYLOAD_BYTES] [APPENDERS] [MEBIBYTES]`
//!
//! Appends as fast as group commit allows, and beside it writes and syncs the same bytes plainly, since a figure
//! without its probe means nothing.

use std::error::Error;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use forebay_flow::{Ctx, Group, clock};
use forebay_journal::disk::{Disk, Open, RealDisk};
use forebay_journal::{Append, Clock, Journal, Options, Writers};

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let dir = args.next().ok_or("which directory?")?;
    let mut number = |default| args.next().map_or(Ok(default), |arg| arg.parse::<usize>());
    let (payload, appenders, mebibytes) = (number(1 << 20)?, number(16)?, number(1024)?);
    let dir = Path::new(&dir).join("append_rate");
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::new());
    disk.create_dir_all(&dir)?;
    let bytes = Bytes::from((0..payload).map(|i| (i * 31 % 251) as u8).collect::<Vec<_>>());
    let each = (mebibytes << 20) / payload / appenders;
    let total = (each * appenders * payload) as f64 / 1e6;
    println!(
        "probe    {:7.0} MB/s: plain writes of 1 MiB, each synced",
        probe(&*disk, &dir, mebibytes)?
    );

    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let ctx = Ctx::root("append_rate");
    let writers = Writers::start(&ctx, 1)?;
    let options = Options::new(64 << 30, Clock::new(|| 0));
    let (journal, _) = Journal::open(disk.clone(), &dir.join("journal"), options, &writers)?;
    let started = clock::now();
    runtime.block_on(async {
        let mut tasks = Group::new(&ctx, "appenders", appenders);
        for _ in 0..appenders {
            let (journal, bytes) = (journal.clone(), bytes.clone());
            let append = async move {
                for _ in 0..each {
                    let (key, counters, payload) = (None, [1, 0, 0, 0], bytes.clone());
                    journal
                        .append(Append { kind: 0, received_unix_micros: 0, key, counters, payload })
                        .await?;
                }
                Ok::<_, forebay_journal::AppendError>(())
            };
            tasks.spawn(append).await.map_err(|refused| refused.to_string())?;
        }
        tasks.finish().await?;
        Ok::<_, Box<dyn Error>>(())
    })?;
    println!(
        "journal  {:7.0} MB/s: {payload} B from {appenders} at once",
        total / started.elapsed().as_secs_f64()
    );
    runtime.block_on(journal.close())?;
    drop(journal);
    let started = clock::now();
    let options = Options::new(64 << 30, Clock::new(|| 0));
    let (journal, _) = Journal::open(disk.clone(), &dir.join("journal"), options, &writers)?;
    println!("recovery {:7.0} MB/s", total / started.elapsed().as_secs_f64());
    drop(journal);
    writers.stop();
    disk.remove_dir_all(&dir)?;
    Ok(())
}

fn probe(disk: &dyn Disk, dir: &Path, mebibytes: usize) -> std::io::Result<f64> {
    let path = dir.join("probe");
    let file = disk.open(&path, Open::CreateOrTruncate)?;
    let (block, started) = (vec![7; 1 << 20], clock::now());
    for i in 0..mebibytes as u64 {
        file.write_all_at(&block, i << 20)?;
        file.sync_data()?;
    }
    let rate = (mebibytes << 20) as f64 / 1e6 / started.elapsed().as_secs_f64();
    disk.remove_file(&path)?;
    Ok(rate)
}
