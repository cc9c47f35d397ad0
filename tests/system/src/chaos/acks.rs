//! When each append was called and acknowledged, as the clients' own histories say it: one record per writer, in its order.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use anyhow::{Context, Result};

use super::history::{number, text};

/// An append that was acknowledged. Times in nanoseconds since 1970.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Ack {
    pub(super) called_ns: u64,
    pub(super) acked_ns: u64,
    pub(super) shard: u32,
    /// The replica that acknowledged it.
    pub(super) slot: u8,
}

/// The appends of every writer, by its name, in the order in which they were acknowledged.
#[derive(Clone, Debug, Default)]
pub(super) struct Acks(BTreeMap<String, Vec<Ack>>);

impl Acks {
    /// Reads the histories in a folder; a file is called by a number and the name of its writer.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn read(dir: &Path) -> Result<Self> {
        let mut acks = Self::default();
        let context = || format!("reading {}", dir.display());
        for entry in std::fs::read_dir(dir).with_context(context)? {
            let path = entry.with_context(context)?.path();
            let name = path.file_stem().unwrap_or_default().to_string_lossy();
            if let Some((_, writer)) = name.split_once('-') {
                let file = File::open(&path).with_context(context)?;
                let found = acks.0.entry(writer.to_owned()).or_default();
                found.extend(read(BufReader::new(file)));
            }
        }
        for found in acks.0.values_mut() {
            found.sort_unstable_by_key(|ack| ack.acked_ns);
        }
        Ok(acks)
    }

    /// The first that a writer was acknowledged at or after a time.
    pub(super) fn first_after(&self, writer: &str, ns: u64) -> Option<Ack> {
        let acks = self.0.get(writer)?;
        let at = acks.partition_point(|ack| ack.acked_ns < ns);
        acks.get(at).copied()
    }

    /// The last that a writer was acknowledged before a time.
    pub(super) fn last_before(&self, writer: &str, ns: u64) -> Option<Ack> {
        let acks = self.0.get(writer)?;
        let at = acks.partition_point(|ack| ack.acked_ns < ns);
        at.checked_sub(1).and_then(|at| acks.get(at)).copied()
    }

    /// The longest that any of these writers went without an acknowledgement in a span of time, in nanoseconds. One that is
    /// acknowledged nothing in it waited for all of it.
    pub(super) fn silence(&self, writers: &[String], span: (u64, u64)) -> u64 {
        let acks = writers.iter().filter_map(|writer| self.0.get(writer));
        let longest = acks.map(|acks| {
            let within = |ack: &&Ack| (span.0..span.1).contains(&ack.acked_ns);
            let times = acks.iter().filter(within).map(|ack| ack.acked_ns);
            let mut last = span.0;
            let mut longest = 0;
            for at in times.chain([span.1]) {
                longest = longest.max(at - last);
                last = at;
            }
            longest
        });
        longest.max().unwrap_or(0)
    }

    /// How long the appends of some writers took that were called in a span of time, in nanoseconds.
    pub(super) fn latencies(&self, writers: &[String], span: (u64, u64)) -> Vec<u64> {
        let acks = writers.iter().filter_map(|writer| self.0.get(writer));
        let within = |ack: &&Ack| (span.0..span.1).contains(&ack.called_ns);
        acks.flatten()
            .filter(within)
            .map(|ack| ack.acked_ns.saturating_sub(ack.called_ns))
            .collect()
    }
}

/// The appends in a history. What was torn off at its end is not there.
fn read(lines: impl BufRead) -> Vec<Ack> {
    let mut open = BTreeMap::new();
    let mut acks = Vec::new();
    for line in lines.lines().map_while(std::io::Result::ok) {
        let Some((t, op)) = number(&line, "t").zip(number(&line, "op")) else {
            continue;
        };
        if text(&line, "f") == Some("append") {
            open.insert(op, t);
        } else if let Some(called_ns) = open.remove(&op)
            && let (Some(shard), Some(slot)) = (number(&line, "shard"), number(&line, "rep"))
        {
            acks.push(Ack {
                called_ns,
                acked_ns: t,
                shard: shard as u32,
                slot: slot as u8,
            });
        }
    }
    acks
}

/// The last append that a client's history tells of, which may be one that is being written.
pub(super) fn last_of(path: &Path) -> Option<Ack> {
    use std::io::{Seek, SeekFrom};
    /// Some hundred lines.
    const END: u64 = 64 << 10;
    let mut file = File::open(path).ok()?;
    let len = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(len.saturating_sub(END))).ok()?;
    read(BufReader::new(file)).pop()
}

/// The value below which this share of all lies, in thousandths; `None` of nothing.
pub(super) fn quantile(values: &mut [u64], permille: usize) -> Option<u64> {
    values.sort_unstable();
    let rank = (values.len() * permille).div_ceil(1000).max(1);
    values.get(rank - 1).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HISTORY: &str = r#"{"v":1,"e":"hdr"}
{"e":"inv","t":10,"p":0,"op":2,"log":1,"f":"append","cid":7,"h":"9f","try":1,"n":4}
{"e":"inv","t":12,"p":0,"op":4,"log":1,"f":"append","cid":7,"h":"9e","try":1,"n":4}
{"e":"ok","t":30,"op":2,"gsn":0,"shard":3,"rep":1,"gen":1,"lsn":0,"ses":1,"csn":0}
{"e":"info","t":40,"op":4,"err":"timeout"}
{"e":"inv","t":50,"p":0,"op":6,"log":1,"f":"append","cid":7,"h":"9d","try":1,"n":4}
{"e":"ok","t":90,"op":6,"gsn":1,"shard":4,"rep":0,"gen":1,"lsn":0,"ses":2,"csn":0}
{"e":"inv","t":95,"p":0,"op"#;

    #[test]
    fn calls_and_acknowledgements_are_paired() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("00001-free.jsonl");
        std::fs::write(&path, HISTORY).unwrap();
        let acks = Acks::read(dir.path()).unwrap();
        assert_eq!(acks.first_after("free", 0).unwrap().shard, 3);
        assert_eq!(acks.first_after("free", 31).unwrap().acked_ns, 90);
        assert_eq!(acks.last_before("free", 90).unwrap().acked_ns, 30);
        assert_eq!(acks.first_after("free", 91), None);
        assert_eq!(acks.first_after("other", 0), None);
        let free = [String::from("free")];
        assert_eq!(acks.latencies(&free, (0, 100)), [20, 40]);
        assert_eq!(acks.latencies(&free, (11, 100)), [40]);
        let last = last_of(&path).unwrap();
        assert_eq!((last.shard, last.slot), (4, 0));
    }

    #[test]
    fn quantiles_are_of_the_values_themselves() {
        let mut values: Vec<u64> = (1..=1000).rev().collect();
        assert_eq!(quantile(&mut values, 999), Some(999));
        assert_eq!(quantile(&mut values, 500), Some(500));
        assert_eq!(quantile(&mut [7], 999), Some(7));
        assert_eq!(quantile(&mut [], 500), None);
    }
}
