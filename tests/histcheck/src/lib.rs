//! The judge of histories: what clients called and saw (`hist/1`, JSON lines) is checked against what a totally ordered log
//! promises, and nothing else. It depends on no crate of this repository, so that it cannot share their mistakes.
//!
//! The system gives every append its position, so that the order to check against is in the history itself: no search is
//! needed, and every invariant takes O(n log n) time at most and O(n) memory.
//!
//! ```
//! let history = concat!(
//!     r#"{"v":1,"e":"hdr","sut":"ours","order":"linearizable"}"#, "\n",
//!     r#"{"e":"inv","t":1,"p":0,"op":0,"log":0,"f":"append","cid":7,"ses":1,"csn":0,"h":"9f"}"#, "\n",
//!     r#"{"e":"ok","t":2,"op":0,"gsn":0}"#, "\n",
//!     r#"{"e":"phase","t":3,"log":0,"f":"final","head":0,"tail":1}"#, "\n",
//!     r#"{"e":"sub","t":4,"sub":0,"log":0,"start":0,"final":true}"#, "\n",
//! );
//! let whole = format!(r#"{history}{{"e":"dlv","t":5,"sub":0,"gsn":0,"cid":7,"ses":1,"csn":0,"h":"9f"}}"#);
//! assert_eq!(ionian_histcheck::judge(&whole).verdict(), ionian_histcheck::Verdict::Pass);
//! // Without the delivery, what was acknowledged is not in the final read.
//! let report = ionian_histcheck::judge(history);
//! assert_eq!(report.verdict(), ionian_histcheck::Verdict::Fail);
//! assert!(report.violated().contains(&ionian_histcheck::Id::S5));
//! ```
#![forbid(unsafe_code)]

pub mod bench;
pub mod event;
mod frontier;
pub mod generate;
mod judge;
pub mod mutate;
mod parse;
mod read;
mod report;
mod scan;
pub mod selftest;
mod table;
mod witness;
mod write;

pub use judge::{Counts, Floor, Judge};
pub use parse::Parser;
pub use read::{attach_lines, judge, read_lines};
pub use report::{Outcome, Report, Verdict, quoted};
pub use witness::{Id, WITNESSES, Witness, WitnessLine};
pub use write::write_line;
