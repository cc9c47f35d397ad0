//! What is looked at before DPDK is asked, because its own answer would be -1: drivers, interfaces, capabilities, huge pages, sockets.
//!
//! Nothing here needs DPDK, and nothing changes the system but that the socket of a memif server that is gone is removed.

use std::ffi::CString;
use std::fs;
use std::io;
use std::mem::{size_of, zeroed};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use crate::error::OpenError;
use crate::options::{Device, OWN_PREFIX, PortOptions};
use crate::vdev::{MemifRole, Vdev};

/// Bits of capabilities in the kernel's mask. *Source*: `capabilities(7)`.
const CAP_NET_ADMIN: u32 = 12;
const CAP_NET_RAW: u32 = 13;

/// Says why a port cannot be opened, as far as it can be seen without trying.
///
/// # Errors
///
/// [`OpenError`], with what to do. Effect: none.
pub fn check(device: &Device, options: &PortOptions, drivers: &Path) -> Result<(), OpenError> {
    options.check()?;
    device.check()?;
    let Device::Virtual(vdev) = device else {
        return Ok(());
    };
    check_driver(drivers, vdev.driver())?;
    if let Some(interface) = vdev.existing_interface() {
        check_interface(interface, options.mtu_bytes)?;
    }
    match vdev {
        Vdev::AfPacket { .. } => check_capability(vdev, CAP_NET_RAW, "CAP_NET_RAW", "cap_net_raw"),
        Vdev::AfXdp {
            interface,
            start_queue,
            ..
        } => {
            if let Some(most) = queues(interface)
                && u32::from(*start_queue) + u32::from(options.queues) > most
            {
                return Err(OpenError::Queues {
                    device: vdev.to_string(),
                    asked: options.queues,
                    most: most.saturating_sub((*start_queue).into()),
                });
            }
            // Loading the program that redirects frames is an administrator's business, and so is taking the queue.
            check_capability(
                vdev,
                CAP_NET_ADMIN,
                "CAP_NET_ADMIN",
                "cap_net_admin,cap_net_raw,cap_bpf,cap_ipc_lock",
            )
        }
        Vdev::Tap { interface } => {
            if !Path::new("/dev/net/tun").exists() {
                return Err(OpenError::NoTun);
            }
            if interface_index(interface) {
                return Err(OpenError::InterfaceExists {
                    interface: interface.clone(),
                });
            }
            check_capability(vdev, CAP_NET_ADMIN, "CAP_NET_ADMIN", "cap_net_admin")
        }
        Vdev::Memif {
            role: MemifRole::Server,
            socket,
            ..
        } => clear_socket(socket),
        Vdev::Memif { .. } => Ok(()),
    }
}

/// Says whether the driver's library is there, and which package brings it where it is not.
///
/// # Errors
///
/// [`OpenError::NoDriver`]. Effect: none.
pub fn check_driver(drivers: &Path, driver: &str) -> Result<(), OpenError> {
    if driver_library(drivers, driver).is_some() {
        return Ok(());
    }
    Err(OpenError::NoDriver {
        driver: driver.to_owned(),
        directory: drivers.display().to_string(),
        package: driver_package(drivers, driver),
    })
}

/// The library of a driver. Of several files the one with the shortest name after the plain one: `.so.23`.
#[must_use]
pub fn driver_library(drivers: &Path, driver: &str) -> Option<PathBuf> {
    let begin = format!("librte_{driver}.so.");
    let mut found: Vec<PathBuf> = fs::read_dir(drivers)
        .ok()?
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(&begin))
        .map(|entry| entry.path())
        .collect();
    found.sort_by_key(|path| path.as_os_str().len());
    found.into_iter().next()
}

/// The Debian package of a driver: its name carries the version of DPDK's binary interface, which the directory's name ends in.
#[must_use]
pub fn driver_package(drivers: &Path, driver: &str) -> String {
    let name = drivers
        .file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default();
    let version = name
        .strip_prefix("pmds-")
        .and_then(|version| version.split('.').next())
        .unwrap_or_default();
    format!("librte-{}{version}", driver.replace('_', "-"))
}

/// Free huge pages of all sizes, in MiB.
#[must_use]
pub fn huge_free_mib() -> u64 {
    huge_free_mib_under(Path::new("/sys/kernel/mm/hugepages"))
}

fn huge_free_mib_under(root: &Path) -> u64 {
    let Ok(sizes) = fs::read_dir(root) else {
        return 0;
    };
    let free_kib = sizes.flatten().map(|size| {
        let name = size.file_name().to_string_lossy().into_owned();
        let kib = name
            .strip_prefix("hugepages-")
            .and_then(|rest| rest.strip_suffix("kB"))
            .and_then(|kib| kib.parse::<u64>().ok())
            .unwrap_or(0);
        let pages = fs::read_to_string(size.path().join("free_hugepages"))
            .ok()
            .and_then(|text| text.trim().parse::<u64>().ok())
            .unwrap_or(0);
        kib.saturating_mul(pages)
    });
    free_kib.fold(0, u64::saturating_add) / 1024
}

/// Removes the files that processes of ours with the default prefix, which are gone, left in DPDK's directory.
pub fn sweep(directory: &Path) {
    let Ok(entries) = fs::read_dir(directory) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let owner = name
            .to_str()
            .and_then(|name| name.strip_prefix(OWN_PREFIX))
            .and_then(|pid| pid.parse::<u32>().ok());
        if let Some(pid) = owner
            && !Path::new(&format!("/proc/{pid}")).exists()
        {
            // Somebody else may have been quicker, or it is another user's.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

fn check_interface(interface: &str, mtu_bytes: u32) -> Result<(), OpenError> {
    let Some(found) = Interface::read(interface) else {
        return Err(OpenError::NoInterface {
            interface: interface.to_owned(),
        });
    };
    if !found.up {
        return Err(OpenError::InterfaceDown {
            interface: interface.to_owned(),
        });
    }
    if mtu_bytes > found.mtu_bytes {
        return Err(OpenError::InterfaceMtu {
            interface: interface.to_owned(),
            asked: mtu_bytes,
            most: found.mtu_bytes,
        });
    }
    Ok(())
}

fn check_capability(
    vdev: &Vdev,
    bit: u32,
    capability: &'static str,
    setcap: &'static str,
) -> Result<(), OpenError> {
    let status = fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    // Where the mask cannot be read, the kernel is asked by trying.
    if effective(&status).is_none_or(|mask| mask & (1 << bit) != 0) {
        return Ok(());
    }
    Err(OpenError::NotPermitted {
        device: vdev.to_string(),
        capability,
        setcap,
    })
}

/// The mask of effective capabilities in the kernel's description of a thread.
fn effective(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|l| l.strip_prefix("CapEff:"))?;
    u64::from_str_radix(line.trim(), 16).ok()
}

fn interface_index(interface: &str) -> bool {
    let Ok(name) = CString::new(interface) else {
        return false;
    };
    // SAFETY: the name ends in a zero and is read during the call only.
    unsafe { libc::if_nametoindex(name.as_ptr()) != 0 }
}

/// What the kernel says of an interface.
#[derive(Clone, Copy, Debug)]
struct Interface {
    up: bool,
    mtu_bytes: u32,
}

impl Interface {
    fn read(name: &str) -> Option<Self> {
        if !interface_index(name) {
            return None;
        }
        let mut request = request(name);
        ask(libc::SIOCGIFFLAGS, &mut request)?;
        // SAFETY: the call filled in this member of the union.
        let flags = unsafe { request.ifr_ifru.ifru_flags };
        ask(libc::SIOCGIFMTU, &mut request)?;
        // SAFETY: the call filled in this member of the union.
        let mtu = unsafe { request.ifr_ifru.ifru_mtu };
        Some(Self {
            up: i32::from(flags) & libc::IFF_UP != 0,
            mtu_bytes: u32::try_from(mtu).unwrap_or(0),
        })
    }
}

/// Numbers of queues of an interface. *Source*: `struct ethtool_channels` in `linux/ethtool.h`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct Channels {
    command: u32,
    max_rx: u32,
    max_tx: u32,
    max_other: u32,
    max_combined: u32,
    rx: u32,
    tx: u32,
    other: u32,
    combined: u32,
}

/// Receive queues of an interface; `None` where its driver does not say.
fn queues(interface: &str) -> Option<u32> {
    const SIOCETHTOOL: libc::Ioctl = 0x8946;
    const ETHTOOL_GCHANNELS: u32 = 0x3c;
    let mut channels = Channels {
        command: ETHTOOL_GCHANNELS,
        ..Default::default()
    };
    let mut request = request(interface);
    request.ifr_ifru.ifru_data = (&raw mut channels).cast();
    ask(SIOCETHTOOL, &mut request)?;
    let count = channels.rx.max(channels.combined);
    (count > 0).then_some(count)
}

fn request(interface: &str) -> libc::ifreq {
    // SAFETY: integers and a union of integers and addresses, for which zero bits are a value.
    let mut request: libc::ifreq = unsafe { zeroed() };
    // The name is shorter than its place: `Vdev::check` saw to it, and a longer one is cut short with its zero kept.
    let places = request.ifr_name.len() - 1;
    for (to, from) in request.ifr_name[..places].iter_mut().zip(interface.bytes()) {
        // The sign of a character is the platform's.
        *to = from as libc::c_char;
    }
    request
}

/// Asks the kernel about an interface.
fn ask(what: libc::Ioctl, request: &mut libc::ifreq) -> Option<()> {
    let socket = socket(libc::AF_INET, libc::SOCK_DGRAM).ok()?;
    let request = std::ptr::from_mut(request);
    // SAFETY: the descriptor is a socket; the request is whole, names an interface, and lives during the call, as does what it points at.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), what, request) };
    (result == 0).then_some(())
}

fn socket(family: i32, kind: i32) -> io::Result<OwnedFd> {
    // SAFETY: the call takes integers only.
    let fd = unsafe { libc::socket(family, kind | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a descriptor that was just made and belongs to nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Makes way for a listener: a socket on which nobody listens was left by a process that was killed, and is removed.
fn clear_socket(path: &Path) -> Result<(), OpenError> {
    let error = |why: String| OpenError::Socket {
        socket: path.to_path_buf(),
        why,
    };
    let kind = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata.file_type(),
        Err(found) if found.kind() == io::ErrorKind::NotFound => {
            return match path.parent() {
                Some(parent) if parent.is_dir() => Ok(()),
                _ => Err(error("its directory is not there".to_owned())),
            };
        }
        Err(found) => return Err(error(found.to_string())),
    };
    if !kind.is_socket() {
        return Err(error(
            "there is a file of that name that is no socket".to_owned(),
        ));
    }
    match connect(path) {
        Ok(()) => Err(OpenError::SocketInUse {
            socket: path.to_path_buf(),
        }),
        Err(found) if found.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(|found| error(found.to_string()))
        }
        // A listener whose queue is full, or a socket of another kind: somebody has it.
        Err(_) => Err(OpenError::SocketInUse {
            socket: path.to_path_buf(),
        }),
    }
}

/// Connects as a memif client does, and hangs up.
fn connect(path: &Path) -> io::Result<()> {
    let socket = socket(libc::AF_UNIX, libc::SOCK_SEQPACKET)?;
    // SAFETY: integers only, for which zero bits are a value.
    let mut address: libc::sockaddr_un = unsafe { zeroed() };
    address.sun_family = libc::AF_UNIX as libc::sa_family_t;
    let bytes = path.as_os_str().as_bytes();
    if bytes.len() >= address.sun_path.len() {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    for (to, from) in address.sun_path.iter_mut().zip(bytes) {
        *to = *from as libc::c_char;
    }
    // SAFETY: the address is whole and lives during the call; its size is the type's.
    let result = unsafe {
        libc::connect(
            socket.as_raw_fd(),
            (&raw const address).cast(),
            size_of::<libc::sockaddr_un>() as libc::socklen_t,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(test)]
#[path = "preflight/tests.rs"]
mod tests;
