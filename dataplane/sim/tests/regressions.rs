//! What failed once: each with its seed and the smallest plan that failed, and the story of the bug.

use ionian_sim::{Plan, World};

fn passes(seed: u64, difference: &str) {
    let mut plan = Plan::draw(seed);
    plan.apply(difference)
        .unwrap_or_else(|error| panic!("{difference}: {error}"));
    if let Err(failure) = World::new(seed, plan).run() {
        panic!("{failure}");
    }
}

/// A client sent a run again, cut in smaller ones; the large one was refused for good, the smaller ones were taken. The
/// records failed with no effect, and were ordered.
#[test]
fn a_refused_sending_says_nothing_about_another_one() {
    passes(5234, "only=1+4+5+6,operations_max=1274");
}

/// A replica started again after its shard had ended. No view named its life any more, so that it was no member of anything:
/// it served nothing, nobody copied to it, and a subscription that it had taken waited for ever.
#[test]
fn a_shard_that_has_ended_is_served_by_later_lives() {
    passes(
        16,
        "clients=1,payload_bytes_max=8,outstanding_max=1,only=11+12+13,operations_max=78",
    );
    passes(
        36,
        "chunk_bytes=65536,outstanding_max=1,cut_interval_us=0,only=0+23,operations_max=220",
    );
    passes(59, "buffer_bytes=1048576,only=9+10+12,operations_max=31");
}

/// The leaf speaks of shards that are open. A replica that had missed the last entries of a shard never learned that it had
/// ended, nor of trims.
#[test]
fn who_hears_nothing_of_its_shard_asks() {
    for seed in [92, 142, 243] {
        passes(seed, "");
    }
}

/// A member of a shard was away, and the cut log dropped entries that only its peer had applied. Then the peer's device gave
/// back an old image: both asked each other for a state that nobody had, and their shard was never read again.
#[test]
fn a_member_that_is_away_keeps_what_touches_its_shard() {
    passes(
        776,
        "payload_bytes_max=8,only=2+6+8+9+10+12+14+17+18+20,operations_max=343",
    );
    passes(
        25449,
        "cut_interval_us=0,only=6+7+8+10+11,operations_max=1188",
    );
    passes(
        31292,
        "buffer_bytes=1048576,only=2+4+10+11+14+17+19,operations_max=626",
    );
}

/// A replica stood still until the cut log had dropped what it missed, and took over its peer's state. It cut its own
/// segment, which it went on writing, to what it knew as committed, while its peer held a record more: the position would
/// have been given away twice in one generation, and until then nothing of the segment was ordered.
#[test]
fn a_writer_that_takes_over_a_state_keeps_what_it_wrote() {
    passes(
        5615,
        "clients=2,chunk_bytes=65536,outstanding_max=1,checkpoint_every=131072,only=0+5+6,operations_max=259",
    );
}

/// A replica that was not heard while the cut log dropped what it missed took over its peer's state, and dropped what it
/// held beyond the lengths known to it: records that it had reported, that were ordered on its word, and acknowledged. The
/// leaf saw a report that fell, and ordered nothing of the shard any more.
#[test]
fn a_replica_that_takes_over_a_state_keeps_what_it_reported() {
    passes(
        26012,
        "clients=2,buffer_bytes=1048576,payload_bytes_max=8,trims=false,fault_ns=100000000,only=none,operations_max=171",
    );
    passes(
        584,
        "only=0+1+2+3+5+6+7+10+12+13+17+18+20+21+22+23+24+25+28+30+31+33,operations_max=1312",
    );
}

/// A leaf that had just registered lost its connection to the root, which had not heard of that, and opened another. When a
/// view named the leaf, the root began the edge on the first connection, and forgot the edge when that was gone: nothing
/// was ordered any more, while the leaf was connected.
#[test]
fn an_edge_begins_on_the_last_connection_of_a_leaf() {
    passes(25959, "only=0+1+2+4+5+6+7+8+9+10+11+12+13+14+15");
}

/// A leaf gave its connection to the controller up before its hello had arrived there. The late hello took the place from
/// the leaf's new connection; when the old one was gone, the leaf counted as down, and nothing that it reported was heard.
#[test]
fn a_late_hello_does_not_take_the_place_from_a_later_connection() {
    passes(
        26066,
        "only=0+1+2+3+4+6+7+10+11+12+13+16+17+20+21+22+24+26,operations_max=328",
    );
}

/// No bug of the product, but of what the simulator saw of it: a new life of the root committed its epoch and a view in one
/// flush, and the same flush dropped the epoch, after which nothing was ordered yet, with the chunk that it filled. The check
/// of the cut log never saw that entry, and took it for lost.
#[test]
fn an_entry_is_seen_before_it_is_dropped() {
    passes(
        102391,
        "clients=1,buffer_bytes=1048576,payload_bytes_max=8,trims=false,only=0+1+2+3+4+5+6+8+9+12,operations_max=171",
    );
}

/// A replica wrote records that a view made void, and others in their places. Its device lost the chunk that held those, both
/// copies of its header with it, so that the next start found the void ones again, sound and in the right places: the replica
/// served them.
#[test]
fn what_a_view_made_void_does_not_come_back_from_a_device() {
    passes(
        101937,
        "buffer_bytes=1048576,checkpoint_every=131072,gone=30000000000,only=0+1+2+3+4+5+11+12+14+15+17+20,operations_max=769",
    );
}

/// A trim beyond the tail was sent twice. The first answer refused it, and the caller was told that it had no effect; the
/// second sending reached the root when the log had grown that far, and was carried out.
#[test]
fn a_trim_that_was_sent_twice_may_take_place_after_a_refusal() {
    passes(
        103942,
        "cut_log_chunk_entries=4096,only=0+1+2+3+4+5+6+7+8+9+10+11+12+13+14+15+16+17+18+20+21",
    );
}

/// A root started while its disk was full, and had no room for the first entry of its epoch. Of the grant nothing was left when
/// there was room again.
#[test]
fn a_root_that_started_on_a_full_disk_orders_again() {
    passes(
        121470,
        "payload_bytes_max=8,gone=30000000000,fault_ns=200000000,only=12+15,operations_max=276",
    );
}

/// A member of the root group was to leave, and what it held counted for nothing from then on. Another member lost its memory:
/// the cut log was given up although two still held it, and records that had been acknowledged were lost.
#[test]
fn a_member_that_is_to_leave_the_root_group_still_holds_the_cut_log() {
    passes(3_000_695, "only=4+6+10+11+19+22+23,operations_max=203");
}

/// The cut log was full of what it kept for members that were away. They came back, and since a full cut log takes no entries,
/// what was kept for them never went: nothing was ordered any more.
#[test]
fn a_cut_log_that_is_full_of_what_it_keeps_for_members_is_emptied() {
    passes(3_004_919, "");
}

/// Alarms that were false: what is ordered was looked up at replicas that became members later, a client that still waited
/// for its map counted as one that cannot append, controllers that had been silent when their leader died said nothing
/// for ever, and a cut log of two KiB had no room for what ended shards left in it.
#[test]
fn seeds_that_were_false_alarms_pass() {
    for seed in [
        333, 810, 1128, 120_308, 120_322, 121_449, 131_575, 132_700, 138_809, 170_315,
    ] {
        passes(seed, "");
    }
}

/// A replica's checkpoint had seen records that were not committed yet, and that a view made void later; other records stood in
/// their places when it started again. It took the void ones for those: their client was told that they were ordered.
#[test]
fn what_a_checkpoint_has_seen_may_be_void_at_the_next_start() {
    passes(
        128_401,
        "only=1+2+21+22+24+26+28+29+31+32+33,operations_max=567",
    );
    // The other side of it: a client was told that a record which stood there would never be ordered.
    passes(134_867, "");
}
