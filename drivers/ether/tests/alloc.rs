//! Nothing is allocated once a device is open: packets both ways, questions, answers, ageing, and frames that are dropped.

use std::net::SocketAddr;

use ionian_driver_api::{
    Bounded, BufPool, CountingAllocator, ManualClock, Packet, PacketDevice, PoolLayout, PoolOptions,
};
use ionian_ether::{EtherDevice, EtherOptions, MacAddr, MemoryLink};
use ionian_types::Nanos;

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

#[test]
fn bursts_allocate_nothing() {
    for locals in [["10.0.0.1:1", "10.0.0.2:2"], ["[fd00::1]:1", "[fd00::2]:2"]] {
        let clock = ManualClock::default();
        let macs = [1, 2].map(|n| MacAddr([2, 0, 0, 0, 0, n]));
        let [near, far] = MemoryLink::pair(macs, 1500, 64);
        let open = |link, local: &str| {
            let local: SocketAddr = local.parse().expect("an address");
            let mut options = EtherOptions::new(local, 24);
            // Addresses age within the test, so that neighbours are asked again and again.
            options.reachable_ms = 100;
            EtherDevice::open(link, clock.clone(), &options).expect("valid options")
        };
        let (mut near, mut far) = (open(near, locals[0]), open(far, locals[1]));
        let options = PoolOptions {
            slots: 512,
            slot_bytes: 1500,
            layout: PoolLayout::Coloured,
        };
        let mut pool = BufPool::with_headroom(options, 64).expect("valid size");
        let (mut burst, mut out) = (Bounded::with_capacity(64), Bounded::with_capacity(64));
        let peer = far.local_addr();
        let strange = SocketAddr::new(peer.ip(), 9);
        let before = CountingAllocator::thread_count();
        assert!(before > 0, "the counting allocator is in use");
        let mut received = 0;
        for round in 0..500u64 {
            clock.advance(Nanos::from_ms(7));
            while !burst.is_full() {
                let Some(buf) = pool.alloc_from(&[7; 200]) else {
                    break;
                };
                let peer = if round % 10 == 0 { strange } else { peer };
                if let Err(packet) = burst.push(Packet { buf, peer }) {
                    pool.free(packet.buf);
                }
            }
            near.tx_burst(&mut pool, &mut burst);
            while far.rx_burst(&mut pool, &mut out) > 0 {
                while let Some(mut packet) = out.pop() {
                    received += 1;
                    packet.peer = near.local_addr();
                    if let Err(packet) = burst.push_front(packet) {
                        pool.free(packet.buf);
                    }
                }
            }
            near.rx_burst(&mut pool, &mut out);
            while let Some(packet) = out.pop() {
                pool.free(packet.buf);
            }
            // What is left is for the other side.
            while let Some(packet) = burst.pop() {
                pool.free(packet.buf);
            }
        }
        assert_eq!(CountingAllocator::thread_count() - before, 0, "{locals:?}");
        assert!(received > 20_000, "{received} packets came");
        assert!(far.stats().rx_port > 1_000, "{:?}", far.stats());
        assert!(near.stats().asked > 10, "{:?}", near.stats());
        near.close(&mut pool);
        far.close(&mut pool);
        assert_eq!(pool.in_use(), 0);
    }
}
