//! Groups in the situations that the rules are for, one by one.

use alloc::vec::Vec;

use ionian_types::{Durability, EntryNo, Gsn, Nanos, RootEpoch, ViewId};

use super::{RootConfig, World, encoded};
use ionian_wire::frame::{RootGrant, Seal};

const D0: Durability = Durability::D0;
const D1: Durability = Durability::D1;

/// A group that has a leader and a shard.
fn begun(count: usize, write: usize, class: Durability) -> (World, usize) {
    let mut world = World::new(count, write, class, 1);
    world.controller.fail_over();
    world.settle();
    let leader = world.leader().unwrap();
    world.open(leader);
    world.settle();
    assert!(world.root(leader).serves());
    assert!(world.controller.is_recorded());
    assert!(world.below.edge.is_some());
    (world, leader)
}

#[test]
fn a_group_commits_what_enough_members_hold() {
    for (count, write, class) in [
        (2, 2, D0),
        (3, 2, D0),
        (3, 2, D1),
        (3, 3, D1),
        (5, 3, D1),
        (7, 4, D0),
    ] {
        let (mut world, leader) = begun(count, write, class);
        for _ in 0..20 {
            world.grow(3);
            world.settle();
        }
        assert_eq!(world.announced.len(), 60);
        let last = world.root(leader).state.entry;
        assert!((0..count).all(|slot| world.root(slot).committed == last));
        assert_eq!(world.root(leader).status().held_by_all, last);
        world.ask_tail(leader);
        world.settle();
        assert_eq!(world.answers, 1);
    }
}

#[test]
fn without_a_quorum_nothing_is_announced_and_nothing_is_answered() {
    for (count, write) in [(2, 2), (3, 2), (3, 3), (5, 3)] {
        let (mut world, leader) = begun(count, write, D1);
        let others = (0..count).filter(|slot| *slot != leader);
        let gone: Vec<usize> = others.take(count - write + 1).collect();
        for slot in &gone {
            world.cut_off(*slot, true);
        }
        world.grow(5);
        world.ask_tail(leader);
        world.settle();
        assert_eq!(world.announced.len(), 0);
        // With fewer than a majority of them, no seal could have come about behind its back.
        let answered = u64::from(gone.len() < write);
        assert_eq!(
            world.answers,
            if count - gone.len() >= write {
                answered
            } else {
                0
            }
        );
        for slot in gone {
            world.cut_off(slot, false);
        }
        world.settle();
        assert_eq!(world.announced.len(), 5);
        assert_eq!(world.answers, 1);
    }
}

#[test]
fn one_member_that_is_gone_holds_up_nobody_and_catches_up() {
    let (mut world, leader) = begun(3, 2, D1);
    let away = (leader + 1) % 3;
    world.cut_off(away, true);
    for _ in 0..200 {
        world.grow(1);
        world.settle();
    }
    assert_eq!(world.announced.len(), 200);
    world.cut_off(away, false);
    world.settle();
    let last = world.root(leader).state.entry;
    assert_eq!(world.root(away).committed, last);
    assert_eq!(world.root(away).counters.states_taken, 0);
}

#[test]
fn a_leader_that_too_few_members_answer_says_so_and_since_when() {
    for (count, write) in [(3, 2), (2, 2), (5, 3)] {
        let (mut world, leader) = begun(count, write, D1);
        let others: Vec<usize> = (0..count).filter(|slot| *slot != leader).collect();
        // As many as can be missed, and then one more.
        let (missed, one_more) = others.split_at(count - write);
        for slot in missed {
            world.cut_off(*slot, true);
        }
        for _ in 0..10 {
            world.grow(1);
            world.settle();
        }
        assert!(world.controller.alone.is_empty());
        world.cut_off(one_more[0], true);
        let since = world.now;
        for _ in 0..10 {
            world.settle();
        }
        let said = core::mem::take(&mut world.controller.alone);
        let (slot, first) = said[0];
        assert_eq!(slot, leader);
        assert!((1000..1300).contains(&(first.0 / 1_000_000)), "{first:?}");
        let (_, last) = said[said.len() - 1];
        assert!(
            last <= Nanos(world.now.since(since).0 + 300_000_000),
            "{last:?}"
        );
        assert!((10..=25).contains(&said.len()), "{} times", said.len());
        world.cut_off(one_more[0], false);
        world.settle();
        world.controller.alone.clear();
        for _ in 0..10 {
            world.settle();
        }
        assert!(world.controller.alone.is_empty());
    }
}

#[test]
fn a_member_that_misses_dropped_entries_takes_the_state() {
    for class in [D0, D1] {
        let mut world = World::with(3, 2, class, 1, |config| RootConfig {
            cut_log_chunk_entries: 4,
            ..config
        });
        world.controller.fail_over();
        world.settle();
        let leader = world.leader().unwrap();
        world.open(leader);
        world.settle();
        let away = (leader + 1) % 3;
        world.cut_off(away, true);
        for _ in 0..300 {
            world.grow(1);
            world.flush(leader);
            for slot in 0..3 {
                while world.work(slot) {}
            }
            world.pass(1);
            for pair in [(leader, (leader + 2) % 3)] {
                for end in [1, 0] {
                    while world.deliver(pair, end) {}
                    world.flush(pair.0);
                    world.flush(pair.1);
                    for slot in 0..3 {
                        while world.work(slot) {}
                    }
                }
            }
        }
        if class == D0 {
            let upto = Gsn::new(world.announced.len() as u64);
            world.ask_trim(leader, upto);
        }
        world.settle();
        world.grow(1);
        world.settle();
        assert!(world.root(leader).base.entry > EntryNo::ZERO, "{class:?}");
        world.cut_off(away, false);
        world.settle();
        assert_eq!(world.root(away).counters.states_taken, 1);
        world.grow(1);
        world.settle();
        let last = world.root(leader).state.entry;
        assert_eq!(world.root(away).committed, last);
        assert_eq!(world.root(away).state, world.root(leader).state);
        if class == D1 {
            world.crash(away);
            world.start(away);
            assert!(world.root(away).base.entry > EntryNo::ZERO);
            assert_eq!(world.root(away).state, world.root(leader).state);
        }
    }
}

#[test]
fn a_deposed_leader_answers_nothing_and_follows() {
    let (mut world, old) = begun(3, 2, D1);
    world.grow(4);
    world.settle();
    world.cut_off(old, true);
    world.deaf.push(old);
    world.grow(2);
    world.controller.fail_over();
    world.settle();
    let new = world.controller.leader.unwrap();
    assert_ne!(new, old);
    assert!(world.root(new).serves());
    assert!(world.root(old).serves(), "it does not know");
    world.ask_tail(old);
    // It is done, as far as this one knows; the others may know of a later head.
    world.ask_trim(old, Gsn::ZERO);
    world.flush(old);
    assert_eq!(world.answers, 0);
    assert_eq!(world.announced.len(), 4);
    world.cut_off(old, false);
    world.deaf.clear();
    world.settle();
    assert_eq!(world.root(old).granted, None);
    assert!(world.root(old).counters.replaced > 0);
    world.grow(1);
    world.settle();
    assert_eq!(world.root(old).state, world.root(new).state);
    assert_eq!(world.answers, 0);
}

/// The eight steps: a longer log of an earlier epoch must not beat an entry that a later one announced.
#[test]
fn the_log_of_the_latest_epoch_is_adopted_though_another_is_longer() {
    let (mut world, first) = begun(3, 2, D1);
    let (second, third) = ((first + 1) % 3, (first + 2) % 3);
    world.cut_off(first, true);
    for _ in 0..5 {
        // On its own device only.
        world.grow(1);
        world.flush(first);
        while world.work(first) {}
        world.flush(first);
    }
    world.crash(first);
    world.controller.fail_over();
    world.settle();
    let leader = world.leader().unwrap();
    world.grow(2);
    world.settle();
    assert_eq!(world.announced.len(), 7);
    world.crash(leader);
    world.nodes[first].cut_off = false;
    world.start(first);
    world.controller.fail_over();
    world.settle();
    let other = if leader == second { third } else { second };
    assert!(world.root(first).counters.replaced + world.root(other).counters.replaced > 0);
    assert_eq!(world.leader(), Some(other));
    world.grow(1);
    world.settle();
    assert_eq!(world.announced.len(), 8);
    world.start(leader);
    // It has another name now, which the next configuration lists.
    world.controller.fail_over();
    world.settle();
    assert!((0..3).all(|slot| world.root(slot).state.end_gsn.get() == 8));
}

#[test]
fn entries_that_were_replaced_never_come_back() {
    let (mut world, first) = begun(3, 2, D1);
    world.cut_off(first, true);
    for _ in 0..5 {
        world.grow(1);
        world.flush(first);
        while world.work(first) {}
        world.flush(first);
    }
    let loose = world.root(first).state.entry;
    world.deaf.push(first);
    world.controller.fail_over();
    world.settle();
    assert_ne!(world.controller.leader.unwrap(), first);
    world.deaf.clear();
    world.cut_off(first, false);
    world.settle();
    assert!(world.root(first).counters.replaced >= 5);
    let state = world.root(first).state.clone();
    assert!(state.entry < loose);
    for _ in 0..3 {
        world.crash(first);
        world.start(first);
        assert_eq!(world.root(first).state, state);
    }
}

#[test]
fn quorums_that_do_not_meet_are_refused() {
    let mut world = World::new(3, 2, D0, 1);
    let inc = world.nodes[0].inc;
    let grant = |write_quorum, seal_quorum, members| RootGrant {
        log: super::LOG,
        inc,
        epoch: RootEpoch::new(1),
        floor: Gsn::ZERO,
        ceiling: Gsn::new(1 << 40),
        view: ViewId::ZERO,
        write_quorum,
        seal_quorum,
        members,
        recorded: false,
    };
    let mut tail = Vec::new();
    for (slot, node) in world.nodes.iter().enumerate() {
        tail.extend((slot as u32 + 1).to_le_bytes());
        tail.extend(node.inc.get().to_le_bytes());
    }
    let bad = [
        encoded(&grant(2, 1, 3), &tail),
        encoded(&grant(0, 3, 3), &tail),
        encoded(&grant(4, 1, 3), &tail),
        encoded(&grant(3, 0, 3), &tail),
        encoded(&grant(2, 2, 2), &tail),
        encoded(&grant(2, 2, 2), &tail[12..]),
        encoded(&grant(0, 1, 0), &[]),
    ];
    for bytes in &bad {
        world.tell(0, super::CONTROLLER, bytes);
        assert_eq!(world.leader(), None);
    }
    assert_eq!(world.root(0).counters.bad_grants, bad.len() as u64);
    let good = grant(2, 2, 3);
    world.tell(0, super::CONTROLLER, &encoded(&good, &tail));
    assert_eq!(world.leader(), Some(0));
}

/// The first leader of a log that was begun anew died before it had said that everything below the floor is lost. The next one
/// found a log that was not empty, and answered a tail of 0.
#[test]
fn a_new_leader_declares_lost_what_an_earlier_one_did_not_come_to_say() {
    let mut world = World::new(3, 2, D0, 1);
    let floor = Gsn::new(1 << 32);
    let inc = world.nodes[0].inc;
    let mut tail = Vec::new();
    for (slot, node) in world.nodes.iter().enumerate() {
        tail.extend((slot as u32 + 1).to_le_bytes());
        tail.extend(node.inc.get().to_le_bytes());
    }
    let mut led = |epoch, floor| {
        let grant = RootGrant {
            log: super::LOG,
            inc,
            epoch: RootEpoch::new(epoch),
            floor,
            ceiling: Gsn::new(1 << 40),
            view: ViewId::ZERO,
            write_quorum: 2,
            seal_quorum: 2,
            members: 3,
            recorded: false,
        };
        world.tell(0, super::CONTROLLER, &encoded(&grant, &tail));
        assert_eq!(world.leader(), Some(0));
        world.root(0).state.clone()
    };
    let first = led(1, Gsn::ZERO);
    assert!(first.entry > EntryNo::ZERO && first.end_gsn == Gsn::ZERO);
    assert_eq!(led(2, floor).end_gsn, floor);
}

#[test]
fn a_member_keeps_its_promise_over_a_restart() {
    let mut world = World::new(3, 2, D1, 1);
    let seal = Seal {
        log: super::LOG,
        inc: world.nodes[1].inc,
        epoch: RootEpoch::new(9),
    };
    world.tell(1, super::CONTROLLER, &encoded(&seal, &[]));
    world.flush(1);
    assert!(
        world.nodes[1].reports.is_empty(),
        "not before it is durable"
    );
    while world.work(1) {}
    world.flush(1);
    assert_eq!(world.nodes[1].reports.len(), 1);
    world.crash(1);
    world.start(1);
    assert_eq!(world.root(1).promised, RootEpoch::new(9));
}
