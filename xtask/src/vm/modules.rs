//! Which files a kernel module is made of: reads `modules.dep` and `modules.builtin`, as `depmod` and the kernel's build leave them.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, bail};

/// The modules of one kernel.
#[derive(Debug, Default)]
pub(crate) struct Modules {
    kernel: String,
    /// By name: the file, and the files that it needs.
    files: BTreeMap<String, (String, Vec<String>)>,
    builtin: BTreeSet<String>,
}

impl Modules {
    /// Reads both lists. A line that has another form is left out; what is then missing is missed by name.
    pub(crate) fn parse(kernel: &str, dependencies: &str, builtin: &str) -> Self {
        let mut files = BTreeMap::new();
        for line in dependencies.lines() {
            let Some((file, needs)) = line.split_once(':') else {
                continue;
            };
            let needs = needs.split_whitespace().map(str::to_owned).collect();
            files.insert(name(file), (file.to_owned(), needs));
        }
        Self {
            kernel: kernel.to_owned(),
            files,
            builtin: builtin.lines().map(name).collect(),
        }
    }

    /// Looks whether the kernel has all of them, built in or not.
    ///
    /// # Errors
    /// Naming the first one that it does not have.
    pub(crate) fn require(&self, wanted: &[&str]) -> Result<()> {
        for module in wanted {
            let module_name = name(module);
            if !self.files.contains_key(&module_name) && !self.builtin.contains(&module_name) {
                bail!(
                    "Debian's kernel {} has no module {module}: see /lib/modules in a guest (cargo xtask vm -- find /lib/modules -name '*.ko*')",
                    self.kernel
                );
            }
        }
        Ok(())
    }

    /// The files of `wanted` and of everything that these need, each once, in an order in which they can be loaded.
    ///
    /// # Errors
    /// When the kernel does not have one of them.
    pub(crate) fn with_dependencies(&self, wanted: &[&str]) -> Result<Vec<String>> {
        self.require(wanted)?;
        let mut order = Vec::new();
        let mut seen = BTreeSet::new();
        for module in wanted {
            self.visit(&name(module), &mut seen, &mut order);
        }
        Ok(order)
    }

    /// What a module needs comes before it. `seen` ends circles, of which `depmod` makes none.
    fn visit(&self, module: &str, seen: &mut BTreeSet<String>, order: &mut Vec<String>) {
        let Some((file, needs)) = self.files.get(module) else {
            return;
        };
        if !seen.insert(module.to_owned()) {
            return;
        }
        for needed in needs {
            self.visit(&name(needed), seen, order);
        }
        order.push(file.clone());
    }
}

/// The name of a module: that of its file, without what it ends in, with `_` where it may have `-`.
fn name(file: &str) -> String {
    let last = file.rsplit('/').next().unwrap_or(file);
    let stem = last.split_once(".ko").map_or(last, |(stem, _)| stem);
    stem.replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEPENDENCIES: &str = "kernel/fs/9p/9p.ko: kernel/net/9p/9pnet.ko kernel/fs/fscache.ko kernel/fs/netfs.ko\n\
        kernel/net/9p/9pnet.ko:\n\
        kernel/fs/fscache.ko: kernel/fs/netfs.ko\n\
        kernel/fs/netfs.ko:\n\
        kernel/drivers/vfio-pci.ko.xz: kernel/drivers/vfio.ko.xz\n\
        kernel/drivers/vfio.ko.xz:\n";

    fn modules() -> Modules {
        Modules::parse("6.1", DEPENDENCIES, "kernel/fs/ext4/ext4.ko\n")
    }

    #[test]
    fn what_a_module_needs_comes_before_it_and_once() {
        let order = modules()
            .with_dependencies(&["9p", "9pnet", "ext4"])
            .expect("all are there");
        assert_eq!(
            order,
            [
                "kernel/net/9p/9pnet.ko",
                "kernel/fs/netfs.ko",
                "kernel/fs/fscache.ko",
                "kernel/fs/9p/9p.ko"
            ]
        );
    }

    #[test]
    fn a_name_may_have_either_dash_and_files_may_be_packed() {
        for wanted in ["vfio_pci", "vfio-pci"] {
            let order = modules().with_dependencies(&[wanted]).expect("it is there");
            assert_eq!(
                order,
                ["kernel/drivers/vfio.ko.xz", "kernel/drivers/vfio-pci.ko.xz"]
            );
        }
    }

    #[test]
    fn a_module_that_is_not_there_is_named() {
        let error = modules()
            .with_dependencies(&["9p", "siw"])
            .expect_err("there is none");
        assert!(error.to_string().contains("no module siw"), "{error}");
        modules().require(&["ext4"]).expect("it is built in");
    }
}
