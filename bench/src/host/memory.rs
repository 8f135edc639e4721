//! Memory: how much there is, and the three features that change what an instance seems to cost.

use std::collections::BTreeMap;

use isolab_reports::model::Fact;

use super::finding::Findings;
use super::read::{self, size};

/// What there is to know about memory here.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    /// `/proc/meminfo`, in bytes.
    pub(crate) meminfo: BTreeMap<String, u64>,
    /// Transparent huge pages: `always`, `madvise` or `never`.
    pub(crate) thp: Option<String>,
    /// Whether KSM merges pages with the same content.
    pub(crate) ksm: Option<String>,
    /// `vm.overcommit_memory`.
    pub(crate) overcommit: Option<String>,
}

impl Seen {
    /// Reads this host's.
    pub(crate) fn read() -> Self {
        Self {
            meminfo: meminfo(),
            thp: read::text("/sys/kernel/mm/transparent_hugepage/enabled")
                .and_then(|text| read::chosen(&text).map(str::to_owned)),
            ksm: read::text("/sys/kernel/mm/ksm/run"),
            overcommit: read::text("/proc/sys/vm/overcommit_memory"),
        }
    }

    /// Memory in all, in bytes.
    pub(crate) fn total(&self) -> u64 {
        self.of("MemTotal")
    }

    fn of(&self, name: &str) -> u64 {
        self.meminfo.get(name).copied().unwrap_or_default()
    }
}

/// `/proc/meminfo` now, in bytes.
pub(crate) fn meminfo() -> BTreeMap<String, u64> {
    parse(&read::text("/proc/meminfo").unwrap_or_default())
}

/// The host's memory, in bytes.
pub(crate) fn total() -> u64 {
    meminfo().get("MemTotal").copied().unwrap_or_default()
}

/// `MemTotal:       24684092 kB`; counts without a unit (huge pages) stay counts.
fn parse(meminfo: &str) -> BTreeMap<String, u64> {
    let entry = |line: &str| {
        let (name, rest) = line.split_once(':')?;
        let mut words = rest.split_ascii_whitespace();
        let value: u64 = words.next()?.parse().ok()?;
        Some((name.to_owned(), if words.next() == Some("kB") { value.saturating_mul(1024) } else { value }))
    };
    meminfo.lines().filter_map(entry).collect()
}

/// The largest suite keeps some dozen machines of 128 MiB beside the report and the page cache.
const WANTED: u64 = 2 << 30;

/// What it means.
pub(crate) fn judge(seen: &Seen) -> Vec<Fact> {
    let mut findings = Findings::on("memory");
    findings.info("total", size(seen.total()));
    let available = seen.of("MemAvailable");
    if available < WANTED {
        findings.warn(
            "available",
            size(available),
            "below 2 GiB starts in parallel may swap or fail: end other programs",
        );
    } else {
        findings.ok("available", size(available));
    }
    swap(&mut findings, seen.of("SwapTotal"), seen.of("SwapTotal").saturating_sub(seen.of("SwapFree")));
    match seen.thp.as_deref() {
        Some("always") => findings.warn(
            "huge pages (THP)",
            "always: a touch of one page may cost 2 MiB, so resident sizes jump",
            "echo madvise | sudo tee /sys/kernel/mm/transparent_hugepage/enabled",
        ),
        Some(choice) => findings.ok("huge pages (THP)", choice),
        None => {}
    }
    match seen.ksm.as_deref() {
        Some("1") => findings.warn(
            "KSM",
            "on: equal pages of machines are merged behind one's back, at a cost in CPU time",
            "echo 0 | sudo tee /sys/kernel/mm/ksm/run, or say so beside every figure of density",
        ),
        Some(_) => findings.ok("KSM", "off"),
        None => {}
    }
    match seen.overcommit.as_deref() {
        Some("2") => findings.warn(
            "overcommit",
            "strict: guest memory counts in full before it is touched",
            "sudo sysctl vm.overcommit_memory=0, or give machines less memory",
        ),
        Some("1") => findings.info("overcommit", "always granted"),
        Some(_) => findings.ok("overcommit", "granted by estimate"),
        None => {}
    }
    let reserved = seen.of("HugePages_Total");
    if reserved > 0 {
        findings.info("hugetlb", format!("{reserved} pages of {} set aside", size(seen.of("Hugepagesize"))));
    }
    findings.into_facts()
}

fn swap(findings: &mut Findings, total: u64, used: u64) {
    match (total, used) {
        (0, _) => findings.ok("swap", "none"),
        (_, 0) => findings.ok("swap", format!("{}, unused", size(total))),
        _ => findings.warn(
            "swap",
            format!("{} of {} in use", size(used), size(total)),
            "what was swapped out is read back during a measurement: sudo swapoff -a, with memory to spare",
        ),
    }
}

#[cfg(test)]
mod tests {
    use isolab_reports::model::Status;

    use super::super::finding::tests::{assert_hints, fact};
    use super::*;

    #[test]
    fn meminfo_is_read_in_bytes_and_counts_stay_counts() {
        let memory = parse("MemTotal:       24684092 kB\nHugePages_Total:       3\nnonsense\nBad: x kB\n");
        assert_eq!(memory["MemTotal"], 24_684_092 * 1024);
        assert_eq!(memory["HugePages_Total"], 3);
        assert_eq!(memory.len(), 2);
    }

    #[test]
    fn a_small_desktop_is_told_what_bends_its_figures() {
        let meminfo = parse(
            "MemTotal: 4000000 kB\nMemAvailable: 900000 kB\nSwapTotal: 2000000 kB\nSwapFree: 1000000 kB\nHugePages_Total: 4\nHugepagesize: 2048 kB",
        );
        let seen = Seen { meminfo, thp: Some("always".into()), ksm: Some("1".into()), overcommit: Some("2".into()) };
        let facts = judge(&seen);
        for name in ["available", "swap", "huge pages (THP)", "KSM", "overcommit"] {
            assert_eq!(fact(&facts, name).status, Status::Warn, "{name}");
        }
        assert_eq!(fact(&facts, "hugetlb").value, "4 pages of 2.0 MiB set aside");
        assert_hints(&facts);
    }

    #[test]
    fn a_kernel_without_these_features_has_nothing_said_about_them() {
        let facts =
            judge(&Seen { meminfo: parse("MemTotal: 9000000 kB\nMemAvailable: 8000000 kB"), ..Seen::default() });
        assert_eq!(facts.iter().map(|fact| fact.name.as_str()).collect::<Vec<_>>(), ["total", "available", "swap"]);
    }
}
