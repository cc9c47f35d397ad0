//! The store against Raft's own suite, and against disks that are full, cut or damaged.

use std::fs;
use std::io::{Seek, SeekFrom, Write};

use ionian_control_client::identity::Identity;
use ionian_control_client::proto::raft as proto;
use openraft::storage::{RaftLogStorage, RaftLogStorageExt, RaftStateMachine};
use openraft::testing::{StoreBuilder, Suite};
use openraft::{
    CommittedLeaderId, Entry, EntryPayload, RaftLogReader, RaftSnapshotBuilder, StorageError, Vote,
};
use tempfile::TempDir;

use super::*;
use crate::machine::Call;

/// The sum of one-byte commands.
#[derive(Debug, Default)]
struct Sum(u64);

impl StateMachine for Sum {
    fn apply(&mut self, command: &[u8]) -> Vec<u8> {
        self.0 += command.iter().map(|b| u64::from(*b)).sum::<u64>();
        self.snapshot()
    }

    fn snapshot(&self) -> Vec<u8> {
        self.0.to_le_bytes().to_vec()
    }

    fn restore(&mut self, bytes: &[u8]) -> Result<(), String> {
        let bytes = bytes.try_into().map_err(|_| "not eight bytes".to_owned())?;
        self.0 = u64::from_le_bytes(bytes);
        Ok(())
    }

    fn permits(&self, _: &Identity, _: Call) -> Result<(), String> {
        Ok(())
    }
}

fn config(folder: &TempDir) -> StoreConfig {
    StoreConfig {
        folder: folder.path().join("one"),
        cluster: "sea".into(),
        id: 1,
        log_bytes_max: 1 << 30,
        snapshot_bytes_max: 1 << 20,
    }
}

fn id(index: u64) -> LogId {
    LogId::new(CommittedLeaderId::new(1, 1), index)
}

fn command(index: u64, lead: u64, version: u64, value: u8) -> Entry<Types> {
    let commands = proto::Commands {
        lead,
        version,
        commands: vec![vec![value]],
    };
    Entry {
        log_id: id(index),
        payload: EntryPayload::Normal(proto::Proposal {
            kind: Some(proto::proposal::Kind::Commands(commands)),
        }),
    }
}

fn lead(index: u64) -> Entry<Types> {
    Entry {
        log_id: id(index),
        payload: EntryPayload::Normal(proto::Proposal {
            kind: Some(proto::proposal::Kind::Lead(proto::Lead::default())),
        }),
    }
}

fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(work)
}

/// A store with a lead at entry 1, commands 2..=9 applied, a snapshot after 5 and one after 9, and the log cut up to 3.
async fn lived(config: &StoreConfig) {
    let mut store = open(config, Sum::default()).unwrap();
    store
        .log
        .save_vote(&Vote::new_committed(1, 1))
        .await
        .unwrap();
    let mut entries = vec![lead(1)];
    entries.extend((2..=9).map(|i| command(i, 1, i - 2, 1)));
    store.log.blocking_append(entries.clone()).await.unwrap();
    store.log.save_committed(Some(id(9))).await.unwrap();
    let later = entries.split_off(5);
    store.machine.apply(entries).await.unwrap();
    store.machine.build_snapshot().await.unwrap();
    store.machine.apply(later).await.unwrap();
    store.machine.build_snapshot().await.unwrap();
    store.log.purge(id(3)).await.unwrap();
    assert_eq!(lock(&store.replicated).machine.0, 8);
}

fn refused(config: &StoreConfig) -> String {
    open(config, Sum::default())
        .map(|_| ())
        .expect_err("refused")
        .to_string()
}

struct Builder;

impl StoreBuilder<Types, LogStore, StateStore<Sum>, TempDir> for Builder {
    async fn build(&self) -> Result<(TempDir, LogStore, StateStore<Sum>), StorageError<u64>> {
        let folder = tempfile::tempdir().unwrap();
        let store = open(&config(&folder), Sum::default()).unwrap();
        // The suite cuts logs that no snapshot covers.
        let log = LogStore::new(store.db, store.fault, None);
        Ok((folder, log, store.machine))
    }
}

#[test]
fn the_suite_of_raft_passes() {
    Suite::test_all(Builder).unwrap();
}

#[test]
fn what_is_written_is_there_after_a_start() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(&folder);
    run(async {
        lived(&config).await;
        let mut store = open(&config, Sum::default()).unwrap();
        assert_eq!(store.warnings, Vec::<String>::new());
        assert_eq!(
            store.log.read_vote().await.unwrap(),
            Some(Vote::new_committed(1, 1))
        );
        let state = store.log.get_log_state().await.unwrap();
        assert_eq!(state.last_purged_log_id, Some(id(3)));
        assert_eq!(state.last_log_id, Some(id(9)));
        assert_eq!(store.log.try_get_log_entries(..).await.unwrap().len(), 6);
        let replicated = lock(&store.replicated);
        assert_eq!(
            (replicated.machine.0, replicated.version, replicated.lead),
            (8, 8, 1)
        );
        assert_eq!(store.db.life().0, 2);
    });
}

#[test]
fn only_commands_that_follow_and_are_of_this_lead_are_applied() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = open(&config(&folder), Sum::default()).unwrap();
    run(async {
        let outcomes = store
            .machine
            .apply(vec![
                command(1, 0, 0, 1),
                lead(2),
                command(3, 0, 1, 1),
                command(4, 2, 0, 1),
                command(5, 2, 1, 1),
                command(6, 2, 1, 1),
                command(7, 2, 3, 1),
            ])
            .await
            .unwrap();
        let expected = vec![
            Outcome::Applied { version: 1 },
            Outcome::Led {
                lead: 2,
                version: 1,
            },
            Outcome::Refused { version: 1 },
            Outcome::Refused { version: 1 },
            Outcome::Applied { version: 2 },
            Outcome::Refused { version: 2 },
            Outcome::Refused { version: 2 },
        ];
        assert_eq!(outcomes, expected);
        assert_eq!(lock(&store.replicated).machine.0, 2);
    });
}

#[test]
fn a_damaged_newest_snapshot_gives_way_to_the_one_before() {
    for cut in [true, false] {
        let folder = tempfile::tempdir().unwrap();
        let config = config(&folder);
        run(async {
            lived(&config).await;
            let list = snapshot::list(&config.folder).unwrap();
            assert_eq!(list.iter().map(|n| n.index).collect::<Vec<_>>(), [9, 5]);
            damage(&list[0].path, cut);
            let store = open(&config, Sum::default()).unwrap();
            assert_eq!(store.warnings.len(), 1, "{:?}", store.warnings);
            let expected = if cut { "is cut" } else { "wrong checksum" };
            assert!(store.warnings[0].contains(expected), "{:?}", store.warnings);
            assert_eq!(lock(&store.replicated).version, 4);
            drop(store);

            // The damaged one does not count as one of the two.
            let mut store = open(&config, Sum::default()).unwrap();
            store.machine.apply(vec![lead(6), lead(7)]).await.unwrap();
            store.machine.build_snapshot().await.unwrap();
            drop(store);
            let list = snapshot::list(&config.folder).unwrap();
            let indexes: Vec<u64> = list.iter().map(|n| n.index).collect();
            assert_eq!(indexes, [9, 7, 5]);
            fs::remove_file(&list[1].path).unwrap();
            let list = [list[0].clone(), list[2].clone()];

            // Without the other one, the log does not reach back far enough.
            damage(&list[1].path, cut);
            let said = refused(&config);
            assert!(
                said.contains("no snapshot")
                    && said.contains(expected)
                    && said.contains("new number"),
                "{said}"
            );
        });
    }
}

fn damage(path: &Path, cut: bool) {
    let mut file = fs::OpenOptions::new().write(true).open(path).unwrap();
    let len = file.metadata().unwrap().len();
    if cut {
        file.set_len(len - 3).unwrap();
    } else {
        file.seek(SeekFrom::Start(len - 3)).unwrap();
        file.write_all(&[0xa5]).unwrap();
    }
}

#[test]
fn a_log_that_is_gone_or_cut_or_damaged_is_refused() {
    type Harm = fn(&Path);
    let harms: [(&str, Harm); 4] = [
        ("the file is gone", |p| fs::remove_file(p).unwrap()),
        ("the file is empty", |p| fs::write(p, b"").unwrap()),
        ("cannot be used", |p| {
            let file = fs::OpenOptions::new().write(true).open(p).unwrap();
            let len = file.metadata().unwrap().len();
            file.set_len(len / 2).unwrap();
        }),
        ("cannot be used", |p| {
            fs::write(p, vec![7_u8; 1 << 16]).unwrap()
        }),
    ];
    for (expected, harm) in harms {
        let folder = tempfile::tempdir().unwrap();
        let config = config(&folder);
        run(lived(&config));
        harm(&config.folder.join("raft.redb"));
        let said = refused(&config);
        assert!(
            said.contains(expected) && said.contains("must not vote again"),
            "{said}"
        );
    }
}

type Change<'a> = &'a dyn Fn(&mut redb::Table<'_, u64, &[u8]>);

#[test]
fn a_value_of_ours_that_is_damaged_or_misplaced_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(&folder);
    run(lived(&config));
    let path = config.folder.join("raft.redb");
    let entries: redb::TableDefinition<'_, u64, &[u8]> = redb::TableDefinition::new("entries");
    let change = |change: Change<'_>| {
        let database = redb::Database::create(&path).unwrap();
        let write = database.begin_write().unwrap();
        change(&mut write.open_table(entries).unwrap());
        write.commit().unwrap();
    };
    let mut good = Vec::new();
    {
        let database = redb::Database::create(&path).unwrap();
        let read = redb::ReadableDatabase::begin_read(&database).unwrap();
        let table = read.open_table(entries).unwrap();
        good.extend_from_slice(table.get(7).unwrap().unwrap().value());
    }
    let mut bad = good.clone();
    *bad.last_mut().unwrap() ^= 1;
    change(&|t| drop(t.insert(7, bad.as_slice()).unwrap()));
    assert!(refused(&config).contains("entry 7 has a wrong checksum"));
    change(&|t| drop(t.insert(7, &good[..3]).unwrap()));
    assert!(refused(&config).contains("entry 7 is cut after 3 bytes"));
    change(&|t| drop(t.remove(7).unwrap()));
    assert!(refused(&config).contains("entry 8 follows where 7 should"));
    change(&|t| drop(t.insert(7, good.as_slice()).unwrap()));
    assert!(open(&config, Sum::default()).is_ok());
    change(&|t| drop(t.insert(10, good.as_slice()).unwrap()));
    assert!(refused(&config).contains("entry 10 has a wrong checksum"));
}

#[test]
fn a_full_disk_is_said_and_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let config = StoreConfig {
        log_bytes_max: 4 << 20,
        ..config(&folder)
    };
    let kept = run(async {
        let mut store = open(&config, Sum::default()).unwrap();
        store
            .log
            .save_vote(&Vote::new_committed(1, 1))
            .await
            .unwrap();
        let big = |i: u64| Entry {
            log_id: id(i),
            payload: EntryPayload::Normal(proto::Proposal {
                kind: Some(proto::proposal::Kind::Commands(proto::Commands {
                    lead: 0,
                    version: i,
                    commands: vec![vec![1; 100 << 10]],
                })),
            }),
        };
        let mut kept = 0;
        let error = loop {
            match store.log.blocking_append([big(kept)]).await {
                Ok(()) => kept += 1,
                Err(e) => break e,
            }
            assert!(kept < 100, "the limit is never reached");
        };
        let said = error.to_string();
        assert!(
            said.contains("no space is left to append to the log"),
            "{said}"
        );
        assert!(store.fault.get().is_some_and(|f| said.contains(f)));
        // Nothing more is taken after that: a half view is worse than none.
        assert!(store.log.blocking_append([big(kept)]).await.is_err());
        kept
    });
    // Opened with no room at all, it says so, and not that it is damaged.
    let none = StoreConfig {
        log_bytes_max: 1,
        folder: folder.path().join("other"),
        ..config.clone()
    };
    assert!(refused(&none).contains("no space is left to open the log"));
    let config = StoreConfig {
        log_bytes_max: 1 << 30,
        ..config
    };
    run(async {
        let mut store = open(&config, Sum::default()).unwrap();
        let entries = store.log.try_get_log_entries(..).await.unwrap();
        assert!(
            entries.len() as u64 >= kept && kept > 5,
            "{} of {kept}",
            entries.len()
        );
    });
}

#[test]
fn a_folder_belongs_to_one_controller_and_one_process() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(&folder);
    let store = open(&config, Sum::default()).unwrap();
    assert!(refused(&config).contains("in use by another process"));
    drop(store);
    let other = StoreConfig {
        id: 2,
        ..config.clone()
    };
    let said = refused(&other);
    assert!(
        said.contains("belongs to controller 1 of cluster sea, not to controller 2"),
        "{said}"
    );
    let other = StoreConfig {
        cluster: "lake".into(),
        ..config.clone()
    };
    assert!(refused(&other).contains("cluster lake"));
    fs::write(
        config.folder.join("identity"),
        "format = 9\ncluster = sea\ncontroller = 1\n",
    )
    .unwrap();
    assert!(refused(&config).contains("format 9"));
}

#[test]
fn the_log_is_not_cut_before_a_snapshot_covers_it() {
    let folder = tempfile::tempdir().unwrap();
    run(async {
        let mut store = open(&config(&folder), Sum::default()).unwrap();
        store
            .log
            .save_vote(&Vote::new_committed(1, 1))
            .await
            .unwrap();
        store
            .log
            .blocking_append([lead(1), command(2, 1, 0, 1)])
            .await
            .unwrap();
        store
            .machine
            .apply([lead(1), command(2, 1, 0, 1)])
            .await
            .unwrap();
        let mut log = store.log.clone();
        let mut cut = std::pin::pin!(log.purge(id(2)));
        // Polled first, it must wait although nothing else is under way.
        let waits =
            std::future::poll_fn(|cx| std::task::Poll::Ready(cut.as_mut().poll(cx).is_pending()));
        assert!(waits.await);
        store.machine.build_snapshot().await.unwrap();
        cut.await.unwrap();
        assert_eq!(
            store.log.get_log_state().await.unwrap().last_purged_log_id,
            Some(id(2))
        );
    });
}
