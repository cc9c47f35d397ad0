//! Evaluates SPDX licence expressions: is there a way to satisfy this one with the licences we permit?
//!
//! Grammar, loosest first: `OR`, `AND`, `WITH`, parentheses. The old `/` of some manifests means `OR`. Licence text is other people's
//! input: an expression that does not parse is refused.

/// Licences permitted for dependencies: permissive ones, none that asks for source or for the same licence.
pub const PERMITTED: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "ISC",
    "MIT",
    "MIT-0",
    "NCSA",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// Says whether `expression` can be satisfied with permitted licences only; `None` when it does not parse.
#[must_use]
pub fn permitted(expression: &str) -> Option<bool> {
    let spaced = expression
        .replace('(', " ( ")
        .replace(')', " ) ")
        .replace('/', " OR ");
    let tokens: Vec<&str> = spaced.split_whitespace().collect();
    let mut parser = Parser {
        tokens: &tokens,
        at: 0,
    };
    let value = parser.either()?;
    (parser.at == tokens.len()).then_some(value)
}

struct Parser<'a> {
    tokens: &'a [&'a str],
    at: usize,
}

impl<'a> Parser<'a> {
    fn take(&mut self) -> Option<&'a str> {
        let token = self.tokens.get(self.at).copied()?;
        self.at += 1;
        Some(token)
    }

    fn accept(&mut self, token: &str) -> bool {
        let hit = self.tokens.get(self.at).is_some_and(|t| *t == token);
        self.at += usize::from(hit);
        hit
    }

    fn either(&mut self) -> Option<bool> {
        let mut value = self.both()?;
        while self.accept("OR") {
            value |= self.both()?;
        }
        Some(value)
    }

    fn both(&mut self) -> Option<bool> {
        let mut value = self.one()?;
        while self.accept("AND") {
            value &= self.one()?;
        }
        Some(value)
    }

    fn one(&mut self) -> Option<bool> {
        let token = self.take()?;
        if token == "(" {
            let value = self.either()?;
            return self.accept(")").then_some(value);
        }
        if matches!(token, "OR" | "AND" | "WITH" | ")") {
            return None;
        }
        let name = if self.accept("WITH") {
            format!("{token} WITH {}", self.take()?)
        } else {
            token.to_owned()
        };
        Some(PERMITTED.contains(&name.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_choice_needs_one_permitted_side_and_a_conjunction_both() {
        assert_eq!(permitted("MIT"), Some(true));
        assert_eq!(permitted("GPL-3.0-only"), Some(false));
        assert_eq!(permitted("GPL-3.0-only OR MIT"), Some(true));
        assert_eq!(permitted("GPL-3.0-only AND MIT"), Some(false));
        assert_eq!(permitted("MIT/Apache-2.0"), Some(true));
    }

    #[test]
    fn conjunction_binds_tighter_and_parentheses_win() {
        assert_eq!(
            permitted("MIT OR GPL-3.0-only AND GPL-2.0-only"),
            Some(true)
        );
        assert_eq!(
            permitted("(MIT OR GPL-3.0-only) AND GPL-2.0-only"),
            Some(false)
        );
        assert_eq!(permitted("(MIT OR Apache-2.0) AND Unicode-3.0"), Some(true));
    }

    #[test]
    fn an_exception_is_part_of_the_licence() {
        assert_eq!(
            permitted("Apache-2.0 WITH LLVM-exception OR GPL-2.0-only"),
            Some(true)
        );
        assert_eq!(
            permitted("GPL-2.0-only WITH Classpath-exception-2.0"),
            Some(false)
        );
    }

    #[test]
    fn what_does_not_parse_is_not_judged() {
        for text in [
            "",
            "MIT OR",
            "(MIT",
            "MIT Apache-2.0",
            "AND MIT",
            "MIT WITH",
        ] {
            assert_eq!(permitted(text), None, "{text}");
        }
    }
}
