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
}
