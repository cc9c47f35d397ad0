//! The thread: takes commands, runs the machine, answers promises.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use ionian_core::client::{Answer, Completion, RecordRun, RequestId, Sink, SubscriptionId, Ticket};
use ionian_types::{Effect, Frontiers, GapKind, Gsn, LogId, Time};
use ionian_wire::grant::Rights;

use super::Shared;
use super::operation::{Command, Reply};
use super::stream::StreamState;
use crate::driver::Driver;
use crate::error::Error;
use crate::history::{Call, HistoryEvent, HistoryHook, What};
use crate::link::Link;
use crate::log::{Appended, append_event, record_completion, result_of};
use crate::reads::{ReadOutcome, outcome_event, read_outcome, request_op, unexpected};
use crate::subscription::{DeliveryRef, delivery_event};

pub(super) struct Worker<L: Link> {
    driver: Driver<L>,
    shared: Arc<Shared>,
    /// Commands taken that had to wait.
    backlog: VecDeque<Command>,
    /// Appends by lane, in the order of their tickets, which is the order of their outcomes.
    appends: Vec<VecDeque<(u64, Reply<Appended>)>>,
    requests: BTreeMap<RequestId, (u64, Open)>,
    streams: BTreeMap<SubscriptionId, Arc<StreamState>>,
    payload: Vec<u8>,
}

/// A request that has no answer yet.
enum Open {
    Read(Reply<ReadOutcome>),
    Trim(Gsn, Reply<Gsn>),
    Tail(Reply<(Gsn, Frontiers)>),
}

impl<L: Link> Worker<L> {
    pub(super) fn new(driver: Driver<L>, shared: Arc<Shared>) -> Self {
        Self {
            driver,
            shared,
            backlog: VecDeque::new(),
            appends: Vec::new(),
            requests: BTreeMap::new(),
            streams: BTreeMap::new(),
            payload: Vec::new(),
        }
    }

    pub(super) fn run(mut self) {
        while self.take_commands() {
            self.start_commands();
            let happened = self.pump();
            self.finish_appends();
            self.finish_requests();
            if !happened {
                let retry = self.retry_at();
                self.driver.idle(retry);
            }
        }
    }

    /// Takes what was queued; `false` when the client is closed.
    fn take_commands(&mut self) -> bool {
        let waiting = {
            let mut queue = self.shared.lock();
            if queue.closed {
                return false;
            }
            // While some wait for room in the machine, later ones stay where their number is bounded.
            if !self.backlog.is_empty() {
                return true;
            }
            std::mem::swap(&mut self.backlog, &mut queue.commands);
            std::mem::take(&mut queue.waiting)
        };
        for waker in waiting {
            waker.wake();
        }
        true
    }

    fn start_commands(&mut self) {
        while let Some(command) = self.backlog.pop_front() {
            let now = self.driver.link.now();
            let Some(command) = self.refuse(command) else {
                continue;
            };
            match command {
                Command::Append {
                    payload,
                    choice,
                    reply,
                    since,
                } => match self.driver.client.append(now, &payload, choice) {
                    Ok(ticket) => self.opened(now, ticket, &payload, reply),
                    Err(error) => {
                        let error = Error::from(error);
                        let since = since.unwrap_or(now);
                        if self.may_wait(now, since, error) {
                            let since = Some(since);
                            let again = Command::Append {
                                payload,
                                choice,
                                reply,
                                since,
                            };
                            self.backlog.push_front(again);
                            return;
                        }
                        reply.send(Err(error));
                    }
                },
                Command::Read { gsn, shard, reply } => {
                    let id = match shard {
                        Some(shard) => self.driver.client.read_at(now, gsn, shard),
                        None => self.driver.client.read(now, gsn),
                    };
                    match id {
                        Ok(id) => self.asked(now, id, Call::Read(gsn), Open::Read(reply)),
                        Err(error) => reply.send(Err(error.into())),
                    }
                }
                Command::Trim { upto, reply } => match self.driver.client.trim(now, upto) {
                    Ok(id) => self.asked(now, id, Call::Trim(upto), Open::Trim(upto, reply)),
                    Err(error) => reply.send(Err(error.into())),
                },
                Command::Tail { reply } => match self.driver.client.tail(now) {
                    Ok(id) => self.asked(now, id, Call::Tail, Open::Tail(reply)),
                    Err(error) => reply.send(Err(error.into())),
                },
                Command::Subscribe { from, state } => {
                    match self.driver.client.subscribe(now, from) {
                        Ok(id) => {
                            self.driver.record(now, |_| What::Sub {
                                sub: id.get(),
                                start: from,
                                last: false,
                            });
                            self.streams.insert(id, state);
                        }
                        Err(_) => state.end(),
                    }
                }
                Command::Policy(policy) => self.driver.client.set_policy(policy),
            }
        }
    }

    /// Refuses what the client has no right to, as far as the link knows; gives everything else back.
    fn refuse(&self, command: Command) -> Option<Command> {
        let right = match command {
            Command::Append { .. } => Rights::APPEND,
            Command::Read { .. } | Command::Tail { .. } | Command::Subscribe { .. } => Rights::READ,
            Command::Trim { .. } => Rights::TRIM,
            Command::Policy(_) => Rights::NONE,
        };
        let Err(error) = self.driver.may_still(right, Effect::None) else {
            return Some(command);
        };
        match command {
            Command::Append { reply, .. } => reply.send(Err(error)),
            Command::Read { reply, .. } => reply.send(Err(error)),
            Command::Tail { reply } => reply.send(Err(error)),
            Command::Trim { reply, .. } => reply.send(Err(error)),
            Command::Subscribe { state, .. } => state.end(),
            Command::Policy(_) => {}
        }
        None
    }

    fn may_wait(&self, now: Time, since: Time, error: Error) -> bool {
        let waits = matches!(
            error,
            Error::Busy | Error::NoServer | Error::NotReady { .. }
        );
        let timeout = self.driver.client.config().append_timeout;
        waits && timeout.is_none_or(|timeout| now < since.after(timeout))
    }

    /// When a command that waits is to be given up.
    fn retry_at(&self) -> Time {
        let timeout = self.driver.client.config().append_timeout;
        match (self.backlog.front(), timeout) {
            (
                Some(Command::Append {
                    since: Some(since), ..
                }),
                Some(timeout),
            ) => since.after(timeout),
            _ => Time::FAR,
        }
    }

    fn opened(&mut self, now: Time, ticket: Ticket, payload: &[u8], reply: Reply<Appended>) {
        let lane = ticket.lane as usize;
        if self.appends.len() <= lane {
            self.appends.resize_with(lane + 1, VecDeque::new);
        }
        self.appends[lane].push_back((ticket.number, reply));
        self.driver
            .record(now, |client| append_event(client, ticket, payload));
    }

    fn asked(&mut self, now: Time, id: RequestId, call: Call, open: Open) {
        let op = request_op(id.get());
        let places = self.driver.client.config().requests_max as u64;
        // Requests that are open at a time have different numbers modulo their table's size.
        let process = request_op(id.get() % places);
        self.driver.record(now, |_| What::Inv { op, process, call });
        self.requests.insert(id, (op, open));
    }

    fn pump(&mut self) -> bool {
        let now = self.driver.link.now();
        let mut dropped = Vec::new();
        let mut resume = Vec::new();
        for (id, state) in &self.streams {
            if state.is_dropped() {
                dropped.push(*id);
            } else if state.take_resume() {
                resume.push(*id);
            }
        }
        for id in dropped {
            self.driver.client.unsubscribe(id);
            self.driver.record(now, |_| What::SubEnd { sub: id.get() });
            self.streams.remove(&id);
        }
        let mut sink = WorkerSink {
            streams: &self.streams,
            history: self.driver.history.take(),
            time: now,
            log: self.driver.client.config().log,
        };
        for id in resume {
            self.driver.client.resume(now, id, &mut sink);
        }
        let happened = self.driver.pump(&mut sink);
        self.driver.history = sink.history;
        happened
    }

    fn finish_appends(&mut self) {
        while let Some(run) = self.driver.client.poll_completion() {
            if self.driver.history.is_some() {
                record_completion(&mut self.driver, &run);
            }
            self.finish_run(&run);
        }
    }

    fn finish_run(&mut self, run: &Completion) {
        let Some(lane) = self.appends.get_mut(run.first.lane as usize) else {
            return;
        };
        for skip in 0..u64::from(run.count) {
            if let Some((number, reply)) = lane.pop_front() {
                debug_assert_eq!(number, run.first.number + skip, "outcomes come in order");
                reply.send(result_of(run, skip));
            }
        }
    }

    fn finish_requests(&mut self) {
        while let Some((id, answer)) = self.driver.client.poll_answer(&mut self.payload) {
            let Some((op, open)) = self.requests.remove(&id) else {
                continue;
            };
            let now = self.driver.link.now();
            let payload = &self.payload;
            self.driver
                .record(now, |_| outcome_event(op, &answer, payload));
            match open {
                Open::Read(reply) => {
                    reply.send(read_outcome(&answer, std::mem::take(&mut self.payload)));
                }
                Open::Trim(upto, reply) => reply.send(match answer {
                    Answer::TrimDone { head, .. } => Ok(head),
                    Answer::TrimBeyondTail { tail, effect } => {
                        Err(Error::TrimBeyondTail { upto, tail, effect })
                    }
                    answer => Err(unexpected(&answer)),
                }),
                Open::Tail(reply) => reply.send(match answer {
                    Answer::Tail { tail, head, .. } => Ok((
                        head,
                        Frontiers {
                            durable: tail,
                            ordered: tail,
                            visible: tail,
                            speculative: tail,
                        },
                    )),
                    answer => Err(unexpected(&answer)),
                }),
            }
        }
    }
}

/// At the end, also by a panic, what is left is answered: what was taken by being dropped, what is queued here.
impl<L: Link> Drop for Worker<L> {
    fn drop(&mut self) {
        for state in self.streams.values() {
            state.end();
        }
        let mut queue = self.shared.lock();
        queue.closed = true;
        let commands = std::mem::take(&mut queue.commands);
        let waiting = std::mem::take(&mut queue.waiting);
        drop(queue);
        for command in commands {
            if let Command::Subscribe { state, .. } = command {
                state.end();
            }
        }
        for waker in waiting {
            waker.wake();
        }
    }
}

/// Hands each delivery to its subscription's queue.
struct WorkerSink<'a> {
    streams: &'a BTreeMap<SubscriptionId, Arc<StreamState>>,
    history: Option<HistoryHook>,
    time: Time,
    log: LogId,
}

impl WorkerSink<'_> {
    fn offer(&mut self, id: SubscriptionId, delivery: &DeliveryRef<'_>) -> bool {
        let taken = self
            .streams
            .get(&id)
            .is_some_and(|state| state.offer(delivery));
        if let (true, Some(hook)) = (taken, &mut self.history) {
            let what = delivery_event(id, delivery);
            hook(HistoryEvent {
                time_ns: self.time.as_ns(),
                log: self.log,
                what,
            });
        }
        taken
    }
}

impl Sink for WorkerSink<'_> {
    fn records(&mut self, id: SubscriptionId, run: &RecordRun<'_>) -> u32 {
        let mut taken = 0;
        for (gsn, header, payload) in run.records() {
            if !self.offer(
                id,
                &DeliveryRef::Record {
                    gsn,
                    shard: run.shard,
                    header,
                    payload,
                },
            ) {
                break;
            }
            taken += 1;
        }
        taken
    }

    fn gap(&mut self, id: SubscriptionId, from: Gsn, to: Gsn, kind: GapKind) -> bool {
        self.offer(id, &DeliveryRef::Gap { from, to, kind })
    }
}
