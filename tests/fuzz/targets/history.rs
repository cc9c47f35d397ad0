//! Histories, as the judge reads them: parsed, judged, and the verdict written out.
//!
//! Holds: no input panics; an event that was read, written and read again is the same event; what is not well formed never
//! passes.
#![no_main]

use ionian_histcheck::event::Event;
use ionian_histcheck::{Id, Judge, Parser, Verdict, attach_lines, read_lines, write_line};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut parser = Parser::default();
    for line in data.split(|byte| *byte == b'\n') {
        let Ok(event) = parser.line(line) else {
            continue;
        };
        // Names are free text, written as they are.
        if !matches!(event, Event::Header(_) | Event::Nem { .. }) {
            let mut text = String::new();
            write_line(&mut text, &event);
            assert_eq!(parser.line(text.trim_end().as_bytes()), Ok(event));
        }
    }
    let mut judge = Judge::new();
    read_lines(&mut judge, data).expect("memory can be read");
    let mut report = judge.finish();
    attach_lines(&mut report, 0, data).expect("memory can be read");
    assert!(report.verdict() != Verdict::Pass || report.of(Id::S0).violated == 0);
    assert!(!report.text().is_empty() && !report.json().is_empty());
});
