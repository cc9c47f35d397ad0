//! `--history FILE`: the flags, and the rule for a file that exists.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use anyhow::Context;

use super::file::HistoryFile;
use super::{History, Kept};
use crate::exit::UsageError;

/// Whether and where a command keeps its history.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct HistoryArgs {
    /// Write every call, answer and delivery to this file, a line of JSON each, for `histcheck` to judge
    #[arg(long, value_name = "FILE")]
    history: Option<PathBuf>,
    /// Overwrite the history file if it exists
    #[arg(long, requires = "history")]
    force: bool,
}

impl HistoryArgs {
    /// Whether a history is asked for.
    pub(crate) const fn asked(&self) -> bool {
        self.history.is_some()
    }

    /// Begins the history that is asked for, of so many clients at most.
    ///
    /// # Errors
    /// [`UsageError`] when the file holds something already and is not to be overwritten, or when another process writes
    /// it; nothing is changed then.
    pub(crate) fn create(&self, clients: usize) -> anyhow::Result<Option<History>> {
        let Some(path) = self.history.as_deref() else {
            return Ok(None);
        };
        let file = open(path, self.force)?;
        let file = HistoryFile::new(path, file, clients);
        Ok(Some(History::new(Kept::File(Arc::new(Mutex::new(file))))?))
    }
}

/// A history is evidence: one that is there stays, unless told otherwise. What is no regular file, a pipe or a device,
/// holds nothing.
fn open(path: &Path, force: bool) -> anyhow::Result<File> {
    let context = || format!("cannot write the history {}", path.display());
    let mut options = OpenOptions::new();
    options.write(true);
    let (file, is_new) = match options.clone().create_new(true).open(path) {
        Ok(file) => (file, true),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            (options.open(path).with_context(context)?, false)
        }
        Err(error) => return Err(error).with_context(context),
    };
    let found = file.metadata().with_context(context)?;
    if !found.is_file() {
        return Ok(file);
    }
    let name = path.display();
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            return Err(UsageError(format!(
                "another process writes the history {name}: each process needs a file of its own, `histcheck` takes all of them"
            ))
            .into());
        }
        Err(TryLockError::Error(error)) => return Err(error).with_context(context),
    }
    if !is_new && found.len() > 0 {
        if !force {
            return Err(UsageError(format!(
                "the history {name} exists: name another file, or overwrite it with --force"
            ))
            .into());
        }
        file.set_len(0).with_context(context)?;
    }
    Ok(file)
}
