//! Three ends: what one peer does or leaves undone is no other peer's trouble.

use super::limits::fill_up;
use crate::flow::{Flow, Sizes, run};
use crate::ground::{Ground, Seen};
use crate::subject::Shape;

/// Three ends, the first of which is connected to the others.
pub(super) fn three() -> Shape {
    Shape {
        ends: 3,
        ..Shape::default()
    }
}

/// A peer that takes nothing fills its own queue; the messages of another one keep moving, and the pool has buffers for them.
pub(super) fn slow_peer(ground: &mut Ground) -> Result<(), String> {
    let (slow_here, slow_there) = ground.connect(0, 1, 1)?;
    let (quick_here, quick_there) = ground.connect(0, 2, 1)?;
    let size = Sizes::Fixed(1_000);
    let mut slow = Flow::new(1, (0, slow_here), (1, slow_there), 4_000, size);
    fill_up(ground, &mut slow)?;
    let mut quick = Flow::new(2, (0, quick_here), (2, quick_there), 2_000, size);
    let mut wait = ground.wait();
    while !quick.is_done() {
        // The slow one goes on trying, so that what room there is is contended for.
        slow.send(ground)?;
        let mut moved = quick.send(ground)?;
        for at in [0, 2] {
            let events = ground.poll(at, &mut |at, seen| match seen {
                Seen::Message { conn, bytes } => quick.take(at, conn, bytes).map(|_| ()),
                other => Err(format!("end {at} was told {other:?}")),
            })?;
            moved += events as u64;
        }
        wait.round(moved > 0)
            .map_err(|why| format!("{why}: a slow peer holds up another one"))?;
    }
    quick.verdict()?;
    ground.counts.received += quick.tally.arrived;
    run(ground, &mut [slow])
}

/// One peer floods, another one says little: what it says comes through within few polls.
pub(super) fn fairness(ground: &mut Ground) -> Result<(), String> {
    let (flood_here, flood_there) = ground.connect(0, 1, 1)?;
    let (quiet_here, quiet_there) = ground.connect(0, 2, 1)?;
    let mut flows = [
        Flow::new(
            1,
            (1, flood_there),
            (0, flood_here),
            20_000,
            Sizes::Fixed(64),
        ),
        Flow::new(2, (2, quiet_there), (0, quiet_here), 20, Sizes::Fixed(64)),
    ];
    let mut wait = ground.wait();
    let mut floods = 0;
    while !flows[1].is_done() {
        let mut moved = 0;
        for flow in &mut flows {
            moved += flow.send(ground)?;
        }
        ground.round(&mut |at, seen| match seen {
            Seen::Message { conn, bytes } => {
                moved += 1;
                let of_flood = flows[0].take(at, conn, bytes)?;
                floods += u64::from(of_flood);
                if of_flood || flows[1].take(at, conn, bytes)? {
                    Ok(())
                } else {
                    Err("a message came by a connection without any".to_owned())
                }
            }
            other => Err(format!("end {at} was told {other:?}")),
        })?;
        wait.round(moved > 0)?;
    }
    if flows[0].tally.arrived == flows[0].total {
        return Err("a peer that says little had to wait for all of one that floods".to_owned());
    }
    ground.counts.received += floods + flows[1].tally.arrived;
    run(ground, &mut flows)
}
