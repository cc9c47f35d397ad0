//! The system's own tools, each run to its end within a limit.

use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::process::{exit_within, kill};

/// How long a tool may take.
const LIMIT: Duration = Duration::from_secs(30);

/// Runs a tool that must succeed.
///
/// # Errors
/// When it is not there, fails (with what it said), or does not end.
pub(crate) fn run(program: &str, arguments: &[&str]) -> Result<()> {
    run_with_input(program, arguments, "")
}

/// As [`run`], with text at its standard input.
///
/// # Errors
/// As [`run`].
pub(crate) fn run_with_input(program: &str, arguments: &[&str], input: &str) -> Result<()> {
    let what = || format!("`{program} {}`", arguments.join(" "));
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("starting {}", what()))?;
    if let Some(mut stdin) = child.stdin.take() {
        // Inputs are smaller than a pipe; a tool that ends before it has read them says why.
        let _ = stdin.write_all(input.as_bytes());
    }
    let Some(status) = exit_within(&mut child, LIMIT)? else {
        kill(&mut child)?;
        bail!("{} did not end in {} s", what(), LIMIT.as_secs());
    };
    if !status.success() {
        let mut said = String::new();
        if let Some(mut stderr) = child.stderr.take() {
            use std::io::Read;
            // It has ended; whatever it said is in the pipe.
            let _ = stderr.read_to_string(&mut said);
        }
        bail!("{} ended with {status}: {}", what(), said.trim());
    }
    Ok(())
}

/// Whether a program can be started.
pub(crate) fn answers(program: &str) -> bool {
    let mut command = Command::new(program);
    command
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command.status().is_ok()
}

/// Whether this process is root's.
pub(crate) fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}

/// Whether something is called `PREFIX PID -...` after a process that is no more.
pub(crate) fn owner_is_gone(name: &str, prefix: &str) -> bool {
    let Some(rest) = name.strip_prefix(prefix) else {
        return false;
    };
    let pid = rest.split('-').next().unwrap_or_default();
    pid.parse::<u32>().is_ok() && !Path::new("/proc").join(pid).exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tool_that_fails_says_why() {
        run("sh", &["-c", "exit 0"]).unwrap();
        run_with_input("sh", &["-c", "read line; test $line = x"], "x\n").unwrap();
        let error = run("sh", &["-c", "echo because >&2; exit 3"]).unwrap_err();
        assert!(error.to_string().ends_with(": because"), "{error}");
        assert!(run("no-such-program-here", &[]).is_err() && !answers("no-such-program-here"));
    }

    #[test]
    fn only_what_carries_the_number_of_a_dead_process_is_left_over() {
        let own = format!("ionian-{}-0", std::process::id());
        assert!(!owner_is_gone(&own, "ionian-"));
        // Beyond the largest process number that Linux knows.
        assert!(owner_is_gone("ionian-4194305-0-br", "ionian-"));
        assert!(!owner_is_gone("ionian-x-0", "ionian-"));
        assert!(!owner_is_gone("other-4194305", "ionian-"));
    }
}
