//! A model of the verbs for tests, stricter than hardware.
//!
//! Devices of one [`MockNet`] reach each other. Work is carried out one request at a time, by a seeded choice among the queue
//! pairs, whenever a completion queue is polled: so what different queue pairs do interleaves differently with each seed, and
//! completions come late. The model is strict where hardware is lenient or merely likely to notice: bytes that are not inline
//! are read when the work is carried out, so a buffer that is used again too early shows; a send queue's places are free only
//! once a completion was polled; a reset drops completions that were not polled, and with them the receives they stand for; a
//! full completion queue is lost for good; keys and ranges are checked to the byte; what a state does not allow is `EINVAL`.
//!
//! # Safety model
//!
//! Work names slots of registered arenas, which the model keeps alive; who may touch them is the caller's promise, as with a
//! device (see [`VerbsApi`](crate::VerbsApi)). Bytes are copied between raw pointers only.

mod device;
mod net;

use std::cell::RefCell;
use std::rc::Rc;

use crate::api::DeviceLimits;
use net::Net;

/// What the devices of a net can do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MockLimits {
    /// What a device says of itself.
    pub device: DeviceLimits,
    /// Most inline bytes of a queue pair.
    pub inline_bytes_max: u32,
    /// A completion is seen up to so many steps after its work was carried out.
    pub delay_steps_max: u64,
    /// Work requests carried out at most, in the whole net, each time that a completion queue is polled.
    pub steps_per_poll: u32,
}

impl Default for MockLimits {
    fn default() -> Self {
        Self {
            device: DeviceLimits {
                send_depth_max: 1024,
                recv_depth_max: 8192,
                cq_depth_max: 65_536,
                queue_pairs_max: 1024,
                regions_max: 1024,
                message_bytes_max: 1 << 20,
            },
            inline_bytes_max: 256,
            delay_steps_max: 16,
            steps_per_poll: 8,
        }
    }
}

/// What a net has seen since it was made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct MockCounts {
    /// Work requests carried out.
    pub carried: u64,
    /// Sends that found no receive posted, each try.
    pub no_receive: u64,
    /// Work requests flushed.
    pub flushed: u64,
    /// Writes refused by key, range or right.
    pub refused: u64,
    /// Completions dropped by a reset.
    pub dropped: u64,
}

/// What a test does to a device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MockFaults {
    /// A queue pair, by number, breaks.
    QueuePair(u32),
    /// Every completion queue loses entries.
    CompletionQueues,
    /// The port goes down (`false`) or up: nothing passes meanwhile.
    Port(bool),
    /// Registrations are not ended any more.
    StuckRegions,
    /// Completions of sends come no more.
    SilentSends,
}

/// A net of devices on one thread.
#[derive(Clone, Debug)]
pub struct MockNet {
    net: Rc<RefCell<Net>>,
}

impl MockNet {
    /// A net without devices.
    #[must_use]
    pub fn new(seed: u64, limits: MockLimits) -> Self {
        Self {
            net: Rc::new(RefCell::new(Net::new(seed, limits))),
        }
    }

    /// Adds a device.
    #[must_use]
    pub fn device(&self) -> MockDevice {
        let index = self.net.borrow_mut().add();
        MockDevice {
            net: Rc::clone(&self.net),
            index,
        }
    }

    /// What the net has seen.
    #[must_use]
    pub fn counts(&self) -> MockCounts {
        self.net.borrow().counts
    }
}

/// One device of a [`MockNet`].
#[derive(Debug)]
pub struct MockDevice {
    net: Rc<RefCell<Net>>,
    index: usize,
}

impl MockDevice {
    /// Does something bad to it.
    pub fn harm(&mut self, fault: MockFaults) {
        self.net.borrow_mut().harm(self.index, fault);
    }
}
