//! A growth list, as cuts keep it.
//!
//! Holds: no input panics; what is accepted ascends, counts and sums as it says, walks as it iterates, and comes back when it
//! is written again.
#![no_main]

use ionian_wire::Writer;
use ionian_wire::growth::{GrowthSink, GrowthWriter, Growths, SEGMENTS_MAX};
use libfuzzer_sys::fuzz_target;

#[derive(Default)]
struct List(Vec<(usize, u64)>);

impl GrowthSink for List {
    fn one(&mut self, index: usize, growth: u64) {
        self.0.push((index, growth));
    }
}

fuzz_target!(|data: &[u8]| {
    let Ok(list) = Growths::new_checked(data) else {
        return;
    };
    let all: Vec<(usize, u64)> = list.iter().collect();
    assert!(all.is_sorted_by(|one, next| one.0 < next.0));
    assert!(
        all.iter()
            .all(|(index, growth)| *index < SEGMENTS_MAX && *growth > 0)
    );
    assert_eq!(
        all.iter().map(|(_, growth)| growth).sum::<u64>(),
        list.total()
    );
    assert_eq!(all.len(), list.changed());
    assert_eq!(all.last().map_or(0, |(index, _)| index + 1), list.end());
    let mut walked = List::default();
    list.walk(&mut walked);
    assert_eq!(walked.0, all);
    let Some((first, _)) = all.first() else {
        return;
    };
    // A list of two segments that are far apart is written by asking for all between.
    if list.end() - first > 1 << 16 {
        return;
    }
    let mut growths = vec![0; list.end() - first];
    for (index, growth) in &all {
        growths[index - first] = *growth;
    }
    let mut bytes = vec![0; 2 * data.len() + growths.len()];
    let mut writer = Writer::new(&mut bytes);
    GrowthWriter::write(&mut writer, *first..list.end(), |index| {
        growths[index - first]
    })
    .expect("there is room");
    let again = Growths::new_checked(writer.written()).expect("what was written can be read");
    assert_eq!(again.iter().collect::<Vec<_>>(), all);
});
