//! What was called and answered, as a file of `hist/1`: a header, then one line of JSON per event, of all clients of this
//! process, in the order in which it happened here.
//!
//! Times are nanoseconds since 1970 by the machine's clock as it was when the file was begun, and from then on by a clock
//! that only goes forward, so that files of several processes of one machine can be laid side by side.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use ionian_client::history::{HistoryEvent, HistoryHook, What, write_jsonl};
use ionian_types::Durability;
use serde_json::json;

use crate::connect::random_client;
use crate::version;

/// A file of events.
#[derive(Clone, Debug)]
pub(crate) struct History {
    path: PathBuf,
    shared: Arc<Mutex<HistoryFile>>,
    clients: u64,
}

#[derive(Debug)]
struct HistoryFile {
    out: BufWriter<File>,
    line: Vec<u8>,
    headed: bool,
    failed: Option<io::Error>,
    clock: Clock,
}

/// Both clocks at the same moment, as far as that can be said.
#[derive(Clone, Copy, Debug)]
struct Clock {
    epoch: Duration,
    began: Instant,
    error: Duration,
}

/// Looks at both clocks, of which the closest pair counts: this process may be stopped between the two.
const LOOKS: usize = 100;

impl Clock {
    fn new() -> Self {
        let look = || {
            let began = Instant::now();
            let epoch = SystemTime::now().duration_since(UNIX_EPOCH);
            Self {
                epoch: epoch.unwrap_or_default(),
                began,
                error: began.elapsed(),
            }
        };
        let looks = (1..LOOKS).map(|_| look());
        looks.fold(look(), |best, clock| {
            if clock.error < best.error {
                clock
            } else {
                best
            }
        })
    }
}

/// The log that a history is of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Subject {
    pub(crate) class: Durability,
    pub(crate) shards: usize,
    pub(crate) replicas: usize,
}

impl History {
    /// Begins a file for so many clients, at most.
    pub(crate) fn create(path: &Path, clients: usize) -> anyhow::Result<Self> {
        let file = File::create(path)
            .with_context(|| format!("cannot write the history {}", path.display()))?;
        Ok(Self {
            path: path.to_owned(),
            shared: Arc::new(Mutex::new(HistoryFile {
                out: BufWriter::with_capacity(1 << 20, file),
                line: Vec::new(),
                headed: false,
                failed: None,
                clock: Clock::new(),
            })),
            clients: clients.max(1) as u64,
        })
    }

    /// The hook for client number `client` of the process; the first one writes the header.
    pub(crate) fn hook(&self, client: usize, subject: Subject) -> anyhow::Result<HistoryHook> {
        self.head(subject)?;
        let (shared, clients, client) = (Arc::clone(&self.shared), self.clients, client as u64);
        Ok(Box::new(move |event| {
            if let Ok(mut file) = shared.lock() {
                let event = HistoryEvent {
                    time_ns: file.now_ns(),
                    log: event.log,
                    what: numbered(event.what, clients, client),
                };
                file.write(|line| write_jsonl(line, &event));
            }
        }))
    }

    fn head(&self, subject: Subject) -> anyhow::Result<()> {
        let run = format!("{:032x}", random_client()?.get());
        let Ok(mut file) = self.shared.lock() else {
            return Ok(());
        };
        if file.headed {
            return Ok(());
        }
        file.headed = true;
        let header = json!({
            "v": 1, "e": "hdr", "run": run, "seed": 0, "sut": "ours", "commit": version::COMMIT, "world": "proc",
            "clock_err_ns": file.clock.error.as_nanos() as u64, "order": "linearizable", "dedupe": true, "spec": false,
            "dense": true, "durability": subject.class.to_string(), "shards": subject.shards, "replicas": subject.replicas,
            "f": subject.replicas.saturating_sub(1),
        });
        file.write(|line| writeln!(line, "{header}"));
        Ok(())
    }

    /// Half a history must not pass for a whole one.
    pub(crate) fn finish(&self) -> anyhow::Result<()> {
        let mut file = self
            .shared
            .lock()
            .map_err(|_| anyhow::anyhow!("a client's thread failed"))?;
        let ended = match file.failed.take() {
            Some(error) => Err(error),
            None => file.out.flush(),
        };
        ended.with_context(|| format!("the history {} is not complete", self.path.display()))
    }
}

impl HistoryFile {
    fn now_ns(&self) -> u64 {
        let now = self.clock.epoch + self.clock.began.elapsed();
        u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
    }

    fn write(&mut self, make: impl FnOnce(&mut Vec<u8>) -> io::Result<()>) {
        let Self {
            out, line, failed, ..
        } = self;
        if failed.is_none() {
            line.clear();
            *failed = make(line).and_then(|()| out.write_all(line)).err();
        }
    }
}

/// An event whose numbers no other client of the file uses: each counts its operations and subscriptions from 0.
fn numbered(mut what: What, clients: u64, client: u64) -> What {
    let own = |number: &mut u64| *number = number.wrapping_mul(clients).wrapping_add(client);
    match &mut what {
        What::Inv { op, process, .. } => {
            own(op);
            own(process);
        }
        What::Ok { op, .. } | What::Failed { op, .. } => own(op),
        What::Sub { sub, .. }
        | What::SubEnd { sub }
        | What::Delivered { sub, .. }
        | What::Gap { sub, .. } => own(sub),
        _ => {}
    }
    what
}

#[cfg(test)]
mod tests {
    use super::*;
    use ionian_client::testing::MemoryCluster;

    const SUBJECT: Subject = Subject {
        class: Durability::D0,
        shards: 2,
        replicas: 2,
    };

    #[test]
    fn clients_share_a_file_and_no_number() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("history");
        let history = History::create(&path, 2).unwrap();
        let cluster = MemoryCluster::new(2, 2);
        for client in 0..2 {
            let mut log = cluster.open(1 + client as u128).unwrap();
            log.set_history(history.hook(client, SUBJECT).unwrap());
            for record in 0..10 {
                log.append(format!("{client} {record}").as_bytes()).unwrap();
            }
        }
        history.finish().unwrap();
        let text = std::fs::read_to_string(path).unwrap();
        let events: Vec<serde_json::Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(events.len(), 1 + 2 * 2 * 10);
        assert_eq!(
            (&events[0]["e"], &events[0]["v"]),
            (&"hdr".into(), &1.into())
        );
        let of = |kind: &str| -> std::collections::BTreeSet<u64> {
            let events = events.iter().filter(|event| event["e"] == kind);
            events.map(|event| event["op"].as_u64().unwrap()).collect()
        };
        assert_eq!((of("inv").len(), of("inv")), (20, of("ok")));
        let times: Vec<_> = events[1..]
            .iter()
            .map(|event| event["t"].as_u64().unwrap())
            .collect();
        assert!(
            events[0]["clock_err_ns"]
                .as_u64()
                .is_some_and(|error| error < 1_000_000_000)
        );
        assert!(
            times.is_sorted() && times[0] > 1_500_000_000_000_000_000,
            "{times:?}"
        );
    }

    #[test]
    fn a_history_that_cannot_be_written_is_an_error() {
        let full = Path::new("/dev/full");
        if full.exists() {
            let history = History::create(full, 1).unwrap();
            let _hook = history.hook(0, SUBJECT).unwrap();
            let error = format!("{:#}", history.finish().unwrap_err());
            assert!(
                error.starts_with("the history /dev/full is not complete"),
                "{error}"
            );
        }
        let error = History::create(Path::new("/no/such/folder/h"), 1).unwrap_err();
        assert!(format!("{error:#}").starts_with("cannot write the history /no/such/folder/h"));
    }
}
