//! What a connection is for: every message whole, once, in order, of any size up to the limit.
//!
//! The first three cases send the same and judge one thing each, so that what is broken is named.

use ionian_driver_api::SendError;

use crate::flow::{Flow, Sizes, fill, is_whole, pump, run};
use crate::ground::{Ground, Log};

/// Messages of a case.
const MESSAGES: u64 = 2_000;
/// Longest of them in bytes: three packets and more.
const MIXED_BYTES_MAX: usize = 5_000;

/// Two flows against each other, run until all has come or nothing moves.
fn both_ways(ground: &mut Ground) -> Result<[Flow; 2], String> {
    let (a, b) = ground.connect(0, 1, 1)?;
    let sizes = Sizes::Mixed(MIXED_BYTES_MAX);
    let mut flows = [
        Flow::new(1, (0, a), (1, b), MESSAGES, sizes),
        Flow::new(2, (1, b), (0, a), MESSAGES, sizes),
    ];
    pump(ground, &mut flows)?;
    Ok(flows)
}

/// Every message that was taken arrives, unchanged. Whether once and in order is not judged here.
pub(super) fn delivery(ground: &mut Ground) -> Result<(), String> {
    let flows = both_ways(ground)?;
    for flow in &flows {
        let lost = flow.total - flow.tally.arrived;
        if flow.next < flow.total {
            flow.verdict()?;
        }
        if lost > 0 {
            return Err(format!("{lost} of {} messages were lost", flow.total));
        }
    }
    // What came twice is another case's to tell; the numbers are those of distinct messages.
    ground.counts.received = flows.iter().map(|flow| flow.tally.arrived).sum();
    Ok(())
}

/// No message comes twice. Whether all come is not judged here.
pub(super) fn once(ground: &mut Ground) -> Result<(), String> {
    let flows = both_ways(ground)?;
    let repeated: u64 = flows.iter().map(|flow| flow.tally.repeated).sum();
    let arrived: u64 = flows.iter().map(|flow| flow.tally.arrived).sum();
    if repeated > 0 {
        return Err(format!("{repeated} messages came twice"));
    }
    if arrived == 0 {
        return Err("no message came".to_owned());
    }
    Ok(())
}

/// No message comes after a later one of the same connection. Whether all come, and once, is not judged here.
pub(super) fn ordering(ground: &mut Ground) -> Result<(), String> {
    let flows = both_ways(ground)?;
    for flow in &flows {
        if flow.tally.overtaken > 0 {
            return Err(format!("{} messages were overtaken", flow.tally.overtaken));
        }
        if flow.tally.arrived < 2 {
            return Err("too few messages came to have an order".to_owned());
        }
    }
    Ok(())
}

/// Messages of 0, 1, a few and the most bytes arrive; one byte more is refused, and its buffer comes back as it was.
pub(super) fn sizes(ground: &mut Ground) -> Result<(), String> {
    let (a, b) = ground.connect(0, 1, 1)?;
    let max = ground.at(0).0.caps().message_bytes_max;
    let lens = [0, 1, 2, 7, 8, 63, 64, 65, 1_000, max - 1, max];
    let mut log = Log::default();
    let mut bytes = vec![0; max + 1];
    for (number, len) in lens.into_iter().enumerate() {
        fill(1, number as u64, &mut bytes[..len]);
        ground.send_soon(0, a, &bytes[..len], &mut log)?;
        ground.watch("the message", &[0, 1], &mut log, |log| {
            log.messages.len() > number || !log.closed.is_empty()
        })?;
        let whole = log.messages.last().is_some_and(|(at, conn, got)| {
            (*at, *conn, got.len()) == (1, b, len) && is_whole(1, number as u64, got)
        });
        if !whole || !log.closed.is_empty() {
            return Err(format!(
                "a message of {len} bytes does not arrive as it was"
            ));
        }
    }
    fill(1, 99, &mut bytes);
    let buf = ground.buf(0, &bytes)?;
    let (end, pool) = ground.at(0);
    match end.send(pool, a, buf) {
        Err(SendError::TooLarge(buf)) => {
            let unchanged = pool.bytes(&buf) == bytes;
            pool.free(buf);
            if unchanged {
                Ok(())
            } else {
                Err("the refused message came back changed".to_owned())
            }
        }
        Ok(()) => Err(format!("{} bytes are taken, {max} are the most", max + 1)),
        Err(other) => {
            let why = format!("{} bytes are refused otherwise: {other}", max + 1);
            pool.free(other.into_buf());
            Err(why)
        }
    }
}

/// Messages of the most bytes, both ways at once.
pub(super) fn large(ground: &mut Ground) -> Result<(), String> {
    let (a, b) = ground.connect(0, 1, 1)?;
    let sizes = Sizes::Fixed(ground.at(0).0.caps().message_bytes_max);
    let mut flows = [
        Flow::new(1, (0, a), (1, b), 50, sizes),
        Flow::new(2, (1, b), (0, a), 50, sizes),
    ];
    run(ground, &mut flows)
}
