//! The fabric contract between two fabrics on one thread.

use std::cell::Cell;
use std::rc::Rc;

use ionian_driver_api::{
    Bounded, Emulated, OneSided, PoolLayout, PoolOptions, RegionGrant, RegionRange,
};

use super::*;
use crate::duplex;

#[derive(Clone, Default)]
struct Bell(Rc<Cell<u32>>);

impl Wake for Bell {
    fn wake(&self) {
        self.0.set(self.0.get() + 1);
    }
}

fn pool(slots: u32) -> BufPool {
    BufPool::new(PoolOptions {
        slots,
        slot_bytes: 256,
        layout: PoolLayout::Coloured,
    })
    .expect("valid size")
}

struct Pair {
    a: ShmFabric<Bell>,
    b: ShmFabric<Bell>,
    conn: ConnId,
    wakes_a: Bell,
    wakes_b: Bell,
}

fn pair() -> Pair {
    let (mut a, mut b) = (ShmFabric::new(4, 1024), ShmFabric::new(4, 1024));
    let (one, two) = duplex(1024);
    let (wakes_a, wakes_b) = (Bell::default(), Bell::default());
    let conn = a.add(one, wakes_b.clone()).expect("room");
    assert_eq!(b.add(two, wakes_a.clone()).expect("room"), conn);
    Pair {
        a,
        b,
        conn,
        wakes_a,
        wakes_b,
    }
}

#[test]
fn a_full_connection_hands_back_and_drains_in_order() {
    let Pair {
        mut a, mut b, conn, ..
    } = pair();
    let (mut pa, mut pb) = (pool(64), pool(4));
    let mut events = Bounded::with_capacity(8);
    let (mut sent, mut got) = (0u64, 0u64);
    while got < 1000 {
        while let Some(buf) = pa.alloc_from(&sent.to_le_bytes()) {
            match a.send(&mut pa, conn, buf) {
                Ok(()) => sent += 1,
                Err(SendError::Full(buf)) => {
                    pa.free(buf);
                    break;
                }
                Err(other) => panic!("{other}"),
            }
        }
        a.flush();
        assert!(b.poll(&mut pb, &mut events) > 0);
        while let Some(FabricEvent::Received { buf, .. }) = events.pop() {
            assert_eq!(pb.bytes(&buf), got.to_le_bytes());
            pb.free(buf);
            got += 1;
        }
    }
    assert_eq!((pa.in_use(), pb.in_use()), (0, 0));
}

#[test]
fn sleepers_are_woken_once_for_data_and_for_room() {
    let Pair {
        mut a,
        mut b,
        conn,
        wakes_a,
        wakes_b,
    } = pair();
    let (mut pa, mut pb) = (pool(64), pool(64));
    assert!(b.arm());
    let mut sent = 0;
    let refused = loop {
        let buf = pa.alloc_from(&[7; 100]).expect("free");
        match a.send(&mut pa, conn, buf) {
            Ok(()) => sent += 1,
            Err(error) => break error.into_buf(),
        }
        a.flush();
    };
    assert!(sent > 4);
    assert_eq!(wakes_b.0.get(), 1, "one wake-up for one sleep");
    assert!(!b.arm(), "messages wait");
    assert!(a.arm(), "nothing to do until there is room");
    let mut events = Bounded::with_capacity(64);
    assert_eq!(b.poll(&mut pb, &mut events), sent);
    assert_eq!(wakes_a.0.get(), 1, "woken for room");
    a.send(&mut pa, conn, refused).expect("room came");
    assert!(!a.arm(), "a message waits for its flush");
    a.flush();
    assert!(a.arm());
    a.disarm();
}

#[test]
fn a_message_that_is_given_up_keeps_nobody_awake() {
    let Pair {
        mut a, mut b, conn, ..
    } = pair();
    let (mut pa, mut pb) = (pool(64), pool(64));
    let refused = loop {
        let buf = pa.alloc_from(&[7; 100]).expect("free");
        if let Err(error) = a.send(&mut pa, conn, buf) {
            break error.into_buf();
        }
    };
    pa.free(refused);
    a.flush();
    b.poll(&mut pb, &mut Bounded::with_capacity(64));
    assert!(!a.arm(), "room came: try again");
    assert!(a.arm(), "nobody tried again");
}

#[test]
fn closing_is_seen_after_what_was_sent() {
    let Pair {
        mut a,
        mut b,
        conn,
        wakes_b,
        ..
    } = pair();
    let (mut pa, mut pb) = (pool(4), pool(4));
    let buf = pa.alloc_from(b"bye").expect("free");
    a.send(&mut pa, conn, buf).expect("room");
    a.close(conn);
    assert_eq!(wakes_b.0.get(), 1);
    let mut events = Bounded::with_capacity(4);
    assert_eq!(b.poll(&mut pb, &mut events), 2);
    assert!(matches!(events.pop(), Some(FabricEvent::Received { .. })));
    assert!(matches!(
        events.pop(),
        Some(FabricEvent::Closed {
            reason: CloseReason::PeerGone,
            ..
        })
    ));
    for fabric in [&mut a, &mut b] {
        let buf = pa.alloc_from(b"x").expect("free");
        match fabric.send(&mut pa, conn, buf) {
            Err(SendError::Closed(buf)) => pa.free(buf),
            other => panic!("{other:?}"),
        }
        assert!(fabric.arm(), "a closed connection keeps nobody awake");
    }
}

#[test]
fn sizes_and_counts_are_limits() {
    let Pair { mut a, conn, .. } = pair();
    let mut large = BufPool::new(PoolOptions {
        slots: 1,
        slot_bytes: 1024,
        layout: PoolLayout::Coloured,
    })
    .expect("ok");
    let buf = large.alloc_from(&[0; 505]).expect("free");
    assert!(matches!(
        a.send(&mut large, conn, buf),
        Err(SendError::TooLarge(_))
    ));
    for _ in 0..3 {
        a.add(duplex(1024).0, Bell::default()).expect("room");
    }
    assert!(a.add(duplex(1024).0, Bell::default()).is_err());
}

#[test]
fn one_sided_writes_work_over_it() {
    let Pair { a, b, conn, .. } = pair();
    let (mut a, mut b) = (Emulated::new(a, 2, 8), Emulated::new(b, 2, 8));
    let (mut pa, mut pb) = (pool(4), pool(4));
    let exposed = pb.alloc_from(&[0; 64]).expect("free");
    let key = b
        .expose(conn, exposed, RegionGrant::write(1))
        .expect("room");
    let buf = pa.alloc_from(b"cut").expect("free");
    a.write(&mut pa, conn, key, 16, 9, buf).expect("room");
    a.flush();
    let mut events = Bounded::with_capacity(4);
    b.poll(&mut pb, &mut events);
    let range = RegionRange { offset: 16, len: 3 };
    match events.pop() {
        Some(FabricEvent::Delivered {
            key: landed,
            range: at,
            immediate: 9,
            ..
        }) => {
            assert_eq!((landed, at), (key, range));
        }
        other => panic!("{other:?}"),
    }
    let mut copy = pb.alloc().expect("free");
    assert!(b.copy_out(&pb, key, range, &mut copy));
    assert_eq!(pb.bytes(&copy), b"cut");
    pb.free(copy);
}
