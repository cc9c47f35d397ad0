//! Bounded reading and writing of little-endian fields and varints.

use ionian_types::{
    ClientId, ClientSeq, ClusterId, Durability, EdgeEpoch, EntryNo, GapKind, Gsn, GuardEpoch, Inc,
    LogId, Lsn, NodeId, NsEpoch, OrderingMode, RootEpoch, RoundNo, SegmentId, SessionId, SessionNo,
    ShardId, Slot, Token, VertexId, ViewId,
};

/// Why bytes are not what they claim to be. Effect: none, nothing was taken over.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WireError {
    /// Fewer bytes than the format needs.
    #[error("truncated: {need} bytes needed, {have} present")]
    Truncated {
        /// Bytes needed.
        need: usize,
        /// Bytes present.
        have: usize,
    },
    /// A field holds a value outside its range.
    #[error("field {field} out of range: {value}")]
    Range {
        /// The field's name.
        field: &'static str,
        /// The value found.
        value: u64,
    },
    /// A checksum does not match.
    #[error("checksum mismatch: {found:#010x} stored, {computed:#010x} computed")]
    Checksum {
        /// The stored checksum.
        found: u32,
        /// The computed checksum.
        computed: u32,
    },
    /// A version that this build does not know.
    #[error("version {found} is not known (this build knows {known})")]
    Version {
        /// The version found.
        found: u16,
        /// The version this build knows.
        known: u16,
    },
    /// More bytes than fit into the output.
    #[error("output full: {need} bytes needed, {room} free")]
    Full {
        /// Bytes needed.
        need: usize,
        /// Bytes free.
        room: usize,
    },
}

/// A field of fixed length.
pub trait Field: Sized + Copy {
    /// The encoded length in bytes.
    const LEN: usize;
    /// Decodes from exactly [`Self::LEN`] bytes.
    ///
    /// # Errors
    /// [`WireError::Range`] for a value outside the type's range.
    fn take(bytes: &[u8]) -> Result<Self, WireError>;
    /// Encodes into exactly [`Self::LEN`] bytes.
    fn put(self, bytes: &mut [u8]);
}

macro_rules! int_field {
    ($($int:ty),*) => {$(
        impl Field for $int {
            const LEN: usize = size_of::<$int>();
            #[inline]
            fn take(bytes: &[u8]) -> Result<Self, WireError> {
                match bytes.first_chunk() {
                    Some(chunk) => Ok(Self::from_le_bytes(*chunk)),
                    None => Err(WireError::Truncated { need: Self::LEN, have: bytes.len() }),
                }
            }
            #[inline]
            fn put(self, bytes: &mut [u8]) {
                bytes[..Self::LEN].copy_from_slice(&self.to_le_bytes());
            }
        }
    )*};
}
int_field!(u8, u16, u32, u64, u128);

macro_rules! newtype_field {
    ($($name:ident($int:ty)),* $(,)?) => {$(
        impl Field for $name {
            const LEN: usize = <$int as Field>::LEN;
            #[inline]
            fn take(bytes: &[u8]) -> Result<Self, WireError> {
                <$int>::take(bytes).map(Self::new)
            }
            #[inline]
            fn put(self, bytes: &mut [u8]) {
                Field::put(self.get(), bytes);
            }
        }
    )*};
}
newtype_field!(
    Gsn(u64),
    Lsn(u64),
    EntryNo(u64),
    ViewId(u64),
    RootEpoch(u64),
    RoundNo(u64),
    GuardEpoch(u64),
    NsEpoch(u32),
    NodeId(u32),
    Inc(u64),
    LogId(u32),
    ShardId(u32),
    VertexId(u32),
    Slot(u8),
    SessionNo(u32),
    ClientSeq(u64),
    SessionId(u64),
    Token(u64),
    ClientId(u128),
    ClusterId(u128),
);

macro_rules! code_field {
    ($($name:ident),*) => {$(
        impl Field for $name {
            const LEN: usize = 1;
            #[inline]
            fn take(bytes: &[u8]) -> Result<Self, WireError> {
                let code = u8::take(bytes)?;
                Self::from_code(code).ok_or(WireError::Range { field: stringify!($name), value: u64::from(code) })
            }
            #[inline]
            fn put(self, bytes: &mut [u8]) {
                Field::put(self.code(), bytes);
            }
        }
    )*};
}
code_field!(Durability, GapKind, OrderingMode);

impl Field for bool {
    const LEN: usize = 1;
    fn take(bytes: &[u8]) -> Result<Self, WireError> {
        match u8::take(bytes)? {
            0 => Ok(false),
            1 => Ok(true),
            value => Err(WireError::Range {
                field: "bool",
                value: u64::from(value),
            }),
        }
    }
    fn put(self, bytes: &mut [u8]) {
        Field::put(u8::from(self), bytes);
    }
}

impl Field for EdgeEpoch {
    const LEN: usize = 24;
    #[inline]
    fn take(bytes: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(bytes);
        Ok(Self {
            root: reader.field()?,
            view: reader.field()?,
            start: reader.field()?,
        })
    }
    #[inline]
    fn put(self, bytes: &mut [u8]) {
        self.root.put(&mut bytes[..8]);
        self.view.put(&mut bytes[8..16]);
        Field::put(self.start, &mut bytes[16..24]);
    }
}

impl Field for SegmentId {
    const LEN: usize = 5;
    #[inline]
    fn take(bytes: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(bytes);
        Ok(Self {
            shard: reader.field()?,
            slot: reader.field()?,
        })
    }
    #[inline]
    fn put(self, bytes: &mut [u8]) {
        self.shard.put(&mut bytes[..4]);
        self.slot.put(&mut bytes[4..5]);
    }
}

/// Reads fields from bytes, front to back, never past the end.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Starts at the front of `bytes`.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// The bytes not yet read.
    #[must_use]
    pub const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Whether everything was read.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Takes the next `len` bytes.
    ///
    /// # Errors
    /// [`WireError::Truncated`] when fewer are left.
    #[inline]
    pub fn bytes(&mut self, len: usize) -> Result<&'a [u8], WireError> {
        match self.rest.split_at_checked(len) {
            Some((head, rest)) => {
                self.rest = rest;
                Ok(head)
            }
            None => Err(WireError::Truncated {
                need: len,
                have: self.rest.len(),
            }),
        }
    }

    /// Reads one field.
    ///
    /// # Errors
    /// [`WireError::Truncated`] or [`WireError::Range`].
    #[inline]
    pub fn field<T: Field>(&mut self) -> Result<T, WireError> {
        T::take(self.bytes(T::LEN)?)
    }

    /// Reads an unsigned LEB128 number of at most 64 bits.
    ///
    /// # Errors
    /// [`WireError::Truncated`], or [`WireError::Range`] for more than 64 bits.
    #[inline]
    pub fn varint(&mut self) -> Result<u64, WireError> {
        let mut value = 0u64;
        let mut shift = 0u32;
        loop {
            let byte: u8 = self.field()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return Err(WireError::Range {
                    field: "varint",
                    value: u64::from(byte),
                });
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
            shift += 7;
            if shift > 63 {
                return Err(WireError::Range {
                    field: "varint",
                    value: u64::from(byte),
                });
            }
        }
    }

    /// Reads a varint that must fit into 32 bits.
    ///
    /// # Errors
    /// As [`Self::varint`], and [`WireError::Range`] beyond 32 bits.
    #[inline]
    pub fn varint_u32(&mut self) -> Result<u32, WireError> {
        let value = self.varint()?;
        u32::try_from(value).map_err(|_| WireError::Range {
            field: "varint_u32",
            value,
        })
    }
}

/// Writes fields into a slice, front to back, never past the end.
#[derive(Debug)]
pub struct Writer<'a> {
    bytes: &'a mut [u8],
    at: usize,
}

impl<'a> Writer<'a> {
    /// Starts at the front of `bytes`.
    #[must_use]
    pub const fn new(bytes: &'a mut [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// The number of bytes written.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.at
    }

    /// Whether nothing was written yet.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.at == 0
    }

    /// The number of bytes still free.
    #[must_use]
    pub const fn room(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// What was written so far.
    #[must_use]
    pub fn written(&self) -> &[u8] {
        &self.bytes[..self.at]
    }

    /// Overwrites `len` bytes at `at`, which must have been written before.
    #[must_use]
    pub fn patch(&mut self, at: usize, len: usize) -> &mut [u8] {
        &mut self.bytes[..self.at][at..at + len]
    }

    /// Takes back what was written from `len` bytes on; nothing if that is not so much.
    pub fn rewind(&mut self, len: usize) {
        self.at = self.at.min(len);
    }

    /// Claims the next `len` bytes.
    ///
    /// # Errors
    /// [`WireError::Full`] when fewer are free.
    #[inline]
    pub fn claim(&mut self, len: usize) -> Result<&mut [u8], WireError> {
        let room = self.room();
        if room < len {
            return Err(WireError::Full { need: len, room });
        }
        let from = self.at;
        self.at += len;
        Ok(&mut self.bytes[from..from + len])
    }

    /// Writes one field.
    ///
    /// # Errors
    /// [`WireError::Full`].
    #[inline]
    pub fn field<T: Field>(&mut self, value: T) -> Result<(), WireError> {
        value.put(self.claim(T::LEN)?);
        Ok(())
    }

    /// Writes bytes as they are.
    ///
    /// # Errors
    /// [`WireError::Full`].
    #[inline]
    pub fn bytes(&mut self, bytes: &[u8]) -> Result<(), WireError> {
        self.claim(bytes.len())?.copy_from_slice(bytes);
        Ok(())
    }

    /// Writes an unsigned LEB128 number.
    ///
    /// # Errors
    /// [`WireError::Full`].
    #[inline]
    pub fn varint(&mut self, mut value: u64) -> Result<(), WireError> {
        while value >= 0x80 {
            self.field((value & 0x7f) as u8 | 0x80)?;
            value >>= 7;
        }
        self.field(value as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn varints_come_back(value: u64) {
            let mut bytes = [0u8; 10];
            let mut writer = Writer::new(&mut bytes);
            writer.varint(value).unwrap();
            let len = writer.len();
            let mut reader = Reader::new(&bytes[..len]);
            prop_assert_eq!(reader.varint().unwrap(), value);
            prop_assert!(reader.is_empty());
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let mut reader = Reader::new(&bytes);
            while reader.varint().is_ok() {}
            let mut reader = Reader::new(&bytes);
            while reader.field::<EdgeEpoch>().is_ok() {}
            let _ = reader.field::<GapKind>();
        }
    }

    #[test]
    fn a_varint_of_more_than_64_bits_is_refused() {
        let bytes = [0xff; 10];
        assert!(matches!(
            Reader::new(&bytes).varint(),
            Err(WireError::Range { .. })
        ));
    }

    #[test]
    fn a_full_writer_refuses_and_keeps_what_it_has() {
        let mut bytes = [0u8; 3];
        let mut writer = Writer::new(&mut bytes);
        writer.field(7u16).unwrap();
        assert_eq!(
            writer.field(7u16),
            Err(WireError::Full { need: 2, room: 1 })
        );
        assert_eq!(writer.written(), &[7, 0]);
    }
}
