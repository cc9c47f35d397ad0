//! A group under test: folders, certificates, running controllers, and calls to them.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ionian_control_client::connect::{Connection, Timing};
use ionian_control_client::identity::Role;
use ionian_control_client::proto::VERSION;
use ionian_control_client::proto::control::control_client::ControlClient;
use ionian_control_client::proto::control::{
    AddControllerRequest, FoundRequest, MembersReply, OperateRequest, RemoveControllerRequest,
    StatusReply, StatusRequest,
};
use ionian_control_client::refusal::{Refusal, Why};
use ionian_control_client::tls::Credentials;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tonic::transport::Channel;

use super::toy::{Tokens, make, numbers};
use crate::ca::Ca;
use crate::config::{ControllerConfig, GroupTiming, Limits, Start};
use crate::controller::{Controller, StartError};
use crate::standing::Standing;
use crate::store::lock;

/// The longest anything takes, on a machine that is busy with other things.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

pub(super) struct Harness {
    pub(super) ca: Ca,
    pub(super) folder: TempDir,
    pub(super) runtime: Runtime,
    pub(super) limits: Limits,
    pub(super) running: BTreeMap<u64, Controller>,
    pub(super) said: Arc<Mutex<Vec<String>>>,
    pub(super) user: Credentials,
    issued: BTreeMap<u64, Credentials>,
    /// A controller keeps its address over a restart.
    addresses: BTreeMap<u64, std::net::SocketAddr>,
    next_token: u64,
    /// The user's connections, by address.
    connections: Mutex<BTreeMap<String, Connection>>,
}

impl Harness {
    pub(super) fn new(limits: Limits) -> Self {
        let ca = Ca::new("sea").unwrap();
        let issued = ca.issue(Role::User("op".into())).unwrap();
        Self {
            user: ca.credentials(&issued).unwrap(),
            ca,
            folder: tempfile::tempdir().unwrap(),
            runtime: Runtime::new().unwrap(),
            limits,
            running: BTreeMap::new(),
            said: Arc::default(),
            issued: BTreeMap::new(),
            addresses: BTreeMap::new(),
            next_token: 0,
            connections: Mutex::default(),
        }
    }

    /// A group of the controllers 1 to `n`, each a voter.
    pub(super) fn group(n: u64, limits: Limits) -> Self {
        let mut harness = Self::new(limits);
        harness.start(1, Start::Init).unwrap();
        for id in 2..=n {
            harness.join(id);
        }
        harness
    }

    pub(super) fn folder_of(&self, id: u64) -> PathBuf {
        self.folder.path().join(format!("controller-{id}"))
    }

    pub(super) fn config(&mut self, id: u64, start: Start) -> ControllerConfig {
        let ca = &self.ca;
        let credentials = self.issued.entry(id).or_insert_with(|| {
            let issued = ca.issue(Role::Controller(id)).unwrap();
            ca.credentials(&issued).unwrap()
        });
        let said = self.said.clone();
        let any = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
        ControllerConfig {
            credentials: credentials.clone(),
            folder: self.folder.path().join(format!("controller-{id}")),
            listen: self.addresses.get(&id).copied().unwrap_or(any),
            advertise: None,
            start,
            timing: GroupTiming {
                heartbeat: Duration::from_millis(100),
                election_min: Duration::from_millis(500),
                election_max: Duration::from_millis(1000),
                call_timeout: Duration::from_secs(20),
                catch_up_timeout: Duration::from_secs(30),
            },
            limits: self.limits,
            report: Arc::new(move |sentence| lock(&said).push(sentence.to_owned())),
        }
    }

    pub(super) fn start(&mut self, id: u64, start: Start) -> Result<(), StartError> {
        let config = self.config(id, start);
        let controller = Controller::start(config, Tokens::default(), make)?;
        self.addresses.insert(id, controller.address());
        self.running.insert(id, controller);
        Ok(())
    }

    pub(super) fn restart(&mut self, id: u64) {
        self.running.remove(&id);
        self.start(id, Start::Wait).unwrap();
    }

    /// Starts a new controller and waits until it is a voter.
    pub(super) fn join(&mut self, id: u64) {
        let addresses = self.running.values().map(|c| c.advertised().to_owned());
        let addresses = addresses.collect();
        self.start(id, Start::Join(addresses)).unwrap();
        // While both sets of voters are in force, the old one must agree to everything, too.
        self.until("all know that it is a voter", |h| {
            h.running.values().all(|c| {
                let metrics = c.inside.raft.metrics().borrow().clone();
                let membership = metrics.membership_config.membership();
                let voters = membership.get_joint_config();
                voters.len() == 1 && voters[0].contains(&id)
            })
        });
    }

    /// Polls until `done`, or fails the test.
    pub(super) fn until(&self, what: &str, mut done: impl FnMut(&Self) -> bool) {
        let start = Instant::now();
        while !done(self) {
            assert!(
                start.elapsed() < PATIENCE,
                "not within {PATIENCE:?}: {what}; said: {:#?}; inside: {:#?}; standing: {:?}",
                lock(&self.said),
                self.running.values().map(|c| &c.inside).collect::<Vec<_>>(),
                self.running
                    .values()
                    .map(Controller::standing)
                    .collect::<Vec<_>>()
            );
            self.pause(10);
        }
    }

    /// Lets others run between two looks.
    pub(super) fn pause(&self, ms: u64) {
        self.runtime
            .block_on(async { tokio::time::sleep(Duration::from_millis(ms)).await });
    }

    pub(super) fn leader(&self) -> Option<u64> {
        let leads = |c: &&Controller| matches!(c.standing(), Standing::Leads { .. });
        self.running.values().find(leads).map(Controller::id)
    }

    pub(super) fn wait_leader(&self) -> u64 {
        self.until("one leads", |h| h.leader().is_some());
        self.leader().unwrap_or_else(|| self.wait_leader())
    }

    pub(super) fn client(&self, id: u64, who: &Credentials) -> ControlClient<Channel> {
        if who.identity() != self.user.identity() {
            return ControlClient::new(self.connection(id, who).channel());
        }
        let mut known = lock(&self.connections);
        let connection = known
            .entry(self.addresses[&id].to_string())
            .or_insert_with(|| self.connection(id, who));
        ControlClient::new(connection.channel())
    }

    pub(super) fn connection(&self, id: u64, who: &Credentials) -> Connection {
        let address = self.addresses[&id].to_string();
        let tls = who.client_config().unwrap();
        let _in = self.runtime.enter();
        Connection::new(&address, tls, Timing::default()).unwrap()
    }

    pub(super) fn address(&self, id: u64) -> std::net::SocketAddr {
        self.addresses[&id]
    }

    pub(super) fn operate(&self, id: u64, request: &[u8]) -> Result<Vec<u8>, Refusal> {
        let mut client = self.client(id, &self.user);
        let request = OperateRequest {
            version: VERSION,
            request: request.to_vec(),
        };
        let reply = self.runtime.block_on(client.operate(request));
        reply
            .map(|r| r.into_inner().reply)
            .map_err(|s| Refusal::from_status(&s))
    }

    pub(super) fn status(&self, id: u64) -> StatusReply {
        let mut client = self.client(id, &self.user);
        let request = StatusRequest { version: VERSION };
        let reply = self.runtime.block_on(client.status(request));
        reply.unwrap().into_inner()
    }

    pub(super) fn found(&self, id: u64) -> Result<MembersReply, Refusal> {
        let mut client = self.client(id, &self.user);
        let request = FoundRequest { version: VERSION };
        let reply = self.runtime.block_on(client.found(request));
        reply
            .map(tonic::Response::into_inner)
            .map_err(|s| Refusal::from_status(&s))
    }

    pub(super) fn add(&self, to: u64, id: u64, address: &str) -> Result<MembersReply, Refusal> {
        let mut client = self.client(to, &self.user);
        let request = AddControllerRequest {
            version: VERSION,
            id,
            address: address.to_owned(),
        };
        let reply = self.runtime.block_on(client.add_controller(request));
        reply
            .map(tonic::Response::into_inner)
            .map_err(|s| Refusal::from_status(&s))
    }

    /// Removes a controller, wherever the leader is.
    pub(super) fn remove(&self, id: u64) {
        self.until("it is removed", |h| {
            let Some(leader) = h.leader() else {
                return false;
            };
            match h.remove_at(leader, id) {
                Ok(_) => true,
                Err(e) => {
                    assert!(e.why != Why::Invalid || !e.no_effect, "{e}");
                    false
                }
            }
        });
    }

    pub(super) fn remove_at(&self, to: u64, id: u64) -> Result<MembersReply, Refusal> {
        let mut client = self.client(to, &self.user);
        let request = RemoveControllerRequest {
            version: VERSION,
            id,
        };
        let reply = self.runtime.block_on(client.remove_controller(request));
        reply
            .map(tonic::Response::into_inner)
            .map_err(|s| Refusal::from_status(&s))
    }

    /// Adds `n` tokens, one call each, asking again and elsewhere as long as it takes.
    pub(super) fn add_tokens(&mut self, n: u64) {
        for _ in 0..n {
            self.next_token += 1;
            let token = self.next_token.to_le_bytes();
            self.until("a token is added", |h| {
                h.leader().is_some_and(|l| h.operate(l, &token).is_ok())
            });
        }
    }

    /// Waits until every running controller has applied all tokens added so far, each once and in order.
    pub(super) fn agree(&self) {
        let expected: Vec<u64> = (1..=self.next_token).collect();
        self.until("all have the same state", |h| {
            h.running.values().all(|c| c.version() == self.next_token)
        });
        let leader = self.wait_leader();
        let list = self.operate(leader, b"read").unwrap();
        assert_eq!(numbers(&list), Some(expected));
    }

    /// Cuts `one` off from all others, or joins it again.
    pub(super) fn cut(&self, one: u64, cut: bool) {
        for (id, controller) in &self.running {
            let others = self.running.keys().filter(|o| (**o == one) != (*id == one));
            let mut set = lock(&controller.inside.speaker.cut);
            for other in others {
                if cut {
                    set.insert(*other);
                } else {
                    set.remove(other);
                }
            }
        }
    }

    pub(super) fn heard(&self, part: &str) -> bool {
        lock(&self.said).iter().any(|s| s.contains(part))
    }
}
