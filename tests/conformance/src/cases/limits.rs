//! What is bounded: queues that hand back, pools that run dry, few slots and few events at a time.

use crate::flow::{Flow, Sizes, fill, run};
use crate::ground::{Ground, Log, Sent};
use crate::subject::Shape;

/// Bytes of the messages that fill a queue.
const FILLING_BYTES: usize = 1_000;
/// More of them than any backend holds.
const FILLING: u64 = 4_000;
/// Rounds without a message taken after which a queue counts as full.
const FULL_ROUNDS: u64 = 200;

/// Sends on a connection whose peer takes nothing until nothing is taken any more. Returns how many messages were.
pub(super) fn fill_up(ground: &mut Ground, flow: &mut Flow) -> Result<u64, String> {
    let mut refused = 0;
    let mut wait = ground.wait();
    while refused < FULL_ROUNDS {
        let taken = flow.send(ground)?;
        if flow.next == flow.total {
            return Err(format!(
                "{} messages were taken and nobody received any: the queue has no bound",
                flow.total
            ));
        }
        refused = if taken > 0 { 0 } else { refused + 1 };
        ground.poll(flow.from.0, &mut |_, seen| {
            Err(format!("the sender was told {seen:?}"))
        })?;
        wait.round(taken > 0 || refused > 0)?;
    }
    if flow.refused == 0 {
        return Err("no message was ever refused".to_owned());
    }
    Ok(flow.next)
}

/// A full connection refuses and hands the buffer back; when there is room again, everything goes on and nothing was lost.
pub(super) fn backpressure(ground: &mut Ground) -> Result<(), String> {
    let (a, b) = ground.connect(0, 1, 1)?;
    let mut flows = [Flow::new(
        1,
        (0, a),
        (1, b),
        FILLING,
        Sizes::Fixed(FILLING_BYTES),
    )];
    fill_up(ground, &mut flows[0])?;
    run(ground, &mut flows)
}

/// Two or three slots at each end, and two events at a time.
pub(super) fn tiny() -> Shape {
    Shape {
        slots: 3,
        events_max: 2,
        ..Shape::default()
    }
}

/// With hardly any buffers, both ways at once, everything still arrives.
pub(super) fn saturation(ground: &mut Ground) -> Result<(), String> {
    let (a, b) = ground.connect(0, 1, 1)?;
    let sizes = Sizes::Mixed(3_000);
    let mut flows = [
        Flow::new(1, (0, a), (1, b), 1_000, sizes),
        Flow::new(2, (1, b), (0, a), 1_000, sizes),
    ];
    run(ground, &mut flows)
}

/// A receiver without a free buffer is given nothing and loses nothing.
pub(super) fn empty_pool(ground: &mut Ground) -> Result<(), String> {
    let (a, b) = ground.connect(0, 1, 1)?;
    let mut taken = Vec::new();
    while let Some(buf) = ground.at(1).1.alloc() {
        taken.push(buf);
    }
    let mut bytes = [0; 100];
    for number in 0..10 {
        fill(1, number, &mut bytes);
        if ground.send(0, a, &bytes)? != Sent::Taken {
            return Err(format!("message {number} is not taken"));
        }
    }
    // A fabric that keeps buffers of the pool, ready for what arrives, fills those and no more.
    let posted = ground.at(1).0.posted();
    let mut log = Log::default();
    ground.rounds(FULL_ROUNDS, &[0, 1], &mut log)?;
    if log.messages.len() > posted {
        let early = log.messages.len();
        return Err(format!(
            "{early} messages came without a buffer to hold them"
        ));
    }
    for buf in taken {
        ground.at(1).1.free(buf);
    }
    ground.watch("the messages", &[0, 1], &mut log, |log| {
        log.messages.len() == 10 || !log.closed.is_empty()
    })?;
    for (number, (at, conn, got)) in log.messages.iter().enumerate() {
        fill(1, number as u64, &mut bytes);
        if (*at, *conn, got.as_slice()) != (1, b, &bytes[..]) {
            return Err(format!("message {number} did not arrive in its place"));
        }
    }
    if log.closed.is_empty() {
        Ok(())
    } else {
        Err("the connection closed for lack of buffers".to_owned())
    }
}
