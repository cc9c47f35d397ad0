//! Queue pairs that break, queues that overrun, peers that leave or lie: everything is accounted for, and connections can be
//! made again.

use super::*;
use crate::api::Data;

/// Sends `from` until `due` messages have come to `to` since it was emptied.
fn exchange(from: &mut End, to: &mut End, conn: ConnId, due: usize) {
    to.received.clear();
    let mut sent = 0;
    for _ in 0..100_000 {
        if to.received.len() == due {
            return;
        }
        while sent < due as u64 && from.send(conn, &message(sent, 700)) {
            sent += 1;
        }
        turns(from, to, 1);
    }
    panic!("{} of {due} messages came", to.received.len());
}

#[test]
fn a_broken_pair_is_drained_and_reset_and_serves_another_epoch() {
    for seed in 0..20 {
        let (mut a, mut b) = pair(seed, options());
        for epoch in 1..6 {
            let (to_b, to_a) = connect(&mut a, &mut b, epoch);
            exchange(&mut a, &mut b, to_b, 200);
            // In the midst of a burst, both ways.
            while a.send(to_b, &message(0, 900)) {}
            while b.send(to_a, &message(0, 900)) {}
            a.fabric.flush();
            b.fabric.flush();
            let num = a.fabric.conns[a.fabric.place(to_b).expect("live")].qp_num;
            a.fabric.api_mut().harm(MockFaults::QueuePair(num));
            for _ in 0..20_000 {
                turns(&mut a, &mut b, 1);
                if a.fabric.is_reset(to_b) && b.fabric.is_reset(to_a) {
                    break;
                }
            }
            assert!(
                a.fabric.is_reset(to_b) && b.fabric.is_reset(to_a),
                "seed {seed}"
            );
            assert_eq!((a.closed.len(), b.closed.len()), (1, 1), "one event each");
            assert_eq!(a.closed[0], CloseReason::Broken);
            assert!(!a.send(to_b, b"x"), "the number is not used again");
            a.closed.clear();
            b.closed.clear();
        }
        assert_eq!(
            (a.fabric.counts().drained, b.fabric.counts().drained),
            (5, 5)
        );
        assert_eq!(a.fabric.counts().drained_by_force, 0);
        a.stop();
        b.stop();
    }
}

#[test]
fn what_was_flushed_before_a_close_arrives_and_the_peer_is_told() {
    for seed in 0..20 {
        let (mut a, mut b) = pair(seed, options());
        let (to_b, to_a) = connect(&mut a, &mut b, 1);
        for n in 0..40 {
            assert!(a.send(to_b, &message(n, 300)));
        }
        a.fabric.flush();
        a.fabric.close(to_b);
        for _ in 0..5000 {
            turns(&mut a, &mut b, 1);
        }
        assert_eq!(
            (b.received.len(), &*b.closed),
            (40, &[CloseReason::PeerGone][..])
        );
        assert!(a.closed.is_empty(), "no event where it was closed");
        assert!(a.fabric.is_reset(to_b) && b.fabric.is_reset(to_a));
        a.stop();
        b.stop();
    }
}

#[test]
fn a_lost_completion_queue_ends_all_connections_and_is_made_anew() {
    let (mut a, mut b) = pair(9, options());
    let (to_b, _) = connect(&mut a, &mut b, 1);
    exchange(&mut a, &mut b, to_b, 100);
    while a.send(to_b, &message(0, 900)) {}
    a.fabric.flush();
    a.fabric.api_mut().harm(MockFaults::CompletionQueues);
    for _ in 0..20_000 {
        turns(&mut a, &mut b, 1);
    }
    assert_eq!(
        (&*a.closed, a.fabric.counts().device_faults),
        (&[CloseReason::Broken][..], 1)
    );
    let (to_b, _) = connect(&mut a, &mut b, 2);
    exchange(&mut a, &mut b, to_b, 100);
    a.stop();
    b.stop();
}

#[test]
fn a_port_that_is_down_is_a_peer_that_does_not_answer() {
    let (mut a, mut b) = pair(9, options());
    let (to_b, _) = connect(&mut a, &mut b, 1);
    a.fabric.api_mut().harm(MockFaults::Port(false));
    assert!(a.send(to_b, b"into the void"));
    for _ in 0..5000 {
        turns(&mut a, &mut b, 1);
    }
    assert_eq!(a.closed, [CloseReason::PeerGone]);
    a.fabric.api_mut().harm(MockFaults::Port(true));
    let (to_b, _) = connect(&mut a, &mut b, 2);
    exchange(&mut a, &mut b, to_b, 100);
}

#[test]
fn a_drain_whose_completions_never_come_is_ended_by_the_reset() {
    let (mut a, mut b) = pair(9, options());
    let (to_b, _) = connect(&mut a, &mut b, 1);
    a.fabric.api_mut().harm(MockFaults::SilentSends);
    while a.send(to_b, &message(0, 900)) {}
    a.fabric.flush();
    let num = a.fabric.conns[a.fabric.place(to_b).expect("live")].qp_num;
    a.fabric.api_mut().harm(MockFaults::QueuePair(num));
    let mut events = Bounded::with_capacity(4);
    for _ in 0..(1 << 20) + 8192 {
        a.fabric.poll(&mut a.pool, &mut events);
    }
    assert!(a.fabric.is_reset(to_b));
    assert_eq!(a.fabric.counts().drained_by_force, 1);
    assert_eq!(a.pool.in_use(), a.fabric.held());
    a.stop();
    b.stop();
}

/// Posts one hostile request on `a`'s queue pair, past the fabric, and says what becomes of the connection at `b`.
fn hostile(op: SendOp, data: Data) -> Option<CloseReason> {
    let (mut a, mut b) = pair(11, options());
    let (to_b, _) = connect(&mut a, &mut b, 1);
    let qp = a.fabric.conns[a.fabric.place(to_b).expect("live")].qp;
    let work = SendWork {
        wr_id: 0,
        op,
        data,
        signalled: false,
    };
    // SAFETY: the work names no slot.
    let posted = unsafe { a.fabric.api_mut().post_send(qp, &[work]) };
    posted.expect("room");
    for _ in 0..3000 {
        b.turn();
    }
    assert!(b.received.is_empty() && b.delivered.is_empty());
    let reason = b.closed.first().copied();
    b.stop();
    reason
}

use crate::api::{RemoteBytes, SendOp};

#[test]
fn what_no_correct_peer_sends_ends_its_connection() {
    let send = |immediate| SendOp::Send { immediate };
    let control = |frame: &[u8]| {
        let mut bytes = [0; crate::control::CONTROL_BYTES_MAX];
        bytes[..frame.len()].copy_from_slice(frame);
        Data::Control {
            bytes,
            len: u8::try_from(frame.len()).expect("small"),
        }
    };
    let region_out_of_table = [1u32, 64, 0, 0, 8, 1, 0, 0]
        .into_iter()
        .flat_map(u32::to_le_bytes)
        .collect::<Vec<u8>>();
    let written_elsewhere = [2u32, 0, 0, 0, 8, 1]
        .into_iter()
        .flat_map(u32::to_le_bytes)
        .collect::<Vec<u8>>();
    let cases = [
        ("immediate bits that nobody sets", send(1), Data::None),
        ("more credits than there are", send(9 << 16), Data::None),
        ("no credits alone", send(2 << 30), Data::None),
        ("credits with bytes", send(2 << 30 | 1 << 16), control(&[1])),
        ("an empty frame", send(1 << 30), Data::None),
        ("a frame of garbage", send(1 << 30), control(&[7; 40])),
        (
            "a region beyond the table",
            send(1 << 30),
            control(&region_out_of_table),
        ),
        (
            "a write that was not permitted",
            send(1 << 30),
            control(&written_elsewhere),
        ),
        ("a write's number on a send", send(3 << 30), Data::None),
        (
            "a write to nowhere",
            SendOp::WriteWithImmediate {
                remote: RemoteBytes {
                    address: 64,
                    rkey: 5,
                },
                immediate: 3 << 30,
            },
            control(&[1]),
        ),
    ];
    for (what, op, data) in cases {
        assert_eq!(hostile(op, data), Some(CloseReason::Protocol), "{what}");
    }
}

#[test]
fn a_peer_that_sends_beyond_its_credits_is_cut_off() {
    let net = MockNet::new(12, MockLimits::default());
    // All slots of `b` are posted, and it gives none back: nothing is made good, so the peer has its first credits only.
    let (mut a, mut b) = (
        End::new(&net, options(), 512),
        End::new(&net, options(), 136),
    );
    let (to_b, _) = connect(&mut a, &mut b, 1);
    let place = a.fabric.place(to_b).expect("live");
    for n in 0..80 {
        a.fabric.conns[place].credits = 2; // it lies to itself
        assert!(a.send(to_b, &message(n, 100)));
    }
    a.fabric.flush();
    let mut kept = Vec::new();
    let mut events = Bounded::with_capacity(256);
    for _ in 0..3000 {
        b.fabric.poll(&mut b.pool, &mut events);
        while let Some(event) = events.pop() {
            match event {
                FabricEvent::Received { buf, .. } => kept.push(buf),
                FabricEvent::Closed { reason, .. } => b.closed.push(reason),
                FabricEvent::Delivered { .. } => panic!("nothing was written"),
            }
        }
    }
    assert_eq!((kept.len(), &*b.closed), (64, &[CloseReason::Protocol][..]));
    kept.into_iter().for_each(|buf| b.pool.free(buf));
    b.stop();
}

#[test]
fn a_reservation_is_void_after_it_was_given_back_and_numbers_of_strangers_are_checked() {
    let (mut a, mut b) = pair(13, options());
    let (ticket, _) = a.fabric.reserve(1, 5).expect("free");
    let (_, good) = b.fabric.reserve(1, 5).expect("free");
    a.fabric.abandon(ticket);
    assert_eq!(a.fabric.establish(ticket, &good), Err(EstablishError::Void));
    let wrong = [
        Endpoint {
            qp_num: 1 << 24,
            ..good
        },
        Endpoint {
            psn: 1 << 24,
            ..good
        },
        Endpoint { credits: 0, ..good },
        Endpoint {
            address: crate::api::Address {
                mtu_bytes: 1500,
                ..good.address
            },
            ..good
        },
    ];
    for remote in wrong {
        let (ticket, _) = a.fabric.reserve(1, 5).expect("given back");
        let refused = a.fabric.establish(ticket, &remote);
        assert!(matches!(refused, Err(EstablishError::Remote { .. })));
    }
    a.fabric.reserve(1, 5).expect("free");
    a.fabric.reserve(1, 5).expect("free");
    assert_eq!(a.fabric.reserve(1, 5).err(), Some(ReserveError::Full));
}
