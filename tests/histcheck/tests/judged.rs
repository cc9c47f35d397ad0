//! The judge judged: the self-test as it is run by hand, and that generated histories survive being written and read.

use ionian_histcheck::generate::{Plan, generate};
use ionian_histcheck::mutate::MUTATORS;
use ionian_histcheck::{Id, Parser, selftest};

#[test]
fn valid_histories_pass_and_every_mutator_is_caught_by_its_own_invariant() {
    let outcome = selftest::run(&selftest::Options::default());
    println!("{}", outcome.text());
    assert!(outcome.passed());
    assert_eq!(outcome.histories, 10_000);
}

#[test]
fn every_invariant_has_two_mutators_at_least() {
    for id in Id::ALL {
        let count = MUTATORS.iter().filter(|mutator| mutator.id == id).count();
        assert!(count >= 2, "{id} has {count}");
    }
}

#[test]
fn what_is_written_is_read_back() {
    let mut parser = Parser::default();
    for seed in 0..200 {
        let events = generate(&Plan::of(seed));
        let text = selftest::lines(&events);
        let read: Vec<_> = text
            .lines()
            .map(|line| parser.line(line.as_bytes()).expect(line))
            .collect();
        assert_eq!(read, events, "{seed}");
    }
}

#[test]
fn a_self_test_that_is_shown_too_little_fails() {
    let options = selftest::Options {
        histories: 1,
        seed: 3,
        breaks: 0,
    };
    let outcome = selftest::run(&options);
    assert!(!outcome.passed());
    assert!(outcome.text().contains("never tried"));
    assert!(outcome.text().ends_with("selftest: fail\n"));
}

/// No input makes the parser panic, and every error says something.
#[test]
fn damaged_lines_are_refused_or_read() {
    let mut parser = Parser::default();
    let mut random = 7_u64;
    let text = selftest::lines(&generate(&Plan::of(5)));
    let mut refused = 0;
    for line in text.lines() {
        for _ in 0..20 {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let mut bytes = line.as_bytes().to_vec();
            let at = (random >> 33) as usize % bytes.len();
            match random >> 62 {
                0 => bytes.truncate(at),
                1 => bytes[at] = (random >> 20) as u8,
                2 => bytes.insert(at, b"{}[]\",:\\9e-"[(random >> 25) as usize % 11]),
                _ => drop(bytes.remove(at)),
            }
            if let Err(why) = parser.line(&bytes) {
                refused += 1;
                assert!(why.len() > 10, "{why}");
            }
        }
    }
    assert!(refused > 1000, "{refused}");
}
