//! What a backend brings to the suite: ends that carry the contract, connections between them, faults and hostile bytes.
//!
//! A backend is a [`Backend`]; what it opens is a [`Net`] of two or three [`Subject`]s. Most subjects are
//! [`Emulated`] over a [`Layer`]; one with one-sided writes of its own implements [`Subject`] itself.

use ionian_driver_api::{BufPool, ConnId, Emulated, Fabric, OneSided, PacketDevice, PeerAddr};
use ionian_runtime::Sleeper;

/// How a backend comes to carry messages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Family {
    /// It is reliable by nature: shared memory, RDMA.
    Fabric,
    /// It carries datagrams, and sessions make up for their loss.
    Datagrams,
}

/// A fault that is done to what an end sends, from now on. The same names mean on each family what its middleware can do without
/// breaking the contract below: a fabric never loses a message that it took, so there it refuses or holds them instead.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Disturbance {
    /// None.
    Calm,
    /// Datagrams are lost; a fabric refuses messages.
    Loss,
    /// Datagrams come twice; a fabric refuses and holds messages, so that its caller sends again.
    Duplication,
    /// Datagrams overtake each other; a fabric holds messages.
    Reordering,
    /// All that the family's middleware has, damaged datagrams included, but for [`Self::Cut`].
    All,
    /// Nothing gets through any more; a fabric breaks the connection at the next message.
    Cut,
}

/// One end under test. Its caller is one thread, and gives it the same pool at every call.
pub trait Subject: OneSided + Send {
    /// How it comes to carry messages.
    fn family(&mut self) -> Family;

    /// Buffers in use in pools of its own. Zero when it rests.
    fn own_in_use(&mut self) -> usize;

    /// Buffers of the caller's pool that it keeps by design, ready for what arrives. They count as accounted for.
    fn posted(&mut self) -> usize {
        0
    }

    /// Does this to what is sent from now on. The same seed and calls give the same faults.
    fn disturb(&mut self, disturbance: Disturbance);

    /// Faults done so far.
    fn disturbed(&mut self) -> u64;

    /// The last unit that it sent to a peer below all checks: a datagram, or a message with what the layers appended. Empty
    /// before the first.
    fn captured(&mut self) -> Vec<u8>;

    /// Sends bytes as they are to the peer of `conn`, open or not, as one unit below all checks. `false` if there is no way to:
    /// no room, too long, or a fabric's connection that is closed.
    fn inject(&mut self, pool: &mut BufPool, conn: ConnId, bytes: &[u8]) -> bool;
}

/// A subject without one-sided writes of its own. See [`Subject`] for the methods.
pub trait Layer: Fabric + Send {
    /// See [`Subject::family`].
    fn family(&self) -> Family;
    /// See [`Subject::own_in_use`].
    fn own_in_use(&self) -> usize;
    /// See [`Subject::disturb`].
    fn disturb(&mut self, disturbance: Disturbance);
    /// See [`Subject::disturbed`].
    fn disturbed(&self) -> u64;
    /// See [`Subject::captured`].
    fn captured(&self) -> &[u8];
    /// See [`Subject::inject`].
    fn inject(&mut self, pool: &mut BufPool, conn: ConnId, bytes: &[u8]) -> bool;
}

impl<L: Layer> Subject for Emulated<L> {
    fn family(&mut self) -> Family {
        self.inner_mut().family()
    }

    fn own_in_use(&mut self) -> usize {
        self.inner_mut().own_in_use()
    }

    fn disturb(&mut self, disturbance: Disturbance) {
        self.inner_mut().disturb(disturbance);
    }

    fn disturbed(&mut self) -> u64 {
        self.inner_mut().disturbed()
    }

    fn captured(&mut self) -> Vec<u8> {
        self.inner_mut().captured().to_vec()
    }

    fn inject(&mut self, pool: &mut BufPool, conn: ConnId, bytes: &[u8]) -> bool {
        self.inner_mut().inject(pool, conn, bytes)
    }
}

/// What a case asks of the net that it runs on. Everything else is the backend's choice.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shape {
    /// Ends, 2 or 3.
    pub ends: usize,
    /// Bytes that wait on a connection in one direction at most, where the backend lets one choose. A power of two.
    pub queue_bytes: usize,
    /// Connections of one end over its life, at most.
    pub conns_max: usize,
    /// Regions exposed at once by one end, at most.
    pub regions_max: usize,
    /// Polls of an end during which a peer that is awaited may be silent before it counts as gone.
    pub dead_after_polls: u64,
    /// Slots of the pool of each end.
    pub slots: u32,
    /// Events that one poll hands over at most.
    pub events_max: usize,
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            ends: 2,
            queue_bytes: 1 << 16,
            conns_max: 16,
            regions_max: 8,
            dead_after_polls: 400_000,
            slots: 128,
            events_max: 64,
        }
    }
}

/// Two or three ends, and whatever connects them.
pub trait Net {
    /// An end.
    ///
    /// # Panics
    /// If there is none, or it was taken.
    fn end(&mut self, at: usize) -> &mut dyn Subject;

    /// Connects two ends under an epoch. The same pair is connected anew under a higher one. Answers with the connection as
    /// each of them knows it.
    ///
    /// # Errors
    /// A sentence. Effect: none.
    fn connect(&mut self, a: usize, b: usize, epoch: u64) -> Result<(ConnId, ConnId), String>;

    /// Takes an end away for a thread of its own, with what that thread sleeps by: wake-ups of the end, and its descriptor, end
    /// such a sleep.
    ///
    /// # Errors
    /// A sentence, if there is no such end any more or the system has no descriptor left.
    fn take(&mut self, at: usize) -> Result<(Box<dyn Subject>, Sleeper), String>;
}

/// Two bare devices that can reach each other, each with a pool as it wants one.
pub struct PacketEnds {
    /// The devices.
    pub devices: [Box<dyn PacketDevice + Send>; 2],
    /// Their pools.
    pub pools: [BufPool; 2],
    /// An address of their network that nobody answers at.
    pub nobody: PeerAddr,
    /// What keeps their network alive. Dropped last.
    pub ground: Box<dyn Send>,
}

impl std::fmt::Debug for PacketEnds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PacketEnds")
            .field("pools", &self.pools)
            .finish_non_exhaustive()
    }
}

/// Why a backend did not open.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// It cannot run here; the reason is a sentence, ending in `(install PACKAGE)` where that would help.
    Unavailable(String),
    /// It should have opened, and did not.
    Broken(String),
}

/// A backend under test.
pub trait Backend {
    /// Opens a net.
    ///
    /// # Errors
    /// [`Refusal`]. Effect: none.
    fn open(&self, shape: &Shape) -> Result<Box<dyn Net>, Refusal>;

    /// Opens two bare devices with pools of `slots` slots; `None` for a backend without datagrams.
    fn open_packets(&self, slots: u32) -> Option<Result<PacketEnds, Refusal>>;
}
