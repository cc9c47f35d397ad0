//! The files of a store's folder, by their names.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use anyhow::Context;
use ionian_store::{FileKind, FileNo};

/// The end of the name of every whole file of a store.
const FINISHED: &str = ".blk";

/// A file of a store.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct StoreFile {
    pub(super) number: FileNo,
    pub(super) kind: FileKind,
    pub(super) path: PathBuf,
    pub(super) bytes: u64,
}

/// The files of a store in a folder, by number. Files that are not of a store are passed over.
pub(super) fn list(folder: &Path) -> anyhow::Result<Vec<StoreFile>> {
    let mut files = Vec::new();
    for entry in
        std::fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?
    {
        let entry = entry?;
        let name = entry.file_name();
        let digits = name
            .to_str()
            .and_then(|name| name.strip_suffix(FINISHED))
            .filter(|digits| digits.len() == 16);
        let Some(number) = digits
            .and_then(|digits| u64::from_str_radix(digits, 16).ok())
            .map(FileNo::new)
        else {
            continue;
        };
        if let Some(kind) = number.kind() {
            files.push(StoreFile {
                number,
                kind,
                path: entry.path(),
                bytes: entry.metadata()?.len(),
            });
        }
    }
    files.sort_by_key(|file| file.number);
    Ok(files)
}

/// Reads `len` bytes at `offset`, fewer at the end of the file.
pub(super) fn read(file: &StoreFile, offset: u64, len: usize) -> anyhow::Result<Vec<u8>> {
    let cannot = || format!("cannot read {}", file.path.display());
    let mut source = File::open(&file.path).with_context(cannot)?;
    source.seek(SeekFrom::Start(offset)).with_context(cannot)?;
    let mut bytes = Vec::with_capacity(len);
    source
        .take(len as u64)
        .read_to_end(&mut bytes)
        .with_context(cannot)?;
    Ok(bytes)
}
