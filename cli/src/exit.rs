//! How a run ends: the exit code, and what is said when it failed.

use std::io;
use std::process::ExitCode;

use ionian_control_client::{Refusal, Why};
use ionian_node::DeviceFailure;
use ionian_node::config::ConfigErrors;

/// An exit code with a meaning.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Exit {
    /// Done.
    Done,
    /// It failed, or a check did.
    Failed,
    /// The command line or a configuration is wrong; nothing was started.
    Usage,
    /// The cluster is up but cannot take appends, or its controllers cannot change anything now.
    Unable,
    /// A device of the process has failed, so it ended as in a crash; it may be started again.
    Device,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

impl Exit {
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Unable => 3,
            Self::Device => 4,
        }
    }
}

/// A command line that parses but makes no sense. Effect: none.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct UsageError(pub(crate) String);

/// Says what went wrong, and chooses the code. A closed pipe is a reader that has seen enough: silent success.
pub(crate) fn report(error: &anyhow::Error) -> Exit {
    let exit = classify(error);
    if exit == Exit::Done {
        return exit;
    }
    if let Some(errors) = error.downcast_ref::<ConfigErrors>() {
        eprintln!("{errors}");
    } else {
        eprintln!("ionian: {error:#}");
    }
    exit
}

/// Whether it is a pipe that nobody reads any more.
pub(crate) fn is_closed_pipe(error: &anyhow::Error) -> bool {
    let broken_pipe = |cause: &(dyn std::error::Error + 'static)| {
        cause
            .downcast_ref::<io::Error>()
            .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    };
    error.chain().any(broken_pipe)
}

fn classify(error: &anyhow::Error) -> Exit {
    if is_closed_pipe(error) {
        Exit::Done
    } else if error.is::<UsageError>() || error.is::<ConfigErrors>() {
        Exit::Usage
    } else if error.is::<DeviceFailure>() {
        Exit::Device
    } else if let Some(Refusal {
        why: Why::NoQuorum | Why::NotLeader { .. },
        ..
    }) = error.downcast_ref()
    {
        Exit::Unable
    } else {
        Exit::Failed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[test]
    fn errors_have_codes() {
        let pipe = Err::<(), _>(io::Error::from(io::ErrorKind::BrokenPipe)).context("writing");
        assert_eq!(classify(&pipe.unwrap_err()), Exit::Done);
        let other = Err::<(), _>(io::Error::from(io::ErrorKind::NotFound)).context("writing");
        assert_eq!(classify(&other.unwrap_err()), Exit::Failed);
        assert_eq!(
            classify(&UsageError(String::from("no")).into()),
            Exit::Usage
        );
        let refusal = Refusal::without_effect(Why::NoQuorum, "no quorum: no controller leads");
        assert_eq!(classify(&refusal.into()), Exit::Unable);
        let named = Why::NotLeader {
            leader: 2,
            address: String::from("h:1"),
        };
        let refusal = Refusal::without_effect(named, "not leader, but that one is gone");
        assert_eq!(classify(&refusal.into()), Exit::Unable);
        assert_eq!(
            [
                Exit::Done,
                Exit::Failed,
                Exit::Usage,
                Exit::Unable,
                Exit::Device
            ]
            .map(Exit::code),
            [0, 1, 2, 3, 4]
        );
    }
}
