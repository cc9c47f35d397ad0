//! Virtual devices: which there are, what DPDK calls them, and the arguments that make one.
//!
//! A value of [`Vdev`] can name no argument that its driver does not know; text (a profile's line) is read by
//! [`Vdev::from_str`], which refuses what is unknown and says what is known.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use thiserror::Error;

/// A device that is software: another end in memory, or an interface of the kernel.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Vdev {
    /// Frames through a packet socket of the kernel, on an interface that exists.
    AfPacket {
        /// Name of the interface.
        interface: String,
    },
    /// Frames past most of the kernel's network stack, on an interface that exists (AF_XDP).
    AfXdp {
        /// Name of the interface.
        interface: String,
        /// First queue of the interface to take over.
        start_queue: u16,
        /// Copy frames even where the interface could share its memory.
        force_copy: bool,
    },
    /// A new TAP interface of the kernel, whose other side is this process.
    Tap {
        /// Name of the interface to make.
        interface: String,
    },
    /// Memory shared with another process on this machine.
    Memif {
        /// Which end this process is. One of each makes a link.
        role: MemifRole,
        /// The file of the socket where the ends meet. The server makes it.
        socket: PathBuf,
        /// Tells links over one socket apart.
        id: u32,
    },
}

/// Which end of a memif link a process is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MemifRole {
    /// Listens on the socket.
    Server,
    /// Connects to it, once, when the port is opened: after its server ended, the port is to be opened again.
    Client,
}

/// Text that names no device. Effect: none.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum VdevError {
    /// There is no such driver here.
    #[error("{driver} is no virtual device that is known here: use one of {known}")]
    Driver {
        /// What was asked for.
        driver: String,
        /// What there is.
        known: String,
    },
    /// The driver has no such argument.
    #[error("{driver} has no argument {argument}: it knows {known}")]
    Argument {
        /// The driver.
        driver: &'static str,
        /// What was given.
        argument: String,
        /// What there is.
        known: String,
    },
    /// An argument that must be there is not.
    #[error("{driver} needs {argument}=VALUE")]
    Missing {
        /// The driver.
        driver: &'static str,
        /// What is missing.
        argument: &'static str,
    },
    /// An argument has a value that it cannot have.
    #[error("{driver}: {argument}={value} is not {wanted}")]
    Value {
        /// The driver.
        driver: &'static str,
        /// The argument.
        argument: &'static str,
        /// Its value.
        value: String,
        /// What would be one.
        wanted: &'static str,
    },
}

/// Longest name of an interface, in bytes: the kernel's `IFNAMSIZ` less the zero at the end.
const INTERFACE_BYTES_MAX: usize = 15;
/// Longest path of a socket, in bytes: the kernel's `sun_path` less the zero at the end.
const SOCKET_BYTES_MAX: usize = 107;
/// Largest frame beside its MTU, in bytes: Ethernet header and one VLAN tag.
const FRAME_EXTRA_BYTES: u32 = 14 + 4;
/// What a packet socket puts in front of a frame, in bytes, rounded up generously.
const PACKET_SOCKET_BYTES: u32 = 128;
/// Frames in the ring of a packet socket, in each direction.
const PACKET_SOCKET_FRAMES: u32 = 512;

/// Drivers by name, with the arguments that text may give them.
const DRIVERS: &[(&str, &[&str])] = &[
    ("net_af_packet", &["iface"]),
    ("net_af_xdp", &["iface", "start_queue", "force_copy"]),
    ("net_tap", &["iface"]),
    ("net_memif", &["role", "socket", "id"]),
];

impl Vdev {
    /// The driver's name in DPDK.
    #[must_use]
    pub const fn driver(&self) -> &'static str {
        match self {
            Self::AfPacket { .. } => "net_af_packet",
            Self::AfXdp { .. } => "net_af_xdp",
            Self::Tap { .. } => "net_tap",
            Self::Memif { .. } => "net_memif",
        }
    }

    /// The interface of the kernel that it works on and that has to be there.
    #[must_use]
    pub fn existing_interface(&self) -> Option<&str> {
        match self {
            Self::AfPacket { interface } | Self::AfXdp { interface, .. } => Some(interface),
            Self::Tap { .. } | Self::Memif { .. } => None,
        }
    }

    /// Says whether every value is one that DPDK reads as it is meant.
    ///
    /// # Errors
    ///
    /// [`VdevError::Value`]. Effect: none.
    pub fn check(&self) -> Result<(), VdevError> {
        let value = |argument, value: &str, wanted| VdevError::Value {
            driver: self.driver(),
            argument,
            value: value.to_owned(),
            wanted,
        };
        match self {
            Self::AfPacket { interface }
            | Self::AfXdp { interface, .. }
            | Self::Tap { interface } => {
                let good = (1..=INTERFACE_BYTES_MAX).contains(&interface.len())
                    && interface
                        .bytes()
                        .all(|b| b.is_ascii_graphic() && !b",=/".contains(&b));
                if good {
                    Ok(())
                } else {
                    let wanted = "the name of an interface: 1 to 15 characters without space, comma, = and /";
                    Err(value("iface", interface, wanted))
                }
            }
            Self::Memif { socket, .. } => {
                let text = socket.to_string_lossy();
                let good = socket.is_absolute()
                    && text.len() <= SOCKET_BYTES_MAX
                    && text
                        .bytes()
                        .all(|b| b.is_ascii_graphic() && !b",=".contains(&b));
                if good {
                    Ok(())
                } else {
                    let wanted =
                        "an absolute path of at most 107 characters without space, comma and =";
                    Err(value("socket", &text, wanted))
                }
            }
        }
    }

    /// The arguments that make the device with so many queue pairs and frames of up to `mtu_bytes` of payload.
    #[must_use]
    pub fn arguments(&self, queues: u16, mtu_bytes: u32) -> String {
        match self {
            Self::AfPacket { interface } => {
                let frame = self.socket_frame_bytes(mtu_bytes);
                // Blocks are whole pages and hold whole frames.
                let block = frame.max(4096);
                format!(
                    "iface={interface},qpairs={queues},blocksz={block},framesz={frame},framecnt={PACKET_SOCKET_FRAMES},qdisc_bypass=1"
                )
            }
            Self::AfXdp {
                interface,
                start_queue,
                force_copy,
            } => {
                let force = u8::from(*force_copy);
                format!(
                    "iface={interface},start_queue={start_queue},queue_count={queues},force_copy={force}"
                )
            }
            Self::Tap { interface } => format!("iface={interface}"),
            Self::Memif { role, socket, id } => {
                let buffer = (mtu_bytes + FRAME_EXTRA_BYTES)
                    .next_multiple_of(64)
                    .max(2048);
                format!(
                    "role={role},id={id},socket={},socket-abstract=no,bsize={buffer}",
                    socket.display()
                )
            }
        }
    }

    /// Bytes that the driver may put into one mbuf at most, for frames of up to `mtu_bytes` of payload.
    #[must_use]
    pub fn room_bytes(&self, mtu_bytes: u32) -> u32 {
        let frame = match self {
            Self::AfPacket { .. } => self.socket_frame_bytes(mtu_bytes),
            _ => mtu_bytes + FRAME_EXTRA_BYTES,
        };
        frame.next_multiple_of(64).max(2048)
    }

    /// One place in the ring of a packet socket, a power of two so that blocks hold whole ones.
    const fn socket_frame_bytes(&self, mtu_bytes: u32) -> u32 {
        let bytes = (mtu_bytes + FRAME_EXTRA_BYTES + PACKET_SOCKET_BYTES).next_power_of_two();
        if bytes < 2048 { 2048 } else { bytes }
    }
}

impl fmt::Display for MemifRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Server => "server",
            Self::Client => "client",
        })
    }
}

impl fmt::Display for Vdev {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AfPacket { interface }
            | Self::AfXdp { interface, .. }
            | Self::Tap { interface } => write!(f, "{} on {interface}", self.driver()),
            Self::Memif { role, socket, id } => {
                write!(f, "{} {role} {id} at {}", self.driver(), socket.display())
            }
        }
    }
}

impl FromStr for Vdev {
    type Err = VdevError;

    /// Reads `DRIVER,NAME=VALUE,...`, as in a profile.
    fn from_str(text: &str) -> Result<Self, VdevError> {
        let mut parts = text.split(',').map(str::trim);
        let asked = parts.next().unwrap_or_default();
        let Some(&(driver, known)) = DRIVERS.iter().find(|(name, _)| *name == asked) else {
            let names: Vec<&str> = DRIVERS.iter().map(|(name, _)| *name).collect();
            return Err(VdevError::Driver {
                driver: asked.to_owned(),
                known: names.join(", "),
            });
        };
        let mut given: Vec<(&'static str, &str)> = Vec::new();
        for part in parts {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            match known.iter().find(|argument| **argument == name) {
                Some(argument) if given.iter().all(|(other, _)| other != argument) => {
                    given.push((argument, value));
                }
                _ => {
                    return Err(VdevError::Argument {
                        driver,
                        argument: name.to_owned(),
                        known: format!("each of these once: {}", known.join(", ")),
                    });
                }
            }
        }
        let find = |argument| given.iter().find(|(name, _)| *name == argument);
        let need = |argument: &'static str| {
            find(argument)
                .map(|(_, value)| (*value).to_owned())
                .ok_or(VdevError::Missing { driver, argument })
        };
        let vdev = match driver {
            "net_af_packet" => Self::AfPacket {
                interface: need("iface")?,
            },
            "net_af_xdp" => Self::AfXdp {
                interface: need("iface")?,
                start_queue: number(driver, "start_queue", find("start_queue"))?,
                force_copy: match find("force_copy") {
                    None | Some((_, "0")) => false,
                    Some((_, "1")) => true,
                    Some((_, value)) => {
                        return Err(VdevError::Value {
                            driver,
                            argument: "force_copy",
                            value: (*value).to_owned(),
                            wanted: "0 or 1",
                        });
                    }
                },
            },
            "net_tap" => Self::Tap {
                interface: need("iface")?,
            },
            _ => Self::Memif {
                role: match need("role")?.as_str() {
                    "server" => MemifRole::Server,
                    "client" => MemifRole::Client,
                    other => {
                        return Err(VdevError::Value {
                            driver,
                            argument: "role",
                            value: other.to_owned(),
                            wanted: "server or client",
                        });
                    }
                },
                socket: PathBuf::from(need("socket")?),
                id: number(driver, "id", find("id"))?,
            },
        };
        vdev.check()?;
        Ok(vdev)
    }
}

/// A number that is 0 where it is not given.
fn number<T: FromStr + Default>(
    driver: &'static str,
    argument: &'static str,
    given: Option<&(&'static str, &str)>,
) -> Result<T, VdevError> {
    let Some((_, value)) = given else {
        return Ok(T::default());
    };
    value.parse().map_err(|_| VdevError::Value {
        driver,
        argument,
        value: (*value).to_owned(),
        wanted: "a whole number in range",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vdev, String> {
        text.parse::<Vdev>().map_err(|error| error.to_string())
    }

    #[test]
    fn text_of_every_driver_is_read() {
        for (text, arguments) in [
            (
                "net_af_packet,iface=eth0",
                "iface=eth0,qpairs=2,blocksz=4096,framesz=2048,framecnt=512,qdisc_bypass=1",
            ),
            (
                "net_af_xdp,iface=eth0,start_queue=3,force_copy=1",
                "iface=eth0,start_queue=3,queue_count=2,force_copy=1",
            ),
            ("net_tap, iface=tap9", "iface=tap9"),
            (
                "net_memif,role=client,socket=/run/a.sock,id=7",
                "role=client,id=7,socket=/run/a.sock,socket-abstract=no,bsize=2048",
            ),
        ] {
            let vdev = read(text).expect("known");
            assert_eq!(vdev.arguments(2, 1500), arguments);
            assert!(text.starts_with(vdev.driver()));
            assert!(vdev.to_string().starts_with(vdev.driver()));
        }
    }

    #[test]
    fn jumbo_frames_get_room() {
        let packet = read("net_af_packet,iface=a").expect("known");
        assert!(
            packet
                .arguments(1, 9000)
                .contains("blocksz=16384,framesz=16384")
        );
        assert_eq!(packet.room_bytes(9000), 16384);
        let memif = read("net_memif,role=server,socket=/a").expect("known");
        assert!(memif.arguments(1, 9000).contains("bsize=9024"));
        assert_eq!(memif.room_bytes(9000), 9024);
        assert_eq!(memif.room_bytes(576), 2048);
    }

    #[test]
    fn what_is_unknown_is_refused_with_what_is_known() {
        for (text, sentence) in [
            (
                "net_pcap,iface=a",
                "net_pcap is no virtual device that is known here: use one of net_af_packet, net_af_xdp, net_tap, net_memif",
            ),
            (
                "net_af_xdp,iface=a,queue=1",
                "net_af_xdp has no argument queue: it knows each of these once: iface, start_queue, force_copy",
            ),
            (
                "net_tap,iface=a,iface=b",
                "net_tap has no argument iface: it knows each of these once: iface",
            ),
            ("net_tap", "net_tap needs iface=VALUE"),
            ("net_memif,role=server", "net_memif needs socket=VALUE"),
            (
                "net_memif,role=master,socket=/a",
                "net_memif: role=master is not server or client",
            ),
            (
                "net_af_xdp,iface=a,start_queue=x",
                "net_af_xdp: start_queue=x is not a whole number in range",
            ),
            (
                "net_af_xdp,iface=a,force_copy=yes",
                "net_af_xdp: force_copy=yes is not 0 or 1",
            ),
            (
                "net_tap,iface=a-name-that-is-too-long",
                "net_tap: iface=a-name-that-is-too-long is not the name of an interface: 1 to 15 characters without space, comma, = and /",
            ),
            (
                "net_memif,role=server,socket=here",
                "net_memif: socket=here is not an absolute path of at most 107 characters without space, comma and =",
            ),
        ] {
            assert_eq!(read(text), Err(sentence.to_owned()));
        }
    }

    #[test]
    fn a_value_cannot_smuggle_in_another_argument() {
        let vdev = Vdev::AfXdp {
            interface: "a,force_copy=1".to_owned(),
            start_queue: 0,
            force_copy: false,
        };
        assert!(matches!(
            vdev.check(),
            Err(VdevError::Value {
                argument: "iface",
                ..
            })
        ));
        let memif = Vdev::Memif {
            role: MemifRole::Server,
            socket: PathBuf::from("/a,zero-copy=yes"),
            id: 0,
        };
        assert!(memif.check().is_err());
    }
}
