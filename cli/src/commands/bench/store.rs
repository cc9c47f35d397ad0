//! `ionian bench store`: the store over its device alone, beside a bare loop that issues the same operations.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use ionian_node::device;
use ionian_store::{StoreConfig, StoreError, StoreState, sample_run};
use ionian_types::{ClusterId, Durability, LogId, Lsn, NodeId, RECORD_BYTES_MAX, ShardId, Slot};
use ionian_wire::record::encoded_bytes;
use serde_json::json;

use super::append::Folder;
use super::device::{Pattern, loop_bytes_per_second};
use super::usage::Usage;
use crate::exit::{Exit, UsageError};
use crate::output::OutArgs;
use crate::table::{Table, number, per_second};
use crate::version;

const SLOT: Slot = Slot::new(0);
/// Bytes of records accepted at a time, as one append frame.
const RUN_BYTES: usize = 64 << 10;
/// Bytes of records kept; older ones are trimmed.
const RETAINED_BYTES: u64 = 256 << 20;
/// Bytes of records accepted and not yet durable.
const UNDER_WAY_BYTES: u64 = 8 << 20;

/// Measure the store over its device alone: accept, write, flush
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Bytes of a record
    #[arg(long, value_name = "BYTES", default_value_t = 512)]
    record_bytes: usize,
    /// Seconds to measure
    #[arg(long, value_name = "S", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    /// Where the files are; without it, a temporary folder that is removed
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    #[command(flatten)]
    out: OutArgs,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Exit> {
    if args.record_bytes > RECORD_BYTES_MAX {
        return Err(UsageError(format!(
            "--record-bytes is {}: give at most {RECORD_BYTES_MAX}",
            args.record_bytes
        ))
        .into());
    }
    let folder = Folder::new(args.data_dir.as_deref())?;
    let path = folder.path.join("store");
    if path.exists() {
        bail!(
            "{} exists: give a folder without a store of an earlier run",
            path.display()
        );
    }
    let config = StoreConfig {
        entropy: 1,
        ..StoreConfig::new(
            ClusterId::new(1),
            NodeId::new(1),
            LogId::new(1),
            ShardId::new(1),
            1,
            Durability::D1,
        )
    };
    let opening = device::open(&path, config, Arc::default(), None).context("the store")?;
    let device::Opening {
        mut store,
        mut io,
        fallback,
        ..
    } = opening.finish().context("the store")?;
    let encoded = encoded_bytes(args.record_bytes) as u64;
    let run_records = (RUN_BYTES as u64 / encoded).max(1);
    let run = sample_run(run_records as usize, args.record_bytes);
    let span = Duration::from_secs(args.seconds);
    // What comes first makes files; then they are used again.
    let mut began = Instant::now();
    let mut before = store.stats();
    let mut first = store.durable_len(SLOT).get();
    let mut warm = false;
    while began.elapsed() < span || !warm {
        if !warm && store.len(SLOT).get() * encoded > 2 * RETAINED_BYTES {
            (warm, began, before, first) = (
                true,
                Instant::now(),
                store.stats(),
                store.durable_len(SLOT).get(),
            );
        }
        let (len, durable) = (store.len(SLOT).get(), store.durable_len(SLOT).get());
        if (len - durable) * encoded < UNDER_WAY_BYTES {
            match store.reserve(SLOT, run.len()) {
                Ok(room) => {
                    room.copy_from_slice(&run);
                    store.commit(SLOT, Lsn::new(len), run.len());
                }
                Err(StoreError::Full | StoreError::DiskFull) => {}
                Err(error) => bail!("the store: {error}"),
            }
            let keep = RETAINED_BYTES / encoded;
            if durable > keep + store.first(SLOT).get() + run_records * 64 {
                store.trim(SLOT, Lsn::new(durable - keep));
            }
        }
        io.submit(&mut store);
        io.complete(&mut store);
        if let StoreState::Failed(failure) = store.state() {
            bail!("the store: {failure}");
        }
    }
    let elapsed = began.elapsed();
    let after = store.stats();
    let durable = store.durable_len(SLOT).get() - first;
    let used = Usage::of_store(&after).since(&Usage::of_store(&before));
    drop((store, io));
    std::fs::remove_dir_all(&path).context("removing the store's files")?;
    let pattern = Pattern::of(&used).context("the store wrote nothing")?;
    let bare = loop_bytes_per_second(&folder.path, &[pattern], span)?;
    let ours = used.written_bytes as f64 / elapsed.as_secs_f64();
    let result = json!({
        "version": version::SHORT, "commit": version::COMMIT, "machine": super::embedded::processor(),
        "record_bytes": args.record_bytes, "fallback": fallback, "seconds": elapsed.as_secs_f64(),
        "records_per_second": per_second(durable, elapsed), "device_bytes_per_second": ours,
        "write_bytes": pattern.write_bytes, "writes_per_flush": pattern.writes_per_flush,
        "flushes_per_record": used.flushes as f64 / durable.max(1) as f64,
        "bare_device_bytes_per_second": bare,
        "goals": [{"name": "device bytes per second, of the bare loop's", "goal": 0.8, "value": ours / bare, "met": ours / bare >= 0.8}],
    });
    let mut table = Table::new();
    let mut row = |what: &str, value: String| table.row(&[what, &value]);
    row(
        "records",
        format!(
            "{} bytes, {} durable per second",
            args.record_bytes,
            number(per_second(durable, elapsed))
        ),
    );
    row(
        "device",
        format!(
            "{:.0} MB/s in writes of {} bytes on average, {} for each flush",
            ours / 1e6,
            number(pattern.write_bytes),
            pattern.writes_per_flush
        ),
    );
    if let Some(reason) = fallback {
        row("fallback", reason);
    }
    row(
        "bare loop",
        format!(
            "{:.0} MB/s for the same operations; ratio {:.2}",
            bare / 1e6,
            ours / bare
        ),
    );
    let met = if ours / bare >= 0.8 { "met" } else { "NOT met" };
    row(
        "goal",
        format!(
            "device bytes per second, of the bare loop's: {:.2}, at least 0.8: {met}",
            ours / bare
        ),
    );
    args.out.emit(&table.render(), &result)?;
    Ok(Exit::Done)
}
