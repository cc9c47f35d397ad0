//! Which connection leads to the process of a place: lives that are past, connections that come and go.

use super::rules::Running;
use super::*;
use ionian_wire::frame::{Message, ShardStatus};

#[test]
fn a_past_life_is_told_to_stop() {
    let mut world = Running::start(Durability::D0);
    let past = hello(2, world.incs[2]);
    world.register(2, false).unwrap();
    world.settle();
    world.directory.connected(ConnId::new(60));
    world.send(60, &past);
    let sent = world.drain();
    let told = sent.iter().find_map(|(conn, frame)| match message(frame) {
        Message::Registered(answer, why) if conn.get() == 60 => {
            Some((answer.request, answer.inc, why))
        }
        _ => None,
    });
    let (request, inc, why) = told.unwrap();
    assert_eq!((request, inc), (0, Inc::ZERO));
    let why = String::from_utf8_lossy(why);
    assert!(
        why.contains("of replica 0.0 was replaced by a later one"),
        "{why}"
    );
    assert_eq!(
        world.map().logs[0].shards[0].replicas[0].endpoint.inc,
        world.incs[2]
    );
}

#[test]
fn a_process_without_connection_is_shown_as_down_and_up_again() {
    let mut world = Running::start(Durability::D0);
    let version = world.map().version;
    world.directory.disconnected(world.now, ConnId::new(2));
    assert_eq!(world.map().version, version, "a short break is not shown");
    world.now = world.directory.next_deadline();
    world.directory.on_deadline(world.now);
    assert_eq!(
        world.map().logs[0].shards[0].replicas[0].endpoint.inc,
        Inc::ZERO
    );
    assert!(world.map().version > version);
    assert!(world.directory.logs().next().unwrap().missing[0].contains("replica 0.0"));
    world.directory.connected(ConnId::new(90));
    let again = bytes(&hello(2, world.incs[2]));
    world
        .directory
        .handle(world.now, ConnId::new(90), &message(&again));
    assert_eq!(
        world.map().logs[0].shards[0].replicas[0].endpoint.inc,
        world.incs[2]
    );
    assert!(world.settle().is_empty(), "a reconnection changes no view");
}

/// What the leaf says over `conn`, and whether it counts.
fn counts(world: &mut Running, conn: usize) -> bool {
    let before = world.directory.counters().stale;
    let report = ShardStatus {
        log: LOG,
        shard: ShardId::ZERO,
        epoch: ViewId::new(1),
        whole: true,
        ready: false,
        regressed: 0,
        held: 0b11,
        slowest: 0,
        members: 2,
    };
    world.send(conn, &report);
    world.directory.counters().stale == before
}

/// A leaf gave its connection up before the hello that it had sent there arrived. The late hello took the place from the
/// new connection; when the old one was gone too, nothing that the leaf said counted any more.
#[test]
fn a_hello_that_comes_late_does_not_take_the_place_from_a_later_connection() {
    let mut world = Running::start(Durability::D0);
    let again = hello(LEAF, world.incs[LEAF]);
    world.directory.connected(ConnId::new(60));
    world.send(60, &again);
    assert!(counts(&mut world, 60));
    world.send(LEAF, &again);
    assert!(counts(&mut world, 60));
    assert!(!counts(&mut world, LEAF), "it was given up");
    let old = ConnId::new(LEAF as u32);
    world.directory.disconnected(world.now, old);
    assert!(counts(&mut world, 60));
    world.now = world.now.after(DirectoryConfig::default().down_after);
    world.directory.on_deadline(world.now);
    let missing = world.directory.logs().next().unwrap().missing;
    assert!(missing.is_empty(), "{missing:?}");
    // The number of the connection is used again, by one that opens later.
    world.directory.connected(old);
    world.send(LEAF, &again);
    assert!(counts(&mut world, LEAF));
}

/// A connection that was given up may be accepted after the one that followed it.
#[test]
fn when_the_last_connection_of_a_life_is_gone_the_one_before_counts() {
    let mut world = Running::start(Durability::D0);
    world.directory.connected(ConnId::new(60));
    world.send(60, &hello(LEAF, world.incs[LEAF]));
    world.directory.disconnected(world.now, ConnId::new(60));
    assert!(counts(&mut world, LEAF));
    assert_eq!(world.directory.next_deadline(), Time::FAR, "it is there");
    // One of a past life does not.
    let past = world.incs[LEAF];
    world.directory.connected(ConnId::new(61));
    let (next, last_inc) = (register(LEAF, 1000, past, false), world.incs[LEAF]);
    world.send(61, &next);
    world.settle();
    world.directory.disconnected(world.now, ConnId::new(61));
    assert!(!counts(&mut world, LEAF), "incarnation {last_inc}");
    assert!(world.directory.next_deadline() < Time::FAR);
}

/// The answers to registrations that leave now, with the connections that they are for.
fn answers(world: &mut Running) -> Vec<(u32, u64, bool)> {
    let answer = |(conn, frame): &(ConnId, Vec<u8>)| match message(frame) {
        Message::Registered(answer, _) => {
            Some((conn.get(), answer.request, answer.inc != Inc::ZERO))
        }
        _ => None,
    };
    world.drain().iter().filter_map(answer).collect()
}

/// A process that gave a connection up before it was admitted asks again over the next. Its first question must not end the
/// life that the second was given, whenever it arrives.
#[test]
fn a_registration_that_comes_late_does_not_end_a_healthy_life() {
    let mut world = Running::start(Durability::D0);
    world.directory.connected(ConnId::new(60));
    world.directory.connected(ConnId::new(61));
    world.send(61, &register(2, 502, world.incs[2], false));
    assert!(answers(&mut world).contains(&(61, 502, true)));
    world.send(60, &register(2, 501, world.incs[2], false));
    assert_eq!(answers(&mut world), []);
    world.directory.disconnected(world.now, ConnId::new(60));
    world.now = world.now.after(DirectoryConfig::default().late_after);
    world.directory.on_deadline(world.now);
    assert_eq!(answers(&mut world), []);
}

/// The earlier connection is the one of another process: it has the place when the later one is gone, or when both stay.
#[test]
fn a_registration_held_back_is_taken_in_the_end() {
    for gone in [true, false] {
        let mut world = Running::start(Durability::D0);
        world.directory.connected(ConnId::new(60));
        world.directory.connected(ConnId::new(61));
        world.send(61, &hello(2, world.incs[2]));
        world.send(60, &register(2, 501, Inc::ZERO, false));
        assert_eq!(answers(&mut world), []);
        if gone {
            world.directory.disconnected(world.now, ConnId::new(2));
            world.directory.disconnected(world.now, ConnId::new(61));
        } else {
            world.now = world.directory.next_deadline();
            world.directory.on_deadline(world.now);
        }
        assert!(answers(&mut world).contains(&(60, 501, true)));
    }
}
