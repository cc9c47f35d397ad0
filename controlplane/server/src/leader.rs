//! The lead: while this controller leads, a brain lives here, hears processes and operators, and proposes commands.
//!
//! A lead begins with an entry of its own, `Lead`. When that is applied, so is everything an earlier brain could have changed; what it
//! has proposed and is not yet in the log is void from then on (see [`crate::store::Replicated`]). The brain is made from the state of that moment.
//! Its commands travel in entries, several at once if they gather while earlier ones are under way, at most
//! [`ENTRIES_UNDER_WAY`] at a time. A lead ends when the standing changes or an entry does not follow; then the brain is dropped, processes are told where
//! to go, and operators that an answer of unknown effect.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use ionian_control_client::identity::Identity;
use ionian_control_client::proto::control::{AttachMessage, attach_message};
use ionian_control_client::proto::raft as proto;
use ionian_control_client::refusal::{Refusal, Why};
use openraft::Raft;
use openraft::impls::OneshotResponder;
use openraft::raft::responder::Responder;
use prost::bytes::Bytes;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tonic::Status;

use crate::machine::{Brain, CallId, ConnId, Input, MakeBrain, Output, Report, Room};
use crate::refusals::Refusals;
use crate::standing::Standing;
use crate::store::{Outcome, Replicated, Types, lock};

/// Entries of commands under way at a time.
const ENTRIES_UNDER_WAY: usize = 4;
/// Commands of one entry.
const COMMANDS_PER_ENTRY: usize = 256;
/// An entry takes no further command beyond this many bytes.
const ENTRY_BYTES: usize = 512 << 10;
/// While this many bytes of commands wait, the brain hears nothing new.
const WAITING_BYTES_MAX: usize = 8 << 20;
/// What the brain does in a row before others get a turn.
const OUTPUTS_IN_A_ROW: usize = 256;

/// What handlers of calls tell the lead.
pub(crate) enum ToLead {
    Open {
        caller: Identity,
        outgoing: OutgoingEnd,
        opened: oneshot::Sender<Result<ConnId, Refusal>>,
    },
    Message {
        conn: ConnId,
        bytes: Bytes,
    },
    Closed {
        conn: ConnId,
        /// What the process is told, if it can still be told.
        why: Option<Refusal>,
    },
    Ask {
        caller: Identity,
        request: Vec<u8>,
        reply: oneshot::Sender<Result<Vec<u8>, Refusal>>,
    },
}

/// Limits of one process's connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ConnLimits {
    pub(crate) messages: usize,
    pub(crate) bytes: usize,
}

/// Who is at the other end of a connection, for the operator.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub(crate) name: String,
    pub(crate) at: Option<SocketAddr>,
}

/// What is on its way to a process: the lead's end.
pub(crate) struct OutgoingEnd {
    peer: Peer,
    messages: mpsc::Sender<(AttachMessage, usize)>,
    queued_bytes: Arc<AtomicUsize>,
    ended: Arc<Mutex<Option<Status>>>,
    bytes_max: usize,
}

impl OutgoingEnd {
    fn room(&self) -> usize {
        if self.messages.capacity() == 0 {
            return 0;
        }
        let queued = self.queued_bytes.load(Ordering::Acquire);
        self.bytes_max.saturating_sub(queued)
    }

    /// False if there is no room.
    pub(crate) fn send(&self, kind: attach_message::Kind, len: usize) -> bool {
        if self.room() < len {
            return false;
        }
        self.queued_bytes.fetch_add(len, Ordering::AcqRel);
        let message = AttachMessage { kind: Some(kind) };
        self.messages.try_send((message, len)).is_ok()
    }

    fn end(self, refusal: &Refusal) {
        *lock(&self.ended) = Some(refusal.to_status());
    }
}

/// The other end: the stream that the process reads. It ends with the reason that the lead gave.
pub(crate) struct Outgoing {
    messages: mpsc::Receiver<(AttachMessage, usize)>,
    queued_bytes: Arc<AtomicUsize>,
    ended: Arc<Mutex<Option<Status>>>,
    /// Tells the lead that there is room again.
    room: Arc<Notify>,
    /// Tells the lead that the process is gone, when dropped.
    _gone: Gone,
}

/// Tells the lead of a connection's end, whichever way it ends.
pub(crate) struct Gone {
    conn: Option<ConnId>,
    lead: mpsc::Sender<ToLead>,
}

impl Drop for Gone {
    fn drop(&mut self) {
        let Some(conn) = self.conn else { return };
        let lead = self.lead.clone();
        // Dropped outside of a runtime only when the controller is gone, too.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { drop(lead.send(ToLead::Closed { conn, why: None }).await) });
        }
    }
}

/// Makes both ends.
pub(crate) fn outgoing(
    limits: ConnLimits,
    peer: Peer,
    lead: &mpsc::Sender<ToLead>,
    room: &Arc<Notify>,
) -> (OutgoingEnd, Outgoing) {
    let (sender, receiver) = mpsc::channel(limits.messages);
    let queued_bytes = Arc::new(AtomicUsize::new(0));
    let ended = Arc::new(Mutex::new(None));
    let end = OutgoingEnd {
        peer,
        messages: sender,
        queued_bytes: queued_bytes.clone(),
        ended: ended.clone(),
        bytes_max: limits.bytes,
    };
    let stream = Outgoing {
        messages: receiver,
        queued_bytes,
        ended,
        room: room.clone(),
        _gone: Gone {
            conn: None,
            lead: lead.clone(),
        },
    };
    (end, stream)
}

impl Outgoing {
    /// From here on the lead hears when this is dropped.
    pub(crate) fn belongs_to(&mut self, conn: ConnId) {
        self._gone.conn = Some(conn);
    }
}

impl tokio_stream::Stream for Outgoing {
    type Item = Result<AttachMessage, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match self.messages.poll_recv(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Some((message, len))) => {
                self.queued_bytes.fetch_sub(len, Ordering::AcqRel);
                self.room.notify_one();
                Poll::Ready(Some(Ok(message)))
            }
            Poll::Ready(None) => {
                let ended = lock(&self.ended).take();
                Poll::Ready(ended.map(Err))
            }
        }
    }
}

/// What leads are made of.
pub(crate) struct Leader<S> {
    pub(crate) id: u64,
    pub(crate) run: u64,
    pub(crate) raft: Raft<Types>,
    pub(crate) replicated: Arc<Mutex<Replicated<S>>>,
    pub(crate) make: Arc<dyn MakeBrain<S>>,
    pub(crate) standing: watch::Receiver<Standing>,
    pub(crate) inputs: mpsc::Receiver<ToLead>,
    pub(crate) room: Arc<Notify>,
    pub(crate) attached: Arc<AtomicUsize>,
    pub(crate) attached_max: usize,
    pub(crate) command_bytes_max: usize,
    pub(crate) confirm_timeout: Duration,
    pub(crate) report: Report,
    pub(crate) refusals: Arc<Refusals>,
}

type Written = <OneshotResponder<Types> as Responder<Types>>::Receiver;

/// A brain at work, with everything that ends with it.
struct Lead {
    brain: Box<dyn Brain>,
    entry: u64,
    conns: Conns,
    calls: BTreeMap<CallId, oneshot::Sender<Result<Vec<u8>, Refusal>>>,
    /// Commands that are not yet proposed, and how many bytes they have.
    waiting: VecDeque<Vec<u8>>,
    waiting_bytes: usize,
    /// The version after everything proposed.
    proposed: u64,
    /// Entries under way, with the version after each.
    under_way: VecDeque<(u64, Written)>,
}

#[derive(Default)]
struct Conns(BTreeMap<ConnId, OutgoingEnd>);

impl Room for Conns {
    fn room(&self, conn: ConnId) -> usize {
        self.0.get(&conn).map_or(0, OutgoingEnd::room)
    }
}

/// Why a lead ends, beyond a change of the standing.
struct Ended(Option<String>);

impl<S: Send + Sync + 'static> Leader<S> {
    /// Leads whenever this controller may, until everybody who could ask is gone.
    pub(crate) async fn run(mut self) {
        let origin = Instant::now();
        let (mut next_id, mut count) = (0_u64, 0_u64);
        loop {
            let standing = self.standing.borrow_and_update().clone();
            if let Standing::Leads { term } = standing {
                count += 1;
                match self.begin(origin, count).await {
                    Ok(mut lead) => {
                        let ended = self.lead(&mut lead, term, origin, &mut next_id).await;
                        let Some(ended) = ended else { return };
                        if let Some(sentence) = ended.0 {
                            (self.report)(&format!("controller {}: {sentence}", self.id));
                        }
                        self.end(lead);
                    }
                    Err(Ended(sentence)) => {
                        if let Some(sentence) = sentence {
                            (self.report)(&format!("controller {}: {sentence}", self.id));
                        }
                        // Raft says no sooner than the standing does: give it a turn.
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                }
                continue;
            }
            tokio::select! {
                changed = self.standing.changed() => if changed.is_err() { return },
                input = self.inputs.recv() => match input {
                    Some(input) => refuse(input, &standing),
                    None => return,
                },
            }
        }
    }

    /// Writes the entry that begins a lead, and makes the brain when it is applied.
    async fn begin(&mut self, origin: Instant, count: u64) -> Result<Lead, Ended> {
        let lead = proto::Lead {
            controller: self.id,
            run: self.run,
            count,
        };
        let proposal = proto::Proposal {
            kind: Some(proto::proposal::Kind::Lead(lead)),
        };
        let raft = self.raft.clone();
        let written = raft.client_write(proposal);
        let mut standing = self.standing.clone();
        let ceased = standing.wait_for(|s| !matches!(s, Standing::Leads { .. }));
        let response = tokio::select! {
            written = written => written.map_err(|_| Ended(None))?,
            _ = ceased => return Err(Ended(None)),
        };
        let Outcome::Led { lead, version } = response.data else {
            return Err(Ended(Some(
                "the entry of a lead was not taken for one".into(),
            )));
        };
        let replicated = lock(&self.replicated);
        // A later lead may have begun; nothing else changes the version.
        if replicated.lead != lead || replicated.version != version {
            return Err(Ended(None));
        }
        let brain = self
            .make
            .make(elapsed_ns(origin), &replicated.machine, version);
        drop(replicated);
        Ok(Lead {
            brain,
            entry: lead,
            conns: Conns::default(),
            calls: BTreeMap::new(),
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            proposed: version,
            under_way: VecDeque::new(),
        })
    }

    /// Runs a lead to its end; None if the controller ends.
    async fn lead(
        &mut self,
        lead: &mut Lead,
        term: u64,
        origin: Instant,
        next_id: &mut u64,
    ) -> Option<Ended> {
        loop {
            if let Err(ended) = self.work(lead, origin).await {
                return Some(ended);
            }
            let now_ns = elapsed_ns(origin);
            let deadline = lead.brain.next_deadline_ns();
            let wait = deadline.map(|at| Duration::from_nanos(at.saturating_sub(now_ns)));
            let hears = lead.waiting_bytes < WAITING_BYTES_MAX;
            tokio::select! {
                biased;
                changed = self.standing.changed() => {
                    changed.ok()?;
                    if *self.standing.borrow_and_update() != (Standing::Leads { term }) {
                        return Some(Ended(None));
                    }
                }
                written = first(&mut lead.under_way) => {
                    if let Err(ended) = applied(lead, elapsed_ns(origin), written) {
                        return Some(ended);
                    }
                }
                () = self.room.notified() => {}
                () = sleep(wait) => lead.brain.handle(elapsed_ns(origin), Input::Deadline),
                input = self.inputs.recv(), if hears => {
                    self.hear(lead, input?, elapsed_ns(origin), next_id);
                }
            }
        }
    }

    fn hear(&mut self, lead: &mut Lead, input: ToLead, now_ns: u64, next_id: &mut u64) {
        match input {
            ToLead::Open {
                caller,
                outgoing,
                opened,
            } => {
                if lead.conns.0.len() >= self.attached_max {
                    let sentence = format!(
                        "{} processes are attached, no more are taken",
                        self.attached_max
                    );
                    let _ = opened.send(Err(Refusal::without_effect(Why::Busy, sentence)));
                    return;
                }
                *next_id += 1;
                let conn = ConnId(*next_id);
                if opened.send(Ok(conn)).is_ok() {
                    lead.conns.0.insert(conn, outgoing);
                    self.attached.store(lead.conns.0.len(), Ordering::Relaxed);
                    let caller = &caller;
                    lead.brain.handle(now_ns, Input::Opened { conn, caller });
                }
            }
            // What comes by a connection that has ended meanwhile, or by one of an earlier lead, counts for nothing.
            ToLead::Message { conn, bytes } => {
                if lead.conns.0.contains_key(&conn) {
                    let bytes = &bytes;
                    lead.brain.handle(now_ns, Input::Message { conn, bytes });
                }
            }
            ToLead::Closed { conn, why } => {
                if let Some(outgoing) = lead.conns.0.remove(&conn) {
                    if let Some(why) = why {
                        outgoing.end(&why);
                    }
                    self.attached.store(lead.conns.0.len(), Ordering::Relaxed);
                    lead.brain.handle(now_ns, Input::Closed { conn });
                }
            }
            ToLead::Ask {
                caller,
                request,
                reply,
            } => {
                lead.calls.retain(|_, reply| !reply.is_closed());
                *next_id += 1;
                let call = CallId(*next_id);
                lead.calls.insert(call, reply);
                let (caller, request) = (&caller, &request[..]);
                let input = Input::Asked {
                    call,
                    caller,
                    request,
                };
                lead.brain.handle(now_ns, input);
            }
        }
    }

    /// Does what the brain wants, and proposes what it has given.
    async fn work(&mut self, lead: &mut Lead, origin: Instant) -> Result<(), Ended> {
        let mut done = 0;
        while let Some(output) = lead.brain.poll(elapsed_ns(origin), &lead.conns) {
            self.act(lead, output, elapsed_ns(origin))?;
            done += 1;
            if done % OUTPUTS_IN_A_ROW == 0 {
                self.propose(lead).await?;
                tokio::task::yield_now().await;
                if !matches!(*self.standing.borrow(), Standing::Leads { .. }) {
                    return Ok(());
                }
            }
            if lead.waiting_bytes >= WAITING_BYTES_MAX {
                break;
            }
        }
        self.propose(lead).await
    }

    fn act(&self, lead: &mut Lead, output: Output, now_ns: u64) -> Result<(), Ended> {
        match output {
            Output::Propose { command } => {
                if command.len() > self.command_bytes_max {
                    let sentence = format!(
                        "a command of {} bytes is larger than the limit of {}: the lead ends",
                        command.len(),
                        self.command_bytes_max
                    );
                    return Err(Ended(Some(sentence)));
                }
                lead.waiting_bytes += command.len();
                lead.waiting.push_back(command);
            }
            Output::Send { conn, bytes } => {
                let len = bytes.len();
                let sent = lead
                    .conns
                    .0
                    .get(&conn)
                    .is_none_or(|c| c.send(attach_message::Kind::Frame(bytes.into()), len));
                if !sent {
                    let sentence = "too slow: what was to be sent found no room";
                    let refusal = Refusal::unknown_effect(Why::TooSlow, sentence);
                    self.close(lead, conn, &refusal, now_ns);
                }
            }
            Output::Refused { conn, reason } => {
                if let Some(outgoing) = lead.conns.0.get(&conn) {
                    let Peer { name, at } = &outgoing.peer;
                    self.refusals.note(name, *at, &reason);
                }
            }
            Output::Close { conn, reason } => {
                let refusal = Refusal::unknown_effect(Why::Invalid, reason);
                self.close(lead, conn, &refusal, now_ns);
            }
            Output::Reply { call, answer } => {
                let Some(reply) = lead.calls.remove(&call) else {
                    return Ok(());
                };
                match answer {
                    Err(sentence) => {
                        // The caller may have gone.
                        let _ = reply.send(Err(Refusal::without_effect(Why::Invalid, sentence)));
                    }
                    Ok(answer) => {
                        let (raft, timeout) = (self.raft.clone(), self.confirm_timeout);
                        tokio::spawn(async move {
                            let _ = reply.send(confirm(&raft, timeout).await.map(|()| answer));
                        });
                    }
                }
            }
        }
        Ok(())
    }

    fn close(&self, lead: &mut Lead, conn: ConnId, refusal: &Refusal, now_ns: u64) {
        if let Some(outgoing) = lead.conns.0.remove(&conn) {
            outgoing.end(refusal);
            self.attached.store(lead.conns.0.len(), Ordering::Relaxed);
            lead.brain.handle(now_ns, Input::Closed { conn });
        }
    }

    /// Puts waiting commands into the log, as many in an entry as have gathered.
    async fn propose(&self, lead: &mut Lead) -> Result<(), Ended> {
        while lead.under_way.len() < ENTRIES_UNDER_WAY && !lead.waiting.is_empty() {
            let (mut commands, mut bytes) = (Vec::new(), 0);
            while let Some(command) = lead.waiting.front()
                && commands.len() < COMMANDS_PER_ENTRY
                && (commands.is_empty() || bytes + command.len() <= ENTRY_BYTES)
            {
                bytes += command.len();
                commands.extend(lead.waiting.pop_front());
            }
            lead.waiting_bytes -= bytes;
            let version = lead.proposed;
            lead.proposed += commands.len() as u64;
            let commands = proto::Commands {
                lead: lead.entry,
                version,
                commands,
            };
            let proposal = proto::Proposal {
                kind: Some(proto::proposal::Kind::Commands(commands)),
            };
            // Raft takes them in the order of these calls; each answers by itself.
            let written = self.raft.client_write_ff(proposal).await;
            let written = written.map_err(|_| Ended(None))?;
            lead.under_way.push_back((lead.proposed, written));
        }
        Ok(())
    }

    fn end(&mut self, lead: Lead) {
        let standing = self.standing.borrow().clone();
        let refusal = standing.cut_short();
        for outgoing in lead.conns.0.into_values() {
            outgoing.end(&refusal);
        }
        for reply in lead.calls.into_values() {
            // The caller may have gone.
            let _ = reply.send(Err(refusal.clone()));
        }
        self.attached.store(0, Ordering::Relaxed);
    }
}

/// An answer leaves only when a majority has confirmed that this controller led after the answer was made: a deposed leader
/// must not say what was true once.
async fn confirm(raft: &Raft<Types>, timeout: Duration) -> Result<(), Refusal> {
    match tokio::time::timeout(timeout, raft.get_read_log_id()).await {
        Ok(Ok(_)) => Ok(()),
        _ => {
            let sentence = "no quorum: a majority of the controllers did not confirm the answer";
            Err(Refusal::unknown_effect(Why::NoQuorum, sentence))
        }
    }
}

fn applied(lead: &mut Lead, now_ns: u64, written: Option<Outcome>) -> Result<(), Ended> {
    let Some((version, _)) = lead.under_way.pop_front() else {
        return Ok(());
    };
    match written {
        Some(Outcome::Applied { version: v }) if v == version => {
            lead.brain.handle(now_ns, Input::Applied { version });
            Ok(())
        }
        Some(Outcome::Refused { version: v }) => Err(Ended(Some(format!(
            "commands up to version {version} do not follow version {v}: the lead begins anew"
        )))),
        Some(_) => Err(Ended(Some(
            "an entry of commands was not taken for one".into(),
        ))),
        // The leadership is lost: the standing says more.
        None => Err(Ended(None)),
    }
}

/// What became of the first entry under way; never, if there is none.
async fn first(under_way: &mut VecDeque<(u64, Written)>) -> Option<Outcome> {
    match under_way.front_mut() {
        None => std::future::pending().await,
        Some((_, written)) => match written.await {
            Ok(Ok(response)) => Some(response.data),
            _ => None,
        },
    }
}

async fn sleep(wait: Option<Duration>) {
    match wait {
        Some(wait) => tokio::time::sleep(wait).await,
        None => std::future::pending().await,
    }
}

/// Answers what came while this controller does not lead.
fn refuse(input: ToLead, standing: &Standing) {
    let refusal = standing.refusal().unwrap_or_else(|| standing.cut_short());
    match input {
        // Whoever asked may have gone.
        ToLead::Open { opened, .. } => drop(opened.send(Err(refusal))),
        ToLead::Ask { reply, .. } => drop(reply.send(Err(refusal))),
        ToLead::Message { .. } | ToLead::Closed { .. } => {}
    }
}

fn elapsed_ns(origin: Instant) -> u64 {
    u64::try_from(origin.elapsed().as_nanos()).unwrap_or(u64::MAX)
}
