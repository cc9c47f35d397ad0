//! The log and the vote as Raft wants them, over [`Db`].
//!
//! Raft gives the next append only when it has called this one, so appends are flushed one after the other; what waits
//! meanwhile comes together in the next proposal (see the leader). One order is enforced here and not by Raft: the log is cut
//! at its head only when a snapshot that covers the cut is on disk. Raft orders a cut right after it has *asked* for a
//! received snapshot to be installed; a power loss between the two would leave neither.
// Raft's own error type is large, and every method here must return it.
#![allow(clippy::result_large_err)]

use std::fmt::Debug;
use std::io;
use std::ops::RangeBounds;
use std::sync::Arc;

use ionian_control_client::proto::raft as proto;
use openraft::storage::{LogFlushed, RaftLogStorage};
use openraft::{
    Entry, ErrorSubject, ErrorVerb, LogState, OptionalSend, RaftLogReader, StorageError, Vote,
};
use prost::Message;
use redb::Durability;
use tokio::sync::watch;

use super::db::{COMMITTED, Db, PURGED, VOTE};
use super::{Fault, LogId, Types, blocking, convert};

/// Entries of one read for replication end at this many bytes, but there is always one.
pub(crate) const READ_BYTES_MAX: usize = 1 << 20;

/// How far snapshots on disk reach: the index of the last entry in the newest one.
pub(super) type Durable = Option<u64>;

/// The log of one controller. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct LogStore {
    db: Arc<Db>,
    fault: Fault,
    /// None in tests of the log alone, which have no snapshots.
    snapshots: Option<watch::Receiver<Durable>>,
}

impl LogStore {
    pub(super) fn new(
        db: Arc<Db>,
        fault: Fault,
        snapshots: Option<watch::Receiver<Durable>>,
    ) -> Self {
        Self {
            db,
            fault,
            snapshots,
        }
    }

    fn unreadable(&self, subject: ErrorSubject<u64>, reason: &str) -> StorageError<u64> {
        let path = self.db.path().display();
        let sentence = format!("the log {path} cannot be read: {reason}");
        self.fault.fail(subject, ErrorVerb::Read, sentence)
    }

    async fn write(
        &self,
        subject: ErrorSubject<u64>,
        what: &'static str,
        work: impl FnOnce(&Db) -> Result<(), redb::Error> + Send + 'static,
    ) -> Result<(), StorageError<u64>> {
        let db = self.db.clone();
        let result = blocking(move || work(&db)).await;
        result.map_err(|e| {
            let sentence = self.db.sentence(what, &e);
            self.fault.fail(subject, ErrorVerb::Write, sentence)
        })
    }

    fn read(
        &self,
        range: impl RangeBounds<u64>,
        bytes_max: usize,
    ) -> Result<Vec<Entry<Types>>, StorageError<u64>> {
        let mut entries = Vec::new();
        let mut bytes = 0_usize;
        self.db
            .each_entry(range, |entry| {
                bytes = bytes.saturating_add(entry.encoded_len());
                if bytes > bytes_max && !entries.is_empty() {
                    return Ok(false);
                }
                entries.push(convert::from_entry(entry).map_err(|e| e.to_string())?);
                Ok(true)
            })
            .map_err(|e| self.unreadable(ErrorSubject::Logs, &e))?;
        Ok(entries)
    }

    /// Waits until a snapshot on disk covers `index`.
    async fn covered(&self, index: u64) -> Result<(), StorageError<u64>> {
        let Some(mut snapshots) = self.snapshots.clone() else {
            return Ok(());
        };
        let covers = |durable: &Durable| durable.is_some_and(|d| d >= index);
        if snapshots.wait_for(covers).await.is_ok() {
            return Ok(());
        }
        let sentence = "the log is not cut: no snapshot covers it any more".to_owned();
        Err(self
            .fault
            .fail(ErrorSubject::Logs, ErrorVerb::Delete, sentence))
    }
}

impl RaftLogReader<Types> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry<Types>>, StorageError<u64>> {
        self.read(range, usize::MAX)
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<Entry<Types>>, StorageError<u64>> {
        self.read(start..end, READ_BYTES_MAX)
    }
}

impl RaftLogStorage<Types> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, StorageError<u64>> {
        let unreadable = |e: String| self.unreadable(ErrorSubject::Logs, &e);
        let purged: Option<proto::LogId> = self.db.mark(PURGED).map_err(unreadable)?;
        let last = self.db.last_entry().map_err(unreadable)?;
        let purged = purged.as_ref().map(convert::from_log_id);
        Ok(LogState {
            last_purged_log_id: purged,
            last_log_id: last.as_ref().map(convert::from_log_id).or(purged),
        })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote<u64>) -> Result<(), StorageError<u64>> {
        let ballot = convert::ballot(vote);
        self.write(ErrorSubject::Vote, "write the vote to", move |db| {
            db.put_mark(VOTE, &ballot, Durability::Immediate)
        })
        .await
    }

    async fn read_vote(&mut self) -> Result<Option<Vote<u64>>, StorageError<u64>> {
        let ballot: Option<proto::Ballot> = self
            .db
            .mark(VOTE)
            .map_err(|e| self.unreadable(ErrorSubject::Vote, &e))?;
        ballot
            .as_ref()
            .map(|b| convert::from_ballot(Some(b)))
            .transpose()
            .map_err(|e| self.unreadable(ErrorSubject::Vote, &e.to_string()))
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), StorageError<u64>> {
        let Some(committed) = committed.as_ref().map(convert::log_id) else {
            return Ok(());
        };
        self.write(ErrorSubject::Store, "note the commit in", move |db| {
            db.put_mark(COMMITTED, &committed, Durability::None)
        })
        .await
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, StorageError<u64>> {
        let unreadable = |e: String| self.unreadable(ErrorSubject::Store, &e);
        let committed: Option<proto::LogId> = self.db.mark(COMMITTED).map_err(unreadable)?;
        // A power loss may keep the note and lose entries that were cut off since; what is not here cannot be applied.
        let last = self.db.last_entry().map_err(unreadable)?;
        let here = |c: &proto::LogId| last.as_ref().is_some_and(|l| l.index >= c.index);
        Ok(committed.filter(here).as_ref().map(convert::from_log_id))
    }

    async fn append<I>(
        &mut self,
        entries: I,
        callback: LogFlushed<Types>,
    ) -> Result<(), StorageError<u64>>
    where
        I: IntoIterator<Item = Entry<Types>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<proto::Entry> = entries.into_iter().map(|e| convert::entry(&e)).collect();
        let written = self
            .write(ErrorSubject::Logs, "append to", move |db| {
                db.append(&entries)
            })
            .await;
        let told = match &written {
            Ok(()) => Ok(()),
            Err(e) => Err(io::Error::other(e.to_string())),
        };
        callback.log_io_completed(told);
        written
    }

    async fn truncate(&mut self, log_id: LogId) -> Result<(), StorageError<u64>> {
        self.write(ErrorSubject::Log(log_id), "cut", move |db| {
            db.truncate(log_id.index)
        })
        .await
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), StorageError<u64>> {
        self.covered(log_id.index).await?;
        let upto = convert::log_id(&log_id);
        self.write(ErrorSubject::Log(log_id), "cut the head of", move |db| {
            db.purge(&upto)
        })
        .await
    }
}
