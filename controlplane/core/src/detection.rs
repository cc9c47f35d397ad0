//! Whether a process is dead: one inquiry per process that is suspected, and how many deaths may be decided.
//!
//! ```text
//! its connection ended, or an observer      the observers are asked, and so is the process itself, if it is attached
//! hears nothing of it                  -->  Heard: refuted; it rests, longer each time
//!                                           Silent from most of those that can be reached: dead
//! ```
//! Who ends loses its connection; who stands still keeps it. So a process whose connection has ended is waited for shortly,
//! and one whose connection is there for as long as a process may stand still. One that answers the controllers and that most
//! of the others do not hear, and none does, is cut off: it is routed around like a dead one, and tried again after a while,
//! later each time.
//!
//! An observer is the process of a place that has sessions with one of the suspect's places. It asks the suspect for a sign of
//! life before it answers, so that what counts is a silence after the question. One sign of life to anybody refutes: where
//! some hear a process and others do not, nothing is decided, and nothing flaps. A sole observer counts only together with
//! the end of the suspect's own connection. A controller that was late itself waits again before it finds that nobody answered.
//!
//! Nothing of this is replicated: whoever leads next asks again. Only the finding is a command, and who is away is state.

use std::collections::{BTreeMap, VecDeque};

use ionian_types::{ConnId, Nanos, NodeId, Time};
use ionian_wire::frame::Evidence;

/// How deaths are found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DetectionConfig {
    /// After how long a silence processes speak up. A refuted suspicion rests at least as long.
    pub suspect_after: Nanos,
    /// How long an observer waits for a sign of life of a process whose connection has ended, once it is asked.
    pub probe_timeout: Nanos,
    /// How long a process whose connection is there may be silent in all, `suspect_after` included.
    pub hung_after: Nanos,
    /// The most deaths decided within a minute; what is beyond waits.
    pub deaths_per_minute_max: u32,
}

impl Default for DetectionConfig {
    fn default() -> Self {
        Self {
            suspect_after: Nanos::from_ms(300),
            probe_timeout: Nanos::from_ms(25),
            hung_after: Nanos::from_ms(1000),
            deaths_per_minute_max: 10,
        }
    }
}

impl DetectionConfig {
    /// How long observers wait for a sign of life.
    const fn patience(&self, closed: bool) -> Nanos {
        let hung = self.hung_after.0.saturating_sub(self.suspect_after.0);
        if closed || hung < self.probe_timeout.0 {
            return self.probe_timeout;
        }
        Nanos(hung)
    }
}

/// The most processes asked about one.
pub(crate) const OBSERVERS_MAX: usize = 15;
/// The most inquiries at a time; who is suspected beyond will be suspected again.
const INQUIRIES_MAX: usize = 64;
/// A refuted suspicion rests for at most so many times `suspect_after`.
const REST_MAX: u64 = 32;
/// A process of which no suspicion was refuted for so long is as good as one that never was suspected.
const REST_FORGOTTEN: Nanos = Nanos::from_ms(60_000);
/// The first pause until a process that is cut off is tried again; the longest is [`REST_MAX`] times as long.
const PROBATION: Nanos = Nanos::from_ms(10_000);
/// A process that was not cut off for so long is as good as one that never was.
const PROBATION_FORGOTTEN: Nanos = Nanos::from_ms(600_000);
/// The span in which deaths are counted.
const MINUTE: Nanos = Nanos::from_ms(60_000);

/// What is known of the processes now.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Detection {
    /// The connection by which each process is asked.
    pub(crate) observers: BTreeMap<NodeId, ConnId>,
    pub(crate) inquiries: BTreeMap<NodeId, Inquiry>,
    /// Cut off: when each is tried again.
    pub(crate) probations: BTreeMap<NodeId, Rest>,
    /// Found dead, and waiting until deaths may be decided again: when that is.
    pub(crate) waiting: BTreeMap<NodeId, Time>,
    rests: BTreeMap<NodeId, Rest>,
    pub(crate) budget: Budget,
    /// The deaths that another controller decided before are counted in it.
    pub(crate) counted: bool,
    /// Connections of processes that were found dead.
    pub(crate) to_close: Vec<ConnId>,
    last: u64,
}

/// A pause that is longer each time: after suspicions that were refuted, or until a process that is cut off is tried again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Rest {
    pub(crate) until: Time,
    /// In units of `suspect_after`, or of [`PROBATION`].
    span: u64,
}

/// The deaths decided within the last minute.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Budget(VecDeque<Time>);

/// What is being found out about a process.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Inquiry {
    pub(crate) number: u64,
    /// How long those who are asked wait for a sign of life.
    pub(crate) patience: Nanos,
    /// When it ends without the answers that are missing.
    until: Time,
    /// The end was put off, since this controller was late.
    put_off: bool,
    /// Its connection had ended when this began.
    closed: bool,
    /// The one before found out too little.
    pub(crate) again: bool,
    /// It has answered itself.
    here: bool,
    suspect: NodeId,
    asked: BTreeMap<NodeId, Asked>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Asked {
    Due,
    Sent,
    Silent(Nanos),
}

/// What an inquiry has come to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Finding {
    /// Answers are missing.
    Open,
    /// Too few can say anything.
    Undecided,
    /// Too few of those who can have said anything in time.
    Unanswered,
    /// It is dead.
    Dead(Verdict),
}

/// Why a process counts as dead.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Verdict {
    /// The shortest silence of those that said it.
    pub(crate) silent: Nanos,
    pub(crate) said_by: Vec<NodeId>,
    /// How many were asked and can be reached.
    pub(crate) reached: usize,
    pub(crate) standing: Standing,
}

/// What the controllers themselves know of a process that is found dead or cut off.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Standing {
    /// Its connection is there, and it does not answer.
    Hung,
    /// Its connection has ended.
    Ended,
    /// It answers.
    CutOff,
}

impl Standing {
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::Hung => 0,
            Self::Ended => 1,
            Self::CutOff => 2,
        }
    }

    pub(crate) const fn from_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::Hung),
            1 => Some(Self::Ended),
            2 => Some(Self::CutOff),
            _ => None,
        }
    }
}

impl Detection {
    /// What a controller that begins to lead knows. Its inquiries have other numbers than those of any other lead: `version` is
    /// that of the state.
    pub(crate) fn lead(version: u64) -> Self {
        Self {
            last: version << 20,
            ..Self::default()
        }
    }

    /// Begins to inquire about a process, or does so anew: answers to what was asked before count no more.
    pub(crate) fn begin(
        &mut self,
        now: Time,
        suspect: NodeId,
        observers: Vec<NodeId>,
        closed: bool,
        config: &DetectionConfig,
    ) {
        if self.inquiries.len() >= INQUIRIES_MAX && !self.inquiries.contains_key(&suspect) {
            return;
        }
        self.last += 1;
        let own = self.observers.contains_key(&suspect).then_some(suspect);
        let closed = closed && own.is_none();
        let patience = config.patience(closed);
        let inquiry = Inquiry {
            number: self.last,
            patience,
            until: now
                .after(patience)
                .after(Nanos(config.probe_timeout.0.saturating_mul(2))),
            put_off: false,
            closed,
            again: false,
            here: false,
            suspect,
            asked: observers
                .into_iter()
                .chain(own)
                .map(|node| (node, Asked::Due))
                .collect(),
        };
        self.inquiries.insert(suspect, inquiry);
    }

    /// Whether a suspicion of this process was refuted a short while ago.
    pub(crate) fn rests(&self, now: Time, node: NodeId) -> bool {
        self.rests.get(&node).is_some_and(|rest| now < rest.until)
    }

    /// A suspicion was refuted, or nothing could be found out.
    pub(crate) fn refute(&mut self, now: Time, node: NodeId, config: &DetectionConfig) {
        self.inquiries.remove(&node);
        let unit = config.suspect_after;
        lengthen(&mut self.rests, now, node, unit, REST_FORGOTTEN);
    }

    /// A process is cut off, or is known to be: it is tried again after a while.
    pub(crate) fn put_off(&mut self, now: Time, node: NodeId) {
        put_off(&mut self.probations, now, node);
    }

    /// When something is due, if anything is.
    pub(crate) fn deadline(&self) -> Option<Time> {
        let inquiries = self.inquiries.values().map(|inquiry| inquiry.until);
        inquiries.chain(self.waiting.values().copied()).min()
    }

    /// A process is there, under whichever life.
    pub(crate) fn seen(&mut self, node: NodeId) {
        self.waiting.remove(&node);
    }
}

/// Makes the pause of one of several longer than its last one, unless that was over for as long as `forgotten`. Its end.
fn lengthen<T: Ord>(
    rests: &mut BTreeMap<T, Rest>,
    now: Time,
    who: T,
    unit: Nanos,
    forgotten: Nanos,
) -> Time {
    rests.retain(|_, rest| now < rest.until.after(forgotten));
    let rest = rests.entry(who).or_insert(Rest {
        until: now,
        span: 0,
    });
    rest.span = (rest.span * 2).clamp(1, REST_MAX);
    rest.until = now.after(Nanos(unit.0.saturating_mul(rest.span)));
    rest.until
}

/// Somebody who reaches the controllers and not the others takes no part for a while, longer each time. Until when.
pub(crate) fn put_off<T: Ord>(rests: &mut BTreeMap<T, Rest>, now: Time, who: T) -> Time {
    lengthen(rests, now, who, PROBATION, PROBATION_FORGOTTEN)
}

impl Budget {
    /// Counts deaths that were decided by others, each so long ago.
    pub(crate) fn count(&mut self, now: Time, mut ages: Vec<Nanos>) {
        ages.sort_unstable_by(|a, b| b.cmp(a));
        let times = ages.into_iter().filter(|age| *age < MINUTE);
        self.0
            .extend(times.map(|age| Time::from_ns(now.as_ns().saturating_sub(age.0))));
    }

    /// Takes one death of those that may be decided now.
    ///
    /// # Errors
    /// When one may be decided again.
    pub(crate) fn take(&mut self, now: Time, max: u32) -> Result<(), Time> {
        while let Some(first) = self.0.front()
            && first.after(MINUTE) <= now
        {
            self.0.pop_front();
        }
        if self.0.len() < max as usize {
            self.0.push_back(now);
            return Ok(());
        }
        Err(self
            .0
            .front()
            .map_or(Time::FAR, |first| first.after(MINUTE)))
    }
}

impl Inquiry {
    /// Who is to be asked next.
    pub(crate) fn due(&self) -> impl Iterator<Item = NodeId> + '_ {
        let due = self.asked.iter().filter(|(_, asked)| **asked == Asked::Due);
        due.map(|(&node, _)| node)
    }

    /// The question has left.
    pub(crate) fn sent(&mut self, node: NodeId) {
        if let Some(asked @ Asked::Due) = self.asked.get_mut(&node) {
            *asked = Asked::Sent;
        }
    }

    /// Whether it began when the suspect's connection had ended.
    pub(crate) const fn is_closed(&self) -> bool {
        self.closed
    }

    /// A process cannot be reached any more.
    pub(crate) fn lost(&mut self, node: NodeId) {
        self.asked.remove(&node);
    }

    /// Takes an answer. Whether it is a sign of life.
    pub(crate) fn answer(&mut self, from: NodeId, evidence: Evidence, silent: Nanos) -> bool {
        let Some(asked) = self.asked.get_mut(&from) else {
            return false;
        };
        match evidence {
            Evidence::Silent if from != self.suspect => *asked = Asked::Silent(silent),
            Evidence::Silent => {}
            Evidence::NoSession => {
                self.asked.remove(&from);
            }
            Evidence::Heard => return true,
            Evidence::Here => self.here |= from == self.suspect,
        }
        false
    }

    /// What it has come to by now.
    pub(crate) fn finding(&mut self, now: Time, config: &DetectionConfig) -> Finding {
        let others = self.asked.iter().filter(|(node, _)| **node != self.suspect);
        let silent: Vec<(NodeId, Nanos)> = others
            .clone()
            .filter_map(|(&node, asked)| match asked {
                Asked::Silent(span) => Some((node, *span)),
                Asked::Due | Asked::Sent => None,
            })
            .collect();
        let reached = others.count();
        if reached == 0 {
            return Finding::Undecided;
        }
        if self.here && reached < 2 {
            // One of the two is cut off; which, cannot be known.
            return Finding::Undecided;
        }
        let over = now >= self.until;
        if !over && (!self.closed || silent.len() < reached) {
            return Finding::Open;
        }
        if over && !self.put_off && now.since(self.until) > config.probe_timeout {
            // Answers may wait behind the deadline.
            self.put_off = true;
            self.until = now.after(config.probe_timeout);
            return Finding::Open;
        }
        if reached == 1 && !self.closed {
            return Finding::Undecided;
        }
        if silent.len() * 2 <= reached {
            return Finding::Unanswered;
        }
        let spans = silent.iter().map(|(_, span)| *span);
        Finding::Dead(Verdict {
            silent: spans.min().unwrap_or(Nanos(0)),
            said_by: silent.into_iter().map(|(node, _)| node).collect(),
            reached,
            standing: match (self.closed, self.here) {
                (true, _) => Standing::Ended,
                (false, true) => Standing::CutOff,
                (false, false) => Standing::Hung,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;
    const SUSPECT: NodeId = NodeId::new(9);

    fn node(node: u32) -> NodeId {
        NodeId::new(node)
    }

    fn at(ms: u64) -> Time {
        Time::from_ns(ms * MS)
    }

    fn inquiry(observers: u32, attached: bool, closed: bool) -> (Detection, DetectionConfig) {
        let mut detection = Detection::default();
        if attached {
            detection.observers.insert(SUSPECT, ConnId::new(1));
        }
        let observers = (1..=observers).map(node).collect();
        let config = DetectionConfig::default();
        detection.begin(at(1000), SUSPECT, observers, closed, &config);
        (detection, config)
    }

    fn silent(detection: &mut Detection, from: u32) {
        let inquiry = detection.inquiries.get_mut(&SUSPECT).expect("begun");
        assert!(!inquiry.answer(node(from), Evidence::Silent, Nanos(u64::from(from) * MS)));
    }

    fn finding(detection: &mut Detection, ms: u64, config: &DetectionConfig) -> Finding {
        let inquiry = detection.inquiries.get_mut(&SUSPECT).expect("begun");
        inquiry.finding(at(ms), config)
    }

    fn is_dead(finding: &Finding) -> bool {
        matches!(finding, Finding::Dead(_))
    }

    #[test]
    fn most_of_the_observers_decide_and_all_are_waited_for() {
        let (mut detection, config) = inquiry(3, false, true);
        silent(&mut detection, 2);
        silent(&mut detection, 3);
        assert_eq!(finding(&mut detection, 1074, &config), Finding::Open);
        let found = finding(&mut detection, 1075, &config);
        let Finding::Dead(verdict) = found else {
            panic!("{found:?}");
        };
        assert_eq!(verdict.said_by, [node(2), node(3)]);
        assert_eq!((verdict.silent, verdict.reached), (Nanos(2 * MS), 3));
        // With the last answer nothing is left to wait for.
        silent(&mut detection, 1);
        assert!(is_dead(&finding(&mut detection, 1031, &config)));
    }

    #[test]
    fn one_observer_of_several_decides_nothing() {
        for others in [2, 3, 7] {
            let (mut detection, config) = inquiry(others, false, true);
            silent(&mut detection, 1);
            assert_eq!(finding(&mut detection, 1070, &config), Finding::Open);
            assert_eq!(finding(&mut detection, 1080, &config), Finding::Unanswered);
        }
    }

    #[test]
    fn a_sole_observer_counts_only_with_the_end_of_the_connection() {
        let (mut detection, config) = inquiry(1, true, false);
        silent(&mut detection, 1);
        assert_eq!(finding(&mut detection, 1700, &config), Finding::Open);
        assert_eq!(finding(&mut detection, 1760, &config), Finding::Undecided);
        let (mut detection, config) = inquiry(1, false, true);
        silent(&mut detection, 1);
        assert!(is_dead(&finding(&mut detection, 1001, &config)));
    }

    #[test]
    fn without_observers_nothing_is_decided() {
        let (mut detection, config) = inquiry(0, false, true);
        assert_eq!(finding(&mut detection, 1000, &config), Finding::Undecided);
        let (mut detection, config) = inquiry(2, false, true);
        let inquiry = detection.inquiries.get_mut(&SUSPECT).expect("begun");
        inquiry.answer(node(1), Evidence::NoSession, Nanos(0));
        inquiry.lost(node(2));
        assert_eq!(finding(&mut detection, 1001, &config), Finding::Undecided);
    }

    #[test]
    fn what_anybody_hears_refutes_and_only_the_suspect_speaks_for_itself() {
        let (mut detection, _) = inquiry(3, true, false);
        let inquiry = detection.inquiries.get_mut(&SUSPECT).expect("begun");
        assert!(inquiry.answer(node(2), Evidence::Heard, Nanos(0)));
        assert!(!inquiry.answer(node(2), Evidence::Here, Nanos(0)));
        assert!(!inquiry.here);
        assert!(!inquiry.answer(SUSPECT, Evidence::Here, Nanos(0)));
        assert!(inquiry.here, "whether others hear it is waited for");
        assert!(
            !inquiry.answer(node(8), Evidence::Heard, Nanos(0)),
            "nobody asked it"
        );
    }

    #[test]
    fn a_controller_that_is_late_waits_again_once() {
        let (mut detection, config) = inquiry(3, false, true);
        silent(&mut detection, 1);
        silent(&mut detection, 2);
        assert_eq!(finding(&mut detection, 5000, &config), Finding::Open);
        assert_eq!(finding(&mut detection, 5024, &config), Finding::Open);
        assert!(is_dead(&finding(&mut detection, 9000, &config)));
    }

    #[test]
    fn a_process_whose_connection_is_there_may_stand_still_for_a_while() {
        // Silent for 300 ms when it begins: 700 are left, and two answers' time.
        for attached in [true, false] {
            let (mut detection, config) = inquiry(2, attached, attached);
            silent(&mut detection, 1);
            silent(&mut detection, 2);
            assert_eq!(finding(&mut detection, 1749, &config), Finding::Open);
            assert!(is_dead(&finding(&mut detection, 1750, &config)));
        }
        let (detection, mut config) = inquiry(2, true, false);
        assert_eq!(detection.inquiries[&SUSPECT].patience, Nanos(700 * MS));
        config.hung_after = config.suspect_after;
        assert_eq!(config.patience(false), config.probe_timeout);
        assert_eq!(config.patience(true), config.probe_timeout);
    }

    #[test]
    fn a_process_that_only_the_controllers_hear_is_cut_off() {
        for others in [1, 2] {
            let (mut detection, config) = inquiry(others, true, false);
            (1..=others).for_each(|from| silent(&mut detection, from));
            let inquiry = detection.inquiries.get_mut(&SUSPECT).expect("begun");
            assert!(!inquiry.answer(SUSPECT, Evidence::Here, Nanos(0)));
            if others == 1 {
                // Which of the two is, cannot be known.
                assert_eq!(finding(&mut detection, 1001, &config), Finding::Undecided);
                continue;
            }
            assert_eq!(finding(&mut detection, 1749, &config), Finding::Open);
            let found = finding(&mut detection, 1750, &config);
            assert!(
                matches!(&found, Finding::Dead(verdict) if verdict.standing == Standing::CutOff)
            );
        }
    }

    #[test]
    fn pauses_until_a_process_is_tried_again_grow() {
        let mut detection = Detection::default();
        let mut now = at(0);
        let mut spans = Vec::new();
        for _ in 0..7 {
            detection.put_off(now, SUSPECT);
            let until = detection.probations[&SUSPECT].until;
            spans.push(until.since(now).0 / MS / 1000);
            now = until.after(Nanos::from_ms(1000));
        }
        assert_eq!(spans, [10, 20, 40, 80, 160, 320, 320]);
    }

    #[test]
    fn whoever_was_asked_is_asked_anew_when_the_connection_ends() {
        let (mut detection, config) = inquiry(2, true, false);
        silent(&mut detection, 1);
        let before = detection.inquiries[&SUSPECT].number;
        detection.observers.remove(&SUSPECT);
        detection.begin(at(1100), SUSPECT, vec![node(1), node(2)], true, &config);
        let inquiry = &detection.inquiries[&SUSPECT];
        assert!(inquiry.is_closed() && inquiry.number > before);
        assert_eq!(
            (inquiry.patience, inquiry.due().count()),
            (config.probe_timeout, 2)
        );
        assert_eq!(finding(&mut detection, 1174, &config), Finding::Open);
        silent(&mut detection, 1);
        silent(&mut detection, 2);
        assert!(is_dead(&finding(&mut detection, 1174, &config)));
    }

    #[test]
    fn refuted_suspicions_rest_longer_each_time() {
        let (mut detection, config) = inquiry(2, true, false);
        let mut now = at(1000);
        let mut spans = Vec::new();
        for _ in 0..8 {
            detection.refute(now, SUSPECT, &config);
            let began = now;
            while detection.rests(now, SUSPECT) {
                now = now.after(Nanos::from_ms(10));
            }
            spans.push(now.since(began).0 / MS);
        }
        assert_eq!(spans, [300, 600, 1200, 2400, 4800, 9600, 9600, 9600]);
        now = now.after(REST_FORGOTTEN).after(Nanos::from_ms(1));
        detection.refute(now, SUSPECT, &config);
        assert!(!detection.rests(now.after(Nanos::from_ms(300)), SUSPECT));
    }

    #[test]
    fn deaths_within_a_minute_are_limited() {
        let mut budget = Budget::default();
        assert_eq!(budget.take(at(0), 2), Ok(()));
        assert_eq!(budget.take(at(50_000), 2), Ok(()));
        assert_eq!(budget.take(at(59_999), 2), Err(at(60_000)));
        assert_eq!(budget.take(at(60_000), 2), Ok(()));
        assert_eq!(budget.take(at(60_001), 2), Err(at(110_000)));
        assert_eq!(budget.take(at(60_001), 0), Err(at(110_000)));
        // Two that another controller decided; a third is more than a minute ago.
        let mut next = Budget::default();
        next.count(
            at(90_000),
            [10_000, 70_000, 30_000].map(Nanos::from_ms).to_vec(),
        );
        assert_eq!(next.take(at(90_000), 2), Err(at(120_000)));
        assert_eq!(next.take(at(90_000), 3), Ok(()));
    }
}
