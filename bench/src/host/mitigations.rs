//! Mitigations of the CPU's weaknesses: what a host pays at each entry to its kernel, and at each exit of a guest.
//!
//! Two hosts of one model differ here more than anywhere else, so the record names each.

use std::collections::BTreeMap;
use std::fs;

use isolab_reports::model::Fact;

use super::finding::Findings;
use super::read;

/// Each weakness with the kernel's word on it: `/sys/devices/system/cpu/vulnerabilities/*`.
pub(crate) fn look() -> BTreeMap<String, String> {
    let files = fs::read_dir("/sys/devices/system/cpu/vulnerabilities").into_iter().flatten().flatten();
    files.filter_map(|file| Some((file.file_name().to_string_lossy().into_owned(), read::text(file.path())?))).collect()
}

/// What it means: the weaknesses that this CPU has a fact each, the others in one.
pub(crate) fn judge(seen: &BTreeMap<String, String>) -> Vec<Fact> {
    let mut findings = Findings::on("mitigations");
    if seen.is_empty() {
        findings.info("weaknesses", "not shown by this kernel");
    }
    for (name, word) in seen.iter().filter(|(_, word)| *word != "Not affected") {
        if word.starts_with("Vulnerable") {
            findings.warn(
                name,
                word.clone(),
                "figures here do not pay for this mitigation; a host that has it on is slower",
            );
        } else {
            findings.info(name, word.clone());
        }
    }
    let unaffected: Vec<_> =
        seen.iter().filter(|(_, word)| *word == "Not affected").map(|(name, _)| name.as_str()).collect();
    if !unaffected.is_empty() {
        findings.ok("not affected", unaffected.join(", "));
    }
    findings.into_facts()
}

#[cfg(test)]
mod tests {
    use isolab_reports::model::Status;

    use super::super::finding::tests::{assert_hints, fact};
    use super::*;

    #[test]
    fn each_weakness_is_named_and_the_open_ones_are_told() {
        let seen = [
            ("meltdown", "Mitigation: PTI"),
            ("l1tf", "Not affected"),
            ("mds", "Not affected"),
            ("spec_store_bypass", "Vulnerable"),
            ("retbleed", "Unknown: Dependent on hypervisor status"),
        ];
        let facts = judge(&seen.map(|(name, word)| (name.to_owned(), word.to_owned())).into());
        assert_eq!(fact(&facts, "meltdown").value, "Mitigation: PTI");
        assert_eq!(fact(&facts, "spec_store_bypass").status, Status::Warn);
        assert_eq!(fact(&facts, "retbleed").status, Status::Info);
        assert_eq!(fact(&facts, "not affected").value, "l1tf, mds");
        assert_hints(&facts);
    }

    #[test]
    fn a_kernel_that_shows_none_is_said_to_show_none() {
        assert_eq!(judge(&BTreeMap::new()).len(), 1);
    }
}
