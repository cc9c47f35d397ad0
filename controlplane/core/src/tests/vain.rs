//! Changes that another one has overtaken: each ends as what it came to, not as what the other one did.

use super::operations::World;
use super::*;
use crate::{Operation, Progress};

/// How a transaction stands, and why it failed.
fn end(world: &World, id: u64) -> (Progress, String) {
    let mut known = world.directory.transactions();
    let found = known.find(|transaction| transaction.id == id).unwrap();
    (found.progress, found.why.clone())
}

fn failed(world: &World, id: u64, reason: &str) {
    let (progress, why) = end(world, id);
    assert_eq!(progress, Progress::Failed, "{why}");
    assert!(why.contains(reason), "{why}");
}

fn begin(world: &mut World, operation: Operation) -> u64 {
    let answer = world.operate(false, operation);
    assert!(!answer.refused, "{}", answer.text);
    answer.transaction
}

fn set_root(nodes: [u32; 3]) -> Operation {
    Operation::SetRoot {
        log: LOG,
        nodes: nodes.map(NodeId::new).to_vec(),
    }
}

/// Both were done, although the members are those of before.
#[test]
fn members_that_were_changed_back_do_not_end_the_first_change_as_done() {
    let mut world = World::new();
    let first = begin(&mut world, set_root([1, 2, 6]));
    let back = begin(&mut world, set_root([1, 2, 3]));
    failed(&world, first, "other members since");
    assert_eq!(end(&world, back).0, Progress::Running);
    world.heal();
    world.check();
    assert_eq!(end(&world, back), (Progress::Done, String::new()));
    failed(&world, first, "other members since");
    let again = State::restore(&world.directory.snapshot()).unwrap();
    assert_eq!(again.snapshot(), world.directory.snapshot());
}

#[test]
fn a_leaf_that_stays_was_not_moved() {
    let mut world = World::new();
    let home = world.directory.logs().next().unwrap().tree[0].node;
    let to = |node| Operation::MoveVertex {
        log: LOG,
        vertex: VertexId::ZERO,
        node,
    };
    let first = begin(&mut world, to(NodeId::new(9)));
    let other = begin(&mut world, to(NodeId::new(8)));
    failed(&world, first, "the vertex elsewhere");
    world.heal();
    assert_eq!(end(&world, other).0, Progress::Done);
    assert_ne!(world.directory.logs().next().unwrap().tree[0].node, home);
    world.check();
}

#[test]
fn of_two_members_that_are_to_lead_the_last_does() {
    let mut world = World::new();
    let leader = world.directory.map().logs[0].leader.unwrap();
    let slot = |more: u8| Slot::new((leader.get() + more) % 3);
    let lead = |slot| Operation::MoveLeader { log: LOG, slot };
    let first = begin(&mut world, lead(slot(1)));
    let last = begin(&mut world, lead(slot(2)));
    failed(&world, first, "wants another member to lead");
    world.heal();
    world.check();
    assert_eq!(end(&world, last).0, Progress::Done);
    assert_eq!(world.directory.map().logs[0].leader, Some(slot(2)));
}
