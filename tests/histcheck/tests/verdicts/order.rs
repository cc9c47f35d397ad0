//! What came when: S6, S7, S8, S11, S13, S14, S16.

use ionian_histcheck::Id;

use crate::lines::*;

/// Two clients append one record each; the second is called at `second`, the first is acked at 5. The second comes first.
fn swapped(second: u64, head: String) -> Vec<String> {
    let other = |line: String| line.replace(r#""cid":7"#, r#""cid":8"#);
    vec![
        head,
        append(1, 0),
        ack(5, 0, 1),
        other(append(second, 1)),
        ack(20, 1, 0),
        phase(1000, "final", 0, 2),
        sub(1000, 99, 0, true),
        other(dlv(1001, 99, 0, 1)),
        dlv(1002, 99, 1, 0),
    ]
}

#[test]
fn s6_a_record_appended_later_stands_lower() {
    passes(&swapped(3, HEADER.to_owned()));
    fails_only(Id::S6, &swapped(6, HEADER.to_owned()));
    // Clocks that may differ by as much cannot tell; an order that is not real time does not promise it.
    passes(&swapped(6, header(r#""clock_err_ns":1"#)));
    passes(&swapped(6, HEADER.replace("linearizable", "fifo")));
}

fn unwritten(gsn: u64, inv: u64) -> Vec<String> {
    let what = format!(r#""f":"read","gsn":{gsn}"#);
    vec![call(inv, 9, &what), ok(90, 9, r#","r":"unwritten""#)]
}

#[test]
fn s7_what_was_acked_is_not_unwritten_again() {
    passes(&three_and(unwritten(1, 14)));
    passes(&three_and(unwritten(1, 15)));
    fails_only(Id::S7, &three_and(unwritten(1, 16)));
    passes(&three_and(unwritten(3, 80)));
}

#[test]
fn s7_nor_is_a_hole() {
    let hole = |inv| {
        let mut lines = three();
        lines.extend([sub(50, 1, 3, false), gap(60, 1, 3, 6, "bridge")]);
        lines.extend(unwritten(4, inv));
        lines.extend([phase(1000, "final", 0, 6), sub(1000, 99, 0, true)]);
        lines.extend((0..3).map(|gsn| dlv(1001, 99, gsn, gsn)));
        [lines, vec![gap(1002, 99, 3, 6, "bridge")]].concat()
    };
    passes(&hole(60));
    fails_only(Id::S7, &hole(61));
}

#[test]
fn s7_in_a_dense_log_nothing_below_a_record_is_unwritten() {
    let lines = |head: String| {
        let mut lines = vec![head, append(1, 0), append(2, 1), ack(20, 1, 1)];
        lines.extend([
            call(21, 9, r#""f":"read","gsn":0"#),
            ok(22, 9, r#","r":"unwritten""#),
        ]);
        [lines, vec![ack(23, 0, 0)], finale(1000, 0, &[0, 1])].concat()
    };
    passes(&lines(HEADER.to_owned()));
    fails_only(Id::S7, &lines(header(r#""dense":true"#)));
}

fn tail(inv: u64, tail: u64) -> Vec<String> {
    let answer = format!(r#","tail":{tail}"#);
    vec![call(inv, 9, r#""f":"tail""#), ok(inv + 9, 9, &answer)]
}

#[test]
fn s8_a_tail_below_what_was_known() {
    passes(&three_and(tail(14, 1)));
    passes(&three_and(tail(16, 2)));
    fails_only(Id::S8, &three_and(tail(16, 1)));
    fails_only(Id::S8, &three_and(tail(16, 4)));
}

#[test]
fn s8_a_position_below_an_answered_tail_is_not_unwritten() {
    let mut lines = three();
    lines.extend([append(40, 3)]);
    lines.extend(tail(41, 4));
    lines.extend([
        call(60, 8, r#""f":"read","gsn":3"#),
        ok(61, 8, r#","r":"unwritten""#),
    ]);
    lines.extend([ack(70, 3, 3)]);
    fails_only(
        Id::S8,
        &[lines.clone(), finale(1000, 0, &[0, 1, 2, 3])].concat(),
    );
    lines.retain(|line| !line.contains(r#""op":8"#));
    passes(&[lines, finale(1000, 0, &[0, 1, 2, 3])].concat());
}

#[test]
fn s8_a_dense_tail_does_not_count_what_was_not_yet_appended() {
    let mut lines = three_and(tail(2, 3));
    passes(&lines);
    lines[0] = header(r#""dense":true"#);
    fails_only(Id::S8, &lines);
}

#[test]
fn s11_the_records_of_a_session_stand_in_its_order() {
    let pipelined = |places: [u64; 2], sessions: [u64; 2]| {
        let [first, second] = sessions;
        let mut reader = finale(1000, 0, if places[0] == 0 { &[0, 1] } else { &[1, 0] });
        for line in &mut reader {
            for (csn, session) in [(0, first), (1, second)] {
                let (one, own) = (
                    format!(r#""ses":1,"csn":{csn},"#),
                    format!(r#""ses":{session},"csn":{csn},"#),
                );
                *line = line.replace(&one, &own);
            }
        }
        let calls = vec![
            HEADER.to_owned(),
            append_of(1, 0, 7, first, 0),
            append_of(2, 1, 7, second, 1),
            ack(10, 0, places[0]),
            ack(11, 1, places[1]),
        ];
        [calls, reader].concat()
    };
    passes(&pipelined([0, 1], [1, 1]));
    fails_only(Id::S11, &pipelined([1, 0], [1, 1]));
    passes(&pipelined([1, 0], [1, 2]));
    let mut total = pipelined([1, 0], [1, 1]);
    total[0] = HEADER.replace("linearizable", "total");
    passes(&total);
}

#[test]
fn s13_epochs_fence() {
    let acks = |epochs: [u64; 3], start: u64, seen: u64| {
        let mut lines = three_and(vec![]);
        for (csn, epoch) in (0..).zip(epochs) {
            let more = format!(r#","gsn":{csn},"epoch":{epoch}"#);
            lines[2 + 2 * csn as usize] = ok(10 * csn + 5, csn, &more);
        }
        lines.push(epoch(seen, 2, start));
        lines
    };
    passes(&acks([1, 1, 2], 2, 24));
    // The epoch falls; it goes on beyond its end; it was over before the call.
    fails(Id::S13, &acks([2, 1, 2], 3, 24));
    fails_only(Id::S13, &acks([1, 1, 1], 2, 24));
    fails_only(Id::S13, &acks([1, 1, 1], 3, 20));
    passes(&acks([1, 1, 1], 3, 21));
    // An epoch begins at one position.
    let mut lines = acks([1, 1, 2], 2, 24);
    lines.push(epoch(50, 2, 1));
    fails_only(Id::S13, &lines);
}

#[test]
fn s14_only_what_was_asked_for_is_trimmed() {
    let trim = |upto: u64, head: u64| {
        let call = call(50, 9, &format!(r#""f":"trim","gsn":{upto}"#));
        vec![call, ok(51, 9, &format!(r#","head":{head}"#))]
    };
    let trimmed = |gsn: u64| {
        let call = call(52, 8, &format!(r#""f":"read","gsn":{gsn}"#));
        vec![call, ok(53, 8, r#","r":"trimmed""#)]
    };
    let whole = |more: Vec<String>| [three(), more, finale(1000, 1, &[1, 2])].concat();
    passes(&whole([trim(1, 1), trimmed(0)].concat()));
    fails_only(Id::S14, &whole([trim(1, 1), trimmed(1)].concat()));
    fails(Id::S14, &whole(trim(1, 2)));
    fails_only(Id::S14, &whole(vec![]));
    // The head falls.
    let later = vec![
        call(60, 8, r#""f":"tail""#),
        ok(61, 8, r#","tail":3,"head":1"#),
    ];
    let lines = [three(), trim(2, 2), later].concat();
    fails_only(Id::S14, &[lines, finale(1000, 2, &[2])].concat());
}

/// Found by the simulator, seed 28: a cut log that was lost beyond f had held a trim, and the head fell back to 0.
#[test]
fn s14_a_trim_may_be_lost_beyond_f_and_what_it_trimmed_stays_away() {
    let lines = |beyond_f: bool, left: Vec<String>| {
        let mut lines = three();
        lines[0] = header(&format!(r#""beyond_f":{beyond_f}"#));
        lines.push(call(50, 9, r#""f":"trim","gsn":2"#));
        lines.push(ok(51, 9, r#","head":2"#));
        lines.push(call(60, 8, r#""f":"tail""#));
        lines.push(ok(61, 8, r#","tail":3,"head":0"#));
        lines.push(phase(1000, "final", 0, 3));
        lines.push(sub(1001, 0, 0, true));
        lines.extend(left);
        lines.push(dlv(1010, 0, 2, 2));
        lines
    };
    let lost = vec![gap(1005, 0, 0, 2, "loss")];
    passes(&lines(true, lost.clone()));
    fails(Id::S14, &lines(false, lost));
    let back = vec![dlv(1002, 0, 0, 0), dlv(1003, 0, 1, 1)];
    fails_only(Id::S14, &lines(true, back));
}

#[test]
fn s16_the_order_of_a_segment_and_of_cuts() {
    let cut = |n: u64, gsn: u64, end: u64, d: &str| {
        format!(
            r#"{{"e":"wb","t":30,"node":"root","f":"cut","log":0,"n":{n},"gsn":{gsn},"end":{end},"d":[{d}]}}"#
        )
    };
    let slots = |lsn: [u64; 3]| {
        let mut lines = three_and(vec![]);
        for (csn, lsn) in (0..).zip(lsn) {
            let more = format!(r#","gsn":{csn},"shard":0,"rep":1,"lsn":{lsn}"#);
            lines[2 + 2 * csn as usize] = ok(10 * csn + 5, csn, &more);
        }
        lines
    };
    // Later generations stand higher, and count anew.
    let generations = |of: [u64; 3]| {
        let mut lines = slots([0, 1, 0]);
        for (csn, generation) in (0..3).zip(of) {
            let line = &mut lines[2 + 2 * csn];
            *line = line.replace(r#","lsn""#, &format!(r#","gen":{generation},"lsn""#));
        }
        lines
    };
    passes(&generations([1, 1, 7]));
    passes(&generations([0, 1, 2]));
    fails_only(Id::S16, &generations([7, 7, 1]));
    fails_only(Id::S16, &generations([1, 1, 1]));
    let with = |cuts: &[String]| [slots([0, 1, 2]), cuts.to_vec()].concat();
    passes(&slots([0, 1, 2]));
    passes(&slots([0, 5, 6]));
    fails_only(Id::S16, &slots([0, 2, 1]));
    fails_only(Id::S16, &slots([0, 1, 1]));
    let (first, second) = (cut(4, 0, 2, "0,1,0,2"), cut(9, 2, 4, "0,0,0,1,0,1,2,3"));
    // The first cut gives 0 and 1; the second gives 2 to segment 0, and 3 to the acked record: its ack says 2.
    fails_only(Id::S16, &with(&[first.clone(), second]));
    passes(&with(&[first.clone(), cut(9, 2, 4, "0,1,2,3,0,0,0,1")]));
    // It shrinks; it does not add up; it does not begin where the other ended; two are one number.
    fails_only(Id::S16, &with(&[first.clone(), cut(9, 2, 2, "0,1,2,1")]));
    fails_only(Id::S16, &with(&[first.clone(), cut(9, 2, 5, "0,1,2,3")]));
    fails_only(Id::S16, &with(&[first.clone(), cut(9, 4, 5, "0,0,0,1")]));
    fails_only(Id::S16, &with(&[first.clone(), cut(4, 0, 3, "0,1,0,3")]));
}

#[test]
fn s16_what_is_acked_was_flushed_by_as_many_as_promised() {
    // Acks at 5, 15 and 25, of positions 0, 1 and 2.
    let run = |class: &str, flushes: &[(u64, u64, u64)]| {
        let mut lines = three_and(vec![]);
        lines[0] = header(&format!(r#""durability":"{class}","replicas":2,"f":1"#));
        for csn in 0..3 {
            let more = format!(r#","gsn":{csn},"shard":0,"rep":1,"lsn":{csn}"#);
            lines[2 + 2 * csn as usize] = ok(10 * csn + 5, csn, &more);
        }
        lines.extend(flushes.iter().map(|(t, by, len)| {
            format!(
                r#"{{"e":"wb","t":{t},"node":"n","f":"persist","log":0,"shard":0,"rep":1,"by":{by},"len":{len}}}"#
            )
        }));
        lines
    };
    let early = [(5, 0, 1), (4, 1, 1), (14, 1, 3), (15, 0, 3)];
    passes(&run("D1", &early));
    // Nothing is recorded; in memory nothing is flushed.
    passes(&run("D1", &[]));
    passes(&run("D0", &early[..1]));
    // One of two, and one too late.
    fails_only(Id::S16, &run("D1", &[(4, 0, 3)]));
    let late = [(6, 0, 1), (4, 1, 1), (14, 1, 3), (15, 0, 3)];
    fails_only(Id::S16, &run("D1", &late));
    let few = [(5, 0, 1), (4, 1, 1), (14, 1, 3), (15, 0, 2)];
    fails_only(Id::S16, &run("D1", &few));
}

#[test]
fn s14_what_was_trimmed_does_not_come_back_as_another() {
    let read = |gsn: u64| {
        vec![
            call(30, 8, r#""f":"trim","gsn":2"#),
            ok(31, 8, r#","head":2"#),
            call(40, 9, &format!(r#""f":"read","gsn":{gsn}"#)),
            record(41, 9, 1),
        ]
    };
    let lines = |gsn: u64| [three(), read(gsn), finale(1000, 2, &[2])].concat();
    passes(&lines(1));
    fails(Id::S14, &lines(0));
    fails(Id::S1, &lines(0));
    // Above the head it is a matter of agreement alone.
    assert!(!report(&lines(2)).violated().contains(&Id::S14));
}
