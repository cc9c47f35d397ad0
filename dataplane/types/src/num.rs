//! The macro behind every numeric newtype.

/// Defines a newtype over an unsigned integer with checked arithmetic and a plain `Display`.
macro_rules! number {
    ($(#[$doc:meta])* $name:ident($int:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        #[repr(transparent)]
        pub struct $name($int);

        impl $name {
            /// The smallest value.
            pub const ZERO: Self = Self(0);
            /// The largest value.
            pub const MAX: Self = Self(<$int>::MAX);

            /// Makes a value that comes from the wire, the disk or a user.
            #[must_use]
            pub const fn new(value: $int) -> Self {
                Self(value)
            }

            /// The bare number.
            #[must_use]
            pub const fn get(self) -> $int {
                self.0
            }

            /// The value after this one, or `None` at the end of the range.
            #[must_use]
            pub const fn next(self) -> Option<Self> {
                match self.0.checked_add(1) {
                    Some(value) => Some(Self(value)),
                    None => None,
                }
            }

            /// The value `count` further on, or `None` past the end of the range.
            #[must_use]
            pub const fn checked_add(self, count: $int) -> Option<Self> {
                match self.0.checked_add(count) {
                    Some(value) => Some(Self(value)),
                    None => None,
                }
            }

            /// How far this value lies after `earlier`, or `None` if it lies before it.
            #[must_use]
            pub const fn checked_since(self, earlier: Self) -> Option<$int> {
                self.0.checked_sub(earlier.0)
            }

            /// How far this value lies after `earlier`, zero if it lies before it.
            #[must_use]
            pub const fn saturating_since(self, earlier: Self) -> $int {
                self.0.saturating_sub(earlier.0)
            }
        }

        impl core::fmt::Display for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                core::fmt::Display::fmt(&self.0, f)
            }
        }

        impl core::fmt::Debug for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }
    };
}

pub(crate) use number;
