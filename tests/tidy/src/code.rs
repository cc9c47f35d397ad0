//! Separates Rust code from its comments and literals, so that a rule about code is not tripped by prose.
//!
//! This is a lexer for exactly that purpose: nested block comments, strings with escapes, raw strings, byte strings, character
//! literals against lifetimes. It keeps line numbers, and it never fails: an unterminated literal runs to the end of the text.

/// Returns `text` with the contents of comments, strings and character literals replaced by blanks; newlines stay where they are.
#[must_use]
pub fn code_only(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while let Some(&c) = chars.get(at) {
        let end = if c == '/' && peek(&chars, at + 1) == Some('/') {
            line_comment_end(&chars, at)
        } else if c == '/' && peek(&chars, at + 1) == Some('*') {
            block_comment_end(&chars, at)
        } else if c == '"' {
            string_end(&chars, at)
        } else if let Some(end) = raw_string_end(&chars, at) {
            end
        } else if c == '\'' {
            char_end(&chars, at)
        } else {
            at
        };
        if end == at {
            out.push(c);
            at += 1;
        } else {
            blank(&chars, at, end, &mut out);
            at = end;
        }
    }
    out
}

/// Finds every occurrence of `needle` in `text` that is not part of a longer identifier. Returns 1-based line numbers.
#[must_use]
pub fn lines_with_word(text: &str, needle: &str) -> Vec<usize> {
    let mut found = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let hit = line.match_indices(needle).any(|(start, _)| {
            let before = line.get(..start).and_then(|s| s.chars().next_back());
            let after = line
                .get(start + needle.len()..)
                .and_then(|s| s.chars().next());
            let joined = |edge: Option<char>, inner: Option<char>| is_word(edge) && is_word(inner);
            !joined(before, needle.chars().next()) && !joined(after, needle.chars().next_back())
        });
        if hit {
            found.push(index + 1);
        }
    }
    found
}

/// Flattens every `use` of `code`, groups included, into full paths, each with the 1-based line the statement begins on.
#[must_use]
pub fn imports(code: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("use ") {
        let before = code.get(..at).unwrap_or_default();
        if is_word(before.chars().next_back()) {
            continue;
        }
        let statement = code.get(at + 4..).and_then(|rest| rest.split(';').next());
        let compact: String = statement.unwrap_or_default().split_whitespace().collect();
        let line = before.matches('\n').count() + 1;
        found.extend(flatten("", &compact).into_iter().map(|path| (line, path)));
    }
    found
}

/// `a::{b,c::{d,e}}` becomes `a::b`, `a::c::d`, `a::c::e`.
fn flatten(prefix: &str, tree: &str) -> Vec<String> {
    let Some((head, rest)) = tree.split_once('{') else {
        return vec![format!("{prefix}{tree}")];
    };
    let inner = rest.strip_suffix('}').unwrap_or(rest);
    let prefix = format!("{prefix}{head}");
    let (mut depth, mut start, mut parts) = (0_i32, 0, Vec::new());
    for (i, c) in inner.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(inner.get(start..i).unwrap_or_default());
                start = i + 1;
            }
            _ => {}
        }
    }
    parts.push(inner.get(start..).unwrap_or_default());
    parts
        .into_iter()
        .filter(|p| !p.is_empty())
        .flat_map(|p| flatten(&prefix, p))
        .collect()
}

fn is_word(c: Option<char>) -> bool {
    c.is_some_and(|c| c.is_alphanumeric() || c == '_')
}

fn peek(chars: &[char], at: usize) -> Option<char> {
    chars.get(at).copied()
}

fn blank(chars: &[char], from: usize, to: usize, out: &mut String) {
    out.extend(
        chars
            .iter()
            .take(to)
            .skip(from)
            .map(|&c| if c == '\n' { '\n' } else { ' ' }),
    );
}

fn line_comment_end(chars: &[char], at: usize) -> usize {
    (at..chars.len())
        .find(|&i| peek(chars, i) == Some('\n'))
        .unwrap_or(chars.len())
}

fn block_comment_end(chars: &[char], at: usize) -> usize {
    let (mut depth, mut i) = (0_usize, at);
    while i < chars.len() {
        match (peek(chars, i), peek(chars, i + 1)) {
            (Some('/'), Some('*')) => {
                depth += 1;
                i += 2;
            }
            (Some('*'), Some('/')) => {
                depth -= 1;
                i += 2;
                if depth == 0 {
                    return i;
                }
            }
            _ => i += 1,
        }
    }
    chars.len()
}

fn string_end(chars: &[char], at: usize) -> usize {
    let mut i = at + 1;
    while let Some(c) = peek(chars, i) {
        match c {
            '\\' => i += 2,
            '"' => return i + 1,
            _ => i += 1,
        }
    }
    chars.len()
}

/// `r"..."`, `r#"..."#`, `br#"..."#`, `cr#"..."#`: only where the prefix is not the tail of an identifier.
fn raw_string_end(chars: &[char], at: usize) -> Option<usize> {
    if at > 0 && is_word(peek(chars, at - 1)) {
        return None;
    }
    let mut i = match (peek(chars, at), peek(chars, at + 1)) {
        (Some('r'), _) => at + 1,
        (Some('b' | 'c'), Some('r')) => at + 2,
        _ => return None,
    };
    let mut hashes = 0;
    while peek(chars, i) == Some('#') {
        hashes += 1;
        i += 1;
    }
    if peek(chars, i) != Some('"') {
        return None;
    }
    i += 1;
    while i < chars.len() {
        if peek(chars, i) == Some('"') && (1..=hashes).all(|h| peek(chars, i + h) == Some('#')) {
            return Some(i + 1 + hashes);
        }
        i += 1;
    }
    Some(chars.len())
}

/// A character literal ends at its quote; a lifetime or a label is code, so `at` itself is returned.
fn char_end(chars: &[char], at: usize) -> usize {
    match (peek(chars, at + 1), peek(chars, at + 2)) {
        (Some('\\'), _) => {
            let close = (at + 3..chars.len()).find(|&i| peek(chars, i) == Some('\''));
            close.map_or(chars.len(), |i| i + 1)
        }
        (Some(_), Some('\'')) => at + 3,
        _ => at,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_are_blanked_and_lines_kept() {
        let text = "let a = \"un\\\"safe\"; // unsafe\n/* x /* unsafe */\n unsafe */ unsafe {}\n";
        let code = code_only(text);
        assert_eq!(code.lines().count(), 3);
        assert_eq!(lines_with_word(&code, "unsafe"), vec![3]);
        assert_eq!(code.matches("unsafe").count(), 1);
    }

    #[test]
    fn raw_strings_and_characters_are_literals_and_lifetimes_are_code() {
        let code = code_only(
            "r#\"unsafe \" unsafe\"# br\"unsafe\" '\"' unsafe '\\'' fn f<'a>(x: &'a str) {}",
        );
        assert_eq!(code.matches("unsafe").count(), 1);
        assert!(code.contains("<'a>(x: &'a str)"), "{code}");
    }

    #[test]
    fn an_unterminated_literal_runs_to_the_end() {
        assert_eq!(code_only("a \"unsafe").trim(), "a");
        assert_eq!(code_only("a r#\"unsafe\"").trim(), "a");
        assert_eq!(code_only("a /* unsafe").trim(), "a");
        assert_eq!(code_only("a '\\").trim(), "a");
    }

    #[test]
    fn imports_are_flattened() {
        let code = "//\nuse std::{\n    fs,\n    time::{Duration, Instant},\n};\npub use a::b;\nreuse x;\n";
        let paths: Vec<(usize, String)> = imports(code);
        let expected = [
            (2, "std::fs"),
            (2, "std::time::Duration"),
            (2, "std::time::Instant"),
            (6, "a::b"),
        ];
        assert_eq!(paths, expected.map(|(l, p)| (l, p.to_owned())));
    }

    #[test]
    fn words_are_matched_whole() {
        assert_eq!(
            lines_with_word("unsafe_code\nunsafe {\nmy_unsafe\nstd::unsafe", "unsafe"),
            vec![2, 4]
        );
        assert_eq!(
            lines_with_word("a thread::sleep(x)\nthread::sleepy()", "thread::sleep"),
            vec![1]
        );
        assert_eq!(lines_with_word("x todo!() y", "todo!"), vec![1]);
    }
}
