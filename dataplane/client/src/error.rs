//! Errors of the client library. Each says what was wrong, what it may have done, and what to do.

use ionian_core::client::{AppendError, AppendFailure, ConfigError, RequestError};
use ionian_types::{Effect, Gsn, NodeId, ShardId};
use ionian_wire::frame::RefusalReason;
use ionian_wire::grant::Rights;

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
    #[error("{} ({effect})", timed_out(.refusal, .effect))]
    AppendTimedOut {
        /// The last refusal, and the node that it names (0 when none).
        refusal: Option<(RefusalReason, NodeId)>,
        /// What the append may have done.
        effect: Effect,
    },
    /// The shard was declared lost, and opened anew, before the append was acknowledged: it may have had a position, which
    /// reads as lost now; it will not get one any more. Effect: unknown.
    #[error(
        "the shard was declared lost before the append was acknowledged; if it had a position, that is lost too, and it will not get another one: append it again unless a reader may have seen it (effect unknown)"
    )]
    AppendLost,
    /// A server refused the append for good. Effect: none.
    #[error(
        "the server refused the append: {}; this client or the server has a fault, report it (no effect)",
        cause(*.reason, NodeId::ZERO)
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
    /// A trim beyond the tail. Effect: none, unless the request was sent more than once: then a sending under way may be
    /// carried out when the log has grown that far.
    #[error("cannot trim below {upto}: the log ends at {tail}; trim at most there ({effect})")]
    TrimBeyondTail {
        /// The position asked for.
        upto: Gsn,
        /// The position after the last one ordered.
        tail: Gsn,
        /// What the operation may have done, or may do yet.
        effect: Effect,
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
    /// The user of the client may not do this with the log. Effect: none; unknown for what was sent before the right was taken.
    #[error(
        "no right to {right} this log; whoever has its admin right gives it with `ionian log grant` ({effect})"
    )]
    NoRight {
        /// The right that is missing.
        right: Rights,
        /// What the operation may have done.
        effect: Effect,
    },
    /// The configuration cannot work. Effect: none.
    #[error("{0} (no effect)")]
    Config(#[from] ConfigError),
}

impl Error {
    /// What the failed operation may have done.
    #[must_use]
    pub const fn effect(&self) -> Effect {
        match self {
            Self::AppendTimedOut { effect, .. }
            | Self::NoRight { effect, .. }
            | Self::TimedOut { effect }
            | Self::TrimBeyondTail { effect, .. } => *effect,
            Self::Abandoned | Self::AppendLost => Effect::Unknown,
            _ => Effect::None,
        }
    }

    /// The error of an append that did not get a position.
    #[must_use]
    pub const fn of_failure(failure: AppendFailure, effect: Effect) -> Self {
        match failure {
            AppendFailure::TimedOut { refusal } => Self::AppendTimedOut { refusal, effect },
            AppendFailure::Refused(reason) => Self::Refused { reason },
            AppendFailure::Lost => Self::AppendLost,
        }
    }

    /// A word for histories.
    pub(crate) const fn word(&self) -> &'static str {
        match self {
            Self::AppendTimedOut { .. } | Self::TimedOut { .. } => "timeout",
            Self::Refused { .. } | Self::NoRight { .. } => "refused",
            Self::TrimBeyondTail { .. } => "beyond-tail",
            Self::Abandoned => "conn",
            Self::AppendLost => "lost",
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

/// What became of an append for which the time ran out, and what to do.
fn timed_out(refusal: &Option<(RefusalReason, NodeId)>, effect: &Effect) -> String {
    let why = refusal.map(|(reason, node)| (reason, cause(reason, node)));
    match (why, effect) {
        (Some((reason, why)), Effect::None) => {
            let remedy = remedy(reason);
            format!("the append was not taken in time: {why}; {remedy}")
        }
        (None, Effect::None) => {
            String::from("the append was not taken in time: no server answered; try again")
        }
        (why, _) => {
            let why = why.map_or(String::new(), |(_, why)| format!(" (last refusal: {why})"));
            format!(
                "the append got no answer in time{why}; it may be in the log: read the log before you try again"
            )
        }
    }
}

/// Why a server refused, in words.
fn cause(reason: RefusalReason, node: NodeId) -> String {
    let words = match reason {
        RefusalReason::StoreFull => "the store is full",
        RefusalReason::ReplicaMissing => return format!("node {node} is missing"),
        RefusalReason::Busy => "too many records wait to be ordered",
        RefusalReason::NotReady => "the replica is still starting, or about to end",
        RefusalReason::Device => "the device of the replica failed",
        RefusalReason::Closed => "the replica began a new life",
        RefusalReason::SessionClosed => "the session is closed",
        RefusalReason::Stale | RefusalReason::Window => "it lies outside the client's window",
        RefusalReason::Mismatch => "its number was used for another record",
        RefusalReason::Malformed => "it does not parse",
    };
    words.to_owned()
}

const fn remedy(reason: RefusalReason) -> &'static str {
    match reason {
        RefusalReason::StoreFull => {
            "trim the log, or raise memory_bytes_max or disk_bytes_max of its nodes"
        }
        RefusalReason::ReplicaMissing => "start it, or append to another shard",
        RefusalReason::Device => "see what the node says, and `ionian status`",
        _ => "try again",
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
            "the append was not taken in time: node 4 is missing; start it, or append to another shard (no effect)"
        );
        let error = Error::AppendTimedOut {
            refusal: Some((RefusalReason::StoreFull, NodeId::ZERO)),
            effect: Effect::None,
        };
        assert_eq!(
            error.to_string(),
            "the append was not taken in time: the store is full; trim the log, or raise memory_bytes_max or disk_bytes_max of its nodes (no effect)"
        );
        let error = Error::AppendTimedOut {
            refusal: Some((RefusalReason::Busy, NodeId::ZERO)),
            effect: Effect::Unknown,
        };
        assert!(
            error.to_string().contains("no answer in time (last refusal: too many records wait to be ordered); it may be in the log"),
            "{error}"
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
