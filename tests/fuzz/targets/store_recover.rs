//! Recovery from a device that holds anything: sound headers with any numbers in any place, journal entries, noise.
//!
//! The input chooses the superblock's marks, the files, and what is in their blocks. Holds: recovery ends, in a store that
//! is ready or has failed; no read panics; a ready store takes appends, repairs, truncations and trims.
#![no_main]

use std::collections::BTreeMap;

use ionian_store::format::{CheckpointHeader, ChunkHeader, JOURNAL_STREAM, Superblock};
use ionian_store::{
    BlockError, BlockOpKind, Fetch, FileKind, FileNo, Store, StoreConfig, StoreState,
};
use ionian_types::{ClusterId, Durability, Inc, LogId, Lsn, NodeId, ShardId, Slot};
use ionian_wire::crc::crc32c;
use libfuzzer_sys::fuzz_target;

const BLOCK: usize = 512;
const CHUNK: usize = 4096;
const OPS_MAX: usize = 20_000;

type Files = BTreeMap<FileNo, Vec<u8>>;

fuzz_target!(|data: &[u8]| {
    let mut steps = Steps { rest: data };
    let config = config();
    let mut files = Files::new();
    superblocks(&config, &mut steps, &mut files);
    while !steps.rest.is_empty() {
        put(&config, &mut steps, &mut files);
    }
    let existing: Vec<FileNo> = files.keys().copied().collect();
    let mut store = Store::recover(config, &existing);
    serve(&mut store, &mut files);
    match store.state() {
        StoreState::Failed(_) => return,
        StoreState::Ready => {}
        StoreState::Starting => panic!("recovery does not end"),
    }
    for slot in [Slot::new(0), Slot::new(1)] {
        use_segment(&mut store, slot, &mut files);
    }
    for number in store.journal_first()..=store.journal_last() {
        assert!(store.journal_read(number).is_some(), "a whole journal");
    }
    assert!(store.journal_append(b"more").is_ok());
    serve(&mut store, &mut files);
    assert_eq!(store.journal_durable(), store.journal_last());
});

fn use_segment(store: &mut Store, slot: Slot, files: &mut Files) {
    let (first, len) = (store.first(slot), store.len(slot));
    assert!(first <= len && store.durable_len(slot) <= len);
    for pos in [
        first.get(),
        first.get() + 1,
        len.get() / 2,
        len.get().saturating_sub(1),
    ] {
        let pos = Lsn::new(pos);
        let to = Lsn::new(pos.get() + 3);
        for _ in 0..3 {
            match store.run(slot, pos, to, 4096) {
                Fetch::Ready(run) => assert_eq!(store.bytes(&run).len(), run.bytes as usize),
                Fetch::Wait => serve(store, files),
                _ => break,
            }
        }
    }
    store.committed_hint(
        slot,
        Lsn::new(first.get() + len.get().saturating_sub(first.get()) / 2),
    );
    serve(store, files);
    let len = store.len(slot);
    store.truncate(slot, Lsn::new(len.get().saturating_sub(1)));
    serve(store, files);
    store.trim(slot, store.len(slot));
    serve(store, files);
    assert_eq!(store.first(slot), store.len(slot));
}

fn config() -> StoreConfig {
    StoreConfig {
        chunk_bytes: CHUNK as u32,
        memory_bytes_max: 8 * CHUNK as u64,
        extent_bytes: 2 * CHUNK as u64,
        block_bytes: BLOCK as u32,
        write_bytes_max: 1024,
        journal_chunk_bytes: CHUNK as u32,
        journal_extent_bytes: 2 * CHUNK as u64,
        journal_bytes_max: 1 << 16,
        fetches_max: 2,
        ..StoreConfig::new(
            ClusterId::new(1),
            NodeId::new(2),
            LogId::new(3),
            ShardId::new(4),
            2,
            Durability::D1,
        )
    }
}

fn superblocks(config: &StoreConfig, steps: &mut Steps<'_>, files: &mut Files) {
    let mut superblock = Superblock::of(config, Inc::new(1));
    for mark in superblock.trim.iter_mut().take(2) {
        *mark = steps.number();
    }
    for index in [0, 1, 7] {
        superblock.base[index] = steps.number();
    }
    let bad = steps.byte();
    for copy in 0..4 {
        let mut bytes = vec![0; BLOCK];
        superblock.emit(copy, &mut bytes);
        if bad & (1 << copy) != 0 {
            bytes[usize::from(bad)] ^= 1;
        }
        files.insert(FileNo::of(FileKind::Superblock(copy)), bytes);
    }
}

/// Puts one thing into a file, which is made if need be.
fn put(config: &StoreConfig, steps: &mut Steps<'_>, files: &mut Files) {
    let what = steps.byte();
    let number = u64::from(what >> 5);
    let kind = match what % 4 {
        0 => FileKind::JournalExtent(number),
        1 => FileKind::Checkpoint(number % 3),
        _ => FileKind::RecordExtent(number),
    };
    let name = FileNo::of(kind);
    let file = files.entry(name).or_insert_with(|| vec![0; 2 * CHUNK]);
    let at = usize::from(steps.byte()) % (2 * CHUNK / BLOCK) * BLOCK;
    if let FileKind::Checkpoint(number) = kind {
        let header = CheckpointHeader {
            body_crc: crc32c(&file[2 * BLOCK..2 * BLOCK + 32]),
            cluster: config.cluster,
            node: config.node,
            log: config.log,
            shard: config.shard,
            number,
            upto: steps.number(),
            body_bytes: u64::from(steps.byte() / 8),
        };
        header.emit(&mut file[at..]);
    } else if what & 16 == 0 {
        let header = ChunkHeader {
            stream: if what.is_multiple_of(4) {
                JOURNAL_STREAM
            } else {
                steps.byte() % 3
            },
            chunk_bytes: CHUNK as u32,
            cluster: config.cluster,
            node: config.node,
            log: config.log,
            shard: config.shard,
            number: steps.number(),
            first: steps.number(),
            durable: steps.number(),
            life: steps.number(),
            stamp: 0,
            inc: Inc::new(1),
            file: name,
        };
        header.emit(&mut file[at..]);
    } else {
        let noise = steps.rest.len().min(64);
        let (head, rest) = steps.rest.split_at(noise);
        steps.rest = rest;
        file[at..at + noise].copy_from_slice(head);
    }
}

/// Does what the store asks for until it asks for nothing.
fn serve(store: &mut Store, files: &mut Files) {
    let mut done = 0;
    while let Some(op) = store.next_op() {
        done += 1;
        assert!(done < OPS_MAX, "no end of operations");
        match op.kind {
            BlockOpKind::Create { bytes } => {
                files.insert(op.file, vec![0; bytes as usize]);
                store.complete(op.token, Ok(&[]));
            }
            BlockOpKind::Delete => {
                files.remove(&op.file);
                store.complete(op.token, Ok(&[]));
            }
            BlockOpKind::Flush => store.complete(op.token, Ok(&[])),
            BlockOpKind::Write { offset, len } => {
                let mut bytes = vec![0; len as usize];
                store.fill(&op, &mut bytes);
                let at = offset as usize;
                let file = files
                    .get_mut(&op.file)
                    .expect("only files that exist are written");
                file[at..at + bytes.len()].copy_from_slice(&bytes);
                store.complete(op.token, Ok(&[]));
            }
            BlockOpKind::Read { offset, len } => {
                let at = offset as usize;
                let bytes = files
                    .get(&op.file)
                    .and_then(|file| file.get(at..at + len as usize))
                    .map(<[u8]>::to_vec);
                match bytes {
                    Some(bytes) => store.complete(op.token, Ok(&bytes)),
                    None => store.complete(op.token, Err(BlockError::Io)),
                }
            }
        }
    }
}

/// The input, byte by byte; zeros after its end.
struct Steps<'a> {
    rest: &'a [u8],
}

impl Steps<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.rest.split_first() else {
            return 0;
        };
        self.rest = rest;
        *first
    }

    /// Mostly a small number, now and then a huge one.
    fn number(&mut self) -> u64 {
        match self.byte() {
            255 => u64::MAX,
            254 => 1 << 62,
            253 => (1 << 62) - 1,
            small => u64::from(small),
        }
    }
}
