//! Which connection leads to the process that fills a place.

use ionian_types::{ConnId, Knobs, LogId, ShardId, Time};

use super::Directory;
use crate::state::{Log, PlaceKey};

/// The connection of the process that fills a place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Binding {
    pub(crate) conn: ConnId,
    /// The request that it registered with, when it did so on this connection.
    pub(crate) request: Option<u64>,
}

impl<K: Knobs> Directory<K> {
    /// The process behind `conn` fills the place from now on.
    pub(crate) fn bind(&mut self, now: Time, key: PlaceKey, conn: ConnId, request: Option<u64>) {
        self.bindings.insert(key, Binding { conn, request });
        self.absent.remove(&key);
        if let Some(node) = self.state.place(key).map(|place| place.node) {
            self.detection.seen(node);
        }
        self.note_life(key, conn);
        if let Some(conn) = self.conns.get_mut(&conn) {
            conn.known.get_or_insert(0);
        }
        if let PlaceKey::Root(log, slot) = key {
            self.member_seen(now, log, slot, true);
            self.look_after(now, log);
            if self.leader_of(log) == Some(slot) {
                self.sent.remove(&log);
                self.grants.insert(log, self.state.version);
            }
        }
        self.plan(now, key.log());
    }

    /// The place's present life has said that `conn` leads to it.
    pub(crate) fn note_life(&mut self, key: PlaceKey, conn: ConnId) {
        let inc = self.state.place(key).map(|place| place.inc);
        if let Some(conn) = self.conns.get_mut(&conn) {
            conn.life = inc.map(|inc| (key, inc));
        }
    }

    /// Whether the place is bound to a connection that opened after `conn`. Its process has given `conn` up, then, and what
    /// it had said there comes late.
    pub(crate) fn is_given_up(&self, key: PlaceKey, conn: ConnId) -> bool {
        let opened = |conn: ConnId| self.conns.get(&conn).map(|conn| conn.opened);
        let bound = self.bindings.get(&key).map(|binding| binding.conn);
        bound.and_then(opened) > opened(conn)
    }

    /// Of the connections of the place's present life the one that opened last.
    pub(crate) fn last_of_life(&self, key: PlaceKey) -> Option<ConnId> {
        let life = Some((key, self.state.place(key)?.inc));
        let conns = self.conns.iter().filter(|(_, conn)| conn.life == life);
        conns.max_by_key(|(_, conn)| conn.opened).map(|(&id, _)| id)
    }

    /// The incarnation that this very request was given before.
    pub(crate) fn repeated(
        &self,
        key: PlaceKey,
        conn: ConnId,
        request: u64,
    ) -> Option<ionian_types::Inc> {
        let same = Binding {
            conn,
            request: Some(request),
        };
        let binding = self.bindings.get(&key).filter(|binding| **binding == same);
        binding.and(self.state.place(key)).map(|place| place.inc)
    }

    pub(crate) fn bound(&self, conn: ConnId, key: PlaceKey) -> Option<&Log> {
        let binding = self.bindings.get(&key)?;
        if binding.conn != conn {
            return None;
        }
        self.state.logs.get(&key.log())
    }

    /// The log of a shard whose leaf is behind `conn`, in the present tree.
    pub(crate) fn bound_leaf(&self, conn: ConnId, log: LogId, shard: ShardId) -> Option<&Log> {
        let found = self.state.logs.get(&log)?;
        let rank = found.shards.get(&shard)?.rank;
        let leaf = found.tree.leaf_of((rank, shard))?;
        self.bound(conn, PlaceKey::Vertex(log, leaf))
    }

    pub(super) fn places_of(&self, conn: ConnId) -> impl Iterator<Item = PlaceKey> {
        let here = self.bindings.iter();
        here.filter(move |(_, binding)| binding.conn == conn)
            .map(|(&key, _)| key)
    }
}
