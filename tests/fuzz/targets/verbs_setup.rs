//! What a stranger says while a connection over RDMA is set up.
//!
//! Holds: no input panics; the same bytes come to the same in one piece and one by one; a Hello that was taken is written
//! again as the same bytes.
#![no_main]

use ionian_verbs::{Handshake, HandshakeError, Progress};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    assert_eq!(seen(data, data.len().max(1)), seen(data, 1));
});

/// What comes of the bytes, given `step` at a time.
fn seen(data: &[u8], step: usize) -> Vec<Result<Progress, HandshakeError>> {
    let mut machine = Handshake::accept();
    let mut seen = Vec::new();
    let (mut at, mut begun) = (0, 0);
    while at < data.len() {
        let piece = &data[at..data.len().min(at + step)];
        let (used, progress) = match machine.input(piece) {
            Ok(taken) => taken,
            Err(error) => {
                seen.push(Err(error));
                break;
            }
        };
        if used == 0 {
            // The exchange is over.
            break;
        }
        at += used;
        if progress == Progress::More {
            continue;
        }
        seen.push(Ok(progress));
        if let Progress::Hello(hello) = progress {
            machine.answer(&hello);
            assert_eq!(
                machine.output(),
                &data[begun..at],
                "what is written is what was read"
            );
        }
        begun = at;
    }
    seen
}
