//! `ionian-sim`: runs seeds, counts, and prints how to replay one that fails.
#![forbid(unsafe_code)]

use ionian_sim::{Plan, World};

fn main() {
    let mut seeds = 1u64..2;
    let mut trace = false;
    let mut arguments = std::env::args().skip(1);
    let number = |text: Option<String>| text.and_then(|text| text.parse::<u64>().ok()).unwrap_or(1);
    let mut calm = false;
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--seed" => {
                let seed = number(arguments.next());
                seeds = seed..seed + 1;
            }
            "--seeds" => seeds = 1..number(arguments.next()) + 1,
            "--trace" => trace = true,
            "--calm" => calm = true,
            _ => {}
        }
    }
    for seed in seeds {
        let plan = if calm { Plan::calm() } else { Plan::draw(seed) };
        let mut world = World::new(seed, plan);
        world.trace = trace;
        match world.run() {
            Ok(report) => println!("seed {seed}: {report:?}"),
            Err(failure) => {
                println!("{failure}");
                println!("{:?}", world.plan);
                std::process::exit(1);
            }
        }
    }

}
