//! The shapes of trees: drawn at random, made anew, and what of a world follows from them.

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::*;

impl World {
    pub(super) fn process(&mut self, leaf: bool) -> usize {
        let at = self.processes.len();
        self.next_inc += 1;
        let inc = Inc::new(self.next_inc);
        let node = NodeId::new(10 + at as u32);
        let machine = if leaf {
            let config = LeafConfig::new(CLUSTER, node, inc, LOG);
            Machine::Leaf(Box::new(Leaf::new(config, self.now)))
        } else {
            let config = AggregatorConfig::new(CLUSTER, node, inc, LOG, Slot::ZERO);
            Machine::Aggregator(Box::new(Aggregator::new(config, self.now)))
        };
        self.processes.push(Process {
            inc,
            machine,
            out: outbox(),
            slots: Slots::new(),
        });
        at
    }

    pub(super) fn full(&mut self, fan: &[usize]) -> Vec<Node> {
        let Some((width, rest)) = fan.split_first() else {
            return Vec::new();
        };
        (0..*width)
            .map(|_| Node {
                process: self.process(rest.is_empty()),
                below: self.full(rest),
            })
            .collect()
    }

    pub(super) fn draw_tree(&mut self, levels: usize) -> Vec<Node> {
        let width = 1 + self.draw(3);
        (0..width)
            .map(|_| {
                let leaf = levels == 0 || self.draw(3) == 0;
                Node {
                    process: self.process(leaf),
                    below: if leaf {
                        Vec::new()
                    } else {
                        self.draw_tree(levels - 1)
                    },
                }
            })
            .collect()
    }

    pub(in crate::tree::tests) fn depth(&self) -> usize {
        fn depth(nodes: &[Node]) -> usize {
            nodes
                .iter()
                .map(|node| 1 + depth(&node.below))
                .max()
                .unwrap_or(0)
        }
        depth(&self.tree)
    }

    pub(super) fn flat(&self) -> Vec<(usize, usize)> {
        fn walk(nodes: &[Node], found: &mut Vec<(usize, usize)>) {
            for node in nodes {
                found.push((node.process, node.below.len()));
                walk(&node.below, found);
            }
        }
        let mut found = Vec::new();
        walk(&self.tree, &mut found);
        found
    }

    pub(super) fn leaf_processes(&self) -> Vec<usize> {
        let flat = self.flat().into_iter().filter(|(_, below)| *below == 0);
        flat.map(|(process, _)| process).collect()
    }

    pub(in crate::tree::tests) fn leaves(&self) -> usize {
        self.leaf_processes().len()
    }

    /// A level more or less somewhere, or a leaf more.
    pub(super) fn reshape(&mut self) {
        let mut lists = 1 + self.flat().iter().filter(|(_, below)| *below > 0).count();
        lists = self.draw(lists);
        let (kind, deep) = (self.draw(3), self.depth() >= 6);
        let aggregator = self.process(false);
        let leaf = self.process(true);
        let list = nth_list(&mut self.tree, &mut lists).expect("there are so many");
        match kind {
            0 if !deep => {
                let below = core::mem::take(list);
                list.push(Node {
                    process: aggregator,
                    below,
                });
            }
            1 => {
                if let Some(at) = list.iter().position(|node| !node.below.is_empty()) {
                    let below = core::mem::take(&mut list[at].below);
                    list.splice(at..=at, below);
                }
            }
            _ => list.push(Node {
                process: leaf,
                below: Vec::new(),
            }),
        }
    }
}

pub(super) fn rename(nodes: &mut [Node], from: usize, to: usize) {
    for node in nodes {
        if node.process == from {
            node.process = to;
        }
        rename(&mut node.below, from, to);
    }
}

pub(super) fn nth_list<'a>(list: &'a mut Vec<Node>, at: &mut usize) -> Option<&'a mut Vec<Node>> {
    if *at == 0 {
        return Some(list);
    }
    *at -= 1;
    let inner = list.iter_mut().filter(|node| !node.below.is_empty());
    for node in inner {
        // The borrow ends with the walk: it is walked again when it is found.
        let before = *at;
        if nth_list(&mut node.below, at).is_some() {
            *at = before;
            return nth_list(&mut node.below, at);
        }
    }
    None
}
