//! What a controller keeps on disk, and the two faces that Raft sees of it: the log with the vote, and the state machine with
//! its snapshots.
//!
//! One folder per controller:
//!
//! ```text
//! lock              held by the process that uses the folder
//! identity          cluster and number; a folder with it and without a log has lost its log
//! raft.redb         vote, log, position of the commit, marks: every change is one flushed transaction
//! snapshot-T-L-I    the state after entry I (term T, leader L); the newest two that are sound are kept
//! ```
//!
//! # Fault model
//!
//! The process may stop at any step. The disk may be full, and may give back damaged or cut bytes; every value carries a
//! checksum of ours beside the database's own. What is found damaged is never used, and never silently replaced by something
//! older that others rely on: a damaged newest snapshot gives way to the one before if the log still has everything since,
//! else the controller refuses to start, because without the state that it has acknowledged it must not vote.
//! A folder that was put back from an old copy is found by the other controllers (by their numbers of starts), not here.

mod codec;
pub(crate) mod convert;
mod db;
mod log;
mod machine;
mod snapshot;
#[cfg(test)]
mod tests;

use std::io::{self, Cursor};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};

use openraft::{ErrorSubject, ErrorVerb, StorageError};

pub(crate) use codec::crc32c;
pub(crate) use convert::ConvertError;
pub(crate) use db::Db;
pub(crate) use log::LogStore;
pub(crate) use machine::{Applied, Outcome, Replicated, StateStore, lock};

use crate::machine::StateMachine;

openraft::declare_raft_types!(
    /// The types that Raft works on here.
    pub(crate) Types:
        D = ionian_control_client::proto::raft::Proposal,
        R = Outcome,
        Node = openraft::BasicNode,
        SnapshotData = Cursor<Vec<u8>>,
);

/// A log's position as Raft names it.
pub(crate) type LogId = openraft::LogId<u64>;

/// Why a controller's folder cannot be used. Effect: none; nothing on disk was changed but what is said.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The system refused a file.
    #[error("cannot {what} {}: {source}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Another process has the folder.
    #[error("{} is in use by another process: one controller per folder", path.display())]
    InUse {
        /// The folder.
        path: PathBuf,
    },
    /// The folder belongs to another controller.
    #[error("{} belongs to controller {id} of cluster {cluster}, not to controller {wanted_id} of cluster {wanted_cluster}: use its own folder", path.display())]
    Foreign {
        /// The folder.
        path: PathBuf,
        /// Whose it is.
        id: u64,
        /// Of which cluster.
        cluster: String,
        /// Who asked.
        wanted_id: u64,
        /// Of which cluster.
        wanted_cluster: String,
    },
    /// The folder was written by a newer version.
    #[error("{} has format {format}, this program knows up to {known}: use the newer program", path.display())]
    Format {
        /// The folder.
        path: PathBuf,
        /// The format found.
        format: u64,
        /// The newest that is known.
        known: u64,
    },
    /// There is no space to open the log. Nothing in it is lost.
    #[error("no space is left to open the log {}: {source}. Free space or raise the limit, then start the controller again; nothing that it has acknowledged is lost", path.display())]
    Full {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The log is gone, cut or damaged.
    #[error("the log {} cannot be used: {reason}. A controller without its log must not vote again: remove controller {id} from the group, delete its folder, and add a new controller under a new number", path.display())]
    DamagedLog {
        /// The file.
        path: PathBuf,
        /// The controller.
        id: u64,
        /// What is wrong.
        reason: String,
    },
    /// No snapshot can be used and the log does not reach back far enough.
    #[error("no snapshot in {} can be used ({reason}) and the log begins only after entry {purged}: the state is lost here. Remove controller {id} from the group, delete its folder, and add a new controller under a new number; it gets the state from the others", path.display())]
    NoSnapshot {
        /// The folder.
        path: PathBuf,
        /// The controller.
        id: u64,
        /// What is wrong with each.
        reason: String,
        /// The last entry that the log does not have any more.
        purged: u64,
    },
}

/// What a store is made with.
#[derive(Clone, Debug)]
pub(crate) struct StoreConfig {
    pub(crate) folder: PathBuf,
    pub(crate) cluster: String,
    pub(crate) id: u64,
    /// The log's file never grows beyond this many bytes.
    pub(crate) log_bytes_max: u64,
    /// The largest snapshot that is written or read, in bytes.
    pub(crate) snapshot_bytes_max: u64,
}

/// The first failure of the disk, for everybody who has to say why the controller has stopped.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fault(Arc<OnceLock<String>>);

impl Fault {
    pub(crate) fn get(&self) -> Option<&str> {
        self.0.get().map(String::as_str)
    }

    /// Keeps the sentence and makes the error that ends Raft.
    fn fail(
        &self,
        subject: ErrorSubject<u64>,
        verb: ErrorVerb,
        sentence: String,
    ) -> StorageError<u64> {
        let error = io::Error::other(sentence.clone());
        // Only the first failure is the cause; what follows are its consequences.
        let _ = self.0.set(sentence);
        StorageError::from_io_error(subject, verb, error)
    }
}

/// The parts of an opened store.
#[derive(Debug)]
pub(crate) struct Opened<S> {
    pub(crate) log: LogStore,
    pub(crate) machine: StateStore<S>,
    pub(crate) db: Arc<Db>,
    pub(crate) replicated: Arc<Mutex<Replicated<S>>>,
    pub(crate) fault: Fault,
    /// Sentences for the operator: what was found wrong and could be helped.
    pub(crate) warnings: Vec<String>,
}

/// Opens the folder, making it if it is missing, and checks everything in it.
///
/// # Errors
/// [`StoreError`] says what cannot be used and what to do.
pub(crate) fn open<S: StateMachine>(
    config: &StoreConfig,
    fresh: S,
) -> Result<Opened<S>, StoreError> {
    let db = Arc::new(Db::open(config)?);
    let fault = Fault::default();
    let (replicated, newest, durable, warnings) = machine::load(config, &db, fresh)?;
    let replicated = Arc::new(Mutex::new(replicated));
    let (durable_tx, durable_rx) = tokio::sync::watch::channel(durable);
    let log = LogStore::new(db.clone(), fault.clone(), Some(durable_rx));
    let machine = StateStore::new(
        config,
        replicated.clone(),
        fault.clone(),
        newest,
        durable_tx,
    );
    Ok(Opened {
        log,
        machine,
        db,
        replicated,
        fault,
        warnings,
    })
}

/// Runs what may wait for the disk where it delays nobody else.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

/// Makes names of files in `folder` durable.
fn sync_folder(folder: &Path) -> io::Result<()> {
    std::fs::File::open(folder)?.sync_all()
}
