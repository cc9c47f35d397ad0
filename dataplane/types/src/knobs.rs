//! Deliberate protocol bugs, by name: what measures the tests that must find them.
//!
//! The machines take a type parameter `K:` [`Knobs`] and ask it at the places where a bug can be put in. What ships is
//! built with [`Shipped`], whose answer is the constant `false`: no branch and no text of a mutant is left. The simulator
//! has another type, whose answer is set for each world.

/// Which deliberate bugs a machine has.
pub trait Knobs: Copy + core::fmt::Debug + 'static {
    /// Whether it has this one.
    fn mutant(which: Mutant) -> bool;
}

/// No deliberate bug: what ships.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shipped;

impl Knobs for Shipped {
    #[inline(always)]
    fn mutant(_: Mutant) -> bool {
        false
    }
}

macro_rules! mutants {
    ($($variant:ident, $name:literal, $story:literal;)*) => {
        /// A deliberate bug.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum Mutant {
            $(#[doc = $story] $variant,)*
        }

        impl Mutant {
            /// All of them, in the order of the table in `docs/testing.md`.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// Its name on the command line and in the table.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }

            /// What it does wrong.
            #[must_use]
            pub const fn story(self) -> &'static str {
                match self {
                    $(Self::$variant => $story,)*
                }
            }
        }
    };
}

// The leaf, the root, the replica, the client, the controller, what guards sessions.
mutants! {
    KeepSlotsOverView, "mutant_keep_slots_over_view",
        "The leaf counts what a member reported before a view as reported after it.";
    AcceptOldEpoch, "mutant_accept_old_epoch",
        "The leaf takes reports of an earlier epoch of the shard.";
    ConfirmBeforeQuorum, "mutant_confirm_before_quorum",
        "The leaf takes the largest length that a member reports instead of the k-th largest.";
    SplitWithoutSums, "mutant_split_without_sums",
        "The leaf gives every shard of a cut the base of the whole cut.";
    IgnorePreviousRound, "mutant_ignore_previous_round",
        "Edges outlive their connections, and a leaf takes a Down although it missed the one before.";
    RootOnlyClamp, "mutant_root_only_clamp",
        "The leaf begins an edge from nothing instead of from the given lengths; only the root clamps.";
    NoSync, "mutant_no_sync",
        "The leaf never makes silence explicit: a lost last cut stays lost.";
    DropAtFastest, "mutant_drop_at_fastest",
        "The cut log is dropped up to what the fastest member has applied.";
    TakeLaterRounds, "mutant_take_later_rounds",
        "Edges outlive their connections, and the root takes rounds that do not follow the last one.";
    RoundWithoutEdge, "mutant_round_without_edge",
        "The root takes rounds of an earlier start of the edge, or of an earlier life of the leaf.";
    KeepRingOverEdge, "mutant_keep_ring_over_edge",
        "An aggregator keeps its rounds when the edge to its parent starts again.";
    ResumeChangedChild, "mutant_resume_changed_child",
        "An aggregator lets the edge to a child go on although a view has changed what is below it.";
    DropDownSilently, "mutant_drop_down_silently",
        "Edges outlive their connections, and an aggregator that misses a base asks for no other start.";
    FreeLaterRounds, "mutant_free_later_rounds",
        "A vertex takes a base for all the rounds that it has, and frees those above the one that was chosen.";
    FollowLatestParent, "mutant_follow_latest_parent",
        "A vertex takes whoever came last for its parent, whoever started its edge.";
    AppliedOfFastest, "mutant_applied_of_fastest",
        "An aggregator passes on what the fastest of its children has applied.";
    SameEdgeAgain, "mutant_same_edge_again",
        "An aggregator gives another start of an edge the number of the one before.";
    ReportToLatestLeaf, "mutant_report_to_latest_leaf",
        "A replica reports only to the leaf that came last.";
    CutBeforeDurable, "mutant_cut_before_durable",
        "The root announces a cut before its journal is durable.";
    AnswerBeforeOwnEpoch, "mutant_answer_before_own_epoch",
        "A new life of the root answers before an entry of its own epoch is committed.";
    AmnesiacRoot, "mutant_amnesiac_root",
        "A root that lost its cut log numbers its entries from the start again.";
    UndeclaredLoss, "mutant_undeclared_loss",
        "A root that lost its cut log goes on at the reserved ceiling without declaring what was below lost.";
    KeepEdgeOverView, "mutant_keep_edge_over_view",
        "Edges outlive views: rounds made before a view are cut after it.";
    TailFromLogEnd, "mutant_tail_from_log_end",
        "The root answers a tail from the end of its log instead of from the commit index.";
    ServeUncommitted, "mutant_serve_uncommitted",
        "The root answers backfills with entries that are not committed.";
    EdgeStartUncommitted, "mutant_edge_start_uncommitted",
        "The root starts an edge from entries that are not committed.";
    TrimBeyondTail, "mutant_trim_beyond_tail",
        "The root takes a trim beyond the committed tail.";
    BaseOffByOne, "mutant_base_off_by_one",
        "The root tells its children bases that are one too large.";
    ForgetLastEntry, "mutant_forget_last_entry",
        "A restarted root leaves the last entry of its journal out: positions are used again.";
    AckBeforePersist, "mutant_ack_before_persist",
        "A replica reports what it holds instead of what is durable.";
    WaiterWithoutSegment, "mutant_waiter_without_segment",
        "Waiters are keyed by position alone: another segment's cut acknowledges them.";
    IgnoreChainGap, "mutant_ignore_chain_gap",
        "A replica applies a cut although it missed the one before.";
    PositionsFromBase, "mutant_positions_from_base",
        "A replica takes the base of its shard for that of its own segment.";
    CountOwnShardOnly, "mutant_count_own_shard_only",
        "The root leaves other shards' records out of the sum that gives a replica that catches up its base.";
    KeepVoidTail, "mutant_keep_void_tail",
        "A replica keeps, over a view, records beyond the length at which their generation closed.";
    RefillFromOutsider, "mutant_refill_from_outsider",
        "Committed records are copied from a replica that has not entered the epoch.";
    DomainsByPlainQuorum, "mutant_domains_by_plain_quorum",
        "D2 takes the k-th largest length whichever domains hold it.";
    NeverFromLaggingCopy, "mutant_never_from_lagging_copy",
        "A replica that does not hold the whole generation yet answers `never`.";
    NeverWhileOpen, "mutant_never_while_open",
        "A replica answers `never` while the generation is open and its session is not closed.";
    NoTombstone, "mutant_no_tombstone",
        "A primary promises that a session takes no more, and takes what comes late.";
    AppendWithoutGeneration, "mutant_append_without_generation",
        "An append is taken whatever generation it is for.";
    HighWaterDedup, "mutant_high_water_dedup",
        "A primary knows what it took of a session by the highest sequence number only.";
    NoDedup, "mutant_no_dedup",
        "A primary takes a repeated append once more.";
    DedupNotRebuilt, "mutant_dedup_not_rebuilt",
        "Records that were stored before are counted as seen without being entered into the dedup set.";
    SilenceAsNothing, "mutant_silence_as_nothing",
        "A replica counts entries that it missed as if there had been none.";
    TrimOneTooMany, "mutant_trim_one_too_many",
        "A replica trims one position more than was asked for.";
    AcceptOldWriter, "mutant_accept_old_writer",
        "A replica takes records from a writer whose generation is closed.";
    AppliedBeforeDurable, "mutant_applied_before_durable",
        "A replica reports entries as applied before its journal is durable: the root drops them.";
    KeepIndexAfterLoss, "mutant_keep_index_after_loss",
        "A replica keeps its index when its shard is opened anew after a declared loss.";
    TruncateAtBadChecksum, "mutant_truncate_at_bad_checksum",
        "A restarted replica cuts a segment off at a damaged record in its middle.";
    ReportNeverFalls, "mutant_report_never_falls",
        "A replica reports the longest length that it ever held, also after a view made part of it void.";
    RebindWithoutNever, "mutant_rebind_without_never",
        "A client sends records elsewhere before it is promised that they will never be ordered.";
    TimeoutMeansNoEffect, "mutant_timeout_means_no_effect",
        "A client says that an append that timed out had no effect.";
    TrimOfOneShard, "mutant_trim_of_one_shard",
        "A client takes a trim gap for one shard's only, and waits for the others below it.";
    MergeByArrival, "mutant_merge_by_arrival",
        "A client delivers runs as they arrive instead of by position.";
    SessionUsedAgain, "mutant_session_used_again",
        "A client uses its session number again when it binds to another server.";
    SameLifeAfterRestart, "mutant_same_life_after_restart",
        "The controller gives a restarted process its old incarnation: it goes on in its old generation.";
    SendBeforePersisted, "mutant_send_before_persisted",
        "The controller sends what its durable snapshot does not have yet.";
    GiveUpTooEarly, "mutant_give_up_too_early",
        "The controller declares a shard lost while a member still holds its records.";
    FloorForgotten, "mutant_floor_forgotten",
        "The controller grants a root that lost its cut log positions from 0 again.";
    AdoptLongest, "mutant_adopt_longest",
        "A new root leader adopts the longest log instead of the one with the latest epoch.";
    SwitchWithoutJoint, "mutant_switch_without_joint",
        "A shard gets new members without an epoch in which both sets count.";
    EndedShardForgotten, "mutant_ended_shard_forgotten",
        "The cut log drops what ends a shard as soon as the other shards have applied it.";
    DropOwnEpochEntry, "mutant_drop_own_epoch_entry",
        "A new root leader commits entries of earlier epochs without one of its own.";
    DeposedLeaderAnswers, "mutant_deposed_leader_answers",
        "A root leader that was replaced answers a tail from its old commit index.";
    TruncateToNewestClose, "mutant_truncate_to_newest_close",
        "A replica that missed several views cuts its segments to the length of the newest close only.";
    GrantOldEpoch, "mutant_grant_of_old_epoch",
        "A node takes grants of an epoch of keys that has ended.";
    GrantOutlivesEpoch, "mutant_session_outlives_epoch",
        "An open session goes on when the epoch of its grant has ended.";
    GrantBeforeRevocation, "mutant_grant_before_revocation",
        "A node takes grants that were made before their user's rights changed.";
    GrantOfNobody, "mutant_grant_of_nobody",
        "A node takes grants of users who are none any more.";
    GrantOutlivesRevocation, "mutant_session_outlives_revocation",
        "An open session goes on when its user's rights have changed.";
    GrantLateKeys, "mutant_take_late_keys",
        "A node takes what controllers said of keys and users before what it has heard.";
    GrantReplayed, "mutant_take_replays",
        "A node opens a session again for a packet that opened one before.";
    GrantTokenInPart, "mutant_grant_token_in_part",
        "The token of a packet that opens a session is compared in part.";
    GrantTokenOfAnyEnd, "mutant_token_of_any_end",
        "A node opens sessions for the token that it sends itself: what it says can be sent back.";
    GrantTokenOfAnySession, "mutant_token_of_any_session",
        "A node opens a session for the token of another session of the same grant.";
    SessionTokenInPart, "mutant_session_token_in_part",
        "The token of the packets of an open session is compared in part.";
    GrantAppendUnchecked, "mutant_append_unchecked",
        "A node takes appends of sessions whose grant does not allow them.";
    GrantReadUnchecked, "mutant_read_unchecked",
        "A node takes reads of sessions whose grant does not allow them.";
    GrantTrimUnchecked, "mutant_trim_unchecked",
        "A node takes trims of sessions whose grant does not allow them.";
    GrantMemberUnchecked, "mutant_member_unchecked",
        "A node takes from users what only the cluster's own processes say to each other.";
    GrantDeniedOnce, "mutant_deny_once",
        "What follows a message that was denied, in the same datagram, is taken.";
    GrantAnyLog, "mutant_grant_of_any_log",
        "A session of a grant for one log may be with another log's places.";
    GrantWindowIgnored, "mutant_ignore_grant_window",
        "A node keeps more for a session than its grant's window says.";
    GrantEveryRight, "mutant_give_every_right",
        "The controllers give a user grants with rights that it does not have.";
    GrantAdminUnchecked, "mutant_admin_unchecked",
        "The controllers let a user change a log that it has no right to admin.";
    GrantKeysOnly, "mutant_tell_keys_only",
        "The controllers tell nodes of new keys, and of users only with them.";
    GrantWithoutSerial, "mutant_tell_no_serials",
        "The controllers tell nodes which users there are, and not from which change of rights on their grants are good.";
}
