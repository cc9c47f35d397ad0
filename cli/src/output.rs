//! Results: text for people, JSON for programs, to standard output or a file.

use std::fs::File;
use std::io::{self, BufWriter, StdoutLock, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde_json::Value;

/// Where results go, and in which form.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct OutArgs {
    /// Print JSON to standard output
    #[arg(long)]
    pub(crate) json: bool,
    /// Also write the result as JSON to this file
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
}

impl OutArgs {
    /// Prints a result and writes it where asked.
    pub(crate) fn emit(&self, text: &str, json: &Value) -> anyhow::Result<()> {
        let encoded = || serde_json::to_string_pretty(json).map(|text| text + "\n");
        if let Some(file) = &self.out {
            std::fs::write(file, encoded()?)
                .with_context(|| format!("cannot write {}", file.display()))?;
        }
        let mut out = io::stdout().lock();
        let text = if self.json {
            encoded()?
        } else {
            text.to_owned()
        };
        out.write_all(text.as_bytes())
            .and_then(|()| out.flush())
            .context("standard output")
    }
}

/// Standard output for many small records: buffered, to be flushed when there is nothing more at hand.
pub(crate) fn records_out() -> BufWriter<StdoutLock<'static>> {
    BufWriter::with_capacity(256 << 10, io::stdout().lock())
}

/// As [`records_out`], to a file if one is named.
pub(crate) fn records_to(file: Option<&Path>) -> anyhow::Result<Box<dyn Write>> {
    let Some(path) = file else {
        return Ok(Box::new(records_out()));
    };
    let file = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(Box::new(BufWriter::with_capacity(256 << 10, file)))
}

/// Writes one record as a JSON line. A payload that is not text is given in hexadecimal digits.
pub(crate) fn write_json_record(
    out: &mut impl Write,
    gsn: u64,
    shard: Option<u32>,
    payload: &[u8],
) -> io::Result<()> {
    write!(out, "{{\"gsn\":{gsn}")?;
    if let Some(shard) = shard {
        write!(out, ",\"shard\":{shard}")?;
    }
    match std::str::from_utf8(payload) {
        Ok(text) => {
            out.write_all(b",\"payload\":")?;
            serde_json::to_writer(&mut *out, text)?;
        }
        Err(_) => {
            out.write_all(b",\"payload_hex\":\"")?;
            for byte in payload {
                write!(out, "{byte:02x}")?;
            }
            out.write_all(b"\"")?;
        }
    }
    out.write_all(b"}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_json_lines() {
        let line = |payload: &[u8], shard| {
            let mut out = Vec::new();
            write_json_record(&mut out, 7, shard, payload).unwrap();
            let line = String::from_utf8(out).unwrap();
            let parsed: Value = serde_json::from_str(&line).unwrap();
            assert_eq!(parsed["gsn"], 7);
            line
        };
        assert_eq!(
            line(b"a \"b\"\n", Some(3)),
            "{\"gsn\":7,\"shard\":3,\"payload\":\"a \\\"b\\\"\\n\"}\n"
        );
        assert_eq!(line(b"", None), "{\"gsn\":7,\"payload\":\"\"}\n");
        assert_eq!(
            line(&[0xff, 0x01], None),
            "{\"gsn\":7,\"payload_hex\":\"ff01\"}\n"
        );
    }

    #[test]
    fn results_go_to_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("result.json");
        let args = OutArgs {
            json: false,
            out: Some(file.clone()),
        };
        args.emit("", &serde_json::json!({"a": 1})).unwrap();
        assert_eq!(std::fs::read_to_string(file).unwrap(), "{\n  \"a\": 1\n}\n");
        let nowhere = OutArgs {
            json: false,
            out: Some(folder.path().join("no/such/folder")),
        };
        let error = format!("{:#}", nowhere.emit("", &Value::Null).unwrap_err());
        assert!(error.starts_with("cannot write "), "{error}");
    }
}
