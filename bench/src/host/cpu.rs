//! The CPU: model, cores, threads, and what makes its speed change while one measures.

use std::collections::BTreeSet;

use isolab_reports::model::Fact;

use super::finding::Findings;
use super::read;

/// What `/proc/cpuinfo` says, of the first CPU where they do not differ.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct CpuInfo {
    /// Model name.
    pub(crate) model: String,
    /// Revision of its microcode.
    pub(crate) microcode: Option<String>,
    /// Feature flags.
    pub(crate) flags: Vec<String>,
    /// CPUs that are online: hardware threads.
    pub(crate) threads: usize,
    /// Cores that these are threads of.
    pub(crate) cores: usize,
}

impl CpuInfo {
    /// Reads this host's.
    pub(crate) fn read() -> Self {
        Self::parse(&read::text("/proc/cpuinfo").unwrap_or_default())
    }

    /// Takes `/proc/cpuinfo` apart: a paragraph a CPU, `name : value` a line.
    pub(crate) fn parse(text: &str) -> Self {
        let processors: Vec<&str> =
            text.split("\n\n").filter(|paragraph| field(paragraph, "processor").is_some()).collect();
        let first = processors.first().copied().unwrap_or_default();
        let cores: BTreeSet<_> = processors
            .iter()
            .map(|one| (field(one, "physical id"), field(one, "core id").or_else(|| field(one, "processor"))))
            .collect();
        Self {
            model: field(first, "model name").unwrap_or("unknown").to_owned(),
            microcode: field(first, "microcode").map(str::to_owned),
            flags: field(first, "flags").unwrap_or_default().split_whitespace().map(str::to_owned).collect(),
            threads: processors.len(),
            cores: cores.len(),
        }
    }
}

fn field<'a>(paragraph: &'a str, name: &str) -> Option<&'a str> {
    paragraph
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(key, _)| key.trim() == name)
        .map(|(_, value)| value.trim())
}

/// What `/sys` adds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    /// `smt/active`.
    pub(crate) smt: Option<String>,
    /// Governor of the first CPU's frequency.
    pub(crate) governor: Option<String>,
    /// Whether the clock may rise above its nominal rate.
    pub(crate) turbo: Option<bool>,
    /// What the kernel reads the time from.
    pub(crate) clocksource: Option<String>,
}

impl Seen {
    /// Reads this host's.
    pub(crate) fn read() -> Self {
        const CPU: &str = "/sys/devices/system/cpu";
        let switch = |path: &str| read::text(format!("{CPU}/{path}")).and_then(|text| read::switch(&text));
        Self {
            smt: read::text(format!("{CPU}/smt/active")),
            governor: read::text(format!("{CPU}/cpu0/cpufreq/scaling_governor")),
            turbo: switch("intel_pstate/no_turbo").map(|off| !off).or_else(|| switch("cpufreq/boost")),
            clocksource: read::text("/sys/devices/system/clocksource/clocksource0/current_clocksource"),
        }
    }
}

/// What it means.
pub(crate) fn judge(cpu: &CpuInfo, seen: &Seen, usable: u32) -> Vec<Fact> {
    let mut findings = Findings::on("cpu");
    findings.info("model", cpu.model.clone());
    let cores = if cpu.cores == 1 { "core" } else { "cores" };
    findings.info("threads", format!("{} on {} {cores}; {usable} for this process", cpu.threads, cpu.cores));
    match seen.smt.as_deref().and_then(read::switch) {
        Some(true) => findings.warn(
            "SMT",
            "on: two threads share a core, and slow each other down",
            "steadier figures with it off: echo off | sudo tee /sys/devices/system/cpu/smt/control",
        ),
        Some(false) => findings.ok("SMT", "off, or hidden by a hypervisor"),
        None => {}
    }
    match seen.governor.as_deref() {
        Some("performance") => findings.ok("governor", "performance"),
        Some(other) => findings.warn(
            "governor",
            format!("{other}: a start of a millisecond ends before the clock has risen"),
            "sudo cpupower frequency-set -g performance (package linux-cpupower)",
        ),
        None => findings.info("governor", "none shown: firmware or a hypervisor sets the clock"),
    }
    match seen.turbo {
        Some(true) => findings.info("turbo", "on: the clock depends on heat and on the other cores"),
        Some(false) => findings.ok("turbo", "off"),
        None => {}
    }
    clocksource(&mut findings, seen.clocksource.as_deref());
    if let Some(microcode) = &cpu.microcode {
        findings.info("microcode", microcode.clone());
    }
    findings.into_facts()
}

/// Sources that the vDSO reads without entering the kernel; with any other, reading the clock is itself a system call.
const FAST_CLOCKS: [&str; 3] = ["tsc", "kvm-clock", "hyperv_clocksource_tsc_page"];

fn clocksource(findings: &mut Findings, name: Option<&str>) {
    match name {
        Some(name) if FAST_CLOCKS.contains(&name) => findings.ok("clock source", name),
        Some(name) => findings.warn(
            "clock source",
            format!("{name}: each reading of the clock enters the kernel"),
            "read in dmesg why the kernel gave the TSC up; on sound hardware boot with tsc=reliable",
        ),
        None => {}
    }
}

/// CPUs that this process may run on (`sched_getaffinity(2)`).
pub(crate) fn usable() -> u32 {
    let ours = nix::sched::sched_getaffinity(nix::unistd::Pid::from_raw(0));
    let count =
        ours.map(|set| (0..nix::sched::CpuSet::count()).filter(|cpu| set.is_set(*cpu).unwrap_or(false)).count());
    count.map_or(1, |count| count.max(1) as u32)
}

#[cfg(test)]
mod tests {
    use isolab_reports::model::Status;

    use super::super::finding::tests::{assert_hints, fact};
    use super::*;

    const LAPTOP: &str = "processor\t: 0\nmodel name\t: Intel(R) Core(TM) i7-8650U CPU @ 1.90GHz\nmicrocode\t: 0xf6\n\
        physical id\t: 0\ncore id\t\t: 0\nflags\t\t: fpu vme vmx ept\n\n\
        processor\t: 1\nmodel name\t: Intel(R) Core(TM) i7-8650U CPU @ 1.90GHz\nphysical id\t: 0\ncore id\t\t: 0\n\n\
        processor\t: 2\nphysical id\t: 0\ncore id\t\t: 1\n\nprocessor\t: 3\nphysical id\t: 0\ncore id\t\t: 1\n\n";

    #[test]
    fn threads_of_one_core_are_counted_as_one_core() {
        let cpu = CpuInfo::parse(LAPTOP);
        assert_eq!((cpu.threads, cpu.cores), (4, 2));
        assert_eq!(cpu.model, "Intel(R) Core(TM) i7-8650U CPU @ 1.90GHz");
        assert_eq!(cpu.microcode.as_deref(), Some("0xf6"));
        assert_eq!(cpu.flags, ["fpu", "vme", "vmx", "ept"]);
    }

    #[test]
    fn a_cpuinfo_without_cores_or_of_another_make_is_survived() {
        let cpu = CpuInfo::parse("processor : 0\n\nprocessor : 1\n\nHardware : something\n");
        assert_eq!((cpu.threads, cpu.cores, cpu.model.as_str()), (2, 2, "unknown"));
        assert_eq!(CpuInfo::parse("").threads, 0);
    }

    #[test]
    fn a_laptop_as_it_comes_is_told_what_moves_its_clock() {
        let seen = Seen {
            smt: Some("1".into()),
            governor: Some("powersave".into()),
            turbo: Some(true),
            clocksource: Some("hpet".into()),
        };
        let facts = judge(&CpuInfo::parse(LAPTOP), &seen, 4);
        for name in ["SMT", "governor", "clock source"] {
            assert_eq!(fact(&facts, name).status, Status::Warn, "{name}");
        }
        assert_hints(&facts);
    }

    #[test]
    fn a_prepared_server_has_nothing_to_mend() {
        let seen = Seen {
            smt: Some("0".into()),
            governor: Some("performance".into()),
            turbo: Some(false),
            clocksource: Some("tsc".into()),
        };
        assert!(judge(&CpuInfo::parse(LAPTOP), &seen, 4).iter().all(|fact| fact.hint.is_none()));
    }

    #[test]
    fn this_process_may_use_a_cpu() {
        assert!(usable() >= 1);
    }
}
