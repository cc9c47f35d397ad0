//! Messages of failure detection: processes say whom they hear nothing of, the controller asks the others.
//!
//! They go between the controller and a process, over the process's own connection and not over one of a place. A process is
//! named by its node: each node has one process at a time.

use ionian_types::NodeId;

use super::macros::{body, code_enum};

body! {
    /// Process to controller: I observe the processes that I have sessions with, and am to be asked over this connection. No
    /// tail.
    Observe = 88 {
        /// The process's node.
        node: NodeId,
        /// After how long a silence it speaks up, in nanoseconds.
        suspect_after: u64,
    }
}

body! {
    /// Process to controller: I hear nothing of this process. Repeated while the silence lasts. No tail.
    Suspect = 89 {
        /// The silent process's node.
        node: NodeId,
        /// Nanoseconds since the last packet of it.
        silent: u64,
    }
}

body! {
    /// Controller to process: do you hear this process? Whoever has sessions with it asks it for a sign of life first. To the
    /// process itself: are you there? No tail.
    Probe = 90 {
        /// The process that is asked about.
        node: NodeId,
        /// The number of the question; the answer repeats it.
        number: u64,
        /// Nanoseconds to wait for a sign of life before the answer is that there was none.
        patience: u64,
    }
}

code_enum! {
    /// What a process knows of another one.
    Evidence {
        /// It was asked for a sign of life and gave none.
        Silent = 1,
        /// It gave one after the question came.
        Heard = 2,
        /// There is no session with it.
        NoSession = 3,
        /// The one that answers is the one that is asked about.
        Here = 4,
    }
}

body! {
    /// Answer to [`Probe`]. No tail.
    ProbeAnswer = 91 {
        /// The process that was asked about.
        node: NodeId,
        /// The number of the question.
        number: u64,
        /// What is known of it.
        evidence: Evidence,
        /// Nanoseconds since the last packet of it; 0 where there is no session with it.
        silent: u64,
    }
}
