//! Errors of the client library. Each says what was wrong, what it may have done, and what to do.

use ionian_core::client::{AppendError, AppendFailure, ConfigError, RequestError};
use ionian_types::{Effect, Gsn, NodeId, ShardId};
use ionian_wire::frame::RefusalReason;

/// Why an operation failed. [`Error::effect`] says what it may have done.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The payload is too long. Effect: none.
    #[error(
        "a payload of {bytes} bytes exceeds the largest record, {max} bytes; split it (no effect)"
    )]
    TooLarge {
        /// The payload's length in bytes.
        bytes: usize,
        /// The largest payload in bytes.
        max: usize,
    },
    /// Too many operations are open. Effect: none.
    #[error("too many operations are open; collect completions and try again (no effect)")]
    Busy,
    /// No server takes appends. Effect: none.
    #[error(
        "no server takes appends: the cluster map names no open shard; check `ionian status` (no effect)"
    )]
    NoServer,
    /// The shard takes no appends now. Effect: none.
    #[error(
        "shard {shard} takes no appends: node {node} is missing; start it, or append to another shard (no effect)"
    )]
    NotReady {
        /// The shard.
        shard: ShardId,
        /// The node that is missing; 0 when the map names none.
        node: NodeId,
    },
    /// The time allowed passed, and the append may or may not be in the log. Effect: unknown; or none, if no server can have
    /// taken it.
    #[error("the append got no answer in time{}; {} ({effect})", refused(.refusal), advice(.effect))]
    AppendTimedOut {
        /// The last refusal, and the node that it names (0 when none).
        refusal: Option<(RefusalReason, NodeId)>,
        /// What the append may have done.
        effect: Effect,
    },
    /// A server refused the append for good. Effect: none.
    #[error(
        "the server refused the append: {reason:?}; this client or the server has a fault, report it (no effect)"
    )]
    Refused {
        /// Why.
        reason: RefusalReason,
    },
    /// The time allowed for a read, tail or trim passed. Effect: none; unknown for a trim that was sent.
    #[error(
        "no answer in time from the root or any replica; check `ionian status` and try again ({effect})"
    )]
    TimedOut {
        /// What the operation may have done.
        effect: Effect,
    },
    /// A trim beyond the tail. Effect: none.
    #[error("cannot trim below {upto}: the log ends at {tail}; trim at most there (no effect)")]
    TrimBeyondTail {
        /// The position asked for.
        upto: Gsn,
        /// The position after the last one ordered.
        tail: Gsn,
    },
    /// The ticket was collected before, or is of another client. Effect: none.
    #[error(
        "this ticket has no outcome left to wait for; each outcome is handed out once (no effect)"
    )]
    UnknownTicket,
    /// The client was closed. Effect: none.
    #[error("the client is closed; open another one (no effect)")]
    Closed,
    /// The thread that drives an asynchronous client ended while the operation was open. Effect: unknown.
    #[error(
        "the client ended while the operation was open; ask the log what became of it (effect unknown)"
    )]
    Abandoned,
    /// The configuration cannot work. Effect: none.
    #[error("{0} (no effect)")]
    Config(#[from] ConfigError),
}

impl Error {
    /// What the failed operation may have done.
    #[must_use]
    pub const fn effect(&self) -> Effect {
        match self {
            Self::AppendTimedOut { effect, .. } | Self::TimedOut { effect } => *effect,
            Self::Abandoned => Effect::Unknown,
            _ => Effect::None,
        }
    }

    pub(crate) fn of_failure(failure: AppendFailure, effect: Effect) -> Self {
        match failure {
            AppendFailure::TimedOut { refusal } => Self::AppendTimedOut { refusal, effect },
            AppendFailure::Refused(reason) => Self::Refused { reason },
        }
    }

    /// A word for histories.
    pub(crate) const fn word(&self) -> &'static str {
        match self {
            Self::AppendTimedOut { .. } | Self::TimedOut { .. } => "timeout",
            Self::Refused { .. } => "refused",
            Self::TrimBeyondTail { .. } => "beyond-tail",
            Self::Abandoned => "conn",
            _ => "not-taken",
        }
    }
}

impl From<AppendError> for Error {
    fn from(error: AppendError) -> Self {
        match error {
            AppendError::TooLarge { bytes, max } => Self::TooLarge { bytes, max },
            AppendError::Busy => Self::Busy,
            AppendError::NotReady { shard, node } => Self::NotReady { shard, node },
            AppendError::Closed => Self::Closed,
            _ => Self::NoServer,
        }
    }
}

impl From<RequestError> for Error {
    fn from(error: RequestError) -> Self {
        match error {
            RequestError::Closed => Self::Closed,
            _ => Self::Busy,
        }
    }
}

fn refused(refusal: &Option<(RefusalReason, NodeId)>) -> String {
    match refusal {
        None => String::new(),
        Some((reason, NodeId::ZERO)) => format!(" (last refusal: {reason:?})"),
        Some((RefusalReason::ReplicaMissing, node)) => format!(" (node {node} is missing)"),
        Some((reason, node)) => format!(" (last refusal: {reason:?}, node {node})"),
    }
}

fn advice(effect: &Effect) -> &'static str {
    match effect {
        Effect::None => "try again",
        _ => "it may be in the log: read the log before you try again",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_say_what_was_wrong_and_what_it_did() {
        let error = Error::AppendTimedOut {
            refusal: Some((RefusalReason::ReplicaMissing, NodeId::new(4))),
            effect: Effect::None,
        };
        assert_eq!(
            error.to_string(),
            "the append got no answer in time (node 4 is missing); try again (no effect)"
        );
        let error = Error::AppendTimedOut {
            refusal: None,
            effect: Effect::Unknown,
        };
        assert_eq!(
            error.to_string(),
            "the append got no answer in time; it may be in the log: read the log before you try again (effect unknown)"
        );
        assert_eq!(error.effect(), Effect::Unknown);
        assert_eq!(Error::Busy.effect(), Effect::None);
    }
}
