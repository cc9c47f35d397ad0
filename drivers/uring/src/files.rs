//! Numbered files of a directory: making them whole, opening, removing.
//!
//! A file is made under another name, given its space and made durable, and only then gets its own: a file that is there
//! has its full size. Leftovers of an interrupted creation are removed at start.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::Arc;

use ionian_driver_api::dma::RawBytes;
use ionian_driver_api::{BlockError, FileId, OpKind, OpenError};

use crate::dir::DataDir;
use crate::options::check_size;

/// Ending of a finished file.
const FINISHED: &str = ".blk";
/// Ending of a file that is being made.
const UNFINISHED: &str = ".new";
/// Bytes per write when zeros are written ahead.
const ZERO_CHUNK_BYTES: usize = 1 << 20;

/// An open file and its size.
#[derive(Debug)]
pub(crate) struct OpenFile {
    pub(crate) file: File,
    pub(crate) bytes: u64,
}

/// The directory's side of a queue.
#[derive(Debug)]
pub(crate) struct Files {
    dir: Arc<DataDir>,
    direct: bool,
}

impl Files {
    /// Takes the directory's finished files, opened, and removes the leftovers. `direct` opens with O_DIRECT.
    pub(crate) fn open(
        dir: Arc<DataDir>,
        direct: bool,
    ) -> Result<(Self, BTreeMap<FileId, OpenFile>), OpenError> {
        let files = Self { dir, direct };
        let found = files.scan().map_err(|source| OpenError::Directory {
            path: files.dir.path().display().to_string(),
            source,
        })?;
        Ok((files, found))
    }

    fn scan(&self) -> io::Result<BTreeMap<FileId, OpenFile>> {
        let mut found = BTreeMap::new();
        for name in self.dir.list()? {
            if name.ends_with(UNFINISHED) {
                fs::remove_file(self.dir.path().join(&name))?;
            } else if let Some(id) = parse_name(&name) {
                let file = self.options().open(self.path(id))?;
                let bytes = file.metadata()?.len();
                found.insert(id, OpenFile { file, bytes });
            }
        }
        Ok(found)
    }

    /// Makes a file of zeros. Blocks.
    pub(crate) fn create(
        &self,
        id: FileId,
        bytes: u64,
        zero_ahead: bool,
    ) -> Result<OpenFile, BlockError> {
        check_size(bytes)?;
        if self.path(id).exists() {
            return Err(BlockError::Exists(id));
        }
        let unfinished = self.dir.path().join(format!("{:016x}{UNFINISHED}", id.0));
        let make = || -> io::Result<File> {
            let file = self
                .options()
                .create(true)
                .truncate(true)
                .open(&unfinished)?;
            reserve(&file, bytes, zero_ahead)?;
            file.sync_all()?;
            Ok(file)
        };
        let result = make().and_then(|file| {
            fs::rename(&unfinished, self.path(id))?;
            self.dir.sync()?;
            Ok(file)
        });
        match result {
            Ok(file) => Ok(OpenFile { file, bytes }),
            Err(error) => {
                // Nothing of a failed creation may stay: it would hold space. An error here changes nothing.
                let _ = fs::remove_file(&unfinished);
                let _ = fs::remove_file(self.path(id));
                Err(match error.kind() {
                    ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
                        BlockError::NoSpace { file: id, bytes }
                    }
                    _ => BlockError::Io {
                        kind: OpKind::Create,
                        errno: errno(&error),
                    },
                })
            }
        }
    }

    /// Removes a file. Blocks.
    pub(crate) fn delete(&self, id: FileId) -> Result<(), BlockError> {
        fs::remove_file(self.path(id))
            .and_then(|()| self.dir.sync())
            .map_err(|error| BlockError::Io {
                kind: OpKind::Delete,
                errno: errno(&error),
            })
    }

    fn path(&self, id: FileId) -> PathBuf {
        self.dir.path().join(file_name(id))
    }

    fn options(&self) -> OpenOptions {
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        if self.direct {
            options.custom_flags(libc::O_DIRECT);
        }
        options
    }
}

/// The error's number, 0 if it has none.
pub(crate) fn errno(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or(0)
}

/// The name of a finished file in its directory.
#[must_use]
pub fn file_name(id: FileId) -> String {
    format!("{:016x}{FINISHED}", id.0)
}

fn parse_name(name: &str) -> Option<FileId> {
    let digits = name
        .strip_suffix(FINISHED)
        .filter(|digits| digits.len() == 16)?;
    u64::from_str_radix(digits, 16).ok().map(FileId)
}

/// Gives a new file its size and its space.
fn reserve(file: &File, bytes: u64, zero_ahead: bool) -> io::Result<()> {
    let len = i64::try_from(bytes).map_err(|_| io::Error::from(ErrorKind::FileTooLarge))?;
    // SAFETY: takes an open descriptor and integers.
    let reserved = unsafe { libc::fallocate(file.as_raw_fd(), 0, 0, len) } == 0;
    if !reserved {
        let error = io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::EOPNOTSUPP) {
            return Err(error);
        }
        // A filesystem without reservation: only written blocks are sure to have space.
    }
    if zero_ahead || !reserved {
        write_zeros(file, bytes)
    } else {
        Ok(())
    }
}

fn write_zeros(file: &File, bytes: u64) -> io::Result<()> {
    let chunk_bytes = bytes.min(ZERO_CHUNK_BYTES as u64) as usize;
    let zeros = RawBytes::new(chunk_bytes);
    let mut at = 0;
    while at < bytes {
        let len = chunk_bytes.min((bytes - at) as usize);
        let offset = i64::try_from(at).map_err(|_| io::Error::from(ErrorKind::FileTooLarge))?;
        // SAFETY: the kernel reads `len` bytes of an allocation at least as long, which nobody writes.
        let written = unsafe { libc::pwrite(file.as_raw_fd(), zeros.base().cast(), len, offset) };
        match written {
            0 => return Err(ErrorKind::WriteZero.into()),
            written if written < 0 => {
                let error = io::Error::last_os_error();
                if error.kind() != ErrorKind::Interrupted {
                    return Err(error);
                }
            }
            written => at += written.unsigned_abs() as u64,
        }
    }
    Ok(())
}

/// Whether the device under a directory takes FUA writes, as far as the system says.
pub(crate) fn device_has_fua(dir: &DataDir) -> bool {
    let Ok(metadata) = fs::metadata(dir.path()) else {
        return false;
    };
    let (major, minor) = (libc::major(metadata.dev()), libc::minor(metadata.dev()));
    ["queue/fua", "../queue/fua"].iter().any(|name| {
        fs::read_to_string(format!("/sys/dev/block/{major}:{minor}/{name}"))
            .is_ok_and(|text| text.trim() == "1")
    })
}
