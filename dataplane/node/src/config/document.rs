//! `docs/configuration.md`, made from the table of keys.

use std::fmt::Write;

use ionian_runtime::profile_keys_markdown;

use super::schema::{Key, Kind, Missing, SECTIONS};
use super::size::format_size;

/// The text of `docs/configuration.md`. A test keeps the file equal to it.
#[must_use]
pub fn configuration_markdown() -> String {
    let mut out = String::from(
        "# Configuration\n\n\
         A cluster is described by one TOML file, the same on every node; `ionian config check FILE` checks it, and\n\
         [`examples/cluster.toml`](examples/cluster.toml) is one to start from. Unknown keys are errors. Every error is reported with its line,\n\
         all in one go, and the exit code is 2. Paths are relative to the file's folder. A change takes effect when a node is restarted.\n\n\
         Sizes are whole numbers with a unit (`B kB MB GB TB KiB MiB GiB TiB`), in quotes; a bare number is bytes.\n\n\
         This page is made from the table of keys in `dataplane/node/src/config/schema.rs`, and that of profiles in\n\
         `dataplane/runtime/src/profile/keys.rs`.\n",
    );
    for section in SECTIONS {
        let title = match (section.name, section.many) {
            ("", _) => String::from("Before the first section"),
            (name, true) => format!("`[[{name}]]`"),
            (name, false) => format!("`[{name}]`"),
        };
        let _ = write!(
            out,
            "\n## {title}\n\n{}\n\n| key | value | default | meaning |\n|---|---|---|---|\n",
            section.doc
        );
        for key in section.keys {
            let _ = writeln!(
                out,
                "| `{}` | {} | {} | {} |",
                key.name,
                kind(key),
                default(key),
                key.doc
            );
        }
    }
    let _ = write!(
        out,
        "\n## NIC profiles\n\n\
         A profile is a TOML file: those of [`nic-profiles/`](../nic-profiles), or one like them that `nic_profile` names by its path. A key in\n\
         brackets below is a table with `value`, `unit`, `source` and `reason`, all of them required, and so is every key of the profile's\n\
         backend. Unknown keys, and keys of another backend, are errors with their line and the key that may have been meant.\n\
         `ionian doctor` says which profiles fit a machine: [choose a profile](operations/choose-a-profile.md).\n\n{}",
        profile_keys_markdown()
    );
    out
}

fn kind(key: &Key) -> String {
    match key.kind {
        Kind::Name => String::from("1 to 64 of `a-z 0-9 - _ .`"),
        Kind::Profile => String::from("a name, or a path that ends with `.toml`"),
        Kind::Path => String::from("a path"),
        Kind::Address => String::from("`host:port`"),
        Kind::Integer { unit, min, max } => {
            let unit = if unit.is_empty() {
                String::new()
            } else {
                format!(" {unit}")
            };
            format!("{min} to {max}{unit}")
        }
        Kind::Size { min, max: u64::MAX } => format!("at least {}", format_size(min)),
        Kind::Size { min, max } => format!("{} to {}", format_size(min), format_size(max)),
        Kind::Choice(words) => format!("`{}`", words.join("`, `")),
        Kind::Choices(words) => format!("a list of `{}`", words.join("`, `")),
        Kind::Nodes => String::from("a node's name, or a list of them"),
        Kind::Cores => String::from("a list of core numbers"),
        Kind::Placement => String::from("a list of lists of node names"),
    }
}

fn default(key: &Key) -> String {
    match key.missing {
        Missing::Required => String::from("required"),
        Missing::Value(value) => format!("`{value}`"),
        Missing::Meaning(words) => words.to_owned(),
    }
}
