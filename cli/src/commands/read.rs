//! `ionian read`: the record at one position.

use std::io::Write;
use std::path::PathBuf;

use anyhow::bail;
use ionian_client::{GapKind, Gsn, Link, Log, ReadOutcome, ShardId};

use crate::connect::{ConnectArgs, with_log};
use crate::exit::Exit;
use crate::output::{records_to, write_json_record};

/// Print the record at a position
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit code 1 when there is no record: trimmed, lost, or beyond the end of the log."
)]
pub(crate) struct Args {
    /// The position
    #[arg(value_name = "GSN")]
    gsn: u64,
    /// The shard that holds it, when known: saves asking
    #[arg(long, value_name = "ID")]
    shard: Option<u32>,
    /// Print a JSON line instead of the payload
    #[arg(long)]
    json: bool,
    /// Write to this file instead of standard output
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    connect: ConnectArgs,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Exit> {
    let shard = args.shard.map(ShardId::new);
    let payload = with_log(&args.connect, |log| payload(log, Gsn::new(args.gsn), shard))?;
    let mut out = records_to(args.out.as_deref())?;
    if args.json {
        write_json_record(&mut out, args.gsn, args.shard, &payload)?;
    } else {
        out.write_all(&payload)?;
        out.write_all(b"\n")?;
    }
    out.flush()?;
    Ok(Exit::Done)
}

fn payload<L: Link>(log: &mut Log<L>, gsn: Gsn, shard: Option<ShardId>) -> anyhow::Result<Vec<u8>> {
    let outcome = match shard {
        Some(shard) => log.read_record(gsn, shard)?,
        None => log.read(gsn)?,
    };
    match outcome {
        ReadOutcome::Record(payload) => Ok(payload),
        ReadOutcome::Trimmed => bail!(
            "position {gsn} is trimmed: the log begins at {}",
            log.head()?
        ),
        ReadOutcome::Unwritten => bail!(
            "position {gsn} is beyond the tail: the log ends at {}",
            log.tail()?
        ),
        ReadOutcome::Gap(GapKind::Loss) => {
            bail!("position {gsn} is lost: the copies that held it are gone")
        }
        ReadOutcome::Gap(kind) => bail!("position {gsn} holds no record: a gap of kind {kind}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ionian_client::testing::MemoryCluster;

    #[test]
    fn every_answer_is_its_own_sentence() {
        let cluster = MemoryCluster::new(1, 2);
        let mut log = cluster.open(1).unwrap();
        for record in [&b"a"[..], b"", b"c"] {
            log.append(record).unwrap();
        }
        cluster.declare_gap(2, GapKind::Loss);
        let mut read =
            |gsn| payload(&mut log, Gsn::new(gsn), None).map_err(|error| error.to_string());
        assert_eq!(read(1), Ok(vec![]), "an empty record is a record");
        assert_eq!(read(2), Ok(b"c".to_vec()));
        assert_eq!(
            read(4).unwrap_err(),
            "position 4 is lost: the copies that held it are gone"
        );
        assert_eq!(
            read(5).unwrap_err(),
            "position 5 is beyond the tail: the log ends at 5"
        );
        log.trim(Gsn::new(1)).unwrap();
        let trimmed = payload(&mut log, Gsn::ZERO, Some(ShardId::ZERO))
            .unwrap_err()
            .to_string();
        assert_eq!(trimmed, "position 0 is trimmed: the log begins at 1");
    }
}
