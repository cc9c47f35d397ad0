//! How a port is opened: the socket, what the network profile says of it, limits, and middleware.

use std::net::SocketAddr;

use ionian_core::session::SessionConfig;
use ionian_runtime::NicProfile;
use ionian_types::{GuardEpoch, Nanos, SessionId, Token};
use ionian_udp::UdpOptions;

use super::{FaultSpec, TraceOptions};

/// Sessions of one port, at most, whatever is configured.
pub(crate) const SESSIONS_MAX: usize = 4096;
/// Bytes of datagrams that hold back for the socket's buffers, as the kernel counts them, per packet.
const KERNEL_BYTES_PER_PACKET: u64 = 2048;
/// Datagrams from this size on are so few per window that a small window fills the receiver's memory.
const LARGE_DATAGRAM_BYTES: usize = 8192;
/// The window of a session with large datagrams, in packets.
const LARGE_WINDOW_PACKETS: u32 = 64;
/// How long an ack waits for a message to travel with. A closed loop on a quiet network takes a tenth of it, so that acks
/// do not double the datagrams of one; a loss at the end of a burst is noticed by that much later.
const ACK_DELAY: Nanos = Nanos::from_us(400);

/// How a port is opened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PortOptions {
    /// The socket.
    pub udp: UdpOptions,
    /// The name of the network profile, for people.
    pub profile: String,
    /// Datagrams that wait for the socket, at most.
    pub tx_queue_packets: usize,
    /// Datagrams of one session under way, at most.
    pub window_packets: u32,
    /// The shortest wait for an acknowledgement before a datagram is sent again.
    pub rto_min: Nanos,
    /// The longest such wait.
    pub rto_max: Nanos,
    /// Sessions of the port, at most; one more that a peer opens is refused.
    pub sessions_max: usize,
    /// Faults to inject.
    pub faults: Option<FaultSpec>,
    /// Where a trace goes.
    pub trace: Option<TraceOptions>,
}

impl PortOptions {
    /// A port at an address, for a profile whose backend is `udp`; `mtu_bytes` is the largest IP packet.
    #[must_use]
    pub fn new(bind: SocketAddr, mtu_bytes: u32, profile: &NicProfile) -> Self {
        let batch = profile.batch.value as usize;
        let buffer = profile.rx_depth.value * KERNEL_BYTES_PER_PACKET;
        let buffer = u32::try_from(buffer.min(1 << 30)).unwrap_or(u32::MAX);
        Self {
            udp: UdpOptions {
                bind,
                mtu_bytes,
                batch,
                rcvbuf_bytes: buffer,
                sndbuf_bytes: buffer,
                ..UdpOptions::default()
            },
            profile: profile.name.clone(),
            tx_queue_packets: (profile.tx_depth.value as usize).clamp(batch, 1 << 16),
            window_packets: power_of_two_below(profile.credits.value),
            rto_min: Nanos::from_us(profile.rto_us_min.value.max(1)),
            rto_max: Nanos::from_us(profile.rto_us_max.value.max(1)),
            sessions_max: SESSIONS_MAX,
            faults: None,
            trace: None,
        }
    }

    /// What every session of the port has in common; `payload_bytes_max` is the largest datagram.
    pub(super) fn session(&self, payload_bytes_max: usize, dead_after: Nanos) -> SessionConfig {
        let mut config = SessionConfig::new(
            SessionId::new(0),
            GuardEpoch::new(0),
            Token::new(0),
            Token::new(0),
        );
        config.dead_after = dead_after;
        config.ack_delay = ACK_DELAY;
        config.ping_interval = Nanos((dead_after.0 / 6).max(1));
        config.mtu_bytes = payload_bytes_max.min(ionian_wire::packet::PACKET_BYTES_MAX);
        config.receive_bytes_max = config.receive_bytes_max.max(16 * config.mtu_bytes);
        config.window_packets = self.window_packets;
        config.rto_min = self.rto_min;
        config.rto_max = self.rto_max;
        if config.mtu_bytes > LARGE_DATAGRAM_BYTES {
            config.window_packets = self.window_packets.min(LARGE_WINDOW_PACKETS);
            config.receive_bytes_max = 4 << 20;
            config.ack_every_packets = 4;
        }
        config
    }
}

/// The largest power of two that is not above `value`, within what a session takes.
fn power_of_two_below(value: u64) -> u32 {
    use ionian_core::session::{CREDIT_INITIAL_PACKETS, WINDOW_PACKETS_MAX};
    let value = value.clamp(
        u64::from(CREDIT_INITIAL_PACKETS),
        u64::from(WINDOW_PACKETS_MAX),
    );
    1 << value.ilog2()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_of_a_profile_takes_effect() {
        let bind: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let mut profile = NicProfile::builtin("udp").unwrap();
        let port = PortOptions::new(bind, 1500, &profile);
        let plain = SessionConfig::new(
            SessionId::new(0),
            GuardEpoch::new(1),
            Token::new(0),
            Token::new(0),
        );
        let session = port.session(1472, Nanos::from_ms(3_000));
        assert_eq!(
            (session.window_packets, session.rto_min, session.rto_max),
            (plain.window_packets, plain.rto_min, plain.rto_max),
            "the built-in profile says what sessions do by themselves"
        );
        assert_eq!(
            port.udp,
            UdpOptions {
                bind,
                ..UdpOptions::default()
            }
        );
        profile.name = String::from("other");
        profile.batch.value = 32;
        profile.tx_depth.value = 40;
        profile.rx_depth.value = 1_024;
        profile.credits.value = 300;
        profile.rto_us_min.value = 7;
        profile.rto_us_max.value = 70;
        let port = PortOptions::new(bind, 9_000, &profile);
        assert_eq!((port.udp.batch, port.tx_queue_packets), (32, 40));
        assert_eq!(
            (port.udp.rcvbuf_bytes, port.udp.mtu_bytes),
            (2 << 20, 9_000)
        );
        let session = port.session(1_472, Nanos::from_ms(600));
        assert_eq!(session.window_packets, 256);
        assert_eq!(
            (session.rto_min, session.rto_max),
            (Nanos::from_us(7), Nanos::from_us(70))
        );
        assert_eq!(port.session(60_000, Nanos::from_ms(600)).window_packets, 64);
        assert!(session.check().is_ok());
    }
}
