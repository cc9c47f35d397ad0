//! Who there is: the peers that the cluster map names, their connections, and the servers that take appends.
//!
//! A peer keeps its index for the life of the machine, so that lanes and streams may hold it. A shard number is never
//! reused; what the table holds is bounded by the shards that the log ever had.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;

use ionian_types::{
    ConnId, Durability, Gen, Inc, LogId, NodeId, SEGMENTS_PER_SHARD_MAX, SegmentId, ShardId, Slot,
    Time, ViewId,
};
use ionian_wire::directory::ClusterMap;

use super::api::PeerKind;

/// The index of a peer.
pub(super) type PeerIx = u32;
/// The root's index.
pub(super) const ROOT: PeerIx = 0;

#[derive(Debug)]
pub(super) struct Peer {
    pub(super) kind: PeerKind,
    pub(super) node: NodeId,
    pub(super) inc: Inc,
    /// The open generation of its segment, by the map; zero when closed.
    pub(super) generation: Gen,
    pub(super) conn: Option<ConnId>,
    pub(super) wanted: bool,
    /// Since when it is wanted and not connected; [`Time::FAR`] while it is connected or not wanted.
    pub(super) down_since: Time,
}

impl Peer {
    /// Whether the map shows that no process has its place.
    pub(super) fn is_down(&self) -> bool {
        self.inc == Inc::ZERO
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Shard {
    pub(super) open: bool,
    replicas: [PeerIx; SEGMENTS_PER_SHARD_MAX],
    count: u8,
}

impl Shard {
    pub(super) fn replicas(&self) -> &[PeerIx] {
        &self.replicas[..usize::from(self.count)]
    }
}

#[derive(Debug)]
pub(super) struct Peers {
    list: Vec<Peer>,
    by_kind: BTreeMap<PeerKind, PeerIx>,
    conns: Box<[Option<PeerIx>]>,
    shards: BTreeMap<ShardId, Shard>,
    /// Servers with an open generation, by shard and slot.
    open: Vec<PeerIx>,
    open_shards: Vec<ShardId>,
    /// The version of the map, once there is one.
    pub(super) version: Option<u64>,
    pub(super) class: Durability,
    /// Rises whenever another peer is wanted.
    pub(super) wanted_version: u64,
}

impl Peers {
    pub(super) fn new(connections: usize) -> Self {
        let mut peers = Self {
            list: Vec::new(),
            by_kind: BTreeMap::new(),
            conns: vec![None; connections].into_boxed_slice(),
            shards: BTreeMap::new(),
            open: Vec::new(),
            open_shards: Vec::new(),
            version: None,
            class: Durability::D0,
            wanted_version: 0,
        };
        let root = peers.intern(PeerKind::Root);
        debug_assert_eq!(root, ROOT);
        peers
    }

    fn intern(&mut self, kind: PeerKind) -> PeerIx {
        let next = self.list.len() as PeerIx;
        let ix = *self.by_kind.entry(kind).or_insert(next);
        if ix == next {
            self.list.push(Peer {
                kind,
                node: NodeId::ZERO,
                inc: Inc::ZERO,
                generation: ViewId::ZERO,
                conn: None,
                wanted: false,
                down_since: Time::FAR,
            });
        }
        ix
    }

    /// Takes over a map if it is newer and names the log; says whether it did.
    pub(super) fn set_map(&mut self, map: &ClusterMap, log: LogId) -> bool {
        if self.version.is_some_and(|version| map.version <= version) {
            return false;
        }
        let Some(info) = map.logs.iter().find(|info| info.log == log) else {
            return false;
        };
        self.version = Some(map.version);
        self.class = info.class;
        for peer in &mut self.list {
            peer.generation = ViewId::ZERO;
        }
        self.shards.clear();
        self.open.clear();
        self.open_shards.clear();
        self.list[ROOT as usize].node = info.root().node;
        self.list[ROOT as usize].inc = info.root().inc;
        for shard in &info.shards {
            let mut entry = Shard {
                open: shard.open,
                replicas: [0; SEGMENTS_PER_SHARD_MAX],
                count: 0,
            };
            let mut writable = false;
            let replicas = shard
                .replicas
                .iter()
                .take(SEGMENTS_PER_SHARD_MAX)
                .enumerate();
            for (slot, replica) in replicas {
                let ix = self.intern(PeerKind::Replica {
                    shard: shard.shard,
                    slot: Slot::new(slot as u8),
                });
                let peer = &mut self.list[ix as usize];
                peer.node = replica.endpoint.node;
                peer.inc = replica.endpoint.inc;
                peer.generation = replica.generation;
                entry.replicas[slot] = ix;
                entry.count = slot as u8 + 1;
                if shard.open && replica.generation != ViewId::ZERO {
                    self.open.push(ix);
                    writable = true;
                }
            }
            if writable {
                self.open_shards.push(shard.shard);
            }
            self.shards.insert(shard.shard, entry);
        }
        true
    }

    pub(super) fn get(&self, ix: PeerIx) -> &Peer {
        &self.list[ix as usize]
    }

    /// The segment that a replica writes. The root writes none; its answer is never used.
    pub(super) fn segment(&self, ix: PeerIx) -> SegmentId {
        match self.get(ix).kind {
            PeerKind::Replica { shard, slot } => SegmentId { shard, slot },
            PeerKind::Root => SegmentId {
                shard: ShardId::MAX,
                slot: Slot::MAX,
            },
        }
    }

    pub(super) fn by_conn(&self, conn: ConnId) -> Option<PeerIx> {
        self.conns.get(conn.index()).copied().flatten()
    }

    pub(super) fn shard(&self, shard: ShardId) -> Option<&Shard> {
        self.shards.get(&shard)
    }

    pub(super) fn shards(&self) -> impl Iterator<Item = (ShardId, &Shard)> {
        self.shards.iter().map(|(id, shard)| (*id, shard))
    }

    /// The first shard after `shard`, or the first of all.
    pub(super) fn shard_after(&self, shard: Option<ShardId>) -> Option<ShardId> {
        match shard {
            None => self.shards.keys().next().copied(),
            Some(shard) => {
                let from = shard.next()?;
                self.shards.range(from..).next().map(|(id, _)| *id)
            }
        }
    }

    pub(super) fn open(&self) -> &[PeerIx] {
        &self.open
    }

    pub(super) fn open_shards(&self) -> &[ShardId] {
        &self.open_shards
    }

    /// The connection that a peer has now.
    pub(super) fn connection_of(&self, kind: PeerKind) -> Option<ConnId> {
        self.by_kind.get(&kind).and_then(|ix| self.get(*ix).conn)
    }

    pub(super) fn connect(&mut self, now: Time, conn: ConnId, kind: PeerKind) -> Option<PeerIx> {
        if conn.index() >= self.conns.len() {
            return None;
        }
        self.disconnect(now, conn);
        let ix = self.intern(kind);
        if let Some(old) = self.list[ix as usize].conn.take() {
            self.conns[old.index()] = None;
        }
        self.conns[conn.index()] = Some(ix);
        let peer = &mut self.list[ix as usize];
        peer.conn = Some(conn);
        peer.down_since = Time::FAR;
        Some(ix)
    }

    pub(super) fn disconnect(&mut self, now: Time, conn: ConnId) -> Option<PeerIx> {
        let ix = self.conns.get_mut(conn.index())?.take()?;
        let peer = &mut self.list[ix as usize];
        peer.conn = None;
        peer.down_since = now;
        Some(ix)
    }

    /// Asks the edge for a connection to a peer.
    pub(super) fn want(&mut self, now: Time, ix: PeerIx) {
        let peer = &mut self.list[ix as usize];
        if !peer.wanted {
            peer.wanted = true;
            self.wanted_version += 1;
        }
        if peer.conn.is_none() && peer.down_since == Time::FAR {
            peer.down_since = now;
        }
    }

    pub(super) fn wanted(&self) -> impl Iterator<Item = PeerKind> {
        self.list
            .iter()
            .filter(|peer| peer.wanted)
            .map(|peer| peer.kind)
    }

    /// A connected replica of a shard, the one at `cursor` if it can be had, else another; one that the map shows as down
    /// only when there is no other. All that come before the one found are wanted from now on.
    pub(super) fn replica(&mut self, now: Time, shard: ShardId, cursor: u32) -> Option<PeerIx> {
        let entry = *self.shards.get(&shard)?;
        let replicas = entry.replicas();
        let mut down = None;
        for i in 0..replicas.len() {
            let ix = replicas[(cursor as usize).wrapping_add(i) % replicas.len()];
            let peer = self.get(ix);
            // The connection of one that is dead looks sound for a while.
            if peer.conn.is_some() && !peer.is_down() {
                return Some(ix);
            }
            if peer.conn.is_some() {
                down = down.or(Some(ix));
            } else {
                self.want(now, ix);
            }
        }
        down
    }
}
