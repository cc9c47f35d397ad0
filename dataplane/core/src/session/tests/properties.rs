//! Whatever the network does, each message arrives once, in order and unchanged; and once it heals, all arrive.
//!
//! Each case is a seed; a failure names it. Together the tests run more than ten thousand cases.

use ionian_types::{Nanos, Time};

use super::world::{Faults, Load, Rng, World, config};
use crate::session::SessionConfig;

const EPOCH: u64 = 5;

fn load(rng: &mut Rng, messages_max: u64, body_bytes_max: u64) -> Load {
    Load {
        messages: rng.below(messages_max + 1),
        body_bytes_max: 1 + rng.below(body_bytes_max),
        refusals: 0,
        pause: 0,
    }
}

fn mild(rng: &mut Rng) -> Faults {
    Faults {
        loss: rng.below(6),
        repeat: rng.below(6),
        damage: rng.below(3),
        delay_min: rng.below(50_000),
        delay_spread: rng.below(50_000),
        ..Faults::default()
    }
}

fn harsh(rng: &mut Rng) -> Faults {
    Faults {
        loss: rng.below(31),
        repeat: rng.below(51),
        damage: rng.below(11),
        delay_min: rng.below(100_000),
        delay_spread: rng.below(1_000_000),
        ..Faults::default()
    }
}

/// Runs one case to its end: within the time given with faults, and if need be healed.
fn run(mut world: World, seed: u64) -> World {
    if !world.run(Time::from_ns(2_000_000_000)) {
        world.heal();
        let healed = world.now;
        assert!(
            world.run(healed.after(Nanos::from_ms(2_000))),
            "seed {seed}: no progress after the network healed: {:?} {:?}",
            world.ends[0].session,
            world.ends[1].session
        );
    }
    world
}

fn configs(change: impl Fn(&mut SessionConfig)) -> [SessionConfig; 2] {
    [0, 1].map(|side| {
        let mut config = config(side, EPOCH);
        change(&mut config);
        config
    })
}

#[test]
fn messages_arrive_once_in_order_over_a_mild_network() {
    for seed in 0..3_000 {
        let mut rng = Rng(seed);
        let loads = [load(&mut rng, 60, 300), load(&mut rng, 60, 3_000)];
        let faults = [mild(&mut rng), mild(&mut rng)];
        run(World::new(seed, configs(|_| ()), loads, faults), seed);
    }
}

#[test]
fn messages_arrive_once_in_order_over_a_harsh_network() {
    let mut retransmits = 0;
    for seed in 10_000..13_000 {
        let mut rng = Rng(seed);
        let loads = [load(&mut rng, 60, 2_000), load(&mut rng, 20, 300)];
        let faults = [harsh(&mut rng), harsh(&mut rng)];
        let world = run(World::new(seed, configs(|_| ()), loads, faults), seed);
        retransmits += world.ends[0].session.stats().retransmits;
    }
    assert!(
        retransmits > 10_000,
        "the network was not harsh: {retransmits}"
    );
}

#[test]
fn any_shape_of_session_works() {
    for seed in 20_000..22_500 {
        let mut rng = Rng(seed);
        let loads = [load(&mut rng, 40, 4_000), load(&mut rng, 10, 4_000)];
        let faults = [harsh(&mut rng), mild(&mut rng)];
        let configs = configs(|config| {
            let mut rng = Rng(seed ^ 0xfeed);
            config.mtu_bytes = 256 + rng.below(1_800) as usize;
            config.window_packets = 4 << rng.below(7);
            config.send_bytes_max = 4_096 + rng.below(20_000) as usize;
            config.receive_bytes_max = 4 * config.mtu_bytes + rng.below(40_000) as usize;
            config.ack_every_packets = 1 + rng.below(20) as u32;
            config.ack_delay = Nanos(rng.below(300_000));
            config.rto_min = Nanos(1 + rng.below(1_000_000));
            config.ping_interval = Nanos(rng.below(2) * 3_000_000);
        });
        run(World::new(seed, configs, loads, faults), seed);
    }
}

#[test]
fn a_slow_receiver_loses_and_reorders_nothing() {
    let mut refusals = 0;
    for seed in 30_000..32_000 {
        let mut rng = Rng(seed);
        let mut loads = [load(&mut rng, 60, 1_500), load(&mut rng, 60, 300)];
        for load in &mut loads {
            load.refusals = rng.below(80);
            load.pause = rng.below(500_000);
        }
        let faults = [mild(&mut rng), harsh(&mut rng)];
        let configs = configs(|config| config.receive_bytes_max = 4 * config.mtu_bytes);
        let world = run(World::new(seed, configs, loads, faults), seed);
        refusals += world.ends[1].session.stats().refusals;
    }
    assert!(refusals > 10_000, "the receivers were not slow: {refusals}");
}

#[test]
fn nothing_of_strangers_or_of_an_earlier_epoch_is_delivered() {
    let mut stale_rejected = 0;
    for seed in 40_000..41_500 {
        let mut rng = Rng(seed);
        let earlier_loads = [load(&mut rng, 10, 300), load(&mut rng, 10, 300)];
        let faults = [0, 1].map(|_| Faults {
            strangers: 50,
            ..mild(&mut rng)
        });
        let earlier_configs = [config(0, EPOCH - 1), config(1, EPOCH - 1)];
        let mut earlier = World::new(!seed, earlier_configs, earlier_loads, faults);
        earlier.run(Time::from_ns(100_000_000));
        let loads = [load(&mut rng, 30, 300), load(&mut rng, 30, 300)];
        let mut world = World::new(seed, configs(|_| ()), loads, faults);
        world.stale = earlier.take_recorded();
        let world = run(world, seed);
        stale_rejected += world.stale_rejected;
    }
    assert!(stale_rejected > 1_000, "too few replays: {stale_rejected}");
}

#[test]
fn a_clogged_direction_recovers() {
    for seed in 50_000..50_500 {
        let mut rng = Rng(seed);
        let loads = [load(&mut rng, 100, 500), load(&mut rng, 100, 500)];
        let mut faults = [mild(&mut rng), mild(&mut rng)];
        let clogged = &mut faults[rng.below(2) as usize];
        clogged.clog_from = rng.below(1_000_000);
        clogged.clog_to = clogged.clog_from + rng.below(300_000_000);
        run(World::new(seed, configs(|_| ()), loads, faults), seed);
    }
}

#[test]
fn the_largest_messages_arrive_over_either_datagram() {
    for seed in 60_000..60_008 {
        let mut rng = Rng(seed);
        let loads = [0, 1].map(|_| Load {
            messages: 8,
            body_bytes_max: 1 << 20,
            refusals: 10,
            pause: 100_000,
        });
        let faults = [mild(&mut rng), mild(&mut rng)];
        let configs = configs(|config| {
            config.mtu_bytes = if seed % 2 == 0 { 1_472 } else { 65_507 };
            config.window_packets = 1_024;
            config.send_bytes_max = 3 << 20;
            config.receive_bytes_max = 2 << 20;
            config.message_bytes_max = ionian_wire::frame::MESSAGE_BYTES_MAX;
        });
        run(World::new(seed, configs, loads, faults), seed);
    }
}
