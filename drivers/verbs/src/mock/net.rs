//! What passes between the devices of a net.

use std::collections::VecDeque;
use std::sync::Arc;

use ionian_driver_api::Dice;
use ionian_driver_api::dma::Arena;

use super::{MockCounts, MockFaults, MockLimits};
use crate::api::{
    Address, AsyncEvent, Completion, Data, Done, DoneKind, QpOptions, RecvWork, Remote,
    RemoteBytes, SendOp, SendWork, Status,
};

#[derive(Debug)]
pub(super) struct Mr {
    pub(super) arena: Arc<Arena>,
    /// First byte, within the arena's allocation.
    pub(super) start: *mut u8,
    pub(super) len: usize,
    /// The key of peers' writes; `None` where they may not.
    pub(super) rkey: Option<u32>,
}

#[derive(Debug)]
struct Entry {
    completion: Completion,
    seen_at: u64,
    /// Of a send: how many places of the send queue are free once it was polled.
    frees: Option<u64>,
}

#[derive(Debug)]
pub(super) struct Cq {
    entries: VecDeque<Entry>,
    depth: usize,
    broken: bool,
}

#[derive(Debug)]
pub(super) struct Srq {
    pub(super) posted: VecDeque<RecvWork>,
    pub(super) depth: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum QpState {
    Reset,
    Init,
    ReadyToReceive,
    ReadyToSend,
    Error,
}

#[derive(Debug)]
pub(super) struct Qp {
    pub(super) num: u32,
    pub(super) options: QpOptions,
    pub(super) state: QpState,
    pub(super) remote: Option<Remote>,
    pub(super) psn: u32,
    /// Work that waits, the oldest first.
    work: VecDeque<SendWork>,
    /// Work ever posted in this life, and how many of the places are free again.
    posted: u64,
    freed: u64,
    /// Bytes of inline work, by its place.
    inline: Box<[u8]>,
    tries: u8,
}

#[derive(Debug)]
pub(super) struct Device {
    pub(super) mrs: Vec<Option<Mr>>,
    pub(super) cqs: Vec<Option<Cq>>,
    pub(super) srqs: Vec<Option<Srq>>,
    pub(super) qps: Vec<Option<Qp>>,
    pub(super) events: VecDeque<AsyncEvent>,
    up: bool,
    pub(super) stuck: bool,
    silent: bool,
}

#[derive(Debug)]
pub(super) struct Net {
    pub(super) limits: MockLimits,
    pub(super) devices: Vec<Device>,
    pub(super) counts: MockCounts,
    pub(super) next_number: u32,
    dice: Dice,
    now: u64,
}

impl Qp {
    pub(super) fn new(num: u32, options: QpOptions) -> Self {
        let inline = options.send_depth as usize * options.inline_bytes as usize;
        Self {
            num,
            options,
            state: QpState::Reset,
            remote: None,
            psn: 0,
            work: VecDeque::with_capacity(options.send_depth as usize),
            posted: 0,
            freed: 0,
            inline: vec![0; inline].into_boxed_slice(),
            tries: 0,
        }
    }

    /// Where the inline bytes of the `nth` work stand.
    fn inline_at(&self, nth: u64) -> usize {
        let place = nth % u64::from(self.options.send_depth);
        usize::try_from(place).expect("a queue is short") * self.options.inline_bytes as usize
    }

    pub(super) fn forget(&mut self) {
        self.work.clear();
        (self.posted, self.freed, self.tries) = (0, 0, 0);
        (self.state, self.remote) = (QpState::Reset, None);
    }
}

impl Cq {
    pub(super) fn new(depth: u32) -> Self {
        Self {
            entries: VecDeque::with_capacity(depth as usize),
            depth: depth as usize,
            broken: false,
        }
    }
}

impl Net {
    pub(super) fn new(seed: u64, limits: MockLimits) -> Self {
        Self {
            limits,
            devices: Vec::new(),
            counts: MockCounts::default(),
            next_number: 0x11,
            dice: Dice::new(seed),
            now: 0,
        }
    }

    pub(super) fn add(&mut self) -> usize {
        self.devices.push(Device {
            mrs: Vec::new(),
            cqs: Vec::new(),
            srqs: Vec::new(),
            qps: Vec::new(),
            events: VecDeque::with_capacity(4096),
            up: true,
            stuck: false,
            silent: false,
        });
        self.devices.len() - 1
    }

    pub(super) fn address(device: usize) -> Address {
        let mut gid = [0; 16];
        gid[0] = 0xFE;
        gid[15] = u8::try_from(device).expect("nets are small");
        Address {
            gid,
            lid: 0,
            mtu_bytes: 1024,
        }
    }

    pub(super) fn harm(&mut self, device: usize, fault: MockFaults) {
        match fault {
            MockFaults::QueuePair(num) => {
                if let Some(qp) = self.find(device, num) {
                    self.devices[device]
                        .events
                        .push_back(AsyncEvent::QpError { qp_num: num });
                    self.fail(device, qp);
                }
            }
            MockFaults::CompletionQueues => {
                for cq in 0..self.devices[device].cqs.len() {
                    self.overrun(device, cq);
                }
            }
            MockFaults::Port(active) => {
                self.devices[device].up = active;
                let event = AsyncEvent::Port { active };
                self.devices[device].events.push_back(event);
            }
            MockFaults::StuckRegions => self.devices[device].stuck = true,
            MockFaults::SilentSends => self.devices[device].silent = true,
        }
    }

    fn find(&self, device: usize, num: u32) -> Option<usize> {
        let qps = &self.devices.get(device)?.qps;
        qps.iter()
            .position(|qp| qp.as_ref().is_some_and(|qp| qp.num == num))
    }

    fn qp(&mut self, device: usize, qp: usize) -> &mut Qp {
        self.devices[device].qps[qp].as_mut().expect("it exists")
    }

    /// A completion queue loses entries: it and all queue pairs at it are lost.
    fn overrun(&mut self, device: usize, cq: usize) {
        let Some(Some(queue)) = self.devices[device].cqs.get_mut(cq) else {
            return;
        };
        if std::mem::replace(&mut queue.broken, true) {
            return;
        }
        self.devices[device].events.push_back(AsyncEvent::CqError);
        for qp in 0..self.devices[device].qps.len() {
            if let Some(qp) = &mut self.devices[device].qps[qp] {
                qp.state = QpState::Error;
                qp.work.clear();
            }
        }
    }

    fn complete(&mut self, device: usize, cq: u32, completion: Completion, frees: Option<u64>) {
        let seen_at = self.now + self.dice.below(self.limits.delay_steps_max + 1);
        let device_ref = &mut self.devices[device];
        if frees.is_some() && device_ref.silent {
            return;
        }
        let Some(Some(queue)) = device_ref.cqs.get_mut(cq as usize) else {
            return;
        };
        if queue.broken {
            return;
        }
        if queue.entries.len() == queue.depth {
            self.overrun(device, cq as usize);
            return;
        }
        queue.entries.push_back(Entry {
            completion,
            seen_at,
            frees,
        });
    }

    /// Moves a queue pair to the error state: all that waits is flushed.
    pub(super) fn fail(&mut self, device: usize, index: usize) {
        let qp = self.qp(device, index);
        if matches!(qp.state, QpState::Error | QpState::Reset) {
            return;
        }
        qp.state = QpState::Error;
        let num = qp.num;
        self.flush(device, index);
        self.devices[device]
            .events
            .push_back(AsyncEvent::LastReceive { qp_num: num });
    }

    fn flush(&mut self, device: usize, index: usize) {
        loop {
            let qp = self.qp(device, index);
            let nth = qp.posted - qp.work.len() as u64;
            let Some(work) = qp.work.pop_front() else {
                return;
            };
            let (cq, num) = (qp.options.send_cq.0, qp.num);
            self.counts.flushed += 1;
            let completion = Completion {
                wr_id: work.wr_id,
                qp_num: num,
                result: Err(Status::Flushed),
            };
            self.complete(device, cq, completion, Some(nth + 1));
        }
    }

    /// Drops completions of a queue pair that is reset or destroyed.
    pub(super) fn purge(&mut self, device: usize, num: u32) {
        for cq in self.devices[device].cqs.iter_mut().flatten() {
            let before = cq.entries.len();
            cq.entries.retain(|entry| entry.completion.qp_num != num);
            self.counts.dropped += (before - cq.entries.len()) as u64;
        }
    }

    /// Takes work into a send queue. `false` if it is full or not allowed.
    pub(super) fn take_in(&mut self, device: usize, index: usize, work: &SendWork) -> bool {
        let source = self.source(device, &work.data);
        let Some(qp) = self.devices[device].qps[index].as_mut() else {
            return false;
        };
        let room = qp.posted - qp.freed < u64::from(qp.options.send_depth);
        if !matches!(qp.state, QpState::ReadyToSend | QpState::Error) || !room {
            return false;
        }
        let Some((bytes, len)) = source else {
            return false;
        };
        if work.is_inline() {
            if len > qp.options.inline_bytes as usize {
                return false;
            }
            let at = qp.inline_at(qp.posted);
            // SAFETY: the source is valid for `len` bytes; the target has `inline_bytes` of them at `at`.
            unsafe {
                std::ptr::copy_nonoverlapping(bytes, qp.inline[at..at + len].as_mut_ptr(), len);
            };
        }
        qp.posted += 1;
        qp.work.push_back(*work);
        if qp.state == QpState::Error {
            self.flush(device, index);
        }
        true
    }

    /// Where the bytes of work are. `None` if they are not registered.
    fn source(&self, device: usize, data: &Data) -> Option<(*const u8, usize)> {
        match data {
            Data::None => Some((std::ptr::NonNull::dangling().as_ptr(), 0)),
            Data::Control { bytes, len } => Some((bytes.as_ptr(), usize::from(*len))),
            Data::Slot { mr, slot, len, .. } => {
                let mr = self.devices[device].mrs.get(mr.0 as usize)?.as_ref()?;
                let len = *len as usize;
                (len <= mr.arena.slot_bytes()).then(|| (mr.arena.slot(*slot).cast_const(), len))
            }
        }
    }

    /// Carries out one work request somewhere, if there is any.
    fn step(&mut self) {
        self.now += 1;
        let devices = self.devices.len() as u64;
        let first = usize::try_from(self.dice.below(devices)).expect("nets are small");
        for turn in 0..self.devices.len() {
            let device = (first + turn) % self.devices.len();
            let count = self.devices[device].qps.len();
            let from = usize::try_from(self.dice.below(count as u64)).expect("nets are small");
            for turn in 0..count {
                let index = (from + turn) % count;
                let waits = |qp: &Qp| qp.state == QpState::ReadyToSend && !qp.work.is_empty();
                if self.devices[device].qps[index].as_ref().is_some_and(waits) {
                    self.carry(device, index);
                    return;
                }
            }
        }
    }

    /// The end that a queue pair is connected to, if it is there.
    fn peer(&self, device: usize, index: usize) -> Option<(usize, usize)> {
        let qp = self.devices[device].qps[index].as_ref()?;
        let remote = qp.remote.as_ref()?;
        let there = usize::from(remote.address.gid[15]);
        let peer_index = self.find(there, remote.qp_num)?;
        let peer = self.devices[there].qps[peer_index].as_ref()?;
        let back = peer.remote.as_ref()?;
        let ready = matches!(peer.state, QpState::ReadyToReceive | QpState::ReadyToSend);
        let fits = back.qp_num == qp.num
            && usize::from(back.address.gid[15]) == device
            && back.psn == qp.psn;
        (ready && fits && self.devices[device].up && self.devices[there].up)
            .then_some((there, peer_index))
    }

    fn carry(&mut self, device: usize, index: usize) {
        let Some((there, peer)) = self.peer(device, index) else {
            return self.refuse(device, index, Status::NoAnswer);
        };
        let qp = self.qp(device, index);
        let work = *qp.work.front().expect("the caller has looked");
        let nth = qp.posted - qp.work.len() as u64;
        let inline = qp.inline_at(nth);
        let Some((mut bytes, len)) = self.source(device, &work.data) else {
            return self.refuse(device, index, Status::Other(4));
        };
        if work.is_inline() {
            bytes = self.qp(device, index).inline[inline..].as_ptr();
        }
        let (write, immediate) = match work.op {
            SendOp::Send { immediate } => (None, Some(immediate)),
            SendOp::Write(remote) => (Some(remote), None),
            SendOp::WriteWithImmediate { remote, immediate } => (Some(remote), Some(immediate)),
        };
        let target = match write {
            Some(remote) => match self.permitted(there, remote, len) {
                Some(target) => Some(target),
                None => {
                    self.counts.refused += 1;
                    let qp_num = self.qp(there, peer).num;
                    let event = AsyncEvent::QpAccess { qp_num };
                    self.devices[there].events.push_back(event);
                    self.fail(there, peer);
                    return self.refuse(device, index, Status::RemoteAccess);
                }
            },
            None => None,
        };
        let mut slot = None;
        if let Some(immediate) = immediate {
            let srq = self.qp(there, peer).options.srq.0 as usize;
            let receive = self.devices[there].srqs[srq]
                .as_mut()
                .and_then(|srq| srq.posted.pop_front());
            let Some(receive) = receive else {
                return self.no_receive(device, index);
            };
            slot = Some((receive, immediate));
        }
        let target = target.or_else(|| {
            let (receive, _) = slot?;
            let mr = self.devices[there].mrs[receive.mr.0 as usize].as_ref()?;
            (len <= mr.arena.slot_bytes()).then(|| mr.arena.slot(receive.slot))
        });
        let Some(target) = target else {
            // Longer than a slot: both ends are in error, and the receive with it.
            self.fail(there, peer);
            return self.refuse(device, index, Status::Other(9));
        };
        // SAFETY: both ranges lie in registered arenas that are alive, or in the inline store; by the promise of whoever
        // posted or exposed them nobody else uses them now. They may be the same slot only if somebody broke that promise,
        // which `copy` bears.
        unsafe { std::ptr::copy(bytes, target, len) };
        self.counts.carried += 1;
        let qp = self.qp(device, index);
        qp.tries = 0;
        qp.work.pop_front();
        let (num, cq) = (qp.num, qp.options.send_cq.0);
        if work.signalled {
            let done = Done {
                kind: DoneKind::Sent,
                bytes: 0,
                immediate: None,
            };
            let completion = Completion {
                wr_id: work.wr_id,
                qp_num: num,
                result: Ok(done),
            };
            self.complete(device, cq, completion, Some(nth + 1));
        }
        if let Some((receive, immediate)) = slot {
            let qp = self.qp(there, peer);
            let (qp_num, cq) = (qp.num, qp.options.recv_cq.0);
            let kind = if write.is_some() {
                DoneKind::Written
            } else {
                DoneKind::Received
            };
            let done = Done {
                kind,
                bytes: u32::try_from(len).expect("a slot is small"),
                immediate: Some(immediate),
            };
            let completion = Completion {
                wr_id: receive.wr_id,
                qp_num,
                result: Ok(done),
            };
            self.complete(there, cq, completion, None);
        }
    }

    /// The first byte of what a write names, if its key permits all of it.
    fn permitted(&self, device: usize, remote: RemoteBytes, len: usize) -> Option<*mut u8> {
        let mrs = self.devices[device].mrs.iter().flatten();
        let mr = mrs.into_iter().find(|mr| mr.rkey == Some(remote.rkey))?;
        let skip = remote.address.checked_sub(mr.start.addr() as u64)?;
        let skip = usize::try_from(skip).ok()?;
        let inside = skip.checked_add(len)? <= mr.len;
        // SAFETY: the offset is inside the registered range, which is inside its arena.
        inside.then(|| unsafe { mr.start.add(skip) })
    }

    /// The head of a send queue fails, and all behind it.
    fn refuse(&mut self, device: usize, index: usize, status: Status) {
        let qp = self.qp(device, index);
        let nth = qp.posted - qp.work.len() as u64;
        let Some(work) = qp.work.pop_front() else {
            return;
        };
        let (cq, num) = (qp.options.send_cq.0, qp.num);
        let completion = Completion {
            wr_id: work.wr_id,
            qp_num: num,
            result: Err(status),
        };
        self.complete(device, cq, completion, Some(nth + 1));
        self.fail(device, index);
    }

    fn no_receive(&mut self, device: usize, index: usize) {
        self.counts.no_receive += 1;
        let qp = self.qp(device, index);
        qp.tries += 1;
        if qp
            .remote
            .as_ref()
            .is_some_and(|remote| qp.tries > remote.rnr_retries)
        {
            self.refuse(device, index, Status::NoReceive);
        }
    }

    /// Lets the net work, then takes completions.
    pub(super) fn poll(
        &mut self,
        device: usize,
        cq: usize,
        out: &mut [Completion],
    ) -> Option<usize> {
        for _ in 0..self.limits.steps_per_poll {
            self.step();
        }
        let now = self.now;
        let device_ref = &mut self.devices[device];
        let queue = device_ref.cqs.get_mut(cq)?.as_mut()?;
        if queue.broken {
            return None;
        }
        let mut count = 0;
        while count < out.len() {
            if queue
                .entries
                .front()
                .is_none_or(|entry| entry.seen_at > now)
            {
                break;
            }
            let Some(entry) = queue.entries.pop_front() else {
                break;
            };
            out[count] = entry.completion;
            count += 1;
            let num = entry.completion.qp_num;
            if let Some(frees) = entry.frees {
                let mut qps = device_ref.qps.iter_mut().flatten();
                if let Some(qp) = qps.find(|qp| qp.num == num) {
                    qp.freed = qp.freed.max(frees);
                }
            }
        }
        Some(count)
    }
}
