//! Forbidding system calls, for tests and measurements that claim to make none: the kernel itself is the judge.
//!
//! # Safety model
//!
//! Two system calls on memory that outlives them; the filter's program is a constant of this file.

use std::io;

use thiserror::Error;

/// The kernel does not take the filter. Effect: none, but that the process gets no new privileges any more.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("the kernel refuses to forbid system calls (error {errno})")]
pub struct ForbidError {
    /// The system's error number; 0 when a thread of the process is under another filter.
    pub errno: i32,
}

/// Forbids system calls to every thread of this process, for ever: the first one but [`exit_now`]'s ends the process by
/// SIGSYS. Reading the clock is none where the kernel serves it from memory (vDSO).
///
/// # Errors
///
/// [`ForbidError`].
pub fn forbid_system_calls() -> Result<(), ForbidError> {
    // Offset of the number in the kernel's `struct seccomp_data`.
    const NUMBER_OFFSET: u32 = 0;
    let statement = |code: u32, k: u32| libc::sock_filter {
        code: code as u16,
        jt: 0,
        jf: 0,
        k,
    };
    let mut program = [
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, NUMBER_OFFSET),
        libc::sock_filter {
            code: (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16,
            jt: 0,
            jf: 1,
            k: libc::SYS_exit_group as u32,
        },
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW),
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_KILL_PROCESS),
    ];
    let program = libc::sock_fprog {
        len: program.len() as u16,
        filter: program.as_mut_ptr(),
    };
    let errno = || io::Error::last_os_error().raw_os_error().unwrap_or(0);
    // SAFETY: the call takes plain numbers; the unused ones are 0 as the kernel requires.
    if unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) } != 0 {
        return Err(ForbidError { errno: errno() });
    }
    // SAFETY: the program lives to the end of this function, its length is that of the array, and the kernel copies it.
    let done = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::SECCOMP_FILTER_FLAG_TSYNC,
            &raw const program,
        )
    };
    match done {
        0 => Ok(()),
        -1 => Err(ForbidError { errno: errno() }),
        // The number of a thread that could not follow.
        _ => Err(ForbidError { errno: 0 }),
    }
}

/// Ends the process at once, with a code and nothing else: no destructor, no buffered output.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: it takes a plain number and does not return.
    unsafe { libc::_exit(code) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;

    const CHILD: &str = "IONIAN_TEST_FORBID";

    #[test]
    fn a_forbidden_call_ends_the_process() {
        match std::env::var(CHILD).ok().as_deref() {
            None => {}
            Some(how) => {
                if forbid_system_calls().is_err() {
                    exit_now(3);
                }
                if how == "call" {
                    std::thread::yield_now();
                }
                exit_now(7);
            }
        }
        let run = |how: &str| {
            Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "quiet::tests::a_forbidden_call_ends_the_process"])
                .env(CHILD, how)
                .status()
                .unwrap()
        };
        let quiet = run("quiet");
        if quiet.code() == Some(3) {
            println!("SKIP: the kernel does not take the filter");
            return;
        }
        assert_eq!(quiet.code(), Some(7));
        assert_eq!(run("call").signal(), Some(libc::SIGSYS));
    }
}
