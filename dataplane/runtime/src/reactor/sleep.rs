//! Blocking in epoll, and the handle that ends it.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};

use ionian_driver_api::Wake;

/// Marks the eventfd among the watched descriptors.
const EVENT_TOKEN: u64 = 1;

#[derive(Debug)]
struct Doorbell {
    /// Set from before the pollers arm until the reactor is up. Whoever clears it rings.
    sleeping: AtomicBool,
    event: File,
}

/// Ends a reactor's sleep. Clones wake the same reactor. Costs a fence and a load while the reactor is awake.
#[derive(Clone, Debug)]
pub struct WakeHandle(Arc<Doorbell>);

impl Wake for WakeHandle {
    fn wake(&self) {
        // Orders the caller's published work before the look at the flag; see the protocol in the module above.
        fence(Ordering::SeqCst);
        if self.0.sleeping.load(Ordering::Relaxed) && self.0.sleeping.swap(false, Ordering::AcqRel)
        {
            // Fails only when the counter is full, and then the descriptor is readable.
            let _ = (&self.0.event).write(&1u64.to_le_bytes());
        }
    }
}

/// Why a sleep ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Woken {
    /// By a handle, or by a descriptor that has become readable.
    Event,
    /// By time, or by a signal.
    Deadline,
}

/// The sleeping side of a [`WakeHandle`]: of a reactor, or of a thread that polls by itself.
///
/// The order is: [`Self::prepare`], a last look at everything that handles may announce, then [`Self::block`], or
/// [`Self::cancel`] if there was something.
#[derive(Debug)]
pub struct Sleeper {
    doorbell: Arc<Doorbell>,
    epoll: OwnedFd,
    /// The kernel lacks `epoll_pwait2` (before 5.11): deadlines are kept to the millisecond.
    coarse: bool,
}

impl Sleeper {
    /// A sleeper that nothing but time wakes yet.
    ///
    /// # Errors
    /// The system's, if there are no descriptors left. Effect: none.
    pub fn new() -> io::Result<Self> {
        // SAFETY: takes two integers.
        let event = checked(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) })?;
        // SAFETY: the descriptor was just made and nobody else owns it.
        let event = File::from(unsafe { OwnedFd::from_raw_fd(event) });
        // SAFETY: takes an integer.
        let epoll = checked(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        // SAFETY: the descriptor was just made and nobody else owns it.
        let epoll = unsafe { OwnedFd::from_raw_fd(epoll) };
        let doorbell = Arc::new(Doorbell {
            sleeping: AtomicBool::new(false),
            event,
        });
        let sleeper = Self {
            doorbell,
            epoll,
            coarse: false,
        };
        sleeper.add(sleeper.doorbell.event.as_raw_fd(), EVENT_TOKEN)?;
        Ok(sleeper)
    }

    /// What others wake it with.
    #[must_use]
    pub fn handle(&self) -> WakeHandle {
        WakeHandle(self.doorbell.clone())
    }

    /// Makes sleeps end when `fd` is readable.
    ///
    /// # Errors
    /// The system's, if it cannot be watched. Effect: none.
    pub fn watch(&self, fd: RawFd) -> io::Result<()> {
        self.add(fd, 0)
    }

    fn add(&self, fd: RawFd, token: u64) -> io::Result<()> {
        let mut event = libc::epoll_event {
            events: libc::EPOLLIN as u32,
            u64: token,
        };
        // SAFETY: an open descriptor of ours, any other one, and an event in a local variable that outlives the call.
        let result = unsafe {
            libc::epoll_ctl(
                self.epoll.as_raw_fd(),
                libc::EPOLL_CTL_ADD,
                fd,
                &raw mut event,
            )
        };
        checked(result).map(|_| ())
    }

    /// Says that a sleep is near. From here on wake-ups ring.
    pub fn prepare(&self) {
        self.doorbell.sleeping.swap(true, Ordering::AcqRel);
        fence(Ordering::SeqCst);
    }

    /// No sleep after all.
    pub fn cancel(&self) {
        if !self.doorbell.sleeping.swap(false, Ordering::AcqRel) {
            self.drain();
        }
    }

    /// Blocks until a wake-up, a watched descriptor or the timeout in nanoseconds.
    pub fn block(&mut self, timeout_ns: Option<u64>) -> Woken {
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; 8];
        let count = self.wait(&mut events, timeout_ns);
        // Whoever cleared the flag has rung, or is about to: then the next sleep ends at once, which is harmless.
        let rung = !self.doorbell.sleeping.swap(false, Ordering::AcqRel);
        if rung || events[..count].iter().any(|event| event.u64 == EVENT_TOKEN) {
            self.drain();
        }
        if count > 0 {
            Woken::Event
        } else {
            Woken::Deadline
        }
    }

    fn drain(&self) {
        // Nothing to read is no error: the ring may be on its way.
        let _ = (&self.doorbell.event).read(&mut [0; 8]);
    }

    /// Number of events; 0 at the timeout and for a signal.
    fn wait(&mut self, events: &mut [libc::epoll_event; 8], timeout_ns: Option<u64>) -> usize {
        let (epoll, room) = (self.epoll.as_raw_fd(), events.len() as i32);
        if !self.coarse {
            let timeout = timeout_ns.map(|ns| libc::timespec {
                tv_sec: i64::try_from(ns / 1_000_000_000).unwrap_or(i64::MAX),
                tv_nsec: (ns % 1_000_000_000) as i64,
            });
            let timeout_at = timeout.as_ref().map_or(ptr::null(), ptr::from_ref);
            // SAFETY: an open descriptor, an array of `room` events, and a timeout or none, all of which outlive the call.
            // The mask is null, so its size (the last argument) is not looked at.
            let count = unsafe {
                libc::syscall(
                    libc::SYS_epoll_pwait2,
                    epoll,
                    events.as_mut_ptr(),
                    room,
                    timeout_at,
                    ptr::null::<libc::sigset_t>(),
                    0usize,
                )
            };
            if count >= 0 {
                return count as usize;
            }
            if io::Error::last_os_error().raw_os_error() != Some(libc::ENOSYS) {
                return 0;
            }
            self.coarse = true;
        }
        let timeout_ms = timeout_ns.map_or(-1, |ns| {
            i32::try_from(ns.div_ceil(1_000_000)).unwrap_or(i32::MAX)
        });
        // SAFETY: an open descriptor and an array of `room` events that outlives the call.
        let count = unsafe { libc::epoll_wait(epoll, events.as_mut_ptr(), room, timeout_ms) };
        usize::try_from(count).unwrap_or(0)
    }
}

fn checked(fd: i32) -> io::Result<i32> {
    if fd < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(fd)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn a_ring_before_the_sleep_ends_it_and_is_used_up() {
        for coarse in [false, true] {
            let mut sleeper = Sleeper::new().expect("descriptors");
            sleeper.coarse = coarse;
            let handle = sleeper.handle();
            handle.wake();
            sleeper.prepare();
            assert_eq!(
                sleeper.block(Some(1_000_000)),
                Woken::Deadline,
                "it was not asleep when woken"
            );
            sleeper.prepare();
            handle.wake();
            handle.wake();
            assert_eq!(sleeper.block(None), Woken::Event);
            sleeper.prepare();
            handle.wake();
            sleeper.cancel();
            sleeper.prepare();
            let start = Instant::now();
            assert_eq!(
                sleeper.block(Some(3_000_000)),
                Woken::Deadline,
                "the old rings are used up"
            );
            assert!(
                start.elapsed().as_nanos() >= 3_000_000,
                "not before its time"
            );
        }
    }

    #[test]
    fn a_watched_descriptor_ends_sleeps_until_it_is_read() {
        let mut sleeper = Sleeper::new().expect("descriptors");
        let (mut reader, mut writer) = io::pipe().expect("descriptors");
        sleeper.watch(reader.as_raw_fd()).expect("watchable");
        writer.write_all(b"x").expect("room");
        for _ in 0..2 {
            sleeper.prepare();
            assert_eq!(sleeper.block(None), Woken::Event);
        }
        reader.read_exact(&mut [0]).expect("a byte");
        sleeper.prepare();
        assert_eq!(sleeper.block(Some(1000)), Woken::Deadline);
        assert!(sleeper.watch(-1).is_err());
    }
}
