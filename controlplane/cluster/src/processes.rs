//! Which process each node is. A process begins each of its connections with a number that it drew at its start; a second one
//! that says it is the same node is refused, with a sentence for its log, while the first is there.
//!
//! Without this two processes with one node's certificate would take each other's places in turn.

use std::collections::BTreeMap;

use ionian_control_client::identity::{Identity, Role};
use ionian_control_server::machine::ConnId;
use ionian_types::ClientId;
use ionian_wire::frame::{Message, Role as WireRole};

/// The processes that are attached.
#[derive(Debug, Default)]
pub(crate) struct Processes {
    /// By node: the process, and how many connections it has.
    by_node: BTreeMap<u64, (ClientId, usize)>,
    /// The node that each connection has said it is of.
    conns: BTreeMap<ConnId, u64>,
}

impl Processes {
    /// Takes note of what a caller may say.
    ///
    /// # Errors
    /// The reason why the connection is to be closed: another process is that node.
    pub(crate) fn hear(
        &mut self,
        conn: ConnId,
        caller: &Identity,
        message: &Message<'_>,
    ) -> Result<(), String> {
        let (Role::Node(node), Message::Hello(hello, _)) = (&caller.role, message) else {
            return Ok(());
        };
        if hello.role != WireRole::Client || self.conns.contains_key(&conn) {
            return Ok(());
        }
        let known = self.by_node.entry(*node).or_insert((hello.client, 0));
        if known.0 != hello.client {
            return Err(format!(
                "another process is node {node} already: each node has one process, one data directory and one number; stop this one or the other"
            ));
        }
        known.1 += 1;
        self.conns.insert(conn, *node);
        Ok(())
    }

    /// A connection is gone.
    pub(crate) fn gone(&mut self, conn: ConnId) {
        let Some(node) = self.conns.remove(&conn) else {
            return;
        };
        if let Some(known) = self.by_node.get_mut(&node) {
            known.1 -= 1;
            if known.1 == 0 {
                self.by_node.remove(&node);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use ionian_types::{ClusterId, EntryNo, Inc, LogId, NodeId, SessionNo, ShardId, Slot, ViewId};
    use ionian_wire::WIRE_VERSION;
    use ionian_wire::frame::Hello;

    use super::*;

    fn hello(process: u128) -> Hello {
        Hello {
            cluster: ClusterId::default(),
            wire_version: WIRE_VERSION,
            role: WireRole::Client,
            node: NodeId::new(3),
            inc: Inc::ZERO,
            log: LogId::MAX,
            shard: ShardId::ZERO,
            slot: Slot::ZERO,
            epoch: ViewId::ZERO,
            last: EntryNo::ZERO,
            client: ClientId::new(process),
            session: SessionNo::ZERO,
        }
    }

    #[test]
    fn a_node_is_one_process_at_a_time() {
        let node = Identity::new("sea", Role::Node(3)).expect("legal");
        let other = Identity::new("sea", Role::Node(4)).expect("legal");
        let mut processes = Processes::default();
        let mut hear = |conn, who: &Identity, process| {
            processes.hear(ConnId(conn), who, &Message::Hello(hello(process), &[]))
        };
        assert_eq!(hear(1, &node, 7), Ok(()));
        assert_eq!(hear(2, &node, 7), Ok(()));
        let refused = hear(3, &node, 8).expect_err("the first is there");
        assert!(refused.contains("another process is node 3 already"));
        assert_eq!(hear(4, &other, 8), Ok(()));
        processes.gone(ConnId(1));
        // One that was refused does not count.
        processes.gone(ConnId(3));
        let mut hear = |conn, process| {
            processes.hear(ConnId(conn), &node, &Message::Hello(hello(process), &[]))
        };
        assert!(hear(5, 8).is_err());
        processes.gone(ConnId(2));
        let again = processes.hear(ConnId(6), &node, &Message::Hello(hello(8), &[]));
        assert_eq!(again, Ok(()));
    }
}
