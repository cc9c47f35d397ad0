//! What a controller says instead of an answer: a kind that programs can act on, a sentence for people, and whether the
//! request may have had an effect.

use prost::Message;
use tonic::{Code, Status};

use crate::proto::control::{self as proto, refusal::Kind};

/// The longest sentence that goes over the network, in bytes: statuses travel in headers.
const SENTENCE_BYTES_MAX: usize = 1024;

/// A refusal, or the failure to get any answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{sentence}")]
pub struct Refusal {
    /// What to do about it.
    pub why: Why,
    /// For people.
    pub sentence: String,
    /// True if the request certainly had no effect and never will; else its effect is unknown.
    pub no_effect: bool,
}

/// The kinds of refusals.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Why {
    /// Another controller leads: ask there.
    NotLeader {
        /// Its number.
        leader: u64,
        /// Where it is.
        address: String,
    },
    /// No majority of the controllers can be reached, or none has a leader now.
    NoQuorum,
    /// The certificate does not permit this.
    NotPermitted,
    /// The request makes no sense as things stand.
    Invalid,
    /// One side must be upgraded first.
    Version,
    /// A limit is reached; later may be better.
    Busy,
    /// This controller has stopped.
    Stopped,
    /// The reader was too slow and was cut off.
    TooSlow,
    /// No answer in time.
    Timeout,
    /// The controller cannot be reached, or the connection broke.
    Unreachable,
}

impl Refusal {
    /// A refusal before anything was done.
    #[must_use]
    pub fn without_effect(why: Why, sentence: impl Into<String>) -> Self {
        Self {
            why,
            sentence: sentence.into(),
            no_effect: true,
        }
    }

    /// A refusal, or a loss, after which the request may or may not have an effect.
    #[must_use]
    pub fn unknown_effect(why: Why, sentence: impl Into<String>) -> Self {
        Self {
            why,
            sentence: sentence.into(),
            no_effect: false,
        }
    }

    /// As it goes over the network.
    #[must_use]
    pub fn to_status(&self) -> Status {
        let (kind, code) = match &self.why {
            Why::NotLeader { .. } => (Kind::NotLeader, Code::FailedPrecondition),
            Why::NoQuorum => (Kind::NoQuorum, Code::Unavailable),
            Why::NotPermitted => (Kind::NotPermitted, Code::PermissionDenied),
            Why::Invalid => (Kind::Invalid, Code::InvalidArgument),
            Why::Version => (Kind::Version, Code::FailedPrecondition),
            Why::Busy => (Kind::Busy, Code::ResourceExhausted),
            Why::Stopped => (Kind::Stopped, Code::Unavailable),
            Why::TooSlow => (Kind::TooSlow, Code::Aborted),
            Why::Timeout => (Kind::Timeout, Code::DeadlineExceeded),
            Why::Unreachable => (Kind::Unspecified, Code::Unavailable),
        };
        let (leader, leader_address) = match &self.why {
            Why::NotLeader { leader, address } => (*leader, address.clone()),
            _ => (0, String::new()),
        };
        let details = proto::Refusal {
            kind: kind.into(),
            leader,
            leader_address,
            no_effect: self.no_effect,
        };
        let mut end = self.sentence.len().min(SENTENCE_BYTES_MAX);
        while !self.sentence.is_char_boundary(end) {
            end -= 1;
        }
        Status::with_details(code, &self.sentence[..end], details.encode_to_vec().into())
    }

    /// What a status says. One without our details comes from the connection, not from a controller: its effect is unknown.
    #[must_use]
    pub fn from_status(status: &Status) -> Self {
        let details = match status.details() {
            [] => None,
            bytes => proto::Refusal::decode(bytes).ok(),
        };
        let sentence = status.message().to_owned();
        let Some(details) = details else {
            let why = match status.code() {
                Code::DeadlineExceeded => Why::Timeout,
                Code::ResourceExhausted | Code::OutOfRange => Why::Busy,
                Code::Unimplemented => Why::Version,
                _ => Why::Unreachable,
            };
            return Self::unknown_effect(why, sentence);
        };
        let why = match details.kind() {
            Kind::NotLeader => Why::NotLeader {
                leader: details.leader,
                address: details.leader_address,
            },
            Kind::NoQuorum => Why::NoQuorum,
            Kind::NotPermitted => Why::NotPermitted,
            Kind::Invalid => Why::Invalid,
            Kind::Version => Why::Version,
            Kind::Busy => Why::Busy,
            Kind::Stopped => Why::Stopped,
            Kind::TooSlow => Why::TooSlow,
            Kind::Timeout => Why::Timeout,
            Kind::Unspecified => Why::Unreachable,
        };
        Self {
            why,
            sentence,
            no_effect: details.no_effect,
        }
    }
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        refusal.to_status()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_survives_the_network() {
        let all = [
            Why::NotLeader {
                leader: 3,
                address: "h:1".into(),
            },
            Why::NoQuorum,
            Why::NotPermitted,
            Why::Invalid,
            Why::Version,
            Why::Busy,
            Why::Stopped,
            Why::TooSlow,
            Why::Timeout,
        ];
        for (why, no_effect) in all
            .into_iter()
            .flat_map(|w| [(w.clone(), true), (w, false)])
        {
            let refusal = Refusal {
                why,
                sentence: "because".into(),
                no_effect,
            };
            assert_eq!(Refusal::from_status(&refusal.to_status()), refusal);
        }
    }

    #[test]
    fn what_is_not_ours_has_an_unknown_effect() {
        for status in [
            Status::unavailable("x"),
            Status::with_details(Code::Internal, "x", vec![0xff; 9].into()),
        ] {
            let refusal = Refusal::from_status(&status);
            assert!(
                !refusal.no_effect && refusal.why == Why::Unreachable,
                "{refusal:?}"
            );
        }
        let long = Refusal::without_effect(Why::Invalid, "ä".repeat(5000));
        assert!(long.to_status().message().len() <= SENTENCE_BYTES_MAX);
    }
}
