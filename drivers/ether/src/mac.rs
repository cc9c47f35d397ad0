//! Hardware addresses of Ethernet.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// A 48-bit hardware address. *Source*: IEEE 802, section 8.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct MacAddr(pub [u8; 6]);

/// A text that is no hardware address. Effect: none.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[error(
    "`{text}` is not a hardware address; write six bytes in hexadecimal, such as 02:00:00:00:00:01"
)]
pub struct MacError {
    /// The text.
    pub text: String,
}

impl MacAddr {
    /// Every station.
    pub const BROADCAST: Self = Self([0xff; 6]);

    /// Names one station: neither broadcast nor multicast, and not zero.
    #[must_use]
    pub const fn is_unicast(self) -> bool {
        let [a, b, c, d, e, f] = self.0;
        a & 1 == 0 && (a | b | c | d | e | f) != 0
    }

    /// Names many stations; the broadcast address is one of these.
    #[must_use]
    pub const fn is_multicast(self) -> bool {
        self.0[0] & 1 != 0
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for MacAddr {
    type Err = MacError;

    fn from_str(text: &str) -> Result<Self, MacError> {
        let error = || MacError {
            text: text.to_owned(),
        };
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().filter(|part| part.len() == 2);
            *byte = part
                .filter(|part| part.bytes().all(|digit| digit.is_ascii_hexdigit()))
                .and_then(|part| u8::from_str_radix(part, 16).ok())
                .ok_or_else(error)?;
        }
        match parts.next() {
            None => Ok(Self(bytes)),
            Some(_) => Err(error()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_survive_the_round_trip_and_other_texts_are_errors() {
        let mac = MacAddr([2, 0, 0x5e, 0xff, 1, 0x0a]);
        assert_eq!(mac.to_string(), "02:00:5e:ff:01:0a");
        assert_eq!("02:00:5E:ff:01:0a".parse(), Ok(mac));
        for text in [
            "",
            "02:00:5e:ff:01",
            "02:00:5e:ff:01:0a:0b",
            "2:0:5e:ff:1:a",
            "02:00:5e:ff:01:+a",
            "02-00-5e-ff-01-0a",
        ] {
            let error = text.parse::<MacAddr>().expect_err("not an address");
            assert!(
                error.to_string().contains(text) && error.to_string().contains("02:00:00:00:00:01")
            );
        }
    }

    #[test]
    fn one_station_many_or_none() {
        assert!(MacAddr([2, 0, 0, 0, 0, 1]).is_unicast());
        assert!(!MacAddr::BROADCAST.is_unicast() && MacAddr::BROADCAST.is_multicast());
        assert!(!MacAddr([0; 6]).is_unicast() && !MacAddr([0; 6]).is_multicast());
        assert!(MacAddr([0x33, 0x33, 0, 0, 0, 1]).is_multicast());
    }
}
