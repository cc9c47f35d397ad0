//! A line of `hist/1` becomes an event, or the reason why it is none.

use crate::event::{
    Answer, Call, Event, FaultState, Header, Kind, LIVE_NS, Only, Order, Phase, Sight, White,
};
use crate::scan::{Fields, Key, word};

/// Parses lines; keeps its table of fields from one to the next.
#[derive(Debug)]
pub struct Parser {
    fields: Fields,
}

impl Default for Parser {
    fn default() -> Self {
        Self {
            fields: Fields::new(),
        }
    }
}

impl Parser {
    /// Parses one line, without its newline.
    ///
    /// # Errors
    /// A sentence that says what is wrong with the line, and where in it.
    pub fn line(&mut self, line: &[u8]) -> Result<Event, String> {
        if u32::try_from(line.len()).is_err() {
            return Err("the line is longer than 4 GiB".to_owned());
        }
        self.fields.read(line)?;
        Line {
            fields: &self.fields,
            line,
        }
        .event()
    }
}

struct Line<'a> {
    fields: &'a Fields,
    line: &'a [u8],
}

const fn w(text: &str) -> u64 {
    word(text)
}

impl Line<'_> {
    fn event(&self) -> Result<Event, String> {
        const INV: u64 = w("inv");
        const OK: u64 = w("ok");
        const FAIL: u64 = w("fail");
        const INFO: u64 = w("info");
        const DLV: u64 = w("dlv");
        const GAP: u64 = w("gap");
        const CONF: u64 = w("conf");
        const VOID: u64 = w("void");
        const SUB: u64 = w("sub");
        const END: u64 = w("end");
        const HDR: u64 = w("hdr");
        const EPOCH: u64 = w("epoch");
        const NEM: u64 = w("nem");
        const PHASE: u64 = w("phase");
        const WB: u64 = w("wb");
        const DONE: u64 = w("done");
        let event = match self.fields.word(Key::E, self.line) {
            INV => self.inv()?,
            OK => Event::Ok {
                t: self.number(Key::T)?,
                op: self.number(Key::Op)?,
                answer: self.answer()?,
            },
            kind @ (FAIL | INFO) => Event::Failed {
                t: self.number(Key::T)?,
                op: self.number(Key::Op)?,
                no_effect: kind == FAIL,
            },
            DLV => Event::Dlv {
                t: self.number(Key::T)?,
                sub: self.number(Key::Sub)?,
                gsn: self.number(Key::Gsn)?,
                rec: self.sight()?,
                spec: self.flag(Key::Spec),
                epoch: self.fields.number(Key::Epoch),
            },
            GAP => Event::Gap {
                t: self.number(Key::T)?,
                sub: self.number(Key::Sub)?,
                lo: self.number(Key::Lo)?,
                hi: self.number(Key::Hi)?,
                kind: self.kind()?,
                spec: self.flag(Key::Spec),
            },
            CONF => Event::Conf {
                t: self.number(Key::T)?,
                sub: self.number(Key::Sub)?,
                upto: self.number(Key::Upto)?,
            },
            VOID => Event::Void {
                t: self.number(Key::T)?,
                sub: self.number(Key::Sub)?,
                start: self.number(Key::Start)?,
            },
            SUB => self.sub()?,
            END => Event::End {
                t: self.number(Key::T)?,
                sub: self.number(Key::Sub)?,
            },
            HDR => Event::Header(Box::new(self.header()?)),
            EPOCH => Event::Epoch {
                t: self.number(Key::T)?,
                log: self.number(Key::Log)?,
                epoch: self.number(Key::Epoch)?,
                start: self.number(Key::Start)?,
            },
            NEM => self.nem()?,
            PHASE => self.phase()?,
            WB => self.white()?,
            DONE => Event::Done {
                t: self.number(Key::T)?,
            },
            _ => return Err(self.unknown("event", Key::E)),
        };
        Ok(event)
    }

    #[inline]
    fn number(&self, key: Key) -> Result<u64, String> {
        self.fields.number(key).ok_or_else(|| {
            format!(
                "{} needs the number `{}`",
                self.name(),
                format!("{key:?}").to_lowercase()
            )
        })
    }

    fn flag(&self, key: Key) -> bool {
        self.fields.number(key).unwrap_or(0) != 0
    }

    #[cold]
    fn name(&self) -> String {
        let name = self.fields.text(Key::E, self.line).unwrap_or(b"a line");
        format!("`{}`", name.escape_ascii())
    }

    #[cold]
    fn unknown(&self, what: &str, key: Key) -> String {
        let key_name = format!("{key:?}").to_lowercase();
        match self.fields.text(key, self.line) {
            Some(text) => format!(
                "`{}` is no {what} of hist/1 (key `{key_name}`)",
                text.escape_ascii()
            ),
            None => format!(
                "{} needs the key `{key_name}`, which says the {what}",
                self.name()
            ),
        }
    }

    #[inline]
    fn hash(&self) -> Result<u64, String> {
        let text = self.fields.text(Key::H, self.line).unwrap_or(b"");
        let mut value = 0_u64;
        for byte in text {
            let digit = match byte {
                b'0'..=b'9' => byte - b'0',
                b'a'..=b'f' => byte - b'a' + 10,
                _ => 16,
            };
            if digit > 15 || text.len() > 16 {
                return Err(format!(
                    "`h` must be 1 to 16 lower-case hexadecimal digits, not `{}`",
                    text.escape_ascii()
                ));
            }
            value = value << 4 | u64::from(digit);
        }
        if text.is_empty() {
            return Err(format!("{} needs the hash `h`", self.name()));
        }
        Ok(value)
    }

    #[inline]
    fn sight(&self) -> Result<Sight, String> {
        Ok(Sight {
            cid: self.number(Key::Cid)?,
            ses: self.fields.number(Key::Ses),
            csn: self.number(Key::Csn)?,
            h: self.hash()?,
        })
    }

    fn kind(&self) -> Result<Kind, String> {
        const JUNK: u64 = w("junk");
        const PLUG: u64 = w("plug");
        const NOOP: u64 = w("noop");
        const BRIDGE: u64 = w("bridge");
        const TRIM: u64 = w("trim");
        const LOSS: u64 = w("loss");
        Ok(match self.fields.word(Key::Kind, self.line) {
            JUNK => Kind::Junk,
            PLUG => Kind::Plug,
            NOOP => Kind::Noop,
            BRIDGE => Kind::Bridge,
            TRIM => Kind::Trim,
            LOSS => Kind::Loss,
            _ => return Err(self.unknown("kind of gap", Key::Kind)),
        })
    }

    /// Session and number, which come together.
    fn identity(&self) -> Result<Option<(u64, u64)>, String> {
        match (self.fields.number(Key::Ses), self.fields.number(Key::Csn)) {
            (Some(ses), Some(csn)) => Ok(Some((ses, csn))),
            (None, None) => Ok(None),
            _ => Err(format!("{} needs `ses` and `csn`, or neither", self.name())),
        }
    }

    fn inv(&self) -> Result<Event, String> {
        const APPEND: u64 = w("append");
        const READ: u64 = w("read");
        const TAIL: u64 = w("tail");
        const TRIM: u64 = w("trim");
        const FILL: u64 = w("fill");
        let call = match self.fields.word(Key::F, self.line) {
            APPEND => Call::Append {
                cid: self.number(Key::Cid)?,
                name: self.identity()?,
                attempt: self.fields.number(Key::Try).unwrap_or(1),
                h: self.hash()?,
                col: self.fields.number(Key::Col),
            },
            READ => Call::Read(self.number(Key::Gsn)?),
            TAIL => Call::Tail,
            TRIM => Call::Trim(self.number(Key::Gsn)?),
            FILL => Call::Fill(self.number(Key::Gsn)?),
            _ => return Err(self.unknown("operation", Key::F)),
        };
        Ok(Event::Inv {
            t: self.number(Key::T)?,
            p: self.number(Key::P)?,
            op: self.number(Key::Op)?,
            log: self.number(Key::Log)?,
            call,
        })
    }

    fn answer(&self) -> Result<Answer, String> {
        const REC: u64 = w("rec");
        const HOLE: u64 = w("hole");
        const TRIMMED: u64 = w("trimmed");
        let number = |key| self.fields.number(key);
        match self.fields.word(Key::R, self.line) {
            0 => {}
            REC => return Ok(Answer::Record(self.sight()?)),
            HOLE => return Ok(Answer::Hole(self.kind()?)),
            TRIMMED => return Ok(Answer::Trimmed),
            // Nine letters: longer than a word.
            u64::MAX if self.fields.text(Key::R, self.line) == Some(b"unwritten") => {
                return Ok(Answer::Unwritten);
            }
            _ => return Err(self.unknown("answer to a read", Key::R)),
        }
        if let Some(gsn) = number(Key::Gsn) {
            return Ok(Answer::Appended {
                gsn,
                epoch: number(Key::Epoch),
                shard: number(Key::Shard),
                rep: number(Key::Rep),
                lsn: number(Key::Lsn),
                generation: number(Key::Gen),
                name: self.identity()?,
            });
        }
        Ok(match (number(Key::Tail), number(Key::Head)) {
            (Some(tail), head) => Answer::Tail { tail, head },
            (None, Some(head)) => Answer::Head(head),
            (None, None) => Answer::Done,
        })
    }

    fn sub(&self) -> Result<Event, String> {
        const CID: u64 = w("cid");
        const SHARD: u64 = w("shard");
        const COL: u64 = w("col");
        let only = match self.fields.word(Key::Only, self.line) {
            0 => None,
            CID => Some(Only::Client(self.number(Key::Of)?)),
            SHARD => Some(Only::Shard(self.number(Key::Of)?)),
            COL => Some(Only::Colour(self.number(Key::Of)?)),
            _ => return Err(self.unknown("selection", Key::Only)),
        };
        Ok(Event::Sub {
            t: self.number(Key::T)?,
            sub: self.number(Key::Sub)?,
            log: self.number(Key::Log)?,
            start: self.number(Key::Start)?,
            last: self.flag(Key::Final),
            only,
        })
    }

    fn header(&self) -> Result<Header, String> {
        const FIFO: u64 = w("fifo");
        const TOTAL: u64 = w("total");
        let version = self.number(Key::V)?;
        if version != 1 {
            return Err(format!(
                "the history is hist/{version}; this judge reads hist/1"
            ));
        }
        let order = match self.fields.word(Key::Order, self.line) {
            FIFO => Order::Fifo,
            TOTAL => Order::Total,
            u64::MAX if self.string(Key::Order) == "linearizable" => Order::Linearizable,
            _ => return Err(self.unknown("order", Key::Order)),
        };
        let or = |key, otherwise| self.fields.number(key).unwrap_or(otherwise);
        Ok(Header {
            run: self.string(Key::Run),
            seed: or(Key::Seed, 0),
            sut: self.string(Key::Sut),
            commit: self.string(Key::Commit),
            world: self.string(Key::World),
            clock_err_ns: or(Key::ClockErr, 0),
            order,
            dedupe: or(Key::Dedupe, 1) != 0,
            spec: self.flag(Key::Spec),
            durability: self.string(Key::Durability),
            shards: or(Key::Shards, 1),
            replicas: or(Key::Replicas, 1),
            f: or(Key::F, 0),
            dense: self.flag(Key::Dense),
            beyond_f: self.flag(Key::BeyondF),
            faults: or(Key::Faults, 0),
            live_ns: or(Key::Live, LIVE_NS),
            done: self.flag(Key::Done),
        })
    }

    fn string(&self, key: Key) -> String {
        let text = self.fields.text(key, self.line).unwrap_or(b"");
        String::from_utf8_lossy(text).into_owned()
    }

    fn nem(&self) -> Result<Event, String> {
        let state = match self.fields.text(Key::St, self.line) {
            Some(b"installed") => FaultState::Installed,
            Some(b"skipped") => FaultState::Skipped,
            Some(b"unknown") => FaultState::Unknown,
            Some(b"healed") => FaultState::Healed,
            _ => return Err(self.unknown("state of a fault", Key::St)),
        };
        Ok(Event::Nem {
            t: self.number(Key::T)?,
            fault: self.string(Key::F),
            state,
            beyond_f: self.flag(Key::BeyondF),
        })
    }

    fn phase(&self) -> Result<Event, String> {
        let phase = match self.fields.text(Key::F, self.line) {
            Some(b"warm-up") => Phase::WarmUp,
            Some(b"load") => Phase::Load,
            Some(b"heal") => Phase::Heal,
            Some(b"final") => Phase::Final,
            _ => return Err(self.unknown("phase", Key::F)),
        };
        let bound = |key| match phase {
            Phase::Final => self.number(key),
            _ => Ok(self.fields.number(key).unwrap_or(0)),
        };
        Ok(Event::Phase {
            t: self.number(Key::T)?,
            log: self.number(Key::Log)?,
            phase,
            head: bound(Key::Head)?,
            tail: bound(Key::Tail)?,
        })
    }

    fn white(&self) -> Result<Event, String> {
        let white = match self.fields.text(Key::F, self.line) {
            Some(b"cut") => {
                let list = self.fields.list(Key::D).unwrap_or(&[]);
                let (deltas, []) = list.as_chunks::<4>() else {
                    return Err("`d` of a cut needs four numbers per segment".to_owned());
                };
                White::Cut {
                    log: self.number(Key::Log)?,
                    n: self.number(Key::N)?,
                    gsn: self.number(Key::Gsn)?,
                    end: self.number(Key::End)?,
                    deltas: deltas.to_vec(),
                }
            }
            Some(b"sum") => White::Sum {
                log: self.number(Key::Log)?,
                shard: self.number(Key::Shard)?,
                rep: self.number(Key::Rep)?,
                len: self.number(Key::Len)?,
                h: self.hash()?,
            },
            Some(b"persist") => White::Persist {
                t: self.number(Key::T)?,
                log: self.number(Key::Log)?,
                shard: self.number(Key::Shard)?,
                rep: self.number(Key::Rep)?,
                by: self.number(Key::By)?,
                len: self.number(Key::Len)?,
            },
            Some(b"repair") => White::Repair {
                n: self.fields.number(Key::N).unwrap_or(1),
            },
            Some(_) => return Ok(Event::WhiteOther),
            None => return Err(self.unknown("kind of white-box event", Key::F)),
        };
        Ok(Event::White(Box::new(white)))
    }
}
