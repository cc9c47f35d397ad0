//! What the fabrics of two ends say to each other: immediate data, and small frames beside the messages.
//!
//! ```text
//! immediate of a SEND                 kind:2 | credits:14 | 0:16
//! immediate of a WRITE                3:2 | region:14 | number:16
//! ```
//! Frames are sent inline and are at most [`CONTROL_BYTES_MAX`] long; numbers are little-endian.

use ionian_driver_api::{RegionKey, RegionRange};

/// Largest control frame in bytes. Every device of the last decade takes as much inline.
pub(crate) const CONTROL_BYTES_MAX: usize = 40;

/// Most credits of one message.
pub(crate) const CREDITS_MAX: u32 = (1 << 14) - 1;

/// Region numbers that fit a compact write.
pub(crate) const COMPACT_REGIONS: u32 = 1 << 14;

/// What the immediate data of a completion says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Immediate {
    /// The bytes are a message of the layer above.
    Message { credits: u32 },
    /// The bytes are a [`Control`] frame.
    Control { credits: u32 },
    /// There are no bytes, only credits.
    Credits { credits: u32 },
    /// A write that begins where the region's rights begin.
    Written { region: u32, number: u16 },
}

impl Immediate {
    pub(crate) fn encode(self) -> u32 {
        match self {
            Self::Message { credits } => credits << 16,
            Self::Control { credits } => 1 << 30 | credits << 16,
            Self::Credits { credits } => 2 << 30 | credits << 16,
            Self::Written { region, number } => 3 << 30 | region << 16 | u32::from(number),
        }
    }

    /// `None` for what no correct peer sends.
    pub(crate) fn decode(immediate: u32) -> Option<Self> {
        let (middle, low) = (immediate >> 16 & CREDITS_MAX, immediate & 0xFFFF);
        if immediate >> 30 == 3 {
            return Some(Self::Written {
                region: middle,
                number: u16::try_from(low).ok()?,
            });
        }
        if low != 0 {
            return None;
        }
        Some(match immediate >> 30 {
            0 => Self::Message { credits: middle },
            1 => Self::Control { credits: middle },
            _ => Self::Credits { credits: middle },
        })
    }
}

/// What one end tells the other beside messages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Control {
    /// A region is exposed to you. Sent before anything that may mention it.
    Region {
        key: RegionKey,
        /// Which bytes of the region you may write.
        range: RegionRange,
        /// Address and key of the first of them.
        address: u64,
        rkey: u32,
    },
    /// The write before this one on the connection is complete.
    Written {
        key: RegionKey,
        range: RegionRange,
        immediate: u32,
    },
    /// The layer above asked for a write to a region that was never announced, or beyond what was: nothing was written.
    Refused { key: RegionKey },
    /// Nothing follows.
    Bye,
}

impl Control {
    /// The frame, and how many of its bytes count.
    pub(crate) fn encode(self) -> ([u8; CONTROL_BYTES_MAX], u8) {
        let mut bytes = [0; CONTROL_BYTES_MAX];
        let mut len = 0;
        let mut word = |value: u32| {
            bytes[len..len + 4].copy_from_slice(&value.to_le_bytes());
            len += 4;
        };
        match self {
            Self::Region {
                key,
                range,
                address,
                rkey,
            } => {
                let (low, high) = (address & 0xFFFF_FFFF, address >> 32);
                for value in [1, key.region, key.generation, range.offset, range.len, rkey] {
                    word(value);
                }
                word(u32::try_from(low).expect("masked"));
                word(u32::try_from(high).expect("shifted"));
            }
            Self::Written {
                key,
                range,
                immediate,
            } => {
                for value in [
                    2,
                    key.region,
                    key.generation,
                    range.offset,
                    range.len,
                    immediate,
                ] {
                    word(value);
                }
            }
            Self::Refused { key } => {
                for value in [3, key.region, key.generation] {
                    word(value);
                }
            }
            Self::Bye => word(4),
        }
        (bytes, u8::try_from(len).expect("a frame is small"))
    }

    /// `None` for what no correct peer sends.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut words = [0; 8];
        let (chunks, rest) = bytes.as_chunks::<4>();
        if !rest.is_empty() || chunks.is_empty() || chunks.len() > words.len() {
            return None;
        }
        for (word, chunk) in words.iter_mut().zip(chunks) {
            *word = u32::from_le_bytes(*chunk);
        }
        let key = RegionKey {
            region: words[1],
            generation: words[2],
        };
        let range = RegionRange {
            offset: words[3],
            len: words[4],
        };
        match (words[0], chunks.len()) {
            (1, 8) => Some(Self::Region {
                key,
                range,
                address: u64::from(words[6]) | u64::from(words[7]) << 32,
                rkey: words[5],
            }),
            (2, 6) => Some(Self::Written {
                key,
                range,
                immediate: words[5],
            }),
            (3, 3) => Some(Self::Refused { key }),
            (4, 1) => Some(Self::Bye),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn immediate_data_says_the_same_at_both_ends() {
        for immediate in [
            Immediate::Message { credits: 0 },
            Immediate::Control { credits: 7 },
            Immediate::Credits {
                credits: CREDITS_MAX,
            },
            Immediate::Written {
                region: COMPACT_REGIONS - 1,
                number: u16::MAX,
            },
        ] {
            assert_eq!(Immediate::decode(immediate.encode()), Some(immediate));
        }
        assert_eq!(Immediate::decode(1), None, "bits that nobody sets");
    }

    #[test]
    fn frames_say_the_same_at_both_ends_and_others_are_refused() {
        let key = RegionKey {
            region: 3,
            generation: 9,
        };
        let range = RegionRange { offset: 5, len: 6 };
        for control in [
            Control::Region {
                key,
                range,
                address: 0x1234_5678_9ABC_DEF0,
                rkey: 77,
            },
            Control::Written {
                key,
                range,
                immediate: u32::MAX,
            },
            Control::Refused { key },
            Control::Bye,
        ] {
            let (bytes, len) = control.encode();
            let frame = &bytes[..usize::from(len)];
            assert_eq!(Control::decode(frame), Some(control));
            assert_eq!(Control::decode(&frame[..frame.len() - 1]), None, "cut");
            let longer = [frame, &[0; 4]].concat();
            assert_eq!(Control::decode(&longer), None, "too long");
        }
        for garbage in [&[][..], &[9, 0, 0, 0], &[0; 40], &[1; 3]] {
            assert_eq!(Control::decode(garbage), None);
        }
    }
}
