//! Splits a line into keys and values: a JSON object of numbers, strings, flags and lists, without allocation.
//!
//! Keys of a history are known, so a line becomes a table with one place per key. Values that are objects, and keys that
//! nobody knows, are checked for their form and passed over: newer recorders may say more.

/// The keys of a history.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
#[rustfmt::skip]
pub(crate) enum Key {
    E, T, P, Op, F, Log, Cid, Ses, Csn, Try, H, Gsn, Epoch, Shard, Rep, Lsn, R, Kind, Tail, Head, Sub, Start, Final, Spec,
    Lo, Hi, Upto, St, V, Run, Seed, Sut, Commit, World, ClockErr, Order, Dedupe, Durability, Shards, Replicas, Dense,
    BeyondF, Faults, Live, Col, Only, Of, D, End, Len, N, Done, Gen, By,
}

/// Up to eight bytes as a number: what short keys and words are compared by.
pub(crate) const fn word(text: &str) -> u64 {
    let bytes = text.as_bytes();
    let (mut packed, mut at) = (0, 0);
    while at < bytes.len() {
        packed |= (bytes[at] as u64) << (8 * at);
        at += 1;
    }
    packed
}

macro_rules! keys {
    ($packed:expr, $($text:literal => $key:ident),* $(,)?) => {
        {
            $(const $key: u64 = word($text);)*
            match $packed {
                $($key => Some(Key::$key),)*
                _ => None,
            }
        }
    };
}

// The packed keys are constants named like the keys, so that one list says both.
#[allow(non_upper_case_globals)]
fn key_of(name: &[u8]) -> Option<Key> {
    if name.len() > 8 {
        return match name {
            b"clock_err_ns" => Some(Key::ClockErr),
            b"durability" => Some(Key::Durability),
            _ => None,
        };
    }
    let mut packed = 0;
    for (at, byte) in name.iter().enumerate() {
        packed |= u64::from(*byte) << (8 * at);
    }
    keys!(packed,
        "e" => E, "t" => T, "p" => P, "op" => Op, "f" => F, "log" => Log, "cid" => Cid, "ses" => Ses, "csn" => Csn,
        "try" => Try, "h" => H, "gsn" => Gsn, "epoch" => Epoch, "shard" => Shard, "rep" => Rep, "lsn" => Lsn, "r" => R,
        "kind" => Kind, "tail" => Tail, "head" => Head, "sub" => Sub, "start" => Start, "final" => Final, "spec" => Spec,
        "lo" => Lo, "hi" => Hi, "upto" => Upto, "st" => St, "v" => V, "run" => Run, "seed" => Seed, "sut" => Sut,
        "commit" => Commit, "world" => World, "order" => Order, "dedupe" => Dedupe, "shards" => Shards,
        "replicas" => Replicas, "dense" => Dense, "beyond_f" => BeyondF, "faults" => Faults, "live_ns" => Live,
        "col" => Col, "only" => Only, "of" => Of, "d" => D, "end" => End, "len" => Len, "n" => N, "done" => Done, "gen" => Gen, "by" => By,
    )
}

/// The values of one line, by key. Kept from line to line, so that nothing is cleared but the masks.
#[derive(Debug)]
pub(crate) struct Fields {
    numbers: u64,
    texts: u64,
    lists: u64,
    values: [u64; 64],
    list: Vec<u64>,
}

impl Fields {
    pub(crate) fn new() -> Self {
        Self {
            numbers: 0,
            texts: 0,
            lists: 0,
            values: [0; 64],
            list: Vec::new(),
        }
    }

    /// A number or a flag (0 or 1).
    #[inline]
    pub(crate) fn number(&self, key: Key) -> Option<u64> {
        (self.numbers >> key as u8 & 1 == 1).then(|| self.values[key as usize])
    }

    /// A string, without its quotes and with its escapes.
    #[inline]
    pub(crate) fn text<'a>(&self, key: Key, line: &'a [u8]) -> Option<&'a [u8]> {
        let span = self.values[key as usize];
        (self.texts >> key as u8 & 1 == 1)
            .then(|| &line[(span >> 32) as usize..(span & 0xffff_ffff) as usize])
    }

    /// A string of up to eight bytes as [`word`]; 0 where there is none, all ones where it is longer.
    #[inline]
    pub(crate) fn word(&self, key: Key, line: &[u8]) -> u64 {
        match self.text(key, line) {
            None => 0,
            Some(text) if text.len() > 8 => u64::MAX,
            Some(text) => text
                .iter()
                .rev()
                .fold(0, |word, byte| word << 8 | u64::from(*byte)),
        }
    }

    /// A list of numbers.
    pub(crate) fn list(&self, key: Key) -> Option<&[u64]> {
        (self.lists >> key as u8 & 1 == 1).then_some(&self.list)
    }

    /// Reads a line.
    ///
    /// # Errors
    /// What is wrong, and at which byte.
    pub(crate) fn read(&mut self, line: &[u8]) -> Result<(), String> {
        (self.numbers, self.texts, self.lists) = (0, 0, 0);
        self.list.clear();
        let mut at = Cursor { line, at: 0 };
        at.expect(b'{')?;
        if at.accept(b'}') {
            return at.ended();
        }
        loop {
            at.expect(b'"')?;
            let (from, to) = at.string()?;
            let key = key_of(&line[from..to]);
            at.expect(b':')?;
            match key {
                None => at.skip(0)?,
                Some(key) => self.value(key, &mut at)?,
            }
            if at.accept(b',') {
                continue;
            }
            at.expect(b'}')?;
            return at.ended();
        }
    }

    #[inline]
    fn value(&mut self, key: Key, at: &mut Cursor<'_>) -> Result<(), String> {
        let bit = 1 << key as u8;
        if (self.numbers | self.texts | self.lists) & bit != 0 {
            return Err(format!("{key:?} stands twice"));
        }
        match at.peek() {
            Some(b'0'..=b'9') => {
                self.values[key as usize] = at.number()?;
                self.numbers |= bit;
            }
            Some(b'"') => {
                at.at += 1;
                let (from, to) = at.string()?;
                self.values[key as usize] = (from as u64) << 32 | to as u64;
                self.texts |= bit;
            }
            Some(b't') if at.literal(b"true") => {
                self.values[key as usize] = 1;
                self.numbers |= bit;
            }
            Some(b'f') if at.literal(b"false") => {
                self.values[key as usize] = 0;
                self.numbers |= bit;
            }
            Some(b'[') if key == Key::D => {
                at.at += 1;
                self.lists |= bit;
                if at.accept(b']') {
                    return Ok(());
                }
                loop {
                    self.list.push(at.number()?);
                    if !at.accept(b',') {
                        return at.expect(b']');
                    }
                }
            }
            _ => return at.skip(0),
        }
        Ok(())
    }
}

struct Cursor<'a> {
    line: &'a [u8],
    at: usize,
}

impl Cursor<'_> {
    #[inline]
    fn peek(&mut self) -> Option<u8> {
        loop {
            match self.line.get(self.at) {
                Some(b' ' | b'\t' | b'\r') => self.at += 1,
                other => return other.copied(),
            }
        }
    }

    #[inline]
    fn accept(&mut self, byte: u8) -> bool {
        let hit = self.peek() == Some(byte);
        self.at += usize::from(hit);
        hit
    }

    #[inline]
    fn expect(&mut self, byte: u8) -> Result<(), String> {
        if self.accept(byte) {
            return Ok(());
        }
        Err(self.wanted(&format!("`{}`", byte as char)))
    }

    #[cold]
    fn wanted(&self, what: &str) -> String {
        match self.line.get(self.at) {
            Some(found) => format!(
                "byte {}: wanted {what}, found `{}`",
                self.at + 1,
                found.escape_ascii()
            ),
            None => format!("wanted {what}, but the line ends"),
        }
    }

    fn ended(&mut self) -> Result<(), String> {
        match self.peek() {
            None => Ok(()),
            Some(_) => Err(self.wanted("the end of the line")),
        }
    }

    /// The rest of a string after its first quote: where its text begins and ends.
    #[inline]
    fn string(&mut self) -> Result<(usize, usize), String> {
        let from = self.at;
        loop {
            match self.line.get(self.at) {
                Some(b'"') => {
                    self.at += 1;
                    return Ok((from, self.at - 1));
                }
                Some(b'\\') => self.at += 2,
                Some(_) => self.at += 1,
                None => {
                    self.at = self.line.len();
                    return Err(self.wanted("a closing quote"));
                }
            }
        }
    }

    #[inline]
    fn number(&mut self) -> Result<u64, String> {
        if !matches!(self.peek(), Some(b'0'..=b'9')) {
            return Err(self.wanted("a number"));
        }
        let (from, mut value) = (self.at, 0_u64);
        while let Some(byte @ b'0'..=b'9') = self.line.get(self.at).copied() {
            let digit = u64::from(byte - b'0');
            // Nineteen digits cannot overflow; the twentieth may.
            if self.at - from < 19 {
                value = value * 10 + digit;
            } else {
                let longer = value.checked_mul(10).and_then(|v| v.checked_add(digit));
                value = longer
                    .ok_or_else(|| format!("byte {}: the number is beyond 64 bits", from + 1))?;
            }
            self.at += 1;
        }
        if let Some(b'.' | b'e' | b'E') = self.line.get(self.at) {
            return Err(self.wanted("a whole number"));
        }
        Ok(value)
    }

    fn literal(&mut self, text: &[u8]) -> bool {
        let hit = self.line[self.at..].starts_with(text);
        if hit {
            self.at += text.len();
        }
        hit
    }

    /// Passes over any value.
    fn skip(&mut self, depth: usize) -> Result<(), String> {
        if depth > 16 {
            return Err(self.wanted("fewer nested values"));
        }
        match self.peek() {
            Some(b'"') => {
                self.at += 1;
                self.string().map(|_| ())
            }
            Some(open @ (b'[' | b'{')) => {
                self.at += 1;
                let close = open + 2;
                if self.accept(close) {
                    return Ok(());
                }
                loop {
                    if open == b'{' {
                        self.expect(b'"')?;
                        self.string()?;
                        self.expect(b':')?;
                    }
                    self.skip(depth + 1)?;
                    if !self.accept(b',') {
                        return self.expect(close);
                    }
                }
            }
            Some(b'-' | b'0'..=b'9') => {
                while let Some(b'-' | b'+' | b'.' | b'e' | b'E' | b'0'..=b'9') =
                    self.line.get(self.at)
                {
                    self.at += 1;
                }
                Ok(())
            }
            _ if self.literal(b"true") || self.literal(b"false") || self.literal(b"null") => Ok(()),
            _ => Err(self.wanted("a value")),
        }
    }
}
