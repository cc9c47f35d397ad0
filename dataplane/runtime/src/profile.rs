//! NIC profiles: the tuning of each network backend as data, with the source of every value.
//!
//! A profile is a TOML file. Every value says its unit, where it comes from and why it is what it is; unknown keys are
//! errors. Profiles are read at start only. Those in `nic-profiles/` are built in.

use serde::Deserialize;
use thiserror::Error;

/// A value with its unit and the grounds for it.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Setting {
    /// The value.
    pub value: u64,
    /// Its unit.
    pub unit: String,
    /// Where it comes from: a standard, a manual, a measurement.
    pub source: String,
    /// Why this value.
    pub reason: String,
}

/// Whether a profile has been used on real equipment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RunState {
    /// The suite ran with it.
    Run,
    /// Written from documents; never run.
    NotRun,
}

/// When and where a profile was last run.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Status {
    /// Whether it was run.
    pub state: RunState,
    /// Day of the last run, or of the writing, as year-month-day.
    pub date: String,
    /// The machine it was run on, or is meant for.
    pub machine: String,
}

/// How to use one kind of network.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NicProfile {
    /// Its name, that of its file.
    pub name: String,
    /// The driver, e.g. `udp`.
    pub backend: String,
    /// Profiles that may take its place where it does not work, best first. None is taken silently.
    pub fallback: Vec<String>,
    /// Whether it has been run.
    pub status: Status,
    /// Bytes of one packet, or of one message of a fabric.
    pub mtu_bytes: Setting,
    /// Room for what arrives, in the unit it names.
    pub rx_depth: Setting,
    /// Room for what leaves, in the unit it names.
    pub tx_depth: Setting,
    /// Packets or messages of one call.
    pub batch: Setting,
    /// What a session may have under way.
    pub credits: Setting,
    /// Shortest retransmission timeout in microseconds; 0 on a reliable fabric.
    pub rto_us_min: Setting,
    /// Longest retransmission timeout in microseconds.
    pub rto_us_max: Setting,
    /// How long a reactor with its own core spins, in microseconds.
    pub spin_us: Setting,
}

/// Why a profile was refused.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum ProfileError {
    /// The text is not a profile; the message names line and key.
    #[error("{file}:{line}: {message}")]
    Syntax {
        /// The file, or a name for the text.
        file: String,
        /// The line, from 1.
        line: usize,
        /// What is wrong, and where.
        message: String,
    },
    /// A value is out of its range, or contradicts another.
    #[error("{file}:{line}: {key}: {message}")]
    Value {
        /// The file, or a name for the text.
        file: String,
        /// The line where the key's table begins, from 1.
        line: usize,
        /// The key.
        key: &'static str,
        /// What is wrong.
        message: String,
    },
}

impl NicProfile {
    /// The profile of this name that comes with the program.
    #[must_use]
    pub fn builtin(name: &str) -> Option<Self> {
        let (name, text) = BUILTIN.iter().find(|(known, _)| *known == name)?;
        Self::parse(&format!("{name}.toml"), text).ok()
    }

    /// The names of the profiles that come with the program.
    pub fn builtin_names() -> impl Iterator<Item = &'static str> {
        BUILTIN.iter().map(|(name, _)| *name)
    }

    /// Parses and checks a profile. `file` is for messages.
    ///
    /// # Errors
    ///
    /// [`ProfileError`], naming file, line and key.
    pub fn parse(file: &str, text: &str) -> Result<Self, ProfileError> {
        let profile: Self = toml::from_str(text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start);
            ProfileError::Syntax {
                file: file.to_owned(),
                line: line_of(text, at),
                message: error.message().to_owned(),
            }
        })?;
        profile.check().map_err(|(key, message)| {
            // A value stands below the head of its own table, a key without a table by itself.
            let starts = |line: &str| {
                let line = line.trim_start();
                line.starts_with(&format!("[{key}]")) || line.starts_with(&format!("{key} "))
            };
            let line = text.lines().position(starts).map_or(1, |line| line + 1);
            ProfileError::Value {
                file: file.to_owned(),
                line,
                key,
                message,
            }
        })?;
        Ok(profile)
    }

    fn settings(&self) -> [(&'static str, &Setting); 8] {
        [
            ("mtu_bytes", &self.mtu_bytes),
            ("rx_depth", &self.rx_depth),
            ("tx_depth", &self.tx_depth),
            ("batch", &self.batch),
            ("credits", &self.credits),
            ("rto_us_min", &self.rto_us_min),
            ("rto_us_max", &self.rto_us_max),
            ("spin_us", &self.spin_us),
        ]
    }

    fn check(&self) -> Result<(), (&'static str, String)> {
        let between = |key, setting: &Setting, least: u64, most: u64| {
            let inside = (least..=most).contains(&setting.value);
            if inside {
                Ok(())
            } else {
                Err((
                    key,
                    format!("{} is not within {least}..={most}", setting.value),
                ))
            }
        };
        between("mtu_bytes", &self.mtu_bytes, 576, 1 << 20)?;
        between("rx_depth", &self.rx_depth, 1, 1 << 30)?;
        between("tx_depth", &self.tx_depth, 1, 1 << 30)?;
        between("batch", &self.batch, 1, 1024)?;
        between("credits", &self.credits, 1, self.rx_depth.value)?;
        between("rto_us_max", &self.rto_us_max, 0, 10_000_000)?;
        between("rto_us_min", &self.rto_us_min, 0, self.rto_us_max.value)?;
        between("spin_us", &self.spin_us, 0, 1_000_000)?;
        for (
            key,
            Setting {
                unit,
                source,
                reason,
                ..
            },
        ) in self.settings()
        {
            if [unit, source, reason]
                .iter()
                .any(|text| text.trim().is_empty())
            {
                return Err((key, "unit, source and reason must say something".into()));
            }
        }
        if self.fallback.contains(&self.name) {
            return Err(("fallback", "a profile is not its own fallback".into()));
        }
        Ok(())
    }
}

/// The profiles that come with the program, by the name of their file.
const BUILTIN: [(&str, &str); 2] = [
    ("shm", include_str!("../../../nic-profiles/shm.toml")),
    ("udp", include_str!("../../../nic-profiles/udp.toml")),
];

/// The line of a place in a text, from 1.
fn line_of(text: &str, at: usize) -> usize {
    text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1
}

/// The profiles that come with the program.
///
/// # Errors
///
/// [`ProfileError`] if one of them is wrong, which a test excludes.
pub fn builtin_profiles() -> Result<Vec<NicProfile>, ProfileError> {
    BUILTIN
        .iter()
        .map(|(name, text)| NicProfile::parse(&format!("{name}.toml"), text))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    const UDP: &str = BUILTIN[1].1;

    #[test]
    fn every_profile_in_the_directory_is_built_in_and_right() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../nic-profiles");
        let mut files: Vec<String> = fs::read_dir(dir)
            .expect("the directory is in the repository")
            .map(|entry| {
                entry
                    .expect("readable")
                    .file_name()
                    .into_string()
                    .expect("UTF-8")
            })
            .filter(|name| name.ends_with(".toml"))
            .collect();
        files.sort();
        let profiles = builtin_profiles().expect("all are right");
        let names: Vec<String> = profiles
            .iter()
            .map(|profile| format!("{}.toml", profile.name))
            .collect();
        assert_eq!(names, files);
        for profile in &profiles {
            for fallback in &profile.fallback {
                assert!(
                    profiles.iter().any(|other| other.name == *fallback),
                    "{}: {fallback}",
                    profile.name
                );
            }
        }
    }

    #[test]
    fn mistakes_are_named() {
        let error = |from: &str, to: &str| {
            assert!(UDP.contains(from), "{from}");
            NicProfile::parse("x.toml", &UDP.replacen(from, to, 1))
                .expect_err("a mistake")
                .to_string()
        };
        let line = |part: &str| UDP.lines().position(|line| line == part).expect("there") + 1;
        let typo = error("[credits]\nvalue", "[credits]\nvlaue");
        let place = format!("x.toml:{}: unknown field `vlaue`", line("[credits]") + 1);
        assert!(typo.starts_with(&place), "{typo}");
        let speed = error("name = \"udp\"", "name = \"udp\"\nspeed = 1");
        assert!(speed.contains("x.toml:3: unknown field `speed`"), "{speed}");
        let credits = error("value = 512\n", "value = 4096\n");
        let place = format!(
            "x.toml:{}: credits: 4096 is not within 1..=2048",
            line("[credits]")
        );
        assert!(credits.contains(&place), "{credits}");
        assert!(error("value = 64\n", "value = -1\n").contains("x.toml:"));
        assert!(error("state = \"run\"", "state = \"perhaps\"").contains("unknown variant"));
        assert!(error("fallback = []", "fallback = [\"udp\"]").contains("fallback"));
        assert!(error("unit = \"packets per session\"", "unit = \" \"").contains("credits"));
        assert!(error("[spin_us]", "[spins_us]").contains("spin"));
        assert!(error("value = 500\n", "value = 200001\n").contains("rto_us_min"));
        assert!(NicProfile::builtin("udp").is_some() && NicProfile::builtin("tcp").is_none());
    }
}
