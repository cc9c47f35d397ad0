//! The replicated state and its snapshots as Raft wants them.
//!
//! The state lives in memory. After a start it is the newest usable snapshot; Raft then applies the committed entries after it again.

use std::collections::BTreeSet;
use std::io::Cursor;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ionian_control_client::proto::raft as proto;
use openraft::storage::RaftStateMachine;
use openraft::{
    BasicNode, Entry, EntryPayload, ErrorSubject, ErrorVerb, OptionalSend, RaftSnapshotBuilder,
    Snapshot, StorageError, StoredMembership,
};
use prost::Message;
use tokio::sync::{broadcast, watch};

use super::db::{Db, PURGED};
use super::log::Durable;
use super::snapshot::{self, Meta};
use super::{Fault, LogId, StoreConfig, StoreError, Types, blocking};
use crate::machine::StateMachine;

/// How many events a watcher may be behind before it is cut off.
const EVENTS_KEPT: usize = 1024;

/// What became of an entry when it was applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It held nothing for the state.
    Nothing,
    /// A brain begins: entries that name another lead are void from here on.
    Led {
        /// The entry's index, which names the lead.
        lead: u64,
        /// The version from which the brain goes on.
        version: u64,
    },
    /// All of its commands are applied.
    Applied {
        /// The version after them.
        version: u64,
    },
    /// None of its commands is applied: they are of an earlier lead, or do not follow.
    Refused {
        /// The version that stays.
        version: u64,
    },
}

/// One applied command, for watchers. An empty event means that the state was replaced: look again.
#[derive(Clone, Debug)]
pub(crate) struct Applied {
    pub(crate) version: u64,
    pub(crate) event: Arc<[u8]>,
}

/// The state with what Raft and the leads need beside it.
#[derive(Debug)]
pub(crate) struct Replicated<S> {
    pub(crate) machine: S,
    /// The number of commands applied.
    pub(crate) version: u64,
    /// The entry of the lead whose commands are taken.
    pub(crate) lead: u64,
    /// Numbers of controllers that were members once: they are not used again.
    pub(crate) retired: BTreeSet<u64>,
    pub(crate) last: Option<LogId>,
    pub(crate) membership: StoredMembership<u64, BasicNode>,
}

impl<S: StateMachine> Replicated<S> {
    fn fresh(machine: S) -> Self {
        Self {
            machine,
            version: 0,
            lead: 0,
            retired: BTreeSet::new(),
            last: None,
            membership: StoredMembership::default(),
        }
    }

    fn encode(&self) -> Vec<u8> {
        proto::SnapshotState {
            version: self.version,
            lead: self.lead,
            state: self.machine.snapshot(),
            retired: self.retired.iter().copied().collect(),
        }
        .encode_to_vec()
    }

    fn restore(&mut self, meta: &Meta, data: &[u8]) -> Result<(), String> {
        let state = proto::SnapshotState::decode(data).map_err(|e| e.to_string())?;
        self.machine.restore(&state.state)?;
        self.version = state.version;
        self.lead = state.lead;
        self.retired = state.retired.into_iter().collect();
        self.last = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        Ok(())
    }

    fn apply(&mut self, entry: Entry<Types>, mut tell: impl FnMut(Applied)) -> Outcome {
        use proto::proposal::Kind;
        let index = entry.log_id.index;
        self.last = Some(entry.log_id);
        match entry.payload {
            EntryPayload::Blank => Outcome::Nothing,
            EntryPayload::Membership(new) => {
                let stays: BTreeSet<u64> = new.nodes().map(|(id, _)| *id).collect();
                let gone = self.membership.nodes().map(|(id, _)| *id);
                self.retired.extend(gone.filter(|id| !stays.contains(id)));
                self.membership = StoredMembership::new(Some(entry.log_id), new);
                Outcome::Nothing
            }
            EntryPayload::Normal(proposal) => match proposal.kind {
                None => Outcome::Nothing,
                Some(Kind::Lead(_)) => {
                    self.lead = index;
                    Outcome::Led {
                        lead: index,
                        version: self.version,
                    }
                }
                Some(Kind::Commands(run)) => {
                    if run.lead != self.lead || run.version != self.version {
                        return Outcome::Refused {
                            version: self.version,
                        };
                    }
                    for command in &run.commands {
                        let event = self.machine.apply(command);
                        self.version += 1;
                        tell(Applied {
                            version: self.version,
                            event: event.into(),
                        });
                    }
                    Outcome::Applied {
                        version: self.version,
                    }
                }
            },
        }
    }
}

/// A snapshot that is on disk, kept for followers that need it.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    meta: Meta,
    data: Arc<Vec<u8>>,
}

impl Kept {
    fn snapshot(&self) -> Snapshot<Types> {
        Snapshot {
            meta: self.meta.clone(),
            snapshot: Box::new(Cursor::new(self.data.to_vec())),
        }
    }
}

/// The state machine of one controller. Clones share it.
pub(crate) struct StateStore<S> {
    folder: PathBuf,
    id: u64,
    bytes_max: u64,
    replicated: Arc<Mutex<Replicated<S>>>,
    newest: Arc<Mutex<Option<Kept>>>,
    durable: Arc<Mutex<Option<watch::Sender<Durable>>>>,
    applied: broadcast::Sender<Applied>,
    fault: Fault,
}

impl<S> std::fmt::Debug for StateStore<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StateStore")
            .field("folder", &self.folder)
            .finish_non_exhaustive()
    }
}

impl<S> Clone for StateStore<S> {
    fn clone(&self) -> Self {
        Self {
            folder: self.folder.clone(),
            id: self.id,
            bytes_max: self.bytes_max,
            replicated: self.replicated.clone(),
            newest: self.newest.clone(),
            durable: self.durable.clone(),
            applied: self.applied.clone(),
            fault: self.fault.clone(),
        }
    }
}

/// Locks what no holder leaves half done: a panic of a holder has ended the controller anyway.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The state of the newest usable snapshot, that snapshot, how far it reaches, and what was wrong with newer ones.
#[allow(clippy::type_complexity)]
pub(super) fn load<S: StateMachine>(
    config: &StoreConfig,
    db: &Db,
    fresh: S,
) -> Result<(Replicated<S>, Option<Kept>, Durable, Vec<String>), StoreError> {
    let folder = &config.folder;
    let purged: Option<proto::LogId> =
        db.mark(PURGED).map_err(|reason| StoreError::DamagedLog {
            path: db.path().to_owned(),
            id: config.id,
            reason,
        })?;
    let purged = purged.map(|p| p.index);
    let list = snapshot::list(folder).map_err(|source| StoreError::Io {
        what: "read",
        path: folder.clone(),
        source,
    })?;
    let mut replicated = Replicated::fresh(fresh);
    let mut wrong = Vec::new();
    for named in list {
        let file = named.path.display().to_string();
        // The log must have every entry after it.
        if purged.is_some_and(|purged| named.index < purged) {
            wrong.push(format!("{file} is older than the log"));
            continue;
        }
        let (meta, data) = match snapshot::read(&named, config.snapshot_bytes_max) {
            Ok(read) => read,
            Err(reason) => {
                wrong.push(format!("{file} {reason}"));
                continue;
            }
        };
        match replicated.restore(&meta, &data) {
            Ok(()) => {
                let durable = meta.last_log_id.map(|id| id.index);
                let kept = Kept {
                    meta,
                    data: Arc::new(data),
                };
                let warnings = wrong
                    .iter()
                    .map(|w| format!("{w}; the state is that of {file} and of the log since"))
                    .collect();
                return Ok((replicated, Some(kept), durable, warnings));
            }
            Err(reason) => wrong.push(format!("{file} cannot be used: {reason}")),
        }
    }
    match purged {
        None => {
            let warnings = wrong
                .iter()
                .map(|w| format!("{w}; the state is that of the log from its beginning"))
                .collect();
            Ok((replicated, None, None, warnings))
        }
        Some(purged) => Err(StoreError::NoSnapshot {
            path: folder.clone(),
            id: config.id,
            reason: match wrong.is_empty() {
                true => "there is none".to_owned(),
                false => wrong.join("; "),
            },
            purged,
        }),
    }
}

impl<S: StateMachine> StateStore<S> {
    pub(super) fn new(
        config: &StoreConfig,
        replicated: Arc<Mutex<Replicated<S>>>,
        fault: Fault,
        newest: Option<Kept>,
        durable: watch::Sender<Durable>,
    ) -> Self {
        Self {
            folder: config.folder.clone(),
            id: config.id,
            bytes_max: config.snapshot_bytes_max,
            replicated,
            newest: Arc::new(Mutex::new(newest)),
            durable: Arc::new(Mutex::new(Some(durable))),
            applied: broadcast::channel(EVENTS_KEPT).0,
            fault,
        }
    }

    /// What is applied from now on.
    pub(crate) fn watch(&self) -> broadcast::Receiver<Applied> {
        self.applied.subscribe()
    }

    fn failed(&self, meta: &Meta, verb: ErrorVerb, reason: &str) -> StorageError<u64> {
        // A cut of the log that waits for a snapshot must not wait for ever.
        lock(&self.durable).take();
        let folder = self.folder.display();
        let sentence = format!(
            "controller {} cannot keep a snapshot in {folder}: {reason}",
            self.id
        );
        let subject = ErrorSubject::Snapshot(Some(meta.signature()));
        self.fault.fail(subject, verb, sentence)
    }

    /// Writes a snapshot and says so. A newer one that was kept meanwhile stays.
    async fn keep(&self, kept: Kept) -> Result<(), StorageError<u64>> {
        if kept.data.len() as u64 > self.bytes_max {
            let reason = format!(
                "it has {} bytes, more than the limit of {}",
                kept.data.len(),
                self.bytes_max
            );
            return Err(self.failed(&kept.meta, ErrorVerb::Write, &reason));
        }
        let (folder, writing) = (self.folder.clone(), kept.clone());
        let max = self.bytes_max;
        blocking(move || snapshot::write(&folder, &writing.meta, &writing.data, max))
            .await
            .map_err(|e| self.failed(&kept.meta, ErrorVerb::Write, &e.to_string()))?;
        let index = kept.meta.last_log_id.map(|id| id.index);
        let mut newest = lock(&self.newest);
        let newer = newest
            .as_ref()
            .is_some_and(|n| n.meta.last_log_id > kept.meta.last_log_id);
        if !newer {
            *newest = Some(kept);
        }
        drop(newest);
        if let Some(durable) = lock(&self.durable).as_ref() {
            durable.send_modify(|d| *d = (*d).max(index));
        }
        Ok(())
    }
}

impl<S: StateMachine> RaftSnapshotBuilder<Types> for StateStore<S> {
    async fn build_snapshot(&mut self) -> Result<Snapshot<Types>, StorageError<u64>> {
        let kept = {
            let replicated = lock(&self.replicated);
            let at = replicated.last.unwrap_or_default();
            let (term, leader, index) = (at.leader_id.term, at.leader_id.node_id, at.index);
            Kept {
                meta: Meta {
                    last_log_id: replicated.last,
                    last_membership: replicated.membership.clone(),
                    snapshot_id: format!("{term}-{leader}-{index}-by-{}", self.id),
                },
                data: Arc::new(replicated.encode()),
            }
        };
        self.keep(kept.clone()).await?;
        Ok(kept.snapshot())
    }
}

impl<S: StateMachine> RaftStateMachine<Types> for StateStore<S> {
    type SnapshotBuilder = Self;

    async fn applied_state(
        &mut self,
    ) -> Result<(Option<LogId>, StoredMembership<u64, BasicNode>), StorageError<u64>> {
        let replicated = lock(&self.replicated);
        Ok((replicated.last, replicated.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<Outcome>, StorageError<u64>>
    where
        I: IntoIterator<Item = Entry<Types>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut replicated = lock(&self.replicated);
        // Nobody may be watching.
        let tell = |applied| drop(self.applied.send(applied));
        Ok(entries
            .into_iter()
            .map(|entry| replicated.apply(entry, tell))
            .collect())
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn begin_receiving_snapshot(
        &mut self,
    ) -> Result<Box<Cursor<Vec<u8>>>, StorageError<u64>> {
        Ok(Box::default())
    }

    async fn install_snapshot(
        &mut self,
        meta: &Meta,
        snapshot: Box<Cursor<Vec<u8>>>,
    ) -> Result<(), StorageError<u64>> {
        let kept = Kept {
            meta: meta.clone(),
            data: Arc::new(snapshot.into_inner()),
        };
        let version = {
            let mut replicated = lock(&self.replicated);
            replicated
                .restore(meta, &kept.data)
                .map_err(|e| self.failed(meta, ErrorVerb::Read, &e))?;
            replicated.version
        };
        self.keep(kept).await?;
        let _ = self.applied.send(Applied {
            version,
            event: Arc::from([]),
        });
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<Types>>, StorageError<u64>> {
        Ok(lock(&self.newest).as_ref().map(Kept::snapshot))
    }
}
