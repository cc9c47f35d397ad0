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
                if trace {
                    for link in world
                        .links
                        .iter()
                        .filter(|link| link.ends[0].open || link.ends[1].open)
                    {
                        let [a, b] = link.ends.map(|end| (world.procs[end.proc].place, end));
                        let dirs = [0, 1].map(|side| {
                            (
                                link.dirs[side].queue.len(),
                                link.dirs[side].stalled,
                                link.room(side),
                            )
                        });
                        let sess = link.sessions.as_ref().map(|s| {
                            [0, 1].map(|i| {
                                (
                                    s[i].state(),
                                    s[i].unacked_bytes(),
                                    s[i].has_held(),
                                    s[i].next_deadline(),
                                    s[i].stats(),
                                )
                            })
                        });
                        println!("{a:?} {b:?} works {} {dirs:?} {sess:?}", link.works);
                    }
                }
                std::process::exit(1);
            }
        }
    }
}
