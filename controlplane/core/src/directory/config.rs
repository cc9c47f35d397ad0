//! How a directory behaves in time.

use ionian_types::{Nanos, NodeId};

use crate::detection::DetectionConfig;

/// How a directory behaves in time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DirectoryConfig {
    /// The controller's own node, as it says in its hello.
    pub node: NodeId,
    /// An intent that is not reported as logged is sent again after this long.
    pub resend_after: Nanos,
    /// A process whose connection is lost is shown as down after this long.
    pub down_after: Nanos,
    /// A member of a root group whose connection is lost counts as gone after this long, and another one leads. Shorter means
    /// shorter pauses when a leader dies, and more changes of leader when connections break.
    pub failover_after: Nanos,
    /// A registration over a connection that its process seems to have given up is taken after this long, if the connection
    /// is still there: longer than an edge needs to find out that a peer is gone.
    pub late_after: Nanos,
    /// A user's client asks for its grants again after this long, and so learns of changed rights and keys. Nodes hear of a
    /// change at once.
    pub grant_lease: Nanos,
    /// A new epoch of grants begins after so many microseconds; what was made in one is good until the end of the next.
    pub key_life_us: u64,
    /// How deaths are found; not at all without it.
    pub detection: Option<DetectionConfig>,
    /// Changes are made durable as [commands](crate::Directory::take_commands) by a group of controllers, rather than as
    /// [snapshots](crate::Directory::take_snapshot).
    pub replicated: bool,
}

impl Default for DirectoryConfig {
    fn default() -> Self {
        Self {
            node: NodeId::ZERO,
            resend_after: Nanos::from_ms(200),
            down_after: Nanos::from_ms(1000),
            failover_after: Nanos::from_ms(100),
            late_after: Nanos::from_ms(5000),
            grant_lease: Nanos::from_ms(5000),
            key_life_us: 3_600_000_000,
            detection: None,
            replicated: false,
        }
    }
}
