//! One direction: a ring of byte messages between one producer and one consumer.
//!
//! Positions count bytes from the ring's creation and never wrap (u64). A frame is a header word with the message's
//! length, then the message, then padding to 8 bytes. A message never wraps: where it does not fit before the end of
//! the ring, a filler frame covers the rest, and it starts at the beginning.
//!
//! ```text
//! head (consumer)                 tail (producer)
//!   v                               v
//!   | len | message.. | len | msg   |            free            |
//! ```
//!
//! # Safety model
//!
//! Bytes from `head` to `tail` belong to the consumer, all others to the producer. Each side keeps its own index to
//! itself and publishes it with a release store, batch by batch; the other side reads it with an acquire load, when what
//! it remembers no longer suffices. A slice handed out borrows its end of the ring, so it is gone before that end moves.

use std::fmt;

use ionian_driver_api::dma::RawBytes;

use crate::flag::SleepFlag;
use crate::sync::{Arc, AtomicBool, AtomicU64, Ordering, Shadow};

/// Smallest ring, in bytes.
pub const CAPACITY_BYTES_MIN: usize = 64;
/// Largest ring, in bytes.
pub const CAPACITY_BYTES_MAX: usize = 1 << 30;

/// Bytes of a frame's header.
const HEADER_BYTES: usize = 8;
/// Header of a filler frame, which reaches to the end of the ring.
const FILLER: u64 = u64::MAX;

/// Keeps what one side writes off the cache lines of the other; 128 because the hardware fetches lines in pairs.
#[repr(align(128))]
struct Padded<T>(T);

struct Shared {
    /// First byte not yet published by the producer.
    tail: Padded<AtomicU64>,
    /// First byte not yet given back by the consumer.
    head: Padded<AtomicU64>,
    /// Set by a consumer about to sleep, cleared by whoever wakes it. Written rarely, so it may share a line with the
    /// others of its kind.
    consumer_sleeps: Padded<SleepFlag>,
    producer_sleeps: SleepFlag,
    consumer_gone: AtomicBool,
    producer_gone: AtomicBool,
    memory: RawBytes,
    shadow: Shadow,
}

impl Shared {
    fn capacity(&self) -> usize {
        self.memory.bytes()
    }

    /// Offset of a position in the memory.
    fn offset(&self, position: u64) -> usize {
        (position & (self.capacity() as u64 - 1)) as usize
    }
}

/// Bytes that a message of `len` bytes takes in a ring.
const fn frame_bytes(len: usize) -> usize {
    HEADER_BYTES + len.next_multiple_of(8)
}

/// Makes a ring of `capacity_bytes`.
///
/// # Panics
///
/// If the capacity is not a power of two from [`CAPACITY_BYTES_MIN`] to [`CAPACITY_BYTES_MAX`].
#[must_use]
pub fn ring(capacity_bytes: usize) -> (Producer, Consumer) {
    assert!(
        capacity_bytes.is_power_of_two()
            && (CAPACITY_BYTES_MIN..=CAPACITY_BYTES_MAX).contains(&capacity_bytes),
        "a ring of {capacity_bytes} bytes"
    );
    let shared = Arc::new(Shared {
        tail: Padded(AtomicU64::new(0)),
        head: Padded(AtomicU64::new(0)),
        consumer_sleeps: Padded(SleepFlag::new()),
        producer_sleeps: SleepFlag::new(),
        consumer_gone: AtomicBool::new(false),
        producer_gone: AtomicBool::new(false),
        memory: RawBytes::new(capacity_bytes),
        shadow: Shadow::new(capacity_bytes),
    });
    let producer = Producer {
        shared: shared.clone(),
        tail: 0,
        published: 0,
        head_seen: 0,
        reserved: None,
    };
    (
        producer,
        Consumer {
            shared,
            head: 0,
            published: 0,
            tail_seen: 0,
        },
    )
}

/// The sending end of a ring.
pub struct Producer {
    shared: Arc<Shared>,
    /// First free byte, frames not yet published included.
    tail: u64,
    published: u64,
    /// The consumer's head when last looked at: at least this much is free.
    head_seen: u64,
    /// Bytes handed out by `reserve` and not yet committed.
    reserved: Option<usize>,
}

impl Producer {
    /// Largest message in bytes: the largest that fits an empty ring at any position.
    #[must_use]
    pub fn message_bytes_max(&self) -> usize {
        self.shared.capacity() / 2 - HEADER_BYTES
    }

    /// The ring's capacity in bytes.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.shared.capacity()
    }

    /// Room for a message of up to `len` bytes, to be filled in place and committed. `None` when it does not fit now:
    /// backpressure. A reservation that is not committed is void.
    ///
    /// # Panics
    ///
    /// If `len` is larger than [`Producer::message_bytes_max`]: it would never fit.
    #[inline]
    pub fn reserve(&mut self, len: usize) -> Option<&mut [u8]> {
        assert!(
            len <= self.message_bytes_max(),
            "a message of {len} bytes in a ring of {}",
            self.shared.capacity()
        );
        let capacity = self.shared.capacity();
        let need = frame_bytes(len);
        let to_end = capacity - self.shared.offset(self.tail);
        let filler = if need > to_end { to_end } else { 0 };
        if self.free() < filler + need {
            self.head_seen = self.shared.head.0.load(Ordering::Acquire);
            if self.free() < filler + need {
                return None;
            }
        }
        if filler > 0 {
            self.write_header(FILLER);
            self.tail += filler as u64;
        }
        self.reserved = Some(len);
        let start = self.shared.offset(self.tail) + HEADER_BYTES;
        self.shared.shadow.write(start, len);
        // SAFETY: the bytes lie between tail and head plus capacity, so they are the producer's: the acquire load of
        // `head` ordered the consumer's last use of them before this one. The slice borrows the producer, which cannot
        // publish them before the borrow ends, and which keeps the memory alive.
        Some(unsafe { self.shared.memory.slice_mut(start, len) })
    }

    /// Ends the message in the reserved room after `len` bytes. The consumer sees it after the next `publish`.
    ///
    /// # Panics
    ///
    /// If there is no reservation of at least `len` bytes.
    #[inline]
    pub fn commit(&mut self, len: usize) {
        let reserved = self.reserved.take();
        assert!(
            reserved.is_some_and(|reserved| len <= reserved),
            "commit of {len} bytes, reserved {reserved:?}"
        );
        self.write_header(len as u64);
        self.tail += frame_bytes(len) as u64;
    }

    /// Copies a message in; the same as `reserve`, fill and `commit`. `false` when it does not fit now: backpressure.
    ///
    /// # Panics
    ///
    /// If the message is larger than [`Producer::message_bytes_max`].
    #[inline]
    pub fn push(&mut self, message: &[u8]) -> bool {
        let Some(room) = self.reserve(message.len()) else {
            return false;
        };
        room.copy_from_slice(message);
        self.commit(message.len());
        true
    }

    /// Shows all committed messages to the consumer. `true` if the consumer sleeps and the caller must wake it.
    #[must_use = "a sleeping consumer must be woken"]
    #[inline]
    pub fn publish(&mut self) -> bool {
        if self.published == self.tail {
            return false;
        }
        self.published = self.tail;
        self.shared.tail.0.store(self.tail, Ordering::Release);
        self.shared.consumer_sleeps.0.must_wake()
    }

    /// Shows all committed messages to a consumer that is known to be awake, such as one that the same thread polls: a
    /// publish without the fence of the handshake with a sleeper.
    #[inline]
    pub fn publish_awake(&mut self) {
        self.published = self.tail;
        self.shared.tail.0.store(self.tail, Ordering::Release);
    }

    /// Largest message in bytes for which `reserve` succeeds now.
    #[must_use]
    pub fn room(&mut self) -> usize {
        self.head_seen = self.shared.head.0.load(Ordering::Acquire);
        let free = self.free();
        let to_end = self.shared.capacity() - self.shared.offset(self.tail);
        // Before the end of the ring, or behind a filler frame at its start.
        let best = free.min(to_end).max(free.saturating_sub(to_end));
        best.saturating_sub(HEADER_BYTES)
            .min(self.message_bytes_max())
    }

    /// Announces that this side will sleep until a message of `len` bytes fits. `false` if it fits now: do not sleep.
    pub fn arm(&mut self, len: usize) -> bool {
        self.shared.producer_sleeps.arm();
        if self.room() < len && !self.is_closed() {
            return true;
        }
        self.disarm();
        false
    }

    /// Takes the announcement back, after a sleep or instead of one.
    pub fn disarm(&mut self) {
        self.shared.producer_sleeps.disarm();
    }

    /// Whether the consumer is gone: nothing sent from now on will be read.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.shared.consumer_gone.load(Ordering::Acquire)
    }

    fn free(&self) -> usize {
        self.shared.capacity() - (self.tail - self.head_seen) as usize
    }

    fn write_header(&mut self, header: u64) {
        let offset = self.shared.offset(self.tail);
        self.shared.shadow.write(offset, HEADER_BYTES);
        let at = self.shared.memory.at(offset).cast::<u64>();
        // SAFETY: the word lies inside the memory, since frames start at multiples of 8 and so does the end; it is
        // aligned, since the memory is; it is the producer's, since it lies in free room that `reserve` has checked.
        unsafe { at.write(header) };
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        self.shared.producer_gone.store(true, Ordering::Release);
    }
}

impl fmt::Debug for Producer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Producer")
            .field("tail", &self.tail)
            .field("published", &self.published)
            .finish_non_exhaustive()
    }
}

/// The receiving end of a ring.
pub struct Consumer {
    shared: Arc<Shared>,
    /// First byte not yet released.
    head: u64,
    published: u64,
    /// The producer's tail when last looked at: at least this much may be read.
    tail_seen: u64,
}

impl Consumer {
    /// The oldest message that was not released, in place. `None` if there is none; then room is given back too.
    #[inline]
    pub fn peek(&mut self) -> Option<&[u8]> {
        let len = self.next_len()?;
        let start = self.shared.offset(self.head) + HEADER_BYTES;
        self.shared.shadow.read(start, len);
        // SAFETY: the bytes lie between head and tail, so they are the consumer's: the acquire load of `tail` ordered
        // the producer's writes before this read. The slice borrows the consumer, which cannot give the bytes back
        // before the borrow ends, and which keeps the memory alive.
        Some(unsafe { self.shared.memory.slice(start, len) })
    }

    /// Gives the oldest message's room back, for good. The producer sees it in batches: at a quarter of the ring, when
    /// `peek` finds nothing, or at `publish`. Only `publish` tells whether the producer must be woken: call it after the
    /// last `release` of a batch.
    ///
    /// # Panics
    ///
    /// If there is no message.
    #[inline]
    pub fn release(&mut self) {
        let len = self.next_len().expect("release follows a successful peek");
        self.head += frame_bytes(len) as u64;
        if self.head - self.published >= self.shared.capacity() as u64 / 4 {
            self.publish_head();
        }
    }

    /// Shows all given-back room to the producer. `true` if the producer sleeps and the caller must wake it.
    #[must_use = "a sleeping producer must be woken"]
    pub fn publish(&mut self) -> bool {
        self.publish_head();
        self.shared.producer_sleeps.must_wake()
    }

    /// Announces that this side will sleep until a message comes. `false` if one is there, or the producer is gone: do
    /// not sleep.
    pub fn arm(&mut self) -> bool {
        self.shared.consumer_sleeps.0.arm();
        if self.next_len().is_none() && !self.shared.producer_gone.load(Ordering::Acquire) {
            return true;
        }
        self.disarm();
        false
    }

    /// Takes the announcement back, after a sleep or instead of one.
    pub fn disarm(&mut self) {
        self.shared.consumer_sleeps.0.disarm();
    }

    /// Whether the producer is gone and all it published was read.
    #[must_use]
    pub fn is_finished(&mut self) -> bool {
        // In this order: what it published before it went must be seen.
        self.shared.producer_gone.load(Ordering::Acquire) && self.next_len().is_none()
    }

    /// Length of the message at the head, after skipping filler frames and looking for new messages.
    #[inline]
    fn next_len(&mut self) -> Option<usize> {
        loop {
            if self.head == self.tail_seen {
                self.tail_seen = self.shared.tail.0.load(Ordering::Acquire);
                if self.head == self.tail_seen {
                    self.publish_head();
                    return None;
                }
            }
            let offset = self.shared.offset(self.head);
            self.shared.shadow.read(offset, HEADER_BYTES);
            let at = self.shared.memory.at(offset).cast::<u64>();
            // SAFETY: the word lies inside the memory and is aligned, since frames start at multiples of 8; it was
            // written before `tail` was published past it, and the producer leaves it alone until it is given back.
            let header = unsafe { at.read() };
            if header == FILLER {
                self.head += (self.shared.capacity() - offset) as u64;
                continue;
            }
            let len = header as usize;
            debug_assert!(
                self.head + frame_bytes(len) as u64 <= self.tail_seen,
                "a frame beyond the tail"
            );
            return Some(len);
        }
    }

    #[inline]
    fn publish_head(&mut self) {
        if self.published != self.head {
            self.published = self.head;
            self.shared.head.0.store(self.head, Ordering::Release);
        }
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        self.shared.consumer_gone.store(true, Ordering::Release);
    }
}

impl fmt::Debug for Consumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer")
            .field("head", &self.head)
            .field("tail_seen", &self.tail_seen)
            .finish_non_exhaustive()
    }
}

/// One end of two rings, one for each direction. Dropping it does not wake a sleeping peer: whoever drops it does.
#[derive(Debug)]
pub struct Endpoint {
    /// To the peer.
    pub tx: Producer,
    /// From the peer.
    pub rx: Consumer,
}

/// Makes the two ends of a connection, each direction a ring of `capacity_bytes`.
///
/// # Panics
///
/// As [`ring`].
#[must_use]
pub fn duplex(capacity_bytes: usize) -> (Endpoint, Endpoint) {
    let ((tx_a, rx_b), (tx_b, rx_a)) = (ring(capacity_bytes), ring(capacity_bytes));
    (
        Endpoint { tx: tx_a, rx: rx_a },
        Endpoint { tx: tx_b, rx: rx_b },
    )
}

#[cfg(all(test, not(loom)))]
mod tests;
