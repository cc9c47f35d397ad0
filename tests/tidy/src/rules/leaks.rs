//! The repository refers to nothing of one person's machine: no path below a home or work folder, no host name of a registry.

use crate::Finding;
use crate::repo::Repo;

/// Top folders that belong to one machine. A path is such a folder between slashes, at its beginning.
const MACHINE_FOLDERS: &[&str] = &["home", "root", "work", "Users"];

/// Registries; the second part of each name is split off so that this file may say it.
const REGISTRY_HOSTS: &[(&str, &str)] = &[
    ("crates", ".io"),
    ("static.rust-lang", ".org"),
    ("registry.npmjs", ".org"),
    ("pypi", ".org"),
    ("docker", ".io"),
    ("ghcr", ".io"),
    ("quay", ".io"),
    ("deb.debian", ".org"),
];

/// Looks through every text file but the lock files, in which cargo names its registry.
#[must_use]
pub fn check(repo: &Repo) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in repo
        .files
        .iter()
        .filter(|f| !f.path.ends_with("Cargo.lock"))
    {
        for (index, line) in file.text.lines().enumerate() {
            let what = match (machine_path(line), registry(line)) {
                (Some(folder), _) => format!("names a path of one machine (/{folder}/...)"),
                (None, Some(host)) => format!("names the registry host {host}"),
                (None, None) => continue,
            };
            findings.push(Finding {
                path: file.path.clone(),
                line: index + 1,
                rule: "leaks",
                what,
                remedy: "name things by their place in the repository, packages by their name",
            });
        }
    }
    findings
}

fn machine_path(line: &str) -> Option<&'static str> {
    let starts = |folder: &str| {
        let path = format!("/{folder}/");
        line.match_indices(&path).any(|(at, _)| {
            let before = line.get(..at).and_then(|s| s.chars().next_back());
            !before.is_some_and(|c| {
                c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '/' | '*' | '}' | '>')
            })
        })
    };
    MACHINE_FOLDERS
        .iter()
        .copied()
        .find(|folder| starts(folder))
}

fn registry(line: &str) -> Option<String> {
    let mut hosts = REGISTRY_HOSTS
        .iter()
        .map(|(name, end)| format!("{name}{end}"));
    hosts.find(|host| line.contains(host.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(line: &str) -> usize {
        check(&Repo::in_memory(&[("a.md", line)])).len()
    }

    #[test]
    fn paths_of_a_machine_are_found_and_paths_of_the_repository_are_not() {
        for folder in MACHINE_FOLDERS {
            assert_eq!(found(&format!("see `/{folder}/me/notes`")), 1, "{folder}");
            assert_eq!(
                found(&format!(
                    "see dataplane/core/src/{folder}/mod.rs and ./{folder}/x"
                )),
                0,
                "{folder}"
            );
        }
        assert_eq!(found("ls /tmp /etc/os-release /sys/devices"), 0);
    }

    #[test]
    fn registry_hosts_are_found_except_in_lock_files() {
        for (name, end) in REGISTRY_HOSTS {
            let line = format!("fetch https://index.{name}{end}/x");
            assert_eq!(found(&line), 1, "{line}");
            assert_eq!(
                check(&Repo::in_memory(&[("tests/fuzz/Cargo.lock", &line)])),
                vec![]
            );
        }
    }
}
