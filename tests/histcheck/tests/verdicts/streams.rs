//! Subscriptions: S9, S10, S12, S17.

use ionian_histcheck::Id;

use crate::lines::*;

/// `three`, a subscription with these lines, the final read.
fn follow(lines: Vec<String>) -> Vec<String> {
    three_and([vec![sub(50, 1, 0, false)], lines].concat())
}

fn conf(t: u64, upto: u64) -> String {
    format!(r#"{{"e":"conf","t":{t},"sub":1,"upto":{upto}}}"#)
}

fn void(t: u64, start: u64) -> String {
    format!(r#"{{"e":"void","t":{t},"sub":1,"start":{start}}}"#)
}

#[test]
fn s9_a_position_is_passed_over() {
    passes(&follow((0..3).map(|gsn| dlv(60, 1, gsn, gsn)).collect()));
    fails_only(Id::S9, &follow(vec![dlv(60, 1, 0, 0), dlv(61, 1, 2, 2)]));
    fails_only(Id::S9, &follow(vec![gap(60, 1, 0, 0, "trim")]));
}

#[test]
fn s9_gaps_cover_what_their_kind_may() {
    let trim = |upto: u64| {
        let call = call(40, 9, &format!(r#""f":"trim","gsn":{upto}"#));
        let done = ok(41, 9, &format!(r#","head":{upto}"#));
        let seen = vec![
            sub(50, 1, 0, false),
            gap(60, 1, 0, 2, "trim"),
            dlv(61, 1, 2, 2),
        ];
        let records: Vec<u64> = (upto..3).collect();
        [
            three(),
            vec![call, done],
            seen,
            finale(1000, upto, &records),
        ]
        .concat()
    };
    passes(&trim(2));
    fails(Id::S9, &trim(1));
    fails_only(
        Id::S9,
        &follow(vec![gap(60, 1, 0, 1, "loss"), dlv(61, 1, 1, 1)]),
    );
    for kind in ["junk", "plug", "noop", "bridge"] {
        fails(
            Id::S9,
            &follow(vec![dlv(60, 1, 0, 0), gap(61, 1, 1, 2, kind)]),
        );
    }
}

#[test]
fn s9_the_final_reader_covers_everything() {
    let mut lines = three_and(vec![]);
    let last = lines.pop().unwrap();
    fails(Id::S9, &lines);
    lines.push(last.replace(r#""gsn":2"#, r#""gsn":3"#));
    fails(Id::S9, &lines);
}

#[test]
fn s10_a_position_comes_twice_or_out_of_order() {
    fails_only(Id::S10, &follow(vec![dlv(60, 1, 0, 0), dlv(61, 1, 0, 0)]));
    fails(
        Id::S10,
        &follow(vec![dlv(60, 1, 0, 0), dlv(61, 1, 2, 2), dlv(62, 1, 1, 1)]),
    );
    // After a void it does come twice.
    passes(&follow(vec![
        hint(60, 1, 0, 1),
        void(61, 0),
        hint(62, 1, 0, 0),
        conf(63, 0),
    ]));
}

#[test]
fn s12_hints_are_confirmed_or_taken_back() {
    let hints = || vec![hint(60, 1, 0, 0), hint(60, 1, 1, 2)];
    let right = vec![conf(61, 0), void(62, 1), hint(63, 1, 1, 1), conf(64, 1)];
    passes(&follow([hints(), right].concat()));
    // Confirmed, and wrong.
    fails(Id::S12, &follow([hints(), vec![conf(61, 1)]].concat()));
    // Taken back after it was confirmed.
    let taken = vec![conf(61, 0), void(62, 0)];
    fails_only(Id::S12, &follow([hints(), taken].concat()));
    // Never settled.
    fails_only(Id::S12, &follow(vec![hint(60, 1, 0, 0)]));
    let closed = r#"{"e":"end","t":61,"sub":1}"#.to_owned();
    passes(&follow(vec![hint(60, 1, 0, 0), closed]));
    // Falls; is ahead of the deliveries.
    let right = || vec![hint(60, 1, 0, 0), hint(60, 1, 1, 1)];
    let falls = vec![conf(61, 1), conf(62, 0)];
    fails_only(Id::S12, &follow([right(), falls].concat()));
    fails_only(Id::S12, &follow([right(), vec![conf(61, 2)]].concat()));
}

#[test]
fn s12_a_hint_is_evidence_for_nothing() {
    // Seen as a hint before it is acked; then unwritten, and a low tail: nothing wrong.
    let lines = vec![
        HEADER.to_owned(),
        append(1, 0),
        sub(2, 1, 0, false),
        hint(3, 1, 0, 0),
        call(4, 8, r#""f":"read","gsn":0"#),
        ok(5, 8, r#","r":"unwritten""#),
        call(6, 8, r#""f":"tail""#).replace(r#""op":8"#, r#""op":9"#),
        ok(7, 9, r#","tail":0"#),
        ack(8, 0, 0),
        conf(9, 0),
    ];
    passes(&[lines, finale(1000, 0, &[0])].concat());
}

#[test]
fn s12_a_confirmed_hint_is_owed_for_ever() {
    let mut lines = three();
    lines[6] = r#"{"e":"info","t":25,"op":2,"err":"conn"}"#.to_owned();
    lines.extend([sub(50, 1, 2, false), hint(60, 1, 2, 2), conf(61, 2)]);
    fails(Id::S5, &[lines, finale(1000, 0, &[0, 1])].concat());
}

#[test]
fn s12_holes_are_hints_too() {
    let hole = r#"{"e":"gap","t":61,"sub":1,"lo":1,"hi":3,"kind":"noop","spec":true}"#;
    let again = vec![void(62, 1), dlv(63, 1, 1, 1), dlv(64, 1, 2, 2)];
    let lines = vec![hint(60, 1, 0, 0), hole.to_owned(), conf(61, 0)];
    passes(&follow([lines.clone(), again].concat()));
    fails(Id::S12, &follow([lines, vec![conf(62, 2)]].concat()));
}

#[test]
fn s17_selective_reads_are_complete_and_exact() {
    let coloured = |lines: Vec<String>| {
        let mut all = three_and(vec![]);
        for (csn, colour) in [(0, 5), (1, 6), (2, 5)] {
            let at = 1 + 2 * csn;
            all[at] = all[at].replace(r#""try""#, &format!(r#""col":{colour},"try""#));
        }
        all.push(
            r#"{"e":"sub","t":50,"sub":1,"log":0,"start":0,"final":false,"only":"col","of":5}"#
                .to_owned(),
        );
        [all, lines].concat()
    };
    passes(&coloured(vec![dlv(60, 1, 0, 0), dlv(61, 1, 2, 2)]));
    passes(&coloured(vec![dlv(60, 1, 0, 0)]));
    fails_only(Id::S17, &coloured(vec![dlv(60, 1, 2, 2)]));
    fails_only(Id::S17, &coloured(vec![dlv(60, 1, 0, 0), dlv(61, 1, 1, 1)]));
    let by = |only: &str, of: u64| {
        let mut lines = coloured(vec![dlv(60, 1, 0, 0), dlv(61, 1, 2, 2)]);
        for line in &mut lines {
            let only = format!(r#""only":"{only}","of":{of}"#);
            *line = line.replace(r#""only":"col","of":5"#, &only);
            *line = line.replace(r#""gsn":1}"#, r#""gsn":1,"shard":4}"#);
            *line = line.replace(r#""gsn":2}"#, r#""gsn":2,"shard":3}"#);
            *line = line.replace(r#""gsn":0}"#, r#""gsn":0,"shard":3}"#);
        }
        lines
    };
    passes(&by("shard", 3));
    fails_only(Id::S17, &by("shard", 4));
    fails_only(Id::S17, &by("cid", 7));
}
