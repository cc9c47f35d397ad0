//! Bytes that no correct peer sends: they are dropped or end their connection, never a panic, never a buffer, and the next connection
//! is as good as any.

use ionian_driver_api::{ConnId, Dice};

use crate::flow::{Flow, NUMBER_BYTES, Sizes, run};
use crate::ground::{Ground, Seen};
use crate::subject::Shape;

/// Units of arbitrary bytes.
const ARBITRARY: u64 = 400;
/// Genuine units that are damaged, each in several ways.
const GENUINE: u64 = 20;
/// Rounds after each hostile unit, so that it has come.
const ROUNDS_EACH: u32 = 3;
/// Rounds after the last one.
const ROUNDS_AFTER: u32 = 200;

/// A connection that is opened anew whenever hostile bytes have ended it.
struct Target {
    a: ConnId,
    b: ConnId,
    epoch: u64,
    ended_a: bool,
    ended_b: bool,
}

impl Target {
    fn open(ground: &mut Ground) -> Result<Self, String> {
        let (a, b) = ground.connect(0, 1, 1)?;
        Ok(Self {
            a,
            b,
            epoch: 1,
            ended_a: false,
            ended_b: false,
        })
    }

    /// Polls; whatever messages come are nobody's. A close ends the connection.
    fn look(&mut self, ground: &mut Ground, rounds: u32) -> Result<(), String> {
        for _ in 0..rounds {
            ground.round(&mut |at, seen| {
                match seen {
                    Seen::Message { .. } => {}
                    Seen::Closed { conn, .. } if (at, conn) == (0, self.a) => self.ended_a = true,
                    Seen::Closed { conn, .. } if (at, conn) == (1, self.b) => self.ended_b = true,
                    other => return Err(format!("end {at} was told {other:?}")),
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Opens it again if it has ended at either end. The other end is told, or closes itself.
    fn mend(&mut self, ground: &mut Ground) -> Result<(), String> {
        if !(self.ended_a || self.ended_b) {
            return Ok(());
        }
        ground.at(0).0.close(self.a);
        ground.at(1).0.close(self.b);
        self.look(ground, ROUNDS_AFTER)?;
        self.epoch += 1;
        (self.a, self.b) = ground.connect(0, 1, self.epoch)?;
        (self.ended_a, self.ended_b) = (false, false);
        Ok(())
    }

    /// Sends one hostile unit from end 0.
    fn hit(&mut self, ground: &mut Ground, bytes: &[u8]) -> Result<bool, String> {
        let (end, pool) = ground.at(0);
        let sent = end.inject(pool, self.a, bytes);
        self.look(ground, ROUNDS_EACH)?;
        self.mend(ground)?;
        Ok(sent)
    }

    /// Genuine messages must pass both ways, on this connection or, where it was ended, on another one.
    fn must_work(&mut self, ground: &mut Ground) -> Result<(), String> {
        self.look(ground, ROUNDS_AFTER)?;
        self.mend(ground)?;
        let sizes = Sizes::Mixed(3_000);
        let mut flows = [
            Flow::new(1, (0, self.a), (1, self.b), 200, sizes),
            Flow::new(2, (1, self.b), (0, self.a), 200, sizes),
        ];
        run(ground, &mut flows)
    }
}

/// Many connections, since each hostile unit may end one.
pub(super) fn many() -> Shape {
    Shape {
        conns_max: 2_048,
        ..Shape::default()
    }
}

/// Arbitrary bytes of any length, none included, with every kind of ending.
pub(super) fn arbitrary(ground: &mut Ground) -> Result<(), String> {
    let mut target = Target::open(ground)?;
    let mut dice = Dice::new(0x6f6e_6961);
    let mut hits = 0;
    for _ in 0..ARBITRARY {
        let most = if dice.below(4) == 0 { 1_400 } else { 40 };
        let len = dice.below(most + 1) as usize;
        let mut bytes: Vec<u8> = (0..len).map(|_| dice.roll() as u8).collect();
        // The endings that emulated writes tell kinds by, more often than chance would have them.
        if let Some(last) = bytes.last_mut()
            && dice.below(2) == 0
        {
            *last = dice.below(3) as u8;
        }
        hits += u64::from(target.hit(ground, &bytes)?);
    }
    if hits < ARBITRARY / 2 {
        return Err(format!(
            "only {hits} of {ARBITRARY} hostile units were sent"
        ));
    }
    target.must_work(ground)
}

/// Genuine units cut short, with a bit flipped, and with bytes appended.
pub(super) fn damaged(ground: &mut Ground) -> Result<(), String> {
    let mut target = Target::open(ground)?;
    let mut dice = Dice::new(0x6461_6d61);
    let mut hits = 0;
    for number in 0..GENUINE {
        let bytes = [number as u8; NUMBER_BYTES + 20];
        ground.send(0, target.a, &bytes)?;
        target.look(ground, ROUNDS_EACH)?;
        let genuine = ground.at(0).0.captured();
        if genuine.is_empty() {
            return Err("nothing was captured".to_owned());
        }
        for _ in 0..8 {
            let cut = dice.below(genuine.len() as u64) as usize;
            hits += u64::from(target.hit(ground, &genuine[..cut])?);
            let mut flipped = genuine.clone();
            let bit = dice.below(genuine.len() as u64 * 8) as usize;
            flipped[bit / 8] ^= 1 << (bit % 8);
            hits += u64::from(target.hit(ground, &flipped)?);
            let mut longer = genuine.clone();
            longer.push(dice.roll() as u8);
            hits += u64::from(target.hit(ground, &longer)?);
        }
    }
    if hits < GENUINE * 12 {
        return Err(format!("only {hits} damaged units were sent"));
    }
    // The genuine messages between them came or went with their connections: the backend's affair.
    ground.counts.sent = 0;
    ground.counts.received = 0;
    target.must_work(ground)
}
