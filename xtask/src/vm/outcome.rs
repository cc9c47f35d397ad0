//! What came of a guest, as an exit status or as one sentence with the last lines of its console.

use std::fmt::Write;
use std::time::Duration;

/// How long a guest may take from QEMU's start to the start of its command. An emulated one takes 5 s on an idle machine and a minute on
/// one with ten times as much work as cores.
pub(crate) const BOOT_LIMIT: Duration = Duration::from_secs(240);

/// What a command may write to each of its streams, in bytes.
pub(crate) const OUTPUT_BYTES_MAX: u64 = 1 << 30;

/// Lines of the console that go with a sentence, and how much of each, in characters.
const CONSOLE_LINES_MAX: usize = 12;
const CONSOLE_LINE_CHARS_MAX: usize = 200;

/// How the first stage marks what it says.
const MARK: &str = "ionian-vm: ";

/// How a guest's run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The command ended with this status.
    Exited(u8),
    /// The command was still running when its time was over.
    TimedOut(String),
    /// The machine failed; of the command's effect nothing is known.
    Failed(String),
    /// This program got a signal.
    Interrupted(i32),
}

/// Why a guest is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// QEMU is no more.
    Gone,
    /// The guest wrote why it cannot run the command.
    Told,
    /// The command's time is over.
    CommandLimit(Duration),
    /// The guest has not come to its command.
    BootLimit,
    /// The command wrote more than it may.
    Output,
}

/// What is known of a guest that did not end by its command's status.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts<'a> {
    pub(crate) why: Why,
    /// The command had begun.
    pub(crate) started: bool,
    /// The second stage's own sentence.
    pub(crate) failure: &'a str,
    pub(crate) console: &'a str,
    /// What QEMU itself said.
    pub(crate) qemu: &'a str,
}

impl Facts<'_> {
    /// The sentence, and below it what the console said last.
    pub(crate) fn end(&self) -> End {
        let lines = last_lines(self.console);
        let said = if lines.is_empty() {
            "\nits console is empty".to_owned()
        } else {
            format!("\nits console said last:\n{lines}")
        };
        let sentence = match self.why {
            Why::CommandLimit(limit) => {
                return End::TimedOut(format!(
                    "the command was still running after {} s, and was ended with its guest (--timeout-s N gives it longer){said}",
                    limit.as_secs()
                ));
            }
            Why::Told => self.failure.trim().to_owned(),
            Why::Output => format!(
                "the command wrote more than {OUTPUT_BYTES_MAX} bytes to one of its streams, and was ended: write to a file in $IONIAN_VM_JOB"
            ),
            Why::BootLimit => format!(
                "the guest had not come to its command after {} s, and was ended",
                BOOT_LIMIT.as_secs()
            ),
            Why::Gone => self.gone(),
        };
        End::Failed(format!("{sentence}{said}"))
    }

    /// Why QEMU ended by itself: what the guest says comes before what QEMU says.
    fn gone(&self) -> String {
        let when = if self.started {
            "while the command ran"
        } else {
            "before the command"
        };
        if let Some((_, rest)) = self.console.split_once("Kernel panic") {
            let what = rest.lines().next().unwrap_or_default();
            return format!("the guest's kernel panicked {when}{}", clean(what));
        }
        let marked = self.console.lines().rev().find_map(|l| l.split_once(MARK));
        if let Some((_, what)) = marked.filter(|_| !self.started) {
            return format!("the guest could not boot: {}", clean(what));
        }
        if self.started {
            return "the guest was reset or switched off by its own command, so that there is no exit status"
                .to_owned();
        }
        let qemu = self.qemu.lines().rfind(|l| !l.trim().is_empty());
        qemu.map_or_else(
            || format!("QEMU ended {when} without a word"),
            |said| format!("QEMU ended {when}: {}", clean(said)),
        )
    }
}

/// The exit status that a guest wrote, if all of it is there.
pub(crate) fn status(text: &str) -> Option<u8> {
    text.strip_suffix('\n')?.parse().ok()
}

/// The end of the console, bounded, without what would move a terminal's cursor.
pub(crate) fn last_lines(console: &str) -> String {
    let lines: Vec<String> = console
        .lines()
        .map(clean)
        .filter(|l| !l.trim().is_empty())
        .collect();
    let first = lines.len().saturating_sub(CONSOLE_LINES_MAX);
    let mut text = String::new();
    for line in lines.iter().skip(first) {
        let _ = writeln!(text, "  | {line}");
    }
    text
}

fn clean(line: &str) -> String {
    let printable = line.chars().filter(|c| !c.is_control());
    printable.take(CONSOLE_LINE_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONSOLE: &str = "[    1.0] first\r\n\r\n[    2.0] last\x1b[2J\r\n";

    fn facts(why: Why, started: bool, console: &'static str) -> Facts<'static> {
        Facts {
            why,
            started,
            failure: "the kernel module x could not be loaded: no\n",
            console,
            qemu: "warning\nqemu: no such device\n\n",
        }
    }

    fn failed(facts: Facts<'_>) -> String {
        match facts.end() {
            End::Failed(told) => told,
            other => panic!("it is {other:?}"),
        }
    }

    #[test]
    fn a_status_counts_when_it_is_whole() {
        assert_eq!(status("7\n"), Some(7));
        assert_eq!(status("0\n"), Some(0));
        for partial in ["", "1", "12", "x\n", "256\n", "\n"] {
            assert_eq!(status(partial), None, "{partial}");
        }
    }

    #[test]
    fn every_failure_is_a_sentence_with_the_last_lines_of_the_console() {
        let told = failed(facts(Why::Told, false, CONSOLE));
        assert!(
            told.starts_with("the kernel module x could not be loaded: no\n"),
            "{told}"
        );
        assert!(
            told.ends_with("  | [    1.0] first\n  | [    2.0] last[2J\n"),
            "{told}"
        );
        let qemu = failed(facts(Why::Gone, false, ""));
        assert!(
            qemu.starts_with("QEMU ended before the command: qemu: no such device"),
            "{qemu}"
        );
        assert!(qemu.ends_with("its console is empty"), "{qemu}");
        let boot = failed(facts(Why::BootLimit, false, CONSOLE));
        assert!(boot.contains("240 s"), "{boot}");
        assert!(failed(facts(Why::Output, true, "")).contains("$IONIAN_VM_JOB"));
    }

    #[test]
    fn a_panic_is_told_before_all_else_and_the_first_stage_before_qemu() {
        let panic =
            "x\nionian-vm: odd\n[ 3.1] Kernel panic - not syncing: sysrq triggered crash\nmore\n";
        let told = failed(facts(Why::Gone, true, panic));
        assert!(
            told.starts_with(
                "the guest's kernel panicked while the command ran - not syncing: sysrq"
            ),
            "{told}"
        );
        let boot = "ionian-vm: the share 'job' could not be mounted over 9p\n[ 2.0] reset\n";
        let told = failed(facts(Why::Gone, false, boot));
        assert!(
            told.starts_with("the guest could not boot: the share 'job'"),
            "{told}"
        );
        let told = failed(facts(Why::Gone, true, CONSOLE));
        assert!(told.starts_with("the guest was reset"), "{told}");
    }

    #[test]
    fn a_command_that_hangs_is_told_with_its_time() {
        let limit = Duration::from_secs(7);
        match facts(Why::CommandLimit(limit), true, CONSOLE).end() {
            End::TimedOut(told) => assert!(told.contains("after 7 s"), "{told}"),
            other => panic!("it is {other:?}"),
        }
    }

    #[test]
    fn a_long_console_is_cut() {
        let long = "x".repeat(10_000);
        let console = vec![long; 100].join("\n");
        let lines = last_lines(&console);
        assert_eq!(lines.lines().count(), CONSOLE_LINES_MAX);
        assert!(lines.lines().all(|l| l.len() <= CONSOLE_LINE_CHARS_MAX + 4));
    }
}
