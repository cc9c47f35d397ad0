//! A state machine that keeps a list of tokens, and its brain: a token is added once, in the order of asking.

use std::collections::{BTreeMap, VecDeque};

use ionian_control_client::identity::{Identity, Role};

use crate::machine::{Brain, Call, CallId, ConnId, Input, Output, Room, StateMachine};

/// The tokens, in the order in which they were applied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Tokens(pub(super) Vec<u64>);

impl StateMachine for Tokens {
    fn apply(&mut self, command: &[u8]) -> Vec<u8> {
        if let Ok(token) = command.try_into() {
            self.0.push(u64::from_le_bytes(token));
        }
        command.to_vec()
    }

    fn snapshot(&self) -> Vec<u8> {
        self.0.iter().flat_map(|t| t.to_le_bytes()).collect()
    }

    fn restore(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.0 = numbers(bytes).ok_or("not a list of tokens")?;
        Ok(())
    }

    fn permits(&self, caller: &Identity, call: Call) -> Result<(), String> {
        match (&caller.role, call) {
            (Role::Controller(_), _) | (_, Call::Look) => Ok(()),
            (Role::User(_), call) if call != Call::Attach => Ok(()),
            (Role::Node(_), Call::Attach) => Ok(()),
            _ => Err(format!("{caller} may not {call}")),
        }
    }
}

/// The numbers in a list's bytes.
pub(super) fn numbers(bytes: &[u8]) -> Option<Vec<u64>> {
    if !bytes.len().is_multiple_of(8) {
        return None;
    }
    let numbers = bytes
        .chunks_exact(8)
        .map(|c| c.try_into().map(u64::from_le_bytes));
    numbers.collect::<Result<_, _>>().ok()
}

/// The brain of [`Tokens`].
#[derive(Debug)]
pub(super) struct TokenBrain {
    list: Vec<u64>,
    version: u64,
    /// What waits for a version.
    waiting: VecDeque<(u64, Output)>,
    applied: u64,
    out: VecDeque<Output>,
    callers: BTreeMap<ConnId, String>,
}

/// Makes one.
pub(super) fn make(_now_ns: u64, tokens: &Tokens, version: u64) -> Box<dyn Brain> {
    Box::new(TokenBrain {
        list: tokens.0.clone(),
        version,
        waiting: VecDeque::new(),
        applied: version,
        out: VecDeque::new(),
        callers: BTreeMap::new(),
    })
}

impl TokenBrain {
    fn add(&mut self, token: u64) {
        if !self.list.contains(&token) {
            self.list.push(token);
            self.version += 1;
            let command = token.to_le_bytes().to_vec();
            self.out.push_back(Output::Propose { command });
        }
    }

    fn ask(&mut self, call: CallId, request: &[u8]) {
        let answer = match request {
            b"read" => Ok(self.list.iter().flat_map(|t| t.to_le_bytes()).collect()),
            b"wrong" => Err("that is wrong".to_owned()),
            b"never" => return self.add(u64::MAX),
            // A large command that changes nothing but the version.
            b"pad" => {
                self.version += 1;
                let command = vec![0; 100 << 10];
                self.out.push_back(Output::Propose { command });
                Ok(Vec::new())
            }
            token => match numbers(token) {
                Some(tokens) => {
                    tokens.iter().for_each(|t| self.add(*t));
                    Ok(self.version.to_le_bytes().to_vec())
                }
                None => Err("not tokens".to_owned()),
            },
        };
        let reply = Output::Reply { call, answer };
        self.waiting.push_back((self.version, reply));
    }

    fn message(&mut self, conn: ConnId, bytes: &[u8]) {
        let who = self.callers.get(&conn).cloned().unwrap_or_default();
        let output = match bytes {
            b"who" => Output::Send {
                conn,
                bytes: who.into_bytes(),
            },
            b"close" => Output::Close {
                conn,
                reason: "closed as asked".to_owned(),
            },
            // More than a connection takes at a time.
            b"flood" => {
                for _ in 0..1000 {
                    let bytes = vec![0; 100];
                    self.out.push_back(Output::Send { conn, bytes });
                }
                return;
            }
            token => {
                numbers(token)
                    .into_iter()
                    .flatten()
                    .for_each(|t| self.add(t));
                let bytes = self.version.to_le_bytes().to_vec();
                Output::Send { conn, bytes }
            }
        };
        self.waiting.push_back((self.version, output));
    }
}

impl Brain for TokenBrain {
    fn handle(&mut self, _now_ns: u64, input: Input<'_>) {
        match input {
            Input::Opened { conn, caller } => {
                self.callers.insert(conn, caller.to_string());
            }
            Input::Closed { conn } => {
                self.callers.remove(&conn);
            }
            Input::Message { conn, bytes } => self.message(conn, bytes),
            Input::Asked { call, request, .. } => self.ask(call, request),
            Input::Applied { version } => {
                assert!(version > self.applied && version <= self.version);
                self.applied = version;
            }
            Input::Deadline => {}
        }
    }

    fn poll(&mut self, _now_ns: u64, room: &dyn Room) -> Option<Output> {
        if let Some(output) = self.out.pop_front() {
            return Some(output);
        }
        let (version, output) = self.waiting.front()?;
        if *version > self.applied {
            return None;
        }
        // Answers wait for room; a flood does not.
        if let Output::Send { conn, bytes } = output
            && self.callers.contains_key(conn)
            && room.room(*conn) < bytes.len()
        {
            return None;
        }
        self.waiting.pop_front().map(|(_, output)| output)
    }

    fn next_deadline_ns(&self) -> Option<u64> {
        None
    }
}
