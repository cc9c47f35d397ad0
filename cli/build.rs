//! Finds out which commit is built, for `--version`. Without git, or outside a checkout, it is "unknown".

use std::path::Path;
use std::process::Command;

fn main() {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").args(arguments).output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        output.status.success().then(|| text.trim().to_owned())
    };
    let commit = git(&["rev-parse", "--short=12", "HEAD"]).filter(|commit| !commit.is_empty());
    println!(
        "cargo::rustc-env=IONIAN_COMMIT={}",
        commit.as_deref().unwrap_or("unknown")
    );
    println!("cargo::rerun-if-changed=build.rs");
    // HEAD names a branch; the branch's own file changes with every commit to it.
    let head = git(&["rev-parse", "--git-path", "HEAD"]);
    let branch =
        git(&["symbolic-ref", "HEAD"]).and_then(|name| git(&["rev-parse", "--git-path", &name]));
    for file in [head, branch].into_iter().flatten() {
        if Path::new(&file).exists() {
            println!("cargo::rerun-if-changed={file}");
        }
    }
}
