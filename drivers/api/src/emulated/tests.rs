//! One-sided writes over a fabric in memory: they land where allowed, and only there.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use super::*;
use crate::RegionRights;
use crate::buf::{PoolLayout, PoolOptions};
use crate::middleware::{FabricFaults, FaultyFabric, Traced};

type Wire = Rc<RefCell<VecDeque<Vec<u8>>>>;

/// One end of a single connection of four messages at most; messages are copied so that each end has its own pool.
struct End {
    tx: Wire,
    rx: Wire,
    closed: bool,
}

const CONN: ConnId = ConnId::ZERO;

impl Fabric for End {
    fn caps(&self) -> FabricCaps {
        FabricCaps {
            backend: "test",
            message_bytes_max: 256,
            one_sided: false,
        }
    }

    fn poll(&mut self, pool: &mut BufPool, events: &mut FabricEvents) -> usize {
        let before = events.len();
        while !events.is_full() && pool.available() > 0 && !self.closed {
            let Some(bytes) = self.rx.borrow_mut().pop_front() else {
                break;
            };
            let buf = pool.alloc_from(&bytes).expect("checked");
            assert!(
                events
                    .push(FabricEvent::Received { conn: CONN, buf })
                    .is_ok()
            );
        }
        events.len() - before
    }

    fn send(&mut self, pool: &mut BufPool, _conn: ConnId, buf: Buf) -> Result<(), SendError> {
        if self.closed {
            return Err(SendError::Closed(buf));
        }
        if self.tx.borrow().len() >= 4 {
            return Err(SendError::Full(buf));
        }
        self.tx.borrow_mut().push_back(pool.bytes(&buf).to_vec());
        pool.free(buf);
        Ok(())
    }

    fn flush(&mut self) {}

    fn close(&mut self, _conn: ConnId) {
        self.closed = true;
    }

    fn arm(&mut self) -> bool {
        self.rx.borrow().is_empty()
    }

    fn disarm(&mut self) {}

    fn wake_fd(&self) -> Option<RawFd> {
        None
    }
}

fn ends() -> (End, End, Wire) {
    let (a, b) = (Wire::default(), Wire::default());
    let one = End {
        tx: a.clone(),
        rx: b.clone(),
        closed: false,
    };
    (
        one,
        End {
            tx: b,
            rx: a.clone(),
            closed: false,
        },
        a,
    )
}

fn pool() -> BufPool {
    BufPool::new(PoolOptions {
        slots: 16,
        slot_bytes: 128,
        layout: PoolLayout::Coloured,
    })
    .expect("valid size")
}

fn region(pool: &mut BufPool) -> Buf {
    pool.alloc_from(&[0; 32]).expect("free")
}

#[test]
fn writes_and_messages_arrive_in_order() {
    let (one, two, _) = ends();
    let (mut a, mut b) = (
        Emulated::new(one, 4, 8),
        Emulated::new(Traced::new(two, 8), 4, 8),
    );
    let (mut pa, mut pb) = (pool(), pool());
    let exposed = region(&mut pb);
    let key = b
        .expose(CONN, exposed, RegionGrant::write(0))
        .expect("room");

    let buf = pa.alloc_from(b"first").expect("free");
    a.send(&mut pa, CONN, buf).expect("room");
    let buf = pa.alloc_from(b"abc").expect("free");
    a.write(&mut pa, CONN, key, 7, 42, buf).expect("room");
    assert_eq!(pa.in_use(), 0);

    let mut events = Bounded::with_capacity(8);
    assert!(!b.arm(), "work is waiting");
    assert_eq!(b.poll(&mut pb, &mut events), 2);
    match events.pop() {
        Some(FabricEvent::Received { buf, .. }) => {
            assert_eq!(pb.bytes(&buf), b"first");
            pb.free(buf);
        }
        other => panic!("{other:?}"),
    }
    match events.pop() {
        Some(FabricEvent::Delivered {
            key: landed,
            range,
            immediate,
            ..
        }) => {
            assert_eq!(
                (landed, range, immediate),
                (key, RegionRange { offset: 7, len: 3 }, 42)
            );
        }
        other => panic!("{other:?}"),
    }
    let mut copy = pb.alloc().expect("free");
    assert!(b.copy_out(&pb, key, RegionRange { offset: 6, len: 5 }, &mut copy));
    assert_eq!(pb.bytes(&copy), b"\0abc\0");
    assert!(
        !b.copy_out(&pb, key, RegionRange { offset: 30, len: 3 }, &mut copy),
        "beyond the region"
    );
    pb.free(copy);
    assert_eq!(b.inner_mut().counts().received, 2);
    let back = b.revoke(key).expect("exposed");
    pb.free(back);
    assert!(b.revoke(key).is_none());
    assert_eq!(pb.in_use(), 0);
}

/// What b's poll reports after one write by a.
fn outcome(change: impl FnOnce(RegionKey) -> (RegionKey, u32, ConnId)) -> FabricEvent {
    let (one, two, _) = ends();
    let (mut a, mut b) = (Emulated::new(one, 4, 8), Emulated::new(two, 4, 8));
    let (mut pa, mut pb) = (pool(), pool());
    let exposed = region(&mut pb);
    let probe = RegionKey {
        region: 0,
        generation: 0,
    };
    let (key, offset, owner) = change(probe);
    assert_eq!(
        b.expose(owner, exposed, RegionGrant::write(0))
            .expect("room"),
        probe
    );
    let buf = pa.alloc_from(b"abcd").expect("free");
    a.write(&mut pa, CONN, key, offset, 0, buf).expect("room");
    let mut events = Bounded::with_capacity(8);
    assert_eq!(b.poll(&mut pb, &mut events), 1);
    let back = b.revoke(probe).expect("exposed");
    assert!(
        pb.bytes(&back).iter().all(|byte| *byte == 0) || offset == 28,
        "nothing landed"
    );
    events.pop().expect("one event")
}

#[test]
fn a_write_outside_what_was_exposed_closes_the_connection() {
    let closed = |event| {
        matches!(
            event,
            FabricEvent::Closed {
                reason: CloseReason::Protocol,
                ..
            }
        )
    };
    assert!(matches!(
        outcome(|key| (key, 28, CONN)),
        FabricEvent::Delivered { .. }
    ));
    assert!(closed(outcome(|key| (key, 29, CONN))), "past the end");
    assert!(
        closed(outcome(|key| (key, u32::MAX, CONN))),
        "far past the end"
    );
    assert!(
        closed(outcome(|key| (RegionKey { region: 9, ..key }, 0, CONN))),
        "no such region"
    );
    assert!(
        closed(outcome(|key| (
            RegionKey {
                generation: 1,
                ..key
            },
            0,
            CONN
        ))),
        "another life"
    );
    assert!(
        closed(outcome(|key| (key, 0, ConnId::new(1)))),
        "exposed to somebody else"
    );
}

/// The next event of `b`.
fn next(b: &mut Emulated<End>, pool: &mut BufPool) -> Option<FabricEvent> {
    let mut events = Bounded::with_capacity(1);
    b.poll(pool, &mut events);
    events.pop()
}

#[test]
fn rights_limit_a_write_to_their_range() {
    let (one, two, _) = ends();
    let (mut a, mut b) = (Emulated::new(one, 4, 8), Emulated::new(two, 4, 8));
    let (mut pa, mut pb) = (pool(), pool());
    let within = |offset, len| RegionGrant {
        rights: RegionRights::WriteWithin(RegionRange { offset, len }),
        epoch: 1,
    };
    let exposed = region(&mut pb);
    let exposed = match b.expose(CONN, exposed, within(30, 3)) {
        Err(ExposeError::Rights(buf)) => buf,
        other => panic!("{other:?}"),
    };
    let key = b.expose(CONN, exposed, within(8, 8)).expect("room");
    let mut write = |a: &mut Emulated<End>, offset| {
        let buf = pa.alloc_from(b"abcd").expect("free");
        a.write(&mut pa, CONN, key, offset, 0, buf).expect("room");
    };
    for offset in [8, 12] {
        write(&mut a, offset);
        assert!(matches!(
            next(&mut b, &mut pb),
            Some(FabricEvent::Delivered { .. })
        ));
    }
    for offset in [7, 13] {
        write(&mut a, offset);
        b.inner_mut().closed = false;
        assert!(matches!(
            next(&mut b, &mut pb),
            Some(FabricEvent::Closed {
                reason: CloseReason::Protocol,
                ..
            })
        ));
    }
    let back = b.revoke(key).expect("exposed");
    assert_eq!(pb.bytes(&back)[7..17], *b"\0abcdabcd\0");
    pb.free(back);
    assert_eq!((pa.in_use(), pb.in_use()), (0, 0));
}

#[test]
fn a_fence_takes_back_what_older_epochs_granted_and_no_late_write_lands() {
    let (one, two, _) = ends();
    let (mut a, mut b) = (Emulated::new(one, 4, 8), Emulated::new(two, 4, 8));
    let (mut pa, mut pb) = (pool(), pool());
    let keys = [3, 4, 5, 4].map(|epoch| {
        let exposed = region(&mut pb);
        b.expose(CONN, exposed, RegionGrant::write(epoch))
            .expect("room")
    });
    // Sent before the fence, polled after it.
    let buf = pa.alloc_from(b"late").expect("free");
    a.write(&mut pa, CONN, keys[1], 0, 0, buf).expect("room");
    let buf = pa.alloc_from(b"after").expect("free");
    a.send(&mut pa, CONN, buf).expect("room");

    let mut out = Bounded::with_capacity(2);
    assert_eq!(b.fence(3, &mut out), 0, "nothing is older");
    assert_eq!(b.fence(5, &mut out), 2, "as many as there is room for");
    assert!(b.revoke(keys[3]).is_none(), "fenced though still held");
    let probe = pb.alloc().expect("free");
    let mut probe = Some(probe);
    for key in [keys[0], keys[1], keys[3]] {
        let range = RegionRange { offset: 0, len: 1 };
        let into = probe.as_mut().expect("held");
        assert!(!b.copy_out(&pb, key, range, into));
    }
    pb.free(probe.take().expect("held"));
    assert!(matches!(
        next(&mut b, &mut pb),
        Some(FabricEvent::Closed {
            reason: CloseReason::Protocol,
            ..
        })
    ));
    assert!(
        next(&mut b, &mut pb).is_none(),
        "nothing follows the end of a connection"
    );
    let mut taken: Vec<Buf> = std::iter::from_fn(|| out.pop()).collect();
    assert_eq!(
        b.fence(1, &mut out),
        1,
        "the one without room, and a fence never falls"
    );
    taken.extend(out.pop());
    for buf in taken {
        assert_eq!(pb.bytes(&buf), [0; 32], "nothing landed");
        pb.free(buf);
    }
    let exposed = region(&mut pb);
    match b.expose(CONN, exposed, RegionGrant::write(4)) {
        Err(ExposeError::Fenced(buf)) => pb.free(buf),
        other => panic!("{other:?}"),
    }
    let back = b.revoke(keys[2]).expect("of the epoch itself");
    pb.free(back);
    assert_eq!((pa.in_use(), pb.in_use()), (0, 0));
}

#[test]
fn garbage_closes_the_connection_and_a_full_queue_gives_the_message_back_whole() {
    let (one, two, wire) = ends();
    let (mut a, mut b) = (Emulated::new(one, 1, 8), Emulated::new(two, 1, 8));
    let (mut pa, mut pb) = (pool(), pool());
    for _ in 0..4 {
        let buf = pa.alloc_from(b"x").expect("free");
        a.send(&mut pa, CONN, buf).expect("room");
    }
    let buf = pa.alloc_from(b"again").expect("free");
    match a.send(&mut pa, CONN, buf) {
        Err(SendError::Full(buf)) => assert_eq!(pa.bytes(&buf), b"again"),
        other => panic!("{other:?}"),
    }
    wire.borrow_mut().clear();
    for garbage in [&[][..], &[7], &[1], &[0, 0, 0, 1]] {
        wire.borrow_mut().push_back(garbage.to_vec());
        b.inner_mut().closed = false;
        let mut events = Bounded::with_capacity(8);
        b.poll(&mut pb, &mut events);
        assert!(matches!(
            events.pop(),
            Some(FabricEvent::Closed {
                reason: CloseReason::Protocol,
                ..
            })
        ));
    }
    assert_eq!((b.protocol_errors(), pb.in_use()), (4, 0));
}

#[test]
fn a_faulty_fabric_keeps_order_and_loses_nothing_but_connections() {
    let faults = FabricFaults {
        refuse_ppm: 200_000,
        delay_ppm: 300_000,
        delay_polls_max: 5,
        ..Default::default()
    };
    let (one, mut b, _) = ends();
    let mut a = FaultyFabric::new(one, faults, 5);
    let (mut pa, mut pb) = (pool(), pool());
    let (mut events, mut none) = (Bounded::with_capacity(8), Bounded::with_capacity(8));
    let (mut next, mut expected) = (0u64, 0u64);
    while expected < 500 {
        if next < 500
            && let Some(buf) = pa.alloc_from(&next.to_le_bytes())
        {
            match a.send(&mut pa, CONN, buf) {
                Ok(()) => next += 1,
                Err(error) => pa.free(error.into_buf()),
            }
        }
        a.poll(&mut pa, &mut none);
        b.poll(&mut pb, &mut events);
        while let Some(FabricEvent::Received { buf, .. }) = events.pop() {
            assert_eq!(pb.bytes(&buf), expected.to_le_bytes());
            expected += 1;
            pb.free(buf);
        }
    }
    let counts = a.counts();
    assert!(counts.delayed > 50 && counts.failed > 50, "{counts:?}");
    assert_eq!((pa.in_use(), pb.in_use()), (0, 0));

    a.set_faults(FabricFaults {
        close_ppm: 1_000_000,
        ..Default::default()
    });
    let buf = pa.alloc_from(b"x").expect("free");
    match a.send(&mut pa, CONN, buf) {
        Err(SendError::Closed(buf)) => pa.free(buf),
        other => panic!("{other:?}"),
    }
    a.poll(&mut pa, &mut none);
    assert!(matches!(
        none.pop(),
        Some(FabricEvent::Closed {
            reason: CloseReason::Broken,
            ..
        })
    ));
}

#[test]
fn a_connection_that_was_closed_is_heard_no_more_and_its_buffers_come_back() {
    let (a, b, _) = ends();
    let (mut a, mut b) = (Emulated::new(a, 1, 8), Emulated::new(b, 1, 8));
    let (mut pa, mut pb) = (pool(), pool());
    for text in [b"one", b"two"] {
        let buf = pa.alloc_from(text).expect("free");
        a.send(&mut pa, CONN, buf).expect("room");
    }
    let mut events = Bounded::with_capacity(1);
    assert_eq!(b.poll(&mut pb, &mut events), 1);
    let Some(FabricEvent::Received { buf, .. }) = events.pop() else {
        panic!("a message")
    };
    pb.free(buf);
    assert_eq!(pb.in_use(), 1, "the other one is waiting");
    b.close(CONN);
    assert!(!b.arm(), "a buffer is to go back");
    assert_eq!(b.poll(&mut pb, &mut events), 0);
    assert_eq!(pb.in_use(), 0);
    assert!(b.arm());
}

#[test]
fn what_is_longer_than_the_capabilities_say_is_refused() {
    let (a, _b, wire) = ends();
    let mut a = Emulated::new(a, 1, 8);
    let options = PoolOptions {
        slots: 1,
        slot_bytes: 512,
        layout: PoolLayout::Coloured,
    };
    let mut pool = BufPool::new(options).expect("valid size");
    let most = a.caps().message_bytes_max;
    let key = RegionKey {
        region: 0,
        generation: 0,
    };
    let buf = pool.alloc_from(&vec![1; most + 1]).expect("free");
    let Err(SendError::TooLarge(buf)) = a.send(&mut pool, CONN, buf) else {
        panic!("too large as a message")
    };
    let Err(SendError::TooLarge(mut buf)) = a.write(&mut pool, CONN, key, 0, 0, buf) else {
        panic!("too large as a write")
    };
    assert!(wire.borrow().is_empty());
    pool.set_len(&mut buf, most);
    a.send(&mut pool, CONN, buf)
        .expect("the most that it carries");
}
