//! The kernels of a leaf: `cargo bench -p ionian-benches -- kernels` (under a minute).
//!
//! Two kinds of figures. The tables are printed by code of this file's modules: a kernel and its limit are timed by turns in the same
//! run, so that what the machine does meanwhile meets both, and goals stand beside. Criterion times the same with its statistics, and
//! compares with its last run. Nothing fails on a missed goal.

mod merge;
mod report;
mod slots;

use criterion::Criterion;
use ionian_slots::Isa;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // `cargo test --benches` asks for one pass of everything, and for no figure.
    let timed = arguments.iter().any(|argument| argument == "--bench");
    let filter = arguments.iter().find(|argument| !argument.starts_with('-'));
    let wanted = |group: &str| timed && filter.is_none_or(|filter| group.contains(filter.as_str()));
    let isas: Vec<String> = Isa::available().map(|isa| isa.to_string()).collect();
    println!(
        "CPU: {}; {}; tables use {}",
        report::cpu(),
        isas.join(", "),
        Isa::best()
    );
    report::pin(0);
    if wanted("kernels/merge") {
        merge::tables();
    }
    if wanted("kernels/slots") {
        slots::tables();
    }
    let mut criterion = Criterion::default()
        .warm_up_time(report::millis(100))
        .measurement_time(report::millis(400))
        .sample_size(20)
        .configure_from_args();
    merge::criterion(&mut criterion);
    slots::criterion(&mut criterion);
    criterion.final_summary();
}
