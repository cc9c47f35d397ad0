//! Lines of `hist/1`, written by hand, and the question that every test asks.

use ionian_histcheck::{Id, Report, Verdict, judge};

pub(crate) const HEADER: &str = r#"{"v":1,"e":"hdr","run":"hand","seed":7,"sut":"ours","world":"sim","order":"linearizable","dedupe":true,"spec":true}"#;

/// The header with one more promise or fact.
pub(crate) fn header(more: &str) -> String {
    format!("{},{more}}}", &HEADER[..HEADER.len() - 1])
}

/// An append by client 7, session 1; operation, process and number are one.
pub(crate) fn append(t: u64, csn: u64) -> String {
    append_of(t, csn, 7, 1, csn)
}

pub(crate) fn append_of(t: u64, op: u64, cid: u64, ses: u64, csn: u64) -> String {
    format!(
        r#"{{"e":"inv","t":{t},"p":{op},"op":{op},"log":0,"f":"append","cid":{cid},"ses":{ses},"csn":{csn},"try":1,"h":"{csn:x}f","n":8}}"#
    )
}

pub(crate) fn call(t: u64, op: u64, what: &str) -> String {
    format!(r#"{{"e":"inv","t":{t},"p":{op},"op":{op},"log":0,{what}}}"#)
}

pub(crate) fn ok(t: u64, op: u64, what: &str) -> String {
    format!(r#"{{"e":"ok","t":{t},"op":{op}{what}}}"#)
}

pub(crate) fn ack(t: u64, op: u64, gsn: u64) -> String {
    ok(t, op, &format!(r#","gsn":{gsn}"#))
}

/// The answer of a read: record `csn` of client 7.
pub(crate) fn record(t: u64, op: u64, csn: u64) -> String {
    ok(
        t,
        op,
        &format!(r#","r":"rec","cid":7,"ses":1,"csn":{csn},"h":"{csn:x}f""#),
    )
}

pub(crate) fn sub(t: u64, sub: u64, start: u64, last: bool) -> String {
    format!(r#"{{"e":"sub","t":{t},"sub":{sub},"log":0,"start":{start},"final":{last}}}"#)
}

pub(crate) fn dlv(t: u64, sub: u64, gsn: u64, csn: u64) -> String {
    dlv_of(t, sub, gsn, 7, csn, false)
}

pub(crate) fn hint(t: u64, sub: u64, gsn: u64, csn: u64) -> String {
    dlv_of(t, sub, gsn, 7, csn, true)
}

pub(crate) fn dlv_of(t: u64, sub: u64, gsn: u64, cid: u64, csn: u64, spec: bool) -> String {
    format!(
        r#"{{"e":"dlv","t":{t},"sub":{sub},"gsn":{gsn},"cid":{cid},"ses":1,"csn":{csn},"h":"{csn:x}f","spec":{spec}}}"#
    )
}

pub(crate) fn gap(t: u64, sub: u64, lo: u64, hi: u64, kind: &str) -> String {
    format!(r#"{{"e":"gap","t":{t},"sub":{sub},"log":0,"lo":{lo},"hi":{hi},"kind":"{kind}"}}"#)
}

pub(crate) fn phase(t: u64, f: &str, head: u64, tail: u64) -> String {
    format!(r#"{{"e":"phase","t":{t},"log":0,"f":"{f}","head":{head},"tail":{tail}}}"#)
}

pub(crate) fn epoch(t: u64, epoch: u64, start: u64) -> String {
    format!(r#"{{"e":"epoch","t":{t},"log":0,"epoch":{epoch},"start":{start}}}"#)
}

/// The final phase, and a final reader that gets these records of client 7, by position.
pub(crate) fn finale(t: u64, head: u64, records: &[u64]) -> Vec<String> {
    let tail = head + records.len() as u64;
    let mut lines = vec![phase(t, "final", head, tail), sub(t, 99, head, true)];
    for (gsn, csn) in (head..).zip(records) {
        lines.push(dlv(t + 1, 99, gsn, *csn));
    }
    lines
}

/// Three records in their places: 0, 1, 2.
pub(crate) fn three() -> Vec<String> {
    let mut lines = vec![HEADER.to_owned()];
    for csn in 0..3 {
        lines.push(append(10 * csn + 1, csn));
        lines.push(ack(10 * csn + 5, csn, csn));
    }
    lines
}

/// `three`, then these lines, then the final read of the three.
pub(crate) fn three_and(more: Vec<String>) -> Vec<String> {
    [three(), more, finale(1000, 0, &[0, 1, 2])].concat()
}

pub(crate) fn report(lines: &[String]) -> Report {
    judge(&lines.join("\n"))
}

#[track_caller]
pub(crate) fn passes(lines: &[String]) {
    let report = report(lines);
    assert_eq!(report.verdict(), Verdict::Pass, "{}", report.text());
}

/// Fails, and by this invariant among others.
#[track_caller]
pub(crate) fn fails(id: Id, lines: &[String]) {
    let report = report(lines);
    assert!(report.violated().contains(&id), "{}", report.text());
    let verdict = match id {
        Id::S0 => Verdict::HarnessError,
        Id::V1 => Verdict::Unknown,
        _ => Verdict::Fail,
    };
    assert_eq!(report.verdict(), verdict, "{}", report.text());
    for witness in &report.of(id).witnesses {
        assert!(!witness.lines.is_empty() || id == Id::V1, "{witness:?}");
        for line in &witness.lines {
            assert_eq!(line.text, lines[line.line as usize - 1], "{witness:?}");
        }
    }
}

/// Fails by this invariant and by no other.
#[track_caller]
pub(crate) fn fails_only(id: Id, lines: &[String]) {
    fails(id, lines);
    assert_eq!(report(lines).violated(), [id], "{}", report(lines).text());
}
