//! Numbered messages from one end to another, and what came of them.
//!
//! A message begins with its number, and every byte after it follows from number and flow. So a message that is lost, comes twice,
//! overtakes, is damaged, or comes by the wrong connection shows as what it is.

use ionian_driver_api::{ConnId, Dice, SendError};

use crate::ground::{Ground, Seen};

/// Bytes of the number that a message begins with.
pub const NUMBER_BYTES: usize = 8;
/// Messages of one flow that are sent in a round.
const BURST: u32 = 32;

/// How long the messages of a flow are, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sizes {
    /// All alike.
    Fixed(usize),
    /// Most of a few words, some of several packets, at most so many bytes.
    Mixed(usize),
}

impl Sizes {
    /// The length of message `number`.
    #[must_use]
    pub fn of(self, number: u64) -> usize {
        match self {
            Self::Fixed(len) => len.max(NUMBER_BYTES),
            Self::Mixed(max) => {
                let mut dice = Dice::new(number);
                let most = if dice.below(16) == 0 { max } else { 200 };
                let spare = most.min(max).saturating_sub(NUMBER_BYTES) as u64;
                NUMBER_BYTES + dice.below(spare + 1) as usize
            }
        }
    }
}

/// Fills `bytes` as message `number` of a flow.
pub fn fill(flow: u64, number: u64, bytes: &mut [u8]) {
    let (head, tail) = bytes.split_at_mut(NUMBER_BYTES.min(bytes.len()));
    head.copy_from_slice(&number.to_le_bytes()[..head.len()]);
    let first = number.wrapping_mul(31).wrapping_add(flow) as u8;
    for (at, byte) in tail.iter_mut().enumerate() {
        *byte = first.wrapping_add(at as u8);
    }
}

/// Whether `bytes` are message `number` of a flow.
#[must_use]
pub fn is_whole(flow: u64, number: u64, bytes: &[u8]) -> bool {
    let first = number.wrapping_mul(31).wrapping_add(flow) as u8;
    let (head, tail) = bytes.split_at(NUMBER_BYTES.min(bytes.len()));
    head == &number.to_le_bytes()[..head.len()]
        && tail
            .iter()
            .enumerate()
            .all(|(at, byte)| *byte == first.wrapping_add(at as u8))
}

/// What arrived of a flow.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tally {
    /// Messages that arrived, each counted once.
    pub arrived: u64,
    /// Messages that arrived once more.
    pub repeated: u64,
    /// Messages that arrived after a later one.
    pub overtaken: u64,
    highest: Option<u64>,
    seen: Vec<u64>,
}

impl Tally {
    fn new(total: u64) -> Self {
        Self {
            arrived: 0,
            repeated: 0,
            overtaken: 0,
            highest: None,
            seen: vec![0; (total.div_ceil(64)) as usize],
        }
    }

    fn note(&mut self, number: u64) {
        let (word, bit) = ((number / 64) as usize, 1 << (number % 64));
        if self.seen[word] & bit != 0 {
            self.repeated += 1;
            return;
        }
        self.seen[word] |= bit;
        self.arrived += 1;
        if self.highest.is_some_and(|highest| number < highest) {
            self.overtaken += 1;
        }
        self.highest = self.highest.max(Some(number));
    }
}

/// A flow of messages.
#[derive(Clone, Debug)]
pub struct Flow {
    /// Distinguishes its messages from those of other flows.
    pub id: u64,
    /// Who sends, on which connection.
    pub from: (usize, ConnId),
    /// Who receives, on which connection.
    pub to: (usize, ConnId),
    /// How many messages.
    pub total: u64,
    /// How long they are.
    pub sizes: Sizes,
    /// The next one to be sent.
    pub next: u64,
    /// Sends that were refused since the flow began.
    pub refused: u64,
    /// What arrived.
    pub tally: Tally,
}

impl Flow {
    /// A flow of `total` messages.
    #[must_use]
    pub fn new(
        id: u64,
        from: (usize, ConnId),
        to: (usize, ConnId),
        total: u64,
        sizes: Sizes,
    ) -> Self {
        Self {
            id,
            from,
            to,
            total,
            sizes,
            next: 0,
            refused: 0,
            tally: Tally::new(total),
        }
    }

    /// Everything was sent and has arrived.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.next == self.total && self.tally.arrived == self.total
    }

    /// Sends what can be sent now, a burst at most. Returns how many were taken.
    ///
    /// # Errors
    /// A sentence, if a message is refused for another reason than room.
    pub fn send(&mut self, ground: &mut Ground) -> Result<u64, String> {
        let (at, conn) = self.from;
        let (end, pool) = ground.at(at);
        let before = self.next;
        for _ in 0..BURST {
            if self.next == self.total {
                break;
            }
            let Some(mut buf) = pool.alloc() else { break };
            let len = self.sizes.of(self.next);
            pool.set_len(&mut buf, len);
            fill(self.id, self.next, pool.bytes_mut(&mut buf));
            match end.send(pool, conn, buf) {
                Ok(()) => self.next += 1,
                Err(SendError::Full(buf)) => {
                    let whole = buf.len() == len && is_whole(self.id, self.next, pool.bytes(&buf));
                    pool.free(buf);
                    if !whole {
                        return Err("a refused message came back changed".to_owned());
                    }
                    self.refused += 1;
                    break;
                }
                Err(other) => {
                    let why = format!("message {} is not taken: {other}", self.next);
                    pool.free(other.into_buf());
                    return Err(why);
                }
            }
        }
        ground.counts.sent += self.next - before;
        Ok(self.next - before)
    }

    /// Takes note of a message that came to `at` by `conn`. Answers whether it came by this flow's connection.
    ///
    /// # Errors
    /// A sentence, if it did and is none of the flow's messages.
    pub fn take(&mut self, at: usize, conn: ConnId, bytes: &[u8]) -> Result<bool, String> {
        if (at, conn) != self.to {
            return Ok(false);
        }
        let number = bytes.first_chunk::<NUMBER_BYTES>();
        let number = number.map(|number| u64::from_le_bytes(*number));
        match number.filter(|number| *number < self.next) {
            Some(number)
                if bytes.len() == self.sizes.of(number) && is_whole(self.id, number, bytes) =>
            {
                self.tally.note(number);
                Ok(true)
            }
            _ => Err(format!(
                "a message of {} bytes arrived that was not sent so",
                bytes.len()
            )),
        }
    }

    /// What is wrong with what arrived, if anything is.
    ///
    /// # Errors
    /// A sentence.
    pub fn verdict(&self) -> Result<(), String> {
        let Tally {
            arrived,
            repeated,
            overtaken,
            ..
        } = self.tally;
        if self.next < self.total {
            Err(format!(
                "only {} of {} messages were taken",
                self.next, self.total
            ))
        } else if arrived < self.total {
            Err(format!(
                "{} of {} messages were lost",
                self.total - arrived,
                self.total
            ))
        } else if repeated > 0 {
            Err(format!("{repeated} messages came twice"))
        } else if overtaken > 0 {
            Err(format!("{overtaken} messages were overtaken"))
        } else {
            Ok(())
        }
    }
}

/// Runs flows until all has arrived, or nothing moves any more; `false` in the latter case. What came is in their tallies.
///
/// # Errors
/// A sentence: what came was damaged, of no flow, or a close; or the case's time is up.
pub fn pump(ground: &mut Ground, flows: &mut [Flow]) -> Result<bool, String> {
    let mut wait = ground.wait();
    let mut received = 0;
    let mut stalled = None;
    while stalled.is_none() && !flows.iter().all(Flow::is_done) {
        let mut moved = 0;
        for flow in flows.iter_mut() {
            moved += flow.send(ground)?;
        }
        ground.round(&mut |at, seen| match seen {
            Seen::Message { conn, bytes } => {
                received += 1;
                moved += 1;
                take(flows, at, conn, bytes)
            }
            Seen::Closed { reason, .. } => {
                Err(format!("end {at} lost its connection ({reason:?})"))
            }
            Seen::Landed { .. } => Err(format!("end {at} was told of a write that nobody made")),
        })?;
        stalled = wait.round(moved > 0).err();
    }
    ground.counts.received += received;
    Ok(stalled.is_none())
}

/// Gives a message to the flow whose connection it came by.
fn take(flows: &mut [Flow], at: usize, conn: ConnId, bytes: &[u8]) -> Result<(), String> {
    for flow in flows {
        if flow.take(at, conn, bytes)? {
            return Ok(());
        }
    }
    Err(format!(
        "end {at} was given a message of {} bytes by a connection without any",
        bytes.len()
    ))
}

/// Runs flows to their end; everything must have arrived, once, in order, unchanged.
///
/// # Errors
/// A sentence that says what is wrong.
pub fn run(ground: &mut Ground, flows: &mut [Flow]) -> Result<(), String> {
    pump(ground, flows)?;
    flows.iter().try_for_each(Flow::verdict)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tally_tells_repeats_from_overtaking_and_loss() {
        let conn = ConnId::new(0);
        let mut flow = Flow::new(3, (0, conn), (1, conn), 4, Sizes::Fixed(16));
        flow.next = 4;
        let mut bytes = [0; 16];
        for number in [0, 2, 1, 1] {
            fill(3, number, &mut bytes);
            assert_eq!(flow.take(1, conn, &bytes), Ok(true));
        }
        assert_eq!(
            (
                flow.tally.arrived,
                flow.tally.repeated,
                flow.tally.overtaken
            ),
            (3, 1, 1)
        );
        assert!(flow.verdict().is_err_and(|why| why.contains("1 of 4")));
        assert_eq!(flow.take(0, conn, &bytes), Ok(false), "another end's");
        bytes[12] ^= 1;
        assert!(flow.take(1, conn, &bytes).is_err(), "damaged");
        fill(4, 1, &mut bytes);
        assert!(flow.take(1, conn, &bytes).is_err(), "of another flow");
        fill(3, 9, &mut bytes);
        assert!(flow.take(1, conn, &bytes).is_err(), "never sent");
    }

    #[test]
    fn sizes_stay_in_their_bounds_and_differ() {
        let sizes: Vec<usize> = (0..1000).map(|n| Sizes::Mixed(5000).of(n)).collect();
        assert!(sizes.iter().all(|len| (NUMBER_BYTES..=5000).contains(len)));
        assert!(sizes.iter().any(|len| *len > 1500) && sizes.iter().any(|len| *len < 100));
        assert!((0..100).all(|n| Sizes::Mixed(9).of(n) <= 9));
    }
}
