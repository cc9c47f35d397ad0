//! What somebody may have meant who wrote a name that is not known.

/// The known name that is at most two changes away, where that is less than all of it.
pub fn nearest<'a>(text: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    known
        .map(|known| (distance(text, known), known))
        .min()
        .filter(|(distance, known)| *distance <= 2 && *distance < known.len())
        .map(|(_, known)| known)
}

/// The number of single-character insertions, deletions and replacements between two words.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_changes_are_a_slip_and_three_are_another_word() {
        let known = ["credits", "batch", "vlan"];
        let near = |text| nearest(text, known.into_iter());
        assert_eq!(near("credit"), Some("credits"));
        assert_eq!(near("bacth"), Some("batch"));
        assert_eq!(near("vla"), Some("vlan"));
        assert_eq!(near("speed"), None);
        assert_eq!(nearest("x", ["ab"].into_iter()), None);
    }
}
