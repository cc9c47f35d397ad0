//! The cases: a name, the net it wants, and what it does.
//!
//! A case answers with a sentence that says what is wrong, or with nothing; the runner then waits until every buffer is home. What it
//! counts must not depend on the backend. Its first line says which promise it checks.

mod faults;
mod fence;
mod hostile;
mod life;
mod limits;
mod messages;
mod packets;
mod peers;
mod sleep;
mod writes;

use crate::ground::{Counts, Ground, Patience};
use crate::subject::{PacketEnds, Shape};

/// A case over connected ends.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// What it is called in reports: the promise, in a word or two.
    pub name: &'static str,
    /// The net that it runs on.
    pub shape: fn() -> Shape,
    /// Runs it.
    pub run: fn(&mut Ground) -> Result<(), String>,
}

/// A case over two bare devices.
#[derive(Clone, Copy, Debug)]
pub struct PacketCase {
    /// What it is called in reports.
    pub name: &'static str,
    /// Runs it.
    pub run: fn(&mut PacketEnds, Patience) -> Result<Counts, String>,
}

const fn case(name: &'static str, run: fn(&mut Ground) -> Result<(), String>) -> Case {
    Case {
        name,
        shape: Shape::default,
        run,
    }
}

const fn shaped(
    name: &'static str,
    shape: fn() -> Shape,
    run: fn(&mut Ground) -> Result<(), String>,
) -> Case {
    Case { name, shape, run }
}

/// The cases of every backend, the simplest first: the first that fails says the most.
pub const CASES: &[Case] = &[
    case("delivery", messages::delivery),
    case("once", messages::once),
    case("ordering", messages::ordering),
    case("sizes", messages::sizes),
    case("large", messages::large),
    case("backpressure", limits::backpressure),
    shaped("saturation", limits::tiny, limits::saturation),
    case("empty-pool", limits::empty_pool),
    shaped("slow-peer", peers::three, peers::slow_peer),
    shaped("fairness", peers::three, peers::fairness),
    case("loss", faults::loss),
    case("duplication", faults::duplication),
    case("reordering", faults::reordering),
    case("faults", faults::all),
    case("close", life::close),
    shaped("silence", life::few_events, life::silence),
    case("reconnection", life::reconnection),
    shaped("link-loss", life::impatient, life::link_loss),
    case("buffers", life::buffers),
    case("epochs", fence::messages),
    case("writes", writes::writes),
    case("write-bounds", writes::bounds),
    shaped("foreign-key", peers::three, writes::foreign_key),
    case("revoke", fence::revoke),
    case("fence", fence::fence),
    case("wake", sleep::wake),
    shaped("hostile", hostile::many, hostile::arbitrary),
    shaped("damaged", hostile::many, hostile::damaged),
];

/// The cases of backends with datagrams, over bare devices.
pub const PACKET_CASES: &[PacketCase] = &[
    PacketCase {
        name: "packets",
        run: packets::sizes,
    },
    PacketCase {
        name: "packet-bursts",
        run: packets::bursts,
    },
    PacketCase {
        name: "packet-oversize",
        run: packets::oversize,
    },
    PacketCase {
        name: "packet-empty-pool",
        run: packets::empty_pool,
    },
    PacketCase {
        name: "packet-nobody",
        run: packets::nobody,
    },
];

/// Slots of each pool of a packet case.
pub const PACKET_SLOTS: u32 = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_distinct_words() {
        let names: Vec<&str> = CASES
            .iter()
            .map(|case| case.name)
            .chain(PACKET_CASES.iter().map(|case| case.name))
            .collect();
        for name in &names {
            assert_eq!(names.iter().filter(|other| *other == name).count(), 1);
            assert!(!name.contains(char::is_whitespace));
        }
    }
}
