//! A new controller's way into a group: it asks, at one address after the other, until it is a member or is told that it cannot be.

use std::time::Duration;

use ionian_control_client::connect::{Connection, Timing};
use ionian_control_client::proto;
use ionian_control_client::proto::control::AddControllerRequest;
use ionian_control_client::proto::control::control_client::ControlClient;
use ionian_control_client::refusal::{Refusal, Why};
use ionian_control_client::tls::Credentials;
use openraft::Raft;

use crate::machine::Report;
use crate::store::Types;

/// The first and the longest pause between two rounds of asking.
const PAUSES_MS: (u64, u64) = (50, 2000);

/// What joining needs.
pub(crate) struct Joining {
    pub(crate) id: u64,
    pub(crate) advertised: String,
    pub(crate) addresses: Vec<String>,
    pub(crate) credentials: Credentials,
    pub(crate) timing: Timing,
    pub(crate) call_timeout: Duration,
    pub(crate) raft: Raft<Types>,
    pub(crate) report: Report,
}

impl Joining {
    /// True once this controller is a voter.
    fn done(&self) -> bool {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow();
        let mut voters = metrics.membership_config.membership().voter_ids();
        metrics.running_state.is_err() || voters.any(|id| id == self.id)
    }

    /// Asks until it is done or refused for good.
    pub(crate) async fn run(self) {
        let (mut pause_ms, longest_ms) = PAUSES_MS;
        let mut told = String::new();
        while !self.done() {
            for address in &self.addresses {
                let refusal = match self.ask(address).await {
                    Ok(()) => return,
                    Err(refusal) => refusal,
                };
                // Where the leader is, somebody may know; it is asked at once.
                let refusal = match &refusal.why {
                    Why::NotLeader { address, .. } if !address.is_empty() => {
                        match self.ask(address).await {
                            Ok(()) => return,
                            Err(refusal) => refusal,
                        }
                    }
                    _ => refusal,
                };
                if matches!(refusal.why, Why::Invalid | Why::NotPermitted | Why::Version) {
                    (self.report)(&format!("controller {} cannot join: {refusal}", self.id));
                    return;
                }
                if refusal.sentence != told {
                    told = refusal.sentence;
                    (self.report)(&format!("controller {} waits to join: {told}", self.id));
                }
            }
            tokio::time::sleep(Duration::from_millis(pause_ms)).await;
            pause_ms = (pause_ms * 2).min(longest_ms);
        }
    }

    async fn ask(&self, address: &str) -> Result<(), Refusal> {
        let unreachable = |sentence: String| Refusal::unknown_effect(Why::Unreachable, sentence);
        let tls = self.credentials.client_config();
        let tls = tls.map_err(|e| unreachable(e.to_string()))?;
        let connection = Connection::new(address, tls, self.timing).map_err(unreachable)?;
        let mut client = ControlClient::new(connection.channel());
        let request = AddControllerRequest {
            version: proto::VERSION,
            id: self.id,
            address: self.advertised.clone(),
        };
        match tokio::time::timeout(self.call_timeout, client.add_controller(request)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(status)) => {
                let mut refusal = Refusal::from_status(&status);
                if refusal.why == Why::Unreachable {
                    refusal.sentence = connection.failure(&status);
                }
                Err(refusal)
            }
            Err(_) => Err(unreachable(format!("{address} gives no answer"))),
        }
    }
}
