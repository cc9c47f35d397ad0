//! Nothing is allocated once a connection is live: not by messages, writes, refills, credits or completions.

use ionian_driver_api::{
    Bounded, BufPool, ConnId, CountingAllocator, Fabric, FabricEvent, OneSided, PoolLayout,
    PoolOptions, RegionGrant,
};
use ionian_verbs::{MockDevice, MockLimits, MockNet, VerbsFabric, VerbsOptions};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

fn end(net: &MockNet) -> (VerbsFabric<MockDevice>, BufPool) {
    let mut pool = BufPool::new(PoolOptions {
        slots: 256,
        slot_bytes: 1024,
        layout: PoolLayout::Coloured,
    })
    .expect("valid size");
    let options = VerbsOptions {
        conns_max: 1,
        recv_depth: 68,
        message_bytes_max: 1024,
        ..VerbsOptions::default()
    };
    let mut fabric = VerbsFabric::new(net.device(), options).expect("valid options");
    fabric.register(&pool).expect("the first");
    fabric.poll(&mut pool, &mut Bounded::with_capacity(1));
    (fabric, pool)
}

fn drain(
    (fabric, pool): &mut (VerbsFabric<MockDevice>, BufPool),
    events: &mut Bounded<FabricEvent>,
) -> usize {
    let count = fabric.poll(pool, events);
    while let Some(event) = events.pop() {
        match event {
            FabricEvent::Received { buf, .. } => pool.free(buf),
            FabricEvent::Delivered { .. } => {}
            FabricEvent::Closed { reason, .. } => panic!("{reason:?}"),
        }
    }
    count
}

#[test]
fn messages_and_writes_allocate_nothing() {
    let net = MockNet::new(3, MockLimits::default());
    let (mut a, mut b) = (end(&net), end(&net));
    let (ticket_a, end_a) = a.0.reserve(1, 10).expect("free");
    let (ticket_b, end_b) = b.0.reserve(1, 20).expect("free");
    let to_b: ConnId = a.0.establish(ticket_a, &end_b).expect("reachable");
    let to_a = b.0.establish(ticket_b, &end_a).expect("reachable");
    let region = b.1.alloc_from(&[0; 64]).expect("free");
    let grant = RegionGrant::write(1);
    let key = b.0.expose(to_a, region, grant).expect("room");
    b.0.flush();
    let mut events = Bounded::with_capacity(64);
    for _ in 0..100 {
        drain(&mut a, &mut events);
        drain(&mut b, &mut events);
    }
    let before = CountingAllocator::thread_count();
    assert!(before > 0, "the counting allocator is in use");
    let (mut sent, mut seen) = (0u32, 0);
    while seen < 20_000 {
        for _ in 0..8 {
            // Inline ones and others, messages and writes of both kinds.
            let bytes = [7u8; 600];
            let len = [0, 64, 600][sent as usize % 3];
            let Some(buf) = a.1.alloc_from(&bytes[..len]) else {
                break;
            };
            match a.0.send(&mut a.1, to_b, buf) {
                Ok(()) => sent += 1,
                Err(error) => {
                    a.1.free(error.into_buf());
                    break;
                }
            }
        }
        for number in [sent, sent | 1 << 20] {
            if let Some(buf) = a.1.alloc_from(&[9; 64])
                && let Err(error) = a.0.write(&mut a.1, to_b, key, 0, number, buf)
            {
                a.1.free(error.into_buf());
            }
        }
        a.0.flush();
        drain(&mut a, &mut events);
        seen += drain(&mut b, &mut events);
        b.0.flush();
    }
    assert_eq!(CountingAllocator::thread_count() - before, 0);
    let counts = a.0.counts();
    assert!(
        counts.messages_sent > 1000 && counts.writes_sent > 1000,
        "{counts:?}"
    );
}
