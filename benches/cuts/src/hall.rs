//! The machines that share a thread, and the turns that carry reports up and bases down: leaves, aggregators, the leader, its
//! backups, the leader again, and back down. Each machine is the one that ships.
//!
//! Where frames stay in the thread, each leaf's reports have a turn of their own, as if the leaves were polled one after the other:
//! what the first has read does not wait for the scan of the last, and what a turn has touched is still in the cache on the way down.

use std::io;
use std::sync::Arc;

use ionian_core::aggregator::Aggregator;
use ionian_core::root::Root;
use ionian_core::{Outbox, OutboxLimits};
use ionian_driver_api::Clock;
use ionian_node::device::StoreIo;
use ionian_runtime::MonotonicClock;
use ionian_store::StoreState;
use ionian_types::{ConnId, Time};
use ionian_wire::frame::{Applied, Body, Down, Message, RootWrite, RootWritten, Up};

use crate::board::Board;
use crate::leaf::LeafPost;
use crate::line::Line;
use crate::trace::Trace;

/// Connections of one machine, at most: those of the widest vertex, and a few.
const CONNS_MAX: usize = 4_200;

/// A machine.
#[derive(Debug)]
pub(crate) enum Machine {
    Root(Box<Root>, Option<Box<StoreIo>>),
    Aggregator(Box<Aggregator>),
    Leaf(Box<LeafPost>),
}

impl Machine {
    pub(crate) fn opened(&mut self, conn: ConnId, out: &mut Outbox) {
        match self {
            Self::Root(root, _) => root.opened(conn, out),
            Self::Aggregator(it) => it.opened(conn, out),
            Self::Leaf(post) => post.leaf.opened(conn, out),
        }
    }

    #[inline]
    fn handle(&mut self, now: Time, conn: ConnId, message: &Message<'_>, out: &mut Outbox) {
        match self {
            Self::Root(root, _) => root.handle(now, conn, message, out),
            Self::Aggregator(it) => it.handle(now, conn, message, out),
            Self::Leaf(post) => post.handle(now, conn, message, out),
        }
    }

    #[inline]
    fn flush(&mut self, now: Time, out: &mut Outbox) -> io::Result<()> {
        match self {
            Self::Root(root, device) => {
                if let Some(device) = device {
                    device.complete(root.store_mut());
                    if let StoreState::Failed(failure) = root.store().state() {
                        return Err(io::Error::other(format!("the cut log: {failure}")));
                    }
                }
                root.flush(now, out);
                if let Some(device) = device {
                    device.submit(root.store_mut());
                }
                Ok(())
            }
            Self::Aggregator(it) => {
                it.flush(now, out);
                Ok(())
            }
            Self::Leaf(post) => post.flush(now, out),
        }
    }

    fn next_deadline(&self) -> Time {
        match self {
            // A device has no deadline: it is asked in every pass.
            Self::Root(_, Some(_)) => Time::ZERO,
            Self::Root(root, None) => root.next_deadline(),
            Self::Aggregator(it) => it.next_deadline(),
            Self::Leaf(post) => post.leaf.next_deadline(),
        }
    }

    /// Connections that it wants closed. Nobody here is replaced, so that is a failure.
    fn closes(&mut self) -> bool {
        let close = match self {
            Self::Root(root, _) => root.take_close(),
            Self::Aggregator(it) => it.take_close(),
            Self::Leaf(post) => post.leaf.take_close(),
        };
        close.is_some()
    }
}

/// A machine in its place.
#[derive(Debug)]
pub(crate) struct Post {
    pub(crate) name: String,
    pub(crate) machine: Machine,
    /// By connection.
    pub(crate) lines: Vec<Line>,
    pub(crate) role: Role,
}

/// What a machine is in the passes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Role {
    Leader,
    Backup,
    Aggregator,
    Leaf,
}

/// What the frames between machines take.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Traffic {
    /// Rounds and what goes with them, in bytes.
    pub(crate) up_bytes: u64,
    /// Bases from one level to the next, and their bytes.
    pub(crate) edge_downs: u64,
    pub(crate) edge_down_bytes: u64,
    /// Entries to backups, and their answers, in bytes.
    pub(crate) group_bytes: u64,
    /// Frames that found no room though it was said that there is.
    pub(crate) lost: u64,
}

/// What the leader has told the controller and the client.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Desk {
    pub(crate) led: bool,
    /// The leader asks for its grant.
    pub(crate) asked: bool,
    pub(crate) view_done: u64,
    pub(crate) trims: u64,
}

/// The machines of one thread.
#[derive(Debug)]
pub(crate) struct Hall {
    pub(crate) clock: MonotonicClock,
    pub(crate) posts: Vec<Post>,
    pub(crate) outs: Vec<Outbox>,
    /// In which order a turn goes: up, then down.
    order: Vec<usize>,
    ups: usize,
    leaves: Vec<usize>,
    /// Machines that have heard something, by post: only they have something to do before something is due.
    stirred: Vec<bool>,
    /// All leaves are read before anybody has a turn.
    pub(crate) at_once: bool,
    pub(crate) leader: Option<usize>,
    board: Arc<Board>,
    /// When something is to be done even if nothing comes.
    due: Time,
    /// Whether frames may come from other halls, or by the network.
    listens: bool,
    pub(crate) traffic: Traffic,
    pub(crate) desk: Desk,
    pub(crate) trace: Option<Trace>,
}

impl Hall {
    pub(crate) fn new(clock: MonotonicClock, board: Arc<Board>) -> Self {
        Self {
            clock,
            posts: Vec::new(),
            outs: Vec::new(),
            order: Vec::new(),
            ups: 0,
            leaves: Vec::new(),
            stirred: Vec::new(),
            at_once: false,
            leader: None,
            board,
            due: Time::ZERO,
            listens: false,
            traffic: Traffic::default(),
            desk: Desk::default(),
            trace: None,
        }
    }

    /// Takes a machine in; vertices after those above them.
    pub(crate) fn add(&mut self, name: String, machine: Machine, role: Role) -> usize {
        self.outs.push(Outbox::new(OutboxLimits {
            arena_bytes: 8 << 20,
            messages: 8_192,
            connections: CONNS_MAX,
        }));
        if role == Role::Leader {
            self.leader = Some(self.posts.len());
        }
        self.posts.push(Post {
            name,
            machine,
            lines: Vec::new(),
            role,
        });
        let of = |role: Role| {
            let posts = self.posts.iter().enumerate();
            posts
                .filter(move |(_, post)| post.role == role)
                .map(|(at, _)| at)
        };
        let mut vertices: Vec<usize> = of(Role::Leaf).chain(of(Role::Aggregator)).collect();
        vertices.sort_unstable();
        self.leaves = of(Role::Leaf).collect();
        self.stirred = vec![true; self.posts.len()];
        // Children are behind their parents.
        self.order = vertices.iter().rev().copied().collect();
        let leader: Vec<usize> = of(Role::Leader).collect();
        self.order.extend(&leader);
        self.order.extend(of(Role::Backup));
        self.ups = self.order.len();
        if of(Role::Backup).next().is_some() {
            self.order.extend(&leader);
        }
        self.order.extend(vertices);
        self.posts.len() - 1
    }

    /// Gives a machine one more connection; its number there.
    pub(crate) fn connect(&mut self, post: usize, mut line: Line) -> ConnId {
        self.listens |= matches!(line, Line::Ring(_) | Line::Datagrams(_));
        let conn = ConnId::new(self.posts[post].lines.len() as u32);
        self.outs[post].set_room(conn, line.room());
        self.posts[post].lines.push(line);
        conn
    }

    /// Both ends of a line are there: the machine says who it is, which [`Self::greet`] carries.
    pub(crate) fn open(&mut self, post: usize, conn: ConnId) {
        self.posts[post].machine.opened(conn, &mut self.outs[post]);
    }

    /// What a machine has said since then goes where it is to.
    pub(crate) fn greet(&mut self, post: usize) -> io::Result<()> {
        let now = self.clock.now();
        self.carry(post, now)
    }

    /// A frame of the controller or of a client.
    pub(crate) fn tell(&mut self, post: usize, conn: ConnId, frame: &[u8]) -> io::Result<()> {
        let now = self.clock.now();
        let (message, _) = Message::new_checked(frame).map_err(io::Error::other)?;
        let machine = &mut self.posts[post].machine;
        machine.handle(now, conn, &message, &mut self.outs[post]);
        self.due = now;
        self.carry(post, now)
    }

    /// Takes what has come to the leaves, and does what is due. Whether there was something.
    #[inline]
    pub(crate) fn pass(&mut self) -> io::Result<bool> {
        let mut now = self.clock.now();
        let mut found = 0;
        let together = self.listens || self.at_once;
        for at in 0..self.leaves.len() {
            let post = self.leaves[at];
            let Machine::Leaf(leaf) = &mut self.posts[post].machine else {
                continue;
            };
            let read = leaf.scan(now)?;
            found += read;
            self.stirred[post] |= read > 0;
            if read > 0 && !together {
                self.turn(now)?;
                now = self.clock.now();
            }
        }
        if now >= self.due || self.listens {
            self.stirred.fill(true);
        } else if found == 0 && !self.stirred.contains(&true) {
            return Ok(false);
        }
        let heard = self.turn(now)?;
        let deadlines = self.posts.iter().map(|post| post.machine.next_deadline());
        self.due = deadlines.min().unwrap_or(Time::FAR);
        if self.posts.iter_mut().any(|post| post.machine.closes()) {
            return Err(io::Error::other("a machine has closed a connection"));
        }
        Ok(found + heard > 0)
    }

    /// Up and down once, over the machines that have something to do. How many frames came from other threads.
    #[inline]
    fn turn(&mut self, mut now: Time) -> io::Result<u64> {
        let mut heard = 0;
        for at in 0..self.order.len() {
            let post = self.order[at];
            if at == self.ups {
                now = self.clock.now();
            }
            if self.listens {
                heard += self.poll(post, now)?;
            } else if !core::mem::take(&mut self.stirred[post]) {
                continue;
            }
            let Self { posts, outs, .. } = self;
            posts[post].machine.flush(now, &mut outs[post])?;
            self.carry(post, now)?;
        }
        Ok(heard)
    }

    /// Takes the frames that have come to a machine.
    fn poll(&mut self, post: usize, now: Time) -> io::Result<u64> {
        let mut heard = 0;
        let Post { machine, lines, .. } = &mut self.posts[post];
        let out = &mut self.outs[post];
        for (conn, line) in lines.iter_mut().enumerate() {
            let conn = ConnId::new(conn as u32);
            heard += line.receive(now, |frame| {
                if let Ok((message, _)) = Message::new_checked(frame) {
                    machine.handle(now, conn, &message, out);
                }
            })?;
            out.set_room(conn, line.room());
        }
        Ok(heard)
    }

    /// Takes what a machine says to where it goes.
    #[inline]
    fn carry(&mut self, post: usize, now: Time) -> io::Result<()> {
        let mut committed_at = None;
        for at in 0..self.outs[post].envelopes().len() {
            let envelope = self.outs[post].envelopes()[at];
            let frame = self.outs[post].head(&envelope);
            let (kind, len) = (frame.first().copied(), frame.len() as u64);
            match kind {
                Some(Up::KIND | Applied::KIND) => self.traffic.up_bytes += len,
                Some(RootWrite::KIND | RootWritten::KIND) => self.traffic.group_bytes += len,
                Some(Down::KIND) => {
                    self.traffic.edge_downs += 1;
                    self.traffic.edge_down_bytes += len;
                    if self.leader == Some(post)
                        && let Ok((Message::Down(down, _), _)) = Message::new_checked(frame)
                    {
                        let at = *committed_at.get_or_insert_with(|| self.clock.now());
                        self.board.commit(down.entry.get(), down.end_gsn.get(), at);
                    }
                }
                _ => {}
            }
            if let Some(trace) = &mut self.trace {
                let to = match &self.posts[post].lines[envelope.conn.index()] {
                    Line::Direct { post, .. } => self.posts[*post].name.as_str(),
                    _ => "",
                };
                trace.note(&self.posts[post].name, to, frame);
            }
            match &mut self.posts[post].lines[envelope.conn.index()] {
                Line::Direct { post: to, conn } => {
                    let (to, conn) = (*to, *conn);
                    let Ok([from, answers]) = self.outs.get_disjoint_mut([post, to]) else {
                        continue;
                    };
                    let (message, _) =
                        Message::new_checked(from.head(&envelope)).map_err(io::Error::other)?;
                    let machine = &mut self.posts[to].machine;
                    machine.handle(now, conn, &message, answers);
                    self.stirred[to] = true;
                }
                Line::Desk => self.desk.hear(frame),
                line => self.traffic.lost += u64::from(!line.send(frame)),
            }
        }
        let out = &mut self.outs[post];
        if !out.is_empty() || self.listens {
            out.clear();
            for (conn, line) in self.posts[post].lines.iter_mut().enumerate() {
                line.publish(now)?;
                out.set_room(ConnId::new(conn as u32), line.room());
            }
        }
        Ok(())
    }

    /// The leader.
    pub(crate) fn root(&self) -> Option<&Root> {
        match &self.posts[self.leader?].machine {
            Machine::Root(root, _) => Some(root),
            _ => None,
        }
    }

    /// The leaves.
    pub(crate) fn leaves(&self) -> impl Iterator<Item = &LeafPost> {
        self.posts.iter().filter_map(|post| match &post.machine {
            Machine::Leaf(leaf) => Some(&**leaf),
            _ => None,
        })
    }

    /// The leaves, to be changed.
    pub(crate) fn leaves_mut(&mut self) -> impl Iterator<Item = &mut LeafPost> {
        self.posts
            .iter_mut()
            .filter_map(|post| match &mut post.machine {
                Machine::Leaf(leaf) => Some(&mut **leaf),
                _ => None,
            })
    }

    /// Lets everybody do what time demands in the next pass.
    pub(crate) const fn hurry(&mut self) {
        self.due = Time::ZERO;
    }
}

impl Desk {
    fn hear(&mut self, frame: &[u8]) {
        match Message::new_checked(frame).map(|(message, _)| message) {
            Ok(Message::RootLed(..)) => self.led = true,
            Ok(Message::CeilingRequest(..)) => self.asked = true,
            Ok(Message::IntentDone(done, _)) => self.view_done = done.view.get(),
            Ok(Message::TrimAnswer(..)) => self.trims += 1,
            _ => {}
        }
    }
}
