//! What a history is made of: the events of `hist/1`, typed.
//!
//! One event is one line. `t` is in nanoseconds of one clock per host; positions (`gsn`) start at 0; ranges are half open.
//! Operations (`op`), processes (`p`) and subscriptions (`sub`) are numbered per file. Everything else, logs, clients,
//! sessions and positions, means the same thing in every file of a history.

/// What a client, a nemesis or a harness saw or did.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// `hdr`: what the history is of, and what was promised. The first line of a file.
    Header(Box<Header>),
    /// `inv`: an operation was called.
    Inv {
        /// When.
        t: u64,
        /// The process: a place with at most one open operation.
        p: u64,
        /// The operation.
        op: u64,
        /// The log.
        log: u64,
        /// What was called.
        call: Call,
    },
    /// `ok`: it succeeded.
    Ok {
        /// When.
        t: u64,
        /// The operation.
        op: u64,
        /// The answer.
        answer: Answer,
    },
    /// `fail` or `info`: it did not.
    Failed {
        /// When.
        t: u64,
        /// The operation.
        op: u64,
        /// `fail`: it had no effect and never will. Otherwise `info`: nobody knows.
        no_effect: bool,
    },
    /// `sub`: a subscription began.
    Sub {
        /// When.
        t: u64,
        /// The subscription.
        sub: u64,
        /// The log.
        log: u64,
        /// The first position wanted.
        start: u64,
        /// It belongs to the final read: what it does not see is lost.
        last: bool,
        /// It wants only some records.
        only: Option<Only>,
    },
    /// `dlv`: a record was delivered.
    Dlv {
        /// When.
        t: u64,
        /// The subscription.
        sub: u64,
        /// The position.
        gsn: u64,
        /// The record.
        rec: Sight,
        /// A hint that a `conf` or a `void` will follow.
        spec: bool,
        /// The epoch that ordered it.
        epoch: Option<u64>,
    },
    /// `gap`: positions that hold no record.
    Gap {
        /// When.
        t: u64,
        /// The subscription.
        sub: u64,
        /// The first position.
        lo: u64,
        /// The position after the last.
        hi: u64,
        /// Why.
        kind: Kind,
        /// A hint, as in [`Event::Dlv`].
        spec: bool,
    },
    /// `conf`: hints up to here, inclusive, became facts.
    Conf {
        /// When.
        t: u64,
        /// The subscription.
        sub: u64,
        /// The last position confirmed.
        upto: u64,
    },
    /// `void`: hints from here on were wrong; they come again.
    Void {
        /// When.
        t: u64,
        /// The subscription.
        sub: u64,
        /// The first position taken back.
        start: u64,
    },
    /// `end`: the client closed the subscription; nothing more is owed to it.
    End {
        /// When.
        t: u64,
        /// The subscription.
        sub: u64,
    },
    /// `epoch`: an epoch began.
    Epoch {
        /// When it was observed.
        t: u64,
        /// The log.
        log: u64,
        /// The epoch.
        epoch: u64,
        /// Its first position.
        start: u64,
    },
    /// `nem`: a fault.
    Nem {
        /// When.
        t: u64,
        /// The kind of fault.
        fault: String,
        /// What became of it.
        state: FaultState,
        /// With it, more nodes are faulty than the log promises to survive.
        beyond_f: bool,
    },
    /// `phase`: the run entered a phase.
    Phase {
        /// When.
        t: u64,
        /// The log.
        log: u64,
        /// Which.
        phase: Phase,
        /// The lowest position that is not trimmed.
        head: u64,
        /// The next position.
        tail: u64,
    },
    /// `done`: the file ends here, whole.
    Done {
        /// When.
        t: u64,
    },
    /// `wb` of a kind that the judge uses: what a node did inside.
    White(Box<White>),
    /// `wb` of another kind: counted.
    WhiteOther,
}

/// What was promised, and what was tried.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Header {
    /// The run.
    pub run: String,
    /// The seed that made it.
    pub seed: u64,
    /// The system under test.
    pub sut: String,
    /// Its commit.
    pub commit: String,
    /// `sim`, `proc` or `cluster`.
    pub world: String,
    /// Two clocks of the run differ by at most this.
    pub clock_err_ns: u64,
    /// The order that was promised.
    pub order: Order,
    /// A retried append stands once.
    pub dedupe: bool,
    /// Speculative deliveries are possible.
    pub spec: bool,
    /// The durability class, as its name.
    pub durability: String,
    /// Shards.
    pub shards: u64,
    /// Replicas of a shard.
    pub replicas: u64,
    /// Faulty replicas that a shard survives.
    pub f: u64,
    /// Positions are written in ascending order: none is unwritten below one that is written.
    pub dense: bool,
    /// More than `f` nodes may be faulty: a declared loss, and standing still, are legal.
    pub beyond_f: bool,
    /// Faults that were announced: with fewer installed, the run shows nothing.
    pub faults: u64,
    /// How long after `heal` (or after its call) everything may take, for liveness.
    pub live_ns: u64,
    /// The file ends with `done`; without it, it was cut short.
    pub done: bool,
}

impl Default for Header {
    fn default() -> Self {
        Self {
            run: String::new(),
            seed: 0,
            sut: "ours".to_owned(),
            commit: String::new(),
            world: "sim".to_owned(),
            clock_err_ns: 0,
            order: Order::Linearizable,
            dedupe: true,
            spec: false,
            durability: "D0".to_owned(),
            shards: 1,
            replicas: 1,
            f: 0,
            dense: false,
            beyond_f: false,
            faults: 0,
            live_ns: LIVE_NS,
            done: false,
        }
    }
}

/// The bound on liveness where a header names none: 30 s.
pub const LIVE_NS: u64 = 30_000_000_000;

/// The order that a log promises.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Order {
    /// Total, and in real time.
    Linearizable,
    /// Total, and in the order of each session.
    Fifo,
    /// Total.
    Total,
}

/// A call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Call {
    /// An append.
    Append {
        /// The client.
        cid: u64,
        /// Session and number, once the record has them. A record may get them, or others, later: its `ok` says which.
        name: Option<(u64, u64)>,
        /// Which try this is, from 1.
        attempt: u64,
        /// The hash of the payload.
        h: u64,
        /// The colour, for selective readers.
        col: Option<u64>,
    },
    /// A read of one position.
    Read(u64),
    /// A question for the tail.
    Tail,
    /// A trim of what stands below.
    Trim(u64),
    /// A fill of a position with a hole.
    Fill(u64),
}

/// An answer that is not an error.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer {
    /// To an append.
    Appended {
        /// The position.
        gsn: u64,
        /// The epoch that ordered it.
        epoch: Option<u64>,
        /// The shard that holds it.
        shard: Option<u64>,
        /// The replica in whose segment it stands.
        rep: Option<u64>,
        /// Its place in that segment.
        lsn: Option<u64>,
        /// The generation of that segment, where it had several.
        generation: Option<u64>,
        /// Session and number that it was ordered with, where they differ from those of the call.
        name: Option<(u64, u64)>,
    },
    /// A record stands there.
    Record(Sight),
    /// A hole stands there.
    Hole(Kind),
    /// It was trimmed.
    Trimmed,
    /// Nothing stands there yet.
    Unwritten,
    /// The tail, and perhaps the head.
    Tail {
        /// The next position.
        tail: u64,
        /// The lowest position that is not trimmed.
        head: Option<u64>,
    },
    /// The head, after a trim.
    Head(u64),
    /// Done, and nothing more to say.
    Done,
}

/// A record as a reader sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sight {
    /// The client.
    pub cid: u64,
    /// Its session; where it is left out, `csn` is unique within the client.
    pub ses: Option<u64>,
    /// The number.
    pub csn: u64,
    /// The hash of the payload that was seen.
    pub h: u64,
}

/// Why a position holds no record.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Kind {
    /// Filled by a client.
    Junk,
    /// Filled by recovery.
    Plug,
    /// A quota that was not used.
    Noop,
    /// The end of an epoch.
    Bridge,
    /// Trimmed.
    Trim,
    /// Lost, and declared so.
    Loss,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 6] = [
        Self::Junk,
        Self::Plug,
        Self::Noop,
        Self::Bridge,
        Self::Trim,
        Self::Loss,
    ];

    /// Its name in a history.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Junk => "junk",
            Self::Plug => "plug",
            Self::Noop => "noop",
            Self::Bridge => "bridge",
            Self::Trim => "trim",
            Self::Loss => "loss",
        }
    }

    /// It is what the order says of the position for ever; `trim` and `loss` say what became of what it held.
    #[must_use]
    pub const fn is_hole(self) -> bool {
        !matches!(self, Self::Trim | Self::Loss)
    }
}

/// Which records a selective subscription wants.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Only {
    /// Those of a client.
    Client(u64),
    /// Those of a shard.
    Shard(u64),
    /// Those of a colour.
    Colour(u64),
}

/// What became of a fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FaultState {
    /// It took hold.
    Installed,
    /// It could not be tried.
    Skipped,
    /// Nobody knows.
    Unknown,
    /// It is over.
    Healed,
}

/// A phase of a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// What is done now is not measured.
    WarmUp,
    /// The load.
    Load,
    /// The faults are over: from here on there is progress.
    Heal,
    /// Everything is over: what stands now stands.
    Final,
}

/// What a node did inside.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum White {
    /// `cut`: it learned of a committed cut.
    Cut {
        /// The log.
        log: u64,
        /// The entry's number.
        n: u64,
        /// The first position that it orders.
        gsn: u64,
        /// The position after the last.
        end: u64,
        /// Per segment, in the cut's order: shard, replica, length before, length after.
        deltas: Vec<[u64; 4]>,
    },
    /// `sum`: the digest of its copy of a segment, up to the committed length, after everything.
    Sum {
        /// The log.
        log: u64,
        /// The shard.
        shard: u64,
        /// The replica whose segment it is.
        rep: u64,
        /// The committed length.
        len: u64,
        /// The digest.
        h: u64,
    },
    /// `persist`: a replica has flushed its copy of a segment, so far.
    Persist {
        /// When.
        t: u64,
        /// The log.
        log: u64,
        /// The shard.
        shard: u64,
        /// The replica whose segment it is.
        rep: u64,
        /// The replica that has flushed.
        by: u64,
        /// The length that is flushed.
        len: u64,
    },
    /// `repair`: copies of records were bad, and mended from good ones.
    Repair {
        /// How many.
        n: u64,
    },
}
