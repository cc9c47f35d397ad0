//! What stands where: S1 to S5, S15.

use ionian_histcheck::Id;

use crate::lines::*;

const READ_1: &str = r#""f":"read","gsn":1"#;

#[test]
fn a_run_of_three_records_passes() {
    passes(&three_and(vec![]));
    passes(&three_and(vec![call(50, 9, READ_1), record(51, 9, 1)]));
}

#[test]
fn s1_two_readers_that_disagree() {
    fails(
        Id::S1,
        &three_and(vec![call(50, 9, READ_1), record(51, 9, 0)]),
    );
    // One record, seen with two payloads.
    let other = ok(51, 9, r#","r":"rec","cid":7,"ses":1,"csn":1,"h":"77""#);
    fails(Id::S1, &three_and(vec![call(50, 9, READ_1), other]));
    // Two kinds of hole.
    let holes = |second: &str| {
        let lines = vec![
            sub(50, 1, 3, false),
            gap(51, 1, 3, 5, "noop"),
            sub(50, 2, 3, false),
            gap(52, 2, 3, 5, second),
            phase(1000, "final", 0, 5),
            sub(1000, 99, 0, true),
            dlv(1001, 99, 0, 0),
            dlv(1001, 99, 1, 1),
            dlv(1001, 99, 2, 2),
            gap(1001, 99, 3, 5, "noop"),
        ];
        [three(), lines].concat()
    };
    passes(&holes("noop"));
    fails(Id::S1, &holes("plug"));
}

#[test]
fn s2_what_nobody_appended() {
    let read = |csn| {
        let lines = [three(), vec![call(50, 9, r#""f":"read","gsn":3"#)]].concat();
        [
            lines,
            vec![record(51, 9, csn)],
            finale(1000, 0, &[0, 1, 2, csn]),
        ]
        .concat()
    };
    fails(Id::S2, &read(8));
    // Appended, without an answer: it may be there.
    let mut lines = read(8);
    lines.insert(1, append(2, 8));
    lines.insert(2, r#"{"e":"info","t":3,"op":8,"err":"timeout"}"#.to_owned());
    // (number 8 before the others: another session keeps the order of this one)
    let other = |line: &String| {
        let named = line.contains(r#""csn":8"#);
        if named {
            line.replace(r#""ses":1"#, r#""ses":2"#)
        } else {
            line.clone()
        }
    };
    passes(&lines.iter().map(other).collect::<Vec<_>>());
    // Its append had no effect.
    lines[2] = r#"{"e":"fail","t":3,"op":8,"err":"full"}"#.to_owned();
    fails_only(Id::S2, &lines.iter().map(other).collect::<Vec<_>>());
}

#[test]
fn s2_another_payload_or_before_the_call() {
    let mut lines = three_and(vec![]);
    let inv = lines[3].clone();
    lines[3] = inv.replace(r#""h":"1f""#, r#""h":"2e""#);
    fails_only(Id::S2, &lines);
    lines[3] = inv;
    lines.splice(1..1, [sub(1, 1, 2, false), hint(2, 1, 2, 2)]);
    let confirm = r#"{"e":"conf","t":30,"sub":1,"upto":2}"#.to_owned();
    lines.insert(9, confirm);
    fails_only(Id::S2, &lines);
}

#[test]
fn s3_one_record_at_two_positions() {
    let retry = |gsn| {
        let again = append(50, 1)
            .replace(r#""op":1"#, r#""op":9"#)
            .replace(r#""try":1"#, r#""try":2"#);
        three_and(vec![again, ack(51, 9, gsn)])
    };
    passes(&retry(1));
    fails(Id::S3, &retry(3));
    // Without dedupe it is counted and permitted.
    let mut lines = [retry(3), vec![dlv(1002, 99, 3, 1)]].concat();
    let tail = lines
        .iter()
        .position(|line| line.contains("final\""))
        .unwrap();
    lines[tail] = phase(1000, "final", 0, 4);
    fails_only(Id::S3, &lines);
    lines[0] = lines[0].replace(r#""dedupe":true"#, r#""dedupe":false"#);
    passes(&lines);
    assert_eq!(report(&lines).counts.duplicates, 2);
}

#[test]
fn s3_a_renamed_record_gives_its_old_name_up() {
    let renamed = |named: u64| {
        let mut lines = three_and(vec![]);
        lines[6] = ok(25, 2, r#","gsn":2,"ses":4,"csn":0"#);
        let last = lines.len() - 1;
        if named == 0 {
            lines[last] = lines[last].replace(r#""ses":1,"csn":2"#, r#""ses":4,"csn":0"#);
        }
        lines
    };
    passes(&renamed(0));
    fails(Id::S3, &renamed(2));
}

#[test]
fn a_record_without_an_answer_may_stand_under_a_new_name() {
    let mut lines = three_and(vec![]);
    lines[6] = r#"{"e":"info","t":25,"op":2,"err":"timeout"}"#.to_owned();
    let last = lines.len() - 1;
    lines[last] = lines[last].replace(r#""ses":1,"csn":2"#, r#""ses":4,"csn":0"#);
    passes(&lines);
    lines[last] = lines[last].replace("2f", "2e");
    fails_only(Id::S2, &lines);
}

#[test]
fn s4_an_ack_that_names_anothers_position() {
    let mut lines = three_and(vec![]);
    lines[6] = ack(25, 2, 1);
    fails(Id::S4, &lines);
    // The same through a hole.
    let hole = vec![
        call(50, 9, READ_1),
        ok(51, 9, r#","r":"hole","kind":"plug""#),
    ];
    fails(Id::S4, &three_and(hole));
}

#[test]
fn s5_an_acked_record_that_the_final_read_has_not() {
    let mut lines = [three(), finale(1000, 0, &[0, 1])].concat();
    fails(Id::S5, &lines);
    // Present as a position is not enough: a hole is no record.
    lines.push(gap(1002, 99, 2, 3, "loss"));
    let at = lines
        .iter()
        .position(|line| line.contains("final\""))
        .unwrap();
    lines[at] = phase(1000, "final", 0, 3);
    fails(Id::S5, &lines);
    // With more faults than promised, a loss that is declared is legal; one that is not, never.
    lines[0] = header(r#""beyond_f":true"#);
    passes(&lines);
    lines.pop();
    fails(Id::S5, &lines);
}

#[test]
fn s5_what_was_read_once_is_owed_too() {
    let seen = |read: bool| {
        let mut lines = three();
        lines[6] = r#"{"e":"info","t":25,"op":2,"err":"conn"}"#.to_owned();
        if read {
            lines.push(call(50, 9, r#""f":"read","gsn":2"#));
            lines.push(record(51, 9, 2));
        }
        [lines, finale(1000, 0, &[0, 1])].concat()
    };
    passes(&seen(false));
    fails(Id::S5, &seen(true));
}

#[test]
fn s5_below_the_final_head_nothing_is_owed() {
    let trim = vec![
        call(50, 9, r#""f":"trim","gsn":2"#),
        ok(51, 9, r#","head":2"#),
    ];
    let lines = [three(), trim, finale(1000, 2, &[2])].concat();
    passes(&lines);
}

#[test]
fn s15_a_filled_position_never_holds_a_record() {
    let fill = |gsn| {
        let what = format!(r#""f":"fill","gsn":{gsn}"#);
        vec![
            call(50, 9, &what),
            ok(51, 9, r#","r":"hole","kind":"junk""#),
        ]
    };
    let more = vec![
        phase(1000, "final", 0, 4),
        sub(1000, 99, 0, true),
        dlv(1001, 99, 0, 0),
        dlv(1001, 99, 1, 1),
        dlv(1001, 99, 2, 2),
        gap(1001, 99, 3, 4, "junk"),
    ];
    passes(&[three(), fill(3), more].concat());
    fails(Id::S15, &three_and(fill(2)));
    // A fill that found a record says so.
    let found = vec![call(50, 9, r#""f":"fill","gsn":2"#), record(51, 9, 2)];
    passes(&three_and(found));
}
