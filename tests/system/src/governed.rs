//! A cluster that is governed by three controllers, as it runs in earnest: every controller and every node a process, founded
//! by the operators' commands, on loopback or each in a network namespace.
//!
//! The first [`Layout::roots`] nodes are the members of every root group, the second of them has the leaf unless a tree is asked
//! for. The others hold replicas, or wait for some.

mod asks;
mod layout;
mod whole;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use self::layout::configuration;
pub use self::layout::{Layout, Tree, site};
use crate::binary::Binary;
use crate::net::Net;
use crate::process::Process;

/// The controllers of every cluster.
pub const CONTROLLERS: usize = 3;
/// How long a cluster may take until it takes appends.
const FOUNDED_LIMIT: Duration = Duration::from_secs(120);
/// How long a process that was asked to end may take.
const END_LIMIT: Duration = Duration::from_secs(60);

/// A process of the cluster.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Who {
    /// A controller, from 0.
    Controller(usize),
    /// A node, from 0.
    Node(usize),
}

impl Who {
    /// Its name, as the configuration has it: `c1`, `n1`.
    #[must_use]
    pub fn name(self) -> String {
        match self {
            Self::Controller(at) => format!("c{}", at + 1),
            Self::Node(at) => format!("n{}", at + 1),
        }
    }
}

#[derive(Debug)]
struct Member {
    who: Who,
    binary: Binary,
    process: Option<Process>,
}

/// The processes of such a cluster.
#[derive(Debug)]
pub struct Governed {
    /// What clients and operators run.
    binary: Binary,
    dir: PathBuf,
    file: String,
    data: Vec<(Who, PathBuf)>,
    snapshot_entries: Option<u64>,
    members: Vec<Member>,
}

impl Governed {
    /// Founds a cluster in `dir`: certificates, processes, the group of controllers. Returns once it takes appends.
    ///
    /// # Errors
    /// When a file cannot be written, a process not started, or the cluster does not come up in two minutes.
    pub fn found(
        binary: &Binary,
        dir: &Path,
        layout: &Layout<'_>,
        net: Option<&Net>,
    ) -> Result<Self> {
        std::fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
        let dir = dir
            .canonicalize()
            .with_context(|| format!("finding {}", dir.display()))?;
        let file = dir.join("cluster.toml");
        std::fs::write(&file, configuration(layout, net)?)
            .with_context(|| format!("writing {}", file.display()))?;
        let everybody = (0..layout.nodes)
            .map(Who::Node)
            .chain((0..CONTROLLERS).map(Who::Controller));
        let within = |site: usize| match net {
            Some(net) => binary.within(net.namespace(site)),
            None => binary.clone(),
        };
        let members = everybody.map(|who| Member {
            who,
            binary: within(site(who)),
            process: None,
        });
        let mut cluster = Self {
            binary: within(layout.sites() - 1),
            file: file.display().to_string(),
            data: layout.data.clone(),
            snapshot_entries: layout.snapshot_entries,
            members: members.collect(),
            dir,
        };
        cluster.operate(&["ca", "create"])?;
        for at in 0..cluster.members.len() {
            cluster.start(cluster.members[at].who)?;
        }
        // Waits for controllers that have not begun to listen.
        let wait = FOUNDED_LIMIT.as_secs().to_string();
        cluster.operate(&["cluster", "init", "--wait", &wait])?;
        cluster.until("it takes appends", FOUNDED_LIMIT, Self::takes_appends)?;
        Ok(cluster)
    }

    /// The configuration's file, for `--cluster` and `--config`.
    #[must_use]
    pub fn config(&self) -> &Path {
        Path::new(&self.file)
    }

    /// The binary that its clients run.
    #[must_use]
    pub const fn binary(&self) -> &Binary {
        &self.binary
    }

    /// Every process of it.
    pub fn everybody(&self) -> impl Iterator<Item = Who> + use<> {
        let all: Vec<Who> = self.members.iter().map(|member| member.who).collect();
        all.into_iter()
    }

    /// Where a process keeps its state.
    #[must_use]
    pub fn data_dir(&self, who: Who) -> PathBuf {
        if let Some((_, dir)) = self.data.iter().find(|(other, _)| *other == who) {
            return dir.clone();
        }
        let name = match who {
            Who::Controller(at) => format!("controller-{}", at + 1),
            Who::Node(_) => who.name(),
        };
        self.dir.join("data").join(name)
    }

    fn member(&mut self, who: Who) -> Result<&mut Member> {
        let found = self.members.iter_mut().find(|member| member.who == who);
        found.with_context(|| format!("there is no {}", who.name()))
    }

    /// Whether the process of `who` was started and not ended since.
    #[must_use]
    pub fn has(&self, who: Who) -> bool {
        let found = self.members.iter().find(|member| member.who == who);
        found.is_some_and(|member| member.process.is_some())
    }

    /// Starts a process that does not run.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(&mut self, who: Who) -> Result<()> {
        let (id, name) = match who {
            Who::Controller(at) => ((at + 1).to_string(), who.name()),
            Who::Node(_) => (String::new(), who.name()),
        };
        let arguments = match who {
            Who::Controller(_) => ["controller", "--id", &id, "--config", &self.file],
            Who::Node(_) => ["node", "--node", &name, "--config", &self.file],
        }
        .map(str::to_owned);
        let (dir, log) = (self.dir.clone(), self.dir.join(format!("{name}.log")));
        let entries = self.snapshot_entries.map(|entries| entries.to_string());
        let member = self.member(who)?;
        let mut command = member.binary.command(arguments);
        if matches!(who, Who::Node(_)) {
            // Ignored on loopback; elsewhere nothing but this test can reach the addresses.
            command.arg("--insecure-no-auth");
        } else if let Some(entries) = entries {
            command.args(["--snapshot-entries", &entries]);
        }
        command.current_dir(dir);
        member.process = Some(Process::start(&mut command, &log)?);
        Ok(())
    }

    /// Where a process listens.
    ///
    /// # Errors
    /// When the configuration does not say.
    pub fn address(&self, who: Who) -> Result<String> {
        let text = std::fs::read_to_string(&self.file)?;
        let (kind, key) = match who {
            Who::Controller(at) => ("[[controllers]]", format!("id = {}", at + 1)),
            Who::Node(_) => ("[[nodes]]", format!("name = \"{}\"", who.name())),
        };
        let mut entries = text.split("\n\n").filter(|entry| entry.contains(kind));
        let entry = entries.find(|entry| entry.lines().any(|line| line == key));
        let mut lines = entry.unwrap_or_default().lines();
        let address = lines.find_map(|line| line.strip_prefix("address = \"")?.strip_suffix('"'));
        address
            .map(str::to_owned)
            .with_context(|| format!("no address of {}", who.name()))
    }

    /// The resident memory of a process, in KiB.
    ///
    /// # Errors
    /// When it does not run.
    pub fn resident_kib(&self, who: Who) -> Result<u64> {
        let found = self.members.iter().find(|member| member.who == who);
        let process = found.and_then(|member| member.process.as_ref());
        process
            .with_context(|| format!("{} does not run", who.name()))?
            .resident_kib()
    }

    /// Kills a process as a crash would.
    ///
    /// # Errors
    /// When it cannot be killed.
    pub fn kill(&mut self, who: Who) -> Result<()> {
        match self.member(who)?.process.take() {
            Some(mut process) => process.kill(),
            None => Ok(()),
        }
    }

    /// Stops a process where it is.
    ///
    /// # Errors
    /// When it does not run, or cannot be signalled.
    pub fn pause(&mut self, who: Who) -> Result<()> {
        self.running(who)?.pause()
    }

    /// Lets a process that was stopped go on.
    ///
    /// # Errors
    /// As [`Self::pause`].
    pub fn resume(&mut self, who: Who) -> Result<()> {
        self.running(who)?.resume()
    }

    fn running(&mut self, who: Who) -> Result<&mut Process> {
        let process = self.member(who)?.process.as_mut();
        process.with_context(|| format!("{} does not run", who.name()))
    }

    /// Asks a process to end, once, and waits for it.
    ///
    /// # Errors
    /// When it does not end in a minute (it is then killed), or ends with another code than 0.
    pub fn end(&mut self, who: Who) -> Result<()> {
        let Some(mut process) = self.member(who)?.process.take() else {
            return Ok(());
        };
        process.ask_to_end()?;
        ended(&mut process, who)
    }

    /// Whether a process that was started has ended by itself.
    ///
    /// # Errors
    /// The system's.
    pub fn has_ended(&mut self, who: Who) -> Result<bool> {
        match &mut self.member(who)?.process {
            Some(process) => Ok(!process.is_running()?),
            None => Ok(false),
        }
    }

    /// What a process said last.
    #[must_use]
    pub fn last_words(&self, who: Who) -> String {
        let found = self.members.iter().find(|member| member.who == who);
        let process = found.and_then(|member| member.process.as_ref());
        process.map_or_else(String::new, Process::last_words)
    }

    /// Asks every process to end and waits for it, nodes before controllers.
    ///
    /// # Errors
    /// As [`Self::end`].
    pub fn stop(mut self) -> Result<()> {
        for nodes in [true, false] {
            let these = |member: &&mut Member| matches!(member.who, Who::Node(_)) == nodes;
            for member in self.members.iter_mut().filter(these) {
                if let Some(process) = &mut member.process {
                    process.ask_to_end()?;
                }
            }
            for member in self.members.iter_mut().filter(these) {
                if let Some(mut process) = member.process.take() {
                    ended(&mut process, member.who)?;
                }
            }
        }
        Ok(())
    }
}

fn ended(process: &mut Process, who: Who) -> Result<()> {
    let name = who.name();
    match process.exit_within(END_LIMIT)? {
        Some(status) if status.success() => Ok(()),
        Some(status) => bail!("{name} ended with {status}: {}", process.last_words()),
        None => bail!("{name} did not end in {} s", END_LIMIT.as_secs()),
    }
}
