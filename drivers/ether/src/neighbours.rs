//! Who has which hardware address: a bounded table, sorted by IP address.
//!
//! ```text
//!                 word heard                        age
//!   Incomplete -----------------> Reachable -----------------> Probing      the address is used in Reachable and Probing
//!     |    ^                        ^                           |    |
//!     |    |                        +------- word heard --------+    |
//!     |    +---------------------- tries without answer -------------+
//!     +-- tries without answer --> forgotten
//! ```
//!
//! *Source*: the reachability states of RFC 4861, section 7.3, less DELAY and STALE: an aged address is asked for at its next
//! use. Strangers cannot push anybody out: a question adds its sender while there is room, and only what the device itself
//! sends to evicts, the neighbour that was not used for longest.

use std::net::IpAddr;

use ionian_driver_api::{Bounded, Time};
use ionian_types::Nanos;

use crate::mac::MacAddr;
use crate::options::{EtherOptions, EtherStats};

/// A question to be sent: everybody is asked, or one station for confirmation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Ask {
    pub(crate) ip: IpAddr,
    pub(crate) known: Option<MacAddr>,
}

/// Questions of one round. A full one delays questions to the next.
pub(crate) type Asks = Bounded<Ask>;

/// Where a packet for a neighbour goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Route {
    /// To this hardware address.
    Known(MacAddr),
    /// Nowhere yet: the neighbour is being asked.
    Wait,
    /// Nowhere: the table is full of neighbours in use.
    Full,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Incomplete { tries: u8, next_at: Time },
    Reachable { until: Time },
    Probing { tries: u8, next_at: Time },
    Permanent,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    ip: IpAddr,
    /// Meaningless while incomplete.
    mac: MacAddr,
    state: State,
    used_at: Time,
}

/// What a word told about the neighbour that it names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Heard {
    pub(crate) ip: IpAddr,
    pub(crate) mac: MacAddr,
    /// Replaces another address that is known.
    pub(crate) overrides: bool,
    /// Remembers a neighbour that was not asked for.
    pub(crate) adds: bool,
}

#[derive(Debug)]
pub(crate) struct Neighbours {
    entries: Vec<Entry>,
    entries_max: usize,
    reachable: Nanos,
    retry: Nanos,
    tries_max: u8,
    /// No question is due before.
    next_at: Time,
}

impl Neighbours {
    pub(crate) fn new(options: &EtherOptions) -> Self {
        Self {
            entries: Vec::with_capacity(options.neighbours_max),
            entries_max: options.neighbours_max,
            reachable: Nanos::from_ms(options.reachable_ms.into()),
            retry: Nanos::from_ms(options.retry_ms.into()),
            tries_max: options.tries_max,
            next_at: Time::FAR,
        }
    }

    /// When the next question is due; [`Time::FAR`] if none is.
    pub(crate) const fn next_at(&self) -> Time {
        self.next_at
    }

    /// The hardware address to send to now, if it is known.
    pub(crate) fn known(&self, ip: IpAddr) -> Option<MacAddr> {
        let entry = self.entries.get(self.find(ip).ok()?)?;
        (!matches!(entry.state, State::Incomplete { .. })).then_some(entry.mac)
    }

    /// Says where a packet for this neighbour goes, and asks for it if that is not known or was not heard for long.
    pub(crate) fn resolve(
        &mut self,
        ip: IpAddr,
        now: Time,
        asks: &mut Asks,
        stats: &mut EtherStats,
    ) -> Route {
        let at = match self.find(ip) {
            Ok(at) => at,
            Err(at) => {
                let Some(at) = self.make_room(at) else {
                    stats.table_full += 1;
                    return Route::Full;
                };
                let next_at = self.ask(Ask { ip, known: None }, now, asks);
                self.entries.insert(
                    at,
                    Entry {
                        ip,
                        mac: MacAddr::default(),
                        state: State::Incomplete { tries: 1, next_at },
                        used_at: now,
                    },
                );
                return Route::Wait;
            }
        };
        self.entries[at].used_at = now;
        let Entry { mac, state, .. } = self.entries[at];
        match state {
            State::Incomplete { .. } => Route::Wait,
            State::Reachable { until } if until <= now => {
                let next_at = self.ask(
                    Ask {
                        ip,
                        known: Some(mac),
                    },
                    now,
                    asks,
                );
                self.entries[at].state = State::Probing { tries: 1, next_at };
                Route::Known(mac)
            }
            State::Reachable { .. } | State::Probing { .. } | State::Permanent => Route::Known(mac),
        }
    }

    /// Takes in what a word said. Returns whether packets that waited for this neighbour can leave now.
    pub(crate) fn hear(&mut self, heard: Heard, now: Time, stats: &mut EtherStats) -> bool {
        let reachable = State::Reachable {
            until: now.after(self.reachable),
        };
        let at = match self.find(heard.ip) {
            Ok(at) => at,
            Err(at) => {
                if !heard.adds {
                    return false;
                }
                if self.entries.len() >= self.entries_max {
                    stats.table_full += 1;
                    return false;
                }
                stats.learned += 1;
                self.entries.insert(
                    at,
                    Entry {
                        ip: heard.ip,
                        mac: heard.mac,
                        state: reachable,
                        used_at: now,
                    },
                );
                return false;
            }
        };
        let entry = &mut self.entries[at];
        match entry.state {
            State::Permanent => false,
            State::Incomplete { .. } => {
                stats.learned += 1;
                entry.mac = heard.mac;
                entry.state = reachable;
                true
            }
            State::Reachable { .. } | State::Probing { .. } => {
                if entry.mac != heard.mac {
                    // Not its word against what is known. *Source*: RFC 4861, section 7.2.5.
                    if !heard.overrides {
                        return false;
                    }
                    stats.changed += 1;
                    entry.mac = heard.mac;
                }
                stats.learned += 1;
                entry.state = reachable;
                false
            }
        }
    }

    /// Fixes the address of a neighbour: it is neither asked for nor changed by anything heard. Returns `false`, without
    /// effect, if the table is full.
    pub(crate) fn fix(&mut self, ip: IpAddr, mac: MacAddr) -> bool {
        let at = match self.find(ip) {
            Ok(at) => at,
            Err(at) => {
                let Some(at) = self.make_room(at) else {
                    return false;
                };
                self.entries.insert(
                    at,
                    Entry {
                        ip,
                        mac,
                        state: State::Permanent,
                        used_at: Time::ZERO,
                    },
                );
                at
            }
        };
        self.entries[at].mac = mac;
        self.entries[at].state = State::Permanent;
        true
    }

    /// Asks again for whom no answer came in time, and forgets who did not answer at all, telling `forgotten`.
    pub(crate) fn tick(
        &mut self,
        now: Time,
        asks: &mut Asks,
        stats: &mut EtherStats,
        mut forgotten: impl FnMut(IpAddr),
    ) {
        if now < self.next_at {
            return;
        }
        let (retry, tries_max) = (self.retry, self.tries_max);
        let mut earliest = Time::FAR;
        self.entries.retain_mut(|entry| {
            let (tries, next_at, known) = match entry.state {
                State::Incomplete { tries, next_at } => (tries, next_at, None),
                State::Probing { tries, next_at } => (tries, next_at, Some(entry.mac)),
                State::Reachable { .. } | State::Permanent => return true,
            };
            if now < next_at {
                earliest = earliest.min(next_at);
                return true;
            }
            if tries >= tries_max && known.is_none() {
                stats.forgotten += 1;
                forgotten(entry.ip);
                return false;
            }
            // One who does not answer at its address may have another by now: everybody is asked.
            let (tries, known) = if tries >= tries_max {
                (0, None)
            } else {
                (tries, known)
            };
            // Without room for the question it is asked at the next round, and this one does not count.
            let (tries, next_at) = match asks.push(Ask {
                ip: entry.ip,
                known,
            }) {
                Ok(()) => (tries + 1, now.after(retry)),
                Err(_) => (tries, now),
            };
            earliest = earliest.min(next_at);
            entry.state = match known {
                None => State::Incomplete { tries, next_at },
                Some(_) => State::Probing { tries, next_at },
            };
            true
        });
        self.next_at = earliest;
    }

    /// Neighbours remembered now.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    fn find(&self, ip: IpAddr) -> Result<usize, usize> {
        self.entries.binary_search_by(|entry| entry.ip.cmp(&ip))
    }

    /// Queues a question and returns when the next one is due.
    fn ask(&mut self, ask: Ask, now: Time, asks: &mut Asks) -> Time {
        let next_at = match asks.push(ask) {
            Ok(()) => now.after(self.retry),
            Err(_) => now,
        };
        self.next_at = self.next_at.min(next_at);
        next_at
    }

    /// Sees to room for one more entry that would stand at `at`, and says where it stands then. `None` if every neighbour
    /// is being asked for, or is fixed.
    fn make_room(&mut self, at: usize) -> Option<usize> {
        if self.entries.len() < self.entries_max {
            return Some(at);
        }
        let idle = |entry: &Entry| matches!(entry.state, State::Reachable { .. });
        let (oldest, _) = self
            .entries
            .iter()
            .enumerate()
            .filter(|(_, entry)| idle(entry))
            .min_by_key(|(_, entry)| entry.used_at)?;
        self.entries.remove(oldest);
        Some(if oldest < at { at - 1 } else { at })
    }
}
