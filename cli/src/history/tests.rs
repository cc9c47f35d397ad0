//! What is kept of a run, in a file and in memory, and when it counts as whole.

use std::collections::BTreeSet;
use std::path::Path;

use clap::Parser;
use ionian_client::Gsn;
use ionian_client::history::{HistoryEvent, What};
use ionian_client::testing::MemoryCluster;
use ionian_histcheck::{Id, Verdict};
use serde_json::Value;

use super::*;

const SUBJECT: Subject = Subject {
    class: Durability::D0,
    shards: 2,
    replicas: 2,
};
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    args: HistoryArgs,
}

fn create(path: &Path, clients: usize, more: &[&str]) -> anyhow::Result<History> {
    let path = path.display().to_string();
    let line = [&["x", "--history", &path], more].concat();
    let history = Line::parse_from(line).args.create(clients)?;
    Ok(history.expect("one was asked for"))
}

/// Two clients append to a log of their own, each at its turn; the third reads it in the end.
fn run(history: &History, records: u64, change: fn(HistoryEvent) -> Option<HistoryEvent>) {
    let cluster = MemoryCluster::new(2, 2);
    for client in 0..2 {
        let mut log = cluster.open(1 + client as u128).unwrap();
        let mut hook = history.hook(client, SUBJECT);
        log.set_history(Box::new(move |event| {
            if let Some(event) = change(event) {
                hook(event);
            }
        }));
        for record in 0..records {
            log.append(format!("{client} {record}").as_bytes()).unwrap();
        }
    }
    let mut log = cluster.open(3).unwrap();
    log.set_history(history.hook(2, SUBJECT));
    log.final_read(PATIENCE, |_| true).unwrap();
}

fn lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    let lines = text.lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn clients_share_a_file_and_no_number() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("history");
    let history = create(&path, 3, &[]).unwrap();
    run(&history, 10, Some);
    history.finish().unwrap();
    let report = history.judge().unwrap();
    assert_eq!(report.verdict(), Verdict::Pass, "{}", report.text());
    let events = lines(&path);
    let of = |kind: &str| -> BTreeSet<u64> {
        let events = events.iter().filter(|event| event["e"] == kind);
        events.map(|event| event["op"].as_u64().unwrap()).collect()
    };
    assert_eq!((of("inv").len(), of("inv")), (21, of("ok")));
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
    assert_eq!(events.last().unwrap()["e"], "done");
}

#[test]
fn a_history_in_memory_is_judged_as_one_in_a_file() {
    let judged = |change| {
        let history = History::in_memory(3, 100, 100).unwrap();
        run(&history, 10, change);
        history.finish().unwrap();
        history.judge().unwrap()
    };
    let report = judged(Some);
    assert_eq!(report.verdict(), Verdict::Pass, "{}", report.text());
    assert_eq!((report.counts.acks, report.counts.final_records), (20, 20));
    // An answer that names a wrong position.
    let report = judged(|mut event| {
        if let What::Ok {
            answer: ionian_client::history::Reply::Appended { gsn, .. },
            ..
        } = &mut event.what
            && gsn.get() == 7
        {
            *gsn = Gsn::new(8);
        }
        Some(event)
    });
    assert_eq!(report.verdict(), Verdict::Fail);
    assert!(report.violated().contains(&Id::S4), "{}", report.text());
    assert!(report.text().contains("client 0:"), "{}", report.text());
}

#[test]
fn the_first_records_of_a_long_run_can_be_judged_alone() {
    for records in [1, 7, 15] {
        let history = History::in_memory(3, records, 20).unwrap();
        let cluster = MemoryCluster::new(2, 2);
        let (mut writer, mut reader) = (cluster.open(1).unwrap(), cluster.open(2).unwrap());
        writer.set_history(history.hook(0, SUBJECT));
        reader.set_history(history.hook(1, SUBJECT));
        for record in 0..20_u64 {
            writer.append(&record.to_le_bytes()).unwrap();
        }
        reader.final_read(PATIENCE, |_| true).unwrap();
        drop((writer, reader));
        let report = history.judge().unwrap();
        assert_eq!(report.verdict(), Verdict::Pass, "{}", report.text());
        assert_eq!(
            (report.counts.acks, report.counts.final_records),
            (records, records)
        );
    }
}

#[test]
fn what_is_there_is_overwritten_only_when_told_to() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("history");
    std::fs::write(&path, "evidence").unwrap();
    let error = create(&path, 1, &[]).unwrap_err();
    assert!(error.is::<crate::exit::UsageError>());
    let said = error.to_string();
    assert!(
        said.ends_with("history exists: name another file, or overwrite it with --force"),
        "{said}"
    );
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "evidence");
    let history = create(&path, 3, &["--force"]).unwrap();
    // Nobody else may write it meanwhile, whatever they say.
    let error = create(&path, 1, &["--force"]).unwrap_err().to_string();
    assert!(
        error.starts_with("another process writes the history"),
        "{error}"
    );
    run(&history, 1, Some);
    history.finish().unwrap();
    assert_eq!(history.judge().unwrap().verdict(), Verdict::Pass);
    // A file with nothing in it may have been made for this.
    let empty = folder.path().join("empty");
    std::fs::write(&empty, "").unwrap();
    create(&empty, 1, &[]).unwrap();
    let error = create(Path::new("/no/such/folder/h"), 1, &[]).unwrap_err();
    assert!(format!("{error:#}").starts_with("cannot write the history /no/such/folder/h"));
}

#[test]
fn a_history_that_cannot_be_written_is_an_error() {
    let full = Path::new("/dev/full");
    if !full.exists() {
        println!("SKIP a_history_that_cannot_be_written_is_an_error: there is no /dev/full");
        return;
    }
    let history = create(full, 3, &[]).unwrap();
    run(&history, 1, Some);
    let error = format!("{:#}", history.finish().unwrap_err());
    assert!(
        error.starts_with("the history /dev/full is not complete, nothing can be said by it"),
        "{error}"
    );
}

#[test]
fn a_final_read_that_was_given_up_leaves_no_whole_history() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("history");
    let history = create(&path, 1, &[]).unwrap();
    let mut log = MemoryCluster::new(1, 1).open(1).unwrap();
    log.set_history(history.hook(0, SUBJECT));
    log.append_batch(&["x", "y", "z"]);
    let mut left = 2;
    let read = log.final_read(PATIENCE, |_| {
        left -= 1;
        left > 0
    });
    let read = read.unwrap();
    assert_eq!((read.next.get(), read.tail.get()), (2, 3));
    let error = history.finish().unwrap_err().to_string();
    assert!(
        error.ends_with("its final read did not get to the end of the log"),
        "{error}"
    );
    drop(log);
    // The record that was not read is not lost: nothing can be said.
    assert_eq!(history.judge().unwrap().verdict(), Verdict::HarnessError);
}
