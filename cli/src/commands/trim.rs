//! `ionian trim`: give up old records.

use ionian_client::{Gsn, Link, Log};

use crate::connect::{ConnectArgs, with_log};
use crate::exit::Exit;
use crate::output::OutArgs;

/// Remove the records below a position, for good
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The first position that is kept
    #[arg(long, value_name = "GSN")]
    before: u64,
    #[command(flatten)]
    connect: ConnectArgs,
    #[command(flatten)]
    out: OutArgs,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Exit> {
    let head = with_log(&args.connect, |log| trim(log, Gsn::new(args.before)))?;
    let json = serde_json::json!({ "head": head.get() });
    args.out
        .emit(&format!("the log begins at {head}\n"), &json)?;
    Ok(Exit::Done)
}

fn trim<L: Link>(log: &mut Log<L>, before: Gsn) -> anyhow::Result<Gsn> {
    Ok(log.trim(before)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ionian_client::testing::MemoryCluster;

    #[test]
    fn trims_go_forward_and_not_beyond_the_tail() {
        let cluster = MemoryCluster::new(1, 2);
        let mut log = cluster.open(1).unwrap();
        for _ in 0..5 {
            log.append(b"x").unwrap();
        }
        assert_eq!(trim(&mut log, Gsn::new(3)).unwrap(), Gsn::new(3));
        assert_eq!(
            trim(&mut log, Gsn::new(1)).unwrap(),
            Gsn::new(3),
            "what is gone stays gone"
        );
        let error = trim(&mut log, Gsn::new(6)).unwrap_err().to_string();
        assert_eq!(
            error,
            "cannot trim below 6: the log ends at 5; trim at most there (no effect)"
        );
    }
}
