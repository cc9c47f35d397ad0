//! Trees of machines of random shapes: a root, aggregators and leaves, with replicas that report and writes that never end, while
//! connections break, processes begin anew and views change the tree and the shards.
//!
//! What every replica is told of every cut is held against the cut log (ORDERING.md, O6), and once nothing breaks any more
//! everything that enough replicas hold is ordered and all of them have heard of it (O9).

mod world;

use ionian_types::ShardId;

use world::World;

/// One world from its seed: its shape, what happens to it, and that it ends well.
fn run(seed: u64, steps: usize, calm: bool) -> World {
    let mut world = World::new(seed);
    for _ in 0..steps {
        world.step(calm);
    }
    world.heal();
    world
}

#[test]
fn trees_of_any_shape_tell_every_replica_what_the_cut_log_says() {
    let (mut deepest, mut widest, mut downs) = (0, 0, 0);
    for seed in 1..=60 {
        let world = run(seed, 6000, true);
        deepest = deepest.max(world.depth());
        widest = widest.max(world.leaves());
        downs += world.downs;
    }
    assert!(
        deepest >= 4 && widest >= 6,
        "{deepest} levels, {widest} leaves"
    );
    assert!(downs > 10_000, "{downs}");
}

#[test]
fn trees_survive_what_breaks_and_what_changes() {
    let (mut resumed, mut views) = (0, 0);
    for seed in 1001..=1080 {
        let world = run(seed, 4000, false);
        resumed += world.resumed();
        views += world.views;
    }
    assert!(views > 100, "{views} views");
    assert!(resumed > 20, "{resumed} edges went on over a view");
}

/// A view that changes one shard restarts the edges on its path and no others.
#[test]
fn a_view_touches_one_path() {
    let mut world = World::shaped(7, &[2, 2], 8);
    world.heal();
    let before = world.edge_starts();
    world.close_segment(ShardId::new(0));
    world.heal();
    let after = world.edge_starts();
    let began = before.iter().zip(&after).filter(|(a, b)| a != b).count();
    assert_eq!((before.len(), began), (6, 2), "{before:?} {after:?}");
}

/// The start of an edge with many shards below comes in several messages, at the root and at an aggregator.
#[test]
fn an_edge_with_many_shards_starts_in_parts() {
    let mut world = World::shaped(3, &[1, 2], 1200);
    world.heal();
    assert_eq!(world.edge_starts(), [1, 1, 1]);
    assert!(world.parts > 4, "{} further parts", world.parts);
}

/// A leaf that nobody can reach holds up none of its siblings, though the edge above them begins anew while it is away.
#[test]
fn a_leaf_that_stays_away_holds_up_nobody() {
    for seed in 1..=10 {
        let mut world = World::shaped(seed, &[1, 3], 12);
        for _ in 0..2000 {
            world.step(true);
        }
        world.lose_last_leaf();
        for _ in 0..2000 {
            world.step(true);
        }
        world.heal();
        assert!(world.leaves() == 3 && world.downs > 100, "{}", world.downs);
    }
}
