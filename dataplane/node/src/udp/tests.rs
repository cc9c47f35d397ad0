//! A port that has lost its sessions says so to those that still have them, and to nobody else.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use ionian_core::session::{Session, SessionConfig, Take};
use ionian_driver_api::Clock;
use ionian_runtime::MonotonicClock;
use ionian_types::{Nanos, NodeId, Time};
use ionian_wire::frame::{Append, DirectoryRequest, Seal, Tail, TrimRequest, encode};
use ionian_wire::packet::{PacketHeader, PacketKind, PacketPrefix};

use super::{HALF_OPEN_MAX, Parting, UdpPort};
use crate::config::{NetworkConfig, Secret};
use ionian_core::guard::{ANY_NODE, Granted};
use ionian_wire::grant::Rights;

/// Longer than the test may take.
const DEAD_AFTER: Nanos = Nanos::from_ms(600_000);

fn open(address: SocketAddr, secret: u8) -> UdpPort {
    open_at(address, secret, ANY_NODE, DEAD_AFTER)
}

fn open_at(address: SocketAddr, secret: u8, node: NodeId, dead_after: Nanos) -> UdpPort {
    let options = NetworkConfig::default().port(address);
    let keyring = Secret::new([secret; 32]).keyring(node, Rights::ALL);
    UdpPort::open(&options, keyring, dead_after).expect("a socket")
}

fn message() -> Vec<u8> {
    let mut message = [0; 64];
    let request = DirectoryRequest {
        request: 1,
        known: 0,
    };
    let len = encode(&mut message, &request, &[]).expect("a short message");
    message[..len].to_vec()
}

/// Runs both ends until the condition holds; what each received counts.
fn run(
    clock: &MonotonicClock,
    ends: [&mut UdpPort; 2],
    mut done: impl FnMut(&mut [&mut UdpPort; 2], [u32; 2], Time) -> bool,
) {
    let mut ends = ends;
    let mut taken = [0; 2];
    let start = Instant::now();
    loop {
        let now = clock.now();
        for (end, taken) in ends.iter_mut().zip(&mut taken) {
            end.receive(now, &mut |_, _, _| {
                *taken += 1;
                Take::Taken
            });
            end.transmit(now);
        }
        if done(&mut ends, taken, now) {
            return;
        }
        assert!(
            start.elapsed() < Duration::from_secs(30),
            "{taken:?}: {:?}, {:?}",
            ends[0].stats(),
            ends[1].stats()
        );
    }
}

#[test]
fn sessions_of_an_earlier_life_are_closed_at_once() {
    let any = "127.0.0.1:0".parse().expect("an address");
    let clock = MonotonicClock::start();
    let (mut near, mut far) = (open(any, 7), open(any, 7));
    let address = far.local_addr();
    // One session each way, and what was said has arrived.
    let out = near.dial(clock.now(), ANY_NODE, address).expect("room");
    assert!(near.send(out, &message(), &[]));
    let back = far
        .dial(clock.now(), ANY_NODE, near.local_addr())
        .expect("room");
    assert!(far.send(back, &message(), &[]));
    let mut answered = false;
    run(&clock, [&mut near, &mut far], |ends, taken, _| {
        if taken == [1, 1] && !answered {
            // An answer over each, so that both ends have heard of each other.
            answered = ends[0].send(1, &message(), &[]) && ends[1].send(1, &message(), &[]);
        }
        taken == [2, 2]
            && ends.iter().all(|end| {
                end.peers
                    .iter()
                    .flatten()
                    .all(|peer| peer.session.unacked_bytes() == 0)
            })
    });

    drop(far);
    let mut far = open(address, 7);
    // The one that this end opened: it shows its grant once an answer is overdue.
    assert!(near.send(out, &message(), &[]));
    run(&clock, [&mut near, &mut far], |ends, taken, _| {
        assert_eq!(
            taken[1], 0,
            "nothing is taken from a session that is not there"
        );
        ends[0]
            .take_ended()
            .inspect(|ended| assert_eq!(*ended, out))
            .is_some()
    });
    assert!(far.stats().forgotten >= 1 && far.stats().open == 0);
    // A new one works.
    let again = near.dial(clock.now(), ANY_NODE, address).expect("room");
    assert!(near.send(again, &message(), &[]));
    run(&clock, [&mut near, &mut far], |_, taken, _| taken[1] == 1);

    // Who has another secret is told nothing.
    drop(far);
    let mut far = open(address, 8);
    assert!(near.send(again, &message(), &[]));
    run(&clock, [&mut near, &mut far], |ends, _, _| {
        ends[1].stats().strangers > 0
    });
    assert_eq!((far.stats().forgotten, near.take_ended()), (0, None));
}

/// A session that an end has closed was closed by one that lived; one that ended by silence tells of a process that may hang.
#[test]
fn how_a_session_with_a_process_ended_is_known() {
    let any = "127.0.0.1:0".parse().expect("an address");
    let clock = MonotonicClock::start();
    let (one, two) = (NodeId::new(1), NodeId::new(2));
    for closes in [true, false] {
        // This end waits less long.
        let mut near = open_at(any, 7, one, Nanos::from_ms(100));
        let mut far = open_at(any, 7, two, DEAD_AFTER);
        let out = near.dial(clock.now(), two, far.local_addr());
        assert!(near.send(out.expect("room"), &message(), &[]));
        let (mut answered, mut heard) = (false, Time::ZERO);
        run(&clock, [&mut near, &mut far], |ends, taken, now| {
            if taken == [0, 1] && !answered {
                answered = ends[1].send(0, &message(), &[]);
            }
            heard = now;
            taken == [1, 1]
        });
        if closes {
            far.close(clock.now(), 0);
        }
        let parted = loop {
            let now = clock.now();
            near.receive(now, &mut |_, _, _| Take::Taken);
            near.transmit(now);
            if let Some((session, parting)) = near.take_parted() {
                assert_eq!(Some(session), out);
                break parting.expect("it was one with a process");
            }
            assert!(now.since(heard) < Nanos::from_ms(30_000));
        };
        let Parting { node, silent, .. } = parted;
        assert_eq!((node, silent), (two, !closes));
        assert!(parted.heard.is_some());
    }
}

/// A socket without sessions of its own, which sends what the test tells it to.
struct Forger {
    socket: std::net::UdpSocket,
    session: Session,
    granted: Granted,
    clock: MonotonicClock,
}

impl Forger {
    fn new(clock: MonotonicClock, rights: Rights) -> Self {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("a socket");
        let mut keyring = Secret::new([7; 32]).keyring(ANY_NODE, rights);
        let granted = keyring
            .open(ANY_NODE, super::random)
            .expect("a secret is shared");
        let epoch = granted.grant.epoch;
        let config = SessionConfig::new(granted.session, epoch, granted.send, granted.receive);
        Self {
            socket,
            session: Session::new(config, clock.now()).expect("a legal configuration"),
            granted,
            clock,
        }
    }

    fn show_grant(&self, to: SocketAddr) {
        let prefix = PacketPrefix {
            session: self.granted.session,
            epoch: self.granted.grant.epoch,
            token: self.granted.send,
        };
        let header = PacketHeader {
            kind: PacketKind::Open,
            ask: false,
            seq: 0,
            ack: 0,
            credit: 0,
            sack: None,
        };
        let (grant, mut out) = (self.granted.grant.to_bytes(), [0; 256]);
        let len = header
            .emit(&prefix.to_bytes(), [&grant, &[]], &mut out)
            .expect("room");
        assert_eq!(self.socket.send_to(&out[..len], to).expect("sent"), len);
    }

    fn say(&mut self, message: &[u8], to: SocketAddr) {
        assert_eq!(self.session.push(&[message]), Ok(()));
        let mut out = [0; 2048];
        let now = self.clock.now();
        let len = self.session.poll_transmit(now, &mut out).expect("a packet");
        assert_eq!(self.socket.send_to(&out[..len], to).expect("sent"), len);
    }
}

/// A late copy of the packet that opened a session once made another session at the end that had given it up, and both ends
/// took each other for alive while neither had what the other one waited for.
#[test]
fn a_late_copy_of_a_first_packet_does_not_bring_a_session_back() {
    let any = "127.0.0.1:0".parse().expect("an address");
    let clock = MonotonicClock::start();
    let (mut near, mut far) = (open(any, 7), open(any, 7));
    let to = far.local_addr();
    let mut forger = Forger::new(clock, Rights::ALL);
    forger.show_grant(to);
    forger.say(&message(), to);
    run(&clock, [&mut near, &mut far], |_, taken, _| taken[1] == 1);
    far.close(clock.now(), 0);
    assert_eq!(far.take_ended(), Some(0));

    forger.show_grant(to);
    run(&clock, [&mut near, &mut far], |ends, taken, _| {
        assert_eq!((taken[1], ends[1].stats().open), (0, 0));
        ends[1].stats().forgotten == 1
    });
}

/// A packet of a session that nobody opened costs a look into a table, and leaves nothing.
#[test]
fn without_a_grant_shown_there_is_no_session() {
    let any = "127.0.0.1:0".parse().expect("an address");
    let clock = MonotonicClock::start();
    let (mut near, mut far) = (open(any, 7), open(any, 7));
    let mut forger = Forger::new(clock, Rights::ALL);
    forger.say(&message(), far.local_addr());
    run(&clock, [&mut near, &mut far], |ends, taken, _| {
        assert_eq!((taken[1], ends[1].stats().open), (0, 0));
        ends[1].stats().strangers == 1
    });
}

#[test]
fn each_right_that_a_grant_lacks_is_denied() {
    use ionian_types::{
        ClientId, ClientSeq, Gsn, LogId, SegmentId, SessionNo, ShardId, Slot, ViewId,
    };
    let (log, segment) = (
        LogId::new(1),
        SegmentId {
            shard: ShardId::new(0),
            slot: Slot::ZERO,
        },
    );
    let mut out = [0; 256];
    let mut encoded = |body: &dyn Fn(&mut [u8]) -> usize| {
        let len = body(&mut out);
        out[..len].to_vec()
    };
    let append = encoded(&|out| {
        let append = Append {
            log,
            segment,
            generation: ViewId::new(1),
            client: ClientId::new(1),
            session: SessionNo::ZERO,
            floor: ClientSeq::ZERO,
            first_seq: ClientSeq::ZERO,
            count: 0,
        };
        encode(out, &append, &[]).expect("room")
    });
    let tail = encoded(&|out| encode(out, &Tail { log, request: 1 }, &[]).expect("room"));
    let trim = encoded(&|out| {
        let trim = TrimRequest {
            log,
            upto: Gsn::ZERO,
            request: 1,
        };
        encode(out, &trim, &[]).expect("room")
    });
    let vote = encoded(&|out| {
        let seal = Seal {
            log,
            inc: ionian_types::Inc::new(1),
            epoch: ionian_types::RootEpoch::new(9),
        };
        encode(out, &seal, &[]).expect("room")
    });
    let cases = [
        (Rights::APPEND, append),
        (Rights::READ, tail),
        (Rights::TRIM, trim),
        (Rights::MEMBER, vote),
    ];
    let any = "127.0.0.1:0".parse().expect("an address");
    let clock = MonotonicClock::start();
    for (right, message) in &cases {
        let (mut near, mut far) = (open(any, 7), open(any, 7));
        let to = far.local_addr();
        for allowed in [*right, Rights::ALL.without(Rights::MEMBER).without(*right)] {
            let mut forger = Forger::new(clock, allowed);
            let denied = far.stats().denied;
            forger.show_grant(to);
            forger.say(message, to);
            let holds = allowed.holds(*right);
            run(&clock, [&mut near, &mut far], |ends, taken, _| {
                assert!(holds || taken[1] == 0, "{right}");
                if holds {
                    taken[1] == 1
                } else {
                    ends[1].stats().denied == denied + 1
                }
            });
            let ended = far.take_ended().is_some();
            assert_eq!(ended, !holds, "{right}: its session ends");
        }
    }
}

/// Whoever holds a grant could open as many sessions as there may be, say nothing in them, and keep everybody else out.
#[test]
fn sessions_in_which_nothing_is_said_give_way() {
    let any = "127.0.0.1:0".parse().expect("an address");
    let clock = MonotonicClock::start();
    let (mut near, mut far) = (open(any, 7), open(any, 7));
    let to = far.local_addr();
    let honest = near.dial(clock.now(), ANY_NODE, to).expect("room");
    assert!(near.send(honest, &message(), &[]));
    run(&clock, [&mut near, &mut far], |_, taken, _| taken[1] == 1);

    let mut keyring = Secret::new([7; 32]).keyring(ANY_NODE, Rights::ALL);
    let mut forger = Forger::new(clock, Rights::ALL);
    let flood = HALF_OPEN_MAX as u64 + 100;
    let before = far.admitted();
    for sent in 1..=flood {
        forger.granted = keyring
            .open(ANY_NODE, super::random)
            .expect("a secret is shared");
        forger.show_grant(to);
        run(&clock, [&mut near, &mut far], |ends, _, _| {
            while ends[1].take_ended().is_some() {}
            ends[1].admitted() == before + sent
        });
    }
    let stats = far.stats();
    assert_eq!(stats.open, HALF_OPEN_MAX as u64 + 1, "with the honest one");
    assert_eq!((stats.half_open, stats.full), (100, 0));
    // The honest session is there, and another one gets in.
    assert!(near.send(honest, &message(), &[]));
    let late = near.dial(clock.now(), ANY_NODE, to).expect("room");
    assert!(near.send(late, &message(), &[]));
    run(&clock, [&mut near, &mut far], |_, taken, _| taken[1] == 2);
    // One that gave way and says something after all is told that it is over.
    let over = far.stats().forgotten;
    forger = Forger::new(clock, Rights::ALL);
    forger.show_grant(to);
    for _ in 0..HALF_OPEN_MAX {
        let granted = keyring.open(ANY_NODE, super::random);
        let first = core::mem::replace(&mut forger.granted, granted.expect("a secret is shared"));
        forger.show_grant(to);
        forger.granted = first;
    }
    run(&clock, [&mut near, &mut far], |ends, _, _| {
        while ends[1].take_ended().is_some() {}
        ends[1].stats().half_open == 101 + HALF_OPEN_MAX as u64
    });
    forger.show_grant(to);
    run(&clock, [&mut near, &mut far], |ends, _, _| {
        while ends[1].take_ended().is_some() {}
        ends[1].stats().forgotten > over
    });
}
