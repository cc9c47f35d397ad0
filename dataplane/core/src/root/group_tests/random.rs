//! Random groups: whatever is delivered, lost, crashed and named, committed entries agree for ever, and what was announced
//! is never lost.

use ionian_types::Durability;

use super::{Rng, RootConfig, World};

/// One run; the number of positions announced.
fn run(seed: u64) -> usize {
    let mut rng = Rng::new(seed);
    let shapes = [(2, 2), (3, 2), (3, 3), (5, 3), (5, 4)];
    let (count, write) = shapes[rng.below(shapes.len() as u64) as usize];
    let class = if rng.chance(2) {
        Durability::D0
    } else {
        Durability::D1
    };
    let config: fn(RootConfig) -> RootConfig = match rng.below(4) {
        0 => |config| RootConfig {
            cut_log_chunk_entries: 1,
            ..config
        },
        1 => |config| RootConfig {
            cut_log_chunk_entries: 2,
            cut_log_bytes_max: 4096,
            ..config
        },
        2 => |config| RootConfig {
            cut_log_chunk_entries: 8,
            ..config
        },
        _ => |config| config,
    };
    let mut world = World::with(count, write, class, seed, config);
    world.controller.fail_over();
    world.settle();
    let leader = world.leader().unwrap();
    world.open(leader);
    world.settle();
    let steps = 400 + rng.below(800);
    for _ in 0..steps {
        step(&mut world, &mut rng);
    }
    // All is well again: the group goes on.
    for slot in 0..count {
        world.cut_off(slot, false);
        if !world.is_up(slot) {
            world.start(slot);
        }
    }
    for _ in 0..4 {
        world.controller.fail_over();
        world.settle();
    }
    let before = world.announced.len();
    world.grow(10);
    world.settle();
    let leader = world.leader().unwrap();
    assert!(world.announced.len() >= before + 10, "seed {seed} is stuck");
    world.ask_tail(leader);
    let answers = world.answers;
    world.settle();
    assert!(world.answers > answers, "seed {seed}: no tail");
    let state = world.root(leader).state.clone();
    for slot in 0..count {
        assert_eq!(world.root(slot).state, state, "seed {seed}: member {slot}");
        assert_eq!(world.root(slot).committed, state.entry);
    }
    world.announced.len()
}

fn step(world: &mut World, rng: &mut Rng) {
    let count = world.nodes.len();
    let slot = rng.below(count as u64) as usize;
    let up: Vec<bool> = (0..count).map(|slot| world.is_up(slot)).collect();
    match rng.below(100) {
        0..15 => world.grow(1 + rng.below(3)),
        15..35 if up[slot] => world.flush(slot),
        35..50 if up[slot] => {
            for _ in 0..rng.below(6) {
                world.work(slot);
            }
        }
        50..80 => {
            let links = world.links.len() as u64;
            if links > 0 {
                let at = rng.below(links) as usize;
                let pair = *world.links.keys().nth(at).unwrap();
                let end = rng.below(2) as usize;
                for _ in 0..=rng.below(4) {
                    world.deliver(pair, end);
                }
            }
        }
        80..88 if up[slot] => {
            world.report(slot);
        }
        88 => world.controller.repeat(),
        89..91 => world.pass(1 + rng.below(60)),
        91 if up[slot] => world.ask_tail(slot),
        92 => world.cut_off(slot, rng.chance(2)),
        93 => {
            let links: Vec<_> = world.links.keys().copied().collect();
            if let Some(pair) = links.get(rng.below(8) as usize) {
                world.cut_link(*pair);
            }
        }
        94 if rng.chance(3) => world.controller.fail_over(),
        95 if up[slot] && rng.chance(2) => {
            let flushed = world.class.is_flushed();
            if flushed || world.controller.may_lose(slot, &up) {
                world.crash(slot);
            }
        }
        96..98 if !up[slot] => world.start(slot),
        98 => {
            for _ in 0..3 {
                (0..count).filter(|slot| up[*slot]).for_each(|slot| {
                    world.report(slot);
                    world.flush(slot);
                    while world.work(slot) {}
                    world.flush(slot);
                });
            }
        }
        _ => {}
    }
}

#[test]
fn committed_entries_agree_and_announced_ones_stay() {
    let announced: usize = (1..=150).map(run).sum();
    assert!(announced > 3000, "{announced}: too little happened");
}
