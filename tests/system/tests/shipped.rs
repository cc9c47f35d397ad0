//! What ships has nothing of the deliberate bugs that the simulator is measured with.

mod common;

use common::binary;

/// Every one of their names begins so, and so do the texts of a machine that has them.
const NAME: &[u8] = b"mutant_";

fn times(haystack: &[u8], needle: &[u8]) -> usize {
    let windows = haystack.windows(needle.len());
    windows.filter(|window| *window == needle).count()
}

#[test]
fn no_deliberate_bug_is_in_what_ships() {
    let Some(binary) = binary("no_deliberate_bug_is_in_what_ships") else {
        return;
    };
    let bytes = std::fs::read(binary.path()).expect("the binary can be read");
    // What is certainly in it is found.
    assert!(times(&bytes, b"ionian") > 0);
    assert_eq!(times(&bytes, NAME), 0);
}
