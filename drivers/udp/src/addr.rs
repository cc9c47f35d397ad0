//! Addresses between Rust's form and the kernel's.

use std::mem::size_of;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

/// Room for an address of either family, as the kernel wants it.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) union RawAddr {
    family: libc::sa_family_t,
    v4: libc::sockaddr_in,
    v6: libc::sockaddr_in6,
}

impl RawAddr {
    /// The unspecified address, to be filled.
    pub(crate) const fn empty() -> Self {
        Self {
            v6: libc::sockaddr_in6 {
                sin6_family: 0,
                sin6_port: 0,
                sin6_flowinfo: 0,
                sin6_addr: libc::in6_addr { s6_addr: [0; 16] },
                sin6_scope_id: 0,
            },
        }
    }

    /// Encodes `addr` for a socket of the given family; `None` if that socket cannot reach it. Returns its length too.
    pub(crate) fn encode(addr: &SocketAddr, ipv6_socket: bool) -> Option<(Self, u32)> {
        let v6 = |ip: &Ipv6Addr, port: u16, flowinfo: u32, scope_id: u32| {
            let sockaddr = libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as libc::sa_family_t,
                sin6_port: port.to_be(),
                sin6_flowinfo: flowinfo,
                sin6_addr: libc::in6_addr {
                    s6_addr: ip.octets(),
                },
                sin6_scope_id: scope_id,
            };
            (
                Self { v6: sockaddr },
                size_of::<libc::sockaddr_in6>() as u32,
            )
        };
        match (addr, ipv6_socket) {
            (SocketAddr::V4(addr), false) => {
                // From the empty form, so that no byte is uninitialised.
                let mut raw = Self::empty();
                raw.v4 = libc::sockaddr_in {
                    sin_family: libc::AF_INET as libc::sa_family_t,
                    sin_port: addr.port().to_be(),
                    sin_addr: libc::in_addr {
                        s_addr: u32::from(*addr.ip()).to_be(),
                    },
                    sin_zero: [0; 8],
                };
                Some((raw, size_of::<libc::sockaddr_in>() as u32))
            }
            (SocketAddr::V4(addr), true) => {
                Some(v6(&addr.ip().to_ipv6_mapped(), addr.port(), 0, 0))
            }
            (SocketAddr::V6(addr), true) => {
                Some(v6(addr.ip(), addr.port(), addr.flowinfo(), addr.scope_id()))
            }
            (SocketAddr::V6(_), false) => None,
        }
    }

    /// Decodes what the kernel wrote. `None` for a family that is neither IPv4 nor IPv6.
    pub(crate) fn decode(&self) -> Option<SocketAddr> {
        // SAFETY: every field of the union starts with the family, and `empty` or the kernel has initialised it.
        let family = i32::from(unsafe { self.family });
        if family == libc::AF_INET {
            // SAFETY: plain integers, initialised by `empty` and then by the kernel, valid for any bits.
            let v4 = unsafe { self.v4 };
            let ip = Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr));
            return Some(SocketAddrV4::new(ip, u16::from_be(v4.sin_port)).into());
        }
        if family != libc::AF_INET6 {
            return None;
        }
        // SAFETY: as above.
        let v6 = unsafe { self.v6 };
        let (ip, port) = (
            Ipv6Addr::from(v6.sin6_addr.s6_addr),
            u16::from_be(v6.sin6_port),
        );
        Some(match ip.to_ipv4_mapped() {
            Some(ip) => SocketAddrV4::new(ip, port).into(),
            None => SocketAddrV6::new(ip, port, v6.sin6_flowinfo, v6.sin6_scope_id).into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_survive_the_round_trip() {
        for (text, ipv6_socket) in [
            ("127.0.0.1:7410", false),
            ("10.1.2.3:1", true),
            ("[::1]:65535", true),
            ("[fe80::1%3]:9", true),
        ] {
            let addr: SocketAddr = text.parse().expect("an address");
            let (raw, _) = RawAddr::encode(&addr, ipv6_socket).expect("reachable");
            assert_eq!(raw.decode(), Some(addr));
        }
        let addr: SocketAddr = "[::1]:1".parse().expect("an address");
        assert!(
            RawAddr::encode(&addr, false).is_none(),
            "an IPv4 socket cannot send to IPv6"
        );
        assert_eq!(RawAddr::empty().decode(), None);
    }
}
