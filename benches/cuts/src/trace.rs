//! One cut as frames: who says what to whom, decoded, with the bytes that it takes.

use std::fmt::Write;

use ionian_wire::entry::{EntryBody, EntryView};
use ionian_wire::frame::Message;
use ionian_wire::growth::Growths;
use ionian_wire::{Reader, frame};

/// Lines of one kind that are written in full; of more, how many there are.
const ALIKE: usize = 3;

/// What was said, in order.
#[derive(Debug, Default)]
pub struct Trace {
    lines: Vec<Line>,
}

#[derive(Debug)]
struct Line {
    kind: &'static str,
    text: String,
    bytes: usize,
}

impl Trace {
    /// Notes a frame.
    pub(crate) fn note(&mut self, from: &str, to: &str, frame: &[u8]) {
        let Ok((message, _)) = Message::new_checked(frame) else {
            return;
        };
        let kind = message.name();
        let bytes = frame.len();
        let text = format!("{from} -> {to}: {bytes} B {}", describe(&message));
        self.lines.push(Line { kind, text, bytes });
    }

    /// The frames in order; of many alike in a row, the first few and a count.
    #[must_use]
    pub fn text(&self) -> String {
        let mut out = String::new();
        let mut at = 0;
        while let Some(line) = self.lines.get(at) {
            let rest = &self.lines[at..];
            let alike = rest.iter().take_while(|it| it.kind == line.kind).count();
            let shown = if alike > ALIKE + 1 { ALIKE } else { alike };
            for line in &rest[..shown] {
                let _ = writeln!(out, "{}", line.text);
            }
            if shown < alike {
                let bytes: usize = rest[shown..alike].iter().map(|it| it.bytes).sum();
                let more = alike - shown;
                let _ = writeln!(out, "... {more} more of {}, {bytes} B in all", line.kind);
            }
            at += alike;
        }
        out
    }

    /// The kinds of the frames, in order.
    #[must_use]
    pub fn kinds(&self) -> Vec<&'static str> {
        self.lines.iter().map(|line| line.kind).collect()
    }
}

/// A frame's fields and what its tail says.
fn describe(message: &Message<'_>) -> String {
    match message {
        Message::Report(body, tail) => {
            let lens: Vec<u64> = words(tail).collect();
            format!("{body:?} lengths {lens:?}")
        }
        Message::Up(body, tail) => {
            let growths = tail.get(body.keeps as usize * 12..).unwrap_or_default();
            format!("{body:?} {}", grown(growths))
        }
        Message::RootWrite(body, tail) => {
            let mut text = format!("{body:?}");
            let mut reader = Reader::new(tail);
            for _ in 0..body.count {
                let len = reader.field::<u32>();
                let entry = len.and_then(|len| reader.bytes(len as usize));
                let Ok(view) = entry.and_then(EntryView::new_checked) else {
                    break;
                };
                let _ = write!(text, " [{}]", entry_text(&view));
            }
            text
        }
        Message::DownShard(body, tail) => {
            let lens: Vec<u64> = words(tail).collect();
            format!("{body:?} (generation, length) {lens:?}")
        }
        other => format!("{other:?}"),
    }
}

fn entry_text(view: &EntryView<'_>) -> String {
    let (entry, bytes) = (view.header.entry, view.encoded().len());
    match view.body {
        EntryBody::Cut(cut) => format!(
            "entry {entry}, {bytes} B: Cut of gsn {} to {}, {} segments grew",
            cut.start_gsn,
            cut.end_gsn,
            cut.growths().changed()
        ),
        _ => format!("entry {entry}, {bytes} B"),
    }
}

fn grown(bytes: &[u8]) -> String {
    match Growths::new_checked(bytes) {
        Ok(growths) => format!(
            "{} segments grew by {} records, {} B",
            growths.changed(),
            growths.total(),
            bytes.len()
        ),
        Err(error) => error.to_string(),
    }
}

fn words(bytes: &[u8]) -> impl Iterator<Item = u64> + '_ {
    let (words, _) = bytes.as_chunks::<8>();
    words.iter().map(|word| u64::from_le_bytes(*word))
}

/// A frame from its body, for what is written to slots: that is what would be sent.
pub(crate) fn encoded<B: frame::Body>(body: &B, tail: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; frame::MESSAGE_HEADER_BYTES + B::LEN + tail.len()];
    // There is room for exactly this.
    let len = frame::encode(&mut bytes, body, &[tail]).unwrap_or(0);
    bytes.truncate(len);
    bytes
}
