//! Sizes with units: `64MiB`, `2GB`, `4096`.

/// The units, longest first so that a suffix is matched whole.
const UNITS: &[(&str, u64)] = &[
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("B", 1),
    ("", 1),
];

/// Reads a size in bytes: a whole number, and a unit of `B kB MB GB TB KiB MiB GiB TiB` or none.
///
/// # Errors
/// A sentence that says what is wrong; effect none.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let digits = text.len()
        - text
            .trim_start_matches(|c: char| c.is_ascii_digit() || c == '_')
            .len();
    let (number, unit) = text.split_at(digits);
    let unit = unit.trim_start();
    let number: u64 = number.replace('_', "").parse().map_err(|_| {
        format!("{text:?} is not a size: write a whole number and a unit, such as 64MiB")
    })?;
    let (_, bytes) = UNITS
        .iter()
        .find(|(name, _)| *name == unit)
        .ok_or_else(|| {
            format!("{unit:?} is not a unit of size: use B, kB, MB, GB, TB, KiB, MiB, GiB or TiB")
        })?;
    number
        .checked_mul(*bytes)
        .ok_or_else(|| format!("{text:?} is more than 2^64 bytes"))
}

/// Writes a size in the largest unit that keeps it whole.
#[must_use]
pub fn format_size(bytes: u64) -> String {
    let unit = UNITS
        .iter()
        .take(4)
        .rev()
        .find(|(_, unit)| bytes > 0 && bytes.is_multiple_of(*unit));
    match unit {
        Some((name, unit)) => format!("{}{name}", bytes / unit),
        None => format!("{bytes}B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        assert_eq!(parse_size("64MiB"), Ok(64 << 20));
        assert_eq!(parse_size(" 1_000 kB "), Ok(1_000_000));
        assert_eq!(parse_size("4096"), Ok(4096));
        assert_eq!(parse_size("0B"), Ok(0));
        assert!(
            parse_size("64mib")
                .unwrap_err()
                .contains("\"mib\" is not a unit")
        );
        assert!(parse_size("MiB").unwrap_err().contains("whole number"));
        assert!(parse_size("1.5GiB").unwrap_err().contains("not a unit"));
        assert!(parse_size("-1").unwrap_err().contains("whole number"));
        assert!(
            parse_size("99999999999TiB")
                .unwrap_err()
                .contains("more than 2^64")
        );
    }

    #[test]
    fn sizes_come_back() {
        for bytes in [0, 1, 1023, 1024, 1536, 64 << 20, 3 << 30, 5 << 40, u64::MAX] {
            assert_eq!(parse_size(&format_size(bytes)), Ok(bytes));
        }
        assert_eq!(format_size(64 << 20), "64MiB");
    }
}
