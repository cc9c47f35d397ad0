//! What an operator asks of a controller that has just begun to lead: what it cannot know yet waits, and nothing else does.

use std::collections::BTreeMap;

use ionian_control_client::identity::{Identity, Role};
use ionian_control_cluster::{ClusterState, Founding};
use ionian_control_core::{
    ClusterSpec, DirectoryConfig, LogSpec, NodeSpec, Operate, Operated, Operation, RootQuorum,
    TreeSpec,
};
use ionian_control_server::machine::{
    Brain, CallId, ConnId, Input, MakeBrain, Output, Room, StateMachine,
};
use ionian_types::{ClusterId, Durability, Inc, NodeId, OrderingMode, ShardId, Slot, VertexId};
use ionian_wire::frame::{Register, Role as WireRole};

mod common;

use common::{CLUSTER, LOG, message};

/// A log of three root members on nodes 1 to 3, which have no other place, and nodes to spare.
fn founding() -> Founding {
    let nodes: BTreeMap<NodeId, NodeSpec> = (1..=6)
        .map(|id| (NodeId::new(id), NodeSpec::default()))
        .collect();
    Founding {
        cluster: CLUSTER,
        spec: ClusterSpec {
            nodes,
            logs: vec![LogSpec {
                name: String::from("default"),
                mode: OrderingMode::Scalog,
                class: Durability::D1,
                quorum: None,
                root: [1, 2, 3].map(NodeId::new).to_vec(),
                root_quorum: RootQuorum::default(),
                tree: TreeSpec::leaf(NodeId::new(5)),
                shards: vec![vec![NodeId::new(6)]],
            }],
        },
        config: DirectoryConfig::default(),
    }
}

struct Wide;

impl Room for Wide {
    fn room(&self, _: ConnId) -> usize {
        1 << 20
    }
}

/// A leader whose commands are agreed on at once.
struct Lead {
    brain: Box<dyn Brain>,
    state: ClusterState,
    version: u64,
    now_ns: u64,
    next: u64,
}

impl Lead {
    fn begin(state: ClusterState, version: u64, now_ns: u64) -> Self {
        Self {
            brain: founding().make(now_ns, &state, version),
            state,
            version,
            now_ns,
            next: 0,
        }
    }

    /// The next controller leads, and nobody has come to it yet.
    fn next(self) -> Self {
        Self::begin(self.state, self.version, self.now_ns + 1)
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// The answers that come of what was heard.
    fn answers(&mut self) -> Vec<(CallId, Operated)> {
        let mut answers = Vec::new();
        while let Some(output) = self.brain.poll(self.now_ns, &Wide) {
            match output {
                Output::Propose { command } => {
                    self.state.apply(&command);
                    self.version += 1;
                    let version = self.version;
                    self.brain.handle(self.now_ns, Input::Applied { version });
                }
                Output::Reply { call, answer } => {
                    let answer = answer.expect("not refused as a request");
                    answers.push((call, Operated::decode(&answer).expect("an answer")));
                }
                Output::Refused { reason, .. } | Output::Close { reason, .. } => panic!("{reason}"),
                _ => {}
            }
        }
        answers
    }

    /// A member of the root group comes, with a new life.
    fn root(&mut self, slot: u8) {
        let conn = ConnId(self.number());
        let node = u32::from(slot) + 1;
        let caller = &identity(Role::Node(u64::from(node)));
        self.brain
            .handle(self.now_ns, Input::Opened { conn, caller });
        let register = Register {
            cluster: ClusterId::default(),
            node: NodeId::new(node),
            role: WireRole::Root,
            log: LOG,
            shard: ShardId::ZERO,
            slot: Slot::new(slot),
            vertex: VertexId::ZERO,
            last_inc: Inc::ZERO,
            has_data: false,
            request: conn.0,
        };
        let bytes = &message(&register, b"127.0.0.1:7400")[..];
        self.brain
            .handle(self.now_ns, Input::Message { conn, bytes });
    }

    fn ask(&mut self, operation: Operation) -> CallId {
        let call = CallId(self.number());
        let plan = true;
        let request = &Operate { plan, operation }.encode()[..];
        let caller = &identity(Role::User(String::from("admin")));
        let asked = Input::Asked {
            call,
            caller,
            request,
        };
        self.brain.handle(self.now_ns, asked);
        call
    }
}

fn identity(role: Role) -> Identity {
    let cluster = String::from("sea");
    Identity { cluster, role }
}

/// Node 4 in the place of node 3.
fn other_root() -> Operation {
    Operation::SetRoot {
        log: LOG,
        nodes: [1, 2, 4].map(NodeId::new).to_vec(),
    }
}

/// A leader that has just begun; the whole root group was there before.
fn new_leader() -> Lead {
    let mut lead = Lead::begin(ClusterState::new(), 0, 1);
    (0..3).for_each(|slot| lead.root(slot));
    assert!(lead.answers().is_empty());
    let call = lead.ask(other_root());
    let answers = lead.answers();
    assert!(
        matches!(&answers[..], [(of, answer)] if *of == call && !answer.refused),
        "{answers:?}"
    );
    lead.next()
}

#[test]
fn a_change_waits_for_those_that_were_there() {
    let mut lead = new_leader();
    let change = lead.ask(other_root());
    let list = lead.ask(Operation::List);
    let answers = lead.answers();
    assert!(
        matches!(&answers[..], [(of, _)] if *of == list),
        "{answers:?}"
    );
    for slot in 0..2 {
        assert!(lead.answers().is_empty(), "{slot}");
        lead.root(slot);
    }
    let answers = lead.answers();
    assert!(
        matches!(&answers[..], [(of, answer)] if *of == change && !answer.refused),
        "{answers:?}"
    );
}

#[test]
fn those_that_do_not_come_are_not_waited_for_longer_than_others() {
    let mut lead = new_leader();
    let begun = lead.now_ns;
    let change = lead.ask(other_root());
    assert!(lead.answers().is_empty());
    let answers = loop {
        let answers = lead.answers();
        if !answers.is_empty() {
            break answers;
        }
        lead.now_ns = lead.brain.next_deadline_ns().expect("a deadline");
        lead.brain.handle(lead.now_ns, Input::Deadline);
    };
    assert!(
        matches!(&answers[..], [(of, answer)] if *of == change && answer.text.contains("is not connected")),
        "{answers:?}"
    );
    let waited = lead.now_ns - begun;
    assert!(
        waited <= DirectoryConfig::default().down_after.0,
        "{waited} ns"
    );
}
