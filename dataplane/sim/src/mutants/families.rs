//! Which worlds a mutant is hunted in: those of the common swarm that can show it, or a family of plans of its own.
//!
//! A family is the swarm's plan with fewer kinds of faults and more of each, for bugs that need several things to fall together.
//! Every plan of a family is one that the swarm may draw, but for the damage of [`Plan::damage_both`] and the patience of
//! [`Plan::quiet`]; the machines as they ship hold in each.

use ionian_types::{Durability, Mutant, Nanos};

use crate::plan::{Fault, Network, Plan};

/// The plan of a mutant's seed.
#[must_use]
pub fn plan(mutant: Option<Mutant>, seed: u64) -> Plan {
    let mut plan = Plan::draw(seed);
    if let Some((class, faults)) = mutant.and_then(family) {
        focus(&mut plan, class, faults);
    }
    match mutant {
        Some(Mutant::DropAtFastest | Mutant::AppliedBeforeDurable) => {
            plan.cut_log_chunk_entries = 8;
            plan.gone = Nanos::from_ms(30_000);
        }
        Some(Mutant::AcceptOldWriter) => {
            plan.think_ns = 1_000_000;
            plan.fault_ns = 600_000_000;
            plan.calls = [1000, 8000];
        }
        Some(Mutant::RoundWithoutEdge) => plan.cut_interval_us = 2000,
        Some(Mutant::TruncateAtBadChecksum) => plan.damage_both = true,
        Some(Mutant::RefillFromOutsider) => {
            (plan.replicas, plan.quorum) = (3, 2);
            plan.fault_ns = 600_000_000;
            plan.calls = [1000, 8000];
        }
        Some(Mutant::DomainsByPlainQuorum) => {
            (plan.replicas, plan.quorum) = (3, 2);
            plan.class = Durability::D2;
        }
        Some(Mutant::AdoptLongest) => {
            plan.roots = 3;
            plan.fault_ns = 2_000_000_000;
            plan.calls = [1000, 8000];
        }
        Some(Mutant::DropOwnEpochEntry) => {
            plan.roots = 3;
            plan.cut_interval_us = 0;
            plan.think_ns = 10_000_000;
            plan.fault_ns = 10_000_000_000;
        }
        Some(Mutant::DeposedLeaderAnswers) => {
            plan.roots = 3;
            plan.think_ns = 1_200_000;
            plan.fault_ns = 2_000_000_000;
        }
        Some(Mutant::TruncateToNewestClose) => {
            plan.shards = 1;
            (plan.replicas, plan.quorum) = (3, 2);
            plan.fault_ns = 1_500_000_000;
            plan.calls = [1000, 8000];
        }
        Some(Mutant::SwitchWithoutJoint) => {
            (plan.replicas, plan.quorum) = (3, 2);
        }
        Some(Mutant::EndedShardForgotten) => {
            // As in every plan in which operators change the cluster.
            plan.legal_core = false;
            plan.cut_log_chunk_entries = 8;
            plan.gone = Nanos::from_ms(30);
        }
        Some(
            Mutant::KeepRingOverEdge
            | Mutant::ResumeChangedChild
            | Mutant::DropDownSilently
            | Mutant::SameEdgeAgain,
        ) => inner(&mut plan),
        Some(Mutant::FreeLaterRounds) => {
            inner(&mut plan);
            plan.cut_interval_us = 2000;
        }
        Some(Mutant::FollowLatestParent | Mutant::ReportToLatestLeaf) => {
            inner(&mut plan);
            // As in every plan in which operators change the cluster.
            plan.legal_core = false;
        }
        Some(Mutant::AppliedOfFastest) => {
            inner(&mut plan);
            plan.cut_log_chunk_entries = 8;
            plan.gone = Nanos::from_ms(30_000);
        }
        // What nobody makes explicit is found out otherwise, though late.
        Some(Mutant::NoSync) => plan.quiet = Nanos::from_ms(3_600_000),
        Some(Mutant::TimeoutMeansNoEffect) => plan.append_timeout = Nanos::from_ms(20),
        _ => {}
    }
    plan
}

/// The class and the faults of a mutant's own family, if it has one.
#[must_use]
pub const fn family(mutant: Mutant) -> Option<(Durability, &'static [(Fault, u64)])> {
    use Durability::{D0, D1};
    Some(match mutant {
        Mutant::AcceptOldWriter => (D0, &[(Fault::Zombie, 100)]),
        Mutant::RoundWithoutEdge => (D0, &[(Fault::CrashReplica, 20), (Fault::Late, 40)]),
        Mutant::TakeLaterRounds | Mutant::IgnorePreviousRound | Mutant::IgnoreChainGap => {
            (D0, &[(Fault::Reset, 60)])
        }
        Mutant::NoTombstone => (D0, &[(Fault::Late, 60)]),
        Mutant::NoSync => (D0, &[(Fault::CrashReplica, 10), (Fault::CrashLeaf, 10)]),
        Mutant::AppendWithoutGeneration => (D0, &[(Fault::CrashReplica, 15), (Fault::Late, 30)]),
        Mutant::NeverFromLaggingCopy => (
            D0,
            &[
                (Fault::CrashReplica, 15),
                (Fault::Delay, 10),
                (Fault::Reset, 15),
            ],
        ),
        Mutant::HighWaterDedup => (D0, &[(Fault::CrashReplica, 6), (Fault::Reset, 60)]),
        Mutant::SendBeforePersisted => (
            D0,
            &[(Fault::CrashController, 20), (Fault::CrashReplica, 10)],
        ),
        Mutant::AppliedBeforeDurable => (D1, &[(Fault::CrashShard, 6), (Fault::SlowDisk, 10)]),
        Mutant::DropAtFastest => (D1, &[(Fault::LoseDisk, 6)]),
        Mutant::TruncateAtBadChecksum => (D1, &[(Fault::Corrupt, 4)]),
        Mutant::RefillFromOutsider => (
            D1,
            &[
                (Fault::LoseDisk, 20),
                (Fault::CutOff, 40),
                (Fault::CrashReplica, 10),
            ],
        ),
        Mutant::DomainsByPlainQuorum => (D1, &[(Fault::Delay, 4), (Fault::PartitionPair, 4)]),
        Mutant::TimeoutMeansNoEffect => (D0, &[(Fault::Reset, 20), (Fault::Clog, 10)]),
        Mutant::SwitchWithoutJoint => (
            D1,
            &[
                (Fault::LoseDisk, 8),
                (Fault::CutOff, 20),
                (Fault::CrashReplica, 6),
            ],
        ),
        Mutant::EndedShardForgotten => (
            D1,
            &[
                (Fault::CutOff, 20),
                (Fault::CrashReplica, 6),
                (Fault::AddShard, 2),
                (Fault::FinalizeShard, 3),
            ],
        ),
        Mutant::AdoptLongest => (
            D1,
            &[
                (Fault::CrashRoot, 30),
                (Fault::Pause, 20),
                (Fault::PartitionPair, 20),
                (Fault::PartitionFull, 10),
            ],
        ),
        Mutant::DropOwnEpochEntry => (D1, &[(Fault::Strand, 100), (Fault::CrashRoot, 10)]),
        Mutant::DeposedLeaderAnswers => (D0, &[(Fault::Strand, 5)]),
        Mutant::KeepRingOverEdge => (D0, &[(Fault::CrashReplica, 6), (Fault::LoseRounds, 10)]),
        Mutant::ResumeChangedChild => (D0, &[(Fault::CrashReplica, 10)]),
        Mutant::DropDownSilently => (D0, &[(Fault::LoseRounds, 20), (Fault::Reset, 40)]),
        Mutant::FreeLaterRounds => (D0, &[(Fault::Reset, 4)]),
        Mutant::FollowLatestParent => (D0, &[(Fault::SetTree, 20), (Fault::Reset, 300)]),
        Mutant::AppliedOfFastest => (D1, &[(Fault::LoseDisk, 6), (Fault::CrashReplica, 10)]),
        Mutant::SameEdgeAgain => (D0, &[(Fault::LoseRounds, 10), (Fault::Reset, 20)]),
        Mutant::ReportToLatestLeaf => (D0, &[(Fault::SetTree, 10), (Fault::CancelChange, 10)]),
        Mutant::TruncateToNewestClose => (
            D1,
            &[
                (Fault::CutOff, 30),
                (Fault::CrashReplica, 50),
                (Fault::Delay, 40),
            ],
        ),
        _ => return None,
    })
}

/// Gives a plan whose tree is one leaf a tree of three levels: an aggregator over one with a leaf, and over a leaf; and a leaf.
fn inner(plan: &mut Plan) {
    if plan.tree.iter().all(|(children, _)| *children == 0) {
        plan.shards = 3;
        plan.tree = vec![(2, 0), (1, 0), (0, 0), (0, 2), (0, 4)];
    }
}

/// Whether a mutant is of those who guard sessions: it is hunted in a [world of grants](crate::grants).
#[must_use]
pub const fn guards(mutant: Mutant) -> bool {
    use Mutant as M;
    matches!(
        mutant,
        M::GrantOldEpoch
            | M::GrantOutlivesEpoch
            | M::GrantBeforeRevocation
            | M::GrantOfNobody
            | M::GrantOutlivesRevocation
            | M::GrantLateKeys
            | M::GrantReplayed
            | M::GrantTokenInPart
            | M::GrantTokenOfAnyEnd
            | M::GrantTokenOfAnySession
            | M::SessionTokenInPart
            | M::GrantAppendUnchecked
            | M::GrantReadUnchecked
            | M::GrantTrimUnchecked
            | M::GrantMemberUnchecked
            | M::GrantDeniedOnce
            | M::GrantAnyLog
            | M::GrantWindowIgnored
            | M::GrantEveryRight
            | M::GrantAdminUnchecked
            | M::GrantKeysOnly
            | M::GrantWithoutSerial
    )
}

/// Makes a plan one of a family.
fn focus(plan: &mut Plan, class: Durability, faults: &[(Fault, u64)]) {
    plan.network = Network::Fabric;
    plan.class = class;
    plan.faults = faults.to_vec();
    plan.think_ns = 300_000;
    plan.fault_ns = 200_000_000;
    plan.clients = 4;
    plan.outstanding_max = 256;
    plan.buffer_bytes = 64 << 10;
    plan.payload_bytes_max = 64;
    plan.moves = true;
    plan.clocks = false;
    plan.beyond_f = false;
    plan.space_bytes = Plan::calm().space_bytes;
    (plan.replicas, plan.quorum) = (2, 2);
    (plan.roots, plan.all_write) = (1, false);
    plan.cut_log_bytes_max = Plan::calm().cut_log_bytes_max;
}

/// Whether the worlds of a plan can show a mutant at all: seeds of others are passed over, to save time.
#[must_use]
pub fn concerns(mutant: Mutant, plan: &Plan) -> bool {
    use Mutant as M;
    let flushed = plan.class.is_flushed();
    let has = |wanted: &[Fault]| plan.faults.iter().any(|(fault, _)| wanted.contains(fault));
    let root_restarts = || has(&[Fault::CrashRoot, Fault::CrashAll]);
    let replica_restarts = || has(&[Fault::CrashReplica, Fault::LoseDisk]);
    let drops = || plan.cut_log_chunk_entries <= 32;
    match mutant {
        mutant if family(mutant).is_some() => true,
        M::AckBeforePersist | M::TailFromLogEnd | M::ServeUncommitted | M::EdgeStartUncommitted => {
            flushed
        }
        M::CutBeforeDurable | M::ForgetLastEntry => flushed && root_restarts(),
        M::AnswerBeforeOwnEpoch => flushed && root_restarts() && has(&[Fault::SlowDisk]),
        M::DedupNotRebuilt => flushed && replica_restarts(),
        M::AcceptOldWriter => !flushed && has(&[Fault::Zombie]),
        M::AmnesiacRoot | M::UndeclaredLoss | M::FloorForgotten => !flushed && root_restarts(),
        M::AppliedBeforeDurable => flushed && drops() && has(&[Fault::CrashShard, Fault::CrashAll]),
        M::DropAtFastest => {
            flushed && drops() && has(&[Fault::LoseDisk]) && has(&[Fault::CrashReplica])
        }
        M::SameLifeAfterRestart => flushed && has(&[Fault::CrashReplica]),
        M::GiveUpTooEarly => !flushed && has(&[Fault::CrashReplica]),
        M::KeepIndexAfterLoss => !flushed && has(&[Fault::CrashShard]),
        M::SendBeforePersisted => has(&[Fault::CrashController, Fault::CrashAll]),
        M::RoundWithoutEdge => has(&[Fault::Zombie]),
        M::IgnorePreviousRound | M::TakeLaterRounds | M::IgnoreChainGap => {
            has(&[Fault::Reset, Fault::PartitionFull, Fault::PartitionPair])
        }
        M::KeepSlotsOverView
        | M::AcceptOldEpoch
        | M::KeepVoidTail
        | M::ReportNeverFalls
        | M::NeverFromLaggingCopy => replica_restarts(),
        M::TrimBeyondTail | M::TrimOneTooMany | M::TrimOfOneShard => plan.trims,
        _ => true,
    }
}
