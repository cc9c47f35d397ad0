//! Faults of the family below: lost, doubled, overtaking and damaged datagrams, or refused and held messages. None may show above.

use crate::flow::{Flow, Sizes, run};
use crate::ground::Ground;
use crate::subject::Disturbance;

/// Messages each way.
const MESSAGES: u64 = 3_000;

/// Both ways under a fault at both ends; everything must arrive as if there were none.
fn under(ground: &mut Ground, disturbance: Disturbance) -> Result<(), String> {
    let (a, b) = ground.connect(0, 1, 1)?;
    for at in 0..2 {
        ground.at(at).0.disturb(disturbance);
    }
    let sizes = Sizes::Mixed(4_000);
    let mut flows = [
        Flow::new(1, (0, a), (1, b), MESSAGES, sizes),
        Flow::new(2, (1, b), (0, a), MESSAGES, sizes),
    ];
    run(ground, &mut flows)?;
    let mut faults = 0;
    for at in 0..2 {
        let end = ground.at(at).0;
        end.disturb(Disturbance::Calm);
        if end.disturbed() == 0 {
            return Err(format!(
                "no fault took place at end {at}: nothing was tried"
            ));
        }
        faults += end.disturbed();
    }
    ground.remark = format!("{faults} faults");
    Ok(())
}

/// Lost datagrams are sent again; refused messages can be.
pub(super) fn loss(ground: &mut Ground) -> Result<(), String> {
    under(ground, Disturbance::Loss)
}

/// What comes twice is given once.
pub(super) fn duplication(ground: &mut Ground) -> Result<(), String> {
    under(ground, Disturbance::Duplication)
}

/// What overtakes waits for what it overtook.
pub(super) fn reordering(ground: &mut Ground) -> Result<(), String> {
    under(ground, Disturbance::Reordering)
}

/// All of them at once, damage included.
pub(super) fn all(ground: &mut Ground) -> Result<(), String> {
    under(ground, Disturbance::All)
}
