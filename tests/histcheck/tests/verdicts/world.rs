//! The harness and the run: S0, L1, V1, several logs and files, and the command line.

use std::process::Command;

use ionian_histcheck::{Floor, Id, Judge, Verdict, read_lines};

use crate::lines::*;

fn with(at: usize, line: &str) -> Vec<String> {
    let mut lines = three_and(vec![]);
    lines.insert(at, line.to_owned());
    lines
}

#[test]
fn s0_malformed_histories_are_the_harness_s_fault() {
    let count = three_and(vec![]).len();
    let again = ack(6, 0, 0);
    for (at, line) in [
        (3, again.as_str()),
        (3, r#"{"e":"ok","t":6,"op":77,"gsn":0}"#),
        (2, &append(2, 0).replace(r#""p":0"#, r#""p":5"#)),
        (2, &append(2, 5).replace(r#""p":5"#, r#""p":0"#)),
        (
            2,
            r#"{"e":"dlv","t":6,"sub":5,"gsn":0,"cid":7,"ses":1,"csn":0,"h":"f"}"#,
        ),
        (count, &sub(1000, 99, 0, true)),
        (count, &phase(1000, "final", 0, 3)),
        (0, &append(0, 5)),
        (2, "{"),
        (2, r#"{"e":"inv","t":-5}"#),
        (2, r#"{"e":"what","t":5}"#),
        (2, r#"{"e":"sub","t":5,"sub":1,"log":0}"#),
        (2, r#"{"e":"gap","t":5,"sub":1,"lo":0,"hi":1,"kind":"odd"}"#),
        (2, r#"{"e":"tail","t":99999999999999999999}"#),
        (2, "{\"e\":\"ok\",\"t\":5"),
        (2, "not json"),
        (2, r#"{"e":"sub","t":5,"sub":1,"sub":2,"log":0,"start":0}"#),
    ] {
        fails(Id::S0, &with(at, line));
    }
    // An answer before its call; one name for two payloads; a try that is not new.
    let early = three_and(vec![
        call(50, 9, r#""f":"tail""#),
        ok(49, 9, r#","tail":3"#),
    ]);
    fails_only(Id::S0, &early);
    let again = |more: &str, h: &str| {
        let call = append_of(50, 9, 7, 1, 1).replace(r#""try":1"#, more);
        three_and(vec![call.replace("1f", h), ack(51, 9, 1)])
    };
    passes(&again(r#""try":2"#, "1f"));
    fails_only(Id::S0, &again(r#""try":1"#, "1f"));
    fails(Id::S0, &again(r#""try":2"#, "2f"));
    assert_eq!(report(&[]).verdict(), Verdict::HarnessError);
}

#[test]
fn a_bad_line_says_where_and_why() {
    let report = report(&with(2, r#"{"e":"ok","t":x}"#));
    let witness = &report.of(Id::S0).witnesses[0];
    assert_eq!(witness.what, "byte 15: wanted a value, found `x`");
    assert_eq!((witness.lines[0].file, witness.lines[0].line), (0, 3));
    assert!(report.text().ends_with("verdict: harness-error\n"));
}

#[test]
fn unknown_keys_and_blanks_are_passed_over() {
    let mut lines = three_and(vec![]);
    lines[1] = lines[1].replace(
        r#""t":1"#,
        r#" "t" : 1 , "extra":{"a":[1,-2.5e3,"}\"",null,{}],"b":[]}"#,
    );
    lines.insert(1, String::new());
    passes(&lines);
}

#[test]
fn a_sighting_may_leave_out_a_session_that_is_the_only_one() {
    let mut lines = three_and(vec![]);
    let last = lines.len() - 1;
    lines[last] = lines[last].replace(r#""ses":1,"#, "");
    passes(&lines);
    // Another session with that number and payload: which one is meant?
    lines.insert(1, append_of(0, 50, 7, 2, 2));
    lines.insert(
        2,
        r#"{"e":"info","t":1,"op":50,"err":"timeout"}"#.to_owned(),
    );
    fails(Id::S0, &lines);
}

#[test]
fn l1_after_heal_everything_moves() {
    let healed = |more: Vec<String>| {
        let lines = [vec![phase(40, "heal", 0, 0)], more].concat();
        let mut lines = three_and(lines);
        lines[0] = header(r#""live_ns":100"#);
        lines
    };
    passes(&healed(vec![]));
    // Open, or slow.
    fails_only(Id::L1, &healed(vec![call(50, 9, r#""f":"tail""#)]));
    let slow = |ret| {
        healed(vec![
            call(30, 9, r#""f":"tail""#),
            ok(ret, 9, r#","tail":3"#),
        ])
    };
    passes(&slow(140));
    fails_only(Id::L1, &slow(141));
    // In vain.
    let refused = r#"{"e":"fail","t":60,"op":9,"err":"full"}"#.to_owned();
    fails_only(Id::L1, &healed(vec![append_of(50, 9, 7, 2, 0), refused]));
    // Behind; closed by its client; copies that differ.
    let behind = || vec![sub(50, 1, 0, false), dlv(60, 1, 0, 0)];
    fails_only(Id::L1, &healed(behind()));
    let closed = vec![r#"{"e":"end","t":61,"sub":1}"#.to_owned()];
    passes(&healed([behind(), closed].concat()));
    let sum = |node: &str, h: &str| {
        format!(
            r#"{{"e":"wb","t":70,"node":"{node}","f":"sum","log":0,"shard":0,"rep":1,"len":3,"h":"{h}"}}"#
        )
    };
    passes(&healed(vec![sum("a", "1"), sum("b", "1")]));
    fails_only(Id::L1, &healed(vec![sum("a", "1"), sum("b", "2")]));
    // With more faults than promised, standing still is legal.
    let mut lines = healed(behind());
    lines[0] = header(r#""live_ns":100,"beyond_f":true"#);
    passes(&lines);
}

#[test]
fn v1_a_run_that_shows_nothing_is_unknown() {
    fails_only(Id::V1, &[HEADER.to_owned()]);
    // No final phase; no final reader; nothing acked.
    fails_only(Id::V1, &three());
    fails(
        Id::V1,
        &[three(), vec![phase(1000, "final", 0, 3)]].concat(),
    );
    let silent: Vec<String> = three_and(vec![])
        .into_iter()
        .map(|line| {
            let acked = line.contains(r#""e":"ok""#);
            if acked {
                line.replace(r#""ok""#, r#""info""#)
            } else {
                line
            }
        })
        .collect();
    fails_only(Id::V1, &silent);
    // Faults that were announced and never took hold; that were tried in vain; that nobody healed.
    let mut lines = three_and(vec![phase(40, "heal", 0, 0)]);
    lines[0] = header(r#""faults":1"#);
    fails_only(Id::V1, &lines);
    let nem =
        |st: &str| format!(r#"{{"e":"nem","t":3,"id":1,"f":"crash","on":["s0r1"],"st":"{st}"}}"#);
    lines.insert(1, nem("installed"));
    passes(&lines);
    lines.retain(|line| !line.contains("heal"));
    fails_only(Id::V1, &lines);
    lines[0] = HEADER.to_owned();
    lines[1] = nem("skipped");
    fails_only(Id::V1, &lines);
}

#[test]
fn floors_may_be_asked_for() {
    let verdict = |name: &str, least| {
        let mut judge = Judge::new();
        judge.floor(Floor {
            name: name.to_owned(),
            least,
        });
        read_lines(&mut judge, three_and(vec![]).join("\n").as_bytes()).unwrap();
        judge.finish().verdict()
    };
    assert_eq!(verdict("acks", 3), Verdict::Pass);
    assert_eq!(verdict("acks", 4), Verdict::Unknown);
    assert_eq!(verdict("apples", 0), Verdict::Unknown);
}

#[test]
fn logs_are_judged_apart_and_files_together() {
    let other = |line: &String| line.replace(r#""log":0"#, r#""log":5"#);
    let one = three_and(vec![]);
    let two: Vec<String> = one.iter().map(other).collect();
    let mut judge = Judge::new();
    for lines in [&one, &two] {
        read_lines(&mut judge, lines.join("\n").as_bytes()).unwrap();
    }
    let report = judge.finish();
    assert_eq!(report.verdict(), Verdict::Pass, "{}", report.text());
    assert_eq!((report.counts.logs, report.counts.acks), (2, 6));
    // The reader's file alone knows nothing of the appends; with the writer's it does.
    let (writer, mut reader) = (three(), finale(1000, 0, &[0, 1, 2]));
    reader.insert(0, HEADER.to_owned());
    fails(Id::S2, &reader);
    let mut judge = Judge::new();
    for lines in [&reader, &writer] {
        read_lines(&mut judge, lines.join("\n").as_bytes()).unwrap();
    }
    assert_eq!(judge.finish().verdict(), Verdict::Pass);
}

#[test]
fn a_file_that_announces_its_end_has_one() {
    let mut lines = three_and(vec![]);
    lines[0] = header(r#""done":true"#);
    let end = r#"{"e":"done","t":2000}"#;
    passes(&[&lines[..], &[end.to_owned()]].concat());
    // Cut short anywhere, it is no history: what is missing was not lost by the log.
    for kept in 1..=lines.len() {
        fails(Id::S0, &lines[..kept]);
    }
    fails(
        Id::S0,
        &[&lines[..], &[end.to_owned(), phase(2001, "heal", 0, 0)]].concat(),
    );
    // Of each file.
    let (mut reader, mut writer) = (finale(1000, 0, &[0, 1, 2]), three());
    reader.insert(0, header(r#""done":true"#));
    writer[0].clone_from(&reader[0]);
    for (ended, verdict) in [(false, Verdict::HarnessError), (true, Verdict::Pass)] {
        let mut judge = Judge::new();
        let last = if ended { end } else { "" };
        for (lines, last) in [(&writer, last), (&reader, end)] {
            let text = format!("{}\n{last}", lines.join("\n"));
            read_lines(&mut judge, text.as_bytes()).unwrap();
        }
        assert_eq!(judge.finish().verdict(), verdict);
    }
}

/// Two processes load one log, and each ends with a final read of its own: the later one is the final one.
#[test]
fn of_the_final_phases_of_several_files_the_latest_counts() {
    let early = three_and(vec![]);
    let late = |records: &[u64]| {
        let mut lines = vec![HEADER.to_owned(), append_of(1500, 0, 8, 1, 0)];
        lines.push(ack(1600, 0, 3));
        lines.extend(finale(2000, 0, records));
        let last = lines.len() - 1;
        if records.len() == 4 {
            lines[last] = lines[last].replace(r#""cid":7"#, r#""cid":8"#);
        }
        lines
    };
    let judged = |files: [&[String]; 2]| {
        let mut judge = Judge::new();
        for lines in files {
            read_lines(&mut judge, lines.join("\n").as_bytes()).unwrap();
        }
        let report = judge.finish();
        (report.verdict(), report.violated())
    };
    let whole = late(&[0, 1, 2, 0]);
    for files in [[&early[..], &whole], [&whole, &early]] {
        assert_eq!(judged(files), (Verdict::Pass, vec![]));
    }
    // What the latest does not see is lost, though the earlier one could not see it.
    let short = late(&[0, 1, 2]);
    for files in [[&early[..], &short], [&short, &early]] {
        let (verdict, violated) = judged(files);
        assert_eq!(verdict, Verdict::Fail);
        assert!(violated.contains(&Id::S5), "{violated:?}");
    }
}

#[test]
fn evidence_counts_from_when_it_was_known_whatever_file_comes_first() {
    // The readers' file is read first: what it shows at 1000 was acked at 15, before the question at 16.
    let mut reader = finale(1000, 0, &[0, 1, 2]);
    reader.insert(0, HEADER.to_owned());
    let question = vec![
        call(16, 9, r#""f":"read","gsn":1"#),
        ok(17, 9, r#","r":"unwritten""#),
    ];
    let mut judge = Judge::new();
    for lines in [reader, [three(), question].concat()] {
        read_lines(&mut judge, lines.join("\n").as_bytes()).unwrap();
    }
    assert_eq!(judge.finish().violated(), [Id::S7]);
}

#[test]
fn the_exit_code_is_the_verdict() {
    let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR"));
    let run = |name: &str, lines: &[String], flags: &[&str]| {
        let path = folder.join(name);
        std::fs::write(&path, lines.join("\n")).unwrap();
        let command = Command::new(env!("CARGO_BIN_EXE_histcheck"))
            .arg(&path)
            .args(flags)
            .output()
            .unwrap();
        let said = String::from_utf8(command.stdout).unwrap();
        (command.status.code().unwrap(), said)
    };
    let pass = three_and(vec![]);
    let (code, said) = run("pass", &pass, &[]);
    assert!(code == 0 && said.ends_with("verdict: pass\n"), "{said}");
    let (code, said) = run("fail", &swap(&pass), &["--json"]);
    assert_eq!(code, 1);
    assert!(
        said.starts_with(r#"{"verdict":"fail","run":"hand","seed":7,"#),
        "{said}"
    );
    assert!(
        said.contains(r#"\"e\":\"dlv\""#) && said.contains("fail\",\"line\":"),
        "{said}"
    );
    assert_eq!(run("unknown", &three(), &[]).0, 2);
    assert_eq!(run("floor", &pass, &["--floor", "acks=9"]).0, 2);
    assert_eq!(run("harness", &pass[1..], &[]).0, 3);
    assert_eq!(run("flag", &pass, &["--no-such"]).0, 3);
    let nothing = Command::new(env!("CARGO_BIN_EXE_histcheck"))
        .arg("/no/such/history")
        .output()
        .unwrap();
    assert_eq!(nothing.status.code(), Some(3));
    let said = String::from_utf8(nothing.stderr).unwrap();
    assert!(
        said.contains("cannot read the history /no/such/history"),
        "{said}"
    );
}

/// The final reader gets two records in each other's place.
fn swap(lines: &[String]) -> Vec<String> {
    let mut lines = lines.to_vec();
    let last = lines.len() - 1;
    lines[last] = dlv(1001, 99, 2, 1);
    lines[last - 1] = dlv(1001, 99, 1, 2);
    lines
}
