//! Which role runs on which reactor, and which reactor on which core.

use crate::reactor::IdlePolicy;
use crate::topology::Topology;

/// How roles share cores.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum CorePlan {
    /// A reactor and a core per role.
    Dedicated,
    /// As many reactors as there are cores to give; roles share them.
    #[default]
    Packed,
    /// All roles on one reactor, on whatever core: a whole cluster in one thread.
    Cooperative,
}

/// What the plan has to know besides the roles.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PlanOptions {
    /// Busy threads of this process besides the reactors, such as a client's; they need cores too.
    pub other_busy_threads: usize,
    /// Reactors of a packed plan, as far as there are roles for them, whatever the cores; none for as many as there are
    /// cores to give.
    pub reactors: Option<usize>,
}

/// One reactor of an assignment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Placement {
    /// The core it is pinned to; `None` leaves it to the scheduler.
    pub core: Option<usize>,
    /// Indices of its roles.
    pub roles: Vec<usize>,
    /// Another busy thread of ours needs the same core: the reactor must yield at once instead of spinning.
    pub shared: bool,
}

impl Placement {
    /// The idle ladder for this reactor, given how long one with a core of its own spins.
    #[must_use]
    pub fn idle_policy(&self, spin_us: u64) -> IdlePolicy {
        if self.shared {
            IdlePolicy::shared()
        } else {
            IdlePolicy::dedicated(spin_us)
        }
    }
}

/// The reactors of a process.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Assignment {
    /// The plan that was asked for.
    pub plan: CorePlan,
    /// The reactors.
    pub reactors: Vec<Placement>,
    /// Busy threads are more than cores: figures measured now say as much about the scheduler as about the log.
    pub oversubscribed: bool,
}

impl std::fmt::Display for CorePlan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Dedicated => "dedicated",
            Self::Packed => "packed",
            Self::Cooperative => "cooperative",
        })
    }
}

impl Assignment {
    /// The reactor that a role runs on.
    #[must_use]
    pub fn reactor_of(&self, role: usize) -> Option<usize> {
        self.reactors
            .iter()
            .position(|placement| placement.roles.contains(&role))
    }
}

/// Assigns `roles` roles, numbered from 0, to reactors and cores.
#[must_use]
pub fn assign(
    plan: CorePlan,
    roles: usize,
    topology: &Topology,
    options: PlanOptions,
) -> Assignment {
    let cores = topology.preferred_order();
    let parallelism = topology.parallelism().min(cores.len());
    let for_reactors = parallelism
        .saturating_sub(options.other_busy_threads)
        .max(1);
    let count = match plan {
        CorePlan::Dedicated => roles,
        CorePlan::Packed => roles.min(options.reactors.unwrap_or(for_reactors).max(1)),
        CorePlan::Cooperative => roles.min(1),
    };
    let oversubscribed = count + options.other_busy_threads > parallelism;
    let reactors = (0..count)
        .map(|reactor| Placement {
            // Where cores do not suffice, a pinned thread would wait for its own core while another idles.
            core: (plan != CorePlan::Cooperative && !oversubscribed).then(|| cores[reactor]),
            roles: (reactor..roles).step_by(count).collect(),
            shared: oversubscribed,
        })
        .collect();
    Assignment {
        plan,
        reactors,
        oversubscribed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::Cpu;

    fn machine(cpus: usize) -> Topology {
        let cpu = |id| Cpu {
            id,
            package: 0,
            numa_node: 0,
            siblings: vec![id],
        };
        Topology {
            cpus: (0..cpus).map(cpu).collect(),
            allowed: (0..cpus).collect(),
            cpu_quota: None,
        }
    }

    fn shape(assignment: &Assignment) -> Vec<(Option<usize>, Vec<usize>, bool)> {
        assignment
            .reactors
            .iter()
            .map(|p| (p.core, p.roles.clone(), p.shared))
            .collect()
    }

    #[test]
    fn dedicated_gives_each_role_a_core_and_leaves_the_first_for_last() {
        let assignment = assign(CorePlan::Dedicated, 3, &machine(4), PlanOptions::default());
        let expected = [
            (Some(1), vec![0], false),
            (Some(2), vec![1], false),
            (Some(3), vec![2], false),
        ];
        assert_eq!(shape(&assignment), expected);
        assert_eq!(
            (assignment.oversubscribed, assignment.reactor_of(2)),
            (false, Some(2))
        );
    }

    #[test]
    fn more_busy_threads_than_cores_is_sharing() {
        let assignment = assign(CorePlan::Dedicated, 3, &machine(2), PlanOptions::default());
        assert!(assignment.oversubscribed);
        assert!(
            assignment
                .reactors
                .iter()
                .all(|p| p.shared && p.core.is_none())
        );
        let others = PlanOptions {
            other_busy_threads: 2,
            ..Default::default()
        };
        assert!(
            assign(CorePlan::Packed, 3, &machine(2), others).oversubscribed,
            "the others alone fill it"
        );
        let mut limited = machine(8);
        limited.cpu_quota = Some(1.0);
        assert!(
            assign(CorePlan::Dedicated, 2, &limited, PlanOptions::default()).oversubscribed,
            "by quota"
        );
    }

    #[test]
    fn packed_shares_reactors_not_cores() {
        let assignment = assign(CorePlan::Packed, 5, &machine(2), PlanOptions::default());
        assert_eq!(
            shape(&assignment),
            [
                (Some(1), vec![0, 2, 4], false),
                (Some(0), vec![1, 3], false)
            ]
        );
        let others = PlanOptions {
            other_busy_threads: 1,
            ..Default::default()
        };
        let assignment = assign(CorePlan::Packed, 5, &machine(2), others);
        assert_eq!(shape(&assignment), [(Some(1), vec![0, 1, 2, 3, 4], false)]);
        let given = |reactors, cpus| {
            let options = PlanOptions {
                reactors: Some(reactors),
                ..Default::default()
            };
            let assignment = assign(CorePlan::Packed, 5, &machine(cpus), options);
            (assignment.reactors.len(), assignment.oversubscribed)
        };
        assert_eq!(given(1, 2), (1, false));
        assert_eq!(given(3, 2), (3, true), "more than there are cores");
        assert_eq!(given(9, 8), (5, false), "no more than there are roles");
        assert_eq!(given(0, 8), (1, false));
    }

    #[test]
    fn cooperative_is_one_thread_anywhere() {
        let assignment = assign(
            CorePlan::Cooperative,
            4,
            &machine(8),
            PlanOptions::default(),
        );
        assert_eq!(shape(&assignment), [(None, vec![0, 1, 2, 3], false)]);
        assert!(
            assign(
                CorePlan::Cooperative,
                0,
                &machine(1),
                PlanOptions::default()
            )
            .reactors
            .is_empty()
        );
    }
}
