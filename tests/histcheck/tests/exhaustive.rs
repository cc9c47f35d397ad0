//! Small histories are judged twice: by the judge, and by a search through every order that could explain them.
//!
//! The search knows the log only as a list that grows (`stateright`'s linearizability tester). On appends, reads, tails and
//! a final read of a dense log the two must agree, both ways: S1 to S8 are exact there, not only sound.

use std::fmt::Write;

use ionian_histcheck::generate::Draw;
use ionian_histcheck::{Id, judge};
use stateright::semantics::{ConsistencyTester, LinearizabilityTester, SequentialSpec};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Op {
    Append(u64),
    Read(u64),
    Tail,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Ret {
    Placed(u64),
    Record(u64),
    Unwritten,
    Tail(u64),
}

/// The log, one operation at a time.
#[derive(Clone, Default, Debug)]
struct Spec(Vec<u64>);

impl SequentialSpec for Spec {
    type Op = Op;
    type Ret = Ret;

    fn invoke(&mut self, op: &Op) -> Ret {
        match op {
            Op::Append(id) => {
                self.0.push(*id);
                Ret::Placed(self.0.len() as u64 - 1)
            }
            Op::Read(gsn) => match self.0.get(*gsn as usize) {
                Some(id) => Ret::Record(*id),
                None => Ret::Unwritten,
            },
            Op::Tail => Ret::Tail(self.0.len() as u64),
        }
    }
}

/// What a thread did. Times are places in the list.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    Call(u64, Op),
    Return(u64, Ret),
}

/// A small history: what threads did, and what stands at the end.
#[derive(Clone, Debug)]
struct Small {
    steps: Vec<Step>,
    last: Vec<u64>,
}

const THREADS: usize = 3;

/// A history that some order explains: each operation takes effect between its call and its return, if it returns.
fn valid(draw: &mut Draw) -> Small {
    let mut log = Spec::default();
    let mut steps = Vec::new();
    let mut open: [Option<(Op, Option<Ret>)>; THREADS] = [None; THREADS];
    let mut gone = [false; THREADS];
    let (mut calls, mut next) = (0, 0);
    let most = 4 + draw.below(5);
    while calls < most || open.iter().any(Option::is_some) {
        let thread = draw.below(THREADS as u64) as usize;
        match open[thread] {
            _ if gone[thread] => {
                if gone.iter().all(|gone| *gone) {
                    break;
                }
                if calls >= most && (0..THREADS).all(|t| gone[t] || open[t].is_none()) {
                    break;
                }
            }
            None if calls < most => {
                let op = match draw.below(6) {
                    0 | 1 => Op::Read(draw.below(4)),
                    2 => Op::Tail,
                    _ => {
                        next += 1;
                        Op::Append(next)
                    }
                };
                calls += 1;
                steps.push(Step::Call(thread as u64, op));
                open[thread] = Some((op, None));
            }
            None => {}
            Some((op, None)) => {
                // Some appends are given up, with or without effect.
                let fate = draw.below(10);
                if fate == 0 && matches!(op, Op::Append(_)) {
                    gone[thread] = true;
                    open[thread] = None;
                } else {
                    open[thread] = Some((op, Some(log.invoke(&op))));
                }
            }
            Some((op, Some(ret))) => {
                if draw.below(10) == 0 && matches!(op, Op::Append(_)) {
                    gone[thread] = true;
                } else {
                    steps.push(Step::Return(thread as u64, ret));
                }
                open[thread] = None;
            }
        }
    }
    Small { steps, last: log.0 }
}

/// Changes an answer, an order or the final content; it may stay valid.
fn damage(small: &mut Small, draw: &mut Draw) {
    let steps = small.steps.len() as u64;
    match draw.below(8) {
        0 if small.last.len() > 1 => {
            let [a, b] = [0; 2].map(|_: u64| draw.below(small.last.len() as u64) as usize);
            small.last.swap(a, b);
        }
        1 => drop(small.last.pop()),
        2 | 3 if steps > 1 => {
            // Two neighbours of different threads change places; or one moves far.
            let at = draw.below(steps - 1) as usize;
            let of = |step: &Step| match step {
                Step::Call(thread, _) | Step::Return(thread, _) => *thread,
            };
            let mut at = at;
            for _ in 0..=draw.below(4) {
                if at + 1 < small.steps.len() && of(&small.steps[at]) != of(&small.steps[at + 1]) {
                    small.steps.swap(at, at + 1);
                    at += 1;
                }
            }
        }
        _ => {
            let at = draw.below(steps.max(1)) as usize;
            let shift = |value: u64, draw: &mut Draw| match draw.below(2) {
                0 => value + 1,
                _ => value.saturating_sub(1),
            };
            if let Some(Step::Return(_, ret)) = small.steps.get_mut(at) {
                *ret = match *ret {
                    Ret::Placed(gsn) => Ret::Placed(shift(gsn, draw)),
                    Ret::Tail(tail) => Ret::Tail(shift(tail, draw)),
                    Ret::Unwritten => Ret::Record(1 + draw.below(3)),
                    Ret::Record(_) if draw.chance(50) => Ret::Unwritten,
                    Ret::Record(id) => Ret::Record(shift(id, draw).max(1)),
                };
            }
        }
    }
}

/// Is there an order that explains it? The final read is a thread that begins when the others are done.
fn explained(small: &Small) -> bool {
    let mut tester = LinearizabilityTester::new(Spec::default());
    for step in &small.steps {
        match step {
            Step::Call(thread, op) => drop(tester.on_invoke(*thread, *op)),
            Step::Return(thread, ret) => drop(tester.on_return(*thread, *ret)),
        }
    }
    let reader = THREADS as u64;
    let mut last = vec![(Op::Tail, Ret::Tail(small.last.len() as u64))];
    last.extend(
        (0..)
            .zip(&small.last)
            .map(|(gsn, id)| (Op::Read(gsn), Ret::Record(*id))),
    );
    for (op, ret) in last {
        let _ = tester.on_invret(reader, op, ret);
    }
    tester.is_consistent()
}

/// The same as lines. Every append has a session of its own: the search knows nothing of sessions.
fn lines(small: &Small) -> String {
    let mut out = String::from(concat!(
        r#"{"v":1,"e":"hdr","run":"small","sut":"ours","order":"linearizable","dense":true}"#,
        "\n"
    ));
    let record = |id: u64| format!(r#""cid":7,"ses":{id},"csn":0,"h":"{id:x}""#);
    let (mut open, mut next) = ([0; THREADS], 0);
    for (t, step) in small.steps.iter().enumerate() {
        let t = 10 * (t + 1);
        let _ = match step {
            Step::Call(thread, op) => {
                next += 1;
                open[*thread as usize] = next;
                let what = match op {
                    Op::Append(id) => format!(r#""append",{},"try":1"#, record(*id)),
                    Op::Read(gsn) => format!(r#""read","gsn":{gsn}"#),
                    Op::Tail => r#""tail""#.to_owned(),
                };
                writeln!(
                    out,
                    r#"{{"e":"inv","t":{t},"p":{thread},"op":{next},"log":0,"f":{what}}}"#
                )
            }
            Step::Return(thread, ret) => {
                let what = match ret {
                    Ret::Placed(gsn) => format!(r#""gsn":{gsn}"#),
                    Ret::Record(id) => format!(r#""r":"rec",{}"#, record(*id)),
                    Ret::Unwritten => r#""r":"unwritten""#.to_owned(),
                    Ret::Tail(tail) => format!(r#""tail":{tail}"#),
                };
                let op = open[*thread as usize];
                writeln!(out, r#"{{"e":"ok","t":{t},"op":{op},{what}}}"#)
            }
        };
    }
    let (t, tail) = (10_000, small.last.len());
    let _ = writeln!(
        out,
        r#"{{"e":"phase","t":{t},"log":0,"f":"final","head":0,"tail":{tail}}}"#
    );
    let _ = writeln!(
        out,
        r#"{{"e":"sub","t":{t},"sub":0,"log":0,"start":0,"final":true}}"#
    );
    for (gsn, id) in small.last.iter().enumerate() {
        let _ = writeln!(
            out,
            r#"{{"e":"dlv","t":{t},"sub":0,"gsn":{gsn},{}}}"#,
            record(*id)
        );
    }
    out
}

#[test]
fn the_judge_and_the_search_agree_on_small_histories() {
    let (mut explained_count, mut found) = (0, [0_u64; Id::ALL.len()]);
    for seed in 0..20_000 {
        let mut draw = Draw::new(seed);
        let mut small = valid(&mut draw);
        if seed < 1000 {
            assert!(explained(&small), "{seed}: {small:?}");
        } else {
            for _ in 0..=draw.below(2) {
                damage(&mut small, &mut draw);
            }
        }
        // An answer to a call that a swap moved behind it is no history.
        let mut open = [false; THREADS];
        let is_history = small.steps.iter().all(|step| match step {
            Step::Call(thread, _) => !std::mem::replace(&mut open[*thread as usize], true),
            Step::Return(thread, _) => std::mem::replace(&mut open[*thread as usize], false),
        });
        if !is_history {
            continue;
        }
        let text = lines(&small);
        let report = judge(&text);
        let mut violated = report.violated();
        violated.retain(|id| *id != Id::V1);
        let explained = explained(&small);
        assert_eq!(
            violated.is_empty(),
            explained,
            "seed {seed}: the search says {explained}\n{text}{}",
            report.text()
        );
        explained_count += u64::from(explained);
        for id in violated {
            found[id as usize] += 1;
        }
    }
    // Both verdicts were reached often, and by each invariant that this is about.
    assert!(explained_count > 5_000, "{explained_count}");
    for id in [Id::S1, Id::S2, Id::S4, Id::S5, Id::S6, Id::S7, Id::S8] {
        assert!(found[id as usize] > 100, "{id}: {found:?}");
    }
}
