//! Neighbours: asked for, aged, changed, bounded.

use super::*;

#[test]
fn a_packet_waits_for_its_neighbour_and_leaves_first() {
    for options in every_kind() {
        let mut segment = Segment::new(options);
        for n in 0..3u8 {
            segment.send(&[n]);
        }
        assert_eq!(segment.near.waiting(), 3);
        assert_eq!(segment.near.stats().tx_waited, 3);
        segment.settle();
        assert_eq!(segment.near.waiting(), 0);
        segment.send(&[3]);
        assert_eq!(segment.receive_far(), [[0], [1], [2], [3]]);
        let stats = segment.near.stats();
        // One announcement, one question, in spite of three packets.
        assert_eq!((stats.asked, stats.tx_unresolved), (2, 0));
        let peer = segment.far.local_addr().ip();
        assert_eq!(segment.near.neighbour(peer), Some(FAR_MAC));
        segment.close();
    }
}

#[test]
fn a_lost_question_is_asked_again() {
    for options in every_kind() {
        let mut segment = Segment::new(options);
        // Both have announced themselves, and the near host was not interested yet.
        segment.settle();
        segment.send(b"patient");
        assert_eq!(segment.lose(), 1, "a question");
        segment.settle();
        assert_eq!(segment.near.waiting(), 1);
        segment.advance_ms(249);
        segment.settle();
        assert_eq!(segment.lose(), 0, "too early");
        segment.advance_ms(1);
        segment.settle();
        assert_eq!(segment.receive_far(), [b"patient".to_vec()]);
        segment.close();
    }
}

#[test]
fn who_does_not_answer_is_forgotten_and_its_packets_are_lost() {
    let mut segment = Segment::new(v4());
    segment.send(b"lost");
    let mut questions = 0;
    for _ in 0..10 {
        questions += segment.lose();
        segment.advance_ms(250);
        segment.near.rx_burst(&mut segment.pool, &mut segment.queue);
    }
    // Four questions, and two announcements.
    assert_eq!(questions, 6);
    let stats = segment.near.stats();
    assert_eq!((stats.forgotten, stats.tx_unresolved), (1, 1));
    assert_eq!((segment.near.neighbours(), segment.near.waiting()), (0, 0));
    assert_eq!(segment.pool.in_use(), 0);
    assert_eq!(segment.near.next_deadline(), None);
    // It is asked for anew when it is needed again.
    segment.send(b"found");
    segment.settle();
    assert_eq!(segment.receive_far(), [b"found".to_vec()]);
    segment.close();
}

#[test]
fn an_aged_address_is_used_while_its_neighbour_is_asked() {
    for options in every_kind() {
        let mut segment = Segment::acquainted(options);
        // The second announcement comes, and is heard.
        segment.advance_ms(10_000);
        segment.settle();
        let asked = segment.near.stats().asked;
        segment.send(b"fresh");
        assert_eq!(segment.near.stats().asked, asked, "heard just now");
        segment.advance_ms(30_000);
        segment.send(b"aged");
        // The question goes to the one station, so nobody else is bothered.
        let frames = segment.under_way();
        assert_eq!(frames.len(), 3);
        assert!(frames.iter().all(|frame| frame[..6] == FAR_MAC.0));
        segment.settle();
        assert_eq!(segment.receive_far(), [b"fresh".to_vec(), b"aged".to_vec()]);
        assert_eq!(segment.near.stats().asked, asked + 1);
        // The answer makes it fresh again.
        segment.advance_ms(29_000);
        segment.send(b"again");
        assert_eq!(segment.near.stats().asked, asked + 1);
        segment.close();
    }
}

#[test]
fn one_who_no_longer_answers_is_looked_for_everywhere() {
    let mut segment = Segment::acquainted(v4());
    segment.advance_ms(30_000);
    segment.send(b"into the void");
    for _ in 0..3 {
        segment.lose();
        segment.advance_ms(250);
        segment.near.rx_burst(&mut segment.pool, &mut segment.queue);
    }
    segment.lose();
    segment.advance_ms(250);
    segment.near.rx_burst(&mut segment.pool, &mut segment.queue);
    let frames = segment.under_way();
    assert_eq!(
        frames.last().expect("a question")[..6],
        MacAddr::BROADCAST.0
    );
    segment.send(b"waits");
    assert_eq!(segment.near.waiting(), 1);
    segment.settle();
    assert_eq!(segment.receive_far(), [b"waits".to_vec()]);
    segment.close();
}

#[test]
fn a_host_that_returns_with_another_hardware_address_announces_it() {
    for options in [v4(), v6()] {
        let mut segment = Segment::acquainted(options);
        segment.advance_ms(5_000);
        segment.settle();
        let peer = segment.far.local_addr().ip();
        // The far host starts anew on another device, which speaks as soon as it is polled.
        let [other, _] = MemoryLink::pair([OTHER_MAC, NEAR_MAC], MTU, 8);
        let wire = other.wire();
        let mut reborn =
            EtherDevice::open(other, segment.clock.clone(), &options[1]).expect("valid");
        reborn.rx_burst(&mut segment.pool, &mut segment.queue);
        let announcement = wire.borrow_mut().pop().expect("it announces itself");
        let far_wire = segment.far.link_mut().wire();
        far_wire.borrow_mut().push(announcement).expect("room");
        segment.near.rx_burst(&mut segment.pool, &mut segment.queue);
        assert_eq!(segment.near.neighbour(peer), Some(OTHER_MAC));
        assert_eq!(segment.near.stats().changed, 1);
        segment.send(b"new address");
        assert_eq!(segment.under_way()[0][..6], OTHER_MAC.0);
        reborn.close(&mut segment.pool);
        segment.close();
    }
}

#[test]
fn a_fixed_neighbour_is_neither_asked_for_nor_changed() {
    let mut segment = Segment::new(v4());
    assert!(segment.near.fix_neighbour(ip("10.0.0.2"), FAR_MAC));
    assert!(
        !segment.near.fix_neighbour(ip("fd00::2"), FAR_MAC),
        "another family"
    );
    assert!(
        !segment
            .near
            .fix_neighbour(ip("10.0.0.3"), MacAddr::BROADCAST)
    );
    segment.send(b"at once");
    assert_eq!(segment.receive_far(), [b"at once".to_vec()]);
    // Somebody claims to be it.
    let mut imposter = segment.under_way();
    imposter.clear();
    let wire = segment.far.link_mut().wire();
    let mut buf = segment.pool.alloc().expect("free");
    segment.pool.set_front(&mut buf, 42, 42);
    let claim = (ip("10.0.0.2"), OTHER_MAC);
    let headers = segment.near.own.headers;
    crate::emit::answer(
        segment.pool.front_mut(&mut buf),
        headers,
        claim,
        (ip("10.0.0.1"), NEAR_MAC),
    );
    wire.borrow_mut()
        .push(Frame {
            buf,
            checksum: Checksum::InFrame,
        })
        .expect("room");
    segment.near.rx_burst(&mut segment.pool, &mut segment.queue);
    assert_eq!(segment.near.neighbour(ip("10.0.0.2")), Some(FAR_MAC));
    segment.close();
}

#[test]
fn two_hosts_with_one_address_are_counted() {
    for options in [v4(), v6()] {
        let [near, mut far] = options;
        far.local = near.local;
        let mut segment = Segment::new([near, far]);
        segment.settle();
        assert!(segment.near.stats().conflicts > 0 || segment.far.stats().conflicts > 0);
        assert_eq!(
            (segment.near.neighbours(), segment.far.neighbours()),
            (0, 0)
        );
        segment.close();
    }
}

#[test]
fn packets_that_wait_are_bounded_for_each_neighbour_and_for_all() {
    let mut options = v4();
    options[0].waiting_max = 2;
    options[0].waiting_all_max = 5;
    let mut segment = Segment::new(options);
    for host in 2..6u8 {
        for _ in 0..3 {
            segment.send_to(&[host], SocketAddr::new([10, 0, 0, host].into(), 1));
        }
    }
    assert_eq!(segment.near.waiting(), 5);
    assert_eq!(segment.near.stats().tx_unresolved, 7);
    segment.close();
}

#[test]
fn strangers_cannot_push_a_neighbour_out_and_own_packets_can() {
    let mut options = v4();
    options[1].neighbours_max = 4;
    let mut segment = Segment::acquainted(options);
    assert_eq!(segment.far.neighbour(ip("10.0.0.1")), Some(NEAR_MAC));
    let far_headers = segment.far.own.headers;
    for host in 10..30u8 {
        let mut question = [0; 42];
        let stranger = ([10, 0, 0, host].into(), MacAddr([2, 0, 0, 0, 1, host]));
        crate::emit::question(&mut question, far_headers, stranger, ip("10.0.0.2"), None);
        segment.inject(&question);
    }
    segment.settle();
    assert_eq!(segment.far.neighbours(), 4);
    assert_eq!(segment.far.neighbour(ip("10.0.0.1")), Some(NEAR_MAC));
    assert_eq!(
        segment.far.stats().answered,
        21,
        "each one is answered all the same"
    );
    assert_eq!(segment.far.stats().table_full, 17);
    // The far host sends to the near one and then to one more: a stranger has to go, not who was used last.
    segment.advance_ms(1);
    for peer in ["10.0.0.1:1", "10.0.0.77:1"] {
        let packet = segment.packet(b"x", addr(peer));
        segment.queue.push(packet).expect("room");
        segment.far.tx_burst(&mut segment.pool, &mut segment.queue);
    }
    assert_eq!(segment.far.neighbours(), 4);
    assert_eq!(segment.far.neighbour(ip("10.0.0.1")), Some(NEAR_MAC));
    assert_eq!(segment.far.waiting(), 1);
    segment.close();
}

#[test]
fn a_table_of_neighbours_that_are_all_being_asked_for_is_full() {
    let mut options = v4();
    options[0].neighbours_max = 2;
    let mut segment = Segment::new(options);
    for host in 2..5u8 {
        segment.send_to(b"x", SocketAddr::new([10, 0, 0, host].into(), 1));
    }
    let stats = segment.near.stats();
    assert_eq!((stats.table_full, stats.tx_unresolved), (1, 1));
    assert_eq!(segment.near.waiting(), 2);
    assert!(!segment.near.fix_neighbour(ip("10.0.0.9"), OTHER_MAC));
    segment.close();
}

#[test]
fn without_slots_nothing_is_said_and_it_is_made_up_for_later() {
    let mut segment = Segment::new(v4());
    let packet = segment.packet(b"late", addr("10.0.0.2:7001"));
    let mut hoard = Vec::new();
    while let Some(buf) = segment.pool.alloc() {
        hoard.push(buf);
    }
    segment.queue.push(packet).expect("room");
    segment.near.tx_burst(&mut segment.pool, &mut segment.queue);
    assert_eq!(segment.near.stats().words_dropped, 2);
    for buf in hoard {
        segment.pool.free(buf);
    }
    segment.advance_ms(250);
    segment.settle();
    assert_eq!(segment.receive_far(), [b"late".to_vec()]);
    segment.close();
}
