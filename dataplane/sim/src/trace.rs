//! What `--trace` prints: a line for every message as it is sent, every start, end and connection of a process, every fault
//! and phase, and every line of the clients' history as it comes to be.
//!
//! ```text
//!        time us phase    what
//!      31250.117 storm    FAULT CrashLeaf, number 4 of the plan
//!      31250.117 storm    leaf#2 dies
//!      31254.902 storm    s0r1#6 -> root#3    Up { round: 12, ... } and 48 bytes
//! ```
//!
//! `#N` is the life: every process that was ever started has its own number.

use std::io::Write;

use ionian_types::Knobs;
use ionian_wire::frame::Message;

use crate::process::{Peer, ProcId};
use crate::world::{Event, Phase, World};

impl<K: Knobs> World<K> {
    /// Prints a line, in a run that is traced.
    pub(crate) fn say(&self, what: impl FnOnce() -> String) {
        if !self.trace {
            return;
        }
        let phase = match self.phase {
            Phase::WarmUp => "warm-up",
            Phase::Storm => "storm",
            Phase::Core => "core",
            Phase::Healed => "healed",
            Phase::Resting => "resting",
            Phase::Reading => "reading",
            Phase::Done => "done",
        };
        let ns = self.now.as_ns();
        let (us, rest) = (ns / 1000, ns % 1000);
        // Whoever reads may have seen enough: the run goes on.
        let _ = writeln!(
            std::io::stdout(),
            "{us:>10}.{rest:03} {phase:<8} {}",
            what()
        );
    }

    /// A process by its place and life.
    pub(crate) fn who(&self, proc: ProcId) -> String {
        format!("{}#{proc}", self.procs[proc].place)
    }

    /// Prints what is about to happen. Steps inside a process, and arrivals of what was printed when it was sent, are not.
    pub(crate) fn print(&self, event: &Event) {
        let who = |proc: &ProcId| self.who(*proc);
        let end = |link: &usize, side: &usize| self.who(self.links[*link].ends[*side].proc);
        self.say(|| match event {
            Event::Start(place) => format!("{place} starts, life #{}", self.procs.len()),
            Event::Dial(proc, peer) => {
                let to = crate::process::place_of(self.procs[*proc].place, *peer, self.leader);
                let as_client = matches!(peer, Peer::Client(_) | Peer::ClientToController);
                let how = if as_client { " as a client" } else { "" };
                format!("{} calls {to}{how}", who(proc))
            }
            Event::Closed(link, side) => format!(
                "{} learns that its connection to {} is gone",
                end(link, side),
                end(link, &(1 - side))
            ),
            Event::Break(link) => format!(
                "the connection of {} and {} breaks",
                end(link, &0),
                end(link, &1)
            ),
            Event::Wake(proc) => format!("{} wakes", who(proc)),
            Event::Persisted(_, version, _) => {
                format!("the controller's snapshot {version} is durable")
            }
            Event::Fault(fault, number) => format!("FAULT {fault:?}, number {number} of the plan"),
            Event::Storm => "PHASE faults may happen".to_owned(),
            Event::Heal => "PHASE faults are over".to_owned(),
            Event::Rest => "PHASE no new work, everything must settle".to_owned(),
            other => format!("{other:?}"),
        });
    }

    /// Whether an event has a line of its own.
    pub(crate) fn is_told(event: &Event) -> bool {
        !matches!(
            event,
            Event::Arrive(..)
                | Event::Datagram(..)
                | Event::Replay(..)
                | Event::Session(..)
                | Event::Timer(..)
                | Event::Flush(_)
                | Event::Act(_)
                | Event::Disk(..)
                | Event::Look
        )
    }

    /// Prints a message that the end `side` of a link sends.
    pub(crate) fn print_message(&self, link: usize, side: usize, bytes: &[u8]) {
        self.say(|| {
            let ends = self.links[link].ends.map(|end| self.who(end.proc));
            let route = format!("{} -> {}", ends[side], ends[1 - side]);
            format!("{route:<24} {}", message(bytes))
        });
    }

    /// Prints what clients have called and seen since the line `from` of the history.
    pub(crate) fn print_history(&self, from: usize) {
        for line in self.history.recorder.lines(from) {
            self.say(|| format!("history {line}"));
        }
    }
}

/// A message: its fields, and how many bytes of records or lists come with them.
fn message(bytes: &[u8]) -> String {
    let parsed = match Message::new_checked(bytes) {
        Ok((message, _)) => format!("{message:?}"),
        Err(error) => return format!("does not parse: {error}"),
    };
    // `Append(Append { ... }, [1, 2, 3])`: the name once, and the list by its length.
    let (name, rest) = parsed.split_once('(').unwrap_or((&parsed, ""));
    let rest = rest.strip_suffix(')').unwrap_or(rest);
    let (fields, tail) = match rest.rfind(", [") {
        Some(at) => (&rest[..at], &rest[at + 2..]),
        None => (rest, "[]"),
    };
    let count = match tail.trim_matches(['[', ']']) {
        "" => 0,
        items => items.split(',').count(),
    };
    let text = if fields.starts_with(name) {
        fields.to_owned()
    } else {
        format!("{name} {fields}")
    };
    if count > 0 {
        format!("{text} and {count} bytes")
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use ionian_wire::frame::DirectoryRequest;

    use super::*;

    #[test]
    fn a_message_is_told_by_its_name_and_fields_once() {
        let request = DirectoryRequest {
            request: 7,
            known: 3,
        };
        let mut out = ionian_core::outbox::Outbox::new(Default::default());
        let conn = ionian_types::ConnId::ZERO;
        out.set_room(conn, 1 << 20);
        out.send(conn, &request, &[]).expect("there is room");
        let head = out
            .head(out.envelopes().first().expect("it was sent"))
            .to_vec();
        let text = message(&head);
        assert!(text.starts_with("DirectoryRequest {"), "{text}");
        assert!(text.contains("request: 7") && !text.contains('['), "{text}");
        assert!(message(&[1, 2, 3]).starts_with("does not parse"));
    }
}
