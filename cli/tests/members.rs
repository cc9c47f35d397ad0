//! A group of controllers that grows from one to five under changes and bears the loss of two, with real controllers and no
//! process of the data plane.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ionian_control_client::identity::Role;
use ionian_control_cluster::{ClusterState, Founding};
use ionian_control_core::{ClusterSpec, DirectoryConfig, NodeSpec};
use ionian_control_server::ca::Ca;
use ionian_control_server::{Controller, ControllerConfig, GroupTiming, Limits, Start};
use ionian_types::{ClusterId, NodeId};
use serde_json::Value;

mod common;

/// How long a group may take to find a leader. Generous: the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(60);

struct Group {
    ca: Ca,
    folder: tempfile::TempDir,
    /// By id, from 1 on; none for those that were stopped.
    controllers: Vec<Option<Controller>>,
    addresses: Vec<String>,
    logs: usize,
}

impl Group {
    fn found() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let ca = Ca::new("sea").expect("a legal name");
        let admin = ca.issue(Role::User("admin".into())).expect("a legal name");
        ca.write(folder.path(), &admin).expect("a folder");
        let mut group = Self {
            ca,
            folder,
            controllers: Vec::new(),
            addresses: Vec::new(),
            logs: 0,
        };
        group.start(Start::Init);
        group
    }

    /// Starts the next controller.
    fn start(&mut self, start: Start) {
        let id = self.controllers.len() as u64 + 1;
        let issued = self.ca.issue(Role::Controller(id)).expect("a legal name");
        let node = |id: u32| {
            let spec = NodeSpec {
                domain: id,
                address: format!("127.0.0.1:{id}"),
            };
            (NodeId::new(id), spec)
        };
        let founding = Founding {
            cluster: ClusterId::new(7),
            spec: ClusterSpec {
                nodes: (1..=3).map(node).collect(),
                logs: Vec::new(),
            },
            config: DirectoryConfig::default(),
        };
        let config = ControllerConfig {
            credentials: self.ca.credentials(&issued).expect("sound"),
            folder: self.folder.path().join(format!("controller-{id}")),
            listen: ([127, 0, 0, 1], 0).into(),
            advertise: None,
            start,
            timing: GroupTiming::default(),
            limits: Limits::default(),
            report: Arc::new(move |sentence| println!("controller {id}: {sentence}")),
        };
        let controller = Controller::start(config, ClusterState::new(), founding);
        let controller = controller.expect("it starts");
        self.addresses.push(controller.advertised().to_owned());
        self.controllers.push(Some(controller));
    }

    fn run(&self, line: &[&str]) -> (Option<i32>, String, String) {
        self.run_waiting(line, "30")
    }

    /// As long as nobody leads, the command asks again for so many seconds.
    fn run_waiting(&self, line: &[&str], wait_s: &str) -> (Option<i32>, String, String) {
        let controllers = self.addresses.join(",");
        common::operator(self.folder.path(), &controllers, wait_s, line)
    }

    fn done(&self, line: &[&str]) -> String {
        let (code, out, error) = self.run(line);
        assert_eq!(code, Some(0), "{line:?}: {out}{error}");
        out
    }

    fn join(&mut self) {
        self.start(Start::Wait);
        let id = self.controllers.len();
        let (id, address) = (id.to_string(), self.addresses[id - 1].clone());
        self.done(&["cluster", "join", "--id", &id, "--address", &address]);
    }

    fn stop(&mut self, id: usize) {
        let controller = self.controllers[id - 1].take().expect("it runs");
        controller.stop();
    }

    /// A change that the group agrees on: one more log.
    fn change(&mut self) {
        self.logs += 1;
        let name = format!("log{}", self.logs);
        self.done(&["log", "create", &name, "--no-wait"]);
    }

    /// What the group says that it is: its members, and its logs.
    fn knows(&self) -> (Vec<u64>, usize) {
        let status: Value = json(&self.done(&["cluster", "status", "--json"]));
        let members = status["members"].as_array().expect("a list").iter();
        let members = members.map(|member| member["id"].as_u64().expect("a number"));
        let mut members: Vec<u64> = members.collect();
        members.sort_unstable();
        let logs: Value = json(&self.done(&["log", "list", "--json"]));
        (members, logs["logs"].as_array().expect("a list").len())
    }

    fn leader(&self) -> usize {
        let began = Instant::now();
        loop {
            let status: Value = json(&self.done(&["cluster", "status", "--json"]));
            if let Some(leader) = status["leader"].as_u64() {
                return leader as usize;
            }
            assert!(began.elapsed() < PATIENCE, "nobody leads: {status}");
        }
    }
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).expect("JSON")
}

#[test]
fn a_group_grows_to_five_under_changes_and_bears_the_loss_of_two() {
    let mut group = Group::found();
    group.change();
    for _ in 2..=5 {
        group.join();
        group.change();
    }
    assert_eq!(group.knows(), (vec![1, 2, 3, 4, 5], 5));
    // Two go, whoever led among them.
    for _ in 0..2 {
        let leader = group.leader();
        group.stop(leader);
        group.change();
    }
    assert_eq!(group.knows().1, 7);
    // With the third one the majority goes: that is said at once, and nothing is changed.
    let gone = (1..=5).find(|id| group.controllers[id - 1].is_some());
    group.stop(gone.expect("three run"));
    // A follower that has not noticed yet names the one that led, which is as little.
    let began = Instant::now();
    loop {
        let (code, out, error) = group.run_waiting(&["log", "create", "late", "--no-wait"], "0");
        assert_eq!(code, Some(3), "{out}{error}");
        if error.contains("no quorum") {
            break;
        }
        assert!(error.contains("cannot be used"), "{error}");
        assert!(began.elapsed() < PATIENCE, "nobody notices: {error}");
    }
}

#[test]
fn a_controller_that_is_taken_out_stays_out_and_the_others_go_on() {
    let mut group = Group::found();
    group.join();
    group.join();
    let leader = group.leader();
    group.done(&["cluster", "remove", "--id", &leader.to_string()]);
    group.stop(leader);
    group.change();
    let left: Vec<u64> = (1..=3).filter(|id| *id != leader as u64).collect();
    assert_eq!(group.knows(), (left, 1));
    let address = group.addresses[leader - 1].clone();
    let (code, _, error) = group.run(&[
        "cluster",
        "join",
        "--id",
        &leader.to_string(),
        "--address",
        &address,
    ]);
    assert_ne!(code, Some(0), "its number was used again: {error}");
}
