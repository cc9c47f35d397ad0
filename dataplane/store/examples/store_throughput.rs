//! Prints what the store itself costs per record: appends of 128-byte payloads in runs of 64, and reading them back, at
//! D0 (memory) and at D1 against a device that does nothing.
//!
//! `cargo run --release -p ionian-store --example store_throughput`

use std::hint::black_box;
use std::time::Instant;

use ionian_store::{BlockOpKind, Fetch, Store, StoreConfig, StoreState, sample_run};
use ionian_types::{ClusterId, Durability, Inc, LogId, Lsn, NodeId, ShardId, Slot};
use ionian_wire::record::encoded_bytes;

const RUN: usize = 64;
const PAYLOAD: usize = 128;
const RUNS: usize = 200_000;
const SLOT: Slot = Slot::new(0);

fn config(class: Durability) -> StoreConfig {
    StoreConfig {
        memory_bytes_max: 64 << 20,
        entropy: 1,
        ..StoreConfig::new(
            ClusterId::new(1),
            NodeId::new(1),
            LogId::new(1),
            ShardId::new(1),
            1,
            class,
        )
    }
}

/// Does all that the store asks for, at once: returns bytes written.
fn serve(store: &mut Store, buffer: &mut [u8]) -> u64 {
    let mut written = 0;
    while let Some(op) = store.next_op() {
        match op.kind {
            BlockOpKind::Write { len, .. } => {
                store.fill(&op, &mut buffer[..len as usize]);
                written += u64::from(len);
                store.complete(op.token, Ok(&[]));
            }
            BlockOpKind::Read { len, .. } => {
                let bytes = &buffer[..len as usize];
                store.complete(op.token, Ok(bytes));
            }
            _ => store.complete(op.token, Ok(&[])),
        }
    }
    written
}

fn main() {
    let run = sample_run(RUN, PAYLOAD);
    let mut buffer = vec![0u8; 1 << 20];
    for class in [Durability::D0, Durability::D1] {
        let mut store = if class.is_flushed() {
            Store::format(config(class), Inc::new(1), &[])
        } else {
            Store::new(config(class))
        };
        serve(&mut store, &mut buffer);
        assert_eq!(store.state(), StoreState::Ready);
        let mut parts = [0u128; 3];
        let mut written = 0;
        for step in 0..RUNS {
            let start = Instant::now();
            let first = store.len(SLOT);
            match store.reserve(SLOT, run.len()) {
                Ok(room) => room.copy_from_slice(&run),
                Err(error) => panic!("{error}: the trim below keeps room"),
            }
            let copied = start.elapsed();
            // The positions in the headers repeat; the store takes the caller's word for them.
            store.commit(SLOT, first, run.len());
            let committed = start.elapsed();
            let Fetch::Ready(found) = store.run(SLOT, first, store.len(SLOT), usize::MAX) else {
                panic!("what was just committed is in memory");
            };
            black_box(store.bytes(&found));
            let read = start.elapsed();
            parts[0] += copied.as_nanos();
            parts[1] += (committed - copied).as_nanos();
            parts[2] += (read - committed).as_nanos();
            if class.is_flushed() {
                written += serve(&mut store, &mut buffer);
            }
            if step % 1000 == 999 {
                let len = store.len(SLOT).get();
                store.trim(SLOT, Lsn::new(len - 64_000));
            }
        }
        let records = (RUNS * RUN) as f64;
        let ns = |part: u128| part as f64 / records;
        println!(
            "{class}: {:.2} ns/record: {:.2} copying {} bytes in, {:.2} commit, {:.2} run and bytes; device {:.2} bytes written per byte; memory {} MiB",
            ns(parts.iter().sum()),
            ns(parts[0]),
            encoded_bytes(PAYLOAD),
            ns(parts[1]),
            ns(parts[2]),
            written as f64 / (records * encoded_bytes(PAYLOAD) as f64),
            store.stats().memory_bytes >> 20,
        );
    }
}
