//! The ordering tree takes other forms, its vertices move, and their processes die and stand still, while everybody appends.
//!
//! The vertices lie on nodes that hold nothing else, so that what happens to them is a matter of the tree alone: whoever appends
//! waits at most until the process is there again, or until the controllers have given its vertices to other nodes. What an
//! operator has asked for must have come about in the end, as `ionian tree show` says.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::acks::Acks;
use super::bed::{Bed, Judged, WHOLE_LIMIT};
use super::plan::Random;
use crate::binary::Binary;
use crate::governed::{Governed, Layout, Tree, Who};
use crate::process::wait_until;

const LOG: &str = "default";
/// The nodes that have the vertices.
const NODES: [usize; 3] = [6, 7, 8];
/// Where the shards lie; the log has no others, so that a form always has as many vertices.
const SHARDS: &[&[usize]] = &[&[3, 4], &[4, 5], &[3, 5], &[4, 5]];
/// Silence after which a process is dead.
const DEAD_AFTER_MS: u64 = 1_000;
/// Pauses that nobody takes for a death, and those that everybody does, in milliseconds.
const SHORT_PAUSE_MS: [u64; 2] = [100, 600];
const LONG_PAUSE_MS: [u64; 2] = [1_500, 3_000];

/// What is done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Plan {
    /// For how long. At least one round of all is done.
    pub duration: Duration,
    /// Whether processes die and stand still; otherwise the tree is only changed.
    pub faults: bool,
    /// Chooses the order.
    pub seed: u64,
}

/// What came of a run.
#[derive(Debug)]
pub struct Outcome {
    /// The judge's word; the verdict is worse than that when the cluster did not recover, or a change did not come about.
    pub judged: Judged,
    /// What was done.
    pub done: Vec<Done>,
}

/// One kind of thing that was done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Done {
    /// Its name.
    pub name: &'static str,
    /// How often.
    pub times: u64,
    /// The longest time until the cluster was whole again and every writer had an acknowledgement.
    pub longest: Duration,
    /// For each time the longest that a writer went without an acknowledgement, from what was done until all was well; rising.
    pub waits: Vec<Duration>,
    spans: Vec<(u64, u64)>,
}

impl Done {
    /// Of the longest waits of each time the median and the worst, in milliseconds.
    fn waits_ms(&self) -> [f64; 2] {
        let worst = self.waits.len().saturating_sub(1);
        [worst / 2, worst].map(|at| self.waits.get(at).map_or(0.0, |it| it.as_secs_f64() * 1e3))
    }
}

impl Outcome {
    /// For people.
    #[must_use]
    pub fn text(&self) -> String {
        let line = |done: &Done| {
            let (name, times) = (done.name, done.times);
            let longest = done.longest.as_secs_f64();
            let [median, worst] = done.waits_ms();
            format!(
                "{name:<20} {times:>3} times, a writer waited {median:.0} ms (median), {worst:.0} ms (worst); all well after {longest:.1} s at most\n"
            )
        };
        self.done.iter().map(line).collect()
    }

    /// For programs.
    #[must_use]
    pub fn json(&self) -> Value {
        let done = |done: &Done| {
            let well_ms = done.longest.as_secs_f64() * 1e3;
            let [median, worst] = done.waits_ms();
            serde_json::json!({
                "what": done.name, "times": done.times, "longest_until_well_ms": well_ms,
                "wait_ms_median": median, "wait_ms_worst": worst,
            })
        };
        let done: Vec<Value> = self.done.iter().map(done).collect();
        self.judged.told_in(serde_json::json!({ "done": done }))
    }
}

/// A form of the tree over the shards.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Form {
    fan_in: u16,
    depth: u8,
    vertices: usize,
}

/// The first is what the log begins with.
const FORMS: [Form; 4] = [
    Form {
        fan_in: 2,
        depth: 2,
        vertices: 3,
    },
    Form {
        fan_in: 4,
        depth: 1,
        vertices: 1,
    },
    Form {
        fan_in: 2,
        depth: 3,
        vertices: 4,
    },
    Form {
        fan_in: 2,
        depth: 1,
        vertices: 2,
    },
];

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    /// Another form.
    Set,
    /// A vertex goes to another node.
    Move,
    /// A vertex's process dies, and another is there at once at the same address.
    Kill,
    /// It dies, and comes back when the controllers have given its vertices to other nodes.
    Death,
    /// It stands still, and goes on before anybody takes it for dead.
    ShortPause,
    /// It goes on when everybody has.
    LongPause,
    /// A process dies while another form is on its way.
    SetAndKill,
    /// The leader of the root group dies.
    RootLeader,
}

impl Step {
    const CHANGES: [Self; 4] = [Self::Set, Self::Move, Self::Set, Self::Move];
    const ALL: [Self; 8] = [
        Self::Set,
        Self::Move,
        Self::Kill,
        Self::Death,
        Self::ShortPause,
        Self::LongPause,
        Self::SetAndKill,
        Self::RootLeader,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::Set => "tree-set",
            Self::Move => "tree-move",
            Self::Kill => "kill9",
            Self::Death => "death",
            Self::ShortPause => "short-pause",
            Self::LongPause => "long-pause",
            Self::SetAndKill => "tree-set-and-kill9",
            Self::RootLeader => "kill9-root-leader",
        }
    }
}

struct Run<'a> {
    bed: Bed,
    random: Random,
    form: Form,
    done: Vec<Done>,
    say: &'a mut dyn FnMut(&str),
    stop: &'a dyn Fn() -> bool,
}

/// Does a plan to a new cluster in `dir`. Ends early, with the verdict so far, when `stop` says so; tells `say` of every step.
/// The merged history is `history.jsonl` in `histories`, or in `dir`.
///
/// # Errors
/// When the cluster cannot be run at all, or there is no whole history: the harness's fault.
pub fn run(
    binary: &Binary,
    dir: &Path,
    plan: &Plan,
    histories: Option<&Path>,
    stop: impl Fn() -> bool,
    mut say: impl FnMut(&str),
) -> Result<Outcome> {
    let layout = Layout {
        nodes: 9,
        roots: 3,
        shards: SHARDS,
        tree: Some(Tree {
            nodes: &NODES,
            fan_in: FORMS[0].fan_in,
            depth: FORMS[0].depth,
        }),
        dead_after_ms: DEAD_AFTER_MS,
        snapshot_entries: None,
        copies_planned: None,
        data: Vec::new(),
    };
    let cluster = Governed::found(binary, dir, &layout, None)?;
    let at = histories.unwrap_or(dir).to_owned();
    let bed = Bed::start(cluster, &at, &[LOG], plan.seed)?;
    let mut run = Run {
        bed,
        random: Random::new(plan.seed),
        form: FORMS[0],
        done: Vec::new(),
        say: &mut say,
        stop: &stop,
    };
    if let Err(error) = run.rounds(plan) {
        run.bed.problems.push(format!("{error:#}"));
    }
    let Run { bed, mut done, .. } = run;
    let mut writers = bed.crew.names();
    writers.retain(|name| name != "picker");
    let judged = bed.finish("chaos tree", plan.seed)?;
    let acks = Acks::read(&at.join("clients"))?;
    for done in &mut done {
        let silence = |span: &(u64, u64)| Duration::from_nanos(acks.silence(&writers, *span));
        done.waits = done.spans.iter().map(silence).collect();
        done.waits.sort_unstable();
    }
    Ok(Outcome { judged, done })
}

impl Run<'_> {
    fn rounds(&mut self, plan: &Plan) -> Result<()> {
        let end = Instant::now() + plan.duration;
        self.is_there(FORMS[0])?;
        loop {
            let mut steps = if plan.faults {
                Step::ALL.to_vec()
            } else {
                Step::CHANGES.to_vec()
            };
            self.random.shuffle(&mut steps);
            for step in steps {
                ensure!(!(self.stop)(), "it was asked to end");
                self.one(step).with_context(|| step.name())?;
            }
            if Instant::now() >= end {
                return Ok(());
            }
        }
    }

    /// One step, from a whole cluster to a whole cluster.
    fn one(&mut self, step: Step) -> Result<()> {
        self.bed.wait_well()?;
        self.bring_home()?;
        let id = self.bed.next_fault();
        self.bed.told(id, step.name(), &[], "installed");
        let from_ns = self.bed.now_ns();
        let what = match step {
            Step::Set => self.set()?,
            Step::Move => self.move_one()?,
            Step::Kill => self.kill(false)?,
            Step::Death => self.kill(true)?,
            Step::ShortPause => self.pause(SHORT_PAUSE_MS)?,
            Step::LongPause => self.pause(LONG_PAUSE_MS)?,
            Step::SetAndKill => self.set_and_kill()?,
            Step::RootLeader => self.root_leader()?,
        };
        let began = Instant::now();
        self.bed.wait_well()?;
        let took = began.elapsed();
        let span = (from_ns, self.bed.now_ns());
        self.bed.told(id, step.name(), &[], "healed");
        self.is_there(self.form)?;
        (self.say)(&format!(
            "{}: {what}; all well after {:.1} s",
            step.name(),
            took.as_secs_f64()
        ));
        let name = step.name();
        match self.done.iter_mut().find(|done| done.name == name) {
            Some(done) => {
                done.times += 1;
                done.longest = done.longest.max(took);
                done.spans.push(span);
            }
            None => self.done.push(Done {
                name,
                times: 1,
                longest: took,
                waits: Vec::new(),
                spans: vec![span],
            }),
        }
        Ok(())
    }

    /// The tree has this form, by the word of the controllers.
    fn is_there(&self, form: Form) -> Result<()> {
        let shown = self.bed.cluster.json(&["tree", "show", LOG])?;
        let tree = shown["tree"].as_array().context("a tree")?;
        let levels = tree.iter().filter_map(|vertex| vertex["level"].as_u64());
        let levels = levels.max().unwrap_or(0);
        ensure!(
            tree.len() == form.vertices && levels == u64::from(form.depth),
            "the tree has {} vertices on {levels} levels, not as {form:?} has it",
            tree.len()
        );
        Ok(())
    }

    /// Moves vertices that are elsewhere, since processes died, to the nodes that have nothing else.
    fn bring_home(&mut self) -> Result<()> {
        for (vertex, on) in self.bed.cluster.vertices(LOG)? {
            if !NODES.map(Who::Node).contains(&on) {
                let to = self.node();
                self.move_vertex(vertex, to)?;
            }
        }
        Ok(())
    }

    /// One of the tree's nodes.
    fn node(&mut self) -> Who {
        Who::Node(NODES[self.random.below(NODES.len() as u64) as usize])
    }

    fn move_vertex(&mut self, vertex: u64, to: Who) -> Result<()> {
        let number = vertex.to_string();
        let line = ["tree", "move", LOG, &to.name(), "--vertex", &number];
        self.bed.cluster.operate(&line)?;
        let vertices = self.bed.cluster.vertices(LOG)?;
        let found = vertices.iter().find(|(known, _)| *known == vertex);
        let (_, on) = found.context("the vertex that moved")?;
        ensure!(*on == to, "vertex {vertex} is on {}", on.name());
        Ok(())
    }

    /// A vertex, and the node that it is on.
    fn vertex(&mut self) -> Result<(u64, Who)> {
        let vertices = self.bed.cluster.vertices(LOG)?;
        ensure!(!vertices.is_empty(), "the log has no tree");
        Ok(vertices[self.random.below(vertices.len() as u64) as usize])
    }

    fn move_one(&mut self) -> Result<String> {
        let (vertex, from) = self.vertex()?;
        let others = NODES.map(Who::Node).into_iter().filter(|who| *who != from);
        let others: Vec<Who> = others.collect();
        let to = others[self.random.below(others.len() as u64) as usize];
        self.move_vertex(vertex, to)?;
        let (from, to) = (from.name(), to.name());
        Ok(format!("vertex {vertex} from {from} to {to}"))
    }

    /// A form that the tree does not have.
    fn other_form(&mut self) -> Form {
        let others = FORMS.into_iter().filter(|form| *form != self.form);
        let others: Vec<Form> = others.collect();
        others[self.random.below(others.len() as u64) as usize]
    }

    fn set(&mut self) -> Result<String> {
        let form = self.other_form();
        let [fan_in, depth] = [form.fan_in.to_string(), form.depth.to_string()];
        let line = ["tree", "set", LOG, "--fan-in", &fan_in, "--depth", &depth];
        self.bed.cluster.operate(&line)?;
        self.form = form;
        self.is_there(form)?;
        Ok(format!("fan-in {fan_in}, depth {depth}"))
    }

    /// The process of a vertex dies.
    fn kill(&mut self, patiently: bool) -> Result<String> {
        let (vertex, who) = self.vertex()?;
        self.bed.cluster.kill(who)?;
        if patiently {
            self.taken_over(who)?;
        }
        self.bed.cluster.start(who)?;
        Ok(format!("kill -9 of {} with vertex {vertex}", who.name()))
    }

    /// Waits until a dead node has no vertex any more, and everybody appends.
    fn taken_over(&self, dead: Who) -> Result<()> {
        let cluster = &self.bed.cluster;
        let gone = wait_until(WHOLE_LIMIT, || {
            let vertices = cluster.vertices(LOG)?;
            Ok(vertices.iter().all(|(_, on)| *on != dead))
        })?;
        ensure!(gone, "{} keeps its vertices", dead.name());
        let names = self.bed.crew.names();
        let mut writers = names.iter().filter(|name| *name != "picker");
        writers.try_for_each(|name| self.bed.wait_for(name))
    }

    /// The process of a vertex stands still for so many milliseconds.
    fn pause(&mut self, [least, most]: [u64; 2]) -> Result<String> {
        let (vertex, who) = self.vertex()?;
        let span_ms = least + self.random.below(most - least);
        self.bed.cluster.pause(who)?;
        let stop = self.stop;
        // However it ends, the process goes on.
        let passed = wait_until(Duration::from_millis(span_ms), || Ok(stop()));
        let vertices = self.bed.cluster.vertices(LOG);
        self.bed.cluster.resume(who)?;
        passed?;
        let kept = vertices?.iter().any(|(_, on)| *on == who);
        let kept = if kept {
            "which it kept"
        } else {
            "which others have now"
        };
        let name = who.name();
        Ok(format!(
            "{name} still for {span_ms} ms with vertex {vertex}, {kept}"
        ))
    }

    /// A process dies while a tree is on its way; it comes about all the same.
    fn set_and_kill(&mut self) -> Result<String> {
        let form = self.other_form();
        let [fan_in, depth] = [form.fan_in.to_string(), form.depth.to_string()];
        let line = ["tree", "set", LOG, "--fan-in", &fan_in, "--depth", &depth];
        let begun = self
            .bed
            .cluster
            .operate(&[&line[..], &["--no-wait", "--json"]].concat())?;
        let begun: Value = serde_json::from_str(&begun).context("the answer")?;
        let number = begun["transaction"].as_u64().unwrap_or(0).to_string();
        let who = self.node();
        self.bed.cluster.kill(who)?;
        self.bed.cluster.start(who)?;
        let line = ["transaction", "wait", &number, "--timeout", "90"];
        self.bed.cluster.operate(&line)?;
        self.form = form;
        let name = who.name();
        Ok(format!(
            "fan-in {fan_in}, depth {depth}, and kill -9 of {name}"
        ))
    }

    /// The leader of the root group dies, and starts again when another one orders.
    fn root_leader(&mut self) -> Result<String> {
        let leader = self.bed.cluster.root_leader(LOG)?;
        let leader = leader.context("the log has no root leader")?;
        self.bed.cluster.kill(leader)?;
        let names = self.bed.crew.names();
        let mut writers = names.iter().filter(|name| *name != "picker");
        let goes_on = writers.try_for_each(|name| self.bed.wait_for(name));
        self.bed.cluster.start(leader)?;
        goes_on?;
        Ok(format!("kill -9 of {}, which led", leader.name()))
    }
}
