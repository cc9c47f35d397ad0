//! Nothing is allocated once a fabric is set up.
#![cfg(not(loom))]

use ionian_driver_api::{
    Bounded, BufPool, CountingAllocator, Emulated, Fabric, FabricEvent, NoWake, OneSided,
    PoolLayout, PoolOptions, RegionGrant,
};
use ionian_shm::{ShmFabric, duplex};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

#[test]
fn messages_and_writes_allocate_nothing() {
    let options = PoolOptions {
        slots: 64,
        slot_bytes: 512,
        layout: PoolLayout::Coloured,
    };
    let mut pool = BufPool::new(options).expect("valid size");
    let (one, two) = duplex(1 << 14);
    let fabric = |endpoint| {
        let mut fabric = ShmFabric::new(1, 1 << 14);
        let conn = fabric.add(endpoint, NoWake).expect("room");
        (Emulated::new(fabric, 1, 64), conn)
    };
    let ((mut a, conn), (mut b, _)) = (fabric(one), fabric(two));
    let region = pool.alloc_from(&[0; 128]).expect("free");
    let key = b.expose(conn, region, RegionGrant::write(1)).expect("room");
    let mut events = Bounded::with_capacity(64);
    let before = CountingAllocator::thread_count();
    assert!(before > 0, "the counting allocator is in use");
    let mut seen = 0;
    for round in 0..10_000u32 {
        for _ in 0..8 {
            let buf = pool.alloc_from(&[1; 100]).expect("free");
            a.send(&mut pool, conn, buf).expect("room");
        }
        let buf = pool.alloc_from(&[2; 64]).expect("free");
        a.write(&mut pool, conn, key, 32, round, buf).expect("room");
        a.flush();
        while b.poll(&mut pool, &mut events) > 0 {
            while let Some(event) = events.pop() {
                seen += 1;
                if let FabricEvent::Received { buf, .. } = event {
                    pool.free(buf);
                }
            }
        }
        assert!(b.arm());
        b.disarm();
    }
    assert_eq!(
        (seen, CountingAllocator::thread_count() - before),
        (90_000, 0)
    );
}
