//! The report: tables for people, one document for programs.

use serde_json::{Value, json};

use super::facts::{Facts, HugePages, Limit, Probe};
use super::judge::{Check, Fit, Fits, Judgement, State};
use crate::table::{Table, size};

/// The version of the document; it rises when a key goes or changes its meaning, and not when one is added.
const DOCUMENT_VERSION: u32 = 1;

/// Everything for programs.
pub(super) fn json(facts: &Facts, judgement: &Judgement) -> Result<Value, serde_json::Error> {
    let judged = serde_json::to_value(judgement)?;
    let mut document = json!({
        "version": DOCUMENT_VERSION,
        "good": judgement.good(),
        "machine": serde_json::to_value(facts)?,
    });
    if let (Some(all), Value::Object(judged)) = (document.as_object_mut(), judged) {
        all.extend(judged);
    }
    Ok(document)
}

/// Everything for people.
pub(super) fn text(facts: &Facts, judgement: &Judgement) -> String {
    let mut parts = vec![
        machine(facts),
        interfaces(facts),
        rdma(facts),
        pci(facts),
        nvme(facts),
    ];
    match judgement
        .asked
        .as_deref()
        .and_then(|name| judgement.fit(name))
    {
        Some(asked) => parts.push(details(asked, true)),
        None => {
            parts.push(profiles(judgement));
            let lacking = judgement
                .profiles
                .iter()
                .filter(|fit| fit.fits != Fits::Yes);
            parts.extend(lacking.map(|fit| details(fit, false)));
        }
    }
    parts.push(judgement.notes.iter().map(line).collect());
    parts.push(conclusion(judgement));
    parts.retain(|part| !part.is_empty());
    parts.join("\n")
}

fn machine(facts: &Facts) -> String {
    let mut table = Table::new();
    let mut row = |what: &str, says: String| {
        if !says.is_empty() {
            table.row(&[what.to_owned(), says]);
        }
    };
    row("kernel", kernel(facts));
    row("cores", cores(facts));
    row(
        "huge pages",
        facts
            .huge_pages
            .iter()
            .map(pages)
            .collect::<Vec<_>>()
            .join("; "),
    );
    row(
        "locked memory",
        match facts.process.memlock_bytes {
            Some(Limit::Bytes(bytes)) => format!("at most {}", size(bytes)),
            Some(Limit::None(_)) => String::from("no limit"),
            None => String::from("?"),
        },
    );
    row(
        "IOMMU",
        format!(
            "{} groups, /dev/vfio/vfio is {}{}",
            facts.iommu.groups,
            if facts.iommu.vfio {
                "there"
            } else {
                "not there"
            },
            if facts.iommu.vfio_without_iommu == Some(true) {
                ", VFIO WORKS WITHOUT AN IOMMU"
            } else {
                ""
            }
        ),
    );
    row("capabilities", capabilities(facts));
    row("access", access(facts));
    row("libraries", libraries(facts));
    table.render()
}

fn kernel(facts: &Facts) -> String {
    let kernel = &facts.kernel;
    let mut parts = vec![format!(
        "Linux {}",
        kernel.release.as_deref().unwrap_or("?")
    )];
    parts.extend(kernel.tick_hz.map(|hz| format!("tick {hz} Hz")));
    parts.extend(
        kernel
            .preemption
            .as_ref()
            .map(|kind| format!("preemption {kind}")),
    );
    if kernel.virtual_machine == Some(true) {
        parts.push(String::from("a virtual machine"));
    }
    if !kernel.command_line.is_empty() {
        parts.push(kernel.command_line.join(" "));
    }
    parts.join(", ")
}

fn cores(facts: &Facts) -> String {
    let cores = &facts.cores;
    let mut text = format!(
        "{} online, {} for this process",
        cores.online.len(),
        cores.allowed.len()
    );
    let nodes = cores.numa_nodes.len();
    if nodes > 1 {
        text += &format!(", {nodes} NUMA nodes");
    }
    text += &match cores.siblings.first() {
        Some(set) => format!(", {} threads per physical core", set.len()),
        None => String::from(", no SMT siblings"),
    };
    for (what, list) in [
        ("isolated", &cores.isolated),
        ("without tick", &cores.tickless),
    ] {
        if !list.is_empty() {
            text += &format!(", {what}: {}", numbers(list));
        }
    }
    if let Some(quota) = cores.quota {
        text += &format!(", quota {quota:.1}");
    }
    if let Some([one, five, fifteen]) = cores.load {
        text += &format!(", load {one:.2} {five:.2} {fifteen:.2}");
    }
    if let Some(percent) = cores.pressure_percent {
        text += &format!(", waited for {percent:.0} % of 10 s");
    }
    text
}

/// Runs of numbers: `2-5,8`.
fn numbers(list: &[usize]) -> String {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for number in list {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == *number => *last = *number,
            _ => runs.push((*number, *number)),
        }
    }
    let runs = runs.into_iter().map(|(first, last)| {
        if first == last {
            first.to_string()
        } else {
            format!("{first}-{last}")
        }
    });
    runs.collect::<Vec<_>>().join(",")
}

fn pages(pages: &HugePages) -> String {
    let mut text = format!(
        "{} of {} free in {}",
        pages.free,
        pages.total,
        size(pages.page_bytes)
    );
    if pages.numa_nodes.len() > 1 {
        let nodes = pages.numa_nodes.iter();
        let nodes: Vec<String> = nodes
            .map(|(node, of)| format!("node {node}: {} of {}", of.free, of.total))
            .collect();
        text += &format!(" ({})", nodes.join(", "));
    }
    text
}

fn capabilities(facts: &Facts) -> String {
    const OURS: [&str; 6] = [
        "net_admin",
        "net_raw",
        "bpf",
        "ipc_lock",
        "sys_admin",
        "sys_nice",
    ];
    let have: Vec<&str> = OURS
        .into_iter()
        .filter(|name| facts.has(name) == Some(true))
        .collect();
    match (&facts.process.capabilities, have.is_empty()) {
        (None, _) => String::from("?"),
        (Some(_), true) => format!("none of {}", OURS.join(" ")),
        (Some(all), false) => format!("{} ({} in all)", have.join(" "), all.len()),
    }
}

fn access(facts: &Facts) -> String {
    let word = |probe: &Probe| match probe {
        Probe::Works => String::from("yes"),
        Probe::Refused(why) => format!("NO ({why})"),
        Probe::NotTried => String::from("not tried"),
    };
    let access = &facts.access;
    let tun = match (access.tun, &access.tun_open) {
        (false, _) => String::from("not there"),
        (true, Probe::NotTried) => String::from("there"),
        (true, probe) => word(probe),
    };
    format!(
        "/dev/net/tun {tun}, AF_XDP {}, packet socket {}, io_uring {}",
        word(&access.xdp_socket),
        word(&access.packet_socket),
        word(&access.io_uring)
    )
}

fn libraries(facts: &Facts) -> String {
    let found = &facts.libraries;
    let mut parts = Vec::new();
    match &found.libdpdk {
        Some(_) => parts.push(format!(
            "libdpdk {} ({} network drivers)",
            found
                .libdpdk_version
                .as_deref()
                .unwrap_or("of unknown version"),
            found.dpdk_drivers.len()
        )),
        None => parts.push(String::from("no libdpdk")),
    }
    match &found.libibverbs {
        Some(_) => parts.push(format!(
            "libibverbs (providers: {})",
            found.verbs_providers.join(" ")
        )),
        None => parts.push(String::from("no libibverbs")),
    }
    parts.join(", ")
}

fn or_dash<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| String::from("-"), |value| value.to_string())
}

fn interfaces(facts: &Facts) -> String {
    if facts.interfaces.is_empty() {
        return String::from("no network interfaces\n");
    }
    let mut table = Table::headed(&[
        "interface",
        "driver",
        "link",
        "Mb/s",
        "MTU",
        "NUMA",
        "queues",
        "PCI",
    ]);
    for it in &facts.interfaces {
        let link = match (it.up, it.carrier) {
            (false, _) => "down",
            (true, Some(false)) => "no carrier",
            (true, _) => "up",
        };
        let link = if it.default_route {
            format!("{link}, default route")
        } else {
            link.to_owned()
        };
        table.row(&[
            it.name.clone(),
            or_dash(it.driver.as_ref()),
            link,
            or_dash(it.speed_mbps),
            or_dash(it.mtu_bytes),
            or_dash(it.numa_node),
            format!("{}/{}", it.rx_queues, it.tx_queues),
            or_dash(it.pci_address.as_ref()),
        ]);
    }
    table.render()
}

fn rdma(facts: &Facts) -> String {
    if facts.rdma.is_empty() {
        return String::new();
    }
    let mut table = Table::headed(&[
        "RDMA device",
        "driver",
        "port",
        "state",
        "link",
        "rate",
        "NUMA",
        "GIDs",
    ]);
    for it in &facts.rdma {
        for port in &it.ports {
            let gids: Vec<String> = port
                .gids
                .iter()
                .map(|gid| format!("{} {}", gid.index, gid.kind.as_deref().unwrap_or("?")))
                .collect();
            table.row(&[
                it.name.clone(),
                or_dash(it.driver.as_ref()),
                port.port.to_string(),
                or_dash(port.state.as_ref()),
                or_dash(port.link_layer.as_ref()),
                or_dash(port.rate.as_ref()),
                or_dash(it.numa_node),
                if gids.is_empty() {
                    String::from("-")
                } else {
                    gids.join(", ")
                },
            ]);
        }
    }
    table.render()
}

fn pci(facts: &Facts) -> String {
    let known: Vec<_> = facts
        .pci
        .iter()
        .filter(|it| !it.profiles.is_empty())
        .collect();
    if known.is_empty() {
        return String::new();
    }
    let mut table = Table::headed(&[
        "PCI device",
        "id",
        "driver",
        "interfaces",
        "NUMA",
        "IOMMU group",
        "profiles",
    ]);
    for it in known {
        let interfaces = it.interfaces.join(" ");
        table.row(&[
            it.address.clone(),
            it.id.clone(),
            or_dash(it.driver.as_ref()),
            if interfaces.is_empty() {
                String::from("-")
            } else {
                interfaces
            },
            or_dash(it.numa_node),
            or_dash(it.iommu_group.as_ref()),
            it.profiles.join(" "),
        ]);
    }
    table.render()
}

fn nvme(facts: &Facts) -> String {
    if facts.nvme.is_empty() {
        return String::new();
    }
    let mut table = Table::headed(&[
        "NVMe",
        "model",
        "namespace",
        "size",
        "block",
        "volatile cache",
        "polled",
        "passthrough",
        "NUMA",
    ]);
    let word = |value: Option<bool>| match value {
        Some(true) => String::from("yes"),
        Some(false) => String::from("no"),
        None => String::from("?"),
    };
    for it in &facts.nvme {
        for space in &it.namespaces {
            table.row(&[
                it.name.clone(),
                or_dash(it.model.as_ref()),
                space.name.clone(),
                or_dash(space.bytes.map(size)),
                or_dash(space.lba_bytes),
                word(space.volatile_cache),
                word(space.polled),
                word(Some(space.passthrough)),
                or_dash(it.numa_node),
            ]);
        }
        if it.namespaces.is_empty() {
            let model = or_dash(it.model.as_ref());
            table.row(&[it.name.clone(), model, String::from("none")]);
        }
    }
    table.render()
}

const fn fits(fits: Fits) -> &'static str {
    match fits {
        Fits::Yes => "yes",
        Fits::Perhaps => "perhaps",
        Fits::No => "no",
    }
}

fn profiles(judgement: &Judgement) -> String {
    let mut table = Table::headed(&[
        "profile",
        "backend",
        "fits",
        "in this build",
        "run before",
        "what is missing",
    ]);
    for fit in &judgement.profiles {
        let missing = fit
            .checks
            .iter()
            .filter(|check| check.state == State::Missing);
        let missing: Vec<&str> = missing.map(|check| check.name).collect();
        let missing = missing.join(", ");
        table.row(&[
            fit.profile.as_str(),
            fit.backend,
            fits(fit.fits),
            match fit.build {
                "processes" => "yes",
                "threads" => "within a process",
                _ => "no",
            },
            if fit.status == "run" { "yes" } else { "no" },
            missing.as_str(),
        ]);
    }
    table.render()
}

/// What one profile needs: everything, or what is not there.
fn details(fit: &Fit, all: bool) -> String {
    let mut text = match fit.fits {
        Fits::Yes => format!("{} fits this machine:\n", fit.profile),
        Fits::Perhaps => format!("{} may fit this machine:\n", fit.profile),
        Fits::No => format!("{} does not fit this machine:\n", fit.profile),
    };
    let shown = fit
        .checks
        .iter()
        .filter(|check| all || check.state != State::Ok);
    text.extend(shown.map(line));
    text
}

/// One thing in a line, and its remedy in the next.
fn line(check: &Check) -> String {
    let mark = match check.state {
        State::Ok => "ok      ",
        State::Advice => "better  ",
        State::Unknown => "unknown ",
        State::Missing => "MISSING ",
    };
    let mut text = format!("  {mark} {}: {}\n", check.name, check.says);
    if let Some(fix) = &check.fix {
        text += &format!("           {fix}\n");
    }
    text
}

fn conclusion(judgement: &Judgement) -> String {
    if let Some(asked) = judgement
        .asked
        .as_deref()
        .and_then(|name| judgement.fit(name))
    {
        let name = &asked.profile;
        if asked.can_run {
            return format!("{name} can run here\n");
        }
        let other = match &judgement.recommended {
            Some(other) => format!("; what can is {other}"),
            None => String::new(),
        };
        let why = match (asked.fits, asked.build) {
            (Fits::No, _) => String::from("it does not fit this machine"),
            (_, "threads") => String::from("it joins the threads of one process, not processes"),
            _ => format!("its backend {} is not part of this build", asked.backend),
        };
        return format!("{name} cannot run here: {why}{other}\n");
    }
    match &judgement.recommended {
        Some(name) => format!("recommended: {name}: {}\n", judgement.reason),
        None => format!("nothing is recommended: {}\n", judgement.reason),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_of_numbers_are_short() {
        assert_eq!(numbers(&[]), "");
        assert_eq!(numbers(&[0]), "0");
        assert_eq!(numbers(&[0, 1, 2, 4, 6, 7]), "0-2,4,6-7");
    }
}
