//! Looking at a network interface by its name, and setting it up.
//!
//! *Source*: netdevice(7).

use std::io::{Error, Result};
use std::os::fd::{AsRawFd, OwnedFd};

use ionian_ether::MacAddr;

use crate::error::LinkOpenError;
use crate::system::{check, socket};

/// Makes a port of a bridge of an interface: SIOCBRADDIF. *Source*: linux/sockios.h.
const ADD_PORT: libc::Ioctl = 0x89a2;

/// A name and the socket through which the kernel is asked about it.
#[derive(Debug)]
pub(crate) struct Interface {
    control: OwnedFd,
    name: String,
}

/// A request that names an interface, with zeroed arguments.
pub(crate) fn request(name: &str) -> std::result::Result<libc::ifreq, LinkOpenError> {
    let plain = |byte: u8| byte.is_ascii_graphic() && byte != b'/' && byte != b':';
    if name.is_empty()
        || name.len() >= libc::IFNAMSIZ
        || !name.bytes().all(plain)
        || matches!(name, "." | "..")
    {
        return Err(LinkOpenError::Name {
            name: name.to_owned(),
        });
    }
    // SAFETY: integers, arrays and a pointer, for which zero bits are a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    Ok(request)
}

impl Interface {
    pub(crate) fn new(name: &str) -> std::result::Result<Self, LinkOpenError> {
        request(name)?;
        let control =
            socket(libc::AF_INET, libc::SOCK_DGRAM).map_err(|source| LinkOpenError::System {
                call: "socket",
                name: name.to_owned(),
                source,
            })?;
        Ok(Self {
            control,
            name: name.to_owned(),
        })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// What became of a request about this interface, in words.
    pub(crate) fn error(&self, call: &'static str, source: Error) -> LinkOpenError {
        let name = self.name.clone();
        match source.raw_os_error() {
            Some(libc::ENODEV | libc::ENXIO) => LinkOpenError::Missing { name },
            Some(libc::EPERM | libc::EACCES) => LinkOpenError::NotPermitted {
                what: format!("set up the interface `{name}` ({call})"),
                capability: "cap_net_admin",
            },
            _ => LinkOpenError::System { call, name, source },
        }
    }

    pub(crate) fn index(&self) -> std::result::Result<i32, LinkOpenError> {
        let request = self.ask("SIOCGIFINDEX", libc::SIOCGIFINDEX as _)?;
        // SAFETY: the kernel has just filled in this field, an integer.
        Ok(unsafe { request.ifr_ifru.ifru_ifindex })
    }

    /// The hardware address. An interface that carries no Ethernet frames is an error.
    pub(crate) fn mac(&self) -> std::result::Result<MacAddr, LinkOpenError> {
        let request = self.ask("SIOCGIFHWADDR", libc::SIOCGIFHWADDR as _)?;
        // SAFETY: the kernel has just filled in this field: a family and bytes.
        let address = unsafe { request.ifr_ifru.ifru_hwaddr };
        if address.sa_family != libc::ARPHRD_ETHER {
            return Err(LinkOpenError::NotEthernet {
                name: self.name.clone(),
            });
        }
        let mut mac = [0; 6];
        for (to, from) in mac.iter_mut().zip(address.sa_data) {
            *to = from as u8;
        }
        Ok(MacAddr(mac))
    }

    pub(crate) fn mtu_bytes(&self) -> std::result::Result<u32, LinkOpenError> {
        let request = self.ask("SIOCGIFMTU", libc::SIOCGIFMTU as _)?;
        // SAFETY: the kernel has just filled in this field, an integer.
        let mtu = unsafe { request.ifr_ifru.ifru_mtu };
        Ok(mtu.unsigned_abs())
    }

    pub(crate) fn is_up(&self) -> std::result::Result<bool, LinkOpenError> {
        Ok(self.flags()? & libc::IFF_UP as libc::c_short != 0)
    }

    /// Sets the MTU.
    pub(crate) fn set_mtu(&self, mtu_bytes: u32) -> Result<()> {
        let mut request = self.empty();
        request.ifr_ifru.ifru_mtu = i32::try_from(mtu_bytes).unwrap_or(i32::MAX);
        self.ioctl(libc::SIOCSIFMTU as _, &mut request)
    }

    /// Brings the interface up, if it is not.
    pub(crate) fn bring_up(&self) -> std::result::Result<(), LinkOpenError> {
        let flags = self.flags()?;
        let up = libc::IFF_UP as libc::c_short;
        if flags & up != 0 {
            return Ok(());
        }
        let mut request = self.empty();
        request.ifr_ifru.ifru_flags = flags | up;
        self.ioctl(libc::SIOCSIFFLAGS as _, &mut request)
            .map_err(|source| self.error("SIOCSIFFLAGS", source))
    }

    /// Makes a port of this bridge of the interface with that number.
    pub(crate) fn add_port(&self, index: i32) -> std::result::Result<(), LinkOpenError> {
        let mut request = self.empty();
        request.ifr_ifru.ifru_ifindex = index;
        match self.ioctl(ADD_PORT, &mut request) {
            // It is a port already: of this bridge, if somebody prepared it.
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => Ok(()),
            result => result.map_err(|source| self.error("SIOCBRADDIF", source)),
        }
    }

    fn flags(&self) -> std::result::Result<libc::c_short, LinkOpenError> {
        let request = self.ask("SIOCGIFFLAGS", libc::SIOCGIFFLAGS as _)?;
        // SAFETY: the kernel has just filled in this field, an integer.
        Ok(unsafe { request.ifr_ifru.ifru_flags })
    }

    fn empty(&self) -> libc::ifreq {
        request(&self.name).expect("the name was checked")
    }

    fn ask(
        &self,
        call: &'static str,
        number: libc::Ioctl,
    ) -> std::result::Result<libc::ifreq, LinkOpenError> {
        let mut request = self.empty();
        self.ioctl(number, &mut request)
            .map_err(|source| self.error(call, source))?;
        Ok(request)
    }

    fn ioctl(&self, number: libc::Ioctl, request: &mut libc::ifreq) -> Result<()> {
        // SAFETY: each of the numbers used here takes a request that names an interface, reads or fills in one field of it,
        // and keeps no pointer to it.
        check(unsafe {
            libc::ioctl(
                self.control.as_raw_fd(),
                number,
                std::ptr::from_mut(request),
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_none_are_refused_before_the_kernel_sees_them() {
        for name in [
            "",
            "sixteen-bytes-xx",
            "a b",
            "a/b",
            "a:b",
            ".",
            "..",
            "naïve",
        ] {
            let error = Interface::new(name).expect_err("not a name");
            assert!(matches!(error, LinkOpenError::Name { .. }), "{error}");
        }
        assert!(Interface::new("fifteen-bytes-x").is_ok());
    }

    #[test]
    fn the_loopback_is_there_and_carries_no_ethernet() {
        let lo = Interface::new("lo").expect("a name");
        assert!(lo.index().expect("an index") > 0);
        assert!(lo.mtu_bytes().expect("an MTU") > 0);
        let error = lo.mac().expect_err("not Ethernet");
        assert!(
            error
                .to_string()
                .contains("`lo` does not carry Ethernet frames"),
            "{error}"
        );
        let missing = Interface::new("ionian-no-if").expect("a name");
        let error = missing.index().expect_err("there is none");
        assert!(
            error
                .to_string()
                .starts_with("there is no interface `ionian-no-if`"),
            "{error}"
        );
    }
}
