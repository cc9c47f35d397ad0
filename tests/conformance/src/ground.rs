//! What a case stands on: ends with a pool each, rounds of polling, counts, and an end to waiting.

use std::fmt;
use std::time::{Duration, Instant};

use ionian_driver_api::{
    Bounded, Buf, BufPool, CloseReason, ConnId, FabricEvent, FabricEvents, PoolLayout, PoolOptions,
    RegionKey, RegionRange, SendError,
};
use ionian_runtime::Sleeper;

use crate::subject::{Backend, Family, Net, Refusal, Shape, Subject};

/// Rounds in which nothing moves before the thread lets others run: a kernel's or a peer's.
const SPIN_ROUNDS: u64 = 64;
/// Rounds between two looks at the clock.
const CLOCK_ROUNDS: u64 = 1024;
/// Rounds for which nothing may come any more before a case is over: what comes twice comes late.
const QUIET_ROUNDS: u64 = 300;
/// Bytes of a slot beyond the largest message, for what layers append.
const SLOT_SPARE_BYTES: usize = 64;

/// How long a case waits for what does not come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Patience {
    /// Rounds of polling in which nothing moves. A session's longest timeout is 4,000 of them, so no fewer than 20,000 tell a slow
    /// backend from a broken one.
    pub rounds: u64,
    /// For a whole case, whatever moves. The bound at the edge: no verdict rests on it where rounds suffice.
    pub wall: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            rounds: 1_000_000,
            wall: Duration::from_secs(60),
        }
    }
}

/// What a case did. The same case counts the same on every backend.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Counts {
    /// Messages, or bare datagrams, that were taken for sending.
    pub sent: u64,
    /// Those that arrived.
    pub received: u64,
    /// One-sided writes that were taken.
    pub written: u64,
    /// Those that landed.
    pub landed: u64,
    /// Closes that were told.
    pub closed: u64,
    /// Slots of all pools, every one of which was home in the end.
    pub buffers: u64,
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sent={} received={}", self.sent, self.received)?;
        if (self.written, self.landed) != (0, 0) {
            write!(f, " written={} landed={}", self.written, self.landed)?;
        }
        if self.closed > 0 {
            write!(f, " closed={}", self.closed)?;
        }
        write!(f, " buffers={0}/{0}", self.buffers)
    }
}

/// An event, its bytes lent: the buffer goes back when whoever looks is done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Seen<'a> {
    /// A message.
    Message {
        /// Where it came from.
        conn: ConnId,
        /// Its bytes.
        bytes: &'a [u8],
    },
    /// A one-sided write.
    Landed {
        /// Whose.
        conn: ConnId,
        /// The region.
        key: RegionKey,
        /// Which bytes.
        range: RegionRange,
        /// The writer's number.
        immediate: u32,
    },
    /// A connection has ended.
    Closed {
        /// Which.
        conn: ConnId,
        /// Why.
        reason: CloseReason,
    },
}

/// What was seen, for cases of few events.
#[derive(Clone, Default, Debug)]
pub struct Log {
    /// Messages: at which end, by which connection.
    pub messages: Vec<(usize, ConnId, Vec<u8>)>,
    /// Writes: at which end, by which connection, where, and the writer's number.
    pub landed: Vec<(usize, ConnId, RegionKey, RegionRange, u32)>,
    /// Closes: at which end, of which connection, and why.
    pub closed: Vec<(usize, ConnId, CloseReason)>,
    uncounted: Counts,
}

impl Log {
    fn add(&mut self, at: usize, seen: Seen<'_>) {
        match seen {
            Seen::Message { conn, bytes } => {
                self.uncounted.received += 1;
                self.messages.push((at, conn, bytes.to_vec()));
            }
            Seen::Landed {
                conn,
                key,
                range,
                immediate,
            } => {
                self.uncounted.landed += 1;
                self.landed.push((at, conn, key, range, immediate));
            }
            Seen::Closed { conn, reason } => {
                self.uncounted.closed += 1;
                self.closed.push((at, conn, reason));
            }
        }
    }

    /// Whether an end was told of the end of a connection.
    #[must_use]
    pub fn is_closed(&self, at: usize, conn: ConnId) -> bool {
        self.closed
            .iter()
            .any(|(end, closed, _)| (*end, *closed) == (at, conn))
    }
}

/// What became of a message that was to be sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sent {
    /// It was taken.
    Taken,
    /// There is no room on the connection, and the buffer came back.
    Full,
    /// The pool has no buffer.
    NoBuffer,
    /// The connection is closed, and the buffer came back.
    Closed,
}

/// Ends, pools and counts. See the module.
pub struct Ground {
    /// Ends that a thread had for a while. Gone before their net.
    returned: Vec<Option<Box<dyn Subject>>>,
    net: Box<dyn Net>,
    pools: Vec<BufPool>,
    events: Vec<FabricEvents>,
    patience: Patience,
    started: Instant,
    /// What the case has counted.
    pub counts: Counts,
    /// What is worth saying and differs between backends.
    pub remark: String,
}

impl fmt::Debug for Ground {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ground")
            .field("pools", &self.pools)
            .field("counts", &self.counts)
            .finish_non_exhaustive()
    }
}

/// Waits in rounds, up to the patience there is.
#[derive(Debug)]
pub struct Wait {
    patience: Patience,
    started: Instant,
    rounds: u64,
    idle: u64,
}

impl Wait {
    /// A wait that begins now.
    #[must_use]
    pub fn new(patience: Patience) -> Self {
        Self {
            patience,
            started: Instant::now(),
            rounds: 0,
            idle: 0,
        }
    }

    /// Ends one round, in which something `moved` or not.
    ///
    /// # Errors
    /// A sentence, when patience has run out.
    pub fn round(&mut self, moved: bool) -> Result<(), String> {
        self.rounds += 1;
        self.idle = if moved { 0 } else { self.idle + 1 };
        if self.idle > self.patience.rounds {
            return Err(format!("nothing moved for {} rounds", self.patience.rounds));
        }
        if self.idle > SPIN_ROUNDS {
            std::thread::yield_now();
        }
        if self.rounds.is_multiple_of(CLOCK_ROUNDS) && self.started.elapsed() > self.patience.wall {
            return Err(format!(
                "the case is not done after {} s",
                self.patience.wall.as_secs()
            ));
        }
        Ok(())
    }
}

impl Ground {
    /// Opens a net of `shape` with a pool for each end.
    ///
    /// # Errors
    /// [`Refusal`]. Effect: none.
    pub fn open(backend: &dyn Backend, shape: &Shape, patience: Patience) -> Result<Self, Refusal> {
        let mut net = backend.open(shape)?;
        let mut pools = Vec::new();
        for at in 0..shape.ends {
            let end = net.end(at);
            let slot_bytes = end.caps().message_bytes_max + SLOT_SPARE_BYTES;
            let pool = BufPool::new(PoolOptions {
                slots: shape.slots,
                slot_bytes: u32::try_from(slot_bytes).unwrap_or(u32::MAX),
                layout: PoolLayout::Coloured,
            });
            let pool = pool.map_err(|error| Refusal::Broken(error.to_string()))?;
            end.register(&pool)
                .map_err(|error| Refusal::Broken(error.to_string()))?;
            pools.push(pool);
        }
        Ok(Self {
            returned: (0..shape.ends).map(|_| None).collect(),
            net,
            pools,
            events: (0..shape.ends)
                .map(|_| Bounded::with_capacity(shape.events_max))
                .collect(),
            patience,
            started: Instant::now(),
            counts: Counts::default(),
            remark: String::new(),
        })
    }

    /// The number of ends.
    #[must_use]
    pub fn ends(&self) -> usize {
        self.pools.len()
    }

    /// An end and its pool.
    pub fn at(&mut self, at: usize) -> (&mut dyn Subject, &mut BufPool) {
        let end: &mut dyn Subject = match &mut self.returned[at] {
            Some(end) => &mut **end,
            None => self.net.end(at),
        };
        (end, &mut self.pools[at])
    }

    /// How the ends come to carry messages.
    pub fn family(&mut self) -> Family {
        self.at(0).0.family()
    }

    /// Connects two ends; see [`Net::connect`].
    ///
    /// # Errors
    /// A sentence. Effect: none.
    pub fn connect(&mut self, a: usize, b: usize, epoch: u64) -> Result<(ConnId, ConnId), String> {
        self.net.connect(a, b, epoch)
    }

    /// Takes an end and its pool away for a thread; see [`Net::take`]. It is not polled here until it is given back.
    ///
    /// # Errors
    /// A sentence.
    pub fn take(&mut self, at: usize) -> Result<(Box<dyn Subject>, Sleeper, BufPool), String> {
        let (end, sleeper) = self.net.take(at)?;
        let options = PoolOptions {
            slots: 1,
            slot_bytes: 64,
            layout: PoolLayout::Coloured,
        };
        let stand_in = BufPool::new(options).map_err(|error| error.to_string())?;
        let pool = std::mem::replace(&mut self.pools[at], stand_in);
        Ok((end, sleeper, pool))
    }

    /// Takes an end back from its thread.
    pub fn give_back(&mut self, at: usize, end: Box<dyn Subject>, pool: BufPool) {
        self.returned[at] = Some(end);
        self.pools[at] = pool;
    }

    /// The start of a wait.
    #[must_use]
    pub fn wait(&self) -> Wait {
        Wait {
            patience: self.patience,
            started: self.started,
            rounds: 0,
            idle: 0,
        }
    }

    /// How long this ground waits.
    #[must_use]
    pub fn patience(&self) -> Patience {
        self.patience
    }

    /// Sends a copy of `bytes`, and checks that a refusal gives back what was given.
    ///
    /// # Errors
    /// A sentence, if the message is refused as too large, or comes back changed.
    pub fn send(&mut self, at: usize, conn: ConnId, bytes: &[u8]) -> Result<Sent, String> {
        let (end, pool) = self.at(at);
        let Some(buf) = pool.alloc_from(bytes) else {
            return Ok(Sent::NoBuffer);
        };
        let sent = end.send(pool, conn, buf);
        let (outcome, buf) = match sent {
            Ok(()) => {
                self.counts.sent += 1;
                return Ok(Sent::Taken);
            }
            Err(SendError::Full(buf)) => (Ok(Sent::Full), buf),
            Err(SendError::Closed(buf)) => (Ok(Sent::Closed), buf),
            Err(SendError::TooLarge(buf)) => {
                let refusal = format!("a message of {} bytes is refused as too large", bytes.len());
                (Err(refusal), buf)
            }
        };
        let unchanged = pool.bytes(&buf) == bytes;
        pool.free(buf);
        if unchanged {
            outcome
        } else {
            Err("a refused message came back changed".to_owned())
        }
    }

    /// Sends a copy of `bytes` as soon as there is room for it. What is seen meanwhile is counted, and added to `log`.
    ///
    /// # Errors
    /// A sentence: as [`Self::send`], or there was no room in the end, or the connection is closed.
    pub fn send_soon(
        &mut self,
        at: usize,
        conn: ConnId,
        bytes: &[u8],
        log: &mut Log,
    ) -> Result<(), String> {
        let mut wait = self.wait();
        let ends: Vec<usize> = (0..self.ends()).collect();
        loop {
            match self.send(at, conn, bytes)? {
                Sent::Taken => return Ok(()),
                Sent::Closed => return Err(format!("the connection of end {at} is closed")),
                Sent::Full | Sent::NoBuffer => {}
            }
            let moved = self.look_once(&ends, log)? > 0;
            wait.round(moved)
                .map_err(|why| format!("{why}: a message of {} bytes is not taken", bytes.len()))?;
        }
    }

    /// Flushes and polls one end once, and shows what came. Returns how many events there were.
    ///
    /// # Errors
    /// What `look` answers first; everything that came is freed all the same.
    pub fn poll(
        &mut self,
        at: usize,
        look: &mut dyn FnMut(usize, Seen<'_>) -> Result<(), String>,
    ) -> Result<usize, String> {
        let end: &mut dyn Subject = match &mut self.returned[at] {
            Some(end) => &mut **end,
            None => self.net.end(at),
        };
        let (pool, events) = (&mut self.pools[at], &mut self.events[at]);
        end.flush();
        let count = end.poll(pool, events);
        let mut outcome = Ok(count);
        if count != events.len() {
            outcome = Err(format!(
                "a poll counted {count} events, not {}",
                events.len()
            ));
        }
        while let Some(event) = events.pop() {
            let looked = match event {
                FabricEvent::Received { conn, buf } => {
                    let bytes = pool.bytes(&buf);
                    let looked = look(at, Seen::Message { conn, bytes });
                    pool.free(buf);
                    looked
                }
                FabricEvent::Delivered {
                    conn,
                    key,
                    range,
                    immediate,
                } => look(
                    at,
                    Seen::Landed {
                        conn,
                        key,
                        range,
                        immediate,
                    },
                ),
                FabricEvent::Closed { conn, reason } => look(at, Seen::Closed { conn, reason }),
            };
            if let (Err(why), true) = (looked, outcome.is_ok()) {
                outcome = Err(why);
            }
        }
        outcome
    }

    /// One round: every end is flushed and polled once.
    ///
    /// # Errors
    /// As [`Self::poll`].
    pub fn round(
        &mut self,
        look: &mut dyn FnMut(usize, Seen<'_>) -> Result<(), String>,
    ) -> Result<usize, String> {
        let mut events = 0;
        for at in 0..self.ends() {
            events += self.poll(at, look)?;
        }
        Ok(events)
    }

    /// Polls `ends` for so many rounds. All that is seen is counted, and added to `log`.
    ///
    /// # Errors
    /// A sentence: a poll does not do what it says.
    pub fn rounds(&mut self, count: u64, ends: &[usize], log: &mut Log) -> Result<(), String> {
        for _ in 0..count {
            self.look_once(ends, log)?;
        }
        Ok(())
    }

    /// Polls `ends` in rounds until `done` says so of what was seen. All of it is counted, and added to `log`.
    ///
    /// # Errors
    /// A sentence: patience ran out while waiting for `what`.
    pub fn watch(
        &mut self,
        what: &str,
        ends: &[usize],
        log: &mut Log,
        done: impl Fn(&Log) -> bool,
    ) -> Result<(), String> {
        let mut wait = self.wait();
        while !done(log) {
            let moved = self.look_once(ends, log)?;
            wait.round(moved > 0)
                .map_err(|why| format!("{why} while waiting for {what}"))?;
        }
        Ok(())
    }

    fn look_once(&mut self, ends: &[usize], log: &mut Log) -> Result<usize, String> {
        let mut events = 0;
        for &at in ends {
            events += self.poll(at, &mut |at, seen| {
                log.add(at, seen);
                Ok(())
            })?;
        }
        let new = std::mem::take(&mut log.uncounted);
        self.counts.received += new.received;
        self.counts.landed += new.landed;
        self.counts.closed += new.closed;
        Ok(events)
    }

    /// A buffer of an end's pool that holds `bytes`.
    ///
    /// # Errors
    /// A sentence, if the pool is empty.
    pub fn buf(&mut self, at: usize, bytes: &[u8]) -> Result<Buf, String> {
        let pool = &mut self.pools[at];
        pool.alloc_from(bytes)
            .ok_or_else(|| format!("the pool of end {at} is empty"))
    }

    /// What is not home: one sentence per pool.
    fn away(&mut self) -> Vec<String> {
        let mut away = Vec::new();
        for at in 0..self.ends() {
            let (end, pool) = self.at(at);
            let (in_use, capacity) = (
                pool.in_use() - end.posted().min(pool.in_use()),
                pool.capacity(),
            );
            if in_use > 0 {
                away.push(format!(
                    "{in_use} of {capacity} buffers of end {at} are in use"
                ));
            }
            let own = end.own_in_use();
            if own > 0 {
                away.push(format!(
                    "{own} of the backend's own buffers at end {at} are in use"
                ));
            }
        }
        away
    }

    /// Waits until every buffer is home, whatever comes meanwhile, and answers with a sentence for each pool where one is not:
    /// none, or patience has run out.
    ///
    /// # Errors
    /// A sentence: a poll does not do what it says.
    pub fn settle(&mut self) -> Result<Vec<String>, String> {
        let mut wait = self.wait();
        loop {
            let away = self.away();
            if away.is_empty() {
                return Ok(away);
            }
            self.round(&mut |_, _| Ok(()))?;
            if wait.round(false).is_err() {
                return Ok(away);
            }
        }
    }

    /// The end of a case: waits until every buffer is home and nothing comes any more, and answers with the counts.
    ///
    /// # Errors
    /// A sentence: which buffers are away, or what came although all that was sent had come.
    pub fn rest(&mut self) -> Result<Counts, String> {
        let mut quiet = 0;
        let mut wait = self.wait();
        while quiet < QUIET_ROUNDS {
            let came = self.round(&mut |at, seen| {
                Err(format!(
                    "end {at} was given what nobody had sent: {}",
                    match seen {
                        Seen::Message { bytes, .. } =>
                            format!("a message of {} bytes", bytes.len()),
                        Seen::Landed { .. } => "a one-sided write".to_owned(),
                        Seen::Closed { reason, .. } => format!("a close ({reason:?})"),
                    }
                ))
            })?;
            let away = self.away();
            quiet = if away.is_empty() && came == 0 {
                quiet + 1
            } else {
                0
            };
            wait.round(quiet > 0)
                .map_err(|why| format!("buffers: {}; {why}", away.join(", ")))?;
        }
        self.counts.buffers = self.pools.iter().map(|pool| pool.capacity() as u64).sum();
        Ok(self.counts)
    }
}
