//! `ionian bench cuts`: the ordering tree that ships (slots, leaves, aggregators, root group) under synthetic reporters.
//!
//! ```text
//! servers (one core)  --Report into slots-->  leaves --Up--> aggregators --Up--> root leader --RootWrite--> backups
//!      ^--DownShard, a ring per server--------'  ^--Down--------'  ^--Down-------'   ^--RootWritten-----------'
//! ```
//! [`run()`] measures a [`Setting`]; [`trace`](trace_cut) shows the frames of one cut; [`down_bytes`] counts what servers are told per
//! cut; [`plot`] draws. Machines and frames are those of `dataplane/core` and `dataplane/wire`; what is synthetic is where lengths
//! come from. After every run all reports are accounted for, and the records ordered are compared with those reported.
#![forbid(unsafe_code)]

mod account;
mod board;
mod hall;
mod leaf;
mod line;
mod outcome;
pub mod plot;
mod reporters;
mod run;
mod setting;
mod shape;
mod step;
mod trace;
mod world;

pub use outcome::{Audit, Outcome, Side, Spread, Window};
pub use run::{RunError, run};
pub use setting::{REPORT_RATE_MAX, SEGMENTS_MAX, Setting, SettingError, Transport};
pub use step::{DownBytes, Stepped, down_bytes, trace_cut};
pub use trace::Trace;
