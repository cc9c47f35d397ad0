//! Passes on what a command prints while it comes: the guest writes it to a file of the host.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The most that is read at once, and the longest line that is held back for its end, in bytes.
const READ_BYTES_MAX: u64 = 1 << 20;

/// A file that grows, of which everything is passed on once.
#[derive(Debug)]
pub(crate) struct Tail {
    path: PathBuf,
    passed_bytes: u64,
    /// The beginning of a line, if lines are marked.
    line: Vec<u8>,
}

impl Tail {
    /// Of a file that need not be there yet.
    pub(crate) const fn of(path: PathBuf) -> Self {
        Self {
            path,
            passed_bytes: 0,
            line: Vec::new(),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Its length now, in bytes.
    pub(crate) fn length(&self) -> u64 {
        std::fs::metadata(&self.path).map_or(0, |m| m.len())
    }

    /// Writes what has come since the last time to `to`; with a mark, whole lines only, each after it.
    pub(crate) fn pass_on(&mut self, to: &mut impl Write, mark: Option<&str>) -> Result<()> {
        // It is not there before the command has begun.
        let Ok(mut file) = File::open(&self.path) else {
            return Ok(());
        };
        file.seek(SeekFrom::Start(self.passed_bytes))?;
        loop {
            let mut new = Vec::new();
            let read = (&file).take(READ_BYTES_MAX).read_to_end(&mut new)?;
            if read == 0 {
                return to.flush().context("passing on what the command prints");
            }
            self.passed_bytes += new.len() as u64;
            match mark {
                None => to.write_all(&new)?,
                Some(mark) => {
                    for byte in new {
                        self.line.push(byte);
                        // A line without an end is cut, so that it does not fill the memory.
                        if byte == b'\n' || self.line.len() as u64 >= READ_BYTES_MAX {
                            to.write_all(mark.as_bytes())?;
                            to.write_all(&self.line)?;
                            self.line.clear();
                        }
                    }
                }
            }
        }
    }

    /// Writes the beginning of a line that never ended.
    pub(crate) fn end(&mut self, to: &mut impl Write, mark: Option<&str>) -> Result<()> {
        if let Some(mark) = mark.filter(|_| !self.line.is_empty()) {
            to.write_all(mark.as_bytes())?;
            to.write_all(&self.line)?;
            to.write_all(b"\n")?;
            self.line.clear();
        }
        to.flush().context("passing on what the command prints")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str) -> PathBuf {
        let program = std::env::current_exe().expect("a running test has a program");
        program.with_file_name(format!("xtask-{name}-{}", std::process::id()))
    }

    #[test]
    fn what_a_file_grows_by_is_passed_on_once_and_as_it_is() {
        let path = file("plain");
        let (mut tail, mut to) = (Tail::of(path.clone()), Vec::new());
        tail.pass_on(&mut to, None).expect("no file is no error");
        for part in [&b"a\xff"[..], b"", b"\0b\nc"] {
            let mut grown = File::options()
                .append(true)
                .create(true)
                .open(&path)
                .expect("opened");
            grown.write_all(part).expect("written");
            tail.pass_on(&mut to, None).expect("passed on");
        }
        tail.end(&mut to, None).expect("passed on");
        std::fs::remove_file(&path).expect("removed");
        assert_eq!(to, b"a\xff\0b\nc");
    }

    #[test]
    fn of_two_guests_whole_lines_are_passed_on_with_a_mark() {
        let path = file("marked");
        let (mut tail, mut to) = (Tail::of(path.clone()), Vec::new());
        std::fs::write(&path, "one\ntw").expect("written");
        tail.pass_on(&mut to, Some("1| ")).expect("passed on");
        assert_eq!(to, b"1| one\n");
        std::fs::write(&path, "one\ntwo\nthree").expect("written");
        tail.pass_on(&mut to, Some("1| ")).expect("passed on");
        tail.end(&mut to, Some("1| ")).expect("passed on");
        assert_eq!(tail.length(), 13);
        std::fs::remove_file(&path).expect("removed");
        assert_eq!(to, b"1| one\n1| two\n1| three\n");
    }
}
