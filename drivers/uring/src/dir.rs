//! A locked directory with atomic small files.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use ionian_driver_api::{Effect, OpenError};
use thiserror::Error;

/// Name of the file that the lock is held on.
const LOCK_NAME: &str = "LOCK";
/// Ending of a small file that is being written.
const UNFINISHED: &str = ".tmp";

/// A directory that this process, and in it this value, uses alone. The lock ends with the value or the process.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    /// For making entries durable.
    handle: File,
    _lock: File,
}

/// Why a small file was not read or written.
#[derive(Debug, Error)]
#[error("{name}: {source} ({effect})")]
pub struct SmallFileError {
    /// The file's name.
    pub name: String,
    /// What may have happened: after a failed write the old or the new contents are there, whole.
    pub effect: Effect,
    /// The system's answer.
    pub source: io::Error,
}

impl DataDir {
    /// Bytes that the file system of the directory has left for an unprivileged process.
    ///
    /// # Errors
    ///
    /// The system's answer; effect none.
    pub fn space_bytes(&self) -> io::Result<u64> {
        let mut answer = core::mem::MaybeUninit::<libc::statvfs>::uninit();
        // SAFETY: the descriptor is open as long as `self`, and the answer has room for what is written.
        if unsafe { libc::fstatvfs(self.handle.as_raw_fd(), answer.as_mut_ptr()) } != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the system said that it wrote the answer.
        let answer = unsafe { answer.assume_init() };
        Ok(answer.f_bavail.saturating_mul(answer.f_frsize))
    }

    /// Opens the directory, making it if it is not there, and locks it.
    ///
    /// # Errors
    ///
    /// [`OpenError::InUse`] with the holder's process number; [`OpenError::Directory`] if it cannot be made or written.
    /// Effect: none, but for a directory that was made.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let failed = |at: &Path| {
            let path = at.display().to_string();
            move |source| OpenError::Directory { path, source }
        };
        if !path.is_dir() {
            fs::create_dir_all(path).map_err(failed(path))?;
            // The new entry itself must survive a crash.
            if let Some(parent) = path.canonicalize().map_err(failed(path))?.parent() {
                File::open(parent)
                    .and_then(|parent| parent.sync_all())
                    .map_err(failed(parent))?;
            }
        }
        let handle = File::open(path).map_err(failed(path))?;
        let lock_path = path.join(LOCK_NAME);
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&lock_path)
            .map_err(failed(&lock_path))?;
        // SAFETY: takes a descriptor that is open, and flags.
        if unsafe { libc::flock(lock.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } != 0 {
            let error = io::Error::last_os_error();
            if error.kind() != ErrorKind::WouldBlock {
                return Err(failed(&lock_path)(error));
            }
            let mut holder = String::new();
            // Empty for the moment between its lock and its writing: then the holder is not known.
            let _ = lock.take(32).read_to_string(&mut holder);
            let holder_pid = holder.trim().parse().unwrap_or(0);
            return Err(OpenError::InUse {
                path: path.display().to_string(),
                holder_pid,
            });
        }
        lock.set_len(0).map_err(failed(&lock_path))?;
        lock.rewind().map_err(failed(&lock_path))?;
        writeln!(lock, "{}", std::process::id()).map_err(failed(&lock_path))?;
        Ok(Self {
            path: path.to_owned(),
            handle,
            _lock: lock,
        })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes the entries of the directory durable: names made, renamed or removed.
    ///
    /// # Errors
    ///
    /// The system's. Effect: unknown.
    pub fn sync(&self) -> io::Result<()> {
        self.handle.sync_all()
    }

    /// Replaces a small file, all or nothing: after a crash the old or the new contents are there.
    ///
    /// # Errors
    ///
    /// [`SmallFileError`], with no effect before the rename and unknown effect from then on.
    pub fn write_small(&self, name: &str, contents: &[u8]) -> Result<(), SmallFileError> {
        let failed = |effect| {
            move |source| SmallFileError {
                name: name.to_owned(),
                effect,
                source,
            }
        };
        let unfinished = self.path.join(format!("{name}{UNFINISHED}"));
        let write = || {
            let mut file = File::create(&unfinished)?;
            file.write_all(contents)?;
            file.sync_all()
        };
        write().map_err(|error| {
            // What is left of it is ignored by readers and replaced by the next write.
            let _ = fs::remove_file(&unfinished);
            failed(Effect::None)(error)
        })?;
        fs::rename(&unfinished, self.path.join(name)).map_err(failed(Effect::Unknown))?;
        self.sync().map_err(failed(Effect::Unknown))
    }

    /// Reads a small file of at most `bytes_max` bytes. `None` if there is none.
    ///
    /// # Errors
    ///
    /// [`SmallFileError`], also for a larger file. Effect: none.
    pub fn read_small(
        &self,
        name: &str,
        bytes_max: u64,
    ) -> Result<Option<Vec<u8>>, SmallFileError> {
        let failed = |source| SmallFileError {
            name: name.to_owned(),
            effect: Effect::None,
            source,
        };
        let file = match File::open(self.path.join(name)) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let mut contents = Vec::new();
        file.take(bytes_max.saturating_add(1))
            .read_to_end(&mut contents)
            .map_err(failed)?;
        if contents.len() as u64 > bytes_max {
            return Err(failed(io::Error::new(
                ErrorKind::FileTooLarge,
                "larger than it may be",
            )));
        }
        Ok(Some(contents))
    }

    /// Removes a file for good. It is no error if there is none.
    ///
    /// # Errors
    ///
    /// [`SmallFileError`]. Effect: unknown.
    pub fn remove_small(&self, name: &str) -> Result<(), SmallFileError> {
        let failed = |source| SmallFileError {
            name: name.to_owned(),
            effect: Effect::Unknown,
            source,
        };
        match fs::remove_file(self.path.join(name)) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(failed(error)),
            _ => self.sync().map_err(failed),
        }
    }

    /// Names of the finished files, in order, without the lock.
    ///
    /// # Errors
    ///
    /// The system's. Effect: none.
    pub fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            if let Ok(name) = entry?.file_name().into_string()
                && name != LOCK_NAME
                && !name.ends_with(UNFINISHED)
            {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_user_is_told_who_holds_it() {
        let temp = tempfile::tempdir().expect("a temporary directory");
        let path = temp.path().join("a/b");
        let dir = DataDir::open(&path).expect("new");
        match DataDir::open(&path) {
            Err(OpenError::InUse { holder_pid, .. }) => assert_eq!(holder_pid, std::process::id()),
            other => panic!("{other:?}"),
        }
        drop(dir);
        DataDir::open(&path).expect("free again");
    }

    #[test]
    fn small_files_are_replaced_whole() {
        let temp = tempfile::tempdir().expect("a temporary directory");
        let dir = DataDir::open(temp.path()).expect("new");
        assert_eq!(dir.read_small("root", 100).expect("readable"), None);
        for contents in [&b"one"[..], b"", b"another"] {
            dir.write_small("root", contents).expect("writable");
            assert_eq!(
                dir.read_small("root", 100).expect("readable").as_deref(),
                Some(contents)
            );
        }
        let error = dir.read_small("root", 3).expect_err("too large");
        assert_eq!(
            (error.effect, error.source.kind()),
            (Effect::None, ErrorKind::FileTooLarge)
        );
        // As after a crash between the write and the rename.
        fs::write(temp.path().join("root.tmp"), b"torn").expect("writable");
        assert_eq!(
            dir.read_small("root", 100).expect("readable").as_deref(),
            Some(&b"another"[..])
        );
        assert_eq!(dir.list().expect("readable"), ["root"]);
        dir.remove_small("root").expect("removable");
        dir.remove_small("root").expect("nothing to remove");
        assert!(dir.list().expect("readable").is_empty());
        let error = dir.write_small("no/such", b"x").expect_err("no directory");
        assert_eq!(error.effect, Effect::None);
    }

    #[test]
    fn a_path_that_is_no_directory_is_refused() {
        let temp = tempfile::tempdir().expect("a temporary directory");
        let file = temp.path().join("file");
        fs::write(&file, b"x").expect("writable");
        assert!(matches!(
            DataDir::open(&file),
            Err(OpenError::Directory { .. })
        ));
    }
}
