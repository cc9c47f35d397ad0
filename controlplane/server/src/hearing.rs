//! What other controllers say to this one: only those of the same cluster, by their certificate, are heard.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use ionian_control_client::identity::Role;
use ionian_control_client::proto::raft::append_reply::Result as AppendResult;
use ionian_control_client::proto::raft::raft_server::Raft as RaftService;
use ionian_control_client::proto::raft::{self};
use ionian_control_client::refusal::{Refusal, Why};
use ionian_control_client::tls::check_controller;
use openraft::Raft;
use openraft::error::{InstallSnapshotError, RaftError};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, VoteRequest,
};
use tonic::{Request, Response, Status};

use crate::listen::Caller;
use crate::network::Speaker;
use crate::store::{ConvertError, Fault, Types, convert};

/// When a leader was heard of last.
#[derive(Debug)]
pub(crate) struct Heard {
    origin: Instant,
    /// Milliseconds since the origin; zero before the first time.
    last_ms: AtomicU64,
}

impl Default for Heard {
    fn default() -> Self {
        Self {
            origin: Instant::now(),
            last_ms: AtomicU64::new(0),
        }
    }
}

impl Heard {
    fn now_ms(&self) -> u64 {
        u64::try_from(self.origin.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Milliseconds since a leader said something.
    pub(crate) fn silence_ms(&self) -> u64 {
        self.now_ms()
            .saturating_sub(self.last_ms.load(Ordering::Relaxed))
    }
}

/// The service that other controllers call.
#[derive(Clone)]
pub(crate) struct Hearing {
    pub(crate) raft: Raft<Types>,
    pub(crate) speaker: Arc<Speaker>,
    pub(crate) heard: Arc<Heard>,
    pub(crate) fault: Fault,
    pub(crate) snapshot_bytes_max: u64,
}

impl Hearing {
    /// The controller that calls, if it may.
    #[allow(clippy::result_large_err)]
    fn caller<T>(
        &self,
        request: &Request<T>,
        header: Option<&raft::Header>,
    ) -> Result<u64, Status> {
        let refused = |sentence| Refusal::without_effect(Why::NotPermitted, sentence).to_status();
        let caller = request
            .extensions()
            .get::<Caller>()
            .ok_or_else(|| refused("a call without a certificate".to_owned()))?;
        let stranger = |sentence: String| {
            let refusals = &self.speaker.refusals;
            refusals.note(&caller.name(), Some(caller.at), &sentence);
            refused(sentence)
        };
        let identity = caller.identity().map_err(stranger)?;
        check_controller(identity, &self.speaker.cluster).map_err(stranger)?;
        let Role::Controller(id) = identity.role else {
            return Err(refused("only controllers may do this".to_owned()));
        };
        self.speaker.check(id, Some(caller.at), header)?;
        Ok(id)
    }

    fn stopped(&self, error: &dyn std::fmt::Display) -> Status {
        let id = self.speaker.id;
        let sentence = match self.fault.get() {
            Some(fault) => fault.to_owned(),
            None => format!("controller {id} has stopped: {error}"),
        };
        Refusal::unknown_effect(Why::Stopped, sentence).to_status()
    }
}

fn strange(error: ConvertError) -> Status {
    Refusal::without_effect(Why::Invalid, error.to_string()).to_status()
}

#[tonic::async_trait]
impl RaftService for Hearing {
    async fn append(
        &self,
        request: Request<raft::AppendRequest>,
    ) -> Result<Response<raft::AppendReply>, Status> {
        let from = self.caller(&request, request.get_ref().header.as_ref())?;
        let request = request.into_inner();
        let vote = convert::from_ballot(request.ballot.as_ref()).map_err(strange)?;
        let prev = request.prev.as_ref().map(convert::from_log_id);
        let mut entries = Vec::with_capacity(request.entries.len());
        let mut next = prev.map_or(Some(0), |p| p.index.checked_add(1));
        for entry in request.entries {
            let entry = convert::from_entry(entry).map_err(strange)?;
            // Raft takes this for granted.
            if Some(entry.log_id.index) != next || entry.log_id.leader_id > vote.leader_id {
                return Err(strange(ConvertError(
                    "entries that do not follow each other",
                )));
            }
            next = entry.log_id.index.checked_add(1);
            entries.push(entry);
        }
        if !vote.committed {
            return Err(strange(ConvertError("entries from a candidate")));
        }
        let response = self
            .raft
            .append_entries(AppendEntriesRequest {
                vote,
                prev_log_id: prev,
                entries,
                leader_commit: request.commit.as_ref().map(convert::from_log_id),
            })
            .await
            .map_err(|e| self.stopped(&e))?;
        let result = match response {
            AppendEntriesResponse::Success => AppendResult::Success(true),
            AppendEntriesResponse::PartialSuccess(None) => AppendResult::Conflict(true),
            AppendEntriesResponse::PartialSuccess(Some(id)) => {
                AppendResult::Partial(convert::log_id(&id))
            }
            AppendEntriesResponse::Conflict => AppendResult::Conflict(true),
            AppendEntriesResponse::HigherVote(vote) => AppendResult::Higher(convert::ballot(&vote)),
        };
        if !matches!(result, AppendResult::Higher(_)) {
            let now = self.heard.now_ms();
            self.heard.last_ms.store(now, Ordering::Relaxed);
        }
        Ok(Response::new(raft::AppendReply {
            header: self.speaker.header(from),
            result: Some(result),
        }))
    }

    async fn vote(
        &self,
        request: Request<raft::VoteRequest>,
    ) -> Result<Response<raft::VoteReply>, Status> {
        let from = self.caller(&request, request.get_ref().header.as_ref())?;
        let request = request.into_inner();
        let vote = convert::from_ballot(request.ballot.as_ref()).map_err(strange)?;
        let last = request.last.as_ref().map(convert::from_log_id);
        let response = self
            .raft
            .vote(VoteRequest::new(vote, last))
            .await
            .map_err(|e| self.stopped(&e))?;
        Ok(Response::new(raft::VoteReply {
            header: self.speaker.header(from),
            ballot: Some(convert::ballot(&response.vote)),
            granted: response.vote_granted,
            last: response.last_log_id.as_ref().map(convert::log_id),
        }))
    }

    async fn snapshot(
        &self,
        request: Request<raft::SnapshotChunk>,
    ) -> Result<Response<raft::SnapshotReply>, Status> {
        let from = self.caller(&request, request.get_ref().header.as_ref())?;
        let chunk = request.into_inner();
        let vote = convert::from_ballot(chunk.ballot.as_ref()).map_err(strange)?;
        let meta = convert::from_snapshot_meta(chunk.meta.as_ref()).map_err(strange)?;
        let end = chunk.offset.saturating_add(chunk.data.len() as u64);
        if end > self.snapshot_bytes_max {
            let sentence = format!(
                "the snapshot is larger than the limit of {} bytes",
                self.snapshot_bytes_max
            );
            return Err(Refusal::without_effect(Why::Invalid, sentence).to_status());
        }
        let result = self
            .raft
            .install_snapshot(InstallSnapshotRequest {
                vote,
                meta,
                offset: chunk.offset,
                data: chunk.data,
                done: chunk.done,
            })
            .await;
        let mut reply = raft::SnapshotReply {
            header: self.speaker.header(from),
            ..Default::default()
        };
        match result {
            Ok(response) => reply.ballot = Some(convert::ballot(&response.vote)),
            Err(RaftError::APIError(InstallSnapshotError::SnapshotMismatch(mismatch))) => {
                reply.mismatch = true;
                reply.expected_offset = mismatch.expect.offset;
                reply.expected_id = mismatch.expect.id;
            }
            Err(RaftError::Fatal(e)) => return Err(self.stopped(&e)),
        }
        let now = self.heard.now_ms();
        self.heard.last_ms.store(now, Ordering::Relaxed);
        Ok(Response::new(reply))
    }
}
