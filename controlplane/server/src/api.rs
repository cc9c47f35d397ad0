//! The calls of nodes and operators: who asks is known from the certificate, what is asked is bounded in size and time.

use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ionian_control_client::identity::{Identity, Role};
use ionian_control_client::proto;
use ionian_control_client::proto::control::control_server::Control;
use ionian_control_client::proto::control::{
    AddControllerRequest, AttachMessage, FoundRequest, MembersReply, MembersRequest, Opening,
    OperateReply, OperateRequest, RemoveControllerRequest, StatusReply, StatusRequest, WatchEvent,
    WatchRequest, attach_message,
};
use ionian_control_client::refusal::{Refusal, Why};
use ionian_control_client::tls::check_cluster;
use openraft::Raft;
use tokio::sync::{Notify, Semaphore, broadcast, mpsc, oneshot, watch};
use tokio_stream::Stream;
use tonic::{Request, Response, Status, Streaming};

use crate::group::Group;
use crate::leader::{ConnLimits, Outgoing, Peer, ToLead, outgoing};
use crate::listen::Caller;
use crate::machine::{Call, StateMachine};
use crate::refusals::Refusals;
use crate::standing::Standing;
use crate::store::{Applied, Replicated, StateStore, Types, lock};

/// Events that wait for one watcher.
const EVENTS_QUEUED: usize = 64;

/// The service that nodes and users call.
pub(crate) struct Api<S> {
    pub(crate) id: u64,
    pub(crate) cluster: String,
    /// What others call it by.
    pub(crate) advertised: String,
    pub(crate) raft: Raft<Types>,
    pub(crate) machine: StateStore<S>,
    pub(crate) replicated: Arc<Mutex<Replicated<S>>>,
    pub(crate) standing: watch::Receiver<Standing>,
    pub(crate) group: Arc<Group<S>>,
    pub(crate) lead: mpsc::Sender<ToLead>,
    pub(crate) room: Arc<Notify>,
    pub(crate) attached: Arc<AtomicUsize>,
    pub(crate) watchers: Arc<Semaphore>,
    pub(crate) limits: ConnLimits,
    pub(crate) request_bytes_max: usize,
    pub(crate) call_timeout: Duration,
    pub(crate) refusals: Arc<Refusals>,
}

impl<S: StateMachine> Api<S> {
    /// Who calls, if it may do `call` and is understood. Whoever is not of this cluster, or of a later protocol, is told to the
    /// operator too.
    fn admit<T>(
        &self,
        request: &Request<T>,
        version: u32,
        call: Call,
    ) -> Result<Identity, Refusal> {
        let denied = |sentence: String| Refusal::without_effect(Why::NotPermitted, sentence);
        let caller = request.extensions().get::<Caller>();
        let caller = caller.ok_or_else(|| denied("a call without a certificate".to_owned()))?;
        let stranger = |sentence: String| {
            self.note(Some(caller), &sentence);
            denied(sentence)
        };
        let identity = caller.identity().map_err(stranger)?;
        check_cluster(identity, &self.cluster).map_err(stranger)?;
        self.check_version(Some(caller), identity, version)?;
        lock(&self.replicated)
            .machine
            .permits(identity, call)
            .map_err(denied)?;
        Ok(identity.clone())
    }

    fn note(&self, caller: Option<&Caller>, why: &str) {
        let who = caller.map_or_else(String::new, Caller::name);
        self.refusals
            .note(&who, caller.map(|caller| caller.at), why);
    }

    fn check_version(
        &self,
        caller: Option<&Caller>,
        identity: &Identity,
        version: u32,
    ) -> Result<(), Refusal> {
        proto::check_version(&identity.to_string(), version).map_err(|sentence| {
            self.note(caller, &sentence);
            Refusal::without_effect(Why::Version, sentence)
        })
    }

    /// Refuses at once what only a leader with a majority can do.
    fn leads(&self) -> Result<(), Refusal> {
        match self.standing.borrow().refusal() {
            Some(refusal) => Err(refusal),
            None => Ok(()),
        }
    }

    /// Waits for an answer of the lead, but neither beyond the time limit nor when there is no lead any more.
    async fn answer<T>(&self, answer: oneshot::Receiver<Result<T, Refusal>>) -> Result<T, Refusal> {
        match tokio::time::timeout(self.call_timeout, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(self.standing.borrow().cut_short()),
            Err(_) => {
                let sentence = format!("no answer within {} s", self.call_timeout.as_secs());
                Err(Refusal::unknown_effect(Why::Timeout, sentence))
            }
        }
    }

    async fn tell(&self, message: ToLead) -> Result<(), Refusal> {
        let sent = tokio::time::timeout(self.call_timeout, self.lead.send(message)).await;
        if matches!(sent, Ok(Ok(()))) {
            return Ok(());
        }
        let sentence = "the controller has too much to do";
        Err(Refusal::without_effect(Why::Busy, sentence))
    }

    /// Runs a change of the group to its end, even if the caller goes away.
    async fn change(
        &self,
        change: impl Future<Output = Result<MembersReply, Refusal>> + Send + 'static,
    ) -> Result<Response<MembersReply>, Status> {
        match tokio::spawn(change).await {
            Ok(members) => Ok(Response::new(members?)),
            Err(_) => {
                let sentence = "the change of the group was broken off";
                Err(Refusal::unknown_effect(Why::Stopped, sentence).into())
            }
        }
    }
}

#[tonic::async_trait]
impl<S: StateMachine> Control for Api<S> {
    type AttachStream = Outgoing;
    type WatchStream = Pin<Box<dyn Stream<Item = Result<WatchEvent, Status>> + Send>>;

    async fn attach(
        &self,
        request: Request<Streaming<AttachMessage>>,
    ) -> Result<Response<Outgoing>, Status> {
        // The version comes with the first message.
        let caller = self.admit(&request, proto::VERSION, Call::Attach)?;
        self.leads()?;
        let from = request.extensions().get::<Caller>().cloned();
        let mut incoming = request.into_inner();
        let first = tokio::time::timeout(self.call_timeout, incoming.message()).await;
        let Ok(Ok(Some(AttachMessage {
            kind: Some(attach_message::Kind::Opening(opening)),
        }))) = first
        else {
            let sentence = "an attachment begins with its opening";
            return Err(Refusal::without_effect(Why::Invalid, sentence).into());
        };
        self.check_version(from.as_ref(), &caller, opening.version)?;
        let peer = Peer {
            name: caller.to_string(),
            at: from.map(|from| from.at),
        };
        let (end, mut stream) = outgoing(self.limits, peer, &self.lead, &self.room);
        let opening = Opening {
            version: proto::VERSION,
            controller: self.id,
        };
        end.send(attach_message::Kind::Opening(opening), 0);
        let (opened, answer) = oneshot::channel();
        self.tell(ToLead::Open {
            caller,
            outgoing: end,
            opened,
        })
        .await?;
        let conn = self.answer(answer).await?;
        stream.belongs_to(conn);
        let lead = self.lead.clone();
        tokio::spawn(async move {
            let why = loop {
                match incoming.message().await {
                    Ok(Some(AttachMessage {
                        kind: Some(attach_message::Kind::Frame(bytes)),
                    })) => {
                        if lead.send(ToLead::Message { conn, bytes }).await.is_err() {
                            return;
                        }
                    }
                    Ok(Some(_)) => break Some("only frames follow an opening".to_owned()),
                    Ok(None) => break None,
                    Err(status) => break Some(status.message().to_owned()),
                }
            };
            let why = why.map(|sentence| Refusal::unknown_effect(Why::Invalid, sentence));
            // The lead may be over, and the controller too.
            let _ = lead.send(ToLead::Closed { conn, why }).await;
        });
        Ok(Response::new(stream))
    }

    async fn operate(
        &self,
        request: Request<OperateRequest>,
    ) -> Result<Response<OperateReply>, Status> {
        let caller = self.admit(&request, request.get_ref().version, Call::Operate)?;
        self.leads()?;
        let request = request.into_inner().request;
        if request.len() > self.request_bytes_max {
            let sentence = format!(
                "a request of {} bytes is larger than the limit of {}",
                request.len(),
                self.request_bytes_max
            );
            return Err(Refusal::without_effect(Why::Invalid, sentence).into());
        }
        let (reply, answer) = oneshot::channel();
        self.tell(ToLead::Ask {
            caller,
            request,
            reply,
        })
        .await?;
        let reply = self.answer(answer).await?;
        Ok(Response::new(OperateReply { reply }))
    }

    async fn members(
        &self,
        request: Request<MembersRequest>,
    ) -> Result<Response<MembersReply>, Status> {
        self.admit(&request, request.get_ref().version, Call::Look)?;
        Ok(Response::new(self.group.members()))
    }

    async fn found(
        &self,
        request: Request<FoundRequest>,
    ) -> Result<Response<MembersReply>, Status> {
        self.admit(&request, request.get_ref().version, Call::ChangeGroup)?;
        let (group, advertised) = (self.group.clone(), self.advertised.clone());
        let timeout = self.call_timeout;
        self.change(async move { group.found(&advertised, timeout).await })
            .await
    }

    async fn add_controller(
        &self,
        request: Request<AddControllerRequest>,
    ) -> Result<Response<MembersReply>, Status> {
        let add = request.get_ref();
        // A controller may add itself: whoever holds the CA's key has made its certificate for that.
        let itself = request
            .extensions()
            .get::<Caller>()
            .and_then(|c| c.identity().ok())
            .is_some_and(|i| i.role == Role::Controller(add.id));
        let call = if itself {
            Call::Look
        } else {
            Call::ChangeGroup
        };
        self.admit(&request, add.version, call)?;
        self.leads()?;
        let (group, add) = (self.group.clone(), request.into_inner());
        self.change(async move { group.add(add.id, add.address).await })
            .await
    }

    async fn remove_controller(
        &self,
        request: Request<RemoveControllerRequest>,
    ) -> Result<Response<MembersReply>, Status> {
        self.admit(&request, request.get_ref().version, Call::ChangeGroup)?;
        self.leads()?;
        let (group, id) = (self.group.clone(), request.into_inner().id);
        self.change(async move { group.remove(id).await }).await
    }

    async fn status(
        &self,
        request: Request<StatusRequest>,
    ) -> Result<Response<StatusReply>, Status> {
        self.admit(&request, request.get_ref().version, Call::Look)?;
        Ok(Response::new(self.status_now()))
    }

    async fn watch(
        &self,
        request: Request<WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        self.admit(&request, request.get_ref().version, Call::Watch)?;
        let Ok(permit) = self.watchers.clone().try_acquire_owned() else {
            let sentence = "too many watch the cluster's state already";
            return Err(Refusal::without_effect(Why::Busy, sentence).into());
        };
        // First the events, then the version: what comes between is told twice to this task and once to the watcher.
        let mut applied = self.machine.watch();
        let start = lock(&self.replicated).version;
        let (events, stream) = mpsc::channel(EVENTS_QUEUED);
        tokio::spawn(async move {
            let _permit = permit;
            let first = WatchEvent {
                state_version: start,
                event: Vec::new(),
            };
            if events.send(Ok(first)).await.is_err() {
                return;
            }
            loop {
                let next = tokio::select! {
                    next = applied.recv() => next,
                    () = events.closed() => return,
                };
                let event = match next {
                    Ok(Applied { version, .. }) if version <= start => continue,
                    Ok(Applied { version, event }) => Ok(WatchEvent {
                        state_version: version,
                        event: event.to_vec(),
                    }),
                    Err(broadcast::error::RecvError::Closed) => return,
                    Err(broadcast::error::RecvError::Lagged(n)) => {
                        let sentence = format!("too slow: {n} events were missed, watch again");
                        Err(Refusal::without_effect(Why::TooSlow, sentence).to_status())
                    }
                };
                let last = event.is_err();
                if events.send(event).await.is_err() || last {
                    return;
                }
            }
        });
        let stream = tokio_stream::wrappers::ReceiverStream::new(stream);
        Ok(Response::new(Box::pin(stream)))
    }
}

impl<S: StateMachine> Api<S> {
    fn status_now(&self) -> StatusReply {
        let metrics = self.raft.metrics().borrow().clone();
        let members = self.group.members();
        StatusReply {
            id: self.id,
            cluster: self.cluster.clone(),
            standing: self.standing.borrow().to_string(),
            leader: members.leader,
            term: metrics.current_term,
            state_version: lock(&self.replicated).version,
            last_log_index: metrics.last_log_index.unwrap_or_default(),
            applied_index: metrics.last_applied.map_or(0, |l| l.index),
            snapshot_index: metrics.snapshot.map_or(0, |l| l.index),
            purged_index: metrics.purged.map_or(0, |l| l.index),
            members: members.members,
            attached: self.attached.load(Ordering::Relaxed) as u64,
        }
    }
}
