//! The histories of a run: one file per client process, the nemesis's own, and all of them merged into one.
//!
//! Each process numbers its operations from 0; in the merged history no two have the same number. What a process left open
//! when it ended is closed there: an operation with `info`, a subscription with `end`.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, BufWriter, Cursor, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::clock::Clock;
use crate::cluster::Durability;

/// Files up to this size are read at once, so that a run of a thousand short clients does not need a thousand open files.
const READ_AT_ONCE_BYTES: u64 = 1 << 20;

/// What a client was for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Part {
    /// Its subscriptions end with it.
    Client,
    /// It was kept running until the log had been read to its end: its subscriptions owe everything up to there.
    Through,
    /// It read the whole log when everything was over.
    Final,
}

/// A client's history.
#[derive(Clone, Debug)]
struct Entry {
    path: PathBuf,
    part: Part,
    ended_ns: u64,
}

/// All histories of a run.
#[derive(Debug)]
pub(super) struct Histories {
    dir: PathBuf,
    clock: Clock,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    begun: usize,
    ended: Vec<Entry>,
    nemesis: Vec<(u64, String)>,
}

/// What the header of the merged history says, besides what the clients' say.
#[derive(Clone, Debug)]
pub(super) struct About {
    pub(super) run: String,
    pub(super) seed: u64,
    pub(super) durability: Durability,
    /// Faults that must have taken hold for the run to show anything.
    pub(super) faults: u64,
    /// How long things may take after the faults are over.
    pub(super) live_ns: u64,
}

impl Histories {
    pub(super) fn new(dir: &Path) -> Result<Self> {
        let dir = dir.join("clients");
        fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
        Ok(Self {
            dir,
            clock: Clock::new(),
            inner: Mutex::new(Inner {
                begun: 0,
                ended: Vec::new(),
                nemesis: Vec::new(),
            }),
        })
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // Every state of it is a whole one.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The time of an event that happens now, in nanoseconds since 1970.
    pub(super) fn now_ns(&self) -> u64 {
        self.clock.now_ns()
    }

    /// The file for a new client.
    pub(super) fn begin(&self, name: &str) -> PathBuf {
        let mut inner = self.inner();
        inner.begun += 1;
        self.dir.join(format!("{:05}-{name}.jsonl", inner.begun))
    }

    /// The file of the newest client of a name.
    pub(super) fn newest(&self, name: &str) -> Option<PathBuf> {
        let end = format!("-{name}.jsonl");
        let files = fs::read_dir(&self.dir)
            .ok()?
            .flatten()
            .map(|file| file.path());
        let of = files.filter(|path| path.to_string_lossy().ends_with(&end));
        of.max()
    }

    /// The client of a file has ended.
    pub(super) fn ended(&self, path: PathBuf, part: Part) {
        let ended_ns = self.clock.now_ns();
        self.inner().ended.push(Entry {
            path,
            part,
            ended_ns,
        });
    }

    /// A fault, or the end of one.
    pub(super) fn nemesis(&self, id: u64, kind: &str, on: &[String], state: &str, beyond_f: bool) {
        let t = self.clock.now_ns();
        let mut event = json!({"e": "nem", "t": t, "id": id, "f": kind, "on": on, "st": state});
        if beyond_f {
            event["beyond_f"] = json!(true);
        }
        self.inner().nemesis.push((t, event.to_string()));
    }

    /// So many records were mended from good copies.
    pub(super) fn repaired(&self, records: u64) {
        let event = json!({"e": "wb", "f": "repair", "n": records});
        let t = self.clock.now_ns();
        self.inner().nemesis.push((t, event.to_string()));
    }

    /// All faults are over. Before a client has named a log there is none that could be live.
    pub(super) fn healed(&self) -> Result<()> {
        let t = self.clock.now_ns();
        let mut inner = self.inner();
        let mut logs = BTreeSet::new();
        for entry in &inner.ended {
            // A client that found no cluster has no history, or none that names a log.
            if let Ok(file) = File::open(&entry.path) {
                let mut lines = BufReader::new(file).lines().map_while(std::io::Result::ok);
                logs.extend(lines.find_map(|line| number(&line, "log")));
            }
        }
        if logs.is_empty() {
            bail!("no client has a history");
        }
        for log in logs {
            let event = json!({"e": "phase", "t": t, "f": "heal", "log": log});
            inner.nemesis.push((t, event.to_string()));
        }
        Ok(())
    }

    /// Merges everything into one history at `path`. The first file of part [`Part::Final`] of each log says where its final
    /// phase is.
    ///
    /// # Errors
    /// When a file cannot be read, is no history, or `path` cannot be written.
    pub(super) fn merge(&self, about: &About, path: &Path) -> Result<()> {
        let inner = self.inner();
        let mut numbers = Numbers::default();
        let mut sources = Vec::new();
        let mut header = None;
        let mut clock_err_ns = self.clock.error_ns();
        for entry in &inner.ended {
            // A client that found no cluster has no history.
            if fs::metadata(&entry.path).map_or(0, |file| file.len()) == 0 {
                continue;
            }
            let (head, source) = Source::open(entry)?;
            clock_err_ns = clock_err_ns.max(head["clock_err_ns"].as_u64().unwrap_or(0));
            header.get_or_insert(head);
            sources.push(source);
        }
        let Some(mut header) = header else {
            bail!("no client has a history");
        };
        let mut phases = BTreeMap::new();
        for entry in inner.ended.iter().filter(|entry| entry.part == Part::Final) {
            let (log, t, event) = final_phase(&entry.path)?;
            phases.entry(log).or_insert((t, event));
        }
        header["run"] = json!(about.run);
        header["seed"] = json!(about.seed);
        header["durability"] = json!(about.durability.to_string());
        header["faults"] = json!(about.faults);
        header["live_ns"] = json!(about.live_ns);
        // Two clocks may be wrong in opposite directions.
        header["clock_err_ns"] = json!(2 * clock_err_ns);
        header["done"] = json!(true);
        let mut extra = inner.nemesis.clone();
        extra.extend(phases.into_values());
        extra.sort_by_key(|(t, _)| *t);
        let file = File::create(path).with_context(|| format!("making {}", path.display()))?;
        let mut out = BufWriter::new(file);
        writeln!(out, "{header}")?;
        let mut extra = extra.into_iter().peekable();
        let mut heap = BinaryHeap::new();
        let mut last = 0;
        for (at, source) in sources.iter_mut().enumerate() {
            if let Some(t) = source.advance(&mut numbers)? {
                heap.push(Reverse((t, at)));
            }
        }
        while let Some(Reverse((t, at))) = heap.pop() {
            last = t;
            while let Some((_, line)) = extra.next_if(|(time, _)| *time <= t) {
                writeln!(out, "{line}")?;
            }
            out.write_all(sources[at].line.as_bytes())?;
            if let Some(t) = sources[at].advance(&mut numbers)? {
                heap.push(Reverse((t, at)));
            }
        }
        for (t, line) in extra {
            writeln!(out, "{line}")?;
            last = last.max(t);
        }
        writeln!(out, "{}", json!({"e": "done", "t": last}))?;
        out.flush()
            .with_context(|| format!("writing {}", path.display()))
    }
}

/// Numbers that no two processes share.
#[derive(Default, Debug)]
struct Numbers {
    ops: u64,
    processes: u64,
    subs: u64,
}

/// A client's file, line by line, with the numbers of the merged history.
struct Source {
    lines: Box<dyn BufRead>,
    path: PathBuf,
    part: Part,
    ended_ns: u64,
    ops: BTreeMap<u64, u64>,
    processes: BTreeMap<u64, u64>,
    subs: BTreeMap<u64, u64>,
    last_ns: u64,
    line: String,
}

impl Source {
    /// Opens a file and reads its header.
    fn open(entry: &Entry) -> Result<(Value, Self)> {
        let path = &entry.path;
        let context = || format!("reading {}", path.display());
        let mut lines: Box<dyn BufRead> = if fs::metadata(path)?.len() <= READ_AT_ONCE_BYTES {
            Box::new(Cursor::new(fs::read(path).with_context(context)?))
        } else {
            Box::new(BufReader::new(File::open(path).with_context(context)?))
        };
        let mut header = String::new();
        lines.read_line(&mut header).with_context(context)?;
        let header: Value = serde_json::from_str(&header).with_context(context)?;
        let source = Self {
            lines,
            path: path.clone(),
            part: entry.part,
            ended_ns: entry.ended_ns,
            ops: BTreeMap::new(),
            processes: BTreeMap::new(),
            subs: BTreeMap::new(),
            last_ns: 0,
            line: String::new(),
        };
        Ok((header, source))
    }

    /// Reads the next line, and says its time; `None` after the last.
    fn advance(&mut self, numbers: &mut Numbers) -> Result<Option<u64>> {
        let mut line = String::new();
        self.lines
            .read_line(&mut line)
            .with_context(|| format!("reading {}", self.path.display()))?;
        // A client that could end says so last.
        if line.is_empty() || text(&line, "e") == Some("done") {
            return Ok(self.close());
        }
        let torn = || {
            format!(
                "{} ends in the middle of a line: {line}",
                self.path.display()
            )
        };
        if !line.ends_with('\n') {
            bail!(torn());
        }
        let t = number(&line, "t").with_context(torn)?;
        // Times of one file only rise; the heap needs that.
        let t = t.max(self.last_ns);
        self.last_ns = t;
        let kind = text(&line, "e").unwrap_or_default().to_owned();
        let fresh = |map: &mut BTreeMap<u64, u64>, old: u64, next: &mut u64| {
            *map.entry(old).or_insert_with(|| {
                *next += 1;
                *next
            })
        };
        let mut changed = line.clone();
        if let Some(op) = number(&line, "op") {
            changed = with_number(&changed, "op", fresh(&mut self.ops, op, &mut numbers.ops));
            if kind != "inv" {
                self.ops.remove(&op);
            }
        }
        if let Some(p) = number(&line, "p") {
            let new = fresh(&mut self.processes, p, &mut numbers.processes);
            changed = with_number(&changed, "p", new);
        }
        if let Some(sub) = number(&line, "sub") {
            let new = fresh(&mut self.subs, sub, &mut numbers.subs);
            changed = with_number(&changed, "sub", new);
        }
        if kind == "sub" && self.part == Part::Final {
            changed = changed.replacen("\"final\":false", "\"final\":true", 1);
        }
        self.line = changed;
        Ok(Some(t))
    }

    /// What the process left open.
    fn close(&mut self) -> Option<u64> {
        let t = self.ended_ns.max(self.last_ns);
        let mut line = String::new();
        for op in std::mem::take(&mut self.ops).into_values() {
            line += &format!(
                "{}\n",
                json!({"e": "info", "t": t, "op": op, "err": "ended"})
            );
        }
        for sub in std::mem::take(&mut self.subs).into_values() {
            if self.part == Part::Client {
                line += &format!("{}\n", json!({"e": "end", "t": t, "sub": sub}));
            }
        }
        let any = !line.is_empty();
        self.line = line;
        any.then_some(t)
    }
}

/// The event `phase` of kind `final`: just before the final reader's subscription, with the bounds that it was told. The log,
/// the time, the event.
fn final_phase(path: &Path) -> Result<(u64, u64, String)> {
    let file = File::open(path).with_context(|| format!("reading {}", path.display()))?;
    let (mut bounds, mut last) = (None, 0);
    for line in BufReader::new(file).lines() {
        let line = line?;
        let t = number(&line, "t");
        if let (Some(tail), Some(head)) = (number(&line, "tail"), number(&line, "head")) {
            bounds = Some((head, tail));
        }
        if text(&line, "e") == Some("sub")
            && let (Some((head, tail)), Some(log)) = (bounds, number(&line, "log"))
        {
            let t = t.unwrap_or(last);
            let event =
                json!({"e": "phase", "t": t, "f": "final", "log": log, "head": head, "tail": tail});
            return Ok((log, t, event.to_string()));
        }
        last = t.unwrap_or(last);
    }
    bail!("{}: the final reader did not begin to read", path.display())
}

/// Where the value of a key begins. Strings of a history hold no quotes.
fn value<'a>(line: &'a str, key: &str) -> Option<&'a str> {
    let at = line.find(&format!("\"{key}\":"))?;
    Some(&line[at + key.len() + 3..])
}

pub(super) fn number(line: &str, key: &str) -> Option<u64> {
    let value = value(line, key)?;
    let end = value
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(value.len());
    value[..end].parse().ok()
}

pub(super) fn text<'a>(line: &'a str, key: &str) -> Option<&'a str> {
    value(line, key)?.strip_prefix('"')?.split('"').next()
}

fn with_number(line: &str, key: &str, new: u64) -> String {
    let Some(value) = value(line, key) else {
        return line.to_owned();
    };
    let head = line.len() - value.len();
    let end = value
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(value.len());
    format!("{}{new}{}", &line[..head], &value[end..])
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = r#"{"v":1,"e":"hdr","run":"x","seed":0,"sut":"ours","order":"linearizable","clock_err_ns":40}"#;

    #[test]
    fn files_become_one_history_in_the_order_of_time() {
        let dir = tempfile::tempdir().unwrap();
        let histories = Histories::new(dir.path()).unwrap();
        let write = |name: &str, part, lines: &[&str]| {
            let path = histories.begin(name);
            fs::write(&path, format!("{HEADER}\n{}\n", lines.join("\n"))).unwrap();
            histories.ended(path, part);
        };
        write(
            "writer",
            Part::Client,
            &[
                r#"{"e":"inv","t":10,"p":0,"op":0,"log":1,"f":"append","cid":7,"ses":1,"csn":0,"h":"9f","try":1}"#,
                r#"{"e":"ok","t":30,"op":0,"gsn":0}"#,
                r#"{"e":"inv","t":50,"p":0,"op":4,"log":1,"f":"append","cid":7,"ses":1,"csn":1,"h":"9f","try":1}"#,
            ],
        );
        write(
            "reader",
            Part::Client,
            &[
                r#"{"e":"inv","t":20,"p":0,"op":0,"log":1,"f":"tail"}"#,
                r#"{"e":"ok","t":40,"op":0,"tail":1,"head":0}"#,
                r#"{"e":"sub","t":41,"sub":0,"log":1,"start":0,"final":false}"#,
                r#"{"e":"done","t":42}"#,
            ],
        );
        write(
            "final",
            Part::Final,
            &[
                r#"{"e":"inv","t":60,"p":0,"op":0,"log":1,"f":"tail"}"#,
                r#"{"e":"ok","t":61,"op":0,"tail":1,"head":0}"#,
                r#"{"e":"sub","t":62,"sub":0,"log":1,"start":0,"final":false}"#,
            ],
        );
        fs::write(histories.begin("nothing"), "").unwrap();
        histories.nemesis(1, "pause", &["n2".to_owned()], "installed", false);
        let path = dir.path().join("history.jsonl");
        let about = About {
            run: "pause".to_owned(),
            seed: 5,
            durability: Durability::D1,
            faults: 1,
            live_ns: 9,
        };
        histories.merge(&about, &path).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        let events: Vec<Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let header = &events[0];
        assert_eq!(
            (&header["seed"], &header["faults"], &header["durability"]),
            (&5.into(), &1.into(), &"D1".into())
        );
        assert!(header["clock_err_ns"].as_u64() >= Some(80));
        let told: Vec<(&str, u64)> = events[1..]
            .iter()
            .map(|event| {
                let number = event["op"].as_u64().or(event["sub"].as_u64());
                (event["e"].as_str().unwrap(), number.unwrap_or(0))
            })
            .collect();
        assert_eq!(
            told,
            [
                ("inv", 1),
                ("inv", 2),
                ("ok", 1),
                ("ok", 2),
                ("sub", 1),
                ("inv", 4),
                ("inv", 3),
                ("ok", 3),
                ("phase", 0),
                ("sub", 2),
                ("info", 4),
                ("end", 1),
                ("nem", 0),
                ("done", 0),
            ]
        );
        let sub = |number: u64| {
            let mut subs = events.iter().filter(|event| event["e"] == "sub");
            subs.find(|event| event["sub"] == number).unwrap()["final"] == true
        };
        assert!(!sub(1) && sub(2));
    }

    #[test]
    fn half_a_history_does_not_pass_for_a_whole_one() {
        let dir = tempfile::tempdir().unwrap();
        let histories = Histories::new(dir.path()).unwrap();
        let about = About {
            run: String::new(),
            seed: 0,
            durability: Durability::D1,
            faults: 0,
            live_ns: 0,
        };
        let path = dir.path().join("merged");
        let error = histories.merge(&about, &path).unwrap_err().to_string();
        assert_eq!(error, "no client has a history");
        let torn = histories.begin("torn");
        fs::write(&torn, format!("{HEADER}\n{{\"e\":\"inv\",\"t\":1")).unwrap();
        histories.ended(torn, Part::Client);
        let error = histories.merge(&about, &path).unwrap_err().to_string();
        assert!(error.contains("in the middle of a line"), "{error}");
    }
}
