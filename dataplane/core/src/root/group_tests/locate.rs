//! Where a position stands: any member says so of what it knows to be committed; of the rest only the leader speaks.

use ionian_types::{Durability, EntryNo, Gsn, Lsn, SegmentId, Slot, ViewId};
use ionian_wire::frame::{Locate, LocateAnswer, LocateStatus};

use super::{CLIENT, LOG, RootConfig, SHARD, World, encoded};

const COUNT: usize = 3;

/// A group of three with a shard; `floor` is where its order begins.
fn begun(class: Durability, floor: u64, config: fn(RootConfig) -> RootConfig) -> (World, usize) {
    let mut world = World::with(COUNT, 2, class, 1, config);
    world.controller.floor = floor;
    world.controller.fail_over();
    world.settle();
    let leader = world.leader().unwrap();
    world.open(leader);
    world.settle();
    (world, leader)
}

/// What a member says at once, and what it says in the end.
fn ask(world: &mut World, slot: usize, gsn: u64) -> Option<LocateAnswer> {
    world.located.clear();
    let (log, request, gsn) = (LOG, 7, Gsn::new(gsn));
    world.tell(slot, CLIENT, &encoded(&Locate { log, gsn, request }, &[]));
    world.settle();
    assert!(world.located.len() <= 1, "one answer for a question");
    let answer = world.located.pop()?;
    assert_eq!(answer.request, request);
    Some(answer)
}

fn span(answer: &LocateAnswer) -> (LocateStatus, u64, u64) {
    (answer.status, answer.from.get(), answer.to.get())
}

#[test]
fn every_member_says_where_a_committed_position_stands() {
    let (mut world, leader) = begun(Durability::D1, 0, |config| config);
    world.grow(3);
    world.settle();
    world.grow(2);
    world.settle();
    for gsn in 0..5 {
        let first = ask(&mut world, leader, gsn).expect("the leader answers");
        let (from, to) = if gsn < 3 { (0, 3) } else { (3, 5) };
        assert_eq!(span(&first), (LocateStatus::Found, from, to));
        let segment = SegmentId {
            shard: SHARD,
            slot: Slot::ZERO,
        };
        assert_eq!((first.segment, first.position), (segment, Lsn::new(from)));
        assert_eq!(first.generation, ViewId::new(1));
        assert!(first.entry > EntryNo::ZERO);
        for slot in 0..COUNT {
            assert_eq!(ask(&mut world, slot, gsn), Some(first), "member {slot}");
        }
    }
    // Beyond the tail only who leads can say that nothing is there.
    for slot in 0..COUNT {
        let answer = ask(&mut world, slot, 5).expect("an answer");
        let expected = if slot == leader {
            LocateStatus::Unwritten
        } else {
            LocateStatus::NotLeader
        };
        assert_eq!(answer.status, expected, "member {slot}");
    }
}

#[test]
fn who_is_behind_says_what_it_knows_and_no_more() {
    let (mut world, old) = begun(Durability::D1, 0, |config| config);
    world.grow(3);
    world.settle();
    let known = ask(&mut world, old, 1).expect("an answer");
    // A leader that is cut off and does not know that another one leads.
    world.cut_off(old, true);
    world.deaf.push(old);
    world.controller.fail_over();
    world.settle();
    let new = world.controller.leader.unwrap();
    assert_ne!(new, old);
    assert_eq!(ask(&mut world, old, 3), None, "it cannot know");
    assert_eq!(
        ask(&mut world, old, 1),
        Some(known),
        "what is ordered stays"
    );
    assert_eq!(ask(&mut world, new, 1), Some(known));
}

#[test]
fn what_is_trimmed_is_said_to_be_by_every_member() {
    let (mut world, leader) = begun(Durability::D0, 0, |config| config);
    world.grow(3);
    world.settle();
    world.grow(2);
    world.settle();
    world.ask_trim(leader, Gsn::new(2));
    world.settle();
    for slot in 0..COUNT {
        let trimmed = ask(&mut world, slot, 1).expect("an answer");
        assert_eq!(span(&trimmed), (LocateStatus::Trimmed, 0, 2));
        let kept = ask(&mut world, slot, 2).expect("an answer");
        assert_eq!(span(&kept), (LocateStatus::Found, 0, 3));
    }
}

#[test]
fn what_was_lost_with_a_cut_log_is_said_to_be_lost() {
    let (mut world, _) = begun(Durability::D0, 100, |config| config);
    world.grow(3);
    world.settle();
    for slot in 0..COUNT {
        let lost = ask(&mut world, slot, 50).expect("an answer");
        assert_eq!(span(&lost), (LocateStatus::Lost, 0, 100), "member {slot}");
        let found = ask(&mut world, slot, 101).expect("an answer");
        assert_eq!(span(&found), (LocateStatus::Found, 100, 103));
    }
}

/// The replicas know where it stands: a client asks them.
#[test]
fn what_was_dropped_from_the_cut_log_is_forgotten() {
    let (mut world, _) = begun(Durability::D1, 0, |config| RootConfig {
        cut_log_chunk_entries: 4,
        ..config
    });
    for _ in 0..40 {
        world.grow(1);
        world.settle();
    }
    for slot in 0..COUNT {
        assert!(
            world.root(slot).base.entry > EntryNo::new(4),
            "member {slot}"
        );
        let answer = ask(&mut world, slot, 0).expect("an answer");
        assert_eq!(span(&answer), (LocateStatus::Forgotten, 0, 1));
        let answer = ask(&mut world, slot, 39).expect("an answer");
        assert_eq!(span(&answer), (LocateStatus::Found, 39, 40));
    }
}
