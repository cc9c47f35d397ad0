//! The file queue that works here, chosen at start and named.

use std::io;
use std::os::fd::RawFd;
use std::path::Path;
use std::sync::Arc;

use ionian_driver_api::{
    BlockLimits, BlockQueue, BlockRequest, BufPool, Completions, FileId, OpenError,
};

use crate::dir::DataDir;
use crate::options::{BackendChoice, FileOptions};
use crate::threaded::ThreadedQueue;
use crate::uring::{self, UringQueue};

#[derive(Debug)]
enum Backend {
    Uring(Box<UringQueue>),
    Threaded(ThreadedQueue),
}

/// A block queue over the files of one directory, which it locks.
#[derive(Debug)]
pub struct FileQueue {
    backend: Backend,
    dir: Arc<DataDir>,
    fallback_reason: Option<io::Error>,
}

impl FileQueue {
    /// Opens the directory, making it if it is not there, and the files in it.
    ///
    /// # Errors
    ///
    /// [`OpenError`]: the directory is in use or cannot be used, or the backend that was demanded does not work there.
    /// Effect: none, but for a directory that was made.
    pub fn open(path: &Path, options: FileOptions) -> Result<Self, OpenError> {
        let options = options.clamped();
        let dir = Arc::new(DataDir::open(path)?);
        let probed = match options.backend {
            BackendChoice::Threaded => None,
            BackendChoice::Uring | BackendChoice::Auto => Some(uring::probe(&dir)),
        };
        let (backend, fallback_reason) = match probed {
            Some(Ok(())) => (
                Backend::Uring(Box::new(UringQueue::open(dir.clone(), options)?)),
                None,
            ),
            Some(Err(source)) if options.backend == BackendChoice::Uring => {
                return Err(OpenError::Backend {
                    backend: uring::BACKEND,
                    source,
                });
            }
            other => (
                Backend::Threaded(ThreadedQueue::open(dir.clone(), options)?),
                other.and_then(Result::err),
            ),
        };
        Ok(Self {
            backend,
            dir,
            fallback_reason,
        })
    }

    /// Bytes that the file system has left; see [`DataDir::space_bytes`].
    ///
    /// # Errors
    ///
    /// The system's answer; effect none.
    pub fn space_bytes(&self) -> io::Result<u64> {
        self.dir.space_bytes()
    }

    /// Why io_uring with O_DIRECT is not used, if it was tried.
    #[must_use]
    pub fn fallback_reason(&self) -> Option<&io::Error> {
        self.fallback_reason.as_ref()
    }

    /// The directory, for small files beside the blocks.
    #[must_use]
    pub fn dir(&self) -> &DataDir {
        &self.dir
    }
}

/// Calls the backend in use.
macro_rules! dispatch {
    ($queue:expr, $backend:ident => $call:expr) => {
        match $queue {
            Backend::Uring($backend) => $call,
            Backend::Threaded($backend) => $call,
        }
    };
}

impl BlockQueue for FileQueue {
    fn limits(&self) -> BlockLimits {
        dispatch!(&self.backend, backend => backend.limits())
    }

    fn register(&mut self, pool: &BufPool) -> bool {
        dispatch!(&mut self.backend, backend => backend.register(pool))
    }

    fn submit(&mut self, pool: &mut BufPool, request: BlockRequest) -> Result<(), BlockRequest> {
        dispatch!(&mut self.backend, backend => backend.submit(pool, request))
    }

    fn kick(&mut self) {
        dispatch!(&mut self.backend, backend => backend.kick());
    }

    fn poll(&mut self, pool: &mut BufPool, out: &mut Completions) -> usize {
        dispatch!(&mut self.backend, backend => backend.poll(pool, out))
    }

    fn in_flight(&self) -> usize {
        dispatch!(&self.backend, backend => backend.in_flight())
    }

    fn files(&self) -> Vec<(FileId, u64)> {
        dispatch!(&self.backend, backend => backend.files())
    }

    fn arm(&mut self) -> bool {
        dispatch!(&mut self.backend, backend => backend.arm())
    }

    fn wake_fd(&self) -> Option<RawFd> {
        dispatch!(&self.backend, backend => backend.wake_fd())
    }
}
