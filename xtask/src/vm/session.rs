//! One run: starts the guests, passes on what their commands print, and ends them when there is nothing more to wait for.
//!
//! A guest answers by files in its control folder: `started`, `out`, `err`, `status`, or `failure`. It never ends by itself; a guest whose
//! command has ended stays up until the other one's has, so that a link between them lasts as long as either needs it.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::Kit;
use super::initrd;
use super::machine::{self, Files, Link, Process};
use super::outcome::{self, BOOT_LIMIT, End, Facts, OUTPUT_BYTES_MAX, Why};
use super::place::Place;
use super::plan::Plan;
use super::tail::Tail;

/// How often the guests are looked at.
const LOOK: Duration = Duration::from_millis(50);

/// The most that counts as time between two looks. What is longer, this program did not run either: the machine stood still, or had no time
/// for anybody, and neither says anything about a guest.
const LOOK_COUNTED_MAX: Duration = Duration::from_secs(1);

/// The most that is kept of a file, in bytes.
const KEPT_BYTES_MAX: u64 = 1 << 20;

/// Where what the commands print goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Show {
    /// To this program's own streams while it comes; of two guests with `0| ` or `1| ` before each line.
    Stream,
    /// To [`Heard`] only.
    Keep,
}

/// What came of one guest.
#[derive(Debug)]
pub(crate) struct Heard {
    pub(crate) end: End,
    /// The command's output, if it was kept: the first MiB of each stream.
    pub(crate) out: String,
    pub(crate) err: String,
    pub(crate) console: String,
    /// The id that QEMU's process had.
    pub(crate) process: u32,
}

/// Runs the plan to its end; what is heard has one item per guest. Nothing is left behind, whatever comes of it.
///
/// # Errors
/// When the run cannot be begun: a sentence.
pub(crate) fn run(
    kit: &Kit,
    plan: &Plan,
    show: Show,
    interrupt: &Receiver<i32>,
) -> Result<Vec<Heard>> {
    initrd::ready()?;
    kit.kernel.modules()?.require(&plan.all_modules())?;
    let place = Place::make(&kit.runs)?;
    let archive = place.path().join("initrd");
    initrd::write(&kit.kernel, &archive)?;
    let job = match &plan.job {
        Some(folder) => std::fs::canonicalize(folder)
            .with_context(|| format!("the job directory {} is not there", folder.display()))?,
        None => {
            let folder = place.path().join("job");
            std::fs::create_dir(&folder)?;
            folder
        }
    };
    let mut guests = Vec::new();
    for (peer, link) in (0..plan.peers).zip(links(plan)?) {
        guests.push(Guest::start(kit, plan, peer, &place, &archive, &job, link)?);
    }
    let several = guests.len() > 1;
    let mut clock = Clock::start();
    loop {
        let now = clock.now();
        for guest in &mut guests {
            guest.look(now, plan.limit)?;
            if show == Show::Stream {
                guest.pass_on(several)?;
            }
        }
        // One machine that failed leaves the other one waiting for it.
        let failed = |g: &Guest| matches!(g.end, Some(End::Failed(_)));
        if guests.iter().any(failed) {
            for guest in &mut guests {
                guest.end.get_or_insert_with(|| {
                    End::Failed("ended because the other guest failed".to_owned())
                });
            }
        }
        if guests.iter().all(|g| g.end.is_some()) {
            break;
        }
        match interrupt.recv_timeout(LOOK) {
            Ok(signal) => {
                for guest in &mut guests {
                    guest.end.get_or_insert(End::Interrupted(signal));
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => bail!("nobody listens to signals any more"),
        }
    }
    if kit.verbose {
        for guest in &guests {
            guest.tell_times();
        }
    }
    guests
        .into_iter()
        .map(|guest| guest.finish(show, several))
        .collect()
}

/// What each guest's network leads to.
fn links(plan: &Plan) -> Result<Vec<Link>> {
    if plan.peers > 1 {
        let (one, other) = UnixStream::pair().context("making the link between the guests")?;
        return Ok(vec![Link::Peer(one.into()), Link::Peer(other.into())]);
    }
    Ok(vec![if plan.has_network() {
        Link::Alone
    } else {
        Link::None
    }])
}

/// One guest while it runs.
#[derive(Debug)]
struct Guest {
    peer: u32,
    process: Process,
    control: PathBuf,
    console: PathBuf,
    log: PathBuf,
    out: Tail,
    err: Tail,
    /// When its command was seen to have begun, by the run's clock.
    started: Option<Duration>,
    ended: Option<Duration>,
    end: Option<End>,
}

impl Guest {
    fn start(
        kit: &Kit,
        plan: &Plan,
        peer: u32,
        place: &Place,
        initrd: &Path,
        job: &Path,
        link: Link,
    ) -> Result<Self> {
        let control = place.path().join(format!("control-{peer}"));
        std::fs::create_dir(&control)?;
        let caller = std::env::vars_os()
            .filter_map(|(n, v)| Some((n.into_string().ok()?, v.into_string().ok()?)));
        let modules = kit.kernel.module_folder();
        for (name, text) in [
            ("stage2", include_str!("guest/stage2.sh").to_owned()),
            ("settings", plan.settings(peer, &modules)),
            ("environment", plan.environment(peer, caller)),
            ("command", format!("{}\n", plan.command)),
        ] {
            let path = control.join(name);
            std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
        }
        let file = |name: &str| place.path().join(format!("{name}-{peer}"));
        let (console, log, nvme) = (file("console"), file("qemu.log"), file("nvme"));
        let files = Files {
            control: &control,
            job,
            initrd,
            console: &console,
            log: &log,
            nvme: &nvme,
        };
        let process = machine::start(kit, plan, peer, &files, link)?;
        Ok(Self {
            peer,
            process,
            out: Tail::of(control.join("out")),
            err: Tail::of(control.join("err")),
            control,
            console,
            log,
            started: None,
            ended: None,
            end: None,
        })
    }

    /// Looks how far it is; sets its end once there is one.
    fn look(&mut self, now: Duration, limit: Duration) -> Result<()> {
        if self.end.is_some() {
            return Ok(());
        }
        // First whether there is a process, then what it wrote: what it wrote before its end is not missed.
        let gone = self.process.ended()?.is_some();
        if self.started.is_none() && self.control.join("started").exists() {
            self.started = Some(now);
        }
        if let Some(status) = outcome::status(&head(&self.control.join("status"))) {
            self.set(now, End::Exited(status));
            return Ok(());
        }
        let why = if self.control.join("failure").exists() {
            Some(Why::Told)
        } else if gone {
            Some(Why::Gone)
        } else if self.out.length() > OUTPUT_BYTES_MAX || self.err.length() > OUTPUT_BYTES_MAX {
            Some(Why::Output)
        } else {
            match self.started {
                Some(started) if now.saturating_sub(started) > limit => {
                    Some(Why::CommandLimit(limit))
                }
                None if now > BOOT_LIMIT => Some(Why::BootLimit),
                _ => None,
            }
        };
        if let Some(why) = why {
            let facts = Facts {
                why,
                started: self.started.is_some(),
                failure: &head(&self.control.join("failure")),
                console: &foot(&self.console),
                qemu: &foot(&self.log),
            };
            self.set(now, facts.end());
        }
        Ok(())
    }

    fn set(&mut self, now: Duration, end: End) {
        self.ended = Some(now);
        self.end = Some(end);
    }

    /// Prints what is new.
    fn pass_on(&mut self, several: bool) -> Result<()> {
        let mark = several.then(|| format!("{}| ", self.peer));
        let mark = mark.as_deref();
        self.out.pass_on(&mut std::io::stdout().lock(), mark)?;
        self.err.pass_on(&mut std::io::stderr().lock(), mark)
    }

    fn tell_times(&self) {
        let told = |at: Option<Duration>| {
            at.map_or("never".to_owned(), |at| {
                format!("after {:.1} s", at.as_secs_f64())
            })
        };
        eprintln!(
            "vm: guest {} came to its command {} and to its end {}",
            self.peer,
            told(self.started),
            told(self.ended)
        );
    }

    /// Ends it and takes what is left to take.
    fn finish(mut self, show: Show, several: bool) -> Result<Heard> {
        let process = self.process.id();
        let Self { out, err, .. } = &mut self;
        let (mut kept_out, mut kept_err) = (String::new(), String::new());
        if show == Show::Keep {
            kept_out = head(out.path());
            kept_err = head(err.path());
        } else {
            self.pass_on(several)?;
            let several = several.then(|| format!("{}| ", self.peer));
            self.out
                .end(&mut std::io::stdout().lock(), several.as_deref())?;
            self.err
                .end(&mut std::io::stderr().lock(), several.as_deref())?;
        }
        Ok(Heard {
            end: self.end.take().context("the guest has not ended")?,
            out: kept_out,
            err: kept_err,
            console: foot(&self.console),
            process,
        })
    }
}

/// The time that a run had: that of the system, without pauses in which nothing was looked at.
#[derive(Debug)]
struct Clock {
    looked: Instant,
    counted: Duration,
}

impl Clock {
    fn start() -> Self {
        Self {
            looked: Instant::now(),
            counted: Duration::ZERO,
        }
    }

    /// Since the start.
    fn now(&mut self) -> Duration {
        let now = Instant::now();
        self.at(now)
    }

    fn at(&mut self, now: Instant) -> Duration {
        let passed = now.saturating_duration_since(self.looked);
        self.counted += passed.min(LOOK_COUNTED_MAX);
        self.looked = now;
        self.counted
    }
}

/// The first MiB of a file, as text; nothing if it is not there.
fn head(path: &Path) -> String {
    part(path, |_| 0)
}

/// The last MiB of a file, as text; nothing if it is not there.
fn foot(path: &Path) -> String {
    part(path, |length| length.saturating_sub(KEPT_BYTES_MAX))
}

fn part(path: &Path, begin: fn(u64) -> u64) -> String {
    let mut bytes = Vec::new();
    if let Ok(mut file) = File::open(path) {
        let length = file.metadata().map_or(0, |m| m.len());
        // What cannot be read is missing in what is told.
        let _ = file.seek(SeekFrom::Start(begin(length)));
        let _ = file.take(KEPT_BYTES_MAX).read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_of_the_machine_is_not_a_guests_time() {
        let mut clock = Clock::start();
        let start = clock.looked;
        assert_eq!(clock.at(start + LOOK), LOOK);
        let after = start + LOOK + Duration::from_secs(3600);
        assert_eq!(clock.at(after), LOOK + LOOK_COUNTED_MAX);
        assert_eq!(clock.at(after), LOOK + LOOK_COUNTED_MAX);
    }

    #[test]
    fn two_guests_have_the_ends_of_one_link_and_one_has_what_it_asks_for() {
        let mut plan = Plan::of("true", Path::new("/tmp"));
        assert!(matches!(links(&plan).expect("made")[..], [Link::None]));
        plan.rdma = true;
        assert!(matches!(links(&plan).expect("made")[..], [Link::Alone]));
        plan.peers = 2;
        let both = links(&plan).expect("made");
        assert!(matches!(both[..], [Link::Peer(_), Link::Peer(_)]));
    }
}
