//! Nothing is allocated once a link is open.
#![cfg(feature = "dpdk")]

mod support;

use ionian_dpdk::PortOptions;
use ionian_driver_api::CountingAllocator;
use ionian_ether::FrameLink;
use support::{Pattern, alone, batch, eal, headers, pool};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

#[test]
fn bursts_allocate_nothing() {
    alone("bursts_allocate_nothing", || {
        let eal = eal();
        let [mut near, mut far] = eal.ring_pair(&PortOptions::default()).expect("a pair");
        let (mut pool, pattern) = (pool(256), Pattern::new());
        let (mut burst, mut out) = (batch(64), batch(64));
        let before = CountingAllocator::thread_count();
        assert!(before > 0, "the counting allocator is in use");
        let mut received = 0;
        for number in 0..2_000 {
            while !burst.is_full() {
                let frame = pattern.frame(&mut pool, number, [2; 6], [4; 6]);
                burst.push(frame.expect("free")).expect("room");
            }
            near[0].tx_burst(&mut pool, &mut burst);
            far[0].rx_burst(&mut pool, headers(), &mut out);
            while let Some(frame) = out.pop() {
                pool.free(frame.buf);
                received += 1;
            }
        }
        // A look at the link now and then is part of it.
        for _ in 0..70_000 {
            far[0].rx_burst(&mut pool, headers(), &mut out);
        }
        assert_eq!(CountingAllocator::thread_count() - before, 0);
        assert!(received > 100_000, "{received} frames came");
    });
}
