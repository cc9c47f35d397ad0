//! Errors of a configuration file: all of them, each with its place.

use core::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// One thing that is wrong.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Problem {
    /// The line, from 1; 0 when the whole file is meant.
    pub line: usize,
    /// The column in characters, from 1; 0 when the whole file is meant.
    pub column: usize,
    /// A sentence: what is wrong, and what would be right.
    pub what: String,
}

/// Everything that is wrong with a configuration file. Effect: none; nothing was started.
///
/// Displayed as one line per problem, `file:line:column: sentence`, in the order of the file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConfigErrors {
    /// The file.
    pub file: PathBuf,
    /// The problems, in the order of the file; never empty.
    pub problems: Vec<Problem>,
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            let file = self.file.display();
            match problem.line {
                0 => write!(f, "{file}: {}", problem.what)?,
                line => write!(f, "{file}:{line}:{}: {}", problem.column, problem.what)?,
            }
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

impl ConfigErrors {
    /// An error about the file as a whole.
    pub(crate) fn whole(file: &Path, what: String) -> Self {
        let problem = Problem {
            line: 0,
            column: 0,
            what,
        };
        Self {
            file: file.to_owned(),
            problems: vec![problem],
        }
    }
}

/// Collects problems while a file is read.
#[derive(Debug)]
pub(crate) struct Sink<'a> {
    text: &'a str,
    problems: Vec<Problem>,
}

impl<'a> Sink<'a> {
    pub(crate) const fn new(text: &'a str) -> Self {
        Self {
            text,
            problems: Vec::new(),
        }
    }

    /// Notes a problem at a place of the text.
    pub(crate) fn at(&mut self, span: &Range<usize>, what: impl Into<String>) {
        let before = self.text.get(..span.start).unwrap_or(self.text);
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        self.problems.push(Problem {
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
            what: what.into(),
        });
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.problems.is_empty()
    }

    /// All problems in the order of the file, each once.
    pub(crate) fn finish(&mut self, file: &Path) -> Result<(), ConfigErrors> {
        if self.problems.is_empty() {
            return Ok(());
        }
        self.problems.sort();
        self.problems.dedup();
        Err(ConfigErrors {
            file: file.to_owned(),
            problems: core::mem::take(&mut self.problems),
        })
    }
}
