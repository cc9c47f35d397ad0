//! Decisions as values: what the directory did, and why. Kept for the status, newest last.

use core::fmt;

use ionian_types::{Gsn, Inc, LogId, NodeId, RootEpoch, SegmentId, ShardId, Time, ViewId};
use ionian_wire::grant::Rights;

/// A decision.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Decision {
    /// When, by the edge's clock.
    pub at: Time,
    /// What was done.
    pub what: What,
    /// Why.
    pub why: Why,
}

/// What was done.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum What {
    /// A log was created.
    CreateLog {
        /// The log.
        log: LogId,
        /// Its name.
        name: String,
    },
    /// A registration was accepted.
    Admit {
        /// The log.
        log: LogId,
        /// The role, for people: `root`, `leaf`, `replica 0.1`.
        place: String,
        /// The node.
        node: NodeId,
        /// The incarnation issued.
        inc: Inc,
    },
    /// A registration was refused.
    Refuse {
        /// The log that it named.
        log: LogId,
        /// The node.
        node: NodeId,
        /// The sentence of the refusal.
        refusal: String,
    },
    /// A root got an epoch and positions.
    Grant {
        /// The log.
        log: LogId,
        /// The epoch.
        epoch: RootEpoch,
        /// Positions below may be used.
        ceiling: Gsn,
    },
    /// A view that opens a shard.
    Open {
        /// The log.
        log: LogId,
        /// The shard.
        shard: ShardId,
        /// The view.
        view: ViewId,
    },
    /// A view that ends a shard for good.
    Finalize {
        /// The log.
        log: LogId,
        /// The shard.
        shard: ShardId,
        /// The view.
        view: ViewId,
    },
    /// A view that declares a shard's records lost and opens it anew.
    DeclareLost {
        /// The log.
        log: LogId,
        /// The shard.
        shard: ShardId,
        /// The view.
        view: ViewId,
    },
    /// A view that closes a segment's generation and opens the next.
    NewLife {
        /// The log.
        log: LogId,
        /// The segment.
        segment: SegmentId,
        /// The view.
        view: ViewId,
        /// The next writer.
        inc: Inc,
    },
    /// A view that has the ordering tree.
    Tree {
        /// The log.
        log: LogId,
        /// The view.
        view: ViewId,
        /// How many vertices it has.
        vertices: u32,
    },
    /// All positions up to the ceiling are given up with the cut log.
    ForgetCutLog {
        /// The log.
        log: LogId,
        /// The first position that may still be used.
        floor: Gsn,
    },
    /// A view is logged.
    Logged {
        /// The log.
        log: LogId,
        /// The view.
        view: ViewId,
    },
    /// A process is shown as down.
    Down {
        /// The log.
        log: LogId,
        /// The role, for people.
        place: String,
        /// The node.
        node: NodeId,
    },
    /// The members of a root group are asked to promise an epoch.
    Seal {
        /// The log.
        log: LogId,
        /// The epoch.
        epoch: RootEpoch,
    },
    /// A member of a root group is named leader of an epoch.
    Lead {
        /// The log.
        log: LogId,
        /// The epoch.
        epoch: RootEpoch,
        /// The member, for people.
        place: String,
        /// Its node.
        node: NodeId,
        /// Its incarnation.
        inc: Inc,
    },
    /// A leader has committed the entry of its epoch.
    Led {
        /// The log.
        log: LogId,
        /// The epoch.
        epoch: RootEpoch,
    },
    /// What a user may do with the log has changed.
    Permit {
        /// The log.
        log: LogId,
        /// The user.
        user: String,
        /// Its rights from now on.
        rights: Rights,
    },
    /// A process is dead, or would count as such.
    Dead {
        /// The log.
        log: LogId,
        /// Its node.
        node: NodeId,
        /// What it has of the log, for people.
        places: String,
        /// Who said so, for people.
        evidence: String,
    },
    /// A process is cut off, or would count as such.
    CutOff {
        /// The log.
        log: LogId,
        /// Its node.
        node: NodeId,
        /// What it has of the log, for people.
        places: String,
        /// Who said so, for people.
        evidence: String,
    },
    /// A view that closes a segment's generation; nobody writes the segment from then on.
    Shut {
        /// The log.
        log: LogId,
        /// The segment.
        segment: SegmentId,
        /// The view.
        view: ViewId,
    },
    /// A replica of a shard that has ended is another one from now on.
    TakeOver {
        /// The log.
        log: LogId,
        /// The replica, for people.
        place: String,
        /// Its node.
        node: NodeId,
        /// Its incarnation.
        inc: Inc,
    },
    /// A report was set aside.
    Ignore {
        /// The log.
        log: LogId,
        /// The view that it names.
        view: ViewId,
    },
}

/// Why it was done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Why {
    /// The operator asked for it.
    Asked,
    /// A process registered.
    Registered,
    /// All members of the shard registered.
    MembersRegistered,
    /// The root came back without its cut log.
    CutLogLost,
    /// All members lost their memory since the shard was last whole.
    NoCopyLeft,
    /// The rules of registration do not allow it.
    Rule,
    /// Positions run short.
    CeilingNear,
    /// The root reported it.
    RootReport,
    /// Its connection was lost and did not come back in time.
    ConnectionLost,
    /// The leader of the root group is gone.
    LeaderGone,
    /// The leader of the root group says that too few members answer it.
    LeaderAlone,
    /// A member of the root group is back, or gone.
    MemberChanged,
    /// Its log reaches furthest among those that promised the epoch.
    FurthestLog,
    /// The root knows a view that was never issued here: the directory's state is older than the cluster.
    NeverIssued,
    /// Those who would hear the process do not.
    Silent,
    /// As many deaths were decided within a minute as may be.
    Budget,
    /// The process that wrote is dead.
    WriterDead,
    /// Fewer replicas are left than must hold a record.
    TooFewLeft,
    /// It said that it holds every record.
    CopyWhole,
}

impl What {
    /// The view that it made, or is about.
    #[must_use]
    pub const fn view(&self) -> Option<ViewId> {
        match self {
            Self::Open { view, .. }
            | Self::Finalize { view, .. }
            | Self::DeclareLost { view, .. }
            | Self::NewLife { view, .. }
            | Self::Tree { view, .. }
            | Self::Shut { view, .. }
            | Self::Logged { view, .. }
            | Self::Ignore { view, .. } => Some(*view),
            _ => None,
        }
    }
}

impl Why {
    const ALL: [Self; 19] = [
        Self::Asked,
        Self::Registered,
        Self::MembersRegistered,
        Self::CutLogLost,
        Self::NoCopyLeft,
        Self::Rule,
        Self::CeilingNear,
        Self::RootReport,
        Self::ConnectionLost,
        Self::NeverIssued,
        Self::LeaderGone,
        Self::MemberChanged,
        Self::FurthestLog,
        Self::Silent,
        Self::Budget,
        Self::WriterDead,
        Self::TooFewLeft,
        Self::LeaderAlone,
        Self::CopyWhole,
    ];

    /// Its number in the history.
    pub(crate) fn code(self) -> u8 {
        let at = Self::ALL.iter().position(|why| *why == self);
        at.map_or(0, |at| at as u8 + 1)
    }

    pub(crate) fn from_code(code: u8) -> Option<Self> {
        Self::ALL.get(usize::from(code).checked_sub(1)?).copied()
    }
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.why)
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CreateLog { log, name } => write!(f, "create log {log} ({name})"),
            Self::Admit {
                log,
                place,
                node,
                inc,
            } => {
                write!(
                    f,
                    "log {log}: admit {place} on node {node} as incarnation {inc}"
                )
            }
            Self::Refuse { log, node, refusal } => {
                write!(f, "log {log}: refuse node {node} ({refusal})")
            }
            Self::Grant {
                log,
                epoch,
                ceiling,
            } => {
                write!(
                    f,
                    "log {log}: grant root epoch {epoch}, positions below {ceiling}"
                )
            }
            Self::Open { log, shard, view } => {
                write!(f, "log {log}: open shard {shard} in view {view}")
            }
            Self::Finalize { log, shard, view } => {
                write!(f, "log {log}: finalize shard {shard} in view {view}")
            }
            Self::DeclareLost { log, shard, view } => {
                write!(
                    f,
                    "log {log}: declare the records of shard {shard} lost and open it anew in view {view}"
                )
            }
            Self::NewLife {
                log,
                segment,
                view,
                inc,
            } => {
                write!(
                    f,
                    "log {log}: segment {segment} goes to incarnation {inc} in view {view}"
                )
            }
            Self::Tree {
                log,
                view,
                vertices,
            } => match vertices {
                1 => write!(f, "log {log}: the tree is one leaf in view {view}"),
                _ => write!(
                    f,
                    "log {log}: the tree has {vertices} vertices in view {view}"
                ),
            },
            Self::ForgetCutLog { log, floor } => {
                write!(f, "log {log}: give up every position below {floor}")
            }
            Self::Logged { log, view } => write!(f, "log {log}: view {view} is logged"),
            Self::Down { log, place, node } => {
                write!(f, "log {log}: show {place} on node {node} as down")
            }
            Self::Seal { log, epoch } => write!(f, "log {log}: seal root epoch {epoch}"),
            Self::Lead {
                log,
                epoch,
                place,
                node,
                inc,
            } => write!(
                f,
                "log {log}: {place} on node {node} leads root epoch {epoch} as incarnation {inc}"
            ),
            Self::Led { log, epoch } => write!(f, "log {log}: root epoch {epoch} is committed"),
            Self::Permit { log, user, rights } => match *rights {
                Rights::NONE => write!(f, "log {log}: take every right from user {user}"),
                rights => write!(f, "log {log}: grant {rights} to user {user}"),
            },
            Self::Dead {
                log,
                node,
                places,
                evidence,
            } => write!(f, "log {log}: node {node} is dead ({places}): {evidence}"),
            Self::CutOff {
                log,
                node,
                places,
                evidence,
            } => write!(
                f,
                "log {log}: node {node} is cut off ({places}): {evidence}"
            ),
            Self::Shut { log, segment, view } => {
                write!(
                    f,
                    "log {log}: nobody writes segment {segment} from view {view} on"
                )
            }
            Self::TakeOver {
                log,
                place,
                node,
                inc,
            } => write!(
                f,
                "log {log}: {place} is on node {node} as incarnation {inc}"
            ),
            Self::Ignore { log, view } => write!(f, "log {log}: ignore a report of view {view}"),
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Asked => "the operator asked for it",
            Self::Registered => "the process registered",
            Self::MembersRegistered => "all of its members registered",
            Self::CutLogLost => "the root came back without its cut log",
            Self::NoCopyLeft => "every member lost its memory since the shard was last whole",
            Self::Rule => "a rule of registration",
            Self::CeilingNear => "reserved positions run short",
            Self::RootReport => "the root reported it",
            Self::ConnectionLost => "its connection was lost and did not come back in time",
            Self::LeaderGone => "the leader of the root group is gone",
            Self::LeaderAlone => "too few members answer the leader of the root group",
            Self::MemberChanged => "a member of the root group is back, or gone",
            Self::FurthestLog => "its log reaches furthest among those that promised the epoch",
            Self::Silent => "most of those that would hear it do not, and none does",
            Self::Budget => "it waits: as many deaths were decided within a minute as may be",
            Self::WriterDead => "the process that wrote it is dead",
            Self::TooFewLeft => "fewer replicas are left than must hold a record",
            Self::CopyWhole => "it holds every record now",
            Self::NeverIssued => {
                "it was never issued here; the directory's state is older than the cluster"
            }
        })
    }
}
