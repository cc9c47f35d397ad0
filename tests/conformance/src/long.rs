//! The long run: very many messages with faults, every one checked, and every buffer accounted for in the end.

use crate::flow::{self, Flow, Sizes};
use crate::ground::{Counts, Ground, Patience};
use crate::subject::{Backend, Disturbance, Refusal, Shape};

/// Bytes of a message.
const MESSAGE_BYTES: usize = 64;

/// Runs `messages` messages, half of them each way, under all faults that the family's middleware has. Answers with the counts, and
/// with how many faults there were.
///
/// # Errors
/// [`Refusal`], in the words of the first thing that is wrong.
pub fn run(
    backend: &dyn Backend,
    messages: u64,
    patience: Patience,
) -> Result<(Counts, String), Refusal> {
    let shape = Shape {
        queue_bytes: 1 << 18,
        slots: 512,
        events_max: 256,
        ..Shape::default()
    };
    let mut ground = Ground::open(backend, &shape, patience)?;
    let counts = exchange(&mut ground, messages).map_err(Refusal::Broken)?;
    Ok((counts, std::mem::take(&mut ground.remark)))
}

fn exchange(ground: &mut Ground, messages: u64) -> Result<Counts, String> {
    let (a, b) = ground.connect(0, 1, 1)?;
    for at in 0..2 {
        ground.at(at).0.disturb(Disturbance::All);
    }
    let sizes = Sizes::Fixed(MESSAGE_BYTES);
    let mut flows = [
        Flow::new(1, (0, a), (1, b), messages.div_ceil(2), sizes),
        Flow::new(2, (1, b), (0, a), messages / 2, sizes),
    ];
    flow::run(ground, &mut flows)?;
    let mut faults = 0;
    for at in 0..2 {
        let end = ground.at(at).0;
        end.disturb(Disturbance::Calm);
        faults += end.disturbed();
    }
    ground.remark = format!("{faults} faults");
    ground.rest()
}
