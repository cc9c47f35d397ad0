//! Where and how a thread runs: its core and its priority.

use std::io;

use core_affinity::CoreId;
use thiserror::Error;

/// How the scheduler treats a thread.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Priority {
    /// As every other thread.
    #[default]
    Normal,
    /// Real-time first-in first-out, at the given level, 1 to 99. A thread that spins at it starves everything else on its
    /// core, the kernel's own helpers included: for measurements and dedicated cores only.
    Fifo {
        /// The level; 50 leaves room above and below.
        level: u8,
    },
}

/// What became of a request for a priority.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PriorityOutcome {
    /// Nothing was asked for.
    Normal,
    /// Real-time scheduling is in force.
    Fifo {
        /// The level.
        level: u8,
    },
    /// The system refused; the thread runs as every other.
    Refused {
        /// The system's error number; EPERM means that the process lacks CAP_SYS_NICE.
        errno: i32,
    },
}

/// A thread could not be pinned; it runs wherever the scheduler puts it. Effect: none.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("cannot pin to core {core}: not among the cores this process may use")]
pub struct PinError {
    /// The core.
    pub core: usize,
}

/// Pins the calling thread to a core, and reads back that it is there.
///
/// # Errors
///
/// [`PinError`] if the core does not exist or the process may not use it. Effect: none.
pub fn pin_current_thread(core: usize) -> Result<(), PinError> {
    // The kernel's mask is a fixed table, and a number outside it would be a panic of its accessor.
    let pinned =
        core < libc::CPU_SETSIZE as usize && core_affinity::set_for_current(CoreId { id: core });
    if pinned && allowed_cores() == [core] {
        Ok(())
    } else {
        Err(PinError { core })
    }
}

/// The cores that the calling thread may use, ascending: the scheduler's mask, which a cgroup's cpuset limits.
pub(crate) fn allowed_cores() -> Vec<usize> {
    let mut cores: Vec<usize> = core_affinity::get_core_ids()
        .unwrap_or_default()
        .into_iter()
        .map(|core| core.id)
        .collect();
    cores.sort_unstable();
    cores
}

/// Asks for a priority for the calling thread, and says what became of it.
#[must_use]
pub fn set_priority(priority: Priority) -> PriorityOutcome {
    let Priority::Fifo { level } = priority else {
        return PriorityOutcome::Normal;
    };
    let param = libc::sched_param {
        sched_priority: i32::from(level),
    };
    // SAFETY: thread 0 is the calling one, and the parameter is a local variable that outlives the call.
    let result = unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const param) };
    if result == 0 {
        PriorityOutcome::Fifo { level }
    } else {
        PriorityOutcome::Refused {
            errno: io::Error::last_os_error().raw_os_error().unwrap_or(0),
        }
    }
}

/// Lets the calling thread's timeouts end when they are due. By default the kernel may let them run 50 us over, to end
/// several at once.
pub(crate) fn set_precise_timeouts() {
    // SAFETY: takes integers only. It cannot fail for the calling thread; if it did, timeouts would stay late.
    let _ = unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1 as libc::c_ulong) };
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn a_thread_is_where_it_was_pinned() {
        let core = *allowed_cores().last().expect("some core");
        thread::spawn(move || {
            pin_current_thread(core).expect("an allowed core");
            assert_eq!(allowed_cores(), [core]);
            // SAFETY: takes nothing.
            assert_eq!(usize::try_from(unsafe { libc::sched_getcpu() }), Ok(core));
            assert_eq!(pin_current_thread(9999), Err(PinError { core: 9999 }));
        })
        .join()
        .expect("pinned");
    }

    #[test]
    fn a_priority_is_in_force_or_refused_by_name() {
        thread::spawn(|| {
            assert_eq!(set_priority(Priority::Normal), PriorityOutcome::Normal);
            // SAFETY: thread 0 is the calling one.
            let policy = || unsafe { libc::sched_getscheduler(0) };
            match set_priority(Priority::Fifo { level: 50 }) {
                PriorityOutcome::Fifo { level } => {
                    assert_eq!((level, policy()), (50, libc::SCHED_FIFO))
                }
                PriorityOutcome::Refused { errno } => {
                    assert_eq!((errno, policy()), (libc::EPERM, libc::SCHED_OTHER))
                }
                PriorityOutcome::Normal => panic!("a request was ignored"),
            }
            assert_eq!(
                set_priority(Priority::Fifo { level: 200 }),
                PriorityOutcome::Refused {
                    errno: libc::EINVAL
                },
                "no such level"
            );
        })
        .join()
        .expect("checked");
    }
}
