//! The input of the demonstration: a file, the repository around, or text made from a seed.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use ionian_types::RECORD_BYTES_MAX;

use crate::table::number;

/// The least number of records; shorter inputs are gone through again.
pub(crate) const RECORDS_MIN: u64 = 500_000;
/// The largest input in bytes: the demonstration keeps all of it in memory, twice.
const INPUT_BYTES_MAX: u64 = 512 << 20;
/// The most records, for the same reason.
const INPUT_RECORDS_MAX: u64 = 4_000_000;
/// Files of the repository above this size are left out.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Lines, gone through as often as it takes.
#[derive(Debug)]
pub(crate) struct Corpus {
    name: String,
    seed: Option<u64>,
    text: Vec<u8>,
    ends: Vec<usize>,
    rounds: u64,
}

impl Corpus {
    pub(crate) fn choose(input: Option<&Path>, seed: Option<u64>) -> anyhow::Result<Self> {
        if let Some(file) = input {
            let text =
                std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
            let corpus = Self::new(file.display().to_string(), None, text, 1)?;
            if corpus.text.len() as u64 > INPUT_BYTES_MAX || corpus.len() > INPUT_RECORDS_MAX {
                bail!(
                    "{} has {} records in {} bytes; the demonstration keeps everything in memory and takes {INPUT_RECORDS_MAX} in {INPUT_BYTES_MAX} bytes: for more use `ionian dev` and `ionian append`",
                    corpus.name,
                    corpus.len(),
                    corpus.text.len()
                );
            }
            return Ok(corpus);
        }
        let here = std::env::current_dir().context("the current folder")?;
        if seed.is_none()
            && here.join("dataplane/core").is_dir()
            && here.join("Cargo.toml").is_file()
        {
            let (files, text) = repository(&here)?;
            let corpus = Self::new(String::new(), None, text, RECORDS_MIN)?;
            let name = format!(
                "the {} lines of the {files} text files of this repository, {} times over",
                number(corpus.ends.len() as u64),
                corpus.rounds
            );
            return Ok(Self { name, ..corpus });
        }
        let seed = seed.unwrap_or_else(|| {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            now.map_or(1, |now| u64::from(now.subsec_nanos()))
        });
        Self::new(
            format!("text of seed {seed}"),
            Some(seed),
            generated(seed),
            RECORDS_MIN,
        )
    }

    /// The lines of a text, once.
    #[cfg(test)]
    pub(crate) fn of_text(text: Vec<u8>) -> anyhow::Result<Self> {
        Self::new(String::from("text"), None, text, 1)
    }

    /// Splits `text` into lines.
    fn new(
        name: String,
        seed: Option<u64>,
        text: Vec<u8>,
        records_min: u64,
    ) -> anyhow::Result<Self> {
        let mut ends: Vec<usize> = text
            .iter()
            .enumerate()
            .filter(|(_, byte)| **byte == b'\n')
            .map(|(at, _)| at + 1)
            .collect();
        if ends.last().copied().unwrap_or(0) < text.len() {
            ends.push(text.len());
        }
        if ends.is_empty() {
            bail!("{name} is empty: there is nothing to append");
        }
        let rounds = records_min.div_ceil(ends.len() as u64);
        let corpus = Self {
            name,
            seed,
            text,
            ends,
            rounds,
        };
        if let Some(line) =
            (0..corpus.ends.len()).find(|line| corpus.line(*line).len() > RECORD_BYTES_MAX)
        {
            bail!(
                "{}: line {} has more than {RECORD_BYTES_MAX} bytes, the largest record",
                corpus.name,
                line + 1
            );
        }
        Ok(corpus)
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) const fn seed(&self) -> Option<u64> {
        self.seed
    }

    /// The number of records.
    pub(crate) fn len(&self) -> u64 {
        self.ends.len() as u64 * self.rounds
    }

    /// Bytes of all records.
    pub(crate) fn bytes(&self) -> u64 {
        (0..self.ends.len())
            .map(|line| self.line(line).len() as u64)
            .sum::<u64>()
            * self.rounds
    }

    /// A record.
    pub(crate) fn record(&self, index: u64) -> &[u8] {
        self.line((index % self.ends.len() as u64) as usize)
    }

    fn line(&self, line: usize) -> &[u8] {
        let start = line.checked_sub(1).map_or(0, |before| self.ends[before]);
        let line = &self.text[start..self.ends[line]];
        line.strip_suffix(b"\n").unwrap_or(line)
    }
}

/// The text of every file of the repository, in the order of their names, and how many there are; what tools make is left
/// out.
fn repository(root: &Path) -> anyhow::Result<(usize, Vec<u8>)> {
    let mut files = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder)
            .with_context(|| format!("cannot read {}", folder.display()))?
        {
            let entry = entry?;
            let name = entry.file_name();
            let kind = entry.file_type()?;
            if name.to_string_lossy().starts_with('.') || name == "target" {
                continue;
            }
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file() && entry.metadata()?.len() <= FILE_BYTES_MAX {
                files.push(entry.path());
            }
        }
    }
    files.sort();
    let read = |file: &PathBuf| {
        let mut text = std::fs::read(file)
            .ok()
            .filter(|text| std::str::from_utf8(text).is_ok())?;
        if text.last().is_some_and(|byte| *byte != b'\n') {
            text.push(b'\n');
        }
        Some(text)
    };
    let texts: Vec<Vec<u8>> = files.iter().filter_map(read).collect();
    Ok((texts.len(), texts.concat()))
}

/// Lines of words of varying length, all made from the seed.
fn generated(seed: u64) -> Vec<u8> {
    const WORDS: [&str; 12] = [
        "corfu",
        "paxos",
        "ithaca",
        "zante",
        "leucas",
        "cythera",
        "cephalonia",
        "sea",
        "log",
        "wind",
        "sail",
        "order",
    ];
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    let mut text = Vec::new();
    for line in 0..RECORDS_MIN {
        text.extend_from_slice(line.to_string().as_bytes());
        for _ in 0..next() % 16 {
            text.push(b' ');
            text.extend_from_slice(WORDS[(next() % 12) as usize].as_bytes());
        }
        text.push(b'\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_inputs_are_gone_through_again() {
        let corpus = Corpus::new(String::from("x"), None, b"a\n\nbc".to_vec(), 7).unwrap();
        let records: Vec<&[u8]> = (0..corpus.len())
            .map(|index| corpus.record(index))
            .collect();
        let round = [&b"a"[..], b"", b"bc"];
        assert_eq!(records, [round, round, round].concat());
        assert_eq!(corpus.bytes(), 9);
        assert!(Corpus::new(String::from("x"), None, Vec::new(), 1).is_err());
    }

    #[test]
    fn text_follows_from_its_seed() {
        assert!(generated(7) == generated(7) && generated(7) != generated(8));
        let corpus = Corpus::choose(None, Some(7)).unwrap();
        assert_eq!(
            (corpus.len(), corpus.name()),
            (RECORDS_MIN, "text of seed 7")
        );
    }

    #[test]
    fn an_input_of_ones_own_is_taken_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("in");
        std::fs::write(&file, "one\ntwo\n").unwrap();
        assert_eq!(Corpus::choose(Some(&file), None).unwrap().len(), 2);
        std::fs::write(&file, vec![b'x'; RECORD_BYTES_MAX + 1]).unwrap();
        let error = Corpus::choose(Some(&file), None).unwrap_err().to_string();
        assert!(
            error.ends_with("line 1 has more than 1048576 bytes, the largest record"),
            "{error}"
        );
    }
}
