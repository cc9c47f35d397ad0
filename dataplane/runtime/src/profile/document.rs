//! What documents say of profiles, made from the profiles and the table of keys, so that it cannot be out of date.

use std::fmt::Write;

use super::keys::{KeyKind, PROFILE_KEYS};
use super::{Backend, NicProfile, RunState};

/// The table of the profiles that come with the program, for the README. A test keeps it equal to the files.
#[must_use]
pub fn profiles_markdown(profiles: &[NicProfile]) -> String {
    let mut out = String::from("| profile | backend | for | run |\n|---|---|---|---|\n");
    for profile in profiles {
        let status = &profile.status;
        let run = match status.state {
            RunState::Run => format!("{}, {}", status.date, status.machine),
            RunState::NotRun => String::from("*not run*"),
        };
        let purpose = match status.state {
            RunState::Run => profile.preference.reason.as_str(),
            RunState::NotRun => status.machine.as_str(),
        };
        let _ = writeln!(
            out,
            "| [`{name}`](nic-profiles/{name}.toml) | `{}` | {purpose} | {run} |",
            profile.backend,
            name = profile.name
        );
    }
    out
}

/// The chapter on the keys of profiles, for `docs/configuration.md`.
#[must_use]
pub fn profile_keys_markdown() -> String {
    let mut out = String::from(
        "| key | value | backends | meaning |\n|---|---|---|---|\n\
         | `name` | text | all | Its name, that of its file. |\n\
         | `backend` | ",
    );
    let backends: Vec<&str> = Backend::ALL.iter().map(|backend| backend.name()).collect();
    let _ = write!(
        out,
        "`{}` | all | The driver. |\n\
         | `fallback` | a list of profiles | all | Profiles that may take its place where it cannot be used, best first. None is taken unless it is named here, and the process says so. |\n\
         | `[status]` | `state` (`run`, `not-run`), `date`, `machine` | all | Whether it was run, when, and on what; for one that was not, what it is meant for. |\n",
        backends.join("`, `")
    );
    for key in PROFILE_KEYS {
        let whose = if key.backends.len() == Backend::ALL.len() {
            String::from("all")
        } else {
            let names: Vec<&str> = key.backends.iter().map(|backend| backend.name()).collect();
            format!("`{}`", names.join("`, `"))
        };
        let _ = writeln!(
            out,
            "| `[{}]` | {} | {whose} | {} |",
            key.name,
            kind(key.kind),
            key.doc
        );
    }
    out
}

fn kind(kind: KeyKind) -> String {
    match kind {
        KeyKind::Number { min, max } => format!("{min} to {max}"),
        KeyKind::Text { bytes_max } => format!("text of at most {bytes_max} bytes"),
        KeyKind::Choice(words) => format!("`{}`", words.join("`, `")),
        KeyKind::Switch => String::from("`true`, `false`"),
        KeyKind::PciIds => String::from("a list of `vvvv:dddd`"),
    }
}

/// Where the README's table begins.
pub const TABLE_BEGINS: &str = "<!-- The next table is made by `cargo xtask profiles`. -->\n";
/// Where it ends.
pub const TABLE_ENDS: &str = "<!-- End of the table of profiles. -->\n";

/// A document with its table of profiles made new; `None` where it has no place for one.
#[must_use]
pub fn with_profiles_table(document: &str, profiles: &[NicProfile]) -> Option<String> {
    let (before, rest) = document.split_once(TABLE_BEGINS)?;
    let (_, after) = rest.split_once(TABLE_ENDS)?;
    let table = profiles_markdown(profiles);
    Some(format!(
        "{before}{TABLE_BEGINS}\n{table}\n{TABLE_ENDS}{after}"
    ))
}
