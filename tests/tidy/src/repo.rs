//! The repository as the rules see it: the text of every file that git tracks or would track.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

/// One text file.
#[derive(Clone, Debug)]
pub struct File {
    /// Path relative to the root, with forward slashes.
    pub path: String,
    /// The whole text.
    pub text: String,
}

impl File {
    /// Makes a file in memory; rules are tested on these.
    #[must_use]
    pub fn new(path: &str, text: &str) -> Self {
        Self {
            path: path.to_owned(),
            text: text.to_owned(),
        }
    }

    /// Says whether this is a Rust source file.
    #[must_use]
    pub fn is_rust(&self) -> bool {
        has_extension(&self.path, "rs")
    }

    /// Says whether this is a Markdown document.
    #[must_use]
    pub fn is_markdown(&self) -> bool {
        has_extension(&self.path, "md")
    }
}

fn has_extension(path: &str, extension: &str) -> bool {
    Path::new(path).extension().is_some_and(|e| e == extension)
}

/// All files of the repository.
#[derive(Clone, Debug, Default)]
pub struct Repo {
    /// Text files, by path.
    pub files: Vec<File>,
    /// Paths of all files, binary ones included.
    pub paths: Vec<String>,
}

impl Repo {
    /// Makes a repository in memory from (path, text) pairs.
    #[must_use]
    pub fn in_memory(files: &[(&str, &str)]) -> Self {
        let files: Vec<File> = files
            .iter()
            .map(|(path, text)| File::new(path, text))
            .collect();
        let paths = files.iter().map(|f| f.path.clone()).collect();
        Self { files, paths }
    }

    /// Reads the repository that this crate was built from.
    ///
    /// # Errors
    /// When a listed file cannot be read, or when neither git nor a walk of the directory can list the files.
    pub fn read() -> Result<Self> {
        let root = root();
        let mut repo = Self {
            files: Vec::new(),
            paths: listed(&root)?,
        };
        repo.paths.sort();
        for path in &repo.paths {
            let bytes =
                std::fs::read(root.join(path)).with_context(|| format!("reading {path}"))?;
            if let Ok(text) = String::from_utf8(bytes) {
                repo.files.push(File {
                    path: path.clone(),
                    text,
                });
            }
        }
        Ok(repo)
    }

    /// The file at `path`, if there is one and it is text.
    #[must_use]
    pub fn get(&self, path: &str) -> Option<&File> {
        self.files.iter().find(|f| f.path == path)
    }

    /// Says whether `path` is a file, or a directory that holds one. The root itself is the empty path.
    #[must_use]
    pub fn exists(&self, path: &str) -> bool {
        let path = path.trim_end_matches('/');
        let under = format!("{path}/");
        path.is_empty()
            || self
                .paths
                .iter()
                .any(|p| p == path || p.starts_with(&under))
    }
}

/// The root of the repository: two levels above this crate.
#[must_use]
pub fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here).to_path_buf()
}

/// Tracked files plus new ones that are not ignored; in an unpacked archive without git, everything but build output.
fn listed(root: &Path) -> Result<Vec<String>> {
    let args = [
        "ls-files",
        "-z",
        "--cached",
        "--others",
        "--exclude-standard",
    ];
    let output = Command::new("git").arg("-C").arg(root).args(args).output();
    if let Ok(output) = output
        && output.status.success()
        && !output.stdout.is_empty()
    {
        let text = String::from_utf8(output.stdout).context("a path is not UTF-8")?;
        let present = |p: &&str| !p.is_empty() && root.join(p).is_file();
        return Ok(text
            .split('\0')
            .filter(present)
            .map(str::to_owned)
            .collect());
    }
    let mut paths = Vec::new();
    walk(root, root, &mut paths)?;
    Ok(paths)
}

fn walk(root: &Path, dir: &Path, paths: &mut Vec<String>) -> Result<()> {
    for entry in std::fs::read_dir(dir).with_context(|| format!("listing {}", dir.display()))? {
        let entry = entry?;
        let name = entry.file_name();
        if entry.file_type()?.is_dir() {
            if name != "target" && name != ".git" {
                walk(root, &entry.path(), paths)?;
            }
        } else {
            let path = entry.path();
            let relative = path.strip_prefix(root).unwrap_or(&path);
            paths.push(relative.to_string_lossy().replace('\\', "/"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_exists_when_it_holds_a_file() {
        let repo = Repo::in_memory(&[("docs/a.md", ""), ("x.rs", "")]);
        assert!(
            repo.exists("docs")
                && repo.exists("docs/")
                && repo.exists("docs/a.md")
                && repo.exists("")
        );
        assert!(!repo.exists("doc") && !repo.exists("docs/b.md"));
    }

    #[test]
    fn the_walk_finds_what_git_lists() {
        let mut walked = Vec::new();
        walk(
            &root().join("tests/tidy"),
            &root().join("tests/tidy"),
            &mut walked,
        )
        .expect("the directory is readable");
        assert!(walked.iter().any(|p| p == "src/repo.rs"), "{walked:?}");
    }
}
