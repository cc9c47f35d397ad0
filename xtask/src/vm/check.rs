//! `cargo xtask vm --check`: the machine looks at itself, in as few boots as that takes.

use std::path::{Path, PathBuf};
use std::sync::mpsc::Receiver;
use std::time::Duration;

use anyhow::Result;

use super::Kit;
use super::outcome::End;
use super::place::Place;
use super::plan::{Plan, quoted};
use super::session::{self, Heard, Show};
use crate::counts::Counts;

/// What one guest looks at by itself; the names are those in its script.
const IN_GUEST: &[&str] = &[
    "host-root-read-only",
    "rdma-link-active",
    "rdma-send",
    "nvme-write-read",
    "huge-pages",
];

/// The status that the script of the first boot ends with.
const STATUS: u8 = 7;

/// The loss between two guests, in percent: of some 400 frames, one is lost for all but one run in a billion.
const LOSS_PERCENT: f64 = 5.0;

/// One boot: gives its verdicts and what was heard of its guests.
type Boot = fn(&Kit, &Path, &mut Verdicts, &Receiver<i32>) -> Result<Vec<Heard>>;

const BOOTS: [Boot; 4] = [alone, peers, hang, panic];

/// The verdicts, printed as they come.
#[derive(Debug, Default)]
struct Verdicts {
    counts: Counts,
}

impl Verdicts {
    /// `reason` says what was seen instead.
    fn add(&mut self, name: &str, passed: bool, reason: &str) {
        if passed {
            self.counts.passed += 1;
            println!("PASS {name}");
        } else {
            self.counts.failed += 1;
            println!("FAIL {name}: {}", reason.trim().replace('\n', "; "));
        }
    }
}

/// Runs all checks; the exit code is 0 when none failed.
pub(crate) fn run(kit: &Kit, signals: &Receiver<i32>) -> Result<u8> {
    let place = Place::make(&kit.runs)?;
    let mut verdicts = Verdicts::default();
    let mut processes = Vec::new();
    for check in BOOTS {
        let heard = check(kit, place.path(), &mut verdicts, signals)?;
        for one in &heard {
            if let End::Interrupted(signal) = one.end {
                return Ok(super::exit_code(&End::Interrupted(signal)));
            }
            processes.push(one.process);
        }
    }
    left(&kit.runs, place.path(), &processes, &mut verdicts);
    println!("{}", verdicts.counts);
    Ok(u8::from(verdicts.counts.failed > 0))
}

/// One guest with everything in it.
fn alone(
    kit: &Kit,
    place: &Path,
    verdicts: &mut Verdicts,
    signals: &Receiver<i32>,
) -> Result<Vec<Heard>> {
    let job = folder(place, "job-alone")?;
    let intruder = place.join("intruder");
    let intruder_text = quoted(&intruder.to_string_lossy());
    let script = format!(
        "intruder={intruder_text}\n{}",
        include_str!("guest/check.sh")
    );
    let plan = Plan {
        job: Some(job.clone()),
        rdma: true,
        nvme: true,
        huge_pages: 8,
        limit: Duration::from_secs(180),
        ..Plan::of(&script, place)
    };
    let heard = session::run(kit, &plan, Show::Keep, signals)?;
    let Some(guest) = heard.first() else {
        return Ok(heard);
    };
    verdicts.add(
        "exit-status",
        guest.end == End::Exited(STATUS),
        &format!("{:?}", guest.end),
    );
    let (out, err) = (guest.out.as_str(), guest.err.as_str());
    verdicts.add(
        "streams-apart",
        out.starts_with("this goes to standard output\n") && err == "this goes to standard error\n",
        &format!("{out:?} and {err:?}"),
    );
    let last = out.lines().last().unwrap_or_default();
    verdicts.add("current-folder", Path::new(last) == place, last);
    let results = std::fs::read_to_string(job.join("results")).unwrap_or_default();
    verdicts.add(
        "job-directory",
        !results.is_empty(),
        "what the guest wrote there is not there",
    );
    for name in IN_GUEST {
        let (mut passed, mut reason) = verdict(&results, name);
        if *name == "host-root-read-only" && intruder.exists() {
            passed = false;
            reason = "a file of the guest's is on the host".to_owned();
        }
        verdicts.add(name, passed, &reason);
    }
    Ok(heard)
}

/// What the guest's own line says of a check.
fn verdict(results: &str, name: &str) -> (bool, String) {
    let of = |kind: &str| {
        results.lines().find_map(|line| {
            let rest = line.strip_prefix(kind)?.strip_prefix(name)?;
            (rest.is_empty() || rest.starts_with(": ")).then(|| rest.to_owned())
        })
    };
    match (of("PASS "), of("FAIL ")) {
        (Some(_), None) => (true, String::new()),
        (_, Some(reason)) => (false, reason.trim_start_matches(": ").to_owned()),
        (None, None) => (false, "the guest did not come to it".to_owned()),
    }
}

/// Two guests on a link that loses frames: everything arrives, and the counters say that it had to be sent again.
fn peers(
    kit: &Kit,
    place: &Path,
    verdicts: &mut Verdicts,
    signals: &Receiver<i32>,
) -> Result<Vec<Heard>> {
    let job = folder(place, "job-peers")?;
    let plan = Plan {
        job: Some(job.clone()),
        rdma: true,
        peers: 2,
        cpus: 1,
        memory_mib: 768,
        loss_percent: Some(LOSS_PERCENT),
        limit: Duration::from_secs(200),
        ..Plan::of(include_str!("guest/check-peers.sh"), place)
    };
    let heard = session::run(kit, &plan, Show::Keep, signals)?;
    let ends: Vec<String> = heard
        .iter()
        .map(|guest| match &guest.end {
            End::Exited(0) => "0".to_owned(),
            end => format!("{end:?} {} {}", guest.out, guest.err),
        })
        .collect();
    verdicts.add(
        "peers-send",
        ends == ["0", "0"],
        &format!("status and output of both: {}", ends.join(" and ")),
    );
    let read = |name: &str| std::fs::read_to_string(job.join(name)).unwrap_or_default();
    let (netem, statistic) = (read("netem"), read("rdma-statistic"));
    let dropped = number_after(&netem, "(dropped").unwrap_or(0);
    // Requests that nobody answered in time. Duplicates are no sign of loss: an emulated peer can be too slow for the other one's patience.
    let again = number_after(&statistic, "completer_retry_err").unwrap_or(0);
    verdicts.add(
        "peers-lose-and-retry",
        dropped > 0 && again > 0,
        &format!("netem dropped {dropped}, the device sent {again} again: {statistic}"),
    );
    Ok(heard)
}

/// The number that follows a word; counters and netem print both this way.
fn number_after(text: &str, word: &str) -> Option<u64> {
    let mut words = text.split_whitespace();
    words.find(|w| *w == word)?;
    words.next()?.trim_end_matches(',').parse().ok()
}

/// A command that hangs is ended when its time is over.
fn hang(
    kit: &Kit,
    place: &Path,
    verdicts: &mut Verdicts,
    signals: &Receiver<i32>,
) -> Result<Vec<Heard>> {
    let plan = Plan {
        cpus: 1,
        memory_mib: 512,
        limit: Duration::from_secs(2),
        ..Plan::of("echo begun; while :; do sleep 600; done", place)
    };
    let heard = session::run(kit, &plan, Show::Keep, signals)?;
    let ended = heard
        .iter()
        .all(|g| matches!(g.end, End::TimedOut(_)) && g.out == "begun\n");
    verdicts.add("hang-is-ended", ended, &format!("{heard:?}"));
    Ok(heard)
}

/// A guest whose kernel panics is told as that.
fn panic(
    kit: &Kit,
    place: &Path,
    verdicts: &mut Verdicts,
    signals: &Receiver<i32>,
) -> Result<Vec<Heard>> {
    let plan = Plan {
        cpus: 1,
        memory_mib: 512,
        limit: Duration::from_secs(120),
        ..Plan::of("echo c > /proc/sysrq-trigger", place)
    };
    let heard = session::run(kit, &plan, Show::Keep, signals)?;
    let told = heard.iter().all(
        |g| matches!(&g.end, End::Failed(told) if told.starts_with("the guest's kernel panicked")),
    );
    verdicts.add("panic-is-told", told, &format!("{heard:?}"));
    Ok(heard)
}

/// No process and no folder of these runs is left, but the one that the checks themselves have.
fn left(runs: &Path, own: &Path, processes: &[u32], verdicts: &mut Verdicts) {
    let alive = processes
        .iter()
        .filter(|id| Path::new(&format!("/proc/{id}")).exists());
    let mine = format!("{}-", std::process::id());
    let entries = std::fs::read_dir(runs).into_iter().flatten();
    let folders = entries.filter_map(Result::ok).filter(|entry| {
        entry.path() != own && entry.file_name().to_string_lossy().starts_with(&mine)
    });
    let (alive, folders) = (alive.count(), folders.count());
    verdicts.add(
        "nothing-left",
        alive == 0 && folders == 0,
        &format!("{alive} processes and {folders} folders"),
    );
}

fn folder(place: &Path, name: &str) -> Result<PathBuf> {
    let path = place.join(name);
    std::fs::create_dir(&path)?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_passes_only_by_its_own_line() {
        let results = "PASS rdma-send\nFAIL huge-pages: 0 of 8\nPASS both\nFAIL both: later\n";
        assert!(verdict(results, "rdma-send").0);
        assert_eq!(verdict(results, "huge-pages"), (false, "0 of 8".to_owned()));
        assert!(!verdict(results, "both").0);
        assert!(!verdict(results, "rdma").0, "a name is whole");
        assert!(!verdict("", "rdma-send").0);
    }

    #[test]
    fn the_script_answers_for_every_name() {
        let script = include_str!("guest/check.sh");
        for name in IN_GUEST {
            assert!(script.contains(&format!("\ncheck {name} ")), "{name}");
        }
        assert!(script.trim_end().ends_with(&format!("exit {STATUS}")));
    }

    #[test]
    fn numbers_are_read_as_the_tools_print_them() {
        let netem = " Sent 10 bytes 9 pkt (dropped 6, overlimits 0 requeues 0)\n";
        assert_eq!(number_after(netem, "(dropped"), Some(6));
        let statistic = "link rxe0/1 sent_pkts 910 completer_retry_err 209 retry_exceeded_err 0\n";
        assert_eq!(number_after(statistic, "completer_retry_err"), Some(209));
        assert_eq!(number_after(statistic, "duplicate_request"), None);
    }
}
