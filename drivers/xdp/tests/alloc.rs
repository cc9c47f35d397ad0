//! Nothing is allocated once a link is open. As root; it says when it is skipped.

mod common;

use common::{Pair, reach};
use ionian_driver_api::CountingAllocator;
use ionian_ether::FrameLink;
use ionian_xdp::XdpAttach;

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

#[test]
fn bursts_allocate_nothing() {
    let Some(pair) = Pair::make("bursts_allocate_nothing") else {
        return;
    };
    for attach in [XdpAttach::Skb, XdpAttach::Native] {
        let (mut a, mut b) = pair.open_both(attach);
        reach(&mut a, &mut b, b"warm");
        let to = b.address();
        let before = CountingAllocator::thread_count();
        assert!(before > 0, "the counting allocator is in use");
        let mut received = 0;
        for _ in 0..1_000 {
            while a.stage(to, &[7; 200]) {}
            a.send();
            while b.receive() > 0 {
                while b.take(|_| ()).is_some() {
                    received += 1;
                }
            }
            // More may have come meanwhile: then it is not to sleep.
            let _ = b.link.arm();
            assert_eq!(b.link.stats().rx_short, 0);
        }
        assert_eq!(CountingAllocator::thread_count() - before, 0, "{attach:?}");
        assert!(received > 20_000, "{received} frames came");
    }
}
