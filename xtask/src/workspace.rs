//! Where things are: the root, the target directory, the packages and what they offer; and how cargo is called.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use cargo_metadata::{Metadata, MetadataCommand};

/// The package of the tests that drive real processes; they run in a stage of their own.
pub(crate) const SYSTEM_TESTS: &str = "ionian-system-tests";

/// The package of the repository's own rules; a stage of its own, too.
pub(crate) const TIDY: &str = "ionian-tidy";

/// The simulator: the stage `seeds` runs it.
pub(crate) const SIMULATOR: &str = "ionian-sim";

/// The profile that it is built with: as what is shipped, but a panic of a machine is a failure of its seed and no more.
const SIMULATOR_PROFILE: &str = "sim";

/// What `cargo run` is called with for a program of the simulator's package; the program's own arguments follow.
pub(crate) fn simulator_arguments(program: &str) -> [&str; 8] {
    [
        "--quiet",
        "--profile",
        SIMULATOR_PROFILE,
        "-p",
        SIMULATOR,
        "--bin",
        program,
        "--",
    ]
}

/// One feature of one package of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Feature {
    pub(crate) package: String,
    pub(crate) name: String,
    /// It only switches on features of other packages of ours; those are tested where they are defined.
    pub(crate) forwards: bool,
}

/// The workspace as the commands need it.
#[derive(Debug)]
pub(crate) struct Workspace {
    pub(crate) root: PathBuf,
    pub(crate) target: PathBuf,
    metadata: Metadata,
}

impl Workspace {
    /// Asks cargo. Works from any folder, because the root is known from when this program was built.
    pub(crate) fn read() -> Result<Self> {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let root = here.parent().unwrap_or(here).to_path_buf();
        let metadata = describe(&root.join("Cargo.toml"))?;
        let target = metadata.target_directory.clone().into_std_path_buf();
        Ok(Self {
            root,
            target,
            metadata,
        })
    }

    /// A cargo command at the root that leaves the lock file alone.
    pub(crate) fn cargo(&self, subcommand: &str) -> Command {
        let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command.current_dir(&self.root).arg(subcommand);
        if subcommand != "fmt" {
            command.arg("--locked");
        }
        command
    }

    /// The folder for what the commands write: logs, working copies of corpora, reproducers.
    pub(crate) fn scratch(&self, name: &str) -> Result<PathBuf> {
        let dir = self.target.join(name);
        std::fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
        Ok(dir)
    }

    /// Says whether a package of ours has a binary target.
    pub(crate) fn has_binary(&self, package: &str) -> bool {
        let mut packages = self.metadata.packages.iter();
        packages.any(|p| {
            p.name.as_str() == package && p.targets.iter().any(cargo_metadata::Target::is_bin)
        })
    }

    /// Packages of ours with an integration test of this name.
    pub(crate) fn with_test(&self, test: &str) -> Vec<String> {
        let has =
            |p: &&cargo_metadata::Package| p.targets.iter().any(|t| t.is_test() && t.name == test);
        self.metadata
            .packages
            .iter()
            .filter(has)
            .map(|p| p.name.to_string())
            .collect()
    }

    /// All features of packages of ours but `default`.
    pub(crate) fn features(&self) -> Vec<Feature> {
        let mut features = Vec::new();
        for package in &self.metadata.packages {
            for (name, parts) in package
                .features
                .iter()
                .filter(|(name, _)| name.as_str() != "default")
            {
                let forwards = !parts.is_empty()
                    && parts
                        .iter()
                        .all(|p| p.starts_with("ionian-") && p.contains('/'));
                features.push(Feature {
                    package: package.name.to_string(),
                    name: name.clone(),
                    forwards,
                });
            }
        }
        features
    }
}

/// What cargo says about one manifest, without the packages of others.
pub(crate) fn describe(manifest: &Path) -> Result<Metadata> {
    let mut command = MetadataCommand::new();
    command
        .manifest_path(manifest)
        .no_deps()
        .other_options(vec!["--locked".to_owned()]);
    command
        .exec()
        .with_context(|| format!("cargo metadata of {}", manifest.display()))
}
