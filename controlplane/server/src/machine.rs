//! The two seams to what is controlled: the state that every controller keeps, and the brain that only the leader has.
//!
//! The group knows nothing of views and logs. It replicates *commands*, bytes, and each controller applies them in one order
//! to its [`StateMachine`]. What turns messages of processes into commands is a [`Brain`]: it lives on the Raft leader, for one
//! lead, and is thrown away when the lead ends; everything that matters is in the state.
//!
//! # Versions
//!
//! The state has a version, the number of commands applied to it. A brain is made from the state at some version `v`, once
//! everything that an earlier brain could still have changed is applied or void. Its commands are `v+1`, `v+2`, ... in the
//! order in which it gives them away; the group applies each exactly once and in that order, or ends the lead. So a brain may apply its
//! commands to its own copy at once, and let what depends on version `n` leave when it hears that `n` is applied.

use std::fmt;
use std::sync::Arc;

use ionian_control_client::identity::Identity;

/// The replicated state: the same commands in the same order make the same bytes on every controller.
pub trait StateMachine: Send + Sync + 'static {
    /// Applies one command and returns what watchers are told of it. A command that makes no sense changes nothing; it must
    /// not panic, because every controller would.
    fn apply(&mut self, command: &[u8]) -> Vec<u8>;

    /// The whole state as bytes. Equal states give equal bytes.
    fn snapshot(&self) -> Vec<u8>;

    /// Becomes what `bytes` say.
    ///
    /// # Errors
    /// A sentence, if they are not a snapshot. The controller then stops.
    fn restore(&mut self, bytes: &[u8]) -> Result<(), String>;

    /// Whether `caller` may do `call`, judged on this controller's copy of the state.
    ///
    /// # Errors
    /// The sentence that the caller gets.
    fn permits(&self, caller: &Identity, call: Call) -> Result<(), String>;
}

/// What a caller may be permitted to do, apart from what the brain judges itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Call {
    /// Attach a process of the data plane.
    Attach,
    /// Send a request in the state machine's own language; the brain may refuse it still.
    Operate,
    /// Follow what is applied.
    Watch,
    /// See members and status.
    Look,
    /// Change the group of controllers.
    ChangeGroup,
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Attach => "attach a process",
            Self::Operate => "operate the cluster",
            Self::Watch => "watch the cluster's state",
            Self::Look => "see the cluster's status",
            Self::ChangeGroup => "change the group of controllers",
        })
    }
}

/// A connection of one process to the leader. Numbers are not used again while a controller runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(pub u64);

/// One request of an operator that waits for its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(pub u64);

/// What a brain hears. A brain takes every kind.
#[derive(Debug)]
pub enum Input<'a> {
    /// A process has connected; its certificate names it.
    Opened {
        /// The connection.
        conn: ConnId,
        /// Who it is.
        caller: &'a Identity,
    },
    /// It says something.
    Message {
        /// The connection.
        conn: ConnId,
        /// Its bytes, at most the configured number.
        bytes: &'a [u8],
    },
    /// It is gone.
    Closed {
        /// The connection.
        conn: ConnId,
    },
    /// An operator asks. [`Output::Reply`] answers, now or later.
    Asked {
        /// The request.
        call: CallId,
        /// Who asks.
        caller: &'a Identity,
        /// What, at most the configured number of bytes.
        request: &'a [u8],
    },
    /// Every command up to this version is committed and applied.
    Applied {
        /// The version.
        version: u64,
    },
    /// The time has come that [`Brain::next_deadline_ns`] named, or has passed.
    Deadline,
}

/// What a brain does.
#[derive(Debug)]
#[non_exhaustive]
pub enum Output {
    /// The next command: the version of the first one is one above the state that the brain was made from, and so on.
    Propose {
        /// The command, at most the configured number of bytes.
        command: Vec<u8>,
    },
    /// Bytes for a process. A connection without room for them is closed: ask [`Room`] first.
    Send {
        /// The connection.
        conn: ConnId,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// Has the operator told, in the controller's log, what a process was refused.
    Refused {
        /// The connection.
        conn: ConnId,
        /// Why, and what to do.
        reason: String,
    },
    /// Ends a connection.
    Close {
        /// The connection.
        conn: ConnId,
        /// Why: the process is told.
        reason: String,
    },
    /// Answers an operator.
    Reply {
        /// The request.
        call: CallId,
        /// The answer, or the sentence of a refusal without effect.
        answer: Result<Vec<u8>, String>,
    },
}

/// How many bytes a connection takes now.
pub trait Room {
    /// Zero for a connection that is gone or has too many messages under way.
    fn room(&self, conn: ConnId) -> usize;
}

/// What the leader thinks with. It is driven by one thread, with one input at a time, and never waits.
pub trait Brain: Send + 'static {
    /// Takes one input. `now_ns` never goes back; it is not the time of day.
    fn handle(&mut self, now_ns: u64, input: Input<'_>);

    /// What it does next, if anything; asked again until it says nothing.
    fn poll(&mut self, now_ns: u64, room: &dyn Room) -> Option<Output>;

    /// When it wants [`Input::Deadline`], on the clock of `now_ns`.
    fn next_deadline_ns(&self) -> Option<u64>;
}

/// Makes a brain when this controller begins to lead.
pub trait MakeBrain<S>: Send + Sync + 'static {
    /// `state` is the replicated state at `version`. The brain takes what it needs of it: the state is locked meanwhile.
    fn make(&self, now_ns: u64, state: &S, version: u64) -> Box<dyn Brain>;
}

impl<S, F> MakeBrain<S> for F
where
    F: Fn(u64, &S, u64) -> Box<dyn Brain> + Send + Sync + 'static,
{
    fn make(&self, now_ns: u64, state: &S, version: u64) -> Box<dyn Brain> {
        self(now_ns, state, version)
    }
}

/// Where sentences for the operator go. It must not wait.
pub type Report = Arc<dyn Fn(&str) + Send + Sync>;
