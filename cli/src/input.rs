//! Records from standard input and files: one per line, or each after its length.
//!
//! A thread of its own reads, so that the client goes on while the input blocks. Records travel in batches; a batch is
//! handed over when it is full or when the next read would block, so that a typed line is appended at once.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, sync_channel};
use std::time::Duration;

use ionian_types::RECORD_BYTES_MAX;

/// A batch is handed over when it holds this many bytes.
const BATCH_BYTES: usize = 64 << 10;
/// Batches that wait between the reader and the client.
const BATCHES: usize = 16;
/// The buffer in front of a file.
const BUFFER_BYTES: usize = 256 << 10;

/// How records stand in the input.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Framing {
    /// One per line; the line's end is not part of it.
    Lines,
    /// Each after its length, a little-endian `u32`.
    Lengths,
}

/// Some records, back to back.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Batch {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Batch {
    fn push(&mut self, record: &[u8]) {
        self.bytes.extend_from_slice(record);
        self.ends.push(self.bytes.len());
    }

    /// The number of records.
    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    /// A record.
    pub(crate) fn get(&self, index: usize) -> Option<&[u8]> {
        let end = *self.ends.get(index)?;
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        self.bytes.get(start..end)
    }
}

/// Why the input cannot be used further. Records before the place were handed over.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InputError {
    #[error("cannot read {name}")]
    Io { name: String, source: io::Error },
    #[error("{name}: {unit} {number} has more than {RECORD_BYTES_MAX} bytes, the largest record")]
    TooLarge {
        name: String,
        unit: &'static str,
        number: u64,
    },
    #[error(
        "{name}: record {number} says that it has {bytes} bytes; the largest record has {RECORD_BYTES_MAX}"
    )]
    Length {
        name: String,
        number: u64,
        bytes: u32,
    },
    #[error("{name}: the input ends within record {number}")]
    Truncated { name: String, number: u64 },
}

/// Records as they are read.
#[derive(Debug)]
pub(crate) struct Input {
    batches: Receiver<Result<Batch, InputError>>,
}

/// What comes next from an [`Input`].
#[derive(Debug)]
pub(crate) enum Next {
    Batch(Batch),
    /// Nothing yet.
    Waiting,
    /// The end.
    End,
}

impl Input {
    /// Reads the files in order; none, or `-`, is standard input.
    pub(crate) fn open(files: &[PathBuf], framing: Framing) -> Self {
        let (sender, batches) = sync_channel(BATCHES);
        let files = if files.is_empty() {
            vec![PathBuf::from("-")]
        } else {
            files.to_vec()
        };
        let read = move || {
            for file in &files {
                if let Err(error) = read_file(file, framing, &sender) {
                    if let Some(error) = error {
                        let _ = sender.send(Err(error));
                    }
                    return;
                }
            }
        };
        std::thread::spawn(read);
        Self { batches }
    }

    /// The next batch, waited for at most for `timeout`.
    pub(crate) fn next(&self, timeout: Duration) -> Result<Next, InputError> {
        match self.batches.recv_timeout(timeout) {
            Ok(batch) => batch.map(Next::Batch),
            Err(RecvTimeoutError::Timeout) => Ok(Next::Waiting),
            Err(RecvTimeoutError::Disconnected) => Ok(Next::End),
        }
    }

    /// The next batch if there is one now.
    pub(crate) fn try_next(&self) -> Result<Next, InputError> {
        match self.batches.try_recv() {
            Ok(batch) => batch.map(Next::Batch),
            Err(TryRecvError::Empty) => Ok(Next::Waiting),
            Err(TryRecvError::Disconnected) => Ok(Next::End),
        }
    }
}

/// `Err(None)` when nobody wants more.
fn read_file(
    file: &PathBuf,
    framing: Framing,
    sender: &SyncSender<Result<Batch, InputError>>,
) -> Result<(), Option<InputError>> {
    if file.as_os_str() == "-" {
        return read_all(io::stdin().lock(), "standard input", framing, sender);
    }
    let name = file.display().to_string();
    let opened = File::open(file).map_err(|source| InputError::Io {
        name: name.clone(),
        source,
    })?;
    read_all(opened, &name, framing, sender)
}

fn read_all(
    input: impl Read,
    name: &str,
    framing: Framing,
    sender: &SyncSender<Result<Batch, InputError>>,
) -> Result<(), Option<InputError>> {
    let mut reader = BufReader::with_capacity(BUFFER_BYTES, input);
    let mut batch = Batch::default();
    let mut record = Vec::new();
    let mut number = 0;
    loop {
        number += 1;
        let read = match framing {
            Framing::Lines => read_line(&mut reader, &mut record, name, number),
            Framing::Lengths => read_length(&mut reader, &mut record, name, number),
        };
        let more = match read {
            Ok(more) => more,
            Err(error) => {
                hand_over(&mut batch, sender)?;
                return Err(Some(error));
            }
        };
        if more {
            batch.push(&record);
        }
        if !more || batch.bytes.len() >= BATCH_BYTES || reader.buffer().is_empty() {
            hand_over(&mut batch, sender)?;
        }
        if !more {
            return Ok(());
        }
    }
}

fn hand_over(
    batch: &mut Batch,
    sender: &SyncSender<Result<Batch, InputError>>,
) -> Result<(), Option<InputError>> {
    if batch.len() == 0 {
        return Ok(());
    }
    sender.send(Ok(std::mem::take(batch))).map_err(|_| None)
}

/// Reads a line without its end. Returns whether there was one.
fn read_line(
    reader: &mut impl BufRead,
    line: &mut Vec<u8>,
    name: &str,
    number: u64,
) -> Result<bool, InputError> {
    line.clear();
    // One byte more than the largest record and its end tells a line that is too long, without reading all of it.
    let limit = RECORD_BYTES_MAX as u64 + 2;
    let got = reader
        .by_ref()
        .take(limit)
        .read_until(b'\n', line)
        .map_err(|source| InputError::Io {
            name: name.to_owned(),
            source,
        })?;
    if got == 0 {
        return Ok(false);
    }
    if line.last() == Some(&b'\n') {
        line.pop();
    }
    if line.len() > RECORD_BYTES_MAX {
        return Err(InputError::TooLarge {
            name: name.to_owned(),
            unit: "line",
            number,
        });
    }
    Ok(true)
}

/// Reads a record after its length. Returns whether there was one.
fn read_length(
    reader: &mut impl BufRead,
    record: &mut Vec<u8>,
    name: &str,
    number: u64,
) -> Result<bool, InputError> {
    let io = |source: io::Error| match source.kind() {
        io::ErrorKind::UnexpectedEof => InputError::Truncated {
            name: name.to_owned(),
            number,
        },
        _ => InputError::Io {
            name: name.to_owned(),
            source,
        },
    };
    if reader.fill_buf().map_err(io)?.is_empty() {
        return Ok(false);
    }
    let mut length = [0; 4];
    reader.read_exact(&mut length).map_err(io)?;
    let bytes = u32::from_le_bytes(length);
    if bytes as usize > RECORD_BYTES_MAX {
        return Err(InputError::Length {
            name: name.to_owned(),
            number,
            bytes,
        });
    }
    record.resize(bytes as usize, 0);
    reader.read_exact(record).map_err(io)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(bytes: &[u8], framing: Framing) -> (Vec<Vec<u8>>, Option<String>) {
        let (sender, batches) = sync_channel(1 << 20);
        let end = read_all(bytes, "in", framing, &sender);
        drop(sender);
        let mut records = Vec::new();
        for batch in batches.iter().map(Result::unwrap) {
            records.extend((0..batch.len()).map(|index| batch.get(index).unwrap().to_vec()));
        }
        (records, end.err().flatten().map(|error| error.to_string()))
    }

    #[test]
    fn lines_are_records() {
        let lines = |text: &str| all(text.as_bytes(), Framing::Lines);
        let records = |lines: &[&str]| {
            (
                lines
                    .iter()
                    .map(|line| line.as_bytes().to_vec())
                    .collect::<Vec<_>>(),
                None,
            )
        };
        assert_eq!(
            lines("a\n\nbc\n"),
            records(&["a", "", "bc"]),
            "an empty line is an empty record"
        );
        assert_eq!(
            lines("a\nb"),
            records(&["a", "b"]),
            "the last line needs no end"
        );
        assert_eq!(
            lines("a\r\n"),
            records(&["a\r"]),
            "only the line's end is taken away"
        );
        assert_eq!(lines(""), records(&[]));
        assert_eq!(lines("\n"), records(&[""]));
    }

    #[test]
    fn the_largest_record_fits_and_a_larger_one_is_named() {
        let mut text = vec![b'x'; RECORD_BYTES_MAX];
        text.push(b'\n');
        let (records, error) = all(&text, Framing::Lines);
        assert_eq!((records[0].len(), error), (RECORD_BYTES_MAX, None));
        let (records, error) = all(&text[..RECORD_BYTES_MAX], Framing::Lines);
        assert_eq!((records[0].len(), error), (RECORD_BYTES_MAX, None));
        text.insert(0, b'x');
        text.splice(0..0, *b"a\nb\n");
        let (records, error) = all(&text, Framing::Lines);
        assert_eq!(records, [b"a", b"b"], "what came before is not lost");
        assert_eq!(
            error.unwrap(),
            "in: line 3 has more than 1048576 bytes, the largest record"
        );
    }

    #[test]
    fn lengths_are_checked() {
        let binary = |bytes: &[u8]| all(bytes, Framing::Lengths);
        assert_eq!(
            binary(b"\x02\0\0\0ab\0\0\0\0\x01\0\0\0\n"),
            (vec![b"ab".to_vec(), vec![], b"\n".to_vec()], None)
        );
        assert_eq!(binary(b""), (vec![], None));
        let (records, error) = binary(b"\x01\0\0\0a\x02\0\0\0b");
        assert_eq!(
            (records.len(), error.unwrap().as_str()),
            (1, "in: the input ends within record 2")
        );
        assert_eq!(
            binary(b"\x01\0").1.unwrap(),
            "in: the input ends within record 1"
        );
        let error = binary(b"\xff\xff\xff\xff").1.unwrap();
        assert_eq!(
            error,
            "in: record 1 says that it has 4294967295 bytes; the largest record has 1048576"
        );
    }

    #[test]
    fn long_inputs_come_in_batches() {
        let text: String = (0..100_000).map(|line| format!("{line}\n")).collect();
        let (records, error) = all(text.as_bytes(), Framing::Lines);
        assert_eq!((records.len(), error), (100_000, None));
        assert_eq!(records[99_999], b"99999");
    }

    #[test]
    fn files_are_read_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let input = Input::open(
            &[file("1", "a\n"), file("2", "b\n"), folder.path().join("3")],
            Framing::Lines,
        );
        let mut records = Vec::new();
        let error = loop {
            match input.next(Duration::from_secs(10)) {
                Ok(Next::Batch(batch)) => {
                    records.extend((0..batch.len()).map(|i| batch.get(i).unwrap().to_vec()))
                }
                Ok(other) => panic!("{other:?}"),
                Err(error) => break format!("{:#}", anyhow::Error::from(error)),
            }
        };
        assert_eq!(records, [b"a", b"b"]);
        assert!(
            error.starts_with("cannot read ") && error.contains("/3: No such file"),
            "{error}"
        );
        assert!(matches!(input.next(Duration::from_secs(10)), Ok(Next::End)));
    }
}
