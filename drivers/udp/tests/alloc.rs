//! Nothing is allocated once a device is open.

use ionian_driver_api::{
    Bounded, BufPool, CountingAllocator, FaultyPackets, Packet, PacketDevice, PacketFaults,
    PoolLayout, PoolOptions, Traced,
};
use ionian_udp::{UdpDevice, UdpOptions};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

#[test]
fn bursts_allocate_nothing() {
    for offload in [false, true] {
        let options = UdpOptions {
            gso: offload,
            gro: offload,
            ..Default::default()
        };
        let open = || UdpDevice::open(&options).expect("loopback");
        let faults = PacketFaults {
            drop_ppm: 10_000,
            duplicate_ppm: 10_000,
            reorder_ppm: 10_000,
            ..Default::default()
        };
        let (mut tx, mut rx) = (
            FaultyPackets::new(open(), faults, 1),
            Traced::new(open(), 64),
        );
        let options = PoolOptions {
            slots: 512,
            slot_bytes: 1500,
            layout: PoolLayout::Coloured,
        };
        let mut pool = BufPool::new(options).expect("valid size");
        let (mut burst, mut out) = (Bounded::with_capacity(64), Bounded::with_capacity(64));
        let peer = rx.local_addr();
        let before = CountingAllocator::thread_count();
        assert!(before > 0, "the counting allocator is in use");
        let mut received = 0;
        for _ in 0..500 {
            while !burst.is_full() {
                let Some(buf) = pool.alloc_from(&[7; 200]) else {
                    break;
                };
                if let Err(packet) = burst.push(Packet { buf, peer }) {
                    pool.free(packet.buf);
                }
            }
            tx.tx_burst(&mut pool, &mut burst);
            tx.rx_burst(&mut pool, &mut out);
            while rx.rx_burst(&mut pool, &mut out) > 0 {
                while let Some(packet) = out.pop() {
                    pool.free(packet.buf);
                    received += 1;
                }
            }
        }
        assert_eq!(
            CountingAllocator::thread_count() - before,
            0,
            "offload {offload}"
        );
        assert!(received > 20_000, "{received} packets came");
    }
}
