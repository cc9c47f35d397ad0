//! DPDK's environment layer: started once, left as it was found, ended when the last user is gone.

use std::ffi::{CStr, CString, OsStr};
use std::fs;
use std::marker::PhantomData;
use std::mem::{size_of, zeroed};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::ptr::{null, null_mut};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ionian_dpdk_sys as sys;

use super::log::Capture;
use crate::error::{self, StartError, explain_start};
use crate::options::{EalOptions, HugePages};
use crate::preflight;

/// Set by the first start of this process, for ever.
static STARTED: AtomicBool = AtomicBool::new(false);

/// Held by who makes, stops or removes devices, or keeps the log.
static CONTROL: Mutex<()> = Mutex::new(());

/// DPDK, started. Clones share it; it ends with the last of them and of the links that were opened.
#[derive(Clone, Debug)]
pub struct Eal {
    pub(super) inner: Arc<Inner>,
}

/// What the links keep alive.
#[derive(Debug)]
pub(super) struct Inner {
    pub(super) memory_mib: u32,
    pub(super) drivers: PathBuf,
    huge: bool,
    prefix: String,
    directory: Option<PathBuf>,
    /// Buffers that devices never gave back, of pools that are gone.
    pub(super) mbufs_missing: AtomicU64,
    /// PCI devices that were opened. DPDK forgets a device that is closed.
    pub(super) pci_opened: Mutex<Vec<String>>,
}

/// The calling thread, known to DPDK: its buffers come from a cache of its own. For as long as this lives.
#[derive(Debug)]
pub struct RegisteredThread {
    _eal: Arc<Inner>,
    /// Belongs to the thread that made it.
    _thread: PhantomData<*mut ()>,
}

impl Eal {
    /// Starts DPDK. The calling thread keeps its signals and the cores on which it may run.
    ///
    /// # Errors
    ///
    /// [`StartError`]. Effect: none, but after anything that DPDK itself refused it cannot be tried again in this process.
    pub fn start(options: &EalOptions) -> Result<Self, StartError> {
        options.check()?;
        let free_mib = preflight::huge_free_mib();
        let huge = options.resolve(free_mib);
        if options.huge_pages == HugePages::Require && free_mib < u64::from(options.memory_mib) {
            return Err(error::no_huge_pages(options, free_mib));
        }
        if STARTED.swap(true, Ordering::SeqCst) {
            return Err(StartError::Again);
        }
        let drivers = drivers();
        let _control = control();
        let capture = Capture::begin();
        let before = ThreadState::take();
        let result = init(&options.arguments(huge, &before.cpus()));
        before.restore();
        if result < 0 {
            let log = capture.text();
            return Err(explain_start(
                &log,
                options,
                &drivers.display().to_string(),
                free_mib,
            ));
        }
        let prefix = options.effective_prefix();
        let directory = runtime_directory();
        if let Some(all) = directory.as_deref().and_then(Path::parent) {
            preflight::sweep(all);
        }
        Ok(Self {
            inner: Arc::new(Inner {
                memory_mib: options.memory_mib,
                drivers,
                huge,
                prefix,
                directory,
                mbufs_missing: AtomicU64::new(0),
                pci_opened: Mutex::default(),
            }),
        })
    }

    /// Whether DPDK's memory is in huge pages.
    #[must_use]
    pub fn huge(&self) -> bool {
        self.inner.huge
    }

    /// The name of this process's files.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.inner.prefix
    }

    /// Where DPDK's drivers are.
    #[must_use]
    pub fn drivers(&self) -> &Path {
        &self.inner.drivers
    }

    /// The release of DPDK that runs, as `DPDK 22.11.11`.
    #[must_use]
    pub fn version(&self) -> String {
        // SAFETY: the call answers a text that is never freed.
        let text = unsafe { sys::rte_version() };
        // SAFETY: a text that ends in a zero.
        unsafe { CStr::from_ptr(text) }
            .to_string_lossy()
            .into_owned()
    }

    /// Buffers that devices had not given back when they were closed, since the start. Their pools stay until the process ends.
    /// Always so with AF_XDP, never with the other virtual devices.
    #[must_use]
    pub fn mbufs_missing(&self) -> u64 {
        self.inner.mbufs_missing.load(Ordering::Relaxed)
    }

    /// Makes the calling thread known to DPDK, so that it takes buffers from a cache of its own. `None` where DPDK refuses, when
    /// its number of threads is reached or tools may attach: everything works, more slowly.
    #[must_use]
    pub fn register_thread(&self) -> Option<RegisteredThread> {
        // SAFETY: DPDK is started, and the call concerns this thread only.
        if unsafe { sys::ionian_lcore() } != u32::MAX {
            // This thread started DPDK, or is registered.
            return None;
        }
        // SAFETY: as above.
        (unsafe { sys::rte_thread_register() } == 0).then(|| RegisteredThread {
            _eal: Arc::clone(&self.inner),
            _thread: PhantomData,
        })
    }
}

impl Drop for RegisteredThread {
    fn drop(&mut self) {
        // SAFETY: this is the thread that was registered (the type cannot leave it), and DPDK runs while this lives.
        unsafe { sys::rte_thread_unregister() };
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let _control = control();
        let capture = Capture::begin();
        // SAFETY: every port, pool and ring holds this and is gone; DPDK was started and is ended once.
        unsafe { sys::rte_eal_cleanup() };
        drop(capture);
        if let Some(directory) = &self.directory
            && directory.file_name() == Some(OsStr::new(&self.prefix))
        {
            // DPDK leaves it; another user's tool may have been quicker.
            let _ = fs::remove_dir_all(directory);
        }
    }
}

/// Only one thread at a time changes devices.
pub(super) fn control() -> MutexGuard<'static, ()> {
    CONTROL.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where the installed DPDK looks for its drivers.
fn drivers() -> PathBuf {
    let bytes: &[u8] = sys::RTE_EAL_PMD_PATH;
    let text = CStr::from_bytes_until_nul(bytes).unwrap_or_default();
    PathBuf::from(OsStr::from_bytes(text.to_bytes()))
}

fn runtime_directory() -> Option<PathBuf> {
    // SAFETY: the call answers a text of DPDK's that stays, or nothing.
    let text = unsafe { sys::rte_eal_get_runtime_dir() };
    if text.is_null() {
        return None;
    }
    // SAFETY: a text that ends in a zero.
    let text = unsafe { CStr::from_ptr(text) };
    Some(PathBuf::from(OsStr::from_bytes(text.to_bytes())))
}

fn init(arguments: &[String]) -> i32 {
    // DPDK keeps addresses of some arguments, so they stay for the process's life. They hold no zero: `EalOptions::check` saw to it.
    let mut pointers: Vec<*mut libc::c_char> = arguments
        .iter()
        .filter_map(|argument| CString::new(argument.as_str()).ok())
        .map(CString::into_raw)
        .collect();
    let count = i32::try_from(pointers.len()).unwrap_or(0);
    pointers.push(null_mut());
    let pointers = Box::leak(pointers.into_boxed_slice());
    // SAFETY: `count` texts that stay and a null after them; the array may be reordered. Called once, by `STARTED`.
    unsafe { sys::rte_eal_init(count, pointers.as_mut_ptr()) }
}

/// What DPDK changes of the thread that starts it.
struct ThreadState {
    cpus: libc::cpu_set_t,
    signals: libc::sigset_t,
}

impl ThreadState {
    fn take() -> Self {
        // SAFETY: an array of integers, for which zero bits are a value.
        let mut cpus: libc::cpu_set_t = unsafe { zeroed() };
        // SAFETY: the set is as large as the call is told; 0 is the calling thread.
        unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut cpus) };
        // SAFETY: an array of integers, for which zero bits are a value.
        let mut signals: libc::sigset_t = unsafe { zeroed() };
        // SAFETY: no new mask is given, and the old one has room.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, null(), &raw mut signals) };
        Self { cpus, signals }
    }

    fn cpus(&self) -> Vec<usize> {
        let set: Vec<usize> = (0..libc::CPU_SETSIZE as usize)
            // SAFETY: the number is below the size of the set.
            .filter(|cpu| unsafe { libc::CPU_ISSET(*cpu, &self.cpus) })
            .collect();
        if set.is_empty() { vec![0] } else { set }
    }

    fn restore(&self) {
        // SAFETY: the set is as large as the call is told; it was this thread's before.
        unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const self.cpus) };
        // SAFETY: the mask was this thread's before.
        unsafe {
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.signals, null_mut());
        };
    }
}
