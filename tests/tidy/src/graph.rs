//! The crates and their dependencies, reduced from what `cargo metadata` reports to what the rules ask about.

use std::path::Path;

use anyhow::{Context, Result};
use cargo_metadata::{DependencyKind, MetadataCommand};

/// How a dependency is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Linked into the crate, or used by its build script.
    Normal,
    /// Used by tests, examples and benches only.
    Dev,
}

/// A dependency as its crate's manifest declares it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dependency {
    /// Name of the package depended on.
    pub name: String,
    /// How it is used.
    pub kind: Kind,
}

/// One package, ours or another's.
#[derive(Clone, Debug, Default)]
pub struct Package {
    /// Name as in the manifest.
    pub name: String,
    /// The description, if it has one.
    pub description: Option<String>,
    /// The SPDX expression, if it has one.
    pub license: Option<String>,
    /// The version, as cargo resolved it.
    pub version: String,
    /// Whether it belongs to this repository.
    pub ours: bool,
    /// The manifest, relative to the root of the repository; empty for packages of others.
    pub manifest: String,
    /// Root files of its library and binary targets, relative to the root of the repository; empty for packages of others.
    pub roots: Vec<String>,
    /// What it declares, in any target or feature.
    pub dependencies: Vec<Dependency>,
}

/// All packages of one workspace, those of others included.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    /// The packages, in the order cargo gives.
    pub packages: Vec<Package>,
}

impl Graph {
    /// Asks cargo about the manifest at `root/manifest`. The lock file is not changed.
    ///
    /// # Errors
    /// When cargo fails: the manifest or the lock file is not valid or not up to date.
    pub fn read(root: &Path, manifest: &str) -> Result<Self> {
        let metadata = MetadataCommand::new()
            .manifest_path(root.join(manifest))
            .other_options(vec!["--locked".to_owned()])
            .exec()
            .with_context(|| format!("cargo metadata of {manifest}"))?;
        let relative = |path: &str| {
            Path::new(path)
                .strip_prefix(root)
                .map(|p| p.to_string_lossy().into_owned())
        };
        let mut packages = Vec::new();
        for package in metadata.packages {
            let ours = package.source.is_none();
            let mut roots = Vec::new();
            if ours {
                let wanted = package
                    .targets
                    .iter()
                    .filter(|t| t.is_lib() || t.is_bin() || t.is_proc_macro());
                roots.extend(wanted.filter_map(|t| relative(t.src_path.as_str()).ok()));
            }
            let declared = package.dependencies.iter().map(|d| Dependency {
                name: d.name.clone(),
                kind: if d.kind == DependencyKind::Development {
                    Kind::Dev
                } else {
                    Kind::Normal
                },
            });
            packages.push(Package {
                name: package.name.to_string(),
                dependencies: declared.collect(),
                description: package.description,
                license: package.license,
                version: package.version.to_string(),
                ours,
                manifest: if ours {
                    relative(package.manifest_path.as_str()).unwrap_or_default()
                } else {
                    String::new()
                },
                roots,
            });
        }
        Ok(Self { packages })
    }

    /// The packages of this repository.
    pub fn ours(&self) -> impl Iterator<Item = &Package> {
        self.packages.iter().filter(|p| p.ours)
    }
}

#[cfg(test)]
pub(crate) fn fixture(name: &str, dependencies: &[(&str, Kind)]) -> Package {
    Package {
        name: name.to_owned(),
        description: Some("A fixture".to_owned()),
        license: Some("Apache-2.0 OR MIT".to_owned()),
        version: "0.1.0".to_owned(),
        ours: true,
        manifest: format!("{name}/Cargo.toml"),
        roots: vec![format!("{name}/src/lib.rs")],
        dependencies: dependencies
            .iter()
            .map(|&(name, kind)| Dependency {
                name: name.to_owned(),
                kind,
            })
            .collect(),
    }
}
