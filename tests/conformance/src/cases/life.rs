//! Connections end and begin again: closes told once, nothing after them, buffers back, a new connection as good as the first.

use ionian_driver_api::{CloseReason, ConnId};

use crate::flow::{Flow, Sizes, fill, run};
use crate::ground::{Ground, Log, Sent};
use crate::subject::{Disturbance, Shape};

/// Rounds in which nothing more must come of a connection that has ended.
const AFTER_ROUNDS: u64 = 200;

/// A send on an ended connection must be refused as such.
fn must_be_closed(ground: &mut Ground, at: usize, conn: ConnId) -> Result<(), String> {
    match ground.send(at, conn, b"late")? {
        Sent::Closed => Ok(()),
        other => Err(format!(
            "a message on an ended connection of end {at} was not refused as closed: {other:?}"
        )),
    }
}

/// Sends a few messages and waits until they have come.
fn some(ground: &mut Ground, a: ConnId, b: ConnId, id: u64, total: u64) -> Result<(), String> {
    let sizes = Sizes::Mixed(2_000);
    let mut flows = [
        Flow::new(id, (0, a), (1, b), total, sizes),
        Flow::new(id + 1, (1, b), (0, a), total, sizes),
    ];
    run(ground, &mut flows)
}

/// After a close the peer is told once, with the reason; neither end can send, and no event follows.
pub(super) fn close(ground: &mut Ground) -> Result<(), String> {
    let (a, b) = ground.connect(0, 1, 1)?;
    some(ground, a, b, 1, 100)?;
    ground.at(0).0.close(a);
    must_be_closed(ground, 0, a)?;
    let mut log = Log::default();
    ground.watch("the close", &[0, 1], &mut log, |log| log.is_closed(1, b))?;
    if log.closed != [(1, b, CloseReason::PeerGone)] {
        return Err(format!("the closes told were {:?}", log.closed));
    }
    must_be_closed(ground, 1, b)?;
    // Closing again, or what never was, does nothing.
    for conn in [a, ConnId::new(1_000_000)] {
        ground.at(0).0.close(conn);
        must_be_closed(ground, 0, conn)?;
    }
    ground.at(1).0.close(b);
    ground.rounds(AFTER_ROUNDS, &[0, 1], &mut log)?;
    if log.closed.len() == 1 && log.messages.is_empty() {
        Ok(())
    } else {
        Err(format!(
            "after the close came {} messages and {} closes",
            log.messages.len(),
            log.closed.len() - 1
        ))
    }
}

/// Few events at a time, so that much is still to be fetched when a connection is closed.
pub(super) fn few_events() -> Shape {
    Shape {
        events_max: 4,
        ..Shape::default()
    }
}

/// Who closes a connection hears nothing more of it, not even what had arrived and was not fetched.
pub(super) fn silence(ground: &mut Ground) -> Result<(), String> {
    let (a, b) = ground.connect(0, 1, 1)?;
    let mut bytes = [0; 64];
    for number in 0..200 {
        fill(1, number, &mut bytes);
        if ground.send(1, b, &bytes)? != Sent::Taken {
            return Err(format!("message {number} is not taken"));
        }
    }
    let mut log = Log::default();
    ground.watch("a message", &[1, 0], &mut log, |log| {
        !log.messages.is_empty()
    })?;
    let before = log.messages.len();
    ground.at(0).0.close(a);
    ground.watch("the close", &[0, 1], &mut log, |log| log.is_closed(1, b))?;
    ground.rounds(AFTER_ROUNDS, &[0, 1], &mut log)?;
    if log.messages.len() > before {
        let more = log.messages.len() - before;
        return Err(format!(
            "{more} messages came by a connection after its close"
        ));
    }
    if log.is_closed(0, a) {
        return Err("who closed was told of the close".to_owned());
    }
    // How many had come by then is the backend's affair.
    ground.counts.received = 0;
    Ok(())
}

/// A connection after another, each under a higher epoch, by turns ended by either end.
pub(super) fn reconnection(ground: &mut Ground) -> Result<(), String> {
    for epoch in 1..=6 {
        let (a, b) = ground.connect(0, 1, epoch)?;
        some(ground, a, b, epoch * 2, 100)?;
        let (closer, other) = if epoch % 2 == 0 {
            ((1, b), (0, a))
        } else {
            ((0, a), (1, b))
        };
        ground.at(closer.0).0.close(closer.1);
        let mut log = Log::default();
        ground.watch("the close", &[0, 1], &mut log, |log| {
            log.is_closed(other.0, other.1)
        })?;
        must_be_closed(ground, 0, a)?;
        must_be_closed(ground, 1, b)?;
    }
    Ok(())
}

/// Ends that give up soon.
pub(super) fn impatient() -> Shape {
    Shape {
        dead_after_polls: 20_000,
        ..Shape::default()
    }
}

/// The link goes away with messages under way: both ends are told, all buffers come back, and a new connection works.
pub(super) fn link_loss(ground: &mut Ground) -> Result<(), String> {
    for epoch in [1, 2] {
        let (a, b) = ground.connect(0, 1, epoch)?;
        some(ground, a, b, epoch * 2, 100)?;
        let sent_before = ground.counts.sent;
        for at in 0..2 {
            ground.at(at).0.disturb(Disturbance::Cut);
        }
        let mut bytes = [0; 300];
        for number in 0..20 {
            fill(9, number, &mut bytes);
            // Taken or not: its effect is unknown from here on.
            ground.send(0, a, &bytes)?;
        }
        let mut log = Log::default();
        ground.watch("both ends to be told", &[0, 1], &mut log, |log| {
            log.is_closed(0, a) && log.is_closed(1, b)
        })?;
        if log.closed.len() != 2 || !log.messages.is_empty() {
            return Err(format!(
                "{} messages and {} closes were told",
                log.messages.len(),
                log.closed.len()
            ));
        }
        must_be_closed(ground, 0, a)?;
        must_be_closed(ground, 1, b)?;
        for at in 0..2 {
            ground.at(at).0.disturb(Disturbance::Calm);
        }
        ground.counts.sent = sent_before;
    }
    let (a, b) = ground.connect(0, 1, 3)?;
    some(ground, a, b, 20, 100)
}

/// Connections that are closed with queues full at both ends give all their buffers back.
pub(super) fn buffers(ground: &mut Ground) -> Result<(), String> {
    let mut bytes = [0; 500];
    for epoch in 1..=4 {
        let (a, b) = ground.connect(0, 1, epoch)?;
        some(ground, a, b, epoch * 2, 50)?;
        let counts = ground.counts;
        for number in 0..100 {
            fill(7, number, &mut bytes);
            for (at, conn) in [(0, a), (1, b)] {
                ground.send(at, conn, &bytes)?;
            }
        }
        ground.at(0).0.flush();
        ground.at(0).0.close(a);
        let mut log = Log::default();
        ground.watch("the close", &[1, 0], &mut log, |log| log.is_closed(1, b))?;
        // What came before the close is the backend's affair; where its buffers are is not.
        ground.counts = counts;
        let away: Vec<String> = ground.settle()?;
        if !away.is_empty() {
            return Err(format!("after a close {}", away.join(", ")));
        }
    }
    Ok(())
}
