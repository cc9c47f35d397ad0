//! What the controllers of a cluster agree on, and what their leader thinks with: the state and the directory of
//! `ionian-control-core`, behind the seams of [`ionian_control_server::machine`].
//!
//! A process of the data plane attaches once for each of its places; what it says are the messages of `ionian-wire`, one in
//! each frame. A certificate's node is the only one that its owner may speak for, and of two processes that say they are the
//! same node the second is refused while the first is there (`processes`). A user may ask for the cluster map, and for what
//! its rights on logs allow; the user [`ADMIN`], whom the cluster's authority makes with the cluster, may operate it.

#![forbid(unsafe_code)]

mod processes;

use std::collections::{BTreeMap, VecDeque};
use std::time::{SystemTime, UNIX_EPOCH};

use ionian_control_client::identity::{Identity, Role};
use ionian_control_core::{Asker, ClusterSpec, Directory, DirectoryConfig, SpecError, State, Who};
use ionian_control_server::machine::{
    Brain, Call, CallId, ConnId, Input, MakeBrain, Output, Room, StateMachine,
};
use ionian_types::{ClusterId, ConnId as Place, Shipped, Time};
use ionian_wire::frame::{Message, Role as WireRole};

use processes::Processes;

pub use ionian_control_core::ADMIN;

/// Requests of operators that wait for an answer, at most; more are refused.
const REPLIES_MAX: usize = 1024;
/// Between two looks at the age of keys at most, while nothing else happens.
const KEY_CHECK_NS: u64 = 10_000_000_000;

/// The state that the controllers of a cluster agree on.
#[derive(Clone, Debug)]
pub struct ClusterState(State);

impl ClusterState {
    /// The state before the first command.
    #[must_use]
    pub const fn new() -> Self {
        Self(State::new())
    }
}

impl Default for ClusterState {
    fn default() -> Self {
        Self::new()
    }
}

impl StateMachine for ClusterState {
    fn apply(&mut self, command: &[u8]) -> Vec<u8> {
        self.0.apply_bytes(command)
    }

    fn snapshot(&self) -> Vec<u8> {
        self.0.snapshot()
    }

    fn restore(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.0 = State::restore(bytes).map_err(|error| error.to_string())?;
        Ok(())
    }

    fn permits(&self, caller: &Identity, call: Call) -> Result<(), String> {
        let permitted = match (&caller.role, call) {
            (Role::Controller(_), _) | (Role::Node(_), Call::Look | Call::Attach) => true,
            (Role::Node(_), call) => call == Call::Watch,
            // What a user may ask for follows from its rights, which the leader knows.
            (Role::User(_), Call::Operate) => true,
            (Role::User(name), Call::Look | Call::Attach) => self.0.is_user(name),
            (Role::User(name), _) => name == ADMIN,
        };
        if permitted {
            Ok(())
        } else {
            Err(format!(
                "{caller} may not {call}; the user {ADMIN:?} of the cluster may"
            ))
        }
    }
}

/// How a cluster begins, and how its leader behaves in time.
#[derive(Clone, Debug)]
pub struct Founding {
    /// The identity that the cluster gets; not used where it has one.
    pub cluster: ClusterId,
    /// The nodes and logs that it begins with.
    pub spec: ClusterSpec,
    /// How the leader behaves.
    pub config: DirectoryConfig,
}

impl Founding {
    /// Checks what the cluster begins with.
    ///
    /// # Errors
    /// [`SpecError`]; effect none.
    pub fn check(&self) -> Result<(), SpecError> {
        Directory::<Shipped>::new(self.cluster, &self.spec, self.config, Time::ZERO).map(drop)
    }
}

impl MakeBrain<ClusterState> for Founding {
    fn make(&self, now_ns: u64, state: &ClusterState, version: u64) -> Box<dyn Brain> {
        let now = Time::from_ns(now_ns);
        let config = DirectoryConfig {
            replicated: true,
            ..self.config
        };
        let fresh = (version == 0)
            .then(|| Directory::new(self.cluster, &self.spec, config, now).ok())
            .flatten();
        let directory = fresh.unwrap_or_else(|| Directory::lead(state.0.clone(), config, now));
        Box::new(Leader {
            directory,
            applied: version,
            conns: BTreeMap::new(),
            by_place: BTreeMap::new(),
            processes: Processes::default(),
            next: 0,
            replies: VecDeque::new(),
            early: VecDeque::new(),
            out: VecDeque::new(),
            key_check_ns: 0,
            key_check_every_ns: KEY_CHECK_NS.min(config.key_life_us.saturating_mul(1000)),
        })
    }
}

/// A process that is attached.
#[derive(Debug)]
struct Attached {
    place: Place,
    caller: Identity,
}

/// The leader's directory, and who it talks to.
#[derive(Debug)]
struct Leader {
    directory: Directory<Shipped>,
    applied: u64,
    conns: BTreeMap<ConnId, Attached>,
    by_place: BTreeMap<Place, ConnId>,
    processes: Processes,
    next: u32,
    /// Answers to operators, each with the version that it waits for.
    replies: VecDeque<(u64, CallId, Vec<u8>)>,
    /// Requests that wait until it is known who is there.
    early: VecDeque<(CallId, Identity, Vec<u8>)>,
    out: VecDeque<Output>,
    /// When it is looked next whether the keys of grants have served their time.
    key_check_ns: u64,
    /// Between two looks, in nanoseconds.
    key_check_every_ns: u64,
}

impl Leader {
    fn opened(&mut self, conn: ConnId, caller: &Identity) {
        // Numbers come around after four billion connections; those that are still in use are passed over.
        while self.by_place.contains_key(&Place::new(self.next)) {
            self.next = self.next.wrapping_add(1);
        }
        let place = Place::new(self.next);
        self.next = self.next.wrapping_add(1);
        let caller = caller.clone();
        self.conns.insert(conn, Attached { place, caller });
        self.by_place.insert(place, conn);
        self.directory.connected(place);
    }

    fn closed(&mut self, now: Time, conn: ConnId) {
        if let Some(attached) = self.conns.remove(&conn) {
            self.by_place.remove(&attached.place);
            self.processes.gone(conn);
            self.directory.disconnected(now, attached.place);
        }
    }

    fn message(&mut self, now: Time, conn: ConnId, bytes: &[u8]) {
        let Some(attached) = self.conns.get(&conn) else {
            return;
        };
        let refused = match Message::new_checked(bytes) {
            Ok((message, [])) => match may_say(&attached.caller, &message)
                .and_then(|()| self.processes.hear(conn, &attached.caller, &message))
            {
                Ok(()) => {
                    self.directory.handle(now, attached.place, &message);
                    return;
                }
                Err(reason) => reason,
            },
            Ok(_) => String::from("a frame holds one message"),
            Err(error) => format!("not a message of this version: {error}"),
        };
        self.refuse(now, conn, refused);
    }

    /// Ends a connection, and has the operator told why.
    fn refuse(&mut self, now: Time, conn: ConnId, reason: String) {
        self.closed(now, conn);
        self.out.push_back(Output::Refused {
            conn,
            reason: reason.clone(),
        });
        self.out.push_back(Output::Close { conn, reason });
    }

    fn asked(&mut self, now: Time, call: CallId, caller: &Identity, request: &[u8]) {
        if self.replies.len() + self.early.len() >= REPLIES_MAX {
            let reason = "too many requests wait for an answer; ask again later";
            self.out.push_back(Output::Reply {
                call,
                answer: Err(reason.to_owned()),
            });
            return;
        }
        if self.directory.is_asked_early(request) {
            self.early
                .push_back((call, caller.clone(), request.to_vec()));
            return;
        }
        let who = match &caller.role {
            Role::User(name) if name != ADMIN => Who::User(name),
            _ => Who::Operator,
        };
        let Some(random) = random() else {
            self.out.push_back(Output::Reply {
                call,
                answer: Err(String::from("the controller's system has no random bytes")),
            });
            return;
        };
        let random = u64::from_le_bytes(random);
        let asker = Asker { who, random };
        let (version, answer) = self.directory.operate(now, &asker, request);
        self.replies.push_back((version, call, answer));
    }

    /// Asks what came early once more.
    fn ask_early(&mut self, now: Time) {
        for (call, caller, request) in std::mem::take(&mut self.early) {
            self.asked(now, call, &caller, &request);
        }
    }
}

impl Brain for Leader {
    fn handle(&mut self, now_ns: u64, input: Input<'_>) {
        let now = Time::from_ns(now_ns);
        self.directory.set_wall_clock_us(wall_clock_us());
        match input {
            Input::Opened { conn, caller } => self.opened(conn, caller),
            Input::Message { conn, bytes } => self.message(now, conn, bytes),
            Input::Closed { conn } => self.closed(now, conn),
            Input::Asked {
                call,
                caller,
                request,
            } => self.asked(now, call, caller, request),
            Input::Applied { version } => {
                self.applied = self.applied.max(version);
                self.directory.persisted(version);
            }
            Input::Deadline => self.directory.on_deadline(now),
        }
        self.ask_early(now);
        // Without random bytes there is no epoch yet, or the present one goes on.
        if self.directory.wants_key()
            && let Some(key) = random()
        {
            self.directory.turn_keys(key);
        }
        self.key_check_ns = now_ns.saturating_add(self.key_check_every_ns);
    }

    fn poll(&mut self, now_ns: u64, room: &dyn Room) -> Option<Output> {
        for command in self.directory.take_commands() {
            self.out.push_back(Output::Propose {
                command: command.bytes,
            });
        }
        while let Some(place) = self.directory.take_close() {
            if let Some(conn) = self.by_place.get(&place).copied() {
                self.closed(Time::from_ns(now_ns), conn);
                self.out.push_back(Output::Close {
                    conn,
                    reason: String::from(
                        "the process was found dead: it was silent, and is to say anew who it is",
                    ),
                });
            }
        }
        while let Some(refused) = self.directory.take_refused() {
            let Some(conn) = self.by_place.get(&refused.conn).copied() else {
                continue;
            };
            let reason = refused.sentence;
            if refused.closes {
                self.refuse(Time::from_ns(now_ns), conn, reason);
            } else {
                self.out.push_back(Output::Refused { conn, reason });
            }
        }
        if let Some(output) = self.out.pop_front() {
            return Some(output);
        }
        let durable = |reply: &(u64, CallId, Vec<u8>)| reply.0 <= self.applied;
        if self.replies.front().is_some_and(durable)
            && let Some((_, call, answer)) = self.replies.pop_front()
        {
            let answer = Ok(answer);
            return Some(Output::Reply { call, answer });
        }
        let by_place = &self.by_place;
        let free = |place: Place| by_place.get(&place).map_or(0, |conn| room.room(*conn));
        let mut bytes = Vec::new();
        let place = self
            .directory
            .poll(Time::from_ns(now_ns), free, &mut bytes)?;
        let conn = *self.by_place.get(&place)?;
        Some(Output::Send { conn, bytes })
    }

    fn next_deadline_ns(&self) -> Option<u64> {
        let at = self.directory.next_deadline();
        Some(at.as_ns().min(self.key_check_ns))
    }
}

/// Whether this caller may say this: a node speaks for itself only, and a user asks for the map.
fn may_say(caller: &Identity, message: &Message<'_>) -> Result<(), String> {
    let node = match (&caller.role, message) {
        (Role::Controller(_), _) | (_, Message::DirectoryRequest(..)) => return Ok(()),
        (Role::User(_), Message::Hello(hello, _)) if hello.role == WireRole::Client => {
            return Ok(());
        }
        (Role::User(_), message) => {
            return Err(format!("{caller} may not send {}", message.name()));
        }
        (Role::Node(_), Message::Hello(hello, _)) => hello.node,
        (Role::Node(_), Message::Register(register, _)) => register.node,
        (Role::Node(_), Message::KeysRequest(request, _)) => request.node,
        (Role::Node(_), Message::Observe(observe, _)) => observe.node,
        // What else a process says counts only for the place that it has said it fills.
        (Role::Node(_), _) => return Ok(()),
    };
    if caller.role == Role::Node(u64::from(node.get())) {
        Ok(())
    } else {
        Err(format!("{caller} may not speak for node {node}"))
    }
}

/// Random bytes of the system.
fn random<const N: usize>() -> Option<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).ok()?;
    Some(bytes)
}

/// Microseconds since 1970, for the history of views and the age of keys.
fn wall_clock_us() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| u64::try_from(now.as_micros()).unwrap_or(u64::MAX))
}
