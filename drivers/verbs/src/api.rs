//! The calls of the verbs that the fabric makes, as a trait: a device implements it, and a mock.
//!
//! An implementation is one opened device with one port and one protection domain. Objects are named by small numbers, so
//! that no pointer crosses the trait, and memory by registered arenas.
//!
//! *Source*: InfiniBand Architecture Specification 1.4, volume 1, chapters 9 to 11; the manual pages of libibverbs.

use std::os::fd::RawFd;
use std::sync::Arc;

use ionian_driver_api::dma::Arena;
use thiserror::Error;

use crate::control::CONTROL_BYTES_MAX;

/// A registered piece of memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MrId(pub u32);
/// A completion queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CqId(pub u32);
/// A shared receive queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SrqId(pub u32);
/// A queue pair.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct QpId(pub u32);

/// What a device can do. Constant after it was opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DeviceLimits {
    /// Most work requests of one queue pair's send queue.
    pub send_depth_max: u32,
    /// Most work requests of one shared receive queue.
    pub recv_depth_max: u32,
    /// Most entries of one completion queue.
    pub cq_depth_max: u32,
    /// Most queue pairs.
    pub queue_pairs_max: u32,
    /// Most registered pieces of memory.
    pub regions_max: u32,
    /// Largest message of the port in bytes.
    pub message_bytes_max: u32,
}

/// Where a port is reached.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Address {
    /// Global identifier (GID); over RoCE v2 it holds the IP address.
    pub gid: [u8; 16],
    /// Local identifier of InfiniBand; 0 over Ethernet.
    pub lid: u16,
    /// Bytes of one packet's payload on the path: 256, 512, 1024, 2048 or 4096.
    pub mtu_bytes: u16,
}

/// The other end of a queue pair, and how patient to be with it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Remote {
    /// Where it is.
    pub address: Address,
    /// Its queue pair, 24 bits.
    pub qp_num: u32,
    /// The first packet number that it sends, 24 bits.
    pub psn: u32,
    /// Time until a packet is sent again is 4.096 us * 2^this, 1 to 31.
    pub ack_timeout_log: u8,
    /// How often it is sent again, 0 to 7.
    pub retries: u8,
    /// How often a send to an empty receive queue is tried again, 0 to 6; 7 would be for ever.
    pub rnr_retries: u8,
    /// How long the peer is to wait before that, as the verbs' code for it, 0 to 31 (12 is 0.64 ms).
    pub rnr_timer: u8,
}

/// How to make a queue pair of type RC.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct QpOptions {
    /// Where its sends complete.
    pub send_cq: CqId,
    /// Where its receives complete.
    pub recv_cq: CqId,
    /// Where its receives come from.
    pub srq: SrqId,
    /// Work requests of its send queue.
    pub send_depth: u32,
    /// Most bytes of one inline send.
    pub inline_bytes: u32,
}

/// A call that the device refused. Effect: none, unless the call says otherwise.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("{call} failed: {}", std::io::Error::from_raw_os_error(*errno))]
pub struct DeviceError {
    /// The call of libibverbs.
    pub call: &'static str,
    /// The system's error number.
    pub errno: i32,
}

/// A chain of which only a part was posted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("posting failed after {posted} work requests: {}", std::io::Error::from_raw_os_error(*errno))]
pub struct PostError {
    /// Work requests at the chain's start that were posted; their effect is as if posted alone.
    pub posted: usize,
    /// The system's error number.
    pub errno: i32,
}

/// What a peer needs to write into memory of ours.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Permit {
    /// Ours, to take it back.
    pub mr: MrId,
    /// The key to name in a write.
    pub rkey: u32,
    /// The address of the first byte, as a write names it.
    pub address: u64,
}

/// Bytes of a peer's memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RemoteBytes {
    /// Address of the first.
    pub address: u64,
    /// The key of the region.
    pub rkey: u32,
}

/// What a send does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SendOp {
    /// SEND WITH IMMEDIATE: fills one receive of the peer.
    Send {
        /// Carried in the peer's completion.
        immediate: u32,
    },
    /// WRITE: nobody at the peer is told.
    Write(RemoteBytes),
    /// WRITE WITH IMMEDIATE: uses up one receive of the peer, and leaves its buffer as it was.
    WriteWithImmediate {
        /// Where.
        remote: RemoteBytes,
        /// Carried in the peer's completion.
        immediate: u32,
    },
}

/// What a send carries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Data {
    /// Nothing.
    None,
    /// The first `len` of these bytes, taken when the work is posted.
    Control {
        /// The bytes.
        bytes: [u8; CONTROL_BYTES_MAX],
        /// How many count.
        len: u8,
    },
    /// The start of a slot of a registered arena.
    Slot {
        /// The arena's registration.
        mr: MrId,
        /// Index of the slot.
        slot: u32,
        /// Bytes from its start.
        len: u32,
        /// Taken when the work is posted, so that the slot is free at once.
        inline: bool,
    },
}

/// One work request of a send queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SendWork {
    /// Comes back in the completion.
    pub wr_id: u64,
    /// What to do.
    pub op: SendOp,
    /// With what.
    pub data: Data,
    /// Whether success completes; failure always does.
    pub signalled: bool,
}

impl SendWork {
    /// Whether its bytes are taken when it is posted.
    #[must_use]
    pub const fn is_inline(&self) -> bool {
        matches!(
            self.data,
            Data::Control { .. } | Data::Slot { inline: true, .. }
        )
    }
}

/// One work request of a receive queue: a whole slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RecvWork {
    /// Comes back in the completion.
    pub wr_id: u64,
    /// The arena's registration.
    pub mr: MrId,
    /// Index of the slot.
    pub slot: u32,
}

/// Why a work request did not succeed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Status {
    /// The queue pair was in error when its turn came.
    Flushed,
    /// The peer did not answer, however often it was tried.
    NoAnswer,
    /// The peer had no receive posted, however often it was tried.
    NoReceive,
    /// The peer's device refused the key or the range.
    RemoteAccess,
    /// Anything else, by the verbs' number for it.
    Other(u32),
}

/// What succeeded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DoneKind {
    /// A work request of a send queue.
    Sent,
    /// A SEND filled a receive.
    Received,
    /// A WRITE WITH IMMEDIATE used a receive up.
    Written,
}

/// A success.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Done {
    /// Of what.
    pub kind: DoneKind,
    /// Bytes received or written.
    pub bytes: u32,
    /// What the peer attached.
    pub immediate: Option<u32>,
}

/// An entry of a completion queue. Of a failure nothing but the number, the queue pair and the status is known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Completion {
    /// The number of the work request.
    pub wr_id: u64,
    /// Whose: the number of the queue pair.
    pub qp_num: u32,
    /// What came of it.
    pub result: Result<Done, Status>,
}

impl Completion {
    /// Fills an array before it is polled into.
    pub(crate) const EMPTY: Self = Self {
        wr_id: 0,
        qp_num: 0,
        result: Err(Status::Flushed),
    };
}

/// What a device reports aside of completions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AsyncEvent {
    /// A completion queue lost entries, or broke: every queue pair at it is lost.
    CqError,
    /// A queue pair broke.
    QpError {
        /// Its number.
        qp_num: u32,
    },
    /// A peer used a key or range that it was not given.
    QpAccess {
        /// The number of the queue pair it came by.
        qp_num: u32,
    },
    /// A queue pair in error takes no more receives from the shared queue.
    LastReceive {
        /// Its number.
        qp_num: u32,
    },
    /// The shared receive queue broke.
    SrqError,
    /// The port is up or down.
    Port {
        /// Whether it is up.
        active: bool,
    },
    /// The device is gone.
    DeviceGone,
    /// Of no concern here.
    Other,
}

/// One opened device: the verbs.
///
/// Calls that make, change or destroy objects are slow and may allocate; `post_*` and `poll_cq` are not and do not.
pub trait VerbsApi {
    /// What the device can do.
    fn limits(&self) -> DeviceLimits;

    /// Where the port is reached.
    fn address(&self) -> Address;

    /// Registers an arena for sends from and receives into it, not for peers' writes. The device keeps it alive.
    ///
    /// # Errors
    ///
    /// [`DeviceError`]; `ENOMEM` where it cannot be locked in memory. Effect: none.
    fn register(&mut self, arena: &Arc<Arena>) -> Result<MrId, DeviceError>;

    /// Registers bytes `offset..offset + len` of one slot for writes by peers.
    ///
    /// # Errors
    ///
    /// [`DeviceError`]. Effect: none.
    ///
    /// # Safety
    ///
    /// The caller holds the slot's `Buf` until `deregister` has succeeded, or until every queue pair whose peer got the key
    /// was reset, and borrows its bytes for no reference meanwhile.
    unsafe fn expose(
        &mut self,
        arena: &Arc<Arena>,
        slot: u32,
        offset: u32,
        len: u32,
    ) -> Result<Permit, DeviceError>;

    /// Ends a registration. No access by it happens after this returned.
    ///
    /// # Errors
    ///
    /// [`DeviceError`]: it may still be in force.
    fn deregister(&mut self, mr: MrId) -> Result<(), DeviceError>;

    /// Makes a completion queue.
    ///
    /// # Errors
    ///
    /// [`DeviceError`]. Effect: none.
    fn create_cq(&mut self, depth: u32) -> Result<CqId, DeviceError>;

    /// Destroys a completion queue whose queue pairs are gone.
    ///
    /// # Errors
    ///
    /// [`DeviceError`]. Effect: none.
    fn destroy_cq(&mut self, cq: CqId) -> Result<(), DeviceError>;

    /// Makes a shared receive queue.
    ///
    /// # Errors
    ///
    /// [`DeviceError`]. Effect: none.
    fn create_srq(&mut self, depth: u32) -> Result<SrqId, DeviceError>;

    /// Destroys a shared receive queue whose queue pairs are gone. What was posted to it is the caller's again.
    ///
    /// # Errors
    ///
    /// [`DeviceError`]. Effect: none.
    fn destroy_srq(&mut self, srq: SrqId) -> Result<(), DeviceError>;

    /// Makes a queue pair, in reset.
    ///
    /// # Errors
    ///
    /// [`DeviceError`], `EINVAL` also for more inline bytes than the device takes. Effect: none.
    fn create_qp(&mut self, options: &QpOptions) -> Result<QpId, DeviceError>;

    /// Destroys a queue pair. What was posted to it is the caller's again.
    ///
    /// # Errors
    ///
    /// [`DeviceError`]. Effect: none.
    fn destroy_qp(&mut self, qp: QpId) -> Result<(), DeviceError>;

    /// The number by which peers and completions name a queue pair.
    fn qp_num(&self, qp: QpId) -> u32;

    /// To reset, from any state. Nothing that was posted to its send queue is touched any more.
    ///
    /// # Errors
    ///
    /// [`DeviceError`]. Effect: none.
    fn reset(&mut self, qp: QpId) -> Result<(), DeviceError>;

    /// From reset to initialised: remote writes are allowed.
    ///
    /// # Errors
    ///
    /// [`DeviceError`]. Effect: none.
    fn initialise(&mut self, qp: QpId) -> Result<(), DeviceError>;

    /// From initialised to ready to receive from `remote`.
    ///
    /// # Errors
    ///
    /// [`DeviceError`], e.g. where there is no route to the peer. Effect: none.
    fn ready_to_receive(&mut self, qp: QpId, remote: &Remote) -> Result<(), DeviceError>;

    /// From ready to receive to ready to send, beginning with packet number `psn`.
    ///
    /// # Errors
    ///
    /// [`DeviceError`]. Effect: none.
    fn ready_to_send(&mut self, qp: QpId, psn: u32, remote: &Remote) -> Result<(), DeviceError>;

    /// To the error state: everything posted is flushed.
    ///
    /// # Errors
    ///
    /// [`DeviceError`]. Effect: none.
    fn fail(&mut self, qp: QpId) -> Result<(), DeviceError>;

    /// Posts receives as one chain.
    ///
    /// # Errors
    ///
    /// [`PostError`]: the first `posted` are posted, the others not.
    ///
    /// # Safety
    ///
    /// The caller holds the `Buf` of each slot until its completion was polled or the queue destroyed, and borrows its bytes
    /// for no reference meanwhile.
    unsafe fn post_recv(&mut self, srq: SrqId, works: &[RecvWork]) -> Result<(), PostError>;

    /// Posts sends as one chain, with one doorbell.
    ///
    /// # Errors
    ///
    /// [`PostError`]: the first `posted` are posted, the others not.
    ///
    /// # Safety
    ///
    /// The caller holds the `Buf` of each slot that is not sent inline until a completion of it or of a later work of the
    /// queue pair was polled, or the pair reset or destroyed, and borrows its bytes for no mutable reference meanwhile.
    unsafe fn post_send(&mut self, qp: QpId, works: &[SendWork]) -> Result<(), PostError>;

    /// Takes completions into `out` from its start, the oldest first; 0 if there is none.
    ///
    /// # Errors
    ///
    /// [`DeviceError`]: the queue is broken.
    fn poll_cq(&mut self, cq: CqId, out: &mut [Completion]) -> Result<usize, DeviceError>;

    /// Has the next completion make [`VerbsApi::wake_fd`] readable, once.
    ///
    /// # Errors
    ///
    /// [`DeviceError`]. Effect: none.
    fn arm_cq(&mut self, cq: CqId) -> Result<(), DeviceError>;

    /// Takes back what made [`VerbsApi::wake_fd`] readable.
    fn quiet(&mut self);

    /// A descriptor that polls readable after a completion of an armed queue; `None` where there is none.
    fn wake_fd(&self) -> Option<RawFd>;

    /// The next report aside of completions. May be a system call.
    fn poll_async(&mut self) -> Option<AsyncEvent>;
}
