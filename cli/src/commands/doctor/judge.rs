//! Which profiles fit what was found, what the others lack, and which one to take. Pure: facts and profiles in, a report out.

mod dpdk;
mod parts;
mod verbs;

use ionian_node::config::{BackendUse, backend_use};
use ionian_runtime::{Device, NicProfile, RunState};
use serde::Serialize;

use super::facts::Facts;

/// How one thing that a profile needs stands.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum State {
    /// It is there.
    Ok,
    /// It is there, and could be better.
    Advice,
    /// Nothing says whether it is there.
    Unknown,
    /// It is not there.
    Missing,
}

/// One thing that a profile needs.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(super) struct Check {
    /// A stable name, such as `huge-pages`.
    pub(super) name: &'static str,
    pub(super) state: State,
    /// What was found, in words.
    pub(super) says: String,
    /// The command that mends it, or what to do where no command can.
    pub(super) fix: Option<String>,
}

impl Check {
    pub(super) fn ok(name: &'static str, says: impl Into<String>) -> Self {
        Self::new(name, State::Ok, says, None)
    }

    pub(super) fn unknown(name: &'static str, says: impl Into<String>) -> Self {
        Self::new(name, State::Unknown, says, None)
    }

    pub(super) fn advice(
        name: &'static str,
        says: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self::new(name, State::Advice, says, Some(fix.into()))
    }

    pub(super) fn missing(
        name: &'static str,
        says: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self::new(name, State::Missing, says, Some(fix.into()))
    }

    fn new(name: &'static str, state: State, says: impl Into<String>, fix: Option<String>) -> Self {
        Self {
            name,
            state,
            says: says.into(),
            fix,
        }
    }
}

/// Whether a machine has what a profile needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Fits {
    Yes,
    /// Nothing is known to be missing, and not everything is known.
    Perhaps,
    No,
}

/// What was found of one profile.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Fit {
    pub(super) profile: String,
    pub(super) backend: &'static str,
    /// `run` or `not-run`: whether anybody has run this profile.
    pub(super) status: &'static str,
    pub(super) preference: u64,
    /// What its backend does in this build: `processes`, `threads` or `absent`.
    pub(super) build: &'static str,
    pub(super) fits: Fits,
    /// A node can be configured with it here, now.
    pub(super) can_run: bool,
    pub(super) checks: Vec<Check>,
}

/// The whole judgement.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Judgement {
    pub(super) profiles: Vec<Fit>,
    /// The profile that was asked for.
    pub(super) asked: Option<String>,
    pub(super) recommended: Option<String>,
    /// Why this one, in a sentence.
    pub(super) reason: String,
    /// What is not about one profile.
    pub(super) notes: Vec<Check>,
}

impl Judgement {
    /// Judges. `asked` must be among the profiles, or none.
    pub(super) fn of(facts: &Facts, profiles: &[NicProfile], asked: Option<&str>) -> Self {
        let fits: Vec<Fit> = profiles.iter().map(|it| fit(facts, it)).collect();
        let (recommended, reason) = recommend(profiles, &fits);
        Self {
            profiles: fits,
            asked: asked.map(str::to_owned),
            recommended,
            reason,
            notes: parts::notes(facts),
        }
    }

    pub(super) fn fit(&self, name: &str) -> Option<&Fit> {
        self.profiles.iter().find(|fit| fit.profile == name)
    }

    /// Whether the profile that was asked for, or else the recommended one, can run.
    pub(super) fn good(&self) -> bool {
        match &self.asked {
            Some(name) => self.fit(name).is_some_and(|fit| fit.can_run),
            None => self.recommended.is_some(),
        }
    }
}

fn fit(facts: &Facts, profile: &NicProfile) -> Fit {
    let checks = match &profile.device {
        Device::Shm => vec![Check::ok("memory", "it needs memory only")],
        Device::Udp => vec![parts::receive_buffer(facts, profile)],
        Device::Tap(_) => parts::tap(facts),
        Device::AfPacket(device) => {
            let interface = parts::interface(facts, profile, &device.interface.value);
            vec![parts::packet_socket(facts), interface]
        }
        Device::AfXdp(device) => parts::af_xdp(facts, profile, device),
        Device::Dpdk(device) => dpdk::checks(facts, profile, device),
        Device::Verbs(device) => verbs::checks(facts, profile, device),
        _ => vec![Check::unknown(
            "backend",
            "the doctor does not know this backend",
        )],
    };
    let fits = match checks.iter().map(|check| check.state).max() {
        Some(State::Missing) => Fits::No,
        Some(State::Unknown) => Fits::Perhaps,
        _ => Fits::Yes,
    };
    let build = backend_use(profile.backend);
    Fit {
        profile: profile.name.clone(),
        backend: profile.backend.name(),
        status: profile.status.state.name(),
        preference: profile.preference.value,
        build: match build {
            BackendUse::Processes => "processes",
            BackendUse::Threads => "threads",
            BackendUse::Absent => "absent",
        },
        fits,
        can_run: fits != Fits::No && build == BackendUse::Processes,
        checks,
    }
}

/// The best profile that certainly can run, and why it and no better one.
fn recommend(profiles: &[NicProfile], fits: &[Fit]) -> (Option<String>, String) {
    let both = || profiles.iter().zip(fits);
    let preferred = both().filter(|(_, fit)| fit.preference > 0 && fit.fits == Fits::Yes);
    let runs = preferred.clone().filter(|(_, fit)| fit.can_run);
    let Some((profile, best)) = runs.max_by_key(|(_, fit)| fit.preference) else {
        let why = "no profile that joins processes fits this machine and is part of this build";
        return (None, String::from(why));
    };
    let mut reason = profile.preference.reason.clone();
    if profile.status.state == RunState::NotRun {
        reason += "; nobody has run it yet";
    }
    let better = preferred.filter(|(_, fit)| !fit.can_run && fit.preference > best.preference);
    if let Some((better, _)) = better.max_by_key(|(_, fit)| fit.preference) {
        reason += &format!(
            "; {} would be better and fits this machine, but its backend {} is not part of this build",
            better.name, better.backend
        );
    }
    (Some(best.profile.clone()), reason)
}
