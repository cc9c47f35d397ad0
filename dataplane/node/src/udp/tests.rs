//! A port that has lost its sessions says so to those that still have them, and to nobody else.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use ionian_core::session::{Session, SessionConfig, Take};
use ionian_driver_api::Clock;
use ionian_runtime::MonotonicClock;
use ionian_types::{GuardEpoch, Nanos, SessionId, Time};
use ionian_wire::frame::{DirectoryRequest, encode};

use super::{STATIC_EPOCH, UdpPort};
use crate::config::{NetworkConfig, Secret};

/// Longer than the test may take.
const DEAD_AFTER: Nanos = Nanos::from_ms(600_000);

fn open(address: SocketAddr, secret: u8) -> UdpPort {
    let options = NetworkConfig::default().port(address);
    UdpPort::open(&options, Secret::new([secret; 32]), DEAD_AFTER).expect("a socket")
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
    let out = near.dial(clock.now(), address).expect("room");
    assert!(near.send(out, &message(), &[]));
    let back = far.dial(clock.now(), near.local_addr()).expect("room");
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
    for session in [0, 1] {
        assert!(near.send(session, &message(), &[]));
    }
    let mut ended = 0;
    run(&clock, [&mut near, &mut far], |ends, taken, _| {
        ended += usize::from(ends[0].take_ended().is_some());
        assert_eq!(
            taken[1], 0,
            "nothing is taken from a session that is not there"
        );
        ended == 2
    });
    assert!(far.stats().forgotten >= 2 && far.stats().open == 0);
    // A new one works.
    let again = near.dial(clock.now(), address).expect("room");
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

/// A late copy of the first packet of a session once made another session at the end that had given it up, and both ends
/// took each other for alive while neither had what the other one waited for.
#[test]
fn a_late_copy_of_a_first_packet_does_not_bring_a_session_back() {
    let any = "127.0.0.1:0".parse().expect("an address");
    let clock = MonotonicClock::start();
    let (mut near, mut far) = (open(any, 7), open(any, 7));
    let socket = std::net::UdpSocket::bind(any).expect("a socket");
    let id = SessionId::new(77);
    let (opener, other) = Secret::new([7; 32]).session_tokens(id, STATIC_EPOCH);
    let config = SessionConfig::new(id, GuardEpoch::new(STATIC_EPOCH), opener, other);
    let mut session = Session::new(config, clock.now()).expect("a legal configuration");
    assert_eq!(session.push(&[&message()]), Ok(()));
    let mut first = [0; 2048];
    let len = session
        .poll_transmit(clock.now(), &mut first)
        .expect("a packet");
    let first = &first[..len];
    assert_eq!(socket.send_to(first, far.local_addr()).expect("sent"), len);
    run(&clock, [&mut near, &mut far], |_, taken, _| taken[1] == 1);
    far.close(clock.now(), 0);
    assert_eq!(far.take_ended(), Some(0));

    assert_eq!(socket.send_to(first, far.local_addr()).expect("sent"), len);
    run(&clock, [&mut near, &mut far], |ends, taken, _| {
        assert_eq!((taken[1], ends[1].stats().open), (0, 0));
        ends[1].stats().forgotten == 1
    });
}
