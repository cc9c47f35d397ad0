//! What a process holds after many large blocks came and went. By itself: the figure is that of the whole process.

use std::fs;

const BLOCK_BYTES: usize = 4 << 20;
const BLOCKS: usize = 64;

fn resident_bytes() -> usize {
    let statm = fs::read_to_string("/proc/self/statm").expect("Linux");
    let pages: usize = statm
        .split(' ')
        .nth(1)
        .and_then(|pages| pages.parse().ok())
        .expect("pages");
    pages * 4096
}

#[test]
fn blocks_that_nobody_touches_take_nothing_whatever_was_freed_before() {
    ionian_runtime::memory::map_large_blocks();
    let before = resident_bytes();
    // Blocks in use with small ones between them, so that the heap could not be given back. Twice: it is the blocks freed the first
    // time that would have the next ones come from the heap.
    let mut small: Vec<Vec<u8>> = Vec::new();
    for _ in 0..2 {
        let mut used = Vec::new();
        for at in 0..BLOCKS {
            used.push(vec![at as u8 + 1; BLOCK_BYTES]);
            small.push(vec![0; 64]);
        }
        assert!(resident_bytes() - before > BLOCKS * BLOCK_BYTES / 2);
        drop(used);
    }
    let untouched: Vec<Vec<u8>> = (0..BLOCKS).map(|_| vec![0u8; BLOCK_BYTES]).collect();
    let held = resident_bytes().saturating_sub(before);
    assert!(held < BLOCKS * BLOCK_BYTES / 8, "{held} bytes");
    assert_eq!(small.len(), 2 * untouched.len());
}
