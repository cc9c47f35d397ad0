//! What a replica is, its limits and its timeouts.

use ionian_types::{ClusterId, Inc, LogId, Nanos, NodeId, ShardId, Slot};

/// What a replica is and how much it may hold.
#[derive(Clone, Copy, Debug)]
pub struct ReplicaConfig {
    /// The cluster.
    pub cluster: ClusterId,
    /// The node it runs on.
    pub node: NodeId,
    /// This life's incarnation, issued by the controller.
    pub inc: Inc,
    /// The log.
    pub log: LogId,
    /// The shard.
    pub shard: ShardId,
    /// The slot in the shard; the segment of that slot is its own.
    pub slot: Slot,
    /// The number of replicas of the shard.
    pub replicas: u8,
    /// Own records not yet ordered beyond which appends are refused.
    pub uncommitted_records_max: u64,
    /// Largest run of records in one `Replicate`, `CopyData` or `Deliver`, in bytes.
    pub run_bytes_max: usize,
    /// Subscriptions at a time.
    pub subscriptions_max: usize,
    /// Reads waiting for an entry or the device.
    pub reads_waiting_max: usize,
    /// Cuts that the index takes before it allocates.
    pub cuts_ready: usize,
    /// Journal records between two checkpoints (flushed classes).
    pub checkpoint_every: u64,
    /// Bytes of records beyond which the oldest are trimmed; none keeps everything.
    pub retention_bytes_max: Option<u64>,
    /// Timeouts.
    pub timing: ReplicaTiming,
}

/// Timeouts of a replica. None is needed for safety.
#[derive(Clone, Copy, Debug)]
pub struct ReplicaTiming {
    /// A report is repeated at least this often.
    pub report: Nanos,
    /// An unanswered backfill or copy request is repeated after this long.
    pub retry: Nanos,
    /// Own records that no cut covers for this long cause a backfill.
    pub gap: Nanos,
    /// A peer gone for this long makes appends refuse, naming it.
    pub missing: Nanos,
    /// How long an applied entry waits for others to be written with. The root keeps its log for that long.
    pub journal: Nanos,
    /// Without a word of the leaf about its shard for this long, a replica asks the cut log what it has missed: nobody speaks of
    /// a shard that has ended.
    pub quiet: Nanos,
    /// How often a device that had no space is asked again: others may have given some back.
    pub space: Nanos,
}

impl Default for ReplicaTiming {
    fn default() -> Self {
        Self {
            report: Nanos::from_ms(20),
            retry: Nanos::from_ms(20),
            gap: Nanos::from_ms(50),
            missing: Nanos::from_ms(200),
            journal: Nanos::from_ms(5),
            quiet: Nanos::from_ms(1_000),
            space: Nanos::from_ms(1_000),
        }
    }
}

impl ReplicaConfig {
    /// A configuration with default limits.
    #[must_use]
    pub fn new(
        cluster: ClusterId,
        node: NodeId,
        inc: Inc,
        log: LogId,
        shard: ShardId,
        slot: Slot,
        replicas: u8,
    ) -> Self {
        Self {
            cluster,
            node,
            inc,
            log,
            shard,
            slot,
            replicas,
            uncommitted_records_max: 1 << 18,
            run_bytes_max: 128 * 1024,
            subscriptions_max: 1024,
            reads_waiting_max: 1024,
            cuts_ready: 1 << 18,
            checkpoint_every: 1 << 17,
            retention_bytes_max: None,
            timing: ReplicaTiming::default(),
        }
    }
}
