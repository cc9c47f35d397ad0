//! Requests: tail, read and trim, in a bounded table. Each is asked again, elsewhere if it can be, until it is answered or
//! out of time; all of them may be asked twice without harm.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;

use ionian_types::{Effect, EntryNo, Gsn, Knobs, Nanos, ShardId, Time};
use ionian_wire::frame::{
    Body, Locate, MESSAGE_HEADER_BYTES, Read, Tail, TailAnswer, TrimAnswer, TrimRequest, TrimStatus,
};

use super::Client;
use super::api::{Answer, RequestError, RequestId};
use super::config::ClientConfig;
use super::peers::{PeerIx, ROOT};
use super::ranges::Ranges;
use super::ring::ByteQueue;
use crate::outbox::Outbox;

/// Room that any request fits into.
const REQUEST_BYTES: usize = MESSAGE_HEADER_BYTES + Read::LEN + Locate::LEN + TrimRequest::LEN;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Task {
    Tail,
    Trim(Gsn),
    Read(Gsn),
}

/// Whom a request asks next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stage {
    /// The root: tail, trim, or where a position lies.
    Root,
    /// A replica of a shard that should hold the position.
    Replica(ShardId),
    /// A replica of each shard in turn, since the root no longer knows.
    Sweep(ShardId),
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Request {
    pub(super) id: u64,
    pub(super) task: Task,
    pub(super) stage: Stage,
    /// The entry that a replica must have applied before it answers.
    pub(super) entry: EntryNo,
    /// Which replica of the shard is asked.
    pub(super) cursor: u32,
    /// Replicas of the shard that could not answer.
    pub(super) tried: u32,
    /// Who was asked and has not answered.
    pub(super) asked: Option<PeerIx>,
    /// How often it was sent without an answer to that sending: what is under way may still be carried out.
    pub(super) unanswered: u32,
    queued: bool,
    pub(super) deadline: Time,
    pub(super) retry_at: Time,
    pub(super) backoff: Nanos,
}

#[derive(Debug)]
pub(super) struct Requests {
    table: Box<[Option<Request>]>,
    free: Vec<u32>,
    /// Slots of requests to be sent, each at most once.
    queue: VecDeque<u32>,
    serial: u64,
    pub(super) answers: VecDeque<(RequestId, Answer, usize)>,
    pub(super) payloads: ByteQueue,
    pub(super) payload_bytes: usize,
    pub(super) ranges: Ranges,
    max: usize,
}

impl Requests {
    pub(super) fn new(config: &ClientConfig) -> Self {
        let max = config.requests_max;
        Self {
            table: (0..max).map(|_| None).collect(),
            free: (0..max as u32).rev().collect(),
            queue: VecDeque::with_capacity(2 * max),
            serial: 0,
            answers: VecDeque::with_capacity(max),
            payloads: ByteQueue::new(2 * config.answer_bytes_max),
            payload_bytes: 0,
            ranges: Ranges::new(config.ranges_max),
            max,
        }
    }

    /// The open request that an answer names. The table is found by the number, so that a late answer never reaches
    /// another request.
    pub(super) fn get_mut(&mut self, id: u64) -> Option<&mut Request> {
        let slot = (id % self.max as u64) as usize;
        self.table[slot].as_mut().filter(|request| request.id == id)
    }

    /// Queues a request to be sent.
    pub(super) fn queue(&mut self, id: u64) {
        let slot = (id % self.max as u64) as u32;
        if let Some(request) = self.get_mut(id) {
            request.asked = None;
            if !request.queued {
                request.queued = true;
                self.queue.push_back(slot);
            }
        }
    }
}

impl<K: Knobs> Client<K> {
    /// Asks where the log ends and begins, confirmed by the root after this call.
    ///
    /// # Errors
    /// [`RequestError`], effect none.
    pub fn tail(&mut self, now: Time) -> Result<RequestId, RequestError> {
        self.request(now, Task::Tail, Stage::Root, EntryNo::ZERO)
    }

    /// Asks for the record at a position.
    ///
    /// # Errors
    /// [`RequestError`], effect none.
    pub fn read(&mut self, now: Time, gsn: Gsn) -> Result<RequestId, RequestError> {
        let known = self
            .requests
            .ranges
            .find(gsn)
            .map(|range| (range.shard, range.entry));
        let (stage, entry) = match known {
            Some((shard, entry)) => (Stage::Replica(shard), entry),
            None => (Stage::Root, EntryNo::ZERO),
        };
        self.request(now, Task::Read(gsn), stage, entry)
    }

    /// Asks for the record at a position that `shard` holds, as its append said. Saves the question where it lies; if it
    /// lies elsewhere, it is found all the same.
    ///
    /// # Errors
    /// [`RequestError`], effect none.
    pub fn read_at(
        &mut self,
        now: Time,
        gsn: Gsn,
        shard: ShardId,
    ) -> Result<RequestId, RequestError> {
        let known = self.peers.shard(shard).is_some();
        let stage = if known {
            Stage::Replica(shard)
        } else {
            Stage::Root
        };
        self.request(now, Task::Read(gsn), stage, EntryNo::ZERO)
    }

    /// Asks to remove every position below `upto`.
    ///
    /// # Errors
    /// [`RequestError`], effect none.
    pub fn trim(&mut self, now: Time, upto: Gsn) -> Result<RequestId, RequestError> {
        self.request(now, Task::Trim(upto), Stage::Root, EntryNo::ZERO)
    }

    fn request(
        &mut self,
        now: Time,
        task: Task,
        stage: Stage,
        entry: EntryNo,
    ) -> Result<RequestId, RequestError> {
        if self.closed {
            return Err(RequestError::Closed);
        }
        let requests = &mut self.requests;
        // Every open request has room for its answer.
        let open = requests.max - requests.free.len();
        if open + requests.answers.len() >= requests.max {
            return Err(RequestError::Busy);
        }
        let slot = requests.free.pop().ok_or(RequestError::Busy)?;
        requests.serial += 1;
        let id = requests.serial * requests.max as u64 + u64::from(slot);
        let deadline = self
            .config
            .request_timeout
            .map_or(Time::FAR, |span| now.after(span));
        requests.table[slot as usize] = Some(Request {
            id,
            task,
            stage,
            entry,
            cursor: (self.config.seed as u32).wrapping_add(requests.serial as u32),
            tried: 0,
            asked: None,
            unanswered: 0,
            queued: false,
            deadline,
            retry_at: Time::ZERO,
            backoff: self.config.backoff_min,
        });
        requests.queue(id);
        self.stats.requests += 1;
        self.wake(deadline);
        Ok(RequestId(id))
    }

    /// The next answer. The payload of an [`Answer::Record`] replaces what `payload` holds.
    pub fn poll_answer(&mut self, payload: &mut Vec<u8>) -> Option<(RequestId, Answer)> {
        let (id, answer, bytes) = self.requests.answers.pop_front()?;
        payload.clear();
        if let Answer::Record { .. } = answer {
            payload.extend_from_slice(&self.requests.payloads.front()[..bytes]);
            self.requests.payloads.pop(bytes);
            self.requests.payload_bytes -= bytes;
        }
        Some((id, answer))
    }

    /// Ends a request with its answer.
    pub(super) fn answer(&mut self, id: u64, answer: Answer, payload_bytes: usize) {
        let slot = (id % self.requests.max as u64) as u32;
        if self.requests.get_mut(id).is_some() {
            self.requests.table[slot as usize] = None;
            self.requests.free.push(slot);
            self.requests
                .answers
                .push_back((RequestId(id), answer, payload_bytes));
        }
    }

    pub(super) fn flush_requests(&mut self, now: Time, out: &mut Outbox) {
        for _ in 0..self.requests.queue.len() {
            let Some(slot) = self.requests.queue.pop_front() else {
                return;
            };
            let Some(mut request) = self.requests.table[slot as usize] else {
                continue;
            };
            if !request.queued {
                continue;
            }
            if now < request.retry_at || !self.send_request(now, &mut request, out) {
                // Stays queued; a connection, a deadline or room brings the next try.
                self.requests.queue.push_back(slot);
                continue;
            }
            request.queued = false;
            self.requests.table[slot as usize] = Some(request);
        }
    }

    fn send_request(&mut self, now: Time, request: &mut Request, out: &mut Outbox) -> bool {
        let peer = match request.stage {
            Stage::Root => {
                self.peers.want(now, ROOT);
                ROOT
            }
            Stage::Replica(shard) | Stage::Sweep(shard) => {
                match self.peers.replica(now, shard, request.cursor) {
                    Some(peer) => peer,
                    None => return false,
                }
            }
        };
        let Some(conn) = self.peers.get(peer).conn else {
            return false;
        };
        if out.room(conn) < REQUEST_BYTES {
            return false;
        }
        let log = self.config.log;
        let id = request.id;
        let sent = match (request.task, request.stage) {
            (Task::Tail, _) => out.send(conn, &Tail { log, request: id }, &[]),
            (Task::Trim(upto), _) => out.send(
                conn,
                &TrimRequest {
                    log,
                    request: id,
                    upto,
                },
                &[],
            ),
            (Task::Read(gsn), Stage::Root) => out.send(
                conn,
                &Locate {
                    log,
                    request: id,
                    gsn,
                },
                &[],
            ),
            (Task::Read(gsn), Stage::Replica(shard) | Stage::Sweep(shard)) => {
                let entry = request.entry;
                out.send(
                    conn,
                    &Read {
                        log,
                        shard,
                        request: id,
                        gsn,
                        entry,
                    },
                    &[],
                )
            }
        };
        if sent.is_err() {
            return false;
        }
        request.unanswered += 1;
        request.asked = Some(peer);
        request.retry_at = now.after(self.config.retry_after);
        let retry_at = request.retry_at;
        self.wake(retry_at);
        true
    }

    pub(super) fn requests_on_disconnect(&mut self, peer: PeerIx) {
        for slot in 0..self.requests.table.len() {
            let request = self.requests.table[slot].as_mut();
            if let Some(request) = request.filter(|request| request.asked == Some(peer)) {
                request.retry_at = Time::ZERO;
                request.cursor = request.cursor.wrapping_add(1);
                let id = request.id;
                self.stats.request_retries += 1;
                self.requests.queue(id);
            }
        }
    }

    pub(super) fn requests_on_deadline(&mut self, now: Time) {
        if self.requests.free.len() == self.requests.max {
            return;
        }
        let mut next = Time::FAR;
        for slot in 0..self.requests.table.len() {
            let Some(request) = &mut self.requests.table[slot] else {
                continue;
            };
            let id = request.id;
            if now >= request.deadline {
                let trim = matches!(request.task, Task::Trim(_)) && request.unanswered > 0;
                let effect = if trim { Effect::Unknown } else { Effect::None };
                self.answer(id, Answer::TimedOut { effect }, 0);
                continue;
            }
            next = next.min(request.deadline);
            if request.asked.is_some() && now >= request.retry_at {
                request.cursor = request.cursor.wrapping_add(1);
                self.stats.request_retries += 1;
                self.requests.queue(id);
                continue;
            }
            if request.retry_at > now {
                next = next.min(request.retry_at);
            }
        }
        self.wake(next);
    }

    pub(super) fn on_tail(&mut self, peer: PeerIx, answer: &TailAnswer) {
        let request = self.requests.get_mut(answer.request);
        if peer == ROOT && request.is_some_and(|request| request.task == Task::Tail) {
            let TailAnswer {
                tail, head, entry, ..
            } = *answer;
            self.answer(answer.request, Answer::Tail { tail, head, entry }, 0);
        }
    }

    pub(super) fn on_trim(&mut self, peer: PeerIx, answer: &TrimAnswer) {
        let request = self.requests.get_mut(answer.request);
        let Some(request) = request.filter(|request| matches!(request.task, Task::Trim(_))) else {
            return;
        };
        if peer != ROOT {
            return;
        }
        let TrimAnswer {
            head, tail, status, ..
        } = *answer;
        request.unanswered = request.unanswered.saturating_sub(1);
        let answered = match status {
            TrimStatus::Done => Answer::TrimDone { head, tail },
            TrimStatus::BeyondTail => {
                // The tail grows: another sending that is still under way may find it far enough.
                let alone = request.unanswered == 0;
                let effect = if alone { Effect::None } else { Effect::Unknown };
                Answer::TrimBeyondTail { tail, effect }
            }
            // Asked again when its time has come.
            TrimStatus::Busy => return,
        };
        self.answer(answer.request, answered, 0);
    }
}
