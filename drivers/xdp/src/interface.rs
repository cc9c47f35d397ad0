//! The interface below a link: its number, address, MTU, and whether it is up.
//!
//! Asked by the ioctls of netdevice(7) over a socket of the namespace in which the link was opened, so that the answers
//! stay those of that namespace whichever thread asks.

use std::io;
use std::mem::zeroed;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixDatagram;

use ionian_ether::MacAddr;

use crate::error::{Step, XdpOpenError};

/// How an interface is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum LinkState {
    /// Frames can pass.
    Up,
    /// Switched on, but nothing answers at the other end of the cable. The kernel says so up to a second late, both ways.
    NoCarrier,
    /// Switched off.
    Off,
    /// Removed, or moved to another namespace; what now has the name is another one.
    Gone,
}

/// An interface, by name.
pub(crate) struct Interface {
    /// Any socket will do; this one needs no right and no address.
    control: UnixDatagram,
    name: [libc::c_char; libc::IFNAMSIZ],
    pub(crate) index: u32,
    pub(crate) mac: MacAddr,
    pub(crate) mtu_bytes: u32,
}

impl std::fmt::Debug for Interface {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Interface")
            .field("index", &self.index)
            .field("mtu_bytes", &self.mtu_bytes)
            .finish_non_exhaustive()
    }
}

impl Interface {
    /// Looks an interface up.
    ///
    /// # Errors
    ///
    /// [`XdpOpenError`] for one that is not there, is not for Ethernet, or is switched off. Effect: none.
    pub(crate) fn open(name: &str) -> Result<Self, XdpOpenError> {
        let fail = |source| Step::Interface.error(name, source);
        let missing = || XdpOpenError::NoInterface {
            interface: name.to_owned(),
        };
        let mut interface = Self {
            control: UnixDatagram::unbound().map_err(fail)?,
            name: c_name(name).ok_or_else(missing)?,
            index: 0,
            mac: MacAddr::default(),
            mtu_bytes: 0,
        };
        interface.index = interface.ask_index().map_err(fail)?;
        let (kind, mac) = interface.ask_address().map_err(fail)?;
        if kind != libc::ARPHRD_ETHER {
            return Err(XdpOpenError::NotEthernet {
                interface: name.to_owned(),
                kind,
            });
        }
        interface.mac = mac;
        interface.mtu_bytes = interface.ask_mtu().map_err(fail)?;
        if interface.ask_flags().map_err(fail)? & libc::IFF_UP == 0 {
            return Err(XdpOpenError::Down {
                interface: name.to_owned(),
            });
        }
        Ok(interface)
    }

    /// How the interface is now. Two system calls.
    pub(crate) fn state(&self) -> LinkState {
        match (self.ask_index(), self.ask_flags()) {
            (Ok(index), Ok(flags)) if index == self.index => {
                if flags & libc::IFF_UP == 0 {
                    LinkState::Off
                } else if flags & libc::IFF_RUNNING == 0 {
                    LinkState::NoCarrier
                } else {
                    LinkState::Up
                }
            }
            _ => LinkState::Gone,
        }
    }

    fn ask_index(&self) -> io::Result<u32> {
        let answer = self.ask(libc::SIOCGIFINDEX)?;
        // SAFETY: the kernel has answered with the number of the interface in this field, and any bits are an integer.
        Ok(unsafe { answer.ifr_ifru.ifru_ifindex }.cast_unsigned())
    }

    fn ask_mtu(&self) -> io::Result<u32> {
        let answer = self.ask(libc::SIOCGIFMTU)?;
        // SAFETY: the kernel has answered with the MTU in this field, and any bits are an integer.
        Ok(unsafe { answer.ifr_ifru.ifru_mtu }.cast_unsigned())
    }

    fn ask_flags(&self) -> io::Result<libc::c_int> {
        let answer = self.ask(libc::SIOCGIFFLAGS)?;
        // SAFETY: the kernel has answered with the flags in this field, and any bits are an integer.
        Ok(unsafe { answer.ifr_ifru.ifru_flags }.into())
    }

    /// Type and address of the hardware.
    fn ask_address(&self) -> io::Result<(u16, MacAddr)> {
        let answer = self.ask(libc::SIOCGIFHWADDR)?;
        // SAFETY: the kernel has answered with the address in this field, and any bits are integers.
        let address = unsafe { answer.ifr_ifru.ifru_hwaddr };
        let mac = MacAddr(std::array::from_fn(|at| address.sa_data[at] as u8));
        Ok((address.sa_family, mac))
    }

    fn ask(&self, request: libc::Ioctl) -> io::Result<libc::ifreq> {
        // SAFETY: integers and a pointer, for which zero bits are a value.
        let mut question: libc::ifreq = unsafe { zeroed() };
        question.ifr_name = self.name;
        // SAFETY: each request that is used here reads the name and writes a field of this structure, which is a local
        // variable and outlives the call; the name ends with a zero byte (see `c_name`).
        let result = unsafe { libc::ioctl(self.control.as_raw_fd(), request, &raw mut question) };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(question)
    }
}

/// A name as the kernel takes it; `None` for one that no interface can have.
fn c_name(name: &str) -> Option<[libc::c_char; libc::IFNAMSIZ]> {
    let bytes = name.as_bytes();
    if bytes.is_empty() || bytes.len() >= libc::IFNAMSIZ || bytes.contains(&0) {
        return None;
    }
    let mut c_name = [0; libc::IFNAMSIZ];
    for (to, from) in c_name.iter_mut().zip(bytes) {
        *to = from.cast_signed() as libc::c_char;
    }
    Some(c_name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_link_can_be_opened_on_is_said() {
        for name in ["", "a-name-far-too-long", "no\0name", "ionian-none"] {
            let error = Interface::open(name).expect_err("no such interface");
            assert!(matches!(error, XdpOpenError::NoInterface { .. }), "{error}");
        }
        let error = Interface::open("lo").expect_err("the loopback is no Ethernet");
        assert!(matches!(error, XdpOpenError::NotEthernet { .. }), "{error}");
    }
}
