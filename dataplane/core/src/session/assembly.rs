//! From pieces of the stream to whole messages.
//!
//! A message that lies within one packet is delivered from where it is; only one that spans packets is copied, into a
//! buffer that is as large as the largest message. The peer's bytes decide lengths here, so they are checked first.

use alloc::boxed::Box;
use alloc::vec;

use ionian_wire::frame::MESSAGE_HEADER_BYTES;

/// What the application says to a message that it is offered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Take {
    /// It has taken the message.
    Taken,
    /// It has no room now. The same message is offered again later; until then the peer's credit shrinks.
    Later,
}

/// How feeding a piece ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fed {
    /// The whole piece was used.
    All,
    /// The application refused a message; the piece is used up to this byte.
    Refused(usize),
    /// The stream holds a length that no message has.
    Broken,
}

/// The message at the end of the stream so far, where it is not complete or was refused.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone, PartialEq))]
pub(super) struct Assembly {
    buffer: Box<[u8]>,
    have: usize,
}

/// The length of the message that starts with `header`; `None` if no message may be that long.
#[inline]
pub(super) fn message_bytes(
    header: &[u8; MESSAGE_HEADER_BYTES],
    message_bytes_max: usize,
) -> Option<usize> {
    let [_, _, _, _, length @ ..] = *header;
    let total = u32::from_le_bytes(length) as usize + MESSAGE_HEADER_BYTES;
    (total <= message_bytes_max).then_some(total)
}

impl Assembly {
    pub(super) fn new(message_bytes_max: usize) -> Self {
        Self {
            buffer: vec![0; message_bytes_max].into_boxed_slice(),
            have: 0,
        }
    }

    pub(super) fn capacity_bytes(&self) -> usize {
        self.buffer.len()
    }

    /// Uses `piece` from byte `from` on, which follows what was fed before, and offers each message that it completes.
    #[inline]
    pub(super) fn feed<D: FnMut(&[u8]) -> Take>(
        &mut self,
        piece: &[u8],
        from: usize,
        deliver: &mut D,
    ) -> Fed {
        let mut at = from;
        if self.have > 0 {
            match self.feed_partial(piece, at, deliver) {
                Ok(used) => at = used,
                Err(fed) => return fed,
            }
        }
        loop {
            let rest = &piece[at..];
            let Some(header) = rest.first_chunk() else {
                break;
            };
            let Some(total) = message_bytes(header, self.buffer.len()) else {
                return Fed::Broken;
            };
            let Some(message) = rest.get(..total) else {
                break;
            };
            if deliver(message) == Take::Later {
                return Fed::Refused(at);
            }
            at += total;
        }
        let rest = &piece[at..];
        self.buffer[..rest.len()].copy_from_slice(rest);
        self.have = rest.len();
        Fed::All
    }

    /// Completes and offers the message that lies in the buffer; returns up to where the piece is used.
    fn feed_partial<D: FnMut(&[u8]) -> Take>(
        &mut self,
        piece: &[u8],
        mut at: usize,
        deliver: &mut D,
    ) -> Result<usize, Fed> {
        at += self.fill(MESSAGE_HEADER_BYTES, &piece[at..]);
        if self.have < MESSAGE_HEADER_BYTES {
            return Err(Fed::All);
        }
        let header = self
            .buffer
            .first_chunk()
            .expect("the buffer holds at least a header");
        let Some(total) = message_bytes(header, self.buffer.len()) else {
            return Err(Fed::Broken);
        };
        at += self.fill(total, &piece[at..]);
        if self.have < total {
            return Err(Fed::All);
        }
        if deliver(&self.buffer[..total]) == Take::Later {
            return Err(Fed::Refused(at));
        }
        self.have = 0;
        Ok(at)
    }

    /// Adds bytes of `rest` until the buffer holds `upto`; returns how many.
    fn fill(&mut self, upto: usize, rest: &[u8]) -> usize {
        let count = upto.saturating_sub(self.have).min(rest.len());
        self.buffer[self.have..self.have + count].copy_from_slice(&rest[..count]);
        self.have += count;
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    fn message(body: &[u8]) -> Vec<u8> {
        let mut message = vec![7, 0, 0, 0];
        message.extend((body.len() as u32).to_le_bytes());
        message.extend_from_slice(body);
        message
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]
        #[test]
        fn any_cut_of_the_stream_gives_the_same_messages(
            bodies in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..60), 1..12),
            cuts in proptest::collection::vec(1usize..80, 1..40),
            refusals in proptest::collection::vec(any::<bool>(), 1..20),
        ) {
            let messages: Vec<_> = bodies.iter().map(|body| message(body)).collect();
            let stream = messages.concat();
            let mut assembly = Assembly::new(128);
            let mut got: Vec<Vec<u8>> = Vec::new();
            let mut calls = 0;
            let mut deliver = |message: &[u8]| {
                calls += 1;
                if calls % 2 == 1 && refusals[calls % refusals.len()] {
                    return Take::Later;
                }
                got.push(message.to_vec());
                Take::Taken
            };
            let (mut rest, mut cut) = (&stream[..], 0);
            while !rest.is_empty() {
                let (piece, after) = rest.split_at(cuts[cut % cuts.len()].min(rest.len()));
                let mut from = 0;
                loop {
                    match assembly.feed(piece, from, &mut deliver) {
                        Fed::All => break,
                        Fed::Refused(at) => from = at,
                        Fed::Broken => prop_assert!(false, "a good stream"),
                    }
                }
                rest = after;
                cut += 1;
            }
            prop_assert_eq!(got, messages);
        }

        #[test]
        fn arbitrary_streams_never_panic(pieces: Vec<Vec<u8>>) {
            let mut assembly = Assembly::new(512);
            for piece in pieces {
                if assembly.feed(&piece, 0, &mut |_| Take::Taken) == Fed::Broken {
                    break;
                }
            }
            prop_assert_eq!(assembly.capacity_bytes(), 512);
        }
    }

    #[test]
    fn a_length_beyond_the_limit_breaks_the_stream_wherever_the_header_lies() {
        let long = message(&[0; 121]);
        assert_eq!(
            Assembly::new(128).feed(&long, 0, &mut |_| Take::Taken),
            Fed::Broken
        );
        let mut assembly = Assembly::new(128);
        assert_eq!(assembly.feed(&long[..5], 0, &mut |_| Take::Taken), Fed::All);
        assert_eq!(
            assembly.feed(&long[5..], 0, &mut |_| Take::Taken),
            Fed::Broken
        );
    }
}
