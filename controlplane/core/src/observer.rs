//! The other half of failure detection: what a process knows of those that it has sessions with.
//!
//! The edge says when the last packet of each came; the observer asks for a sign of life where it is quiet, speaks up about a
//! silence, and answers the controller's questions. Whoever was late itself knows nothing of the others: packets may have come
//! and nobody looked. It begins to measure anew. A process answers for itself, too: that shows that its reactor works.
//!
//! It speaks up about those that it has a session with, or wants one with, and about those whose last session ended by silence
//! until they are heard again, or would have none any more. A session that ended otherwise was closed by one that lived:
//! whoever has none with it since does not hear it, and need not.

use std::collections::{BTreeMap, VecDeque};

use ionian_types::{Nanos, NodeId, Time};
use ionian_wire::frame::{Evidence, Probe, ProbeAnswer, Suspect};

/// A process is known as one to be heard for so long after the last session with it that was closed.
const REMEMBERED: Nanos = Nanos::from_ms(60_000);
/// The longest pause between two words about the same silence, in units of `suspect_after`.
const PAUSE_MAX: u64 = 16;
/// Questions at a time; a controller has no more under way.
const QUESTIONS_MAX: usize = 64;
/// The longest that a controller may have an observer wait for a sign of life.
const PATIENCE_MAX: Nanos = Nanos::from_ms(600_000);
/// How often an answer is put off because the observer was late itself.
const PUT_OFF_MAX: u32 = 3;

/// What an observer wants done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Word {
    /// Ask for a sign of life by every session with this process.
    Ping(NodeId),
    /// Tell the controller.
    Suspect(Suspect),
    /// Tell the controller that asked.
    Answer(ProbeAnswer),
}

/// A process's observer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Observer {
    own: NodeId,
    suspect_after: Nanos,
    peers: BTreeMap<NodeId, Peer>,
    questions: Vec<Question>,
    words: VecDeque<Word>,
    /// When it is to look next; it is late when it does so much later.
    due: Time,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Peer {
    /// When the last packet came, or when the measure began.
    heard: Time,
    /// Until when it is known without a session.
    until: Time,
    /// There is a session with it, or one is wanted.
    met: bool,
    /// A session with it ended by silence, and nothing was heard of it since.
    lost: bool,
    pinged: Time,
    /// When the silence is spoken of next.
    tell_at: Time,
    pause: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Question {
    probe: Probe,
    asked: Time,
    until: Time,
    put_off: u32,
}

impl Observer {
    /// The observer of the process of `own`, which speaks up after a silence of `suspect_after`.
    #[must_use]
    pub const fn new(own: NodeId, suspect_after: Nanos) -> Self {
        Self {
            own,
            suspect_after,
            peers: BTreeMap::new(),
            questions: Vec::new(),
            words: VecDeque::new(),
            due: Time::FAR,
        }
    }

    /// When [`Self::look`] is next due; at once after [`Self::ask`].
    #[must_use]
    pub const fn next_deadline(&self) -> Time {
        self.due
    }

    /// Looks at the sessions: with whom, and when the last packet came, if one has. What came was taken in before.
    pub fn look(&mut self, now: Time, sessions: impl Iterator<Item = (NodeId, Option<Time>)>) {
        let late = now.since(self.due) > Nanos(self.suspect_after.0 / 2);
        for peer in self.peers.values_mut() {
            peer.met = false;
        }
        for (node, heard) in sessions {
            if node != self.own {
                self.meet(now, node, heard);
            }
        }
        if late {
            // Nobody was silent meanwhile, as far as can be known.
            for peer in self.peers.values_mut() {
                peer.heard = peer.heard.max(now);
            }
        }
        self.peers.retain(|_, peer| peer.lost || now < peer.until);
        self.answer(now, late);
        self.speak(now);
        self.due = self.next_look(now);
    }

    /// A session is over: with whom, when its last packet came, if one has, and whether it ended because no more came.
    pub fn part(&mut self, now: Time, node: NodeId, heard: Option<Time>, silent: bool) {
        if node == self.own {
            return;
        }
        self.meet(now, node, heard).lost |= silent;
        self.due = self.due.min(self.next_look(now));
    }

    /// Who would have a session with this process, as the newest map says: of those whose session ended by silence, the silence of
    /// others is not this one's concern any more.
    pub fn keep(&mut self, calls: impl Fn(NodeId) -> bool) {
        for (node, peer) in self.peers.iter_mut().filter(|(_, peer)| peer.lost) {
            peer.lost = calls(*node);
        }
    }

    fn meet(&mut self, now: Time, node: NodeId, heard: Option<Time>) -> &mut Peer {
        let peer = self.peers.entry(node).or_insert(Peer {
            heard: now,
            until: now,
            met: true,
            lost: false,
            pinged: Time::ZERO,
            tell_at: Time::ZERO,
            pause: 1,
        });
        peer.until = now.after(REMEMBERED);
        peer.met = true;
        if let Some(heard) = heard.filter(|heard| *heard > peer.heard) {
            peer.heard = heard;
            peer.pause = 1;
            peer.lost = false;
        }
        peer
    }

    /// The controller asks about a process.
    pub fn ask(&mut self, now: Time, probe: Probe) {
        let answer = |evidence, silent: Nanos| ProbeAnswer {
            node: probe.node,
            number: probe.number,
            evidence,
            silent: silent.0,
        };
        if probe.node == self.own {
            let here = answer(Evidence::Here, Nanos(0));
            self.words.push_back(Word::Answer(here));
        } else if !self.peers.contains_key(&probe.node) {
            let unknown = answer(Evidence::NoSession, Nanos(0));
            self.words.push_back(Word::Answer(unknown));
        } else if self.questions.len() < QUESTIONS_MAX {
            self.words.push_back(Word::Ping(probe.node));
            // A controller that is wrong cannot keep a question here for ever.
            let patience = PATIENCE_MAX.0.min(probe.patience);
            let probe = Probe { patience, ..probe };
            self.questions.push(Question {
                probe,
                asked: now,
                until: now.after(Nanos(patience)),
                put_off: 0,
            });
        }
        self.due = self.due.min(self.next_look(now));
    }

    /// The next thing to be done.
    pub fn take_word(&mut self) -> Option<Word> {
        self.words.pop_front()
    }

    /// Whether there is something to be done.
    #[must_use]
    pub fn has_words(&self) -> bool {
        !self.words.is_empty()
    }

    fn answer(&mut self, now: Time, late: bool) {
        let Self {
            peers,
            questions,
            words,
            ..
        } = self;
        questions.retain_mut(|question| {
            let probe = question.probe;
            let heard = peers.get(&probe.node).map(|peer| peer.heard);
            // What a late observer put for the last packet is no sign of life.
            let lives = !late && heard.is_some_and(|heard| heard > question.asked);
            if !lives && now < question.until {
                return true;
            }
            let patience = Nanos(probe.patience);
            let overslept = late || now.since(question.until) > Nanos(patience.0 / 2);
            if !lives && overslept && question.put_off < PUT_OFF_MAX {
                question.put_off += 1;
                question.asked = question.asked.max(heard.unwrap_or(Time::ZERO));
                question.until = now.after(patience);
                words.push_back(Word::Ping(probe.node));
                return true;
            }
            let (evidence, silent) = match heard {
                None => (Evidence::NoSession, Nanos(0)),
                Some(_) if lives => (Evidence::Heard, Nanos(0)),
                Some(heard) => (Evidence::Silent, now.since(heard)),
            };
            words.push_back(Word::Answer(ProbeAnswer {
                node: probe.node,
                number: probe.number,
                evidence,
                silent: silent.0,
            }));
            false
        });
    }

    fn speak(&mut self, now: Time) {
        let (suspect_after, interval) = (self.suspect_after, self.interval());
        for (&node, peer) in &mut self.peers {
            let silent = now.since(peer.heard);
            if peer.met && silent >= interval && now.since(peer.pinged) >= interval {
                peer.pinged = now;
                self.words.push_back(Word::Ping(node));
            }
            let concerns = peer.met || peer.lost;
            if concerns && silent >= suspect_after && now >= peer.tell_at {
                peer.tell_at = now.after(Nanos(suspect_after.0.saturating_mul(peer.pause)));
                peer.pause = (peer.pause * 2).min(PAUSE_MAX);
                let silent = silent.0;
                self.words
                    .push_back(Word::Suspect(Suspect { node, silent }));
            }
        }
    }

    /// Between two requests for a sign of life.
    const fn interval(&self) -> Nanos {
        Nanos(self.suspect_after.0 / 3)
    }

    fn next_look(&self, now: Time) -> Time {
        let interval = self.interval();
        let peers = self.peers.values().filter_map(|peer| {
            let ping = peer.heard.after(interval).max(peer.pinged.after(interval));
            let tell = peer.heard.after(self.suspect_after).max(peer.tell_at);
            match (peer.met, peer.lost) {
                (true, _) => Some(ping.min(tell)),
                (false, true) => Some(tell),
                (false, false) => None,
            }
        });
        // Many peers are looked at together.
        let soonest = now.after(Nanos(interval.0 / 4));
        let peers = peers.min().map_or(Time::FAR, |at| at.max(soonest));
        let questions = self.questions.iter().map(|question| question.until);
        questions.min().unwrap_or(Time::FAR).min(peers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;
    const OWN: NodeId = NodeId::new(1);
    const PEER: NodeId = NodeId::new(2);

    fn at(ms: u64) -> Time {
        Time::from_ns(ms * MS)
    }

    fn observer() -> Observer {
        Observer::new(OWN, Nanos::from_ms(300))
    }

    fn words(observer: &mut Observer) -> Vec<Word> {
        core::iter::from_fn(|| observer.take_word()).collect()
    }

    fn probe(node: NodeId) -> Probe {
        Probe {
            node,
            number: 5,
            patience: 40 * MS,
        }
    }

    fn evidence(words: &[Word]) -> Vec<(Evidence, u64)> {
        let answers = words.iter().filter_map(|word| match word {
            Word::Answer(answer) => Some((answer.evidence, answer.silent / MS)),
            _ => None,
        });
        answers.collect()
    }

    /// Looks whenever it is due, until `to`; the peer's last packet came at `heard`.
    fn run(observer: &mut Observer, to: u64, heard: u64) -> Vec<(u64, Word)> {
        let mut said = Vec::new();
        while observer.next_deadline() <= at(to) {
            let now = observer.next_deadline();
            observer.look(now, [(PEER, Some(at(heard)))].into_iter());
            let ms = now.as_ns() / MS;
            said.extend(words(observer).into_iter().map(|word| (ms, word)));
        }
        said
    }

    #[test]
    fn a_silence_is_spoken_of_after_the_time_and_ever_less_often() {
        let mut observer = observer();
        observer.look(at(1000), [(PEER, Some(at(990)))].into_iter());
        let said = run(&mut observer, 20_000, 990);
        let spoken: Vec<u64> = said
            .iter()
            .filter(|(_, word)| matches!(word, Word::Suspect(_)))
            .map(|(ms, _)| *ms)
            .collect();
        assert_eq!(spoken[0], 1300);
        assert!(spoken.len() < 12, "{spoken:?}");
        let pings = said.iter().filter(|(_, word)| *word == Word::Ping(PEER));
        assert!((150..=200).contains(&pings.count()));
    }

    #[test]
    fn a_peer_that_answers_pings_is_never_suspected() {
        let mut observer = observer();
        let mut now = at(1000);
        for _ in 0..1000 {
            observer.look(now, [(PEER, Some(now))].into_iter());
            let said = words(&mut observer);
            assert!(said.iter().all(|word| matches!(word, Word::Ping(_))));
            now = observer.next_deadline();
        }
        assert!(now > at(50_000), "it need not look often");
    }

    #[test]
    fn an_observer_that_was_late_suspects_nobody() {
        let mut observer = observer();
        observer.look(at(1000), [(PEER, Some(at(1000)))].into_iter());
        observer.look(at(9000), [(PEER, Some(at(1000)))].into_iter());
        assert_eq!(words(&mut observer), []);
        let said = run(&mut observer, 9299, 1000);
        assert!(said.iter().all(|(_, word)| *word == Word::Ping(PEER)));
        let said = run(&mut observer, 9400, 1000);
        assert!(
            said.iter()
                .any(|(_, word)| matches!(word, Word::Suspect(_)))
        );
    }

    #[test]
    fn a_question_is_answered_after_a_ping_and_patience() {
        let mut observer = observer();
        observer.look(at(1000), [(PEER, Some(at(1000)))].into_iter());
        observer.ask(at(1050), probe(PEER));
        assert_eq!(words(&mut observer), [Word::Ping(PEER)]);
        assert_eq!(observer.next_deadline(), at(1090));
        observer.look(at(1090), [(PEER, Some(at(1049)))].into_iter());
        let said = words(&mut observer);
        assert_eq!(evidence(&said), [(Evidence::Silent, 41)]);
        observer.ask(at(1100), probe(PEER));
        observer.look(at(1102), [(PEER, Some(at(1101)))].into_iter());
        assert_eq!(evidence(&words(&mut observer)), [(Evidence::Heard, 0)]);
    }

    #[test]
    fn an_observer_that_overslept_a_question_asks_again() {
        let mut observer = observer();
        observer.look(at(1000), [(PEER, Some(at(1000)))].into_iter());
        observer.ask(at(1050), probe(PEER));
        let _ = words(&mut observer);
        for late in [1200, 1300, 1500] {
            observer.look(at(late), [(PEER, Some(at(1000)))].into_iter());
            assert_eq!(evidence(&words(&mut observer)), []);
        }
        observer.look(at(1540), [(PEER, Some(at(1000)))].into_iter());
        assert_eq!(evidence(&words(&mut observer))[0].0, Evidence::Silent);
        // Its own lateness is no sign of life of others.
        observer.ask(at(1550), probe(PEER));
        observer.look(at(9000), [(PEER, Some(at(1000)))].into_iter());
        assert_eq!(evidence(&words(&mut observer)), []);
        observer.look(at(9040), [(PEER, Some(at(1000)))].into_iter());
        assert_eq!(evidence(&words(&mut observer))[0].0, Evidence::Silent);
    }

    #[test]
    fn it_speaks_for_itself_and_not_of_strangers() {
        let mut observer = observer();
        observer.ask(at(1), probe(OWN));
        observer.ask(at(1), probe(PEER));
        let said = words(&mut observer);
        let expected = [(Evidence::Here, 0), (Evidence::NoSession, 0)];
        assert_eq!(evidence(&said), expected);
    }

    #[test]
    fn a_session_that_ended_does_not_make_a_stranger_of_a_peer() {
        let mut observer = observer();
        observer.look(at(1000), [(PEER, Some(at(1000)))].into_iter());
        let mut now = 1000;
        while now < 30_000 {
            now += 75;
            observer.look(at(now), core::iter::empty());
        }
        let _ = words(&mut observer);
        observer.ask(at(now), probe(PEER));
        observer.look(at(now + 40), core::iter::empty());
        let said = evidence(&words(&mut observer));
        assert_eq!(said[0].0, Evidence::Silent);
        while now < 62_000 {
            now += 75;
            observer.look(at(now), core::iter::empty());
        }
        let _ = words(&mut observer);
        observer.ask(at(now), probe(PEER));
        let said = evidence(&words(&mut observer));
        assert_eq!(said, [(Evidence::NoSession, 0)]);
    }

    /// Looks at nobody whenever it is due, until `to`. When it spoke of the peer.
    fn alone(observer: &mut Observer, to: u64) -> Vec<u64> {
        let mut spoken = Vec::new();
        while observer.next_deadline() <= at(to) {
            let now = observer.next_deadline();
            observer.look(now, core::iter::empty());
            let said = words(observer);
            let of_peer = |word: &Word| matches!(word, Word::Suspect(it) if it.node == PEER);
            assert!(said.iter().all(of_peer), "{said:?}");
            spoken.extend(said.iter().map(|_| now.as_ns() / MS));
        }
        spoken
    }

    /// A vertex that has gone to another process, a root member that leads no more: who was closed is not silent.
    #[test]
    fn a_session_that_was_closed_leaves_nobody_to_be_suspected() {
        let mut observer = observer();
        observer.look(at(1000), [(PEER, Some(at(1000)))].into_iter());
        observer.part(at(1050), PEER, Some(at(1040)), false);
        assert_eq!(alone(&mut observer, 59_000), []);
        // Who closed it may have ended: that is answered.
        observer.ask(at(59_000), probe(PEER));
        let _ = words(&mut observer);
        observer.look(at(59_040), core::iter::empty());
        assert_eq!(evidence(&words(&mut observer))[0].0, Evidence::Silent);
        // Where another session is left, that one counts.
        observer.look(at(60_000), [(PEER, Some(at(60_000)))].into_iter());
        observer.part(at(60_010), PEER, Some(at(60_005)), false);
        let said = run(&mut observer, 60_400, 60_000);
        let spoken = said.iter().find(|(_, word)| *word != Word::Ping(PEER));
        assert_eq!(spoken.map(|(ms, _)| *ms), Some(60_305), "{said:?}");
    }

    #[test]
    fn a_silence_that_ended_the_session_is_spoken_of_until_the_peer_is_heard() {
        let mut observer = observer();
        observer.look(at(1000), [(PEER, Some(at(1000)))].into_iter());
        let _ = run(&mut observer, 2000, 1000);
        observer.part(at(2000), PEER, Some(at(1000)), true);
        let spoken = alone(&mut observer, 200_000);
        assert_eq!(spoken.first(), Some(&2200), "{spoken:?}");
        let last = spoken.last().copied().unwrap_or(0);
        assert!(
            last > 195_000,
            "a minute after the last session: {spoken:?}"
        );
        assert!(spoken.len() < 50, "{spoken:?}");
        observer.ask(at(200_000), probe(PEER));
        let _ = words(&mut observer);
        observer.look(at(200_040), core::iter::empty());
        let said = evidence(&words(&mut observer));
        assert_eq!(said, [(Evidence::Silent, 199_040)]);
        // A session in which nothing has come is none.
        observer.look(at(200_050), [(PEER, None)].into_iter());
        let _ = words(&mut observer);
        assert!(!alone(&mut observer, 210_000).is_empty());
        observer.look(at(210_000), [(PEER, Some(at(210_000)))].into_iter());
        observer.part(at(210_010), PEER, Some(at(210_010)), false);
        assert_eq!(alone(&mut observer, 300_000), []);
    }

    #[test]
    fn whoever_would_have_no_session_any_more_is_forgotten() {
        let mut observer = observer();
        observer.look(at(1000), [(PEER, Some(at(1000)))].into_iter());
        observer.part(at(2000), PEER, Some(at(1000)), true);
        observer.keep(|node| node == PEER);
        assert!(!alone(&mut observer, 100_000).is_empty());
        observer.keep(|node| node != PEER);
        observer.look(at(100_000), core::iter::empty());
        assert_eq!(
            (words(&mut observer), observer.peers.len()),
            (Vec::new(), 0)
        );
        assert_eq!(observer.next_deadline(), Time::FAR);
    }
}
