//! Faults over a loopback device in memory: what is sent comes back, changed as the seed says.

use std::net::Ipv4Addr;

use super::*;
use crate::buf::{PoolLayout, PoolOptions};

/// A device whose sent packets come back to itself.
struct Loopback {
    queue: PacketBatch,
}

impl PacketDevice for Loopback {
    fn caps(&self) -> PacketCaps {
        PacketCaps {
            backend: "loopback",
            payload_bytes_max: 64,
            headroom_bytes: 0,
            batch_max: 32,
            gso: false,
            gro: false,
        }
    }

    fn local_addr(&self) -> PeerAddr {
        PeerAddr::from((Ipv4Addr::LOCALHOST, 1))
    }

    fn rx_burst(&mut self, _pool: &mut BufPool, out: &mut PacketBatch) -> usize {
        let before = out.len();
        while !out.is_full() {
            let Some(packet) = self.queue.pop() else {
                break;
            };
            out.push(packet).expect("room");
        }
        out.len() - before
    }

    fn tx_burst(&mut self, _pool: &mut BufPool, burst: &mut PacketBatch) -> usize {
        let before = burst.len();
        while !self.queue.is_full() {
            let Some(packet) = burst.pop() else { break };
            self.queue.push(packet).expect("room");
        }
        before - burst.len()
    }

    fn arm(&mut self) -> bool {
        self.queue.is_empty()
    }

    fn wake_fd(&self) -> Option<RawFd> {
        None
    }
}

/// Sends `count` numbered packets and returns the bytes received, and the faults done.
fn run(faults: PacketFaults, count: u64, seed: u64) -> (Vec<Vec<u8>>, FaultCounts) {
    let options = PoolOptions {
        slots: 256,
        slot_bytes: 64,
        layout: PoolLayout::Coloured,
    };
    let mut pool = BufPool::new(options).expect("valid size");
    let mut device = FaultyPackets::new(
        Loopback {
            queue: Bounded::with_capacity(64),
        },
        faults,
        seed,
    );
    let (mut burst, mut out) = (Bounded::with_capacity(32), Bounded::with_capacity(64));
    let mut received = Vec::new();
    let mut next = 0;
    for _ in 0..count + 200 {
        while next < count && !burst.is_full() {
            let buf = pool
                .alloc_from(&next.to_le_bytes())
                .expect("the pool is large enough");
            burst
                .push(Packet {
                    buf,
                    peer: device.local_addr(),
                })
                .expect("room");
            next += 1;
        }
        device.tx_burst(&mut pool, &mut burst);
        device.rx_burst(&mut pool, &mut out);
        while let Some(packet) = out.pop() {
            received.push(pool.bytes(&packet.buf).to_vec());
            pool.free(packet.buf);
        }
    }
    assert_eq!(pool.in_use(), 0, "every buffer came back");
    (received, device.counts())
}

fn numbers(received: &[Vec<u8>]) -> Vec<u64> {
    received
        .iter()
        .map(|bytes| u64::from_le_bytes(bytes[..].try_into().expect("8 bytes")))
        .collect()
}

#[test]
fn without_faults_nothing_changes() {
    let (received, counts) = run(PacketFaults::default(), 1000, 1);
    assert_eq!(numbers(&received), (0..1000).collect::<Vec<_>>());
    assert_eq!(counts, FaultCounts::default());
}

#[test]
fn drops_are_exactly_what_is_missing() {
    let (received, counts) = run(
        PacketFaults {
            drop_ppm: 100_000,
            ..Default::default()
        },
        5000,
        2,
    );
    assert!((300..700).contains(&counts.dropped), "{counts:?}");
    assert_eq!(received.len() as u64, 5000 - counts.dropped);
    assert!(numbers(&received).is_sorted());
}

#[test]
fn duplicates_and_delays_lose_nothing() {
    let faults = PacketFaults {
        duplicate_ppm: 50_000,
        delay_ppm: 50_000,
        delay_polls_max: 20,
        reorder_ppm: 50_000,
        ..Default::default()
    };
    let (received, counts) = run(faults, 5000, 3);
    let mut seen = numbers(&received);
    assert!(!seen.is_sorted(), "some overtook others");
    assert_eq!(seen.len() as u64, 5000 + counts.duplicated);
    assert!(
        counts.duplicated > 100 && counts.delayed > 100 && counts.reordered > 100,
        "{counts:?}"
    );
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen, (0..5000).collect::<Vec<_>>());
}

#[test]
fn corruption_flips_one_bit() {
    let (received, counts) = run(
        PacketFaults {
            corrupt_ppm: 1_000_000,
            ..Default::default()
        },
        100,
        4,
    );
    assert_eq!(counts.corrupted, 100);
    for (sent, got) in numbers(&received).into_iter().enumerate() {
        assert_eq!((sent as u64 ^ got).count_ones(), 1);
    }
}

#[test]
fn a_seed_repeats_its_faults() {
    let faults = PacketFaults {
        drop_ppm: 50_000,
        reorder_ppm: 50_000,
        corrupt_ppm: 10_000,
        ..Default::default()
    };
    assert_eq!(run(faults, 2000, 9), run(faults, 2000, 9));
    assert_ne!(run(faults, 2000, 9).0, run(faults, 2000, 10).0);
}
