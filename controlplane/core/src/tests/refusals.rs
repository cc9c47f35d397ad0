//! What a process is refused at the handshake: the process hears it, and so does the operator.

use super::*;
use crate::Refused;

/// A directory in which everybody has registered and said hello.
fn whole(class: Durability) -> Directory {
    let mut directory = directory(class);
    for place in 0..PLACES {
        let conn = ConnId::new(place as u32);
        directory.connected(conn);
        say(&mut directory, conn, &register(place, 1, Inc::ZERO, false));
        say(
            &mut directory,
            conn,
            &hello(place, Inc::new(place as u64 + 1)),
        );
    }
    persist(&mut directory);
    assert_eq!(directory.take_refused(), None, "nobody is refused");
    directory
}

fn say<B: Body>(directory: &mut Directory, conn: ConnId, body: &B) {
    directory.handle(Time::ZERO, conn, &message(&bytes(body)));
}

/// What a process hears that says this over a new connection, and what the operator does.
fn refused<B: Body>(directory: &mut Directory, body: &B) -> (String, Refused) {
    let conn = ConnId::new(99);
    directory.connected(conn);
    say(directory, conn, body);
    persist(directory);
    let mut heard = String::new();
    for (to, frame) in drain(directory, Time::ZERO) {
        if let Message::Registered(answer, why) = message(&frame)
            && to == conn
        {
            assert_eq!(answer.inc, Inc::ZERO);
            heard = String::from_utf8(why.to_vec()).unwrap();
        }
    }
    let told = directory.take_refused().expect("the operator is told");
    assert_eq!(told.conn, conn);
    assert_eq!(directory.take_refused(), None, "once");
    (heard, told)
}

const REPLICA: usize = 2;

#[test]
fn a_data_directory_of_another_cluster() {
    let foreign = Register {
        cluster: ClusterId::new(78),
        ..register(REPLICA, 7, Inc::new(3), true)
    };
    let (heard, told) = refused(&mut whole(Durability::D1), &foreign);
    assert_eq!(heard, told.sentence);
    assert!(
        !told.closes && heard.contains("belongs to cluster"),
        "{heard}"
    );
}

#[test]
fn an_old_image_of_a_replica() {
    let mut directory = whole(Durability::D1);
    let conn = ConnId::new(50);
    directory.connected(conn);
    directory.disconnected(Time::ZERO, ConnId::new(REPLICA as u32));
    let last = Inc::new(REPLICA as u64 + 1);
    say(&mut directory, conn, &register(REPLICA, 7, last, true));
    let now = Inc::new(PLACES as u64 + 1);
    say(&mut directory, conn, &hello(REPLICA, now));
    persist(&mut directory);
    directory.disconnected(Time::ZERO, conn);
    // What it held before that life began is put back.
    let old = register(REPLICA, 8, last, true);
    let (heard, told) = refused(&mut directory, &old);
    assert_eq!(heard, told.sentence);
    assert!(
        heard.contains("replica 0.0 on node 3 is an old image: it was last used by incarnation 3, and incarnation 7 has written since"),
        "{heard}"
    );
}

#[test]
fn a_life_that_was_replaced() {
    let mut directory = whole(Durability::D1);
    let conn = ConnId::new(50);
    directory.connected(conn);
    say(
        &mut directory,
        conn,
        &register(REPLICA, 7, Inc::new(3), true),
    );
    persist(&mut directory);
    let (heard, told) = refused(&mut directory, &hello(REPLICA, Inc::new(3)));
    assert_eq!(heard, told.sentence);
    assert!(heard.contains("incarnation 3 of replica 0.0 was replaced"));
}

/// They were counted, and nobody heard of it.
#[test]
fn a_hello_of_another_cluster_or_version() {
    let mut directory = whole(Durability::D0);
    let foreign = Hello {
        cluster: ClusterId::new(78),
        ..hello(REPLICA, Inc::new(3))
    };
    let (_, told) = refused(&mut directory, &foreign);
    assert!(told.closes, "nothing else counts");
    assert!(told.sentence.contains("node 3 says that it is of cluster"));
    let newer = Hello {
        wire_version: ionian_wire::WIRE_VERSION + 1,
        ..hello(REPLICA, Inc::new(3))
    };
    let (_, told) = refused(&mut directory, &newer);
    assert!(told.closes);
    assert!(told.sentence.contains("upgrade the older side first"));
    assert_eq!(directory.counters().foreign, 2);
}

#[test]
fn what_waits_to_be_told_is_bounded() {
    let mut directory = whole(Durability::D1);
    let conn = ConnId::new(99);
    directory.connected(conn);
    for request in 0..1000 {
        let foreign = Register {
            cluster: ClusterId::new(78),
            ..register(REPLICA, request, Inc::new(3), true)
        };
        say(&mut directory, conn, &foreign);
    }
    let told = core::iter::from_fn(|| directory.take_refused());
    assert_eq!(told.count(), 64);
}
