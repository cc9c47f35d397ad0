//! The system call bpf(2): the map from queues to sockets, the program, and its link to an interface.
//!
//! Only what this driver needs, by the kernel's own interface, so that no library of the system is linked. Everything
//! made here is a descriptor: when it is closed, by us or by the end of the process, the kernel takes the thing away. So
//! no program stays behind on an interface.
//!
//! *Source*: bpf(2); `union bpf_attr` and the enums of linux/bpf.h; `XDP_FLAGS_*` of linux/if_link.h.
//!
//! # Safety model
//!
//! Each call passes one structure of this file by address and size. The kernel reads it, and what it points to, during
//! the call only; the sole memory that it writes is the log of the verifier (and, in tests, the answer of a test run),
//! which is ours alone and not looked at before the call returns.

use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use crate::program::Insn;

/// Commands of the call, `enum bpf_cmd`.
const MAP_CREATE: libc::c_int = 0;
const MAP_UPDATE_ELEM: libc::c_int = 2;
const PROG_LOAD: libc::c_int = 5;
#[cfg(test)]
const PROG_TEST_RUN: libc::c_int = 10;
const LINK_CREATE: libc::c_int = 28;

const MAP_TYPE_XSKMAP: u32 = 17;
const PROG_TYPE_XDP: u32 = 6;
/// `BPF_XDP` of `enum bpf_attach_type`.
const ATTACH_TYPE_XDP: u32 = 37;
const FLAGS_SKB_MODE: u32 = 1 << 1;
const FLAGS_DRV_MODE: u32 = 1 << 2;

/// Room for what the verifier says about a program that it refuses, in bytes.
const LOG_BYTES: usize = 16 * 1024;

#[repr(C)]
struct MapCreate {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    map_flags: u32,
    inner_map_fd: u32,
    numa_node: u32,
    map_name: [u8; 16],
}

#[repr(C)]
struct MapUpdate {
    map_fd: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[repr(C)]
struct ProgLoad {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
    prog_ifindex: u32,
    expected_attach_type: u32,
}

#[repr(C)]
struct LinkCreate {
    prog_fd: u32,
    target_ifindex: u32,
    attach_type: u32,
    flags: u32,
}

#[cfg(test)]
#[repr(C)]
struct TestRun {
    prog_fd: u32,
    retval: u32,
    data_size_in: u32,
    data_size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    ctx_size_in: u32,
    ctx_size_out: u32,
    ctx_in: u64,
    ctx_out: u64,
    flags: u32,
    cpu: u32,
    batch_size: u32,
    padding: u32,
}

/// A structure of this file as the call takes it.
fn call<T>(command: libc::c_int, attributes: &mut T) -> io::Result<libc::c_int> {
    // SAFETY: `attributes` is one of the structures above, laid out as the command's part of `union bpf_attr`, whole and
    // initialised, and outlives the call; what it points to does, too, by the callers below.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_mut(attributes),
            size_of::<T>(),
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(result as libc::c_int)
}

/// A call whose answer is a new descriptor.
fn call_for_fd<T>(command: libc::c_int, attributes: &mut T) -> io::Result<OwnedFd> {
    let fd = call(command, attributes)?;
    // SAFETY: the kernel has just opened this descriptor for us, with close-on-exec, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn raw(fd: &OwnedFd) -> u32 {
    fd.as_raw_fd().cast_unsigned()
}

fn address<T: ?Sized>(of: *const T) -> u64 {
    of.cast::<u8>().expose_provenance() as u64
}

/// Makes an empty map from queues `0..queues` to AF_XDP sockets.
///
/// # Errors
///
/// The kernel's: `EPERM` without CAP_BPF, `EINVAL` for a kernel without AF_XDP. Effect: none.
pub(crate) fn create_xskmap(queues: u32) -> io::Result<OwnedFd> {
    call_for_fd(
        MAP_CREATE,
        &mut MapCreate {
            map_type: MAP_TYPE_XSKMAP,
            key_size: 4,
            value_size: 4,
            max_entries: queues,
            map_flags: 0,
            inner_map_fd: 0,
            numa_node: 0,
            map_name: *b"ionian_xsks\0\0\0\0\0",
        },
    )
}

/// Enters a bound socket for a queue. The map keeps no socket open.
///
/// # Errors
///
/// The kernel's: `E2BIG` for a queue beyond the map, `EOPNOTSUPP` for a socket that is not of AF_XDP. Effect: none.
pub(crate) fn set_socket(map: &OwnedFd, queue: u32, socket: &OwnedFd) -> io::Result<()> {
    let value = raw(socket);
    call(
        MAP_UPDATE_ELEM,
        &mut MapUpdate {
            map_fd: raw(map),
            padding: 0,
            key: address(&raw const queue),
            value: address(&raw const value),
            flags: 0,
        },
    )
    .map(|_| ())
}

/// Loads an XDP program. The kernel's verifier proves that it ends and reads only inside the frame.
///
/// # Errors
///
/// The kernel's: `EPERM` without CAP_BPF and CAP_NET_ADMIN; what the verifier refuses comes with the end of what it said.
/// Effect: none.
pub(crate) fn load_program(insns: &[Insn]) -> io::Result<OwnedFd> {
    let licence = c"Apache-2.0 OR MIT";
    let mut attributes = ProgLoad {
        prog_type: PROG_TYPE_XDP,
        insn_cnt: u32::try_from(insns.len()).expect("the program is short"),
        insns: address(insns.as_ptr()),
        license: address(licence.as_ptr()),
        log_level: 0,
        log_size: 0,
        log_buf: 0,
        kern_version: 0,
        prog_flags: 0,
        prog_name: *b"ionian_filter\0\0\0",
        prog_ifindex: 0,
        expected_attach_type: ATTACH_TYPE_XDP,
    };
    let error = match call_for_fd(PROG_LOAD, &mut attributes) {
        Ok(program) => return Ok(program),
        Err(error) => error,
    };
    if !matches!(error.raw_os_error(), Some(libc::EACCES | libc::EINVAL)) {
        return Err(error);
    }
    // The verifier says why only to those who ask: once more, with room for the answer.
    let mut log = vec![0u8; LOG_BYTES];
    attributes.log_level = 1;
    attributes.log_size = LOG_BYTES as u32;
    attributes.log_buf = address(log.as_mut_ptr());
    call_for_fd(PROG_LOAD, &mut attributes)
        .map_err(|again| io::Error::new(again.kind(), format!("{again}: {}", log_end(&log))))
}

/// The last lines of a log that ends with a zero byte.
fn log_end(log: &[u8]) -> String {
    let len = log.iter().position(|byte| *byte == 0).unwrap_or(log.len());
    let text = String::from_utf8_lossy(&log[..len]);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(3)..].join("; ")
}

/// Attaches a program to an interface, for as long as the answer is open.
///
/// # Errors
///
/// The kernel's: `EBUSY` or `EEXIST` where another program is attached, `EOPNOTSUPP` where the driver has no native mode.
/// Effect: none.
pub(crate) fn attach(program: &OwnedFd, interface: u32, native: bool) -> io::Result<OwnedFd> {
    call_for_fd(
        LINK_CREATE,
        &mut LinkCreate {
            prog_fd: raw(program),
            target_ifindex: interface,
            attach_type: ATTACH_TYPE_XDP,
            flags: if native {
                FLAGS_DRV_MODE
            } else {
                FLAGS_SKB_MODE
            },
        },
    )
}

/// Runs a program over one frame of at least 14 bytes, as if it came in on queue 0, and returns its answer.
#[cfg(test)]
pub(crate) fn test_run(program: &OwnedFd, frame: &[u8]) -> io::Result<u32> {
    let mut out = vec![0u8; frame.len() + 256];
    let mut attributes = TestRun {
        prog_fd: raw(program),
        retval: 0,
        data_size_in: frame.len() as u32,
        data_size_out: out.len() as u32,
        data_in: address(frame.as_ptr()),
        data_out: address(out.as_mut_ptr()),
        repeat: 1,
        duration: 0,
        ctx_size_in: 0,
        ctx_size_out: 0,
        ctx_in: 0,
        ctx_out: 0,
        flags: 0,
        cpu: 0,
        batch_size: 0,
        padding: 0,
    };
    call(PROG_TEST_RUN, &mut attributes)?;
    Ok(attributes.retval)
}
