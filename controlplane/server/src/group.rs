//! Changes of the group itself: a controller comes as a learner and becomes a voter when it has what the others have; one that
//! goes is gone for good.
//!
//! One change at a time. A change that began goes on if whoever asked is gone; one that a leader left half done (two sets of
//! voters in force) is completed by the next leader.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ionian_control_client::connect::{Connection, Timing};
use ionian_control_client::proto;
use ionian_control_client::proto::control::control_client::ControlClient;
use ionian_control_client::proto::control::{Member, MembersReply, StatusRequest};
use ionian_control_client::refusal::{Refusal, Why};
use ionian_control_client::tls::Credentials;
use openraft::error::{ClientWriteError, InitializeError, RaftError};
use openraft::raft::ClientWriteResponse;
use openraft::{BasicNode, ChangeMembers, Raft};
use tokio::sync::watch;

use crate::machine::Report;
use crate::standing::Standing;
use crate::store::{Replicated, Types, lock};

/// The most voters of a group.
pub const VOTERS_MAX: usize = 5;
/// The longest address of a controller, in bytes.
pub const ADDRESS_BYTES_MAX: usize = 255;

/// The group as its leader changes it.
pub(crate) struct Group<S> {
    pub(crate) id: u64,
    pub(crate) raft: Raft<Types>,
    pub(crate) replicated: Arc<Mutex<Replicated<S>>>,
    pub(crate) standing: watch::Receiver<Standing>,
    pub(crate) credentials: Credentials,
    pub(crate) timing: Timing,
    pub(crate) catch_up_timeout: Duration,
    pub(crate) changing: tokio::sync::Mutex<()>,
    pub(crate) report: Report,
}

fn invalid(sentence: String) -> Refusal {
    Refusal::without_effect(Why::Invalid, sentence)
}

type Written = Result<ClientWriteResponse<Types>, RaftError<u64, ClientWriteError<u64, BasicNode>>>;

impl<S: Send + Sync + 'static> Group<S> {
    /// Who is in the group, as this controller knows it.
    pub(crate) fn members(&self) -> MembersReply {
        let metrics = self.raft.metrics().borrow().clone();
        let membership = metrics.membership_config.membership();
        let voters: BTreeSet<u64> = membership.voter_ids().collect();
        let matched = |id: &u64| match &metrics.replication {
            Some(_) if *id == self.id => metrics.last_log_index,
            Some(replication) => replication.get(id)?.map(|l| l.index),
            None => None,
        };
        MembersReply {
            members: membership
                .nodes()
                .map(|(id, node)| Member {
                    id: *id,
                    address: node.addr.clone(),
                    voter: voters.contains(id),
                    matched: matched(id),
                })
                .collect(),
            leader: match &*self.standing.borrow() {
                Standing::Leads { .. } => self.id,
                Standing::Follows { leader, .. } => *leader,
                _ => 0,
            },
        }
    }

    fn leads(&self) -> Result<(), Refusal> {
        match self.standing.borrow().refusal() {
            Some(refusal) => Err(refusal),
            None => Ok(()),
        }
    }

    /// Begins a group of this controller alone, and waits until it leads that group.
    pub(crate) async fn found(
        &self,
        advertised: &str,
        timeout: Duration,
    ) -> Result<MembersReply, Refusal> {
        let members = BTreeMap::from([(self.id, BasicNode::new(advertised))]);
        match self.raft.initialize(members).await {
            Ok(()) => {}
            Err(RaftError::APIError(InitializeError::NotAllowed(_))) => {
                return Err(invalid(format!(
                    "controller {} is in a group already: a group is begun once, other controllers join it",
                    self.id
                )));
            }
            Err(error) => {
                return Err(Refusal::unknown_effect(Why::Stopped, error.to_string()));
            }
        }
        let mut standing = self.standing.clone();
        let leads = standing.wait_for(|s| matches!(s, Standing::Leads { .. }));
        match tokio::time::timeout(timeout, leads).await {
            Ok(Ok(_)) => Ok(self.members()),
            _ => Err(self.cut_short()),
        }
    }

    /// Adds controller `id` at `address`. Asking again for what is done, or half done, is right.
    pub(crate) async fn add(&self, id: u64, address: String) -> Result<MembersReply, Refusal> {
        let _one = self.one_change()?;
        self.leads()?;
        self.may_add(id, &address)?;
        let members = self.members().members;
        let known = members.iter().find(|m| m.id == id);
        if known.is_none() {
            let learner = self.raft.add_learner(id, BasicNode::new(&address), false);
            self.during(learner).await?;
        }
        if known.is_none_or(|m| !m.voter) {
            self.catch_up(id, &address).await?;
            let voters = ChangeMembers::AddVoterIds(BTreeSet::from([id]));
            self.during(self.raft.change_membership(voters, true))
                .await?;
        }
        Ok(self.members())
    }

    fn may_add(&self, id: u64, address: &str) -> Result<(), Refusal> {
        if id == 0 {
            return Err(invalid("controllers are numbered from 1".to_owned()));
        }
        let port = address
            .rsplit_once(':')
            .map(|(_, port)| port.parse::<u16>());
        if address.len() > ADDRESS_BYTES_MAX || !matches!(port, Some(Ok(1..))) {
            return Err(invalid(format!(
                "{address:?} is not the address of a controller: write HOST:PORT"
            )));
        }
        if lock(&self.replicated).retired.contains(&id) {
            return Err(invalid(format!(
                "controller {id} was removed once: numbers are not used again, take a new one"
            )));
        }
        let members = self.members().members;
        for member in &members {
            if member.id == id && member.address != address {
                return Err(invalid(format!(
                    "controller {id} is a member already, at {}: remove it first and take a new number",
                    member.address
                )));
            }
            if member.id != id && member.address == address {
                return Err(invalid(format!(
                    "{address} is controller {}'s address",
                    member.id
                )));
            }
        }
        let voters = members.iter().filter(|m| m.voter && m.id != id).count();
        if voters >= VOTERS_MAX {
            return Err(invalid(format!(
                "the group has {voters} controllers, more than {VOTERS_MAX} are not supported: remove one first"
            )));
        }
        Ok(())
    }

    /// Waits until a learner has what the leader had when it began to wait.
    async fn catch_up(&self, id: u64, address: &str) -> Result<(), Refusal> {
        let mut metrics = self.raft.metrics();
        let goal = metrics.borrow().last_log_index.unwrap_or_default();
        let caught_up = metrics.wait_for(|m| {
            let matched = m
                .replication
                .as_ref()
                .and_then(|r| r.get(&id).copied().flatten());
            matched.is_some_and(|m| m.index >= goal)
        });
        let mut standing = self.standing.clone();
        let ceased = standing.wait_for(|s| s.refusal().is_some());
        tokio::select! {
            caught_up = caught_up => match caught_up {
                Ok(_) => Ok(()),
                Err(_) => Err(self.cut_short()),
            },
            _ = ceased => Err(self.cut_short()),
            () = tokio::time::sleep(self.catch_up_timeout) => {
                let sentence = format!(
                    "controller {id} at {address} did not get the state within {} s: it stays a learner, which changes nothing for the others. See that it runs and can be reached, then ask again, or remove it",
                    self.catch_up_timeout.as_secs()
                );
                Err(Refusal::unknown_effect(Why::Timeout, sentence))
            }
        }
    }

    /// Removes controller `id`, unless the others could not go on without it.
    pub(crate) async fn remove(&self, id: u64) -> Result<MembersReply, Refusal> {
        let _one = self.one_change()?;
        self.leads()?;
        let members = self.members().members;
        let Some(member) = members.iter().find(|m| m.id == id) else {
            if lock(&self.replicated).retired.contains(&id) {
                return Ok(self.members());
            }
            return Err(invalid(format!("there is no controller {id}")));
        };
        let change = if member.voter {
            let stay: Vec<&Member> = members.iter().filter(|m| m.voter && m.id != id).collect();
            if stay.is_empty() {
                return Err(invalid(format!(
                    "controller {id} is the last one: add another one first"
                )));
            }
            self.can_go_on(id, &stay).await?;
            ChangeMembers::RemoveVoters(BTreeSet::from([id]))
        } else {
            ChangeMembers::RemoveNodes(BTreeSet::from([id]))
        };
        match self
            .during(self.raft.change_membership(change, false))
            .await
        {
            Ok(_) => Ok(self.members()),
            // The leader that removes itself ends with the change.
            Err(_) if id == self.id && *self.standing.borrow() == Standing::Outside => {
                Ok(self.members())
            }
            Err(refusal) => Err(refusal),
        }
    }

    /// Asks those who would stay: a majority of them must answer.
    async fn can_go_on(&self, id: u64, stay: &[&Member]) -> Result<(), Refusal> {
        let (answers_tx, mut answers) = tokio::sync::mpsc::channel(VOTERS_MAX);
        for member in stay.iter().filter(|m| m.id != self.id) {
            let (tx, member) = (answers_tx.clone(), (*member).clone());
            let (credentials, timing) = (self.credentials.clone(), self.timing);
            tokio::spawn(async move {
                // Nobody listens any more once enough have answered.
                if alive(&member, &credentials, timing).await {
                    let _ = tx.send(()).await;
                }
            });
        }
        drop(answers_tx);
        let needed = stay.len() / 2 + 1;
        let mut alive = stay.iter().filter(|m| m.id == self.id).count();
        while alive < needed {
            if answers.recv().await.is_none() {
                let n = stay.len();
                return Err(invalid(format!(
                    "without controller {id}, {alive} of {n} controllers could be reached and {needed} are needed: nothing could be changed any more. Start the others first"
                )));
            }
            alive += 1;
        }
        Ok(())
    }

    /// Completes a change that an earlier leader has left half done.
    pub(crate) async fn complete(&self) {
        let metrics = self.raft.metrics().borrow().clone();
        let joint = metrics
            .membership_config
            .membership()
            .get_joint_config()
            .clone();
        let [_, goal] = joint.as_slice() else { return };
        let Ok(_one) = self.one_change() else { return };
        let change = ChangeMembers::ReplaceAllVoters(goal.clone());
        let sentence = match self
            .during(self.raft.change_membership(change, false))
            .await
        {
            Ok(_) => format!("completed a change of the group to {goal:?}"),
            Err(refusal) => format!("a half done change of the group stays so: {refusal}"),
        };
        (self.report)(&format!("controller {}: {sentence}", self.id));
    }

    fn one_change(&self) -> Result<tokio::sync::MutexGuard<'_, ()>, Refusal> {
        self.changing.try_lock().map_err(|_| {
            let sentence = "another change of the group is under way: ask again when it is done";
            Refusal::without_effect(Why::Busy, sentence)
        })
    }

    /// Waits for a change, but not beyond the lead.
    async fn during(&self, change: impl Future<Output = Written>) -> Result<(), Refusal> {
        let mut standing = self.standing.clone();
        let ceased = standing.wait_for(|s| s.refusal().is_some());
        tokio::select! {
            biased;
            written = change => match written {
                Ok(_) => Ok(()),
                Err(RaftError::APIError(ClientWriteError::ChangeMembershipError(e))) => {
                    let sentence = format!("the group cannot be changed now: {e}");
                    Err(Refusal::without_effect(Why::Busy, sentence))
                }
                Err(_) => Err(self.cut_short()),
            },
            _ = ceased => Err(self.cut_short()),
        }
    }

    fn cut_short(&self) -> Refusal {
        self.standing.borrow().cut_short()
    }
}

async fn alive(member: &Member, credentials: &Credentials, timing: Timing) -> bool {
    let Ok(tls) = credentials.client_config() else {
        return false;
    };
    let Ok(connection) = Connection::new(&member.address, tls, timing) else {
        return false;
    };
    let mut client = ControlClient::new(connection.channel());
    let request = StatusRequest {
        version: proto::VERSION,
    };
    let status = tokio::time::timeout(timing.connect_timeout, client.status(request)).await;
    matches!(status, Ok(Ok(reply)) if reply.get_ref().id == member.id)
}
