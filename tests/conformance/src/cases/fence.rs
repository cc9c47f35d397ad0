//! Epochs: what an earlier one says is not heard in a later one, and what it could write it can write no more.

use ionian_driver_api::{Bounded, RegionGrant, RegionRights};

use super::writes::{WHOLE, contents, expose, must_close, take_back, write};
use crate::flow::{Flow, Sizes, run};
use crate::ground::{Ground, Log, Sent};
use crate::subject::Family;

/// Units that are captured and repeated.
const REPEATS: usize = 50;
/// Rounds in which a repeated unit must have no effect.
const AFTER_ROUNDS: u64 = 200;

/// What was sent under an epoch has no effect after the next one has begun: not on an ended connection, and, of datagrams, not when
/// the network delivers them late.
pub(super) fn messages(ground: &mut Ground) -> Result<(), String> {
    let (a, b) = ground.connect(0, 1, 1)?;
    let mut old = Vec::new();
    let mut log = Log::default();
    for number in 0..10 {
        ground.send(0, a, &[number; 40])?;
        ground.watch("a message", &[0, 1], &mut log, |log| {
            log.messages.len() > usize::from(number)
        })?;
        old.push(ground.at(0).0.captured());
    }
    ground.at(1).0.close(b);
    ground.watch("the close", &[0, 1], &mut log, |log| log.is_closed(0, a))?;
    let (new_a, new_b) = ground.connect(0, 1, 2)?;
    if (new_a, new_b) == (a, b) {
        return Err("the number of an ended connection was used again".to_owned());
    }
    if ground.send(0, a, b"late")? != Sent::Closed {
        return Err("a message by the connection of an earlier epoch was not refused".to_owned());
    }
    if ground.family() == Family::Datagrams {
        for at in 0..REPEATS {
            let (end, pool) = ground.at(0);
            if !end.inject(pool, a, &old[at % old.len()]) {
                return Err("a datagram cannot be repeated".to_owned());
            }
            ground.rounds(4, &[0, 1], &mut log)?;
        }
    }
    ground.rounds(AFTER_ROUNDS, &[0, 1], &mut log)?;
    if log.messages.len() > 10 || log.closed.len() > 1 {
        return Err(format!(
            "datagrams of an earlier epoch had an effect: {} messages, {} closes",
            log.messages.len() - 10,
            log.closed.len() - 1
        ));
    }
    let sizes = Sizes::Mixed(2_000);
    let mut flows = [
        Flow::new(1, (0, new_a), (1, new_b), 100, sizes),
        Flow::new(2, (1, new_b), (0, new_a), 100, sizes),
    ];
    run(ground, &mut flows)
}

/// A region that was taken back holds what had landed; its key is good for nothing, and using it closes the connection.
pub(super) fn revoke(ground: &mut Ground) -> Result<(), String> {
    let (a, b) = ground.connect(0, 1, 1)?;
    let key = expose(ground, 1, b, RegionGrant::write(1))?;
    if write(ground, 0, a, key, 100, 1, b"landed")? != Sent::Taken {
        return Err("the write is not taken".to_owned());
    }
    let mut log = Log::default();
    ground.watch("the write", &[0, 1], &mut log, |log| {
        !log.landed.is_empty() || !log.closed.is_empty()
    })?;
    let held = take_back(ground, 1, key)?;
    if held.get(100..106) != Some(&b"landed"[..]) || held.iter().filter(|b| **b != 0).count() != 6 {
        return Err("the region does not hold what was written".to_owned());
    }
    if ground.at(1).0.revoke(key).is_some() || contents(ground, 1, key, WHOLE)?.is_some() {
        return Err("the key of a region that was taken back is still good".to_owned());
    }
    // The number may be used again, the key may not.
    let next = expose(ground, 1, b, RegionGrant::write(1))?;
    if next == key {
        return Err("a key that was taken back was given out again".to_owned());
    }
    if write(ground, 0, a, key, 0, 2, b"late")? != Sent::Taken {
        return Err("the late write is not taken".to_owned());
    }
    must_close(ground, (1, b), (0, a))?;
    if take_back(ground, 1, next)?.iter().any(|byte| *byte != 0) {
        return Err("a late write landed in the region after".to_owned());
    }
    Ok(())
}

/// A fence takes back every region of an earlier epoch, at once and for good; regions of the new epoch go on.
pub(super) fn fence(ground: &mut Ground) -> Result<(), String> {
    let (old_a, old_b) = ground.connect(0, 1, 1)?;
    let (new_a, new_b) = ground.connect(0, 1, 2)?;
    let old = [
        expose(ground, 1, old_b, RegionGrant::write(1))?,
        expose(ground, 1, old_b, RegionGrant::write(1))?,
    ];
    let new = expose(ground, 1, new_b, RegionGrant::write(2))?;
    let mut log = Log::default();
    write(ground, 0, old_a, old[0], 0, 1, &[1; 16])?;
    ground.watch("the write before the fence", &[0, 1], &mut log, |log| {
        !log.landed.is_empty() || !log.closed.is_empty()
    })?;
    // Room for one buffer of two: both are fenced all the same, and the other one comes later.
    for left in [1, 0] {
        let mut out = Bounded::with_capacity(1);
        let count = ground.at(1).0.fence(2, &mut out);
        let Some(buf) = out.pop().filter(|_| count == 1) else {
            return Err(format!(
                "a fence gave {count} buffers back where {} were left",
                left + 1
            ));
        };
        let written = ground.at(1).1.bytes(&buf).contains(&1);
        ground.at(1).1.free(buf);
        if written != (left == 1) {
            return Err("a fenced region does not hold what had landed".to_owned());
        }
    }
    for key in old {
        if contents(ground, 1, key, WHOLE)?.is_some() || ground.at(1).0.revoke(key).is_some() {
            return Err("the key of a fenced region is still good".to_owned());
        }
    }
    let late = RegionGrant {
        rights: RegionRights::Write,
        epoch: 1,
    };
    if expose(ground, 1, old_b, late).is_ok() {
        return Err("a region was exposed under an epoch that is fenced off".to_owned());
    }
    write(ground, 0, old_a, old[0], 0, 3, &[3; 16])?;
    must_close(ground, (1, old_b), (0, old_a))?;
    write(ground, 0, new_a, new, 8, 4, &[4; 16])?;
    let mut log = Log::default();
    ground.watch("the write of the new epoch", &[0, 1], &mut log, |log| {
        !log.landed.is_empty() || !log.closed.is_empty()
    })?;
    if log.landed.len() != 1 || !log.closed.is_empty() {
        return Err("a region of the new epoch suffered from the fence".to_owned());
    }
    // A lower fence than the last changes nothing.
    let mut out = Bounded::with_capacity(4);
    if ground.at(1).0.fence(1, &mut out) != 0 {
        return Err("a lower fence took regions back".to_owned());
    }
    let held = take_back(ground, 1, new)?;
    if held.get(8..24) == Some(&[4; 16][..]) {
        Ok(())
    } else {
        Err("the region of the new epoch does not hold what was written".to_owned())
    }
}
