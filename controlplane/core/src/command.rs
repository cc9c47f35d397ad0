//! The only way to change the state: commands, each following one version of it.
//!
//! ```text
//! version u8 | follows u64 | at_us u64 | action u8 | fields of the action
//! ```
//! A command says everything that its change depends on, so that every controller that applies the same commands to the same
//! state has the same bytes afterwards. It comes from a log or a peer and is not trusted: counts and lengths are bounded, and
//! [`State::apply`](crate::State::apply) refuses what does not fit.

use ionian_types::{
    ClusterId, Gsn, GuardEpoch, Inc, LogId, Nanos, NodeId, RootEpoch, SEGMENTS_PER_SHARD_MAX,
    ShardId, Slot, ViewId,
};
use ionian_wire::directory::{ADDRESS_BYTES_MAX, LOG_NAME_BYTES_MAX, SHARDS_PER_LOG_MAX};
use ionian_wire::entry::Changes;
use ionian_wire::grant::Rights;
use ionian_wire::tree::TREE_VERTICES_MAX;
use ionian_wire::{Reader, WireError};

use crate::codec::{Encoder, count, key, range, text};
use crate::decision::{What, Why};
use crate::detection::{OBSERVERS_MAX, Standing};
use crate::group::RootQuorum;
use crate::history;
use crate::keys::{KeyBytes, key_bytes};
use crate::operation::Operation;
use crate::shape::TreeSpec;
use crate::spec::LogSpec;
use crate::state::PlaceKey;
use crate::transaction::{Task, decode_tasks, encode_tasks};
use crate::tree::{put_shape, take_shape};
use crate::users::{rights, user_name};
use crate::{COMMAND_BYTES_MAX, HISTORY_KEPT, INTENT_BYTES_MAX, ROOT_MEMBERS_MAX};

/// The version of the encoding that this build writes.
const VERSION: u8 = 1;

/// One change of the state.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Command {
    /// The version of the state that it changes; it makes the next one.
    pub(crate) follows: u64,
    /// When it was decided, in microseconds since 1970; 0 where there is no clock.
    pub(crate) at_us: u64,
    pub(crate) action: Action,
}

/// What a command does.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Action {
    /// The cluster gets its name. The first command of all.
    Found { cluster: ClusterId },
    /// A node is added or changed.
    SetNode {
        node: NodeId,
        domain: u32,
        address: String,
    },
    /// A log is added.
    CreateLog { log: LogId, spec: LogSpec },
    /// A process takes its place under an incarnation.
    Admit {
        place: PlaceKey,
        node: NodeId,
        inc: Inc,
        has_data: bool,
        address: String,
    },
    /// A process is there, or not, for the map.
    Show { place: PlaceKey, up: bool },
    /// A view is to be logged.
    Propose {
        log: LogId,
        view: ViewId,
        changes: Vec<u8>,
        /// The decisions behind it, at most [`HISTORY_KEPT`].
        decisions: Vec<(What, Why)>,
    },
    /// The root reported the pending view as logged.
    Logged { log: LogId, view: ViewId },
    /// Positions below are reserved.
    Reserve { log: LogId, ceiling: Gsn },
    /// The leaf reported a shard as whole; the bits of `held` say which members hold everything.
    Whole {
        log: LogId,
        shard: ShardId,
        held: u8,
    },
    /// This life of a replica, or of one that copies, holds every record of its shard, which has ended. One that copied has
    /// the place from now on.
    Hold { place: PlaceKey, inc: Inc },
    /// The device of a process is known to name its incarnation.
    Confirm { place: PlaceKey, inc: Inc },
    /// The next root epoch is issued, and the members are asked to promise it.
    Seal {
        log: LogId,
        epoch: RootEpoch,
        why: Why,
    },
    /// Enough members have promised it, those whose bit is set; this one leads.
    Name {
        log: LogId,
        epoch: RootEpoch,
        leader: Slot,
        sealed: u8,
    },
    /// The leader has committed the epoch's entry.
    Record { log: LogId, epoch: RootEpoch },
    /// A transaction begins, with the first of its tasks.
    Begin {
        operation: Operation,
        tasks: Vec<Task>,
    },
    /// The present task of a transaction is done, or cannot come about any more.
    Advance { transaction: u64 },
    /// A transaction is given up.
    Cancel { transaction: u64 },
    /// The cluster gets a user.
    AddUser { user: String },
    /// A user is one no more.
    RevokeUser { user: String },
    /// What a user may do with a log, in place of what it could do before.
    Permit {
        log: LogId,
        user: String,
        rights: Rights,
    },
    /// A new epoch of keys begins, and that before the last one ends.
    TurnKeys { epoch: GuardEpoch, key: KeyBytes },
    /// The process of a node was found dead; or it was, and the decision waits, as the history is to say.
    Bury {
        node: NodeId,
        silent: Nanos,
        said_by: Vec<NodeId>,
        reached: u8,
        standing: Standing,
        waits: bool,
    },
    /// A node that was cut off is tried again.
    Readmit { node: NodeId },
}

impl Command {
    /// The version of the state that the command changes.
    #[must_use]
    pub const fn follows(&self) -> u64 {
        self.follows
    }

    /// The bytes to replicate.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Encoder(Vec::with_capacity(64));
        out.put(VERSION);
        out.put(self.follows);
        out.put(self.at_us);
        self.action.encode(&mut out);
        out.0
    }

    /// Reads a command.
    ///
    /// # Errors
    /// [`WireError`] when the bytes are not a command of a version that this build knows; effect none.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        if bytes.len() > COMMAND_BYTES_MAX {
            return Err(range("command bytes", bytes.len() as u64));
        }
        let mut reader = Reader::new(bytes);
        let found: u8 = reader.field()?;
        if found != VERSION {
            return Err(WireError::Version {
                found: u16::from(found),
                known: u16::from(VERSION),
            });
        }
        let command = Self {
            follows: reader.field()?,
            at_us: reader.field()?,
            action: Action::decode(&mut reader)?,
        };
        if reader.is_empty() {
            Ok(command)
        } else {
            Err(range("command tail bytes", reader.rest().len() as u64))
        }
    }
}

impl Action {
    fn encode(&self, out: &mut Encoder) {
        match self {
            Self::Found { cluster } => {
                out.put(1u8);
                out.put(*cluster);
            }
            Self::SetNode {
                node,
                domain,
                address,
            } => {
                out.put(2u8);
                out.put(*node);
                out.put(*domain);
                out.bytes(address.as_bytes());
            }
            Self::CreateLog { log, spec } => {
                out.put(3u8);
                out.put(*log);
                encode_spec(out, spec);
            }
            Self::Admit {
                place,
                node,
                inc,
                has_data,
                address,
            } => {
                out.put(4u8);
                out.key(*place);
                out.put(*node);
                out.put(*inc);
                out.put(*has_data);
                out.bytes(address.as_bytes());
            }
            Self::Show { place, up } => {
                out.put(5u8);
                out.key(*place);
                out.put(*up);
            }
            Self::Propose {
                log,
                view,
                changes,
                decisions,
            } => {
                out.put(6u8);
                out.put(*log);
                out.put(*view);
                out.bytes(changes);
                out.put(decisions.len() as u32);
                for (what, why) in decisions {
                    history::encode(out, what, *why);
                }
            }
            Self::Logged { log, view } => {
                out.put(7u8);
                out.put(*log);
                out.put(*view);
            }
            Self::Reserve { log, ceiling } => {
                out.put(8u8);
                out.put(*log);
                out.put(*ceiling);
            }
            Self::Whole { log, shard, held } => {
                out.put(9u8);
                out.put(*log);
                out.put(*shard);
                out.put(*held);
            }
            Self::Confirm { place, inc } => {
                out.put(10u8);
                out.key(*place);
                out.put(*inc);
            }
            Self::Seal { log, epoch, why } => {
                out.put(11u8);
                out.put(*log);
                out.put(*epoch);
                out.put(why.code());
            }
            Self::Name {
                log,
                epoch,
                leader,
                sealed,
            } => {
                out.put(12u8);
                out.put(*log);
                out.put(*epoch);
                out.put(*leader);
                out.put(*sealed);
            }
            Self::Begin { operation, tasks } => {
                out.put(14u8);
                operation.encode(out);
                encode_tasks(out, tasks);
            }
            Self::Advance { transaction } => {
                out.put(15u8);
                out.put(*transaction);
            }
            Self::Cancel { transaction } => {
                out.put(16u8);
                out.put(*transaction);
            }
            Self::Record { log, epoch } => {
                out.put(13u8);
                out.put(*log);
                out.put(*epoch);
            }
            Self::AddUser { user } => {
                out.put(20u8);
                out.bytes(user.as_bytes());
            }
            Self::RevokeUser { user } => {
                out.put(21u8);
                out.bytes(user.as_bytes());
            }
            Self::Permit { log, user, rights } => {
                out.put(22u8);
                out.put(*log);
                out.bytes(user.as_bytes());
                out.put(rights.bits());
            }
            Self::TurnKeys { epoch, key } => {
                out.put(23u8);
                out.put(*epoch);
                out.0.extend_from_slice(&key.0);
            }
            Self::Hold { place, inc } => {
                out.put(42u8);
                out.key(*place);
                out.put(*inc);
            }
            Self::Bury {
                node,
                silent,
                said_by,
                reached,
                standing,
                waits,
            } => {
                out.put(40u8);
                out.put(*node);
                out.put(silent.0);
                out.nodes(said_by);
                out.put(*reached);
                out.put(standing.code());
                out.put(*waits);
            }
            Self::Readmit { node } => {
                out.put(41u8);
                out.put(*node);
            }
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let tag: u8 = reader.field()?;
        Ok(match tag {
            1 => Self::Found {
                cluster: reader.field()?,
            },
            2 => Self::SetNode {
                node: reader.field()?,
                domain: reader.field()?,
                address: address(reader)?,
            },
            3 => Self::CreateLog {
                log: reader.field()?,
                spec: decode_spec(reader)?,
            },
            4 => Self::Admit {
                place: key(reader)?,
                node: reader.field()?,
                inc: reader.field()?,
                has_data: reader.field()?,
                address: address(reader)?,
            },
            5 => Self::Show {
                place: key(reader)?,
                up: reader.field()?,
            },
            6 => Self::Propose {
                log: reader.field()?,
                view: reader.field()?,
                changes: changes(reader)?,
                decisions: decisions(reader)?,
            },
            7 => Self::Logged {
                log: reader.field()?,
                view: reader.field()?,
            },
            8 => Self::Reserve {
                log: reader.field()?,
                ceiling: reader.field()?,
            },
            9 => Self::Whole {
                log: reader.field()?,
                shard: reader.field()?,
                held: reader.field()?,
            },
            10 => Self::Confirm {
                place: key(reader)?,
                inc: reader.field()?,
            },
            11 => Self::Seal {
                log: reader.field()?,
                epoch: reader.field()?,
                why: history::why(reader)?,
            },
            12 => Self::Name {
                log: reader.field()?,
                epoch: reader.field()?,
                leader: reader.field()?,
                sealed: reader.field()?,
            },
            13 => Self::Record {
                log: reader.field()?,
                epoch: reader.field()?,
            },
            14 => Self::Begin {
                operation: Operation::decode(reader)?,
                tasks: decode_tasks(reader)?,
            },
            15 => Self::Advance {
                transaction: reader.field()?,
            },
            16 => Self::Cancel {
                transaction: reader.field()?,
            },
            20 => Self::AddUser {
                user: user_name(reader)?,
            },
            21 => Self::RevokeUser {
                user: user_name(reader)?,
            },
            22 => Self::Permit {
                log: reader.field()?,
                user: user_name(reader)?,
                rights: rights(reader)?,
            },
            23 => Self::TurnKeys {
                epoch: reader.field()?,
                key: key_bytes(reader)?,
            },
            40 => Self::Bury {
                node: reader.field()?,
                silent: Nanos(reader.field()?),
                said_by: nodes(reader, OBSERVERS_MAX)?,
                reached: reader.field()?,
                standing: standing(reader)?,
                waits: reader.field()?,
            },
            41 => Self::Readmit {
                node: reader.field()?,
            },
            42 => Self::Hold {
                place: key(reader)?,
                inc: reader.field()?,
            },
            tag => return Err(range("kind of command", u64::from(tag))),
        })
    }
}

fn standing(reader: &mut Reader<'_>) -> Result<Standing, WireError> {
    let code: u8 = reader.field()?;
    Standing::from_code(code).ok_or_else(|| range("standing of a process", u64::from(code)))
}

pub(crate) fn encode_spec(out: &mut Encoder, spec: &LogSpec) {
    out.bytes(spec.name.as_bytes());
    out.put(spec.mode);
    out.put(spec.class);
    out.nodes(&spec.root);
    out.put(spec.root_quorum.code());
    encode_tree(out, &spec.tree);
    out.put(spec.quorum.unwrap_or(0));
    out.put(spec.shards.len() as u32);
    spec.shards.iter().for_each(|members| out.nodes(members));
}

pub(crate) fn decode_spec(reader: &mut Reader<'_>) -> Result<LogSpec, WireError> {
    let name = text(reader)?;
    if name.len() > LOG_NAME_BYTES_MAX {
        return Err(range("log name bytes", name.len() as u64));
    }
    let mode = reader.field()?;
    let class = reader.field()?;
    let root = nodes(reader, ROOT_MEMBERS_MAX)?;
    let root_quorum = RootQuorum::decode(reader)?;
    let tree = decode_tree(reader)?;
    let quorum: u8 = reader.field()?;
    let mut shards = Vec::new();
    for _ in 0..count(reader, SHARDS_PER_LOG_MAX, "shards")? {
        shards.push(nodes(reader, SEGMENTS_PER_SHARD_MAX)?);
    }
    Ok(LogSpec {
        name,
        mode,
        class,
        root,
        root_quorum,
        tree,
        quorum: (quorum > 0).then_some(quorum),
        shards,
    })
}

/// One leaf is its node; any other tree follows after no node.
fn encode_tree(out: &mut Encoder, tree: &TreeSpec) {
    if let ([node], true) = (&tree.nodes[..], tree.shape.len() == 1) {
        out.put(*node);
        return;
    }
    out.put(NodeId::MAX);
    out.put(tree.nodes.len().min(tree.shape.len()) as u32);
    for (shape, node) in tree.shape.iter().zip(&tree.nodes) {
        put_shape(out, shape);
        out.put(*node);
    }
}

fn decode_tree(reader: &mut Reader<'_>) -> Result<TreeSpec, WireError> {
    let leaf: NodeId = reader.field()?;
    if leaf != NodeId::MAX {
        return Ok(TreeSpec::leaf(leaf));
    }
    let (mut shape, mut nodes) = (Vec::new(), Vec::new());
    for _ in 0..count(reader, TREE_VERTICES_MAX, "tree vertices")? {
        shape.push(take_shape(reader)?);
        nodes.push(reader.field()?);
    }
    Ok(TreeSpec { shape, nodes })
}

pub(crate) fn nodes(reader: &mut Reader<'_>, max: usize) -> Result<Vec<NodeId>, WireError> {
    let members: u8 = reader.field()?;
    if usize::from(members) > max {
        return Err(range("members", u64::from(members)));
    }
    (0..members).map(|_| reader.field()).collect()
}

fn address(reader: &mut Reader<'_>) -> Result<String, WireError> {
    let address = text(reader)?;
    if address.len() > ADDRESS_BYTES_MAX {
        return Err(range("address bytes", address.len() as u64));
    }
    Ok(address)
}

/// The changes of a view, each readable.
pub(crate) fn changes(reader: &mut Reader<'_>) -> Result<Vec<u8>, WireError> {
    let len = count(reader, INTENT_BYTES_MAX, "intent bytes")?;
    let changes = reader.bytes(len)?;
    Changes::check(changes)?;
    Ok(changes.to_vec())
}

fn decisions(reader: &mut Reader<'_>) -> Result<Vec<(What, Why)>, WireError> {
    let count = count(reader, HISTORY_KEPT, "decisions")?;
    (0..count).map(|_| history::decode(reader)).collect()
}
