//! How a controller stands in its group now: whether it leads, whom it follows, or why it can do neither.
//!
//! A leader leads only while a majority answers it: its lease is the longest election timeout, within which no other
//! controller grants a vote. After that it says "no quorum" at once, whatever is under way. A follower does the same when its leader has
//! been silent for as long. So nobody waits for an election to learn that nothing can be changed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ionian_control_client::refusal::{Refusal, Why};
use openraft::BasicNode;
use openraft::{Raft, RaftMetrics, ServerState};
use tokio::sync::watch;

use crate::hearing::Heard;
use crate::store::{Fault, Types};

/// How a controller stands.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Standing {
    /// It leads in this term, and a majority has answered within the lease.
    Leads {
        /// The term.
        term: u64,
    },
    /// Another one leads.
    Follows {
        /// Its number.
        leader: u64,
        /// Where it is.
        address: String,
    },
    /// Nothing can be changed from here now.
    NoQuorum {
        /// Why, as a sentence.
        reason: String,
    },
    /// It is not, or no longer, a member of the group.
    Outside,
    /// Its storage has failed, or it was shut down.
    Stopped {
        /// Why, as a sentence.
        reason: String,
    },
}

impl Standing {
    /// The refusal of a change that was not begun; None while it leads.
    #[must_use]
    pub fn refusal(&self) -> Option<Refusal> {
        let (why, sentence) = match self {
            Self::Leads { .. } => return None,
            Self::Follows { leader, address } => {
                let why = Why::NotLeader {
                    leader: *leader,
                    address: address.clone(),
                };
                (
                    why,
                    format!("not leader, leader is controller {leader} at {address}"),
                )
            }
            Self::NoQuorum { reason } => (Why::NoQuorum, format!("no quorum: {reason}")),
            Self::Outside => {
                let sentence = "no quorum: this controller is not a member of the group";
                (Why::NoQuorum, sentence.to_owned())
            }
            Self::Stopped { reason } => (Why::Stopped, reason.clone()),
        };
        Some(Refusal::without_effect(why, sentence))
    }

    /// The refusal of a change that was under way when the controller ceased to lead.
    #[must_use]
    pub fn cut_short(&self) -> Refusal {
        match self.refusal() {
            Some(refusal) => Refusal {
                no_effect: false,
                ..refusal
            },
            None => Refusal::unknown_effect(Why::Busy, "the lead began anew: ask again"),
        }
    }
}

impl std::fmt::Display for Standing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Leads { term } => write!(f, "leads in term {term}"),
            Self::Follows { leader, address } => {
                write!(f, "follows controller {leader} at {address}")
            }
            Self::NoQuorum { reason } => write!(f, "no quorum: {reason}"),
            Self::Outside => f.write_str("is not a member of the group"),
            Self::Stopped { reason } => write!(f, "stopped: {reason}"),
        }
    }
}

/// What the standing follows from.
pub(crate) struct Observer {
    pub(crate) raft: Raft<Types>,
    pub(crate) heard: Arc<Heard>,
    pub(crate) fault: Fault,
    pub(crate) lease: Duration,
}

impl Observer {
    /// Keeps `standing` true until nobody looks any more.
    pub(crate) async fn run(self, standing: watch::Sender<Standing>) {
        let mut metrics = self.raft.metrics();
        loop {
            let seen = Instant::now();
            let now = metrics.borrow_and_update().clone();
            let mut alive = true;
            // Raft says something new at each tick; between, and if it is stuck, time passes all the same.
            while alive {
                let next = self.judge(&now, seen.elapsed());
                standing.send_if_modified(|s| {
                    let changed = *s != next;
                    if changed {
                        *s = next;
                    }
                    changed
                });
                let step = (self.lease / 8).max(Duration::from_millis(1));
                alive = tokio::select! {
                    changed = metrics.changed() => match changed {
                        Ok(()) => false,
                        Err(_) => return,
                    },
                    () = tokio::time::sleep(step) => true,
                    () = standing.closed() => return,
                };
            }
        }
    }

    fn judge(&self, metrics: &RaftMetrics<u64, BasicNode>, age: Duration) -> Standing {
        let lease_ms = u64::try_from(self.lease.as_millis()).unwrap_or(u64::MAX);
        let age_ms = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
        if let Some(fault) = self.fault.get() {
            return Standing::Stopped {
                reason: fault.to_owned(),
            };
        }
        if let Err(fatal) = &metrics.running_state {
            return Standing::Stopped {
                reason: format!("controller {} has stopped: {fatal}", metrics.id),
            };
        }
        let membership = metrics.membership_config.membership();
        if membership.get_node(&metrics.id).is_none() {
            return Standing::Outside;
        }
        let no_quorum = |reason: String| Standing::NoQuorum { reason };
        match (metrics.state, metrics.current_leader) {
            (ServerState::Leader, _) => {
                let silence = metrics
                    .millis_since_quorum_ack
                    .map(|ms| ms.saturating_add(age_ms));
                match silence {
                    Some(ms) if ms <= lease_ms => Standing::Leads {
                        term: metrics.current_term,
                    },
                    _ => no_quorum("a majority of the controllers does not answer".to_owned()),
                }
            }
            (ServerState::Shutdown, _) => Standing::Stopped {
                reason: format!("controller {} was shut down", metrics.id),
            },
            (_, Some(leader)) if leader != metrics.id => {
                // A leader that was never heard, by a vote alone, is none for anybody who asks.
                if self.heard.silence_ms() > lease_ms {
                    return no_quorum(format!("controller {leader}, which led, is silent"));
                }
                let address = membership.get_node(&leader).map(|n| n.addr.clone());
                Standing::Follows {
                    leader,
                    address: address.unwrap_or_default(),
                }
            }
            _ => no_quorum("no controller leads".to_owned()),
        }
    }
}
