//! A replica that is to be replaced stays as long as another one of its shard does not hold every record.

use super::rules::Running;
use super::*;
use crate::Operation;
use ionian_wire::frame::ShardStatus;

/// A connection of the process that takes the place.
const NEW: u32 = 9;

/// A shard of three replicas of which two must hold a record, open and whole, on nodes 3 to 5.
fn three() -> Running {
    let mut cluster = spec(Durability::D0);
    cluster.logs[0].quorum = Some(2);
    cluster.logs[0].shards = vec![vec![node(2), node(3), node(4)]];
    let config = DirectoryConfig::default();
    let directory = Directory::new(CLUSTER, &cluster, config, Time::ZERO).unwrap();
    let mut world = Running::over(directory);
    for place in [ROOT, LEAF] {
        assert_eq!(world.register(place, false), Ok(()));
    }
    for slot in 0..3 {
        enter(&mut world, 2 + slot, slot, 2 + slot as usize);
    }
    assert_eq!(world.settle(), ["open 0, tree"]);
    report(&mut world, 1, false);
    world
}

/// A process without data on the node of `place` asks for a slot; whether it was given it.
fn enter(world: &mut Running, conn: u32, slot: u32, place: usize) -> bool {
    world.directory.connected(ConnId::new(conn));
    let request = Register {
        node: node(place),
        shard: ShardId::ZERO,
        slot: Slot::new(slot as u8),
        ..register(2, 100 + u64::from(conn), Inc::ZERO, false)
    };
    world.send(conn as usize, &request);
    is_admitted(world, conn)
}

/// Whether a process that asked for a place is told now that it has it.
fn is_admitted(world: &mut Running, conn: u32) -> bool {
    world.drain().iter().any(|(to, frame)| {
        let answer = message(frame);
        *to == ConnId::new(conn)
            && matches!(answer, Message::Registered(answer, _) if answer.inc != Inc::ZERO)
    })
}

/// The leaf reports the shard whole, in the epoch of a view.
fn report(world: &mut Running, epoch: u64, ready: bool) {
    let report = ShardStatus {
        log: LOG,
        shard: ShardId::ZERO,
        epoch: ViewId::new(epoch),
        whole: true,
        ready,
        regressed: 0,
        held: 0b111,
        slowest: 0,
        members: 3,
    };
    world.send(LEAF, &report);
}

/// Slot 1 is to move to node 6, and slot 2 lost its memory: it joins in view 2, and the new process of slot 1 asks for its place.
fn two_at_once() -> Running {
    let mut world = three();
    let operation = Operation::ReplaceReplica {
        log: LOG,
        shard: ShardId::ZERO,
        slot: Slot::new(1),
        node: node(5),
    };
    let answer = operate(&mut world.directory, world.now, false, operation);
    assert!(!answer.refused, "{}", answer.text);
    world.directory.disconnected(world.now, ConnId::new(4));
    assert!(enter(&mut world, 4, 2, 4));
    let views = world.settle();
    assert!(
        matches!(&views[..], [view] if view.contains("joint 0")),
        "{views:?}"
    );
    assert!(!enter(&mut world, NEW, 1, 5), "it would leave one copy");
    assert_eq!(world.settle(), [""; 0]);
    world
}

#[test]
fn a_replica_is_replaced_once_the_others_hold_every_record() {
    let mut world = two_at_once();
    report(&mut world, 2, true);
    let views = world.settle();
    assert!(
        matches!(&views[..], [first, then] if first == "activate 0" && then.contains("joint 0")),
        "{views:?}"
    );
}

#[test]
fn a_replica_that_is_gone_is_replaced_at_once() {
    let mut world = two_at_once();
    world.directory.disconnected(world.now, ConnId::new(3));
    assert!(is_admitted(&mut world, NEW), "nothing is to be kept");
}

#[test]
fn a_registration_that_waits_wakes_nobody() {
    let mut world = two_at_once();
    let config = DirectoryConfig::default();
    world.now = world.now.after(config.late_after.max(config.down_after));
    world.directory.on_deadline(world.now);
    let due = world.directory.next_deadline();
    assert!(due > world.now, "{due:?}, now it is {:?}", world.now);
}
