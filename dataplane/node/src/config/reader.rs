//! Walks a parsed file by the table of keys: finds unknown keys, missing ones, and values of the wrong kind, and goes on.

use std::ops::Range;

use ionian_runtime::nearest;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::Sink;
use super::schema::{Key, Kind, Missing, Section};
use super::size::parse_size;

/// A value that is what its key wants, and where it stands; a default stands where its section begins.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Found<T> {
    pub(crate) value: T,
    pub(crate) span: Range<usize>,
}

/// A value of any kind.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Value {
    Text(String),
    Number(u64),
    Texts(Vec<Found<String>>),
    Numbers(Vec<u64>),
    Lists(Vec<Vec<Found<String>>>),
}

/// One table of the file, read by its section of the schema.
#[derive(Debug)]
pub(crate) struct Table<'a> {
    section: &'static Section,
    table: Option<&'a DeTable<'a>>,
    pub(crate) span: Range<usize>,
}

impl<'a> Table<'a> {
    /// Reads the table of a section that may be missing; `from` is where its absence is reported.
    pub(crate) const fn new(
        section: &'static Section,
        table: Option<&'a DeTable<'a>>,
        span: Range<usize>,
    ) -> Self {
        Self {
            section,
            table,
            span,
        }
    }

    /// Reports keys that the schema does not have. `also` names the tables within.
    pub(crate) fn check_names(&self, also: &[&str], sink: &mut Sink<'_>) {
        for name in self.table.iter().flat_map(|table| table.keys()) {
            let text: &str = name.get_ref();
            let known = self
                .section
                .keys
                .iter()
                .map(|key| key.name)
                .chain(also.iter().copied());
            if !known.clone().any(|known| known == text) {
                let hint = match nearest(text, known) {
                    Some(hint) => format!("; did you mean {hint}?"),
                    None => String::new(),
                };
                sink.at(&name.span(), format!("unknown key {text}{hint}"));
            }
        }
    }

    /// The value of a key, checked, or its default. `None` when it is missing without a default, or wrong (which is reported).
    pub(crate) fn get(&self, name: &str, sink: &mut Sink<'_>) -> Option<Found<Value>> {
        let key = self.section.key(name);
        if let Some(value) = self.table.and_then(|table| table.get(name)) {
            return check(key, value, sink).map(|checked| Found {
                value: checked,
                span: value.span(),
            });
        }
        match key.missing {
            Missing::Required => {
                sink.at(
                    &self.span,
                    format!("{} is missing: {}", key.name, lower(key.doc)),
                );
                None
            }
            Missing::Meaning(_) => None,
            Missing::Value(text) => {
                let value = DeValue::parse(text).expect("defaults are valid");
                let checked = check(key, &value, sink).expect("defaults are valid");
                Some(Found {
                    value: checked,
                    span: self.span.clone(),
                })
            }
        }
    }

    /// A key that is one text.
    pub(crate) fn text(&self, name: &str, sink: &mut Sink<'_>) -> Option<Found<String>> {
        let found = self.get(name, sink)?;
        match found.value {
            Value::Text(value) => Some(Found {
                value,
                span: found.span,
            }),
            _ => None,
        }
    }

    /// A key that is one number.
    pub(crate) fn number(&self, name: &str, sink: &mut Sink<'_>) -> Option<Found<u64>> {
        let found = self.get(name, sink)?;
        match found.value {
            Value::Number(value) => Some(Found {
                value,
                span: found.span,
            }),
            _ => None,
        }
    }

    /// A key that is a list of texts.
    pub(crate) fn texts(
        &self,
        name: &str,
        sink: &mut Sink<'_>,
    ) -> Option<Found<Vec<Found<String>>>> {
        let found = self.get(name, sink)?;
        match found.value {
            Value::Texts(value) => Some(Found {
                value,
                span: found.span,
            }),
            _ => None,
        }
    }
}

fn check(key: &Key, value: &Spanned<DeValue<'_>>, sink: &mut Sink<'_>) -> Option<Value> {
    let span = value.span();
    let checked = match key.kind {
        Kind::Name => text(value).and_then(|text| name(text).map(Value::Text)),
        Kind::Profile => text(value).and_then(|text| match text {
            path if path.ends_with(".toml") => Ok(Value::Text(path.to_owned())),
            text => name(text).map(Value::Text),
        }),
        Kind::Path => text(value).and_then(|text| match text {
            "" => Err(String::from("is empty: give a path")),
            text => Ok(Value::Text(text.to_owned())),
        }),
        Kind::Address => text(value).and_then(|text| address(text).map(Value::Text)),
        Kind::Choice(words) => text(value).and_then(|text| choice(text, words).map(Value::Text)),
        Kind::Integer { unit, min, max } => {
            integer(value).and_then(|number| range(number, min, max, unit))
        }
        Kind::Size { min, max } => size(value).and_then(|number| size_range(number, min, max)),
        Kind::Choices(words) => {
            return list(key, value, sink, |text| choice(text, words)).map(Value::Texts);
        }
        Kind::Nodes => return names(key, value, sink).map(Value::Texts),
        Kind::Cores => return cores(key, value, sink).map(Value::Numbers),
        Kind::Placement => return placement(key, value, sink).map(Value::Lists),
    };
    match checked {
        Ok(value) => Some(value),
        Err(what) => {
            sink.at(&span, format!("{} {what}", key.name));
            None
        }
    }
}

/// One name, or a list of names.
fn names(
    key: &Key,
    value: &Spanned<DeValue<'_>>,
    sink: &mut Sink<'_>,
) -> Option<Vec<Found<String>>> {
    if let Ok(one) = text(value) {
        let (value, span) = (one.to_owned(), value.span());
        return Some(vec![Found { value, span }]);
    }
    if value.get_ref().as_array().is_some() {
        return list(key, value, sink, |text| Ok(text.to_owned()));
    }
    let what = described(value.get_ref());
    let wanted = "give the name of a node, or a list of names";
    sink.at(&value.span(), format!("{} is {what}: {wanted}", key.name));
    None
}

fn list(
    key: &Key,
    value: &Spanned<DeValue<'_>>,
    sink: &mut Sink<'_>,
    read: impl Fn(&str) -> Result<String, String>,
) -> Option<Vec<Found<String>>> {
    let Some(items) = value.get_ref().as_array() else {
        sink.at(
            &value.span(),
            format!(
                "{} is {}: give a list",
                key.name,
                described(value.get_ref())
            ),
        );
        return None;
    };
    let mut whole = true;
    let mut found = Vec::new();
    for item in items.iter() {
        match text(item).and_then(&read) {
            Ok(value) => found.push(Found {
                value,
                span: item.span(),
            }),
            Err(what) => {
                sink.at(&item.span(), format!("{} {what}", key.name));
                whole = false;
            }
        }
    }
    whole.then_some(found)
}

fn placement(
    key: &Key,
    value: &Spanned<DeValue<'_>>,
    sink: &mut Sink<'_>,
) -> Option<Vec<Vec<Found<String>>>> {
    let Some(items) = value.get_ref().as_array() else {
        let what = described(value.get_ref());
        sink.at(
            &value.span(),
            format!("{} is {what}: give a list of lists of node names", key.name),
        );
        return None;
    };
    let lists: Vec<Option<Vec<Found<String>>>> = items
        .iter()
        .map(|item| list(key, item, sink, |text| Ok(text.to_owned())))
        .collect();
    lists.into_iter().collect()
}

fn cores(key: &Key, value: &Spanned<DeValue<'_>>, sink: &mut Sink<'_>) -> Option<Vec<u64>> {
    let Some(items) = value.get_ref().as_array() else {
        sink.at(
            &value.span(),
            format!(
                "{} is {}: give a list of core numbers",
                key.name,
                described(value.get_ref())
            ),
        );
        return None;
    };
    let mut numbers = Vec::new();
    let mut whole = true;
    for item in items.iter() {
        match integer(item) {
            Ok(number) if number < 4096 && !numbers.contains(&number) => numbers.push(number),
            Ok(number) => {
                sink.at(
                    &item.span(),
                    format!("{} names core {number} twice, or beyond 4095", key.name),
                );
                whole = false;
            }
            Err(what) => {
                sink.at(&item.span(), format!("{} {what}", key.name));
                whole = false;
            }
        }
    }
    if items.is_empty() {
        sink.at(
            &value.span(),
            format!("{} is empty: leave the key out to use every core", key.name),
        );
        whole = false;
    }
    whole.then_some(numbers)
}

fn text<'a>(value: &'a Spanned<DeValue<'_>>) -> Result<&'a str, String> {
    let value = value.get_ref();
    value
        .as_str()
        .ok_or_else(|| format!("is {}: give text in quotes", described(value)))
}

fn integer(value: &Spanned<DeValue<'_>>) -> Result<u64, String> {
    let value = value.get_ref();
    let number = value
        .as_integer()
        .ok_or_else(|| format!("is {}: give a whole number", described(value)))?;
    u64::from_str_radix(number.as_str(), number.radix()).map_err(|_| {
        format!(
            "is {}: give a whole number from 0 to 2^64 - 1",
            number.as_str()
        )
    })
}

fn size(value: &Spanned<DeValue<'_>>) -> Result<u64, String> {
    match value.get_ref().as_str() {
        Some(text) => parse_size(text).map_err(|what| format!("is wrong: {what}")),
        None if value.get_ref().is_integer() => integer(value),
        None => Err(format!(
            "is {}: give a size such as \"64MiB\"",
            described(value.get_ref())
        )),
    }
}

fn range(number: u64, min: u64, max: u64, unit: &str) -> Result<Value, String> {
    if (min..=max).contains(&number) {
        return Ok(Value::Number(number));
    }
    let space = if unit.is_empty() { "" } else { " " };
    Err(format!("is {number}: give {min} to {max}{space}{unit}"))
}

fn size_range(number: u64, min: u64, max: u64) -> Result<Value, String> {
    use super::size::format_size;
    match number {
        number if number < min => Err(format!(
            "is {}: give at least {}",
            format_size(number),
            format_size(min)
        )),
        number if number > max => Err(format!(
            "is {}: give at most {}",
            format_size(number),
            format_size(max)
        )),
        number => Ok(Value::Number(number)),
    }
}

fn name(text: &str) -> Result<String, String> {
    let legal = |byte: u8| {
        byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_' | b'.')
    };
    if text.is_empty() || text.len() > 64 || !text.bytes().all(legal) {
        return Err(format!(
            "is {text:?}: use 1 to 64 of the characters a-z 0-9 - _ ."
        ));
    }
    Ok(text.to_owned())
}

fn address(text: &str) -> Result<String, String> {
    let wanted = "give host:port, such as 127.0.0.1:7401";
    let Some((host, port)) = text.rsplit_once(':') else {
        return Err(format!("is {text:?}: {wanted}"));
    };
    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    let host_is_legal = match bare {
        Some(v6) => v6.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.is_empty() && host.len() <= 200 && !host.contains([':', '/', ' ', '[', ']']),
    };
    if !host_is_legal {
        return Err(format!("is {text:?}: {wanted}, or [::1]:7401"));
    }
    match port.parse::<u16>() {
        Ok(0) => Err(format!(
            "is {text:?}: port 0 is no place where others can find it"
        )),
        Ok(_) => Ok(text.to_owned()),
        Err(_) => Err(format!(
            "is {text:?}: {port:?} is not a port from 1 to 65535"
        )),
    }
}

fn choice(text: &str, words: &[&'static str]) -> Result<String, String> {
    if words.contains(&text) {
        return Ok(text.to_owned());
    }
    Err(format!("is {text:?}: use one of {}", words.join(", ")))
}

const fn described(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "text",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// The first sentence, to stand in the middle of another.
fn lower(text: &str) -> String {
    let sentence = text.split_inclusive(". ").next().unwrap_or(text);
    let mut chars = sentence
        .trim_end_matches(". ")
        .trim_end_matches('.')
        .chars();
    let first = chars.next().into_iter().flat_map(char::to_lowercase);
    first.chain(chars).collect()
}
