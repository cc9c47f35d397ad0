//! The macros that give each message its view, its value and its place in the table of messages.

/// Defines one message body: `Name = kind { field: Type, ... }`.
macro_rules! body {
    ($(#[$doc:meta])* $name:ident = $kind:literal { $($(#[$fdoc:meta])* $field:ident: $ty:ty),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub struct $name {
            $($(#[$fdoc])* pub $field: $ty,)*
        }

        impl $crate::frame::Body for $name {
            const KIND: u8 = $kind;
            const LEN: usize = 0 $(+ <$ty as $crate::codec::Field>::LEN)*;

            #[inline]
            fn read(reader: &mut $crate::codec::Reader<'_>) -> Result<Self, $crate::codec::WireError> {
                let mut fields = $crate::codec::Reader::new(reader.bytes(Self::LEN)?);
                let _ = &mut fields;
                Ok(Self { $($field: fields.field()?,)* })
            }

            #[inline]
            fn write(&self, writer: &mut $crate::codec::Writer<'_>) -> Result<(), $crate::codec::WireError> {
                $(writer.field(self.$field)?;)*
                let _ = writer;
                Ok(())
            }
        }
    };
}

/// Defines an enumeration of one byte on the wire.
macro_rules! code_enum {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $code:literal),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[repr(u8)]
        pub enum $name {
            $($(#[$vdoc])* $variant = $code,)*
        }

        impl $crate::codec::Field for $name {
            const LEN: usize = 1;
            #[inline]
            fn take(bytes: &[u8]) -> Result<Self, $crate::codec::WireError> {
                match u8::take(bytes)? {
                    $($code => Ok(Self::$variant),)*
                    value => Err($crate::codec::WireError::Range {
                        field: stringify!($name), value: u64::from(value),
                    }),
                }
            }
            #[inline]
            fn put(self, bytes: &mut [u8]) {
                $crate::codec::Field::put(self as u8, bytes);
            }
        }
    };
}

/// Defines [`Message`](super::Message) over the bodies named.
macro_rules! messages {
    ($($name:ident),* $(,)?) => {
        /// A checked message: its body decoded, its tail borrowed.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum Message<'a> {
            $(#[doc = concat!("A [`", stringify!($name), "`] and its tail.")] $name($name, &'a [u8]),)*
        }

        impl<'a> Message<'a> {
            /// Checks the message at the front of `bytes` and returns it with the bytes that follow it.
            ///
            /// # Errors
            /// Any [`WireError`]; effect none.
            #[inline]
            pub fn new_checked(bytes: &'a [u8]) -> Result<(Self, &'a [u8]), WireError> {
                let mut reader = Reader::new(bytes);
                let kind: u8 = reader.field()?;
                let reserved = reader.bytes(3)?;
                if reserved != [0; 3] {
                    return Err(WireError::Range { field: "message reserved", value: u64::from(reserved[0]) });
                }
                let len: u32 = reader.field()?;
                if len as usize + MESSAGE_HEADER_BYTES > MESSAGE_BYTES_MAX {
                    return Err(WireError::Range { field: "message bytes", value: u64::from(len) });
                }
                let mut inner = Reader::new(reader.bytes(len as usize)?);
                let message = match kind {
                    $(<$name as Body>::KIND => {
                        let body = <$name as Body>::read(&mut inner)?;
                        Self::$name(body, inner.rest())
                    })*
                    kind => return Err(WireError::Range { field: "message kind", value: u64::from(kind) }),
                };
                Ok((message, reader.rest()))
            }

            /// The name of the message, for traces and counters.
            #[must_use]
            pub const fn name(&self) -> &'static str {
                match self {
                    $(Self::$name(..) => stringify!($name),)*
                }
            }
        }

        /// Every message kind with its name and fixed length, for tests of the table itself.
        pub const KINDS: &[(u8, &str, usize)] = &[$((<$name as Body>::KIND, stringify!($name), <$name as Body>::LEN),)*];
    };
}

pub(crate) use {body, code_enum, messages};
