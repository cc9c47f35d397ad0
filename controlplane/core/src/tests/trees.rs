//! Trees of other forms: what there is goes on until everybody of the next one is there.

use ionian_wire::directory::{LogInfo, VertexInfo};

use super::operations::World;
use super::*;
use crate::{Operated, Progress};

fn set(fan_in: u16, depth: u8) -> Operation {
    Operation::SetTree {
        log: LOG,
        fan_in,
        depth: Some(depth),
    }
}

fn log(world: &World) -> LogInfo {
    world.directory.map().logs.remove(0)
}

/// Vertices with the number of those right below.
fn form(tree: &[VertexInfo]) -> Vec<(u32, u16)> {
    let form = tree.iter().map(|it| (it.vertex.get(), it.children));
    form.collect()
}

fn asked(world: &mut World, operation: Operation) -> Operated {
    let answer = world.operate(false, operation);
    assert!(!answer.refused, "{}", answer.text);
    answer
}

fn progress(world: &World, id: u64) -> Progress {
    let mut known = world.directory.transactions();
    known.find(|it| it.id == id).unwrap().progress
}

#[test]
fn a_level_comes_and_goes_and_who_stays_keeps_its_life() {
    let mut world = World::new();
    let before = log(&world);
    assert_eq!(form(&before.tree), [(0, 0)]);
    let plan = world.operate(true, set(2, 2));
    assert!(
        plan.text
            .contains("log 1: the tree has a fan-in of 2 and 2 levels, in view")
    );
    assert_eq!(log(&world), before, "a plan changes nothing");
    let id = asked(&mut world, set(2, 2)).transaction;
    let coming = log(&world);
    assert_eq!(
        form(&coming.tree),
        [(0, 0)],
        "the view waits for the new ones"
    );
    assert_eq!(
        coming.tree_next.len(),
        coming.tree_next[0].children as usize + 1
    );
    assert_eq!(progress(&world, id), Progress::Running);
    world.heal();
    world.check();
    assert_eq!(progress(&world, id), Progress::Done);
    let deep = log(&world);
    assert_eq!(form(&deep.tree), form(&coming.tree_next));
    let leaf = |log: &LogInfo| {
        let leaf = log.tree.iter().find(|it| it.vertex == VertexId::ZERO);
        leaf.unwrap().endpoint.inc
    };
    assert_eq!(leaf(&deep), leaf(&before));
    assert_eq!(asked(&mut world, set(2, 2)).text, "nothing is to be done");
    let flat = asked(&mut world, set(8, 1)).text;
    assert!(
        flat.contains("the tree has a fan-in of 8 and 1 level, in view"),
        "{flat}"
    );
    world.heal();
    world.check();
    assert_eq!(form(&log(&world).tree), [(0, 0)]);
}

#[test]
fn what_cannot_be_is_refused_with_the_reason() {
    let mut world = World::new();
    let mut refused = |operation| {
        let answer = world.operate(false, operation);
        assert!(answer.refused, "{}", answer.text);
        answer.text
    };
    assert!(refused(set(1, 1)).contains("a fan-in of 1 is not within 2 to 1024"));
    assert!(refused(set(2, 9)).contains("levels, more than 8"));
    let vertex = VertexId::new(7);
    let node = NodeId::new(1);
    let move_vertex = |log, vertex, node| Operation::MoveVertex { log, vertex, node };
    assert!(refused(move_vertex(LOG, vertex, node)).contains("has no vertex 7"));
    let nowhere = move_vertex(LOG, VertexId::ZERO, NodeId::new(99));
    assert!(refused(nowhere).contains("no such node"));
}

#[test]
fn a_tree_that_nobody_has_seen_is_given_up_and_another_one_overtakes() {
    let mut world = World::new();
    let first = asked(&mut world, set(2, 2)).transaction;
    let second = asked(&mut world, set(2, 3)).transaction;
    assert_eq!(progress(&world, first), Progress::Failed);
    asked(
        &mut world,
        Operation::Cancel {
            transaction: second,
        },
    );
    assert_eq!(log(&world).tree_next, []);
    world.heal();
    world.check();
    assert_eq!(form(&log(&world).tree), [(0, 0)]);
}
