//! From bytes to a verdict: lines are parsed as they come, none is kept.

use std::io::{self, Read};

use crate::judge::Judge;
use crate::parse::Parser;
use crate::report::Report;

/// Bytes that are read at once.
const CHUNK: usize = 1 << 20;

/// The longest line, in bytes: a cut of a large cluster is the longest that there is.
const LINE_MAX: usize = 64 << 20;

/// Splits what is read into lines and hands over each, without its newline, until the end or until `take` returns `false`.
fn for_each_line(mut from: impl Read, mut take: impl FnMut(&[u8]) -> bool) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    let (mut begin, mut end) = (0, 0);
    loop {
        if end == buffer.len() {
            buffer.copy_within(begin..end, 0);
            (begin, end) = (0, end - begin);
            if end == buffer.len() {
                if end >= LINE_MAX {
                    let why = format!("a line is longer than {LINE_MAX} bytes");
                    return Err(io::Error::new(io::ErrorKind::InvalidData, why));
                }
                buffer.resize(2 * end, 0);
            }
        }
        let got = match from.read(&mut buffer[end..]) {
            Ok(got) => got,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let mut searched = end;
        end += got;
        while let Some(length) = newline(&buffer[searched..end]) {
            let stop = searched + length;
            if !take(&buffer[begin..stop]) {
                return Ok(());
            }
            (begin, searched) = (stop + 1, stop + 1);
        }
        if got == 0 {
            if begin < end {
                take(&buffer[begin..end]);
            }
            return Ok(());
        }
    }
}

/// Where the first newline is, eight bytes at a time.
fn newline(bytes: &[u8]) -> Option<usize> {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let (words, rest) = bytes.as_chunks::<8>();
    for (at, word) in words.iter().enumerate() {
        let zero_where_newline = u64::from_le_bytes(*word) ^ (ONES * b'\n' as u64);
        let hit = zero_where_newline.wrapping_sub(ONES) & !zero_where_newline & (ONES * 0x80);
        if hit != 0 {
            return Some(8 * at + hit.trailing_zeros() as usize / 8);
        }
    }
    let at = rest.iter().position(|byte| *byte == b'\n')?;
    Some(8 * words.len() + at)
}

/// Gives a file's events to a judge. Empty lines are passed over, but count.
///
/// # Errors
/// Those of the reader; what was read before stays with the judge.
pub fn read_lines(judge: &mut Judge, from: impl Read) -> io::Result<()> {
    judge.begin_file();
    let mut parser = Parser::default();
    for_each_line(from, |line| {
        if line.trim_ascii().is_empty() {
            judge.blank_line();
            return true;
        }
        match parser.line(line) {
            Ok(event) => judge.event(&event),
            Err(why) => judge.bad_line(&why),
        }
        true
    })
}

/// Reads a file again and gives the witnesses their lines.
///
/// # Errors
/// Those of the reader.
pub fn attach_lines(report: &mut Report, file: usize, from: impl Read) -> io::Result<()> {
    let mut wanted = report.wanted(file).into_iter().peekable();
    let mut number = 0;
    for_each_line(from, |line| {
        number += 1;
        if wanted.next_if_eq(&number).is_some() {
            report.attach(file, number, &String::from_utf8_lossy(line));
        }
        wanted.peek().is_some()
    })
}

/// Judges a history in memory.
#[must_use]
pub fn judge(text: &str) -> Report {
    let mut judge = Judge::new();
    // Memory can be read.
    let _ = read_lines(&mut judge, text.as_bytes());
    let mut report = judge.finish();
    let _ = attach_lines(&mut report, 0, text.as_bytes());
    report
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives a few bytes at a time.
    struct Slow<'a>(&'a [u8], usize);

    impl Read for Slow<'_> {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            let length = self.1.min(self.0.len()).min(into.len());
            into[..length].copy_from_slice(&self.0[..length]);
            self.0 = &self.0[length..];
            Ok(length)
        }
    }

    #[test]
    fn lines_come_whole_however_the_bytes_come() {
        let long = "x".repeat(3 * CHUNK);
        for text in ["", "a", "a\n", "\n\na\nbcdefghijkl\n\nm", long.as_str()] {
            for step in [1, 3, 1000, CHUNK] {
                if text.len() / step > 100_000 {
                    continue;
                }
                let mut lines = Vec::new();
                for_each_line(Slow(text.as_bytes(), step), |line| {
                    lines.push(String::from_utf8(line.to_vec()).unwrap());
                    true
                })
                .unwrap();
                assert_eq!(lines, text.lines().collect::<Vec<_>>(), "{step}");
            }
        }
    }
}
