//! What a controller is started with, and whether it makes sense.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ionian_control_client::tls::Credentials;
use openraft::SnapshotPolicy;

use crate::controller::StartError;
use crate::machine::Report;
use crate::network::MESSAGE_BYTES_MAX;

/// What a controller is started with. Cluster and number come from its certificate.
#[derive(Clone)]
pub struct ControllerConfig {
    /// Its certificate, of role controller, and its key.
    pub credentials: Credentials,
    /// Where its log and snapshots are; nobody else's folder.
    pub folder: PathBuf,
    /// Where it listens. Port 0 takes a free one.
    pub listen: SocketAddr,
    /// What others call it by, `host:port`; what it listens on if there is none.
    pub advertise: Option<String>,
    /// What to do if its folder is new.
    pub start: Start,
    /// Times of the group.
    pub timing: GroupTiming,
    /// Limits on sizes and numbers.
    pub limits: Limits,
    /// Where sentences for the operator go.
    pub report: Report,
}

impl std::fmt::Debug for ControllerConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ControllerConfig")
            .field("credentials", &self.credentials)
            .field("folder", &self.folder)
            .field("listen", &self.listen)
            .field("start", &self.start)
            .finish_non_exhaustive()
    }
}

/// What a controller with a new folder does. One that is a member of a group already goes on as such whatever is said here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// Begins a group of one.
    Init,
    /// Asks the group that these addresses belong to until it is a member.
    Join(Vec<String>),
    /// Waits to be added, or to be told to begin a group.
    Wait,
}

/// Times of a group. All its controllers should have the same.
#[derive(Clone, Copy, Debug)]
pub struct GroupTiming {
    /// How often a leader speaks; also how long one message may take.
    pub heartbeat: Duration,
    /// The shortest time after which a follower without a leader stands for election.
    pub election_min: Duration,
    /// The longest; also the lease: so long after the last word of a majority a leader still leads.
    pub election_max: Duration,
    /// The longest a call of an operator takes.
    pub call_timeout: Duration,
    /// The longest a new controller takes to get the state.
    pub catch_up_timeout: Duration,
}

impl Default for GroupTiming {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_millis(250),
            election_min: Duration::from_millis(1000),
            election_max: Duration::from_millis(2000),
            call_timeout: Duration::from_secs(10),
            catch_up_timeout: Duration::from_secs(60),
        }
    }
}

/// Limits on sizes and numbers.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The largest command, in bytes, at most 2 MiB: an entry with it must fit into a message between controllers.
    pub command_bytes_max: usize,
    /// The largest frame of a process and the largest request of an operator, in bytes.
    pub message_bytes_max: usize,
    /// What may be on its way to one process, in bytes and in messages.
    pub outgoing_bytes_max: usize,
    /// See [`Limits::outgoing_bytes_max`].
    pub outgoing_messages_max: usize,
    /// Processes attached to the leader.
    pub attached_max: usize,
    /// Watchers of one controller.
    pub watchers_max: usize,
    /// Connections to one controller.
    pub connections_max: usize,
    /// Calls under way on one connection.
    pub calls_per_connection_max: u32,
    /// The file of the log never grows beyond this, in bytes.
    pub log_bytes_max: u64,
    /// The largest snapshot, in bytes.
    pub snapshot_bytes_max: u64,
    /// A snapshot is made after this many entries. Twice as many stay in the log behind it.
    pub snapshot_entries: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            command_bytes_max: 1 << 20,
            message_bytes_max: 2 << 20,
            outgoing_bytes_max: 8 << 20,
            outgoing_messages_max: 256,
            attached_max: 16_384,
            watchers_max: 1024,
            connections_max: 20_000,
            calls_per_connection_max: 128,
            log_bytes_max: 8 << 30,
            snapshot_bytes_max: 256 << 20,
            snapshot_entries: 1000,
        }
    }
}

/// Says what in `config` contradicts itself.
pub(crate) fn check(config: &ControllerConfig, id: u64) -> Result<(), StartError> {
    let wrong = |sentence: &str| Err(StartError::Config(sentence.to_owned()));
    let GroupTiming {
        heartbeat,
        election_min,
        election_max,
        ..
    } = config.timing;
    if id == 0 {
        return wrong("controllers are numbered from 1");
    }
    if heartbeat.as_millis() == 0 || heartbeat * 2 > election_min || election_min >= election_max {
        return wrong(
            "the times of the group contradict each other: heartbeat at least 1 ms, election_min at least twice that, election_max more than election_min",
        );
    }
    if config.limits.command_bytes_max > MESSAGE_BYTES_MAX / 2 {
        return wrong("command_bytes_max is more than 2 MiB");
    }
    let unspecified = config.listen.ip().is_unspecified();
    if unspecified && config.advertise.is_none() {
        return wrong(
            "a controller that listens on every address needs one that others call it by",
        );
    }
    Ok(())
}

/// The configuration that Raft gets.
pub(crate) fn raft_config(
    cluster: &str,
    timing: &GroupTiming,
    limits: &Limits,
) -> Result<openraft::Config, StartError> {
    let ms = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
    let entries = limits.snapshot_entries.max(1);
    openraft::Config {
        cluster_name: cluster.to_owned(),
        heartbeat_interval: ms(timing.heartbeat),
        election_timeout_min: ms(timing.election_min),
        election_timeout_max: ms(timing.election_max),
        install_snapshot_timeout: ms(timing.catch_up_timeout),
        max_payload_entries: 64,
        replication_lag_threshold: entries.saturating_mul(4),
        snapshot_policy: SnapshotPolicy::LogsSinceLast(entries),
        max_in_snapshot_log_to_keep: entries.saturating_mul(2),
        snapshot_max_chunk_size: 1 << 20,
        ..openraft::Config::default()
    }
    .validate()
    .map_err(|e| StartError::Config(e.to_string()))
}
