//! What this controller says to the others, and the check of every word that is said between controllers.
//!
//! Each message names cluster, sender, receiver, protocol version and the sender's life; requests and replies are checked the
//! same way, so a mistake is seen on both sides. Messages are bounded: entries travel in runs, snapshots in chunks.
// Raft's own error type is large, and what makes one here must return it.
#![allow(clippy::result_large_err)]

use std::collections::BTreeMap;
use std::error::Error;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ionian_control_client::connect::{Connection, Timing};
use ionian_control_client::proto::raft::append_reply::Result as AppendResult;
use ionian_control_client::proto::raft::raft_client::RaftClient;
use ionian_control_client::proto::{self, raft};
use ionian_control_client::refusal::{Refusal, Why};
use ionian_control_client::tls::Credentials;
use openraft::error::{
    InstallSnapshotError, NetworkError, RPCError, RaftError, RemoteError, SnapshotMismatch,
    Unreachable,
};
use openraft::network::{Backoff, RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse,
    VoteRequest, VoteResponse,
};
use openraft::{BasicNode, SnapshotSegmentId};
use tonic::transport::Channel;

use crate::lives::Lives;
use crate::refusals::Refusals;
use crate::store::{ConvertError, LogId, Types, convert, lock};

/// The largest message between controllers, in bytes: a run of entries, or one entry of the largest size, and its envelope.
pub(crate) const MESSAGE_BYTES_MAX: usize = 4 << 20;

/// Who this controller is, in every message.
pub(crate) struct Speaker {
    pub(crate) cluster: String,
    pub(crate) id: u64,
    pub(crate) life: (u64, u64),
    pub(crate) lives: Lives,
    pub(crate) refusals: Arc<Refusals>,
    /// Controllers that are cut off from this one.
    #[cfg(test)]
    pub(crate) cut: Mutex<std::collections::BTreeSet<u64>>,
}

impl std::fmt::Debug for Speaker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Speaker")
            .field("cluster", &self.cluster)
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl Speaker {
    /// The head of a message to controller `to`.
    pub(crate) fn header(&self, to: u64) -> Option<raft::Header> {
        Some(raft::Header {
            version: proto::VERSION,
            cluster: self.cluster.clone(),
            from: self.id,
            to,
            starts: self.life.0,
            run: self.life.1,
        })
    }

    /// Checks the head of a message from `from`, whom the certificate names, and who is at `at`.
    ///
    /// # Errors
    /// The refusal; the operator's log has it too.
    pub(crate) fn check(
        &self,
        from: u64,
        at: Option<SocketAddr>,
        header: Option<&raft::Header>,
    ) -> Result<(), Refusal> {
        let refused = |why: Why, sentence: String| {
            let who = format!("controller {from}");
            self.refusals.note(&who, at, &sentence);
            Err(Refusal::without_effect(why, sentence))
        };
        let Some(header) = header else {
            let sentence = format!("controller {from} sent a message without a head");
            return refused(Why::Invalid, sentence);
        };
        if let Err(sentence) = proto::check_version(&format!("controller {from}"), header.version) {
            return refused(Why::Version, sentence);
        }
        if header.cluster != self.cluster {
            let sentence = format!(
                "controller {from} is of cluster {:.63}, this one of {}",
                header.cluster, self.cluster
            );
            return refused(Why::NotPermitted, sentence);
        }
        if header.from != from || header.to != self.id {
            let sentence = format!(
                "a message from controller {} to {} came from controller {from} to {}: two controllers have one address, or one was started under a wrong number",
                header.from, header.to, self.id
            );
            return refused(Why::NotPermitted, sentence);
        }
        #[cfg(test)]
        if lock(&self.cut).contains(&from) {
            return Err(Refusal::unknown_effect(Why::Unreachable, "cut off"));
        }
        match self.lives.hear(from, header.starts, header.run) {
            Ok(()) => Ok(()),
            Err(sentence) => refused(Why::NotPermitted, sentence),
        }
    }
}

/// Makes ways to other controllers.
#[derive(Clone, Debug)]
pub(crate) struct Network {
    pub(crate) speaker: Arc<Speaker>,
    pub(crate) credentials: Credentials,
    pub(crate) timing: Timing,
    /// One connection to each other controller, whatever it is needed for: an election must not wait for handshakes.
    pub(crate) connections: Arc<Mutex<BTreeMap<u64, Connection>>>,
}

impl Network {
    fn connection(&self, target: u64, address: &str) -> Result<Connection, String> {
        let mut connections = lock(&self.connections);
        if let Some(known) = connections.get(&target)
            && known.address() == address
        {
            return Ok(known.clone());
        }
        let tls = self.credentials.client_config();
        let tls = tls.map_err(|e| e.to_string())?;
        let connection = Connection::new(address, tls, self.timing)?;
        connections.insert(target, connection.clone());
        Ok(connection)
    }
}

impl RaftNetworkFactory<Types> for Network {
    type Network = Peer;

    async fn new_client(&mut self, target: u64, node: &BasicNode) -> Peer {
        let connection = self.connection(target, &node.addr);
        Peer {
            speaker: self.speaker.clone(),
            target,
            connection,
            acknowledged: None,
        }
    }
}

/// The way to one other controller, for one purpose of one lead.
#[derive(Debug)]
pub(crate) struct Peer {
    speaker: Arc<Speaker>,
    target: u64,
    connection: Result<Connection, String>,
    /// The index up to which it has the log, by its own word in this lead.
    acknowledged: Option<u64>,
}

/// A failure that is not Raft's business.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Said(String);

type RpcError<E = RaftError<u64>> = RPCError<u64, BasicNode, E>;

fn unreachable<E: Error>(sentence: String) -> RpcError<E> {
    RPCError::Unreachable(Unreachable::new(&Said(sentence)))
}

fn strange<E: Error>(error: ConvertError) -> RpcError<E> {
    RPCError::Network(NetworkError::new(&Said(error.to_string())))
}

impl Peer {
    fn client<E: Error>(&self) -> Result<RaftClient<Channel>, RpcError<E>> {
        #[cfg(test)]
        if lock(&self.speaker.cut).contains(&self.target) {
            return Err(unreachable("cut off".to_owned()));
        }
        let connection = self
            .connection
            .as_ref()
            .map_err(|e| unreachable(e.clone()))?;
        Ok(RaftClient::new(connection.channel())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX))
    }

    fn failed<E: Error>(&self, status: &tonic::Status) -> RpcError<E> {
        let refusal = Refusal::from_status(status);
        if refusal.why != Why::Unreachable {
            let target = self.target;
            let sentence = format!("controller {target} refused this one: {refusal}");
            self.speaker.refusals.say(&sentence);
            return unreachable(sentence);
        }
        unreachable(match &self.connection {
            Ok(connection) => connection.failure(status),
            Err(sentence) => sentence.clone(),
        })
    }

    fn heard<E: Error>(&self, header: Option<&raft::Header>) -> Result<(), RpcError<E>> {
        self.speaker
            .check(self.target, None, header)
            .map_err(|refusal| unreachable(refusal.sentence))
    }
}

impl RaftNetwork<Types> for Peer {
    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<Types>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<u64>, RpcError> {
        let mut client = self.client()?;
        let last = rpc
            .entries
            .last()
            .map_or(rpc.prev_log_id, |e| Some(e.log_id));
        let request = raft::AppendRequest {
            header: self.speaker.header(self.target),
            ballot: Some(convert::ballot(&rpc.vote)),
            prev: rpc.prev_log_id.as_ref().map(convert::log_id),
            entries: rpc.entries.iter().map(convert::entry).collect(),
            commit: rpc.leader_commit.as_ref().map(convert::log_id),
        };
        let reply = client.append(request).await.map_err(|s| self.failed(&s))?;
        let reply = reply.into_inner();
        self.heard(reply.header.as_ref())?;
        let none = || strange(ConvertError("an answer that says nothing"));
        let index = |id: Option<LogId>| id.map(|id| id.index);
        Ok(match reply.result.ok_or_else(none)? {
            AppendResult::Success(_) => {
                self.acknowledged = self.acknowledged.max(index(last));
                AppendEntriesResponse::Success
            }
            AppendResult::Partial(upto) => {
                let upto = convert::from_log_id(&upto);
                // It cannot have more than it was sent.
                if Some(upto) > last || Some(upto) < rpc.prev_log_id {
                    return Err(strange(ConvertError(
                        "an answer about entries that were not sent",
                    )));
                }
                self.acknowledged = self.acknowledged.max(Some(upto.index));
                AppendEntriesResponse::PartialSuccess(Some(upto))
            }
            AppendResult::Conflict(_) => {
                if rpc.prev_log_id.is_none() {
                    return Err(strange(ConvertError("a conflict before the first entry")));
                }
                if index(rpc.prev_log_id) <= self.acknowledged {
                    let target = self.target;
                    let sentence = format!(
                        "controller {target} lacks entry {} that it has acknowledged: its folder was put back from an old copy. Stop it, remove it from the group, and add a new controller under a new number",
                        index(rpc.prev_log_id).unwrap_or_default()
                    );
                    self.speaker.refusals.say(&sentence);
                    return Err(unreachable(sentence));
                }
                AppendEntriesResponse::Conflict
            }
            AppendResult::Higher(ballot) => {
                let higher = convert::from_ballot(Some(&ballot)).map_err(strange)?;
                if higher <= rpc.vote {
                    return Err(strange(ConvertError("a higher vote that is not higher")));
                }
                AppendEntriesResponse::HigherVote(higher)
            }
        })
    }

    async fn install_snapshot(
        &mut self,
        rpc: InstallSnapshotRequest<Types>,
        _option: RPCOption,
    ) -> Result<InstallSnapshotResponse<u64>, RpcError<RaftError<u64, InstallSnapshotError>>> {
        let mut client = self.client()?;
        let request = raft::SnapshotChunk {
            header: self.speaker.header(self.target),
            ballot: Some(convert::ballot(&rpc.vote)),
            meta: Some(convert::snapshot_meta(&rpc.meta)),
            offset: rpc.offset,
            data: rpc.data,
            done: rpc.done,
        };
        let reply = client
            .snapshot(request)
            .await
            .map_err(|s| self.failed(&s))?;
        let reply = reply.into_inner();
        self.heard(reply.header.as_ref())?;
        if reply.mismatch {
            let error = InstallSnapshotError::SnapshotMismatch(SnapshotMismatch {
                expect: SnapshotSegmentId {
                    id: reply.expected_id,
                    offset: reply.expected_offset,
                },
                got: SnapshotSegmentId {
                    id: rpc.meta.snapshot_id,
                    offset: rpc.offset,
                },
            });
            let remote = RemoteError::new(self.target, RaftError::APIError(error));
            return Err(RPCError::RemoteError(remote));
        }
        let vote = convert::from_ballot(reply.ballot.as_ref()).map_err(strange)?;
        Ok(InstallSnapshotResponse { vote })
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<u64>,
        _option: RPCOption,
    ) -> Result<VoteResponse<u64>, RpcError> {
        let mut client = self.client()?;
        let request = raft::VoteRequest {
            header: self.speaker.header(self.target),
            ballot: Some(convert::ballot(&rpc.vote)),
            last: rpc.last_log_id.as_ref().map(convert::log_id),
        };
        let reply = client.vote(request).await.map_err(|s| self.failed(&s))?;
        let reply = reply.into_inner();
        self.heard(reply.header.as_ref())?;
        Ok(VoteResponse {
            vote: convert::from_ballot(reply.ballot.as_ref()).map_err(strange)?,
            vote_granted: reply.granted,
            last_log_id: reply.last.as_ref().map(convert::from_log_id),
        })
    }

    fn backoff(&self) -> Backoff {
        let steps = [20_u64, 40, 80, 160];
        let steps = steps.into_iter().chain(std::iter::repeat(200));
        Backoff::new(steps.map(Duration::from_millis))
    }
}
