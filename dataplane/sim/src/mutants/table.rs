//! The table of mutants in `docs/testing.md`: written from a measurement, and compared with the code.

use ionian_types::Mutant;

use super::{Hunt, families};
use crate::invariant::Invariant;

/// The line before the table.
const BEGIN: &str = "<!-- mutants: begin -->";
/// The line after it.
const END: &str = "<!-- mutants: end -->";

/// Bugs in what is not built yet: name, story, what they wait for.
pub const LATER: &[(&str, &str, &str)] = &[];

/// What was measured of one mutant.
#[derive(Clone, Debug)]
pub struct Row {
    /// Which one.
    pub mutant: Mutant,
    /// One hunt per base seed.
    pub hunts: Vec<Hunt>,
}

impl Row {
    /// Seeds that fail without the mutant too: bugs of the machines, or of the simulator.
    pub fn fail_anyway(&self) -> impl Iterator<Item = u64> + '_ {
        self.hunts.iter().filter_map(|hunt| hunt.fails_anyway)
    }

    /// Whether some stream of seeds did not find it.
    #[must_use]
    pub fn survived(&self) -> bool {
        self.hunts.iter().any(|hunt| hunt.caught.is_none())
    }

    /// The median number of seeds that found it.
    #[must_use]
    pub fn median(&self) -> u64 {
        let mut seeds: Vec<u64> = self.hunts.iter().map(|hunt| hunt.seeds).collect();
        seeds.sort_unstable();
        seeds.get(seeds.len() / 2).copied().unwrap_or(0)
    }

    /// What found it, in the order of the ids.
    #[must_use]
    pub fn invariants(&self) -> Vec<Invariant> {
        let mut found: Vec<Invariant> = self
            .hunts
            .iter()
            .filter_map(|hunt| Some(hunt.caught?.0))
            .collect();
        found.sort_unstable();
        found.dedup();
        found
    }

    /// Seeds in which the mutated code stopped itself; they do not count.
    #[must_use]
    pub fn panics(&self) -> u64 {
        self.hunts.iter().map(|hunt| hunt.panics).sum()
    }

    /// What found it, for people.
    #[must_use]
    pub fn found_by(&self) -> String {
        let found: Vec<String> = self.invariants().iter().map(ToString::to_string).collect();
        if self.survived() {
            return "**survived**".to_owned();
        }
        found.join(", ")
    }
}

/// The table as text.
#[must_use]
pub fn render(rows: &[Row]) -> String {
    let mut text = String::from(
        "| mutant | what it does wrong | found by | seeds (median of 5) |\n|---|---|---|---|\n",
    );
    for row in rows {
        let (name, story) = (row.mutant.name(), row.mutant.story());
        let (found, median) = (row.found_by(), row.median());
        let own = families::family(row.mutant).map_or("", |_| " *f*");
        text.push_str(&format!(
            "| `{name}` | {story} | {found} | {median}{own} |\n"
        ));
    }
    for (name, story, waits_for) in LATER {
        text.push_str(&format!(
            "| `{name}` | {story} | *later*: {waits_for} | |\n"
        ));
    }
    text
}

/// The document with the table in its place; `None` without the two lines that mark it.
#[must_use]
pub fn replace(document: &str, table: &str) -> Option<String> {
    let begin = document.find(BEGIN)? + BEGIN.len();
    let end = begin + document[begin..].find(END)?;
    Some(format!(
        "{}\n{table}{}",
        &document[..begin],
        &document[end..]
    ))
}

/// One row of the table as the document has it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Written {
    /// The name.
    pub name: String,
    /// What it does wrong.
    pub story: String,
    /// What finds it.
    pub found_by: String,
}

/// The rows that the document has.
#[must_use]
pub fn read(document: &str) -> Vec<Written> {
    let inside = document
        .split_once(BEGIN)
        .and_then(|(_, rest)| rest.split_once(END))
        .map_or("", |(inside, _)| inside);
    let row = |line: &str| {
        let mut cells = line.split('|').skip(1).map(str::trim);
        Some(Written {
            name: cells
                .next()?
                .strip_prefix('`')?
                .strip_suffix('`')?
                .to_owned(),
            story: cells.next()?.to_owned(),
            found_by: cells.next()?.to_owned(),
        })
    };
    inside.lines().filter_map(row).collect()
}

/// What of the document's table does not fit the mutants that there are: names, order and stories, and that each has been
/// found.
#[must_use]
pub fn stale(written: &[Written]) -> Vec<String> {
    let wanted = Mutant::ALL
        .iter()
        .map(|mutant| (mutant.name(), mutant.story(), None))
        .chain(LATER.iter().map(|(name, story, waits_for)| {
            (*name, *story, Some(format!("*later*: {waits_for}")))
        }));
    let mut wrong = Vec::new();
    let mut rows = written.iter();
    for (name, story, found_by) in wanted {
        match rows.next() {
            Some(row) if row.name == name && row.story == story => {
                let same = found_by.is_none_or(|found_by| row.found_by == found_by);
                if !same || row.found_by.is_empty() || row.found_by.contains("survived") {
                    wrong.push(format!("{name}: the table says \"{}\"", row.found_by));
                }
            }
            row => {
                let found = row.map_or("nothing", |row| row.name.as_str());
                wrong.push(format!(
                    "{name}: the table has {found} there, or another story"
                ));
                return wrong;
            }
        }
    }
    wrong.extend(rows.map(|row| format!("{}: there is no such mutant", row.name)));
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> Vec<Row> {
        let hunt = |seeds| Hunt {
            seeds,
            caught: Some((Invariant::O3, 7)),
            panics: 0,
            fails_anyway: None,
        };
        let row = |mutant: &Mutant| Row {
            mutant: *mutant,
            hunts: [5, 1, 9, 2, 4].map(hunt).to_vec(),
        };
        Mutant::ALL.iter().map(row).collect()
    }

    #[test]
    fn what_is_written_is_read_back_and_fits() {
        let document = format!("before\n{BEGIN}\nold\n{END}\nafter\n");
        let document = replace(&document, &render(&rows())).unwrap();
        assert!(document.starts_with("before\n") && document.ends_with("\nafter\n"));
        let written = read(&document);
        assert_eq!(stale(&written), Vec::<String>::new());
        assert_eq!(written[0].found_by, "O3");
        assert_eq!(rows()[0].median(), 4);
    }

    #[test]
    fn another_story_a_survivor_and_a_row_too_many_are_stale() {
        let document = format!("{BEGIN}\n{}{END}", render(&rows()));
        let written = read(&document);
        let mut other = written.clone();
        other[1].story.push('x');
        assert_eq!(stale(&other).len(), 1);
        let mut survivor = rows();
        survivor[0].hunts[3].caught = None;
        let survivor = read(&format!("{BEGIN}\n{}{END}", render(&survivor)));
        assert_eq!(stale(&survivor).len(), 1);
        let mut more = written;
        more.push(more[0].clone());
        assert_eq!(stale(&more).len(), 1);
        assert_eq!(stale(&[]).len(), 1);
    }

    #[test]
    fn names_say_what_they_are_and_none_is_given_twice() {
        let mut names: Vec<&str> = Mutant::ALL.iter().map(|mutant| mutant.name()).collect();
        names.extend(LATER.iter().map(|(name, ..)| *name));
        assert!(names.iter().all(|name| name.starts_with("mutant_")));
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
