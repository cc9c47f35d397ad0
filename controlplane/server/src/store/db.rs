//! The database file: one redb table of entries, one of marks, and the checks at the start.
//!
//! Every write here is one transaction that is flushed before it returns, but for the position of the commit, which may be
//! forgotten: the leader says it again.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use ionian_control_client::proto::raft as proto;
use redb::backends::FileBackend;
use redb::{
    Database, Durability, ReadableDatabase, ReadableTable, StorageBackend, TableDefinition,
};

use super::codec::{seal, unseal};
use super::{StoreConfig, StoreError, sync_folder};

const ENTRIES: TableDefinition<'static, u64, &[u8]> = TableDefinition::new("entries");
const MARKS: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("marks");

/// The format of the folder. A folder of a newer one is refused.
const FORMAT: u64 = 1;
/// The database's cache, in bytes: the log's tail is what is read.
const CACHE_BYTES: usize = 4 << 20;

/// Names of the marks.
pub(super) const VOTE: &str = "vote";
pub(super) const COMMITTED: &str = "committed";
pub(super) const PURGED: &str = "purged";
const OWNER: &str = "owner";
const LIVES: &str = "lives";

/// The opened database of one controller.
#[derive(Debug)]
pub(crate) struct Db {
    database: Database,
    path: PathBuf,
    id: u64,
    /// How often this controller has started, this start included.
    starts: u64,
    /// Random, of this start.
    run: u64,
    /// Held as long as the folder is used.
    _lock: File,
}

impl Db {
    /// Opens or makes the database of `config`, counts this start, and checks every value in it.
    pub(super) fn open(config: &StoreConfig) -> Result<Self, StoreError> {
        let folder = &config.folder;
        let io = |what, path: &Path| {
            let path = path.to_owned();
            move |source| StoreError::Io { what, path, source }
        };
        fs::create_dir_all(folder).map_err(io("make", folder))?;
        let lock = lock(folder)?;
        let path = folder.join("raft.redb");
        let identity = folder.join("identity");
        let damaged = |reason: String| StoreError::DamagedLog {
            path: path.clone(),
            id: config.id,
            reason,
        };
        check_identity(config, &identity)?;
        let fresh = !path.exists();
        if fresh && identity.exists() {
            return Err(damaged("the file is gone".to_owned()));
        }
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(io("open", &path))?;
        // An empty file beside an identity is a log that was cut to nothing; redb would begin a new one in it.
        let cut = file.metadata().map_err(io("open", &path))?.len() == 0;
        if cut && identity.exists() {
            return Err(damaged("the file is empty".to_owned()));
        }
        let backend = Bounded {
            file: FileBackend::new(file).map_err(|e| damaged(e.to_string()))?,
            bytes_max: config.log_bytes_max,
        };
        let database = Database::builder()
            .set_cache_size(CACHE_BYTES)
            .set_check_integrity_on_open(true)
            .create_with_backend(backend)
            .map_err(|e| unusable(config, &path, e.into()))?;
        let mut run = [0_u8; 8];
        getrandom::fill(&mut run).expect("the system gives random bytes");
        let mut db = Self {
            database,
            path: path.clone(),
            id: config.id,
            starts: 0,
            run: u64::from_le_bytes(run),
            _lock: lock,
        };
        let before: Option<proto::Life> = db.mark(OWNER).map_err(&damaged)?;
        if let Some(life) = &before
            && life.id != config.id
        {
            return Err(damaged(format!("it belongs to controller {}", life.id)));
        }
        db.starts = db
            .count_start(config, before)
            .map_err(|e| unusable(config, &path, e))?;
        db.check().map_err(damaged)?;
        if !identity.exists() {
            let text = identity_text(config);
            write_flushed(&identity, text.as_bytes()).map_err(io("write", &identity))?;
            sync_folder(folder).map_err(io("flush", folder))?;
        }
        Ok(db)
    }

    /// How often this controller has started, and the random number of this start.
    pub(crate) fn life(&self) -> (u64, u64) {
        (self.starts, self.run)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    fn count_start(
        &self,
        config: &StoreConfig,
        before: Option<proto::Life>,
    ) -> Result<u64, redb::Error> {
        let starts = before.map_or(0, |l| l.starts).saturating_add(1);
        let life = proto::Life {
            id: config.id,
            starts,
            run: self.run,
        };
        self.put_mark(OWNER, &life, Durability::Immediate)?;
        Ok(starts)
    }

    /// Reads every value once: damage is found at the start and not when it is needed.
    fn check(&self) -> Result<(), String> {
        let ballot: Option<proto::Ballot> = self.mark(VOTE)?;
        let _: Option<proto::LogId> = self.mark(COMMITTED)?;
        let purged: Option<proto::LogId> = self.mark(PURGED)?;
        let _: Option<proto::Lives> = self.mark(LIVES)?;
        let mut next = purged.as_ref().map(|p| p.index + 1);
        let mut last = purged.map(|p| p.term);
        self.each_entry(0..=u64::MAX, |entry| {
            let id = entry.log_id.unwrap_or_default();
            if next.is_some_and(|next| next != id.index) {
                return Err(format!(
                    "entry {} follows where {} should",
                    id.index,
                    next.unwrap_or_default()
                ));
            }
            if last.is_some_and(|term| term > id.term) {
                return Err(format!(
                    "entry {} has an older term than the one before",
                    id.index
                ));
            }
            next = Some(id.index + 1);
            last = Some(id.term);
            Ok(true)
        })?;
        if last.is_some_and(|term| ballot.is_none_or(|b| b.term < term)) {
            return Err("the vote is older than the entries".to_owned());
        }
        Ok(())
    }

    /// Calls `take` with the entries in `range` until it says false or an error.
    pub(super) fn each_entry(
        &self,
        range: impl std::ops::RangeBounds<u64>,
        mut take: impl FnMut(proto::Entry) -> Result<bool, String>,
    ) -> Result<(), String> {
        let text = |e: redb::Error| e.to_string();
        let read = self.database.begin_read().map_err(|e| text(e.into()))?;
        let table = match read.open_table(ENTRIES) {
            Ok(table) => table,
            Err(redb::TableError::TableDoesNotExist(_)) => return Ok(()),
            Err(e) => return Err(text(e.into())),
        };
        for row in table.range(range).map_err(|e| text(e.into()))? {
            let (key, value) = row.map_err(|e| text(e.into()))?;
            let index = key.value();
            let entry: proto::Entry = unseal(&index.to_le_bytes(), value.value())
                .map_err(|e| format!("entry {index} {e}"))?;
            if entry.log_id.as_ref().map(|id| id.index) != Some(index) {
                return Err(format!("entry {index} stands in another's place"));
            }
            if !take(entry)? {
                break;
            }
        }
        Ok(())
    }

    /// The position of the last entry, if there is any.
    pub(super) fn last_entry(&self) -> Result<Option<proto::LogId>, String> {
        let text = |e: redb::Error| e.to_string();
        let read = self.database.begin_read().map_err(|e| text(e.into()))?;
        let table = match read.open_table(ENTRIES) {
            Ok(table) => table,
            Err(redb::TableError::TableDoesNotExist(_)) => return Ok(None),
            Err(e) => return Err(text(e.into())),
        };
        let Some((key, value)) = table.last().map_err(|e| text(e.into()))? else {
            return Ok(None);
        };
        let index = key.value();
        let entry: proto::Entry = unseal(&index.to_le_bytes(), value.value())
            .map_err(|e| format!("entry {index} {e}"))?;
        Ok(entry.log_id)
    }

    /// Adds entries and flushes them.
    pub(super) fn append(&self, entries: &[proto::Entry]) -> Result<(), redb::Error> {
        let write = self.database.begin_write()?;
        {
            let mut table = write.open_table(ENTRIES)?;
            for entry in entries {
                let index = entry.log_id.as_ref().map_or(0, |id| id.index);
                table.insert(index, seal(&index.to_le_bytes(), entry).as_slice())?;
            }
        }
        write.commit()?;
        Ok(())
    }

    /// Deletes the entries from `since` on.
    pub(super) fn truncate(&self, since: u64) -> Result<(), redb::Error> {
        let write = self.database.begin_write()?;
        {
            let mut table = write.open_table(ENTRIES)?;
            table.retain_in(since.., |_, _| false)?;
        }
        write.commit()?;
        Ok(())
    }

    /// Deletes the entries up to `upto` and notes it, in one step.
    pub(super) fn purge(&self, upto: &proto::LogId) -> Result<(), redb::Error> {
        let write = self.database.begin_write()?;
        {
            let mut table = write.open_table(ENTRIES)?;
            table.retain_in(..=upto.index, |_, _| false)?;
            let mut marks = write.open_table(MARKS)?;
            marks.insert(PURGED, seal(PURGED.as_bytes(), upto).as_slice())?;
        }
        write.commit()?;
        Ok(())
    }

    pub(super) fn mark<M: prost::Message + Default>(
        &self,
        name: &str,
    ) -> Result<Option<M>, String> {
        let text = |e: redb::Error| e.to_string();
        let read = self.database.begin_read().map_err(|e| text(e.into()))?;
        let table = match read.open_table(MARKS) {
            Ok(table) => table,
            Err(redb::TableError::TableDoesNotExist(_)) => return Ok(None),
            Err(e) => return Err(text(e.into())),
        };
        match table.get(name).map_err(|e| text(e.into()))? {
            None => Ok(None),
            Some(value) => unseal(name.as_bytes(), value.value())
                .map(Some)
                .map_err(|e| format!("the mark {name} {e}")),
        }
    }

    pub(super) fn put_mark(
        &self,
        name: &str,
        message: &impl prost::Message,
        durability: Durability,
    ) -> Result<(), redb::Error> {
        let mut write = self.database.begin_write()?;
        write.set_durability(durability)?;
        {
            let mut marks = write.open_table(MARKS)?;
            marks.insert(name, seal(name.as_bytes(), message).as_slice())?;
        }
        write.commit()?;
        Ok(())
    }

    /// The lives of other controllers that were heard of.
    pub(crate) fn lives(&self) -> Result<proto::Lives, String> {
        Ok(self.mark(LIVES)?.unwrap_or_default())
    }

    /// Notes them, flushed.
    pub(crate) fn put_lives(&self, lives: &proto::Lives) -> Result<(), String> {
        self.put_mark(LIVES, lives, Durability::Immediate)
            .map_err(|e| self.sentence("write", &e))
    }

    /// The sentence for an error of the database.
    pub(super) fn sentence(&self, what: &str, error: &redb::Error) -> String {
        let path = self.path.display();
        let id = self.id;
        if let redb::Error::Io(e) = error
            && is_full(e)
        {
            return format!(
                "no space is left to {what} the log {path} of controller {id} ({e}): free space or raise the limit, then start the controller again; nothing that it has acknowledged is lost"
            );
        }
        format!("cannot {what} the log {path} of controller {id}: {error}")
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}

/// Why a database cannot be opened: a full disk or one that fails is no damage, and calls for another remedy.
fn unusable(config: &StoreConfig, path: &Path, error: redb::Error) -> StoreError {
    let path = path.to_owned();
    match error {
        redb::Error::Io(source) if is_full(&source) => StoreError::Full { path, source },
        // A file that ends too early is one that was cut.
        redb::Error::Io(source)
            if !matches!(
                source.kind(),
                io::ErrorKind::UnexpectedEof
                    | io::ErrorKind::InvalidData
                    | io::ErrorKind::InvalidInput
            ) =>
        {
            StoreError::Io {
                what: "open",
                path,
                source,
            }
        }
        other => StoreError::DamagedLog {
            path,
            id: config.id,
            reason: other.to_string(),
        },
    }
}

/// A file that never grows beyond a limit: the same error then as on a full disk.
#[derive(Debug)]
struct Bounded {
    file: FileBackend,
    bytes_max: u64,
}

impl Bounded {
    fn check(&self, end: u64) -> io::Result<()> {
        if end <= self.bytes_max {
            return Ok(());
        }
        Err(io::Error::new(
            io::ErrorKind::StorageFull,
            format!("the limit of {} bytes is reached", self.bytes_max),
        ))
    }
}

impl StorageBackend for Bounded {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        // A file above a limit that was lowered may shrink.
        if len > self.file.len()? {
            self.check(len)?;
        }
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.file.close()
    }
}

fn lock(folder: &Path) -> Result<File, StoreError> {
    let path = folder.join("lock");
    let io = |source| StoreError::Io {
        what: "lock",
        path: path.clone(),
        source,
    };
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(io)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(StoreError::InUse {
            path: folder.to_owned(),
        }),
        Err(fs::TryLockError::Error(source)) => Err(io(source)),
    }
}

fn identity_text(config: &StoreConfig) -> String {
    format!(
        "format = {FORMAT}\ncluster = {}\ncontroller = {}\n",
        config.cluster, config.id
    )
}

/// The folder must be this controller's own, if it is anybody's.
fn check_identity(config: &StoreConfig, path: &Path) -> Result<(), StoreError> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => {
            return Err(StoreError::Io {
                what: "read",
                path: path.to_owned(),
                source,
            });
        }
    };
    let value = |name: &str| {
        text.lines()
            .filter_map(|l| l.split_once(" = "))
            .find_map(|(n, v)| (n == name).then(|| v.to_owned()))
            .unwrap_or_default()
    };
    let (format, cluster, id) = (value("format"), value("cluster"), value("controller"));
    let (Ok(format), Ok(id)) = (format.parse::<u64>(), id.parse::<u64>()) else {
        return Err(StoreError::DamagedLog {
            path: path.to_owned(),
            id: config.id,
            reason: "the folder's identity cannot be read".to_owned(),
        });
    };
    if format > FORMAT {
        return Err(StoreError::Format {
            path: config.folder.clone(),
            format,
            known: FORMAT,
        });
    }
    if cluster != config.cluster || id != config.id {
        return Err(StoreError::Foreign {
            path: config.folder.clone(),
            id,
            cluster,
            wanted_id: config.id,
            wanted_cluster: config.cluster.clone(),
        });
    }
    Ok(())
}

fn write_flushed(path: &Path, bytes: &[u8]) -> io::Result<()> {
    use io::Write;
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}
