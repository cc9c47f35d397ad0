//! Single faults, one test each: whose files these are, a full disk, a failed flush, damage where it cannot be repaired.

#![allow(
    clippy::unwrap_used,
    reason = "a test that finds less than it put in fails"
)]

mod common;

use common::disk::{Disk, Rng};
use common::{append, config, record};
use ionian_store::format::{JournalEntry, SUPERBLOCK_COPIES, mark};
use ionian_store::{
    BlockOpKind, Fetch, FileKind, FileNo, Store, StoreConfig, StoreError, StoreFailure, StoreState,
};
use ionian_types::{ClusterId, Durability, Inc, Lsn, NodeId, Slot};
use ionian_wire::DISK_VERSION;
use ionian_wire::crc::crc32c;

const SLOT: Slot = Slot::new(0);

struct Bench {
    disk: Disk,
    rng: Rng,
    store: Store,
}

fn small() -> StoreConfig {
    config(Durability::D1, 1, 4096, 6)
}

impl Bench {
    fn new(config: StoreConfig) -> Self {
        let mut bench = Self {
            disk: Disk::default(),
            rng: Rng(1),
            store: Store::format(config, Inc::new(1), &[]),
        };
        bench.settle();
        assert_eq!(bench.store.state(), StoreState::Ready);
        bench
    }

    fn settle(&mut self) {
        loop {
            self.disk.take_ops(&mut self.store);
            if self.disk.idle() {
                return;
            }
            self.disk.complete_one(&mut self.store, &mut self.rng);
        }
    }

    /// Appends a record and waits until it is durable.
    fn append(&mut self) -> Result<(), StoreError> {
        let pos = self.store.len(SLOT).get();
        let result = append(
            &mut self.store,
            SLOT,
            &[record(SLOT, pos, 1, &[pos as u8; 300])],
        );
        self.settle();
        result
    }

    fn restart(&mut self, config: StoreConfig) -> StoreState {
        self.disk.crash(&mut self.rng);
        self.store = Store::recover(config, &self.disk.files());
        self.settle();
        self.store.state()
    }

    fn readable(&mut self, pos: u64) -> bool {
        loop {
            match self.store.run(SLOT, Lsn::new(pos), Lsn::new(pos + 1), 0) {
                Fetch::Ready(run) => {
                    return self.store.bytes(&run) == record(SLOT, pos, 1, &[pos as u8; 300]);
                }
                Fetch::Wait => self.settle(),
                _ => return false,
            }
        }
    }
}

fn superblock(copy: u8) -> FileNo {
    FileNo::of(FileKind::Superblock(copy))
}

/// Small entries, each in a batch of its own, filled the journal's memory long before there were many of them: appends
/// stopped for ever, since only the number of entries brought a checkpoint about.
#[test]
fn small_entries_in_many_batches_make_the_journal_long() {
    let mut bench = Bench::new(small());
    for life in 0..3 {
        let mut count = 0;
        while !bench.store.journal_is_long() {
            bench.store.journal_append(b"small").unwrap();
            bench.settle();
            count += 1;
            assert!(count < 100_000, "{count} blocks and not long");
        }
        // There is room until the checkpoint is durable.
        let upto = bench.store.journal_last();
        bench.store.journal_checkpoint(upto, b"snapshot").unwrap();
        bench.store.journal_append(b"small").unwrap();
        bench.settle();
        assert!(!bench.store.journal_is_long(), "after checkpoint {life}");
    }
}

#[test]
fn a_lazy_journal_entry_costs_no_flush_of_its_own() {
    let mut bench = Bench::new(small());
    let flushes = |bench: &Bench| bench.store.stats().flushes;
    let began = flushes(&bench);
    let number = bench.store.journal_append_lazily(b"lazy").unwrap();
    bench.settle();
    assert_eq!((flushes(&bench), bench.store.journal_durable()), (began, 0));
    // Not with a record either: the journal is another file to flush.
    bench.append().unwrap();
    assert_eq!(
        (flushes(&bench), bench.store.journal_durable()),
        (began + 1, number - 1)
    );
    // It goes when somebody waits, together with all before it.
    bench.store.journal_append_lazily(b"lazy").unwrap();
    bench.settle();
    let last = bench.store.journal_append(b"eager").unwrap();
    bench.settle();
    assert_eq!(
        (flushes(&bench), bench.store.journal_durable()),
        (began + 2, last)
    );
    let last = bench.store.journal_append_lazily(b"lazy").unwrap();
    bench.store.journal_urge();
    bench.settle();
    assert_eq!(
        (flushes(&bench), bench.store.journal_durable()),
        (began + 3, last)
    );
    assert_eq!(bench.restart(small()), StoreState::Ready);
    assert_eq!(bench.store.journal_last(), last);
}

#[test]
fn files_of_another_owner_are_refused_with_both_names() {
    let mut bench = Bench::new(small());
    let mut other = small();
    other.cluster = ClusterId::new(77);
    assert_eq!(
        bench.restart(other),
        StoreState::Failed(StoreFailure::OtherCluster {
            found: small().cluster,
            expected: ClusterId::new(77)
        })
    );
    let mut other = small();
    other.node = NodeId::new(77);
    assert_eq!(
        bench.restart(other),
        StoreState::Failed(StoreFailure::OtherNode {
            found: small().node,
            expected: NodeId::new(77)
        })
    );
    let mut other = small();
    other.extent_bytes *= 2;
    assert!(matches!(
        bench.restart(other),
        StoreState::Failed(StoreFailure::OtherLayout {
            field: "extent_bytes",
            ..
        })
    ));
    assert_eq!(bench.restart(small()), StoreState::Ready);
}

#[test]
fn one_good_superblock_is_enough_and_the_others_are_made_again() {
    let mut bench = Bench::new(small());
    bench.append().unwrap();
    for copy in [0, 1, 3] {
        bench.disk.patch(superblock(copy), |bytes| bytes[40] ^= 1);
    }
    assert_eq!(bench.restart(small()), StoreState::Ready);
    assert_eq!(bench.store.inc(), Inc::new(1));
    bench.disk.patch(superblock(2), |bytes| bytes[40] ^= 1);
    assert_eq!(bench.restart(small()), StoreState::Ready);
    assert!(bench.readable(0));
}

#[test]
fn without_a_superblock_nothing_is_touched() {
    let mut bench = Bench::new(small());
    bench.append().unwrap();
    for copy in 0..SUPERBLOCK_COPIES as u8 {
        bench.disk.patch(superblock(copy), |bytes| bytes[40] ^= 1);
    }
    assert_eq!(
        bench.restart(small()),
        StoreState::Failed(StoreFailure::NoValidSuperblock { present: 4 })
    );
}

/// What cannot be read is not known to be damaged, and a store whose first files are all there is not one never made: it
/// would have been made anew, and its life number given to another.
#[test]
fn a_superblock_or_checkpoint_that_cannot_be_read_is_not_a_damaged_one() {
    let mut bench = Bench::new(small());
    let unread = |unread| StoreState::Failed(StoreFailure::SuperblockUnread { unread, present: 4 });
    let superblocks = || (0..SUPERBLOCK_COPIES as u8).map(superblock);
    let fresh: Vec<FileNo> = superblocks().collect();
    superblocks().for_each(|copy| bench.disk.unreadable_at(copy, 0));
    bench.store = Store::recover(small(), &fresh);
    bench.settle();
    assert_eq!(bench.store.state(), unread(4));
    bench.disk.readable();
    assert_eq!(bench.restart(small()), StoreState::Ready);

    bench.append().unwrap();
    superblocks().for_each(|copy| bench.disk.unreadable_at(copy, 0));
    assert_eq!(bench.restart(small()), unread(4));
    bench.disk.readable();
    bench.disk.unreadable_at(superblock(2), 0);
    for copy in [0, 1, 3] {
        bench.disk.patch(superblock(copy), |bytes| bytes[40] ^= 1);
    }
    assert_eq!(bench.restart(small()), unread(1));
    bench.disk.readable();
    assert_eq!(bench.restart(small()), StoreState::Ready);
    assert!(bench.readable(0));

    let (mut bench, _) = journal();
    bench.store.journal_checkpoint(6, &[9; 700]).unwrap();
    bench.settle();
    let file = FileNo::of(FileKind::Checkpoint(0));
    // Both headers; both copies of the snapshot.
    for parts in [[0, 512], [1024, 2048]] {
        for at in parts {
            bench.disk.unreadable_at(file, at);
        }
        let failure = StoreFailure::Device { op: "read" };
        assert_eq!(bench.restart(small()), StoreState::Failed(failure));
        bench.disk.readable();
    }
    assert_eq!(bench.restart(small()), StoreState::Ready);
    assert_eq!(bench.store.recovered().checkpoint, Some((6, &[9; 700][..])));
}

#[test]
fn a_newer_version_is_refused_even_beside_a_known_one() {
    let mut bench = Bench::new(small());
    bench.disk.patch(superblock(2), |bytes| {
        bytes[8] = DISK_VERSION as u8 + 1;
        let crc = crc32c(&bytes[..12]);
        bytes[12..16].copy_from_slice(&crc.to_le_bytes());
    });
    let refused = StoreFailure::NewerVersion {
        found: DISK_VERSION + 1,
        known: DISK_VERSION,
    };
    assert_eq!(bench.restart(small()), StoreState::Failed(refused));
}

#[test]
fn a_start_cut_short_can_be_made_again_and_a_store_cannot() {
    let mut rng = Rng(3);
    let mut disk = Disk::default();
    let mut store = Store::format(small(), Inc::new(1), &[]);
    disk.take_ops(&mut store);
    disk.complete_one(&mut store, &mut rng);
    disk.complete_one(&mut store, &mut rng);
    disk.crash(&mut rng);
    let mut store = Store::recover(small(), &disk.files());
    disk.take_ops(&mut store);
    while !disk.idle() {
        disk.complete_one(&mut store, &mut rng);
        disk.take_ops(&mut store);
    }
    assert_eq!(
        store.state(),
        StoreState::Failed(StoreFailure::NotFormatted)
    );
    let store = Store::format(small(), Inc::new(1), &disk.files());
    let mut bench = Bench { disk, rng, store };
    bench.settle();
    assert_eq!(bench.store.state(), StoreState::Ready);
    assert_eq!(
        Store::format(small(), Inc::new(2), &bench.disk.files()).state(),
        StoreState::Failed(StoreFailure::Exists)
    );
}

#[test]
fn a_full_disk_refuses_before_any_effect_and_a_trim_ends_it() {
    for limit_of_config in [false, true] {
        let mut config = small();
        if limit_of_config {
            config.disk_bytes_max = 3 * config.extent_bytes;
        }
        let mut bench = Bench::new(config);
        if !limit_of_config {
            bench.disk.space_bytes = Some(bench.disk.used_bytes() + 2 * config.extent_bytes);
        }
        let refused = loop {
            let len = bench.store.len(SLOT);
            if let Err(error) = bench.append() {
                assert_eq!(bench.store.len(SLOT), len);
                break error;
            }
            assert!(len.get() < 1000, "the disk is bounded");
        };
        assert_eq!(refused, StoreError::DiskFull);
        let len = bench.store.len(SLOT).get();
        assert_eq!(bench.store.durable_len(SLOT).get(), len);
        assert!(bench.readable(0) && bench.readable(len - 1));
        assert_eq!(bench.append(), Err(StoreError::DiskFull));
        // One extent is two chunks.
        bench.store.trim(SLOT, Lsn::new(len / 2));
        bench.settle();
        for _ in 0..4 {
            assert_eq!(bench.append(), Ok(()), "limit of config: {limit_of_config}");
        }
        assert!(bench.readable(len + 3));
        bench.disk.space_bytes = None;
        assert_eq!(bench.restart(config), StoreState::Ready);
        assert_eq!(bench.store.durable_len(SLOT).get(), len + 4);
        assert_eq!(bench.store.first(SLOT).get(), len / 2);
    }
}

/// A disk that something else had filled stayed full to the store after that was removed, until a trim or a restart.
#[test]
fn room_that_others_give_back_is_noticed() {
    let config = small();
    let mut bench = Bench::new(config);
    bench.disk.space_bytes = Some(bench.disk.used_bytes() + config.extent_bytes);
    let mut bound = 1000;
    while bench.append().is_ok() {
        bound -= 1;
        assert!(bound > 0, "the disk is bounded");
    }
    for _ in 0..10 {
        bench.store.retry_space();
        bench.settle();
        assert!(bench.store.has_no_room());
        assert_eq!(bench.append(), Err(StoreError::DiskFull), "still full");
    }
    bench.disk.space_bytes = None;
    bench.settle();
    assert!(bench.store.has_no_room(), "nobody has asked");
    bench.store.retry_space();
    bench.settle();
    assert!(!bench.store.has_no_room());
    assert_eq!(bench.append(), Ok(()));
}

/// A busy segment took every file, and the replica could never keep a copy of the other one.
#[test]
fn a_busy_segment_leaves_room_for_one_that_is_still_empty() {
    for limit_of_config in [false, true] {
        let mut config = config(Durability::D1, 2, 4096, 8);
        if limit_of_config {
            config.disk_bytes_max = config.disk_bytes_min();
        }
        let mut bench = Bench::new(config);
        if !limit_of_config {
            bench.disk.space_bytes = Some(bench.disk.used_bytes() + config.extent_bytes);
        }
        let mut bound = 1000;
        while bench.append().is_ok() {
            bound -= 1;
            assert!(bound > 0, "the disk is bounded");
        }
        assert_eq!(bench.append(), Err(StoreError::DiskFull));
        assert!(bench.store.has_no_room(), "for the busy one");
        let other = Slot::new(1);
        append(&mut bench.store, other, &[record(other, 0, 1, &[1; 300])])
            .expect("a file was left for it");
        bench.settle();
        assert_eq!(bench.store.durable_len(other).get(), 1);
        // And the busy one goes on once it is trimmed.
        let len = bench.store.len(SLOT);
        bench.store.trim(SLOT, len);
        bench.settle();
        assert_eq!(bench.append(), Ok(()), "limit of config: {limit_of_config}");
    }
}

#[test]
fn a_failed_flush_ends_the_store_and_is_not_tried_again() {
    let mut bench = Bench::new(small());
    bench.append().unwrap();
    bench.disk.fail_flush = true;
    let pos = bench.store.len(SLOT).get();
    append(&mut bench.store, SLOT, &[record(SLOT, pos, 1, &[1; 300])]).unwrap();
    bench.settle();
    let failed = StoreState::Failed(StoreFailure::Device { op: "flush" });
    assert_eq!(bench.store.state(), failed);
    assert_eq!(bench.store.durable_len(SLOT).get(), pos);
    bench.disk.fail_flush = false;
    assert_eq!(bench.append(), Err(StoreError::Failed));
    assert_eq!(bench.store.journal_append(b"x"), Err(StoreError::Failed));
    bench.settle();
    assert_eq!(bench.store.durable_len(SLOT).get(), pos);
    assert!(bench.store.next_op().is_none());
    // What is in memory can still be read.
    assert!(bench.readable(0));
    assert_eq!(bench.restart(small()), StoreState::Ready);
    assert!(bench.store.durable_len(SLOT).get() >= pos);
}

#[test]
fn trim_frees_space_but_for_spares_and_recycles() {
    let mut bench = Bench::new(small());
    let extent = small().extent_bytes;
    for round in 0..120 {
        for _ in 0..5 {
            bench.append().unwrap();
        }
        let len = bench.store.len(SLOT).get();
        bench.store.trim(SLOT, Lsn::new(len - 2));
        bench.settle();
        let stats = bench.store.stats();
        assert!(
            stats.disk_bytes <= 4 * extent + 2 * small().journal_extent_bytes,
            "round {round}: {} bytes",
            stats.disk_bytes
        );
        assert!(stats.memory_bytes <= small().memory_bytes_max + small().journal_bytes_max);
    }
    // 600 records of 392 bytes fill some 50 extents; most of the files were used again.
    assert!(bench.disk.creates < 16, "{} files made", bench.disk.creates);
}

#[test]
fn a_small_append_on_an_idle_device_goes_out_at_once_and_no_block_is_written_twice() {
    let mut bench = Bench::new(small());
    for _ in 0..5 {
        bench.append().unwrap();
    }
    bench.disk.writes.clear();
    let pos = bench.store.len(SLOT).get();
    append(&mut bench.store, SLOT, &[record(SLOT, pos, 1, b"small")]).unwrap();
    let op = bench.store.next_op().unwrap();
    assert!(
        matches!(op.kind, BlockOpKind::Write { len: 512, .. }),
        "{op:?}"
    );
    assert_eq!(bench.store.next_op(), None);
    bench.store.complete(op.token, Ok(&[]));
    let flush = bench.store.next_op().unwrap();
    assert_eq!(flush.kind, BlockOpKind::Flush);
    bench.store.complete(flush.token, Ok(&[]));
    assert_eq!(bench.store.durable_len(SLOT).get(), pos + 1);

    for _ in 0..10 {
        bench.append().unwrap();
    }
    let mut seen = std::collections::BTreeSet::new();
    for (file, offset, len) in &bench.disk.writes {
        for block in (*offset..*offset + u64::from(*len)).step_by(512) {
            assert!(
                seen.insert((*file, block)),
                "{file:?} {block} was written twice"
            );
        }
    }
}

#[test]
fn two_batches_are_in_flight_and_what_comes_meanwhile_is_one_batch() {
    let mut bench = Bench::new(small());
    bench.append().unwrap();
    let mut writes = 0;
    for _ in 0..6 {
        let pos = bench.store.len(SLOT).get();
        append(&mut bench.store, SLOT, &[record(SLOT, pos, 1, b"small")]).unwrap();
        bench.disk.writes.clear();
        bench.disk.take_ops(&mut bench.store);
        writes += bench.disk.writes.len();
    }
    assert_eq!(writes, 2);
    bench.disk.writes.clear();
    bench.settle();
    assert_eq!(bench.disk.writes.len(), 1);
    assert_eq!(bench.store.durable_len(SLOT), bench.store.len(SLOT));
}

/// A journal of eight entries, each in a batch of its own, and the offset of each in its file.
fn journal() -> (Bench, Vec<(FileNo, usize)>) {
    let mut bench = Bench::new(small());
    let mut places = Vec::new();
    for number in 1..=8u64 {
        bench.disk.writes.clear();
        bench.store.journal_append(&[number as u8; 100]).unwrap();
        bench.settle();
        let (file, offset, len) = *bench
            .disk
            .writes
            .iter()
            .find(|(file, offset, _)| {
                matches!(file.kind(), Some(FileKind::JournalExtent(_))) && offset % 2048 != 1536
            })
            .unwrap();
        // A first batch begins with the header of its chunk.
        let at = if offset % 2048 == 0 {
            offset + 512
        } else {
            offset
        };
        assert!(u64::from(len) > at - offset);
        places.push((file, at as usize));
    }
    (bench, places)
}

#[test]
fn a_damaged_journal_entry_that_was_durable_is_not_passed_over() {
    let (mut bench, places) = journal();
    let (file, at) = places[3];
    bench.disk.patch(file, |bytes| bytes[at + 50] ^= 4);
    assert_eq!(
        bench.restart(small()),
        StoreState::Failed(StoreFailure::JournalDamaged { from: 4, to: 5 })
    );
}

#[test]
fn the_last_batch_of_a_journal_may_be_torn() {
    let (mut bench, places) = journal();
    let (file, at) = places[7];
    bench.disk.patch(file, |bytes| bytes[at + 50] ^= 4);
    assert_eq!(bench.restart(small()), StoreState::Ready);
    assert_eq!(bench.store.journal_last(), 7);
    assert_eq!(bench.store.journal_append(b"again"), Ok(8));
    bench.settle();
    assert_eq!(bench.restart(small()), StoreState::Ready);
    assert_eq!(bench.store.journal_read(8), Some(&b"again"[..]));
}

/// A last batch that the device refused to read was taken for a torn one: its entries, acknowledged long ago, were void, and
/// the root would have given their positions away again.
#[test]
fn a_journal_that_cannot_be_read_does_not_end_earlier() {
    let (mut bench, places) = journal();
    let (file, at) = places[7];
    let chunk = at / 2048 * 2048;
    // The entry; both headers of its chunk.
    for sectors in [vec![at], vec![chunk, chunk + 1536]] {
        for at in sectors {
            bench.disk.unreadable_at(file, at);
        }
        assert_eq!(
            bench.restart(small()),
            StoreState::Failed(StoreFailure::Device { op: "read" })
        );
        bench.disk.readable();
    }
    assert_eq!(bench.restart(small()), StoreState::Ready);
    assert_eq!(bench.store.journal_last(), 8);
}

#[test]
fn a_checkpoint_survives_the_loss_of_either_copy_and_not_of_both() {
    let (mut bench, _) = journal();
    bench.store.journal_checkpoint(6, &[9; 700]).unwrap();
    bench.settle();
    assert_eq!(bench.store.checkpoint_durable(), 6);
    assert_eq!(bench.store.journal_first(), 7);
    let file = FileNo::of(FileKind::Checkpoint(0));
    assert_eq!(bench.disk.durable_bytes(file).len(), 2 * 512 + 2 * 1024);
    // A header and a copy of the snapshot, of different pairs.
    bench.disk.patch(file, |bytes| {
        bytes[20] ^= 1;
        bytes[1024 + 1024 + 5] ^= 1;
    });
    assert_eq!(bench.restart(small()), StoreState::Ready);
    assert_eq!(bench.store.recovered().checkpoint, Some((6, &[9; 700][..])));
    assert_eq!(bench.store.journal_read(8), Some(&[8u8; 100][..]));
    bench.disk.patch(file, |bytes| bytes[1024 + 5] ^= 1);
    assert!(matches!(
        bench.restart(small()),
        StoreState::Failed(StoreFailure::CheckpointDamaged { .. })
    ));
}

#[test]
fn a_payload_that_looks_like_records_is_not_taken_for_them() {
    let mut bench = Bench::new(small());
    // A client who guesses positions puts a whole record 1 into the payload of record 0.
    let fake = record(SLOT, 1, 1, b"fake");
    let outer = record(SLOT, 0, 1, &[&[0; 8][..], &fake[..]].concat());
    append(&mut bench.store, SLOT, &[outer]).unwrap();
    bench.settle();
    bench.append().unwrap();
    // The outer header rots; a scan that searches for the next record passes over the payload.
    let file = FileNo::of(FileKind::RecordExtent(0));
    bench.disk.patch(file, |bytes| bytes[512 + 40] ^= 1);
    assert_eq!(bench.restart(small()), StoreState::Ready);
    assert!(!bench.readable(0));
    assert!(bench.readable(1));
    let damaged = bench.store.damaged(SLOT);
    assert_eq!(damaged.len(), 1);
    assert_eq!((damaged[0].from.get(), damaged[0].to.get()), (0, 1));
}

#[test]
fn marks_are_on_the_device_and_not_in_memory() {
    let (bench, places) = journal();
    let (file, at) = places[0];
    let bytes = &bench.disk.durable_bytes(file)[at..];
    assert!(JournalEntry::new_checked(bytes).is_err());
    let header = ionian_store::format::ChunkHeader::parse(bench.disk.durable_bytes(file)).unwrap();
    let mut unmarked = bytes.to_vec();
    let word = u64::from_le_bytes(*unmarked.first_chunk().unwrap()) ^ mark(header.stamp, at as u32);
    unmarked[..8].copy_from_slice(&word.to_le_bytes());
    assert_eq!(JournalEntry::new_checked(&unmarked).unwrap().number, 1);
}

#[test]
fn what_does_not_fit_into_memory_is_read_back() {
    let mut bench = Bench::new(small());
    for _ in 0..100 {
        bench.append().unwrap();
    }
    assert!(bench.store.stats().evictions > 0);
    for pos in (0..100).chain([0, 50]) {
        assert!(bench.readable(pos), "{pos}");
    }
    assert_eq!(bench.restart(small()), StoreState::Ready);
    // Only the end had to be scanned.
    assert!(
        bench.store.stats().fetches <= 2,
        "{:?}",
        bench.store.stats()
    );
    assert!((0..100).all(|pos| bench.readable(pos)));
}
