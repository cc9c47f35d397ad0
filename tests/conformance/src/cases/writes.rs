//! One-sided writes: they land where they say, in order with messages, and nowhere else.

use ionian_driver_api::{ConnId, RegionGrant, RegionKey, RegionRange, RegionRights, SendError};

use crate::flow::{fill, is_whole};
use crate::ground::{Ground, Log, Seen, Sent};

/// Bytes of a region.
pub(super) const REGION_BYTES: usize = 1_024;

/// Exposes a region of zeros at an end.
pub(super) fn expose(
    ground: &mut Ground,
    at: usize,
    conn: ConnId,
    grant: RegionGrant,
) -> Result<RegionKey, String> {
    let buf = ground.buf(at, &[0; REGION_BYTES])?;
    let (end, pool) = ground.at(at);
    end.expose(conn, buf, grant).map_err(|error| {
        let why = format!("a region is not exposed: {error}");
        pool.free(error.into_buf());
        why
    })
}

/// Writes to a region of the peer. The buffer comes back if it is refused.
pub(super) fn write(
    ground: &mut Ground,
    at: usize,
    conn: ConnId,
    key: RegionKey,
    offset: u32,
    immediate: u32,
    bytes: &[u8],
) -> Result<Sent, String> {
    let buf = ground.buf(at, bytes)?;
    let (end, pool) = ground.at(at);
    match end.write(pool, conn, key, offset, immediate, buf) {
        Ok(()) => {
            ground.counts.written += 1;
            Ok(Sent::Taken)
        }
        Err(error) => {
            let sent = match &error {
                SendError::Full(_) => Ok(Sent::Full),
                SendError::Closed(_) => Ok(Sent::Closed),
                SendError::TooLarge(_) => Err("a write is refused as too large".to_owned()),
            };
            let buf = error.into_buf();
            let unchanged = pool.bytes(&buf) == bytes;
            pool.free(buf);
            if unchanged {
                sent
            } else {
                Err("a refused write came back changed".to_owned())
            }
        }
    }
}

/// What a region holds, copied out; `None` if its key is not valid.
pub(super) fn contents(
    ground: &mut Ground,
    at: usize,
    key: RegionKey,
    range: RegionRange,
) -> Result<Option<Vec<u8>>, String> {
    let mut into = ground.buf(at, &[])?;
    let (end, pool) = ground.at(at);
    let copied = end.copy_out(pool, key, range, &mut into);
    let bytes = copied.then(|| pool.bytes(&into).to_vec());
    pool.free(into);
    Ok(bytes)
}

/// Gives the buffer of a region back to its pool, and answers with what it held.
pub(super) fn take_back(ground: &mut Ground, at: usize, key: RegionKey) -> Result<Vec<u8>, String> {
    let (end, pool) = ground.at(at);
    let buf = end.revoke(key).ok_or("a region does not come back")?;
    let bytes = pool.bytes(&buf).to_vec();
    pool.free(buf);
    Ok(bytes)
}

/// The whole of a region.
pub(super) const WHOLE: RegionRange = RegionRange {
    offset: 0,
    len: REGION_BYTES as u32,
};

/// Waits until the owner has closed a connection for what came by it, and the writer knows.
pub(super) fn must_close(
    ground: &mut Ground,
    owner: (usize, ConnId),
    writer: (usize, ConnId),
) -> Result<Log, String> {
    let mut log = Log::default();
    let ends = [0, 1, 2];
    let ends = &ends[..ground.ends()];
    ground.watch(
        "the close that a forbidden write brings",
        ends,
        &mut log,
        |log| log.is_closed(owner.0, owner.1) && log.is_closed(writer.0, writer.1),
    )?;
    if !log.landed.is_empty() {
        return Err("a forbidden write landed".to_owned());
    }
    if log.closed.len() != 2 {
        return Err(format!("the closes told were {:?}", log.closed));
    }
    Ok(log)
}

/// Pairs of a message and a write in the case of that name.
const PAIRS: u32 = 500;
/// Slots of the region that they write by turns; so many pairs are under way at most.
const SLOTS: u32 = 8;
/// Bytes of a slot.
const SLOT_BYTES: u32 = 64;

/// An event of the pairs.
enum Half {
    Message(Vec<u8>),
    Landed(RegionRange, u32),
}

/// Writes are told after what they wrote is readable, and in order with the messages of their connection.
pub(super) fn writes(ground: &mut Ground) -> Result<(), String> {
    let (a, b) = ground.connect(0, 1, 1)?;
    let key = expose(ground, 1, b, RegionGrant::write(1))?;
    let mut bytes = [0; SLOT_BYTES as usize];
    let (mut next, mut seen) = (0, 0);
    let mut wait = ground.wait();
    while seen < 2 * PAIRS {
        let before = (next, seen);
        while next < 2 * PAIRS && next / 2 < seen / 2 + SLOTS {
            let pair = next / 2;
            fill(1, u64::from(pair), &mut bytes);
            let sent = if next % 2 == 0 {
                ground.send(0, a, &bytes)?
            } else {
                write(ground, 0, a, key, pair % SLOTS * SLOT_BYTES, pair, &bytes)?
            };
            if sent != Sent::Taken {
                break;
            }
            next += 1;
        }
        let mut came = Vec::new();
        ground.round(&mut |at, seen| {
            came.push(match seen {
                Seen::Message { conn, bytes } if (at, conn) == (1, b) => {
                    Half::Message(bytes.to_vec())
                }
                Seen::Landed {
                    conn,
                    key: landed,
                    range,
                    immediate,
                } if (at, conn, landed) == (1, b, key) => Half::Landed(range, immediate),
                other => return Err(format!("end {at} was told {other:?}")),
            });
            Ok(())
        })?;
        for half in came {
            check_half(ground, key, seen, half)?;
            seen += 1;
        }
        wait.round((next, seen) != before)?;
    }
    take_back(ground, 1, key)?;
    Ok(())
}

/// Checks the next event of the pairs.
fn check_half(ground: &mut Ground, key: RegionKey, seen: u32, half: Half) -> Result<(), String> {
    let (pair, second) = (seen / 2, seen % 2 == 1);
    let slot = RegionRange {
        offset: pair % SLOTS * SLOT_BYTES,
        len: SLOT_BYTES,
    };
    match half {
        Half::Message(bytes) if !second && is_whole(1, u64::from(pair), &bytes) => {
            ground.counts.received += 1;
            Ok(())
        }
        Half::Landed(range, immediate) if second && (range, immediate) == (slot, pair) => {
            ground.counts.landed += 1;
            match contents(ground, 1, key, range)? {
                Some(bytes) if is_whole(1, u64::from(pair), &bytes) => Ok(()),
                _ => Err(format!("write {pair} was told and is not readable")),
            }
        }
        Half::Message(_) | Half::Landed(..) => Err(format!(
            "the events of pair {pair} are out of order, or not as they were made"
        )),
    }
}

/// A write outside the region, or outside what its grant allows, closes the connection and changes no byte.
pub(super) fn bounds(ground: &mut Ground) -> Result<(), String> {
    let within = RegionGrant {
        rights: RegionRights::WriteWithin(RegionRange {
            offset: 128,
            len: 64,
        }),
        epoch: 1,
    };
    let end = REGION_BYTES as u32;
    // Grant, first byte: each with 64 bytes, of which at least one is forbidden.
    let forbidden = [
        (RegionGrant::write(1), end - 63),
        (RegionGrant::write(1), end),
        (RegionGrant::write(1), u32::MAX - 10),
        (within, 127),
        (within, 129),
        (within, 0),
    ];
    for (epoch, (grant, offset)) in (1..).zip(forbidden) {
        let (a, b) = ground.connect(0, 1, epoch)?;
        let key = expose(ground, 1, b, grant)?;
        if write(ground, 0, a, key, 128, 5, &[1; 64])? != Sent::Taken {
            return Err("a permitted write is not taken".to_owned());
        }
        let mut log = Log::default();
        ground.watch("the permitted write", &[0, 1], &mut log, |log| {
            !log.landed.is_empty() || !log.closed.is_empty()
        })?;
        let before = contents(ground, 1, key, WHOLE)?;
        if write(ground, 0, a, key, offset, 6, &[2; 64])? != Sent::Taken {
            return Err("the writer's end judges what is the owner's to judge".to_owned());
        }
        must_close(ground, (1, b), (0, a))?;
        if contents(ground, 1, key, WHOLE)? != before || before.is_none() {
            return Err(format!("a forbidden write at {offset} changed the region"));
        }
        take_back(ground, 1, key)?;
    }
    // A grant beyond the buffer is our own bug, and is refused.
    let (_, b) = ground.connect(0, 1, 7)?;
    let beyond = RegionGrant {
        rights: RegionRights::WriteWithin(RegionRange {
            offset: end,
            len: 1,
        }),
        epoch: 1,
    };
    match expose(ground, 1, b, beyond) {
        Err(_) => Ok(()),
        Ok(_) => Err("a grant beyond the region was accepted".to_owned()),
    }
}

/// A key works on the connection that it was given for, and on no other.
pub(super) fn foreign_key(ground: &mut Ground) -> Result<(), String> {
    let (owner_to_1, end_1) = ground.connect(0, 1, 1)?;
    let (owner_to_2, end_2) = ground.connect(0, 2, 1)?;
    let key = expose(ground, 0, owner_to_1, RegionGrant::write(1))?;
    if write(ground, 2, end_2, key, 0, 1, &[9; 32])? != Sent::Taken {
        return Err("the write is not taken".to_owned());
    }
    must_close(ground, (0, owner_to_2), (2, end_2))?;
    if contents(ground, 0, key, WHOLE)?.is_none_or(|bytes| bytes != [0; REGION_BYTES]) {
        return Err("a peer wrote to a region that another one was given".to_owned());
    }
    if write(ground, 1, end_1, key, 0, 2, &[7; 32])? != Sent::Taken {
        return Err("the write of the other peer is not taken".to_owned());
    }
    let mut log = Log::default();
    ground.watch("the write of the other peer", &[0, 1, 2], &mut log, |log| {
        !log.landed.is_empty() || !log.closed.is_empty()
    })?;
    if log.landed.len() != 1 || !log.closed.is_empty() {
        return Err(format!("the events were {log:?}"));
    }
    take_back(ground, 0, key)?;
    Ok(())
}
