//! What the worlds of grants show, and that they are of their seed.

use super::*;

#[test]
fn the_guards_that_ship_do_what_is_right_and_the_worlds_show_it() {
    let mut counts = Counts::default();
    for seed in 1..=200 {
        match GrantWorld::<Shipped>::new(seed).run() {
            Ok(took_place) => counts += took_place,
            Err(violation) => panic!("seed {seed}: {violation}"),
        }
    }
    let Counts {
        opened,
        taken,
        denied,
        void,
        forged,
        copies,
        ended,
        windows,
        refused,
    } = counts;
    for count in [
        opened, taken, denied, void, forged, copies, ended, windows, refused,
    ] {
        assert!(count > 200, "{counts:?}");
    }
}

#[test]
fn one_seed_gives_one_world() {
    let run = || GrantWorld::<Shipped>::new(7).run();
    assert_eq!(run(), run());
}
