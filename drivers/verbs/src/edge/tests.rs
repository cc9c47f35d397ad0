//! Connections set up over loopback between fabrics of one model net.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};

use ionian_driver_api::{BufPool, CloseReason, Fabric, FabricEvent, PoolLayout, PoolOptions};

use super::*;
use crate::mock::{MockDevice, MockLimits, MockNet};
use crate::options::VerbsOptions;

struct End {
    edge: Edge,
    fabric: VerbsFabric<MockDevice>,
    pool: BufPool,
    events: Vec<EdgeEvent>,
    closed: Vec<CloseReason>,
}

impl End {
    fn new(net: &MockNet, listens: bool) -> Self {
        let pool = BufPool::new(PoolOptions {
            slots: 256,
            slot_bytes: 1024,
            layout: PoolLayout::Coloured,
        })
        .expect("valid size");
        let options = VerbsOptions {
            conns_max: 2,
            recv_depth: 136,
            message_bytes_max: 1024,
            ..VerbsOptions::default()
        };
        let mut fabric = VerbsFabric::new(net.device(), options).expect("valid");
        fabric.register(&pool).expect("the first");
        let edge = Edge::new(EdgeOptions {
            listen: listens.then(|| SocketAddr::from((Ipv4Addr::LOCALHOST, 0))),
            exchanges_max: 4,
            patience: Nanos::from_ms(1000),
        });
        let mut end = Self {
            edge: edge.expect("a free port"),
            fabric,
            pool,
            events: Vec::new(),
            closed: Vec::new(),
        };
        end.turn(Time::ZERO);
        end
    }

    fn turn(&mut self, now: Time) {
        let mut events = Bounded::with_capacity(8);
        self.edge.turn(now, &mut self.fabric, &mut events);
        self.events.extend(std::iter::from_fn(|| events.pop()));
        let mut events = Bounded::with_capacity(8);
        self.fabric.poll(&mut self.pool, &mut events);
        while let Some(event) = events.pop() {
            match event {
                FabricEvent::Received { buf, .. } => self.pool.free(buf),
                FabricEvent::Closed { reason, .. } => self.closed.push(reason),
                FabricEvent::Delivered { .. } => {}
            }
        }
        self.fabric.flush();
    }
}

fn grant(epoch: u64) -> SetupGrant {
    SetupGrant {
        peer: 5,
        epoch,
        token: [9; 16],
    }
}

/// Turns both ends, at a standing clock, until `done`. Loopback needs a moment of the kernel's: bounded by turns.
fn until(a: &mut End, b: &mut End, what: &str, done: impl Fn(&End, &End) -> bool) {
    for _ in 0..2_000_000 {
        a.turn(Time::ZERO);
        b.turn(Time::ZERO);
        if done(a, b) {
            return;
        }
    }
    panic!("{what}: {:?} {:?}", a.events, b.events);
}

fn begin(a: &mut End, b: &End, grant: SetupGrant) {
    let to = b.edge.local_addr().expect("it listens");
    a.edge
        .connect(Time::ZERO, &mut a.fabric, to, grant)
        .expect("a queue pair is free");
}

#[test]
fn a_grant_makes_one_connection_and_a_later_epoch_the_next() {
    let net = MockNet::new(1, MockLimits::default());
    let (mut a, mut b) = (End::new(&net, false), End::new(&net, true));
    for epoch in 1..4 {
        b.edge.allow(grant(epoch));
        begin(&mut a, &b, grant(epoch));
        until(&mut a, &mut b, "connected", |a, b| {
            !a.events.is_empty() && !b.events.is_empty()
        });
        for end in [&mut a, &mut b] {
            let event = end.events.pop();
            assert!(
                matches!(event, Some(EdgeEvent::Connected { peer: 5, epoch: e, .. }) if e == epoch),
                "{event:?}"
            );
        }
        // The same grant again: it is used up, and the connection stays.
        begin(&mut a, &b, grant(epoch));
        until(&mut a, &mut b, "refused", |a, _| !a.events.is_empty());
        let refused = HandshakeError::Refused(Refusal::Grant).into();
        assert_eq!(
            a.events,
            [EdgeEvent::Failed {
                peer: 5,
                error: refused
            }]
        );
        a.events.clear();
        // Each later connection ends the one before, at both ends, before it is made.
        let ended = usize::try_from(epoch - 1).expect("small");
        assert_eq!((a.closed.len(), b.closed.len()), (ended, ended));
    }
    assert_eq!(
        (b.edge.counts().connected, b.edge.counts().turned_away),
        (3, 3)
    );
}

#[test]
fn a_process_that_is_gone_ends_its_connection_though_nothing_was_sent() {
    let net = MockNet::new(1, MockLimits::default());
    let (mut a, mut b) = (End::new(&net, false), End::new(&net, true));
    b.edge.allow(grant(1));
    begin(&mut a, &b, grant(1));
    until(&mut a, &mut b, "connected", |a, b| {
        !a.events.is_empty() && !b.events.is_empty()
    });
    drop(a);
    let mut other = End::new(&net, false);
    until(&mut other, &mut b, "closed", |_, b| !b.closed.is_empty());
    assert_eq!(b.closed, [CloseReason::PeerGone]);
}

#[test]
fn strangers_are_turned_away_and_who_says_nothing_is_given_up() {
    let net = MockNet::new(1, MockLimits::default());
    let (mut a, mut b) = (End::new(&net, false), End::new(&net, true));
    let to = b.edge.local_addr().expect("it listens");
    let mut foreign = TcpStream::connect(to).expect("it listens");
    foreign.write_all(b"GET / HTTP/1.1\r\n\r\n").expect("sent");
    let silent = TcpStream::connect(to).expect("it listens");
    until(&mut a, &mut b, "turned away", |_, b| {
        b.edge.counts().accepted == 2 && b.edge.counts().turned_away == 1
    });
    let mut rest = Vec::new();
    let _ = foreign.read_to_end(&mut rest);
    assert!(rest.is_empty(), "strangers get no answer");
    b.turn(Time::ZERO.after(Nanos::from_ms(1000)));
    assert_eq!(b.edge.counts().turned_away, 2);
    drop(silent);
    // A token that differs, and an epoch that has passed.
    b.edge.allow(grant(4));
    for (shown, refusal) in [
        (
            SetupGrant {
                token: [8; 16],
                ..grant(4)
            },
            Refusal::Grant,
        ),
        (grant(3), Refusal::Epoch),
        (grant(5), Refusal::Grant),
    ] {
        begin(&mut a, &b, shown);
        until(&mut a, &mut b, "refused", |a, _| !a.events.is_empty());
        let error = HandshakeError::Refused(refusal).into();
        assert_eq!(a.events.pop(), Some(EdgeEvent::Failed { peer: 5, error }));
    }
    assert!(b.events.is_empty());
}

#[test]
fn nobody_listening_is_an_event_and_the_queue_pair_is_free_again() {
    let net = MockNet::new(1, MockLimits::default());
    let (mut a, mut b) = (End::new(&net, false), End::new(&net, true));
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let to = free.local_addr().expect("bound");
    drop(free);
    for _ in 0..5 {
        match a.edge.connect(Time::ZERO, &mut a.fabric, to, grant(1)) {
            Ok(()) => {
                until(&mut a, &mut b, "failed", |a, _| !a.events.is_empty());
                let event = a.events.pop();
                assert!(
                    matches!(
                        event,
                        Some(EdgeEvent::Failed {
                            error: SetupError::Tcp(_),
                            ..
                        })
                    ),
                    "{event:?}"
                );
            }
            Err(EdgeError::Connect { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
}
