//! Growth lists: by how much each of many segments grew, as cuts keep it and rounds carry it.
//!
//! Segments have numbers from 0, whose meaning both sides know from elsewhere; a list names those that grew, ascending.
//! ```text
//! nothing         nothing grew
//! 0 | (varint gap, varint growth)...                                sparse: gap = segments left out since the one before
//! 1 | varint first | varint length | bitmap | varint growth...      dense: bit i of the bitmap (low bits first) says whether
//!                                                                   segment first + i grew; the growths of those that did
//! ```
//! A bit per segment costs an eighth of the byte that a small gap costs, so dense lists are shorter from the point where more
//! than one segment in eight grew; beyond, each takes at most two bytes while it grows by less than 128 records, and
//! a little over one when all grew. Written and read without allocation, a word of the bitmap at a time: growths of one byte,
//! which is what a busy log has, need no branch per segment.

use core::ops::Range;

use crate::codec::{Reader, WireError, Writer};

/// Segments that a list can tell apart: numbers are below.
pub const SEGMENTS_MAX: usize = 1 << 24;

const SPARSE: u8 = 0;
const DENSE: u8 = 1;
/// Segments of one word of a bitmap.
const WORD: usize = 64;
/// Growths from this on take more than one byte.
const LONG: u64 = 0x80;

/// What a walk over a list calls, in ascending order of segments.
pub trait GrowthSink {
    /// The segment `index` grew by `growth` records, at least 1.
    fn one(&mut self, index: usize, growth: u64);

    /// The segments from `first` on each grew by as many records as their byte says, 1 to 127.
    #[inline]
    fn run(&mut self, first: usize, growths: &[u8]) {
        for (at, growth) in growths.iter().enumerate() {
            self.one(first + at, u64::from(*growth));
        }
    }
}

/// A list in bytes that a peer or a disk supplied, checked when made: numbers ascend and are below [`SEGMENTS_MAX`], each
/// growth is at least 1, and their sum is below 2^64.
#[derive(Clone, Copy, Debug)]
pub struct Growths<'a> {
    form: Form<'a>,
    changed: usize,
    total: u64,
    end: usize,
}

#[derive(Clone, Copy, Debug)]
enum Form<'a> {
    Sparse(&'a [u8]),
    Dense(Dense<'a>),
}

#[derive(Clone, Copy, Debug)]
struct Dense<'a> {
    first: usize,
    bitmap: &'a [u8],
    growths: &'a [u8],
}

impl<'a> Growths<'a> {
    /// Checks a list that fills `bytes`.
    ///
    /// # Errors
    /// Any [`WireError`]; effect none.
    pub fn new_checked(bytes: &'a [u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(bytes);
        let mut sum = Sum::default();
        if reader.is_empty() {
            return Ok(Self::summed(Form::Sparse(bytes), &sum));
        }
        let form = match reader.field::<u8>()? {
            SPARSE => {
                walk_sparse(reader.rest(), &mut sum)?;
                Form::Sparse(reader.rest())
            }
            DENSE => {
                let dense = Dense::read(&mut reader)?;
                dense.walk(usize::MAX, &mut sum)?;
                Form::Dense(dense)
            }
            form => return Err(range("growth form", u64::from(form))),
        };
        if sum.bad || sum.changed == 0 {
            return Err(range("growth", sum.total));
        }
        Ok(Self::summed(form, &sum))
    }

    const fn summed(form: Form<'a>, sum: &Sum) -> Self {
        Self {
            form,
            changed: sum.changed,
            total: sum.total,
            end: sum.end,
        }
    }

    /// The number of segments that grew.
    #[must_use]
    pub const fn changed(&self) -> usize {
        self.changed
    }

    /// The number of records by which all of them grew.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.total
    }

    /// The number after that of the last segment that grew; 0 if none did.
    #[must_use]
    pub const fn end(&self) -> usize {
        self.end
    }

    /// Walks the list.
    #[inline]
    pub fn walk<S: GrowthSink>(&self, sink: &mut S) {
        self.walk_below(usize::MAX, sink);
    }

    /// Walks the list as far as it is about segments below `end`; a few later ones may be walked too.
    #[inline]
    pub fn walk_below<S: GrowthSink>(&self, end: usize, sink: &mut S) {
        // Checked when made.
        let _ = match self.form {
            Form::Sparse(pairs) => walk_sparse(pairs, sink),
            Form::Dense(dense) => dense.walk(end, sink),
        };
    }

    /// The segments that grew and by how many records, ascending. [`Self::walk`] is faster.
    pub fn iter(&self) -> impl Iterator<Item = (usize, u64)> + use<'a> {
        let (mut sparse, mut dense) = match self.form {
            Form::Sparse(pairs) => (Reader::new(pairs), None),
            Form::Dense(dense) => (Reader::new(&[]), Some(dense.bits())),
        };
        let mut growths = match self.form {
            Form::Sparse(_) => Reader::new(&[]),
            Form::Dense(dense) => Reader::new(dense.growths),
        };
        let mut next = 0;
        core::iter::from_fn(move || {
            if let Some(bits) = &mut dense {
                let index = bits.next()?;
                return Some((index, growths.varint().ok()?));
            }
            let gap = sparse.varint().ok()?;
            let index = next + gap as usize;
            next = index + 1;
            Some((index, sparse.varint().ok()?))
        })
    }
}

impl<'a> Dense<'a> {
    fn read(reader: &mut Reader<'a>) -> Result<Self, WireError> {
        let first = index(reader.varint()?)?;
        let len = index(reader.varint()?)?;
        if len > SEGMENTS_MAX - first {
            return Err(range("growth segments", len as u64));
        }
        let bitmap = reader.bytes(len.div_ceil(8))?;
        let beyond = bitmap
            .last()
            .is_some_and(|last| len % 8 != 0 && last >> (len % 8) != 0);
        if beyond {
            return Err(range("growth bitmap", len as u64));
        }
        Ok(Self {
            first,
            bitmap,
            growths: reader.rest(),
        })
    }

    fn bits(self) -> impl Iterator<Item = usize> + use<'a> {
        let bytes = self.bitmap.iter().enumerate();
        bytes.flat_map(move |(at, byte)| {
            let set = (0..8).filter(move |bit| byte >> bit & 1 != 0);
            set.map(move |bit| self.first + at * 8 + bit)
        })
    }

    #[inline]
    fn walk<S: GrowthSink>(self, end: usize, sink: &mut S) -> Result<(), WireError> {
        let mut growths = Reader::new(self.growths);
        let mut at = self.first;
        for bytes in self.bitmap.chunks(8) {
            if at >= end {
                return Ok(());
            }
            let mut word = word(bytes);
            let ones = word.count_ones() as usize;
            match growths.rest().split_at_checked(ones) {
                Some((short, rest)) if short.iter().fold(0, |all, one| all | one) < LONG as u8 => {
                    growths = Reader::new(rest);
                    if word == u64::MAX {
                        sink.run(at, short);
                    } else {
                        for growth in short {
                            sink.one(at + word.trailing_zeros() as usize, u64::from(*growth));
                            word &= word - 1;
                        }
                    }
                }
                _ => {
                    while word != 0 {
                        let growth = growths.varint()?;
                        sink.one(at + word.trailing_zeros() as usize, growth);
                        word &= word - 1;
                    }
                }
            }
            at += WORD;
        }
        if growths.is_empty() {
            Ok(())
        } else {
            Err(range("growth tail bytes", growths.rest().len() as u64))
        }
    }
}

#[inline]
fn walk_sparse<S: GrowthSink>(pairs: &[u8], sink: &mut S) -> Result<(), WireError> {
    let mut reader = Reader::new(pairs);
    let mut next = 0;
    while !reader.is_empty() {
        let at = next + index(reader.varint()?)?;
        sink.one(at, reader.varint()?);
        if at >= SEGMENTS_MAX {
            return Err(range("growth segment", at as u64));
        }
        next = at + 1;
    }
    Ok(())
}

/// What a check finds out.
#[derive(Default)]
struct Sum {
    changed: usize,
    total: u64,
    end: usize,
    bad: bool,
}

impl GrowthSink for Sum {
    #[inline]
    fn one(&mut self, index: usize, growth: u64) {
        let (total, over) = self.total.overflowing_add(growth);
        self.bad |= over || growth == 0;
        self.total = total;
        self.changed += 1;
        self.end = index + 1;
    }

    #[inline]
    fn run(&mut self, first: usize, growths: &[u8]) {
        let sum = growths.iter().map(|growth| u32::from(*growth)).sum::<u32>();
        let least = growths.iter().fold(u8::MAX, |least, one| least.min(*one));
        let (total, over) = self.total.overflowing_add(u64::from(sum));
        self.bad |= over || least == 0;
        self.total = total;
        self.changed += growths.len();
        self.end = first + growths.len();
    }
}

fn index(value: u64) -> Result<usize, WireError> {
    if value > SEGMENTS_MAX as u64 {
        return Err(range("growth segment", value));
    }
    Ok(value as usize)
}

const fn range(field: &'static str, value: u64) -> WireError {
    WireError::Range { field, value }
}

#[inline]
fn word(bytes: &[u8]) -> u64 {
    match bytes.first_chunk() {
        Some(bytes) => u64::from_le_bytes(*bytes),
        None => bytes
            .iter()
            .rev()
            .fold(0, |word, byte| word << 8 | u64::from(*byte)),
    }
}

/// Writes growth lists.
///
/// `growth` says by how many records a segment grew, 0 if not at all. It is asked more than once, and must say the same.
#[derive(Clone, Copy, Debug)]
pub struct GrowthWriter;

impl GrowthWriter {
    /// Writes the list of the segments in a range, in the shorter of the two forms.
    ///
    /// # Errors
    /// [`WireError::Full`], and [`WireError::Range`] for numbers beyond [`SEGMENTS_MAX`].
    #[inline]
    pub fn write(
        writer: &mut Writer<'_>,
        segments: Range<usize>,
        growth: impl Fn(usize) -> u64,
    ) -> Result<(), WireError> {
        let Some(first) = segments.clone().find(|at| growth(*at) != 0) else {
            return Ok(());
        };
        let last = (first..segments.end).rfind(|at| growth(*at) != 0);
        let end = last.unwrap_or(first) + 1;
        if end > SEGMENTS_MAX {
            return Err(range("growth segment", end as u64));
        }
        let begun = writer.len();
        let fill = |at: usize, room: &mut [u64]| {
            for (bit, word) in room.iter_mut().enumerate() {
                *word = growth(at + bit);
            }
        };
        if let Ok(changed) = write_dense(writer, first..end, fill)
            && changed * 8 > end - first
        {
            return Ok(());
        }
        writer.rewind(begun);
        write_sparse(writer, first..end, &growth)
    }

    /// The same of segments in a row, from `first` on.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub fn write_all(
        writer: &mut Writer<'_>,
        first: usize,
        growths: &[u64],
    ) -> Result<(), WireError> {
        let Some(from) = growths.iter().position(|growth| *growth != 0) else {
            return Ok(());
        };
        let last = growths.iter().rposition(|growth| *growth != 0);
        let to = last.unwrap_or(from) + 1;
        if first + to > SEGMENTS_MAX {
            return Err(range("growth segment", (first + to) as u64));
        }
        let begun = writer.len();
        let fill = |at: usize, room: &mut [u64]| {
            let at = at - first;
            room.copy_from_slice(&growths[at..at + room.len()]);
        };
        if let Ok(changed) = write_dense(writer, first + from..first + to, fill)
            && changed * 8 > to - from
        {
            return Ok(());
        }
        writer.rewind(begun);
        write_sparse(writer, first + from..first + to, &|at| growths[at - first])
    }
}

/// Writes the dense form; how many segments grew. `fill` gives the growths of neighbours from one on.
#[inline]
fn write_dense(
    writer: &mut Writer<'_>,
    segments: Range<usize>,
    fill: impl Fn(usize, &mut [u64]),
) -> Result<usize, WireError> {
    writer.field(DENSE)?;
    writer.varint(segments.start as u64)?;
    writer.varint(segments.len() as u64)?;
    let mut bitmap_at = writer.len();
    writer.claim(segments.len().div_ceil(8))?;
    let (mut at, mut changed) = (segments.start, 0);
    while at < segments.end {
        let count = WORD.min(segments.end - at);
        let mut growths = [0u64; WORD];
        fill(at, &mut growths[..count]);
        let mut short = [0u8; WORD];
        let all = growths.iter().fold(0, |all, growth| all | growth);
        let none_left_out = growths
            .iter()
            .fold(true, |all, growth| all & (*growth != 0));
        let (mut word, mut ones) = (0u64, 0);
        if none_left_out {
            // A busy log, and no branch for any of them.
            (word, ones) = (u64::MAX, WORD);
            for (short, growth) in short.iter_mut().zip(&growths) {
                *short = *growth as u8;
            }
        } else if all != 0 {
            for (bit, growth) in growths.iter().enumerate() {
                let grew = *growth != 0;
                // What did not grow is written over. `ones` is less than `bit + 1`: the mask changes nothing, and saves a check.
                short[ones & (WORD - 1)] = *growth as u8;
                ones += usize::from(grew);
                word |= u64::from(grew) << bit;
            }
        }
        let bytes = count.div_ceil(8);
        writer
            .patch(bitmap_at, bytes)
            .copy_from_slice(&word.to_le_bytes()[..bytes]);
        bitmap_at += bytes;
        if all < LONG {
            writer.bytes(&short[..ones])?;
        } else {
            let mut grew = growths.iter().filter(|growth| **growth != 0);
            grew.try_for_each(|growth| writer.varint(*growth))?;
        }
        changed += ones;
        at += count;
    }
    Ok(changed)
}

fn write_sparse(
    writer: &mut Writer<'_>,
    segments: Range<usize>,
    growth: &impl Fn(usize) -> u64,
) -> Result<(), WireError> {
    writer.field(SPARSE)?;
    let mut next = 0;
    for at in segments {
        let growth = growth(at);
        if growth != 0 {
            writer.varint((at - next) as u64)?;
            writer.varint(growth)?;
            next = at + 1;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
