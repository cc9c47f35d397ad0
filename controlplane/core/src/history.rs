//! The history of a log: the decisions that made or logged its views, with the reason of each. Part of the replicated state.

use std::collections::VecDeque;

use ionian_types::{Inc, SegmentId};
use ionian_wire::{Reader, WireError};

use crate::HISTORY_KEPT;
use crate::codec::{Encoder, count, range, text};
use crate::decision::{What, Why};
use crate::users::{rights, user_name};

/// A decision of the history.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Event {
    /// When, in microseconds since 1970 by the clock of the controller that decided; 0 where it has none.
    pub at_us: u64,
    /// The version of the state that it made.
    pub version: u64,
    /// What was done.
    pub what: What,
    /// Why.
    pub why: Why,
}

impl Event {
    pub(crate) fn encode(&self, out: &mut Encoder) {
        out.put(self.at_us);
        out.put(self.version);
        encode(out, &self.what, self.why);
    }

    pub(crate) fn decode(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let (at_us, version) = (reader.field()?, reader.field()?);
        let (what, why) = decode(reader)?;
        Ok(Self {
            at_us,
            version,
            what,
            why,
        })
    }
}

/// The last [`HISTORY_KEPT`] events, oldest first.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct History(VecDeque<Event>);

impl History {
    pub(crate) fn push(&mut self, event: Event) {
        if self.0.len() == HISTORY_KEPT {
            self.0.pop_front();
        }
        self.0.push_back(event);
    }

    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = &Event> {
        self.0.iter()
    }

    pub(crate) fn encode(&self, out: &mut Encoder) {
        out.put(self.0.len() as u32);
        self.0.iter().for_each(|event| event.encode(out));
    }

    pub(crate) fn decode(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let mut events = VecDeque::new();
        for _ in 0..count(reader, HISTORY_KEPT, "events of a history")? {
            events.push_back(Event::decode(reader)?);
        }
        Ok(Self(events))
    }
}

/// Writes a decision.
pub(crate) fn encode(out: &mut Encoder, what: &What, why: Why) {
    match what {
        What::CreateLog { log, name } => {
            out.put(1u8);
            out.put(*log);
            out.bytes(name.as_bytes());
        }
        What::Admit {
            log,
            place,
            node,
            inc,
        } => {
            out.put(2u8);
            out.put(*log);
            out.bytes(place.as_bytes());
            out.put(*node);
            out.put(*inc);
        }
        What::Refuse { log, node, refusal } => {
            out.put(3u8);
            out.put(*log);
            out.put(*node);
            out.bytes(refusal.as_bytes());
        }
        What::Grant {
            log,
            epoch,
            ceiling,
        } => {
            out.put(4u8);
            out.put(*log);
            out.put(*epoch);
            out.put(*ceiling);
        }
        What::Open { log, shard, view } => {
            out.put(5u8);
            out.put(*log);
            out.put(*shard);
            out.put(*view);
        }
        What::Finalize { log, shard, view } => {
            out.put(16u8);
            out.put(*log);
            out.put(*shard);
            out.put(*view);
        }
        What::DeclareLost { log, shard, view } => {
            out.put(6u8);
            out.put(*log);
            out.put(*shard);
            out.put(*view);
        }
        What::NewLife {
            log,
            segment,
            view,
            inc,
        } => {
            out.put(7u8);
            out.put(*log);
            out.put(*segment);
            out.put(*view);
            out.put(*inc);
        }
        What::Tree {
            log,
            view,
            vertices,
        } => {
            out.put(45u8);
            out.put(*log);
            out.put(*view);
            out.put(*vertices);
        }
        What::ForgetCutLog { log, floor } => {
            out.put(9u8);
            out.put(*log);
            out.put(*floor);
        }
        What::Logged { log, view } => {
            out.put(10u8);
            out.put(*log);
            out.put(*view);
        }
        What::Down { log, place, node } => {
            out.put(11u8);
            out.put(*log);
            out.bytes(place.as_bytes());
            out.put(*node);
        }
        What::Seal { log, epoch } => {
            out.put(13u8);
            out.put(*log);
            out.put(*epoch);
        }
        What::Lead {
            log,
            epoch,
            place,
            node,
            inc,
        } => {
            out.put(14u8);
            out.put(*log);
            out.put(*epoch);
            out.bytes(place.as_bytes());
            out.put(*node);
            out.put(*inc);
        }
        What::Led { log, epoch } => {
            out.put(15u8);
            out.put(*log);
            out.put(*epoch);
        }
        What::Permit { log, user, rights } => {
            out.put(20u8);
            out.put(*log);
            out.bytes(user.as_bytes());
            out.put(rights.bits());
        }
        What::Dead {
            log,
            node,
            places,
            evidence,
        } => {
            out.put(40u8);
            out.put(*log);
            out.put(*node);
            out.bytes(places.as_bytes());
            out.bytes(evidence.as_bytes());
        }
        What::CutOff {
            log,
            node,
            places,
            evidence,
        } => {
            out.put(42u8);
            out.put(*log);
            out.put(*node);
            out.bytes(places.as_bytes());
            out.bytes(evidence.as_bytes());
        }
        What::Shut { log, segment, view } => {
            out.put(41u8);
            out.put(*log);
            out.put(*segment);
            out.put(*view);
        }
        What::TakeOver {
            log,
            place,
            node,
            inc,
        } => {
            out.put(44u8);
            out.put(*log);
            out.bytes(place.as_bytes());
            out.put(*node);
            out.put(*inc);
        }
        What::Ignore { log, view } => {
            out.put(12u8);
            out.put(*log);
            out.put(*view);
        }
    }
    out.put(why.code());
}

/// Reads a decision.
pub(crate) fn decode(reader: &mut Reader<'_>) -> Result<(What, Why), WireError> {
    let tag: u8 = reader.field()?;
    let log = reader.field()?;
    let what = match tag {
        1 => What::CreateLog {
            log,
            name: text(reader)?,
        },
        2 => What::Admit {
            log,
            place: text(reader)?,
            node: reader.field()?,
            inc: reader.field()?,
        },
        3 => What::Refuse {
            log,
            node: reader.field()?,
            refusal: text(reader)?,
        },
        4 => What::Grant {
            log,
            epoch: reader.field()?,
            ceiling: reader.field()?,
        },
        5 => What::Open {
            log,
            shard: reader.field()?,
            view: reader.field()?,
        },
        6 => What::DeclareLost {
            log,
            shard: reader.field()?,
            view: reader.field()?,
        },
        7 => What::NewLife {
            log,
            segment: reader.field::<SegmentId>()?,
            view: reader.field()?,
            inc: reader.field()?,
        },
        // Of before there were aggregators: it named its only leaf.
        8 => {
            let view = reader.field()?;
            let _: Inc = reader.field()?;
            What::Tree {
                log,
                view,
                vertices: 1,
            }
        }
        45 => What::Tree {
            log,
            view: reader.field()?,
            vertices: reader.field()?,
        },
        9 => What::ForgetCutLog {
            log,
            floor: reader.field()?,
        },
        10 => What::Logged {
            log,
            view: reader.field()?,
        },
        11 => What::Down {
            log,
            place: text(reader)?,
            node: reader.field()?,
        },
        12 => What::Ignore {
            log,
            view: reader.field()?,
        },
        16 => What::Finalize {
            log,
            shard: reader.field()?,
            view: reader.field()?,
        },
        13 => What::Seal {
            log,
            epoch: reader.field()?,
        },
        14 => What::Lead {
            log,
            epoch: reader.field()?,
            place: text(reader)?,
            node: reader.field()?,
            inc: reader.field()?,
        },
        15 => What::Led {
            log,
            epoch: reader.field()?,
        },
        20 => What::Permit {
            log,
            user: user_name(reader)?,
            rights: rights(reader)?,
        },
        40 => What::Dead {
            log,
            node: reader.field()?,
            places: text(reader)?,
            evidence: text(reader)?,
        },
        42 => What::CutOff {
            log,
            node: reader.field()?,
            places: text(reader)?,
            evidence: text(reader)?,
        },
        41 => What::Shut {
            log,
            segment: reader.field::<SegmentId>()?,
            view: reader.field()?,
        },
        44 => What::TakeOver {
            log,
            place: text(reader)?,
            node: reader.field()?,
            inc: reader.field()?,
        },
        tag => return Err(range("kind of decision", u64::from(tag))),
    };
    Ok((what, why(reader)?))
}

/// Reads a reason.
pub(crate) fn why(reader: &mut Reader<'_>) -> Result<Why, WireError> {
    let code: u8 = reader.field()?;
    Why::from_code(code).ok_or_else(|| range("reason", u64::from(code)))
}
