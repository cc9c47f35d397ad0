//! The folder of one run, gone at its end; what a run left behind that was killed goes with the next one.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result};

/// Runs of this process so far.
static COUNT: AtomicU32 = AtomicU32::new(0);

/// A folder named after this process and the run.
#[derive(Debug)]
pub(crate) struct Place {
    path: PathBuf,
}

impl Place {
    /// Makes it below `runs`, and removes those of processes that are no more.
    pub(crate) fn make(runs: &Path) -> Result<Self> {
        sweep(runs);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = runs.join(format!("{}-{count}", std::process::id()));
        // One of an earlier process with the same id, which nobody removed.
        if path.exists() {
            std::fs::remove_dir_all(&path)
                .with_context(|| format!("removing {}", path.display()))?;
        }
        std::fs::create_dir_all(&path).with_context(|| format!("making {}", path.display()))?;
        Ok(Self { path })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.path) {
            eprintln!("vm: {} stays: {error}", self.path.display());
        }
    }
}

fn sweep(runs: &Path) {
    let Ok(entries) = std::fs::read_dir(runs) else {
        return;
    };
    for entry in entries.filter_map(Result::ok) {
        let name = entry.file_name().to_string_lossy().into_owned();
        let owner = name
            .split_once('-')
            .and_then(|(id, _)| id.parse::<u32>().ok());
        let alive = |id: u32| Path::new(&format!("/proc/{id}")).exists();
        // Another run may remove it at the same time; one of them does.
        if owner.is_some_and(|id| !alive(id)) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_goes_with_its_run_and_with_it_those_of_dead_processes() {
        let program = std::env::current_exe().expect("a running test has a program");
        let runs = program.with_file_name(format!("xtask-places-{}", std::process::id()));
        // No process has this id: it is above the most that Linux gives.
        let dead = runs.join("4194305-0");
        let other = runs.join("notes");
        for folder in [&dead, &other] {
            std::fs::create_dir_all(folder).expect("made");
        }
        let (first, second) = {
            let first = Place::make(&runs).expect("made");
            let second = Place::make(&runs).expect("made");
            std::fs::write(first.path().join("file"), "x").expect("written");
            assert!(first.path().is_dir() && second.path().is_dir());
            assert_ne!(first.path(), second.path());
            (first.path().to_owned(), second.path().to_owned())
        };
        assert!(!first.exists() && !second.exists() && !dead.exists());
        assert!(other.exists(), "what is no run stays");
        std::fs::remove_dir_all(&runs).expect("removed");
    }
}
