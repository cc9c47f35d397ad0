//! RDMA fabric: reliable connections and one-sided writes over the verbs.
//!
//! [`VerbsFabric`] carries the [`Fabric`](ionian_driver_api::Fabric) and [`OneSided`](ionian_driver_api::OneSided) contracts
//! over queue pairs of type RC. It is generic over [`VerbsApi`], the two dozen calls that it makes: the real ones are behind
//! the feature `rdma`, and [`MockNet`] models them for tests, more strictly than hardware behaves.
//!
//! # How bytes travel
//!
//! A message is sent from its pool's slot and received into a slot of the peer's: no byte is copied by the CPU. What the
//! fabric must know of it (its kind, credits given back) is in the 32 bits of immediate data, see `control`. All connections
//! share one receive queue; each peer has credits for its part of it, and gets one back only when a slot was posted in place
//! of the one it used. So the receive queue never runs dry between correct peers, and a slow one holds only its own part.
//! Sends of one connection wait for `flush`, which posts them as one chain: one doorbell. A completion is asked for once in
//! `signal_every` sends, and at the end of a chain that holds buffers.
//!
//! A one-sided write is one WRITE WITH IMMEDIATE where its event fits 16 bits and it begins where its region's rights do (a
//! report slot, a mailbox), and otherwise a WRITE followed by a SEND that describes it: one doorbell in both cases.
//!
//! # Safety model
//!
//! A device writes only into memory that was registered: the arena of one pool, which the device keeps alive. A slot of it is
//! the device's from the moment its [`Buf`](ionian_driver_api::Buf) is posted or exposed until its completion was polled,
//! its region deregistered, or its queue pair reset; the fabric owns the handle meanwhile, so nobody can borrow the bytes.
//! Exposed bytes are only ever copied out. Keys of regions are no secret, and every queue pair of a device shares one
//! protection domain: a peer that guesses the key of another's region could write there. What lands is therefore accepted
//! only after the checks of the layers above (token, epoch, sequence, checksum).
//!
//! Fault model: a peer's bytes, lengths, immediate data and keys are untrusted, and end its connection where no correct peer
//! sends them. Any error of a queue pair ends its connection: the pair is moved to the error state, drained until every send
//! has come back, and reset; only then does it serve another connection, under a new epoch. An error of a completion queue
//! ends all connections, and the queues are made anew.

mod api;
mod control;
mod counts;
mod edge;
mod fabric;
mod handshake;
mod mock;
mod options;
#[cfg(feature = "rdma")]
mod rdma;

pub use api::{
    Address, AsyncEvent, Completion, CqId, Data, DeviceError, DeviceLimits, Done, DoneKind, MrId,
    Permit, PostError, QpId, QpOptions, RecvWork, Remote, RemoteBytes, SendOp, SendWork, SrqId,
    Status, VerbsApi,
};
pub use counts::VerbsCounts;
pub use edge::{Edge, EdgeCounts, EdgeError, EdgeEvent, EdgeOptions, SetupError};
pub use fabric::{Endpoint, EstablishError, ReserveError, Ticket, VerbsFabric};
pub use handshake::{
    FRAME_BYTES_MAX, Handshake, HandshakeError, Hello, Progress, Refusal, SetupGrant,
};
pub use mock::{MockCounts, MockDevice, MockFaults, MockLimits, MockNet};
pub use options::{VerbsOpenError, VerbsOptions};
#[cfg(feature = "rdma")]
pub use rdma::{DeviceOptions, RdmaDevice, RdmaOpenError};
