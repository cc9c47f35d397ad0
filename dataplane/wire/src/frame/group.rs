//! Messages of the root group: the controller seals and names, the leader writes the cut log to the members
//! (ORDERING.md, section 1, ROOT MEMBER and NEW LEADER).
//!
//! A member is named by its node and incarnation. What a member has promised or holds counts only in configurations that
//! list this incarnation.

use ionian_types::{EntryNo, Inc, LogId, RootEpoch};

use super::macros::{body, code_enum};

body! {
    /// Controller to a member of the root group: take nothing of epochs before this one, from now on. Repeats change nothing.
    /// No tail.
    Seal = 80 {
        /// The log.
        log: LogId,
        /// The member's incarnation.
        inc: Inc,
        /// The epoch that is about to begin.
        epoch: RootEpoch,
    }
}

body! {
    /// Answer to [`Seal`], once the promise is held at the log's class; also when it had promised more. No tail.
    SealAck = 81 {
        /// The log.
        log: LogId,
        /// The member's incarnation.
        inc: Inc,
        /// The latest epoch promised.
        promised: RootEpoch,
        /// The epoch of the last entry held at the log's class; zero when none is.
        last_epoch: RootEpoch,
        /// The last entry held at the log's class.
        last: EntryNo,
        /// The last entry known to be committed.
        committed: EntryNo,
    }
}

body! {
    /// Leader to controller: my epoch's entry is committed by the configuration that I was named with. Repeated until the
    /// controller's next [`RootGrant`](super::RootGrant) says that it is recorded. No tail.
    RootLed = 82 {
        /// The log.
        log: LogId,
        /// The leader's incarnation.
        inc: Inc,
        /// Its epoch.
        epoch: RootEpoch,
        /// The epoch's entry.
        entry: EntryNo,
    }
}

body! {
    /// Leader to controller: so few members answer me that nothing can be committed. Repeated for as long as that is so.
    /// No tail.
    RootAlone = 86 {
        /// The log.
        log: LogId,
        /// The leader's incarnation.
        inc: Inc,
        /// Its epoch.
        epoch: RootEpoch,
        /// For how long, in nanoseconds.
        silent: u64,
    }
}

body! {
    /// Leader to member: entries that follow `prev`, and how far the log is committed. Without entries, a question whether the
    /// epoch still stands. Tail: the entries in order, each preceded by its length as `u32`.
    RootWrite = 83 {
        /// The log.
        log: LogId,
        /// The leader's epoch.
        epoch: RootEpoch,
        /// The member's incarnation, as the configuration lists it.
        inc: Inc,
        /// Rises with every message of the leader to this member; answers repeat it.
        round: u64,
        /// The entry before the first one in the tail.
        prev: EntryNo,
        /// The checksum of that entry: with its number it names the whole log up to it.
        prev_crc: u32,
        /// The last entry committed.
        commit: EntryNo,
        /// Entries up to this one are needed by nobody any more: the member may put a snapshot in their place.
        drop: EntryNo,
        /// The number of entries.
        count: u32,
    }
}

code_enum! {
    /// What a member says to a [`RootWrite`] or a [`RootState`].
    WriteOutcome {
        /// Its log is the leader's up to `last`, held at the log's class.
        Held = 1,
        /// It does not hold `prev` as the leader has it: `last` is where to go on from, at most.
        Behind = 2,
        /// It has promised a later epoch, which `promised` names.
        Superseded = 3,
        /// A part of a state was taken; `from` is the next byte wanted, `u64::MAX` when none is.
        Part = 4,
        /// Its log is long, and begins after `last`: it wants the leader's state if that begins later.
        Long = 5,
    }
}

body! {
    /// Answer to [`RootWrite`] and [`RootState`]: what the member holds now. No tail.
    RootWritten = 84 {
        /// The log.
        log: LogId,
        /// The epoch that was answered.
        epoch: RootEpoch,
        /// The member's incarnation.
        inc: Inc,
        /// The latest round received in this epoch.
        round: u64,
        /// What became of it.
        outcome: WriteOutcome,
        /// The latest epoch promised.
        promised: RootEpoch,
        /// Held: the last entry held at the log's class. Behind: the entry to go on from. Part: the entry of the state. Long:
        /// the entry before the first one.
        last: EntryNo,
        /// Part: the next byte wanted.
        from: u64,
    }
}

body! {
    /// Leader to a member that misses entries which were dropped: a part of the state that took their place. Tail: bytes of
    /// the snapshot from `from` on.
    RootState = 85 {
        /// The log.
        log: LogId,
        /// The leader's epoch.
        epoch: RootEpoch,
        /// The member's incarnation.
        inc: Inc,
        /// As in [`RootWrite`].
        round: u64,
        /// The entry after which the state holds.
        entry: EntryNo,
        /// CRC-32C of the whole.
        crc: u32,
        /// Bytes of the whole.
        total: u64,
        /// The first byte of this part; 0 begins a new state.
        from: u64,
    }
}
