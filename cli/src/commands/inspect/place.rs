//! One place's folder: its superblocks, the chunks of its streams with every entry checked, its checkpoints.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ionian_store::FileKind;
use ionian_store::format::{
    CHECKPOINT_HEADER_BYTES, CheckpointHeader, CheckpointPlan, ChunkHeader, Framing,
    JOURNAL_STREAM, JournalEntry, SUPERBLOCK_BYTES, ScanPlan, Superblock, scan,
};
use ionian_types::{SegmentId, ShardId, Slot};
use ionian_wire::crc::crc32c;
use ionian_wire::entry::{EntryBody, EntryView};
use serde_json::{Value, json};

use super::files::{self, StoreFile};
use crate::table::{Table, count, size};

/// What a folder holds.
#[derive(Debug)]
pub(super) struct Place {
    folder: PathBuf,
    /// Per copy: the superblock, or why it is not one.
    superblocks: Vec<(u8, Result<Superblock, String>)>,
    streams: BTreeMap<u8, Stream>,
    checkpoints: Vec<Checkpoint>,
    spare_bytes: u64,
    /// Files that are shorter than they were made: their names, lengths and right lengths in bytes.
    short: Vec<(String, u64, u64)>,
    cut_log: CutLog,
}

/// A stream: a segment, or the journal.
#[derive(Debug, Default)]
struct Stream {
    chunks: u64,
    entries: u64,
    first: Option<u64>,
    end: u64,
    damaged: u64,
    /// Chunks whose header is damaged at one end.
    half_headers: u64,
}

#[derive(Debug)]
struct Checkpoint {
    number: u64,
    upto: u64,
    bytes: u64,
    whole: bool,
}

/// What the journal says, when it is a cut log.
#[derive(Debug, Default, Clone, Copy)]
struct CutLog {
    entries: u64,
    cuts: u64,
    views: u64,
    losses: u64,
    last: u64,
    end_gsn: u64,
    broken: u64,
}

/// Where a chunk lies.
struct ChunkPlace<'a> {
    file: &'a StoreFile,
    offset: u64,
    header: ChunkHeader,
}

pub(super) fn read(folder: &Path) -> anyhow::Result<Place> {
    let listed = files::list(folder)?;
    let mut place = Place {
        folder: folder.to_owned(),
        superblocks: Vec::new(),
        streams: BTreeMap::new(),
        checkpoints: Vec::new(),
        spare_bytes: 0,
        short: Vec::new(),
        cut_log: CutLog::default(),
    };
    for file in &listed {
        if let FileKind::Superblock(copy) = file.kind {
            let bytes = files::read(file, 0, SUPERBLOCK_BYTES)?;
            place.superblocks.push((
                copy,
                Superblock::parse(copy, &bytes).map_err(|error| error.to_string()),
            ));
        }
    }
    let Some(superblock) = place.newest() else {
        return Ok(place);
    };
    let mut chunks: BTreeMap<(u8, u64), ChunkPlace<'_>> = BTreeMap::new();
    for file in &listed {
        let (chunk_bytes, whole) = match file.kind {
            FileKind::RecordExtent(_) => (superblock.chunk_bytes, superblock.extent_bytes),
            FileKind::JournalExtent(_) => (
                superblock.journal_chunk_bytes,
                superblock.journal_extent_bytes,
            ),
            FileKind::Checkpoint(number) => {
                place
                    .checkpoints
                    .push(checkpoint(file, number, superblock.block_bytes)?);
                continue;
            }
            FileKind::Superblock(_) => {
                place.check_length(file, u64::from(superblock.block_bytes));
                continue;
            }
        };
        place.check_length(file, whole);
        for offset in (0..file.bytes).step_by(chunk_bytes.max(1) as usize) {
            let found = place.chunk_header(&superblock, file, offset, chunk_bytes)?;
            let Some(header) = found else {
                place.spare_bytes += u64::from(chunk_bytes);
                continue;
            };
            let key = (header.stream, header.number);
            if header.chunk_bytes != chunk_bytes {
                place.streams.entry(header.stream).or_default().half_headers += 1;
                continue;
            }
            if chunks
                .get(&key)
                .is_none_or(|other| other.header.life < header.life)
            {
                chunks.insert(
                    key,
                    ChunkPlace {
                        file,
                        offset,
                        header,
                    },
                );
            }
        }
    }
    for chunk in chunks.values() {
        place.read_chunk(&superblock, chunk)?;
    }
    Ok(place)
}

fn checkpoint(file: &StoreFile, number: u64, block_bytes: u32) -> anyhow::Result<Checkpoint> {
    let plan = |body_bytes| CheckpointPlan {
        block_bytes,
        body_bytes,
    };
    let mut found = Checkpoint {
        number,
        upto: 0,
        bytes: 0,
        whole: false,
    };
    for copy in 0..2 {
        let head = files::read(file, plan(0).header_at(copy), CHECKPOINT_HEADER_BYTES)?;
        let Ok(header) = CheckpointHeader::parse(&head) else {
            continue;
        };
        (found.upto, found.bytes) = (header.upto, header.body_bytes);
        for copy in 0..2 {
            let bytes = files::read(
                file,
                plan(header.body_bytes).body_at(copy),
                header.body_bytes.min(file.bytes) as usize,
            )?;
            found.whole |=
                bytes.len() as u64 == header.body_bytes && crc32c(&bytes) == header.body_crc;
        }
    }
    Ok(found)
}

impl Place {
    /// Takes note of a file that was cut off: a file gets its name once it has its length.
    fn check_length(&mut self, file: &StoreFile, whole: u64) {
        if file.bytes < whole {
            let name = file.path.file_name().unwrap_or_default();
            let name = name.to_string_lossy().into_owned();
            self.short.push((name, file.bytes, whole));
        }
    }

    /// The valid superblock with the greatest sequence.
    fn newest(&self) -> Option<Superblock> {
        let valid = self
            .superblocks
            .iter()
            .filter_map(|(_, superblock)| superblock.as_ref().ok());
        valid.max_by_key(|superblock| superblock.sequence).copied()
    }

    /// The header of the chunk at a place, from its first or its last block. `None` for space that was never used, or that
    /// belongs to what was trimmed.
    fn chunk_header(
        &mut self,
        superblock: &Superblock,
        file: &StoreFile,
        offset: u64,
        chunk_bytes: u32,
    ) -> anyhow::Result<Option<ChunkHeader>> {
        let block = superblock.block_bytes;
        let last = offset + u64::from(chunk_bytes.saturating_sub(block));
        let mut found = Vec::new();
        for at in [offset, last] {
            let bytes = files::read(file, at, block as usize)?;
            let own = |header: &ChunkHeader| {
                header.file == file.number && header.cluster == superblock.cluster
            };
            found.push(ChunkHeader::parse(&bytes).ok().filter(own));
        }
        let header = found
            .iter()
            .flatten()
            .max_by_key(|header| header.life)
            .copied();
        let Some(header) = header else {
            return Ok(None);
        };
        let segments = usize::from(superblock.segments);
        let base = match header.stream {
            JOURNAL_STREAM => superblock.base.last().copied(),
            stream if usize::from(stream) < segments => {
                superblock.base.get(usize::from(stream)).copied()
            }
            _ => None,
        };
        if base.is_none_or(|base| header.number < base) {
            return Ok(None);
        }
        // The copy at the end is written when the chunk is opened, like the one in front.
        if found
            .iter()
            .any(|copy| copy.is_none_or(|copy| copy.life != header.life))
        {
            self.streams.entry(header.stream).or_default().half_headers += 1;
        }
        Ok(Some(header))
    }

    fn read_chunk(
        &mut self,
        superblock: &Superblock,
        chunk: &ChunkPlace<'_>,
    ) -> anyhow::Result<()> {
        let header = &chunk.header;
        let mut bytes = files::read(chunk.file, chunk.offset, header.chunk_bytes as usize)?;
        let journal = header.stream == JOURNAL_STREAM;
        let plan = ScanPlan {
            framing: if journal {
                Framing::Journal
            } else {
                Framing::Records
            },
            log: superblock.log,
            segment: SegmentId {
                shard: superblock.shard,
                slot: Slot::new(header.stream),
            },
            stamp: header.stamp,
            from: superblock.block_bytes,
            to: header.chunk_bytes.saturating_sub(superblock.block_bytes),
            first: header.first,
            limit: u64::MAX,
            complete: false,
        };
        let mut places = Vec::new();
        let end = scan(&plan, &mut bytes, &mut places);
        if journal && superblock.shard == ShardId::MAX {
            for place in places.iter().filter(|place| !place.is_damaged()) {
                let entry = bytes
                    .get(place.offset() as usize..)
                    .map(JournalEntry::new_checked);
                if let Some(Ok(entry)) = entry {
                    self.cut_log.read(entry.body);
                }
            }
        }
        let stream = self.streams.entry(header.stream).or_default();
        stream.chunks += 1;
        // A chunk that begins below the end of the one before takes the place of what lies beyond.
        stream.entries = stream
            .entries
            .saturating_sub(stream.end.saturating_sub(header.first))
            + (end.end - header.first);
        stream.first.get_or_insert(header.first);
        stream.end = end.end;
        stream.damaged += u64::from(end.damaged);
        Ok(())
    }

    /// The number of things that are damaged.
    pub(super) fn damage(&self) -> u64 {
        let superblocks = self
            .superblocks
            .iter()
            .filter(|(_, superblock)| superblock.is_err())
            .count() as u64;
        let streams: u64 = self
            .streams
            .values()
            .map(|stream| stream.damaged + stream.half_headers)
            .sum();
        let checkpoints = self
            .checkpoints
            .iter()
            .filter(|checkpoint| !checkpoint.whole)
            .count() as u64;
        superblocks + streams + checkpoints + self.short.len() as u64 + self.cut_log.broken
    }

    pub(super) fn text(&self) -> String {
        let mut out = format!("{}\n", self.folder.display());
        let mut table = Table::new();
        let mut row = |what: &str, value: String| table.row(&[format!("  {what}"), value]);
        if let Some(newest) = self.newest() {
            row("cluster", newest.cluster.to_string());
            let shard = if newest.shard == ShardId::MAX {
                String::from("the root")
            } else {
                format!("shard {}", newest.shard)
            };
            row(
                "place",
                format!(
                    "node {}, log {}, {shard}, {}",
                    newest.node,
                    newest.log,
                    count(newest.segments.into(), "segment", "segments")
                ),
            );
            row("durability", newest.class.to_string());
            row("incarnation", newest.inc.to_string());
            let sizes = [newest.chunk_bytes.into(), newest.extent_bytes].map(size);
            row(
                "geometry",
                format!("chunks of {} in files of {}", sizes[0], sizes[1]),
            );
        }
        for (copy, superblock) in &self.superblocks {
            let state = match superblock {
                Ok(superblock) => format!("valid, sequence {}", superblock.sequence),
                Err(why) => format!("DAMAGED: {why}"),
            };
            row(&format!("superblock {copy}"), state);
        }
        for (id, stream) in &self.streams {
            let first = stream.first.unwrap_or(0);
            let mut state = format!(
                "{}, from {first} up to {}, in {}",
                count(stream.entries, "entry", "entries"),
                stream.end,
                count(stream.chunks, "chunk", "chunks")
            );
            if stream.damaged + stream.half_headers > 0 {
                state += &format!(
                    "; DAMAGED: {}, {}",
                    count(stream.damaged, "entry", "entries"),
                    count(stream.half_headers, "header", "headers")
                );
            }
            row(&stream_name(*id), state);
        }
        let log = &self.cut_log;
        if log.entries > 0 {
            let broken = if log.broken > 0 {
                format!("; DAMAGED: {}", count(log.broken, "entry", "entries"))
            } else {
                String::new()
            };
            row(
                "cut log",
                format!(
                    "{} to number {}: {}, {}, {}; positions up to {}{broken}",
                    count(log.entries, "entry", "entries"),
                    log.last,
                    count(log.cuts, "cut", "cuts"),
                    count(log.views, "view", "views"),
                    count(log.losses, "loss", "losses"),
                    log.end_gsn
                ),
            );
        }
        for checkpoint in &self.checkpoints {
            let state = if checkpoint.whole { "valid" } else { "DAMAGED" };
            let bytes = size(checkpoint.bytes);
            row(
                &format!("checkpoint {}", checkpoint.number),
                format!("{state}, covers entry {}, {bytes}", checkpoint.upto),
            );
        }
        for (name, bytes, whole) in &self.short {
            row(
                name,
                format!(
                    "DAMAGED: cut off at {bytes} bytes of {whole}; a node does not start with it"
                ),
            );
        }
        row("free", size(self.spare_bytes));
        out += &table.render();
        out.push('\n');
        out
    }

    pub(super) fn json(&self) -> Value {
        let superblocks = self.superblocks.iter().map(|(copy, superblock)| match superblock {
            Ok(valid) => json!({"copy": copy, "valid": true, "sequence": valid.sequence, "inc": valid.inc.get()}),
            Err(why) => json!({"copy": copy, "valid": false, "why": why}),
        });
        let streams = self.streams.iter().map(|(id, stream)| {
            json!({
                "stream": stream_name(*id), "entries": stream.entries, "first": stream.first, "end": stream.end,
                "chunks": stream.chunks, "damaged": stream.damaged, "damaged_headers": stream.half_headers,
            })
        });
        let checkpoints = self.checkpoints.iter().map(|checkpoint| {
            json!({"number": checkpoint.number, "upto": checkpoint.upto, "bytes": checkpoint.bytes, "whole": checkpoint.whole})
        });
        let short = self.short.iter().map(
            |(name, bytes, whole)| json!({"file": name, "bytes": bytes, "whole_bytes": whole}),
        );
        let newest = self.newest();
        let log = &self.cut_log;
        json!({
            "folder": self.folder, "cluster": newest.map(|found| found.cluster.to_string()),
            "node": newest.map(|found| found.node.get()), "log": newest.map(|found| found.log.get()),
            "inc": newest.map(|found| found.inc.get()),
            "superblocks": superblocks.collect::<Vec<_>>(), "streams": streams.collect::<Vec<_>>(),
            "checkpoints": checkpoints.collect::<Vec<_>>(), "short_files": short.collect::<Vec<_>>(), "free_bytes": self.spare_bytes, "damaged": self.damage(),
            "cut_log": {
                "entries": log.entries, "last": log.last, "cuts": log.cuts, "views": log.views, "losses": log.losses,
                "end_gsn": log.end_gsn, "broken": log.broken,
            },
        })
    }
}

impl CutLog {
    fn read(&mut self, body: &[u8]) {
        let Ok(entry) = EntryView::new_checked(body) else {
            self.broken += 1;
            return;
        };
        self.entries += 1;
        self.last = entry.header.entry.get();
        match entry.body {
            EntryBody::Cut(cut) => {
                self.cuts += 1;
                self.end_gsn = cut.end_gsn.get();
            }
            EntryBody::View(_) => self.views += 1,
            EntryBody::Loss(loss) => {
                self.losses += 1;
                self.end_gsn = loss.end_gsn.get();
            }
            EntryBody::RootEpoch(_) | EntryBody::Trim { .. } | EntryBody::Ceiling { .. } => {}
        }
    }
}

fn stream_name(stream: u8) -> String {
    match stream {
        JOURNAL_STREAM => String::from("journal"),
        slot => format!("segment {slot}"),
    }
}
