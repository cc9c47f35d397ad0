//! Making and removing files on the helper thread, because both block.

use ionian_driver_api::{BlockError, FileId, OpKind};

use crate::files::{Files, OpenFile};

pub(super) enum MetaJob {
    Create {
        token: u64,
        file: FileId,
        bytes: u64,
        zero_ahead: bool,
    },
    Delete {
        token: u64,
        file: FileId,
        open: OpenFile,
    },
}

pub(super) struct MetaDone {
    pub(super) token: u64,
    pub(super) kind: OpKind,
    pub(super) file: FileId,
    /// The file as it is now: made, or still there because its removal failed.
    pub(super) open: Option<OpenFile>,
    pub(super) result: Result<(), BlockError>,
}

/// The helper thread's side.
pub(super) fn run_meta(files: &Files, job: MetaJob) -> MetaDone {
    match job {
        MetaJob::Create {
            token,
            file,
            bytes,
            zero_ahead,
        } => {
            let (open, result) = match files.create(file, bytes, zero_ahead) {
                Ok(open) => (Some(open), Ok(())),
                Err(error) => (None, Err(error)),
            };
            MetaDone {
                token,
                kind: OpKind::Create,
                file,
                open,
                result,
            }
        }
        MetaJob::Delete { token, file, open } => match files.delete(file) {
            // The descriptor closes here, where it may block.
            Ok(()) => MetaDone {
                token,
                kind: OpKind::Delete,
                file,
                open: None,
                result: Ok(()),
            },
            Err(error) => MetaDone {
                token,
                kind: OpKind::Delete,
                file,
                open: Some(open),
                result: Err(error),
            },
        },
    }
}
