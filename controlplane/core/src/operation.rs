//! What an operator asks of a controller, and the answer: values and their bytes.
//!
//! ```text
//! request: version u8 | plan bool | operation u8 | fields
//! answer:  version u8 | refused bool | transaction u64 | text | details u8 | fields
//! ```

use ionian_types::{LogId, NodeId, ShardId, Slot, VertexId};
use ionian_wire::directory::ROOT_MEMBERS_MAX;
use ionian_wire::grant::Rights;
use ionian_wire::{Reader, WireError};

use crate::HISTORY_KEPT;
use crate::codec::{Encoder, count, range, text};
use crate::command::{decode_spec, encode_spec, nodes};
use crate::desk::UserGrants;
use crate::history::Event;
use crate::picture::{ClusterPicture, TransactionPicture, UserPicture, codec};
use crate::spec::LogSpec;
use crate::users::{rights, user_name};

/// Version 1 had no details, version 2 no reasons of transactions that failed, version 3 one leaf in place of a tree.
const VERSION: u8 = 4;

/// A change of the cluster, or a question about one.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Operation {
    /// Create a log.
    CreateLog(LogSpec),
    /// Finalize all shards of a log, then remove it.
    DeleteLog {
        /// The log.
        log: LogId,
    },
    /// Open one more shard.
    AddShard {
        /// The log.
        log: LogId,
        /// Its nodes in slot order; none leaves the choice to the controller, which takes as many as the first shard has.
        nodes: Vec<NodeId>,
    },
    /// End a shard for good. Its records stay readable.
    FinalizeShard {
        /// The log.
        log: LogId,
        /// The shard.
        shard: ShardId,
        /// Open another one in its place first.
        successor: bool,
    },
    /// Change the members of a root group.
    SetRoot {
        /// The log.
        log: LogId,
        /// Its members in slot order. A node keeps its slot.
        nodes: Vec<NodeId>,
    },
    /// Let another member of the root group lead.
    MoveLeader {
        /// The log.
        log: LogId,
        /// The member.
        slot: Slot,
    },
    /// Let a vertex of the ordering tree run on another node.
    MoveVertex {
        /// The log.
        log: LogId,
        /// The vertex.
        vertex: VertexId,
        /// The node.
        node: NodeId,
    },
    /// Give a log an ordering tree of another form: see [`balanced`](crate::balanced).
    SetTree {
        /// The log.
        log: LogId,
        /// The most vertices or shards right below one vertex, and below the root.
        fan_in: u16,
        /// The levels below the root; none for as few as it takes.
        depth: Option<u8>,
    },
    /// Let another node take a replica's place: in a log of which a part of the replicas is enough, or of a shard that has
    /// ended. The new one has all records first.
    ReplaceReplica {
        /// The log.
        log: LogId,
        /// The shard.
        shard: ShardId,
        /// The replica.
        slot: Slot,
        /// The node that takes its place.
        node: NodeId,
    },
    /// Move everything off a node, and place nothing new there.
    DrainNode {
        /// The node.
        node: NodeId,
    },
    /// Place new things on a node again.
    UndrainNode {
        /// The node.
        node: NodeId,
    },
    /// Give a transaction up, where that is safe. A node that it was draining takes new places again.
    Cancel {
        /// Its number.
        transaction: u64,
    },
    /// List the transactions.
    List,
    /// Let another node take every place of a node, and place nothing new on the first.
    ReplaceNode {
        /// The node.
        node: NodeId,
        /// The one that takes over.
        with: NodeId,
    },
    /// Show the cluster.
    Describe {
        /// The name of the only log to show; empty for all.
        log: String,
    },
    /// Tell what became of a log's views, and why.
    History {
        /// The log's name.
        log: String,
    },
    /// Let the owner of a certificate of this name be a user. It has no rights yet.
    AddUser {
        /// The name.
        user: String,
    },
    /// Take every right from a user, and forget it. Its grants are void.
    RevokeUser {
        /// The name.
        user: String,
    },
    /// Say what a user may do with a log, in place of what it could do before.
    GrantLog {
        /// The log.
        log: LogId,
        /// The user.
        user: String,
        /// Its rights; none takes all away.
        rights: Rights,
    },
    /// List the users and their rights.
    ListUsers,
    /// Give the user who asks what it opens sessions with.
    OpenSessions {
        /// The log's name.
        log: String,
    },
}

/// A request of an operator.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Operate {
    /// Say what would be done, and do nothing.
    pub plan: bool,
    /// What to do.
    pub operation: Operation,
}

/// The answer to an [`Operate`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Operated {
    /// Whether it was refused. Effect then: none.
    pub refused: bool,
    /// The transaction that does it; 0 when there is none.
    pub transaction: u64,
    /// A line per step, or the reason of the refusal.
    pub text: String,
    /// What was asked for; with a plan, what it would lead to.
    pub details: Details,
}

/// What an answer shows.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum Details {
    /// Nothing.
    #[default]
    None,
    /// The cluster, or a part of it: of [`Operation::Describe`], and of a plan the logs that it touches, as they would be.
    Cluster(ClusterPicture),
    /// The events of a log's history, oldest first.
    History(Vec<Event>),
    /// The transactions that run, and the last of those that do not, by rising number.
    Transactions(Vec<TransactionPicture>),
    /// The users, by name; with a plan, as they would be.
    Users(Vec<UserPicture>),
    /// The grants of the user who asked.
    Grants(UserGrants),
}

impl Operate {
    /// The bytes of the request.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Encoder(Vec::new());
        out.put(VERSION);
        out.put(self.plan);
        self.operation.encode(&mut out);
        out.0
    }

    /// Reads a request.
    ///
    /// # Errors
    /// [`WireError`]; effect none.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(bytes);
        known_version(&mut reader)?;
        let request = Self {
            plan: reader.field()?,
            operation: Operation::decode(&mut reader)?,
        };
        ended(&reader)?;
        Ok(request)
    }
}

impl Operated {
    /// The bytes of the answer.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Encoder(Vec::new());
        out.put(VERSION);
        out.put(self.refused);
        out.put(self.transaction);
        out.bytes(self.text.as_bytes());
        self.details.encode(&mut out);
        out.0
    }

    /// Reads an answer.
    ///
    /// # Errors
    /// [`WireError`]; effect none.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(bytes);
        known_version(&mut reader)?;
        let answer = Self {
            refused: reader.field()?,
            transaction: reader.field()?,
            text: text(&mut reader)?,
            details: Details::decode(&mut reader)?,
        };
        ended(&reader)?;
        Ok(answer)
    }
}

impl Details {
    fn encode(&self, out: &mut Encoder) {
        match self {
            Self::None => out.put(0u8),
            Self::Cluster(picture) => {
                out.put(1u8);
                codec::encode(out, picture);
            }
            Self::History(events) => {
                out.put(2u8);
                out.put(events.len() as u32);
                events.iter().for_each(|event| event.encode(out));
            }
            Self::Transactions(transactions) => {
                out.put(3u8);
                codec::encode_transactions(out, transactions);
            }
            Self::Users(users) => {
                out.put(4u8);
                codec::encode_users(out, users);
            }
            Self::Grants(grants) => {
                out.put(5u8);
                grants.encode(out);
            }
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(match reader.field::<u8>()? {
            0 => Self::None,
            1 => Self::Cluster(codec::decode(reader)?),
            2 => {
                let events = count(reader, HISTORY_KEPT, "events of a history")?;
                let events = (0..events).map(|_| Event::decode(reader));
                Self::History(events.collect::<Result<_, _>>()?)
            }
            3 => Self::Transactions(codec::decode_transactions(reader)?),
            4 => Self::Users(codec::decode_users(reader)?),
            5 => Self::Grants(UserGrants::decode(reader)?),
            tag => return Err(range("kind of details", u64::from(tag))),
        })
    }
}

fn known_version(reader: &mut Reader<'_>) -> Result<(), WireError> {
    let found: u8 = reader.field()?;
    if found == VERSION {
        return Ok(());
    }
    Err(WireError::Version {
        found: u16::from(found),
        known: u16::from(VERSION),
    })
}

const fn ended(reader: &Reader<'_>) -> Result<(), WireError> {
    if reader.is_empty() {
        Ok(())
    } else {
        Err(range("bytes after the end", reader.rest().len() as u64))
    }
}

impl Operation {
    pub(crate) fn encode(&self, out: &mut Encoder) {
        match self {
            Self::CreateLog(spec) => {
                out.put(1u8);
                encode_spec(out, spec);
            }
            Self::DeleteLog { log } => {
                out.put(2u8);
                out.put(*log);
            }
            Self::AddShard { log, nodes } => {
                out.put(3u8);
                out.put(*log);
                out.nodes(nodes);
            }
            Self::FinalizeShard {
                log,
                shard,
                successor,
            } => {
                out.put(4u8);
                out.put(*log);
                out.put(*shard);
                out.put(*successor);
            }
            Self::SetRoot { log, nodes } => {
                out.put(5u8);
                out.put(*log);
                out.nodes(nodes);
            }
            Self::MoveLeader { log, slot } => {
                out.put(6u8);
                out.put(*log);
                out.put(*slot);
            }
            Self::MoveVertex { log, vertex, node } => {
                out.put(21u8);
                out.put(*log);
                out.put(*vertex);
                out.put(*node);
            }
            Self::SetTree { log, fan_in, depth } => {
                out.put(22u8);
                out.put(*log);
                out.put(*fan_in);
                out.put(depth.unwrap_or(0));
            }
            Self::DrainNode { node } => {
                out.put(8u8);
                out.put(*node);
            }
            Self::Cancel { transaction } => {
                out.put(9u8);
                out.put(*transaction);
            }
            Self::List => out.put(10u8),
            Self::ReplaceReplica {
                log,
                shard,
                slot,
                node,
            } => {
                out.put(11u8);
                out.put(*log);
                out.put(*shard);
                out.put(*slot);
                out.put(*node);
            }
            Self::ReplaceNode { node, with } => {
                out.put(12u8);
                out.put(*node);
                out.put(*with);
            }
            Self::Describe { log } => {
                out.put(13u8);
                out.bytes(log.as_bytes());
            }
            Self::History { log } => {
                out.put(14u8);
                out.bytes(log.as_bytes());
            }
            Self::AddUser { user } => {
                out.put(15u8);
                out.bytes(user.as_bytes());
            }
            Self::RevokeUser { user } => {
                out.put(16u8);
                out.bytes(user.as_bytes());
            }
            Self::GrantLog { log, user, rights } => {
                out.put(17u8);
                out.put(*log);
                out.bytes(user.as_bytes());
                out.put(rights.bits());
            }
            Self::ListUsers => out.put(18u8),
            Self::OpenSessions { log } => {
                out.put(19u8);
                out.bytes(log.as_bytes());
            }
            Self::UndrainNode { node } => {
                out.put(20u8);
                out.put(*node);
            }
        }
    }

    pub(crate) fn decode(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let tag: u8 = reader.field()?;
        Ok(match tag {
            1 => Self::CreateLog(decode_spec(reader)?),
            2 => Self::DeleteLog {
                log: reader.field()?,
            },
            3 => Self::AddShard {
                log: reader.field()?,
                nodes: nodes(reader, ROOT_MEMBERS_MAX)?,
            },
            4 => Self::FinalizeShard {
                log: reader.field()?,
                shard: reader.field()?,
                successor: reader.field()?,
            },
            5 => Self::SetRoot {
                log: reader.field()?,
                nodes: nodes(reader, ROOT_MEMBERS_MAX)?,
            },
            6 => Self::MoveLeader {
                log: reader.field()?,
                slot: reader.field()?,
            },
            // Of before there were aggregators.
            7 => Self::MoveVertex {
                log: reader.field()?,
                vertex: VertexId::ZERO,
                node: reader.field()?,
            },
            21 => Self::MoveVertex {
                log: reader.field()?,
                vertex: reader.field()?,
                node: reader.field()?,
            },
            22 => Self::SetTree {
                log: reader.field()?,
                fan_in: reader.field()?,
                depth: Some(reader.field()?).filter(|depth| *depth > 0),
            },
            8 => Self::DrainNode {
                node: reader.field()?,
            },
            9 => Self::Cancel {
                transaction: reader.field()?,
            },
            10 => Self::List,
            11 => Self::ReplaceReplica {
                log: reader.field()?,
                shard: reader.field()?,
                slot: reader.field()?,
                node: reader.field()?,
            },
            12 => Self::ReplaceNode {
                node: reader.field()?,
                with: reader.field()?,
            },
            13 => Self::Describe { log: text(reader)? },
            14 => Self::History { log: text(reader)? },
            15 => Self::AddUser {
                user: user_name(reader)?,
            },
            16 => Self::RevokeUser {
                user: user_name(reader)?,
            },
            17 => Self::GrantLog {
                log: reader.field()?,
                user: user_name(reader)?,
                rights: rights(reader)?,
            },
            18 => Self::ListUsers,
            19 => Self::OpenSessions { log: text(reader)? },
            20 => Self::UndrainNode {
                node: reader.field()?,
            },
            tag => return Err(range("operation", u64::from(tag))),
        })
    }
}

const _: () = assert!(ROOT_MEMBERS_MAX == ionian_types::SEGMENTS_PER_SHARD_MAX);
