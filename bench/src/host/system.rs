//! The system: kernel, distribution, what runs beneath it, and as whom the lab runs.

use core::arch::x86_64::__cpuid;

use isolab_reports::model::Fact;
use nix::sys::utsname::uname;

use super::finding::Findings;
use super::read;

/// What there is to know about the system.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    /// Kernel release.
    pub(crate) kernel: String,
    /// The distribution's name for itself.
    pub(crate) distribution: Option<String>,
    /// Twelve bytes by which a hypervisor names itself (CPUID leaf `4000_0000h`); none on bare metal.
    pub(crate) signature: Option<String>,
    /// The machine's product name, as its firmware tells it.
    pub(crate) product: Option<String>,
    /// The kernel's command line.
    pub(crate) parameters: String,
    /// Effective user.
    pub(crate) user: u32,
    /// Effective capabilities, a bit each (capabilities(7)).
    pub(crate) capabilities: u64,
}

impl Seen {
    /// Reads this host's.
    pub(crate) fn read(has_hypervisor: bool) -> Self {
        let status = read::text("/proc/self/status").unwrap_or_default();
        Self {
            kernel: uname().map(|name| name.release().to_string_lossy().into_owned()).unwrap_or_default(),
            distribution: read::text("/etc/os-release").and_then(|text| pretty_name(&text)),
            signature: has_hypervisor.then(|| signature(__cpuid(0x4000_0000))),
            product: read::text("/sys/class/dmi/id/product_name"),
            parameters: read::text("/proc/cmdline").unwrap_or_default(),
            user: nix::unistd::geteuid().as_raw(),
            capabilities: capabilities(&status),
        }
    }

    /// The hypervisor beneath, in words; none on bare metal.
    pub(crate) fn hypervisor(&self) -> Option<String> {
        let name = match self.signature.as_deref()? {
            _ if self.is_wsl() => "Hyper-V (WSL 2)",
            "KVMKVMKVM" => "KVM",
            "TCGTCGTCGTCG" => "QEMU's emulation (TCG)",
            "Microsoft Hv" => "Hyper-V",
            "VMwareVMware" => "VMware",
            "XenVMMXenVMM" => "Xen",
            "VBoxVBoxVBox" => "VirtualBox",
            "bhyve bhyve " => "bhyve",
            other if other.trim().is_empty() => "unnamed",
            other => other,
        };
        Some(match &self.product {
            Some(product) if !product.is_empty() => format!("{name}, machine {product}"),
            _ => name.to_owned(),
        })
    }

    /// Whether every instruction here is emulated: only ratios of times mean anything then.
    pub(crate) fn is_emulated(&self) -> bool {
        self.signature.as_deref() == Some("TCGTCGTCGTCG")
    }

    /// Whether this is Windows' subsystem for Linux.
    pub(crate) fn is_wsl(&self) -> bool {
        self.kernel.to_ascii_lowercase().contains("microsoft")
    }
}

/// What it means.
pub(crate) fn judge(seen: &Seen) -> Vec<Fact> {
    let mut findings = Findings::on("system");
    findings.info("kernel", format!("Linux {}", seen.kernel));
    if let Some(distribution) = &seen.distribution {
        findings.info("distribution", distribution.clone());
    }
    match seen.hypervisor() {
        Some(name) if seen.is_emulated() => findings.warn(
            "hypervisor",
            name,
            "every instruction is emulated here: only ratios within one run mean anything",
        ),
        Some(name) => findings.info("hypervisor", name),
        None => findings.ok("hypervisor", "none: bare metal"),
    }
    let parameters = telling(&seen.parameters);
    findings.info(
        "kernel parameters",
        if parameters.is_empty() { "none that changes a figure".into() } else { parameters },
    );
    user(&mut findings, seen);
    findings.into_facts()
}

/// What the lab's container engine needs of root, by capability number (capabilities(7)).
const WANTED: [(u8, &str); 5] =
    [(6, "CAP_SETGID"), (7, "CAP_SETUID"), (12, "CAP_NET_ADMIN"), (18, "CAP_SYS_CHROOT"), (21, "CAP_SYS_ADMIN")];

fn user(findings: &mut Findings, seen: &Seen) {
    if seen.user != 0 {
        return findings.info("user", format!("{}: containers are rootless, limits depend on delegation", seen.user));
    }
    let lacking: Vec<_> =
        WANTED.iter().filter(|(bit, _)| seen.capabilities >> bit & 1 == 0).map(|(_, name)| *name).collect();
    if lacking.is_empty() {
        findings.ok("user", "root");
    } else {
        findings.warn(
            "user",
            format!("root without {}", lacking.join(", ")),
            "leave the container or sandbox that holds them back, or run as an ordinary user: rootless",
        );
    }
}

/// Kernel parameters by which a figure of this lab can change; the rest of the command line, which may name disks
/// and hosts, is nobody's business.
fn telling(parameters: &str) -> String {
    const NAMES: [&str; 30] = [
        "amd_pstate",
        "apparmor",
        "audit",
        "cgroup_disable",
        "cgroup_enable",
        "cgroup_favordynmods",
        "cgroup_no_v1",
        "clocksource",
        "hugepages",
        "hugepagesz",
        "idle",
        "intel_idle.max_cstate",
        "intel_pstate",
        "irqaffinity",
        "isolcpus",
        "maxcpus",
        "mem",
        "mitigations",
        "nested_pvm",
        "nohz",
        "nohz_full",
        "nosmt",
        "preempt",
        "processor.max_cstate",
        "psi",
        "rcu_nocbs",
        "selinux",
        "swapaccount",
        "transparent_hugepage",
        "tsc",
    ];
    const BEGINNINGS: [&str; 9] =
        ["kvm", "rcupdate.", "rcutree.", "spec", "retbleed", "l1tf", "mds", "systemd.unified_cgroup", "lsm"];
    let tells = |parameter: &&str| {
        let name = parameter.split('=').next().unwrap_or_default();
        NAMES.contains(&name) || BEGINNINGS.iter().any(|beginning| name.starts_with(beginning))
    };
    // What follows `--` is for the first process, not for the kernel.
    let ours = parameters.split_whitespace().take_while(|word| *word != "--");
    ours.filter(tells).collect::<Vec<_>>().join(" ")
}

fn signature(leaf: core::arch::x86_64::CpuidResult) -> String {
    let bytes: Vec<u8> = [leaf.ebx, leaf.ecx, leaf.edx].into_iter().flat_map(u32::to_le_bytes).collect();
    String::from_utf8_lossy(&bytes).trim_end_matches('\0').to_owned()
}

fn pretty_name(os_release: &str) -> Option<String> {
    let value = os_release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="))?;
    Some(value.trim_matches('"').to_owned())
}

fn capabilities(status: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    line.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use isolab_reports::model::Status;

    use super::super::finding::tests::{assert_hints, fact};
    use super::*;

    #[test]
    fn hypervisors_are_told_by_their_signature() {
        let named = |signature: &str, kernel: &str| {
            Seen { signature: Some(signature.into()), kernel: kernel.into(), ..Seen::default() }.hypervisor().unwrap()
        };
        assert_eq!(named("KVMKVMKVM", "6.1.0"), "KVM");
        assert_eq!(named("Microsoft Hv", "5.15.167.4-microsoft-standard-WSL2"), "Hyper-V (WSL 2)");
        assert_eq!(named("Microsoft Hv", "6.8.0-azure"), "Hyper-V");
        assert_eq!(named("NewVMMNewVMM", "6.1.0"), "NewVMMNewVMM");
        assert_eq!(Seen::default().hypervisor(), None);
    }

    #[test]
    fn a_signature_is_three_registers_of_text() {
        let leaf = core::arch::x86_64::CpuidResult { eax: 0, ebx: 0x4b4d_564b, ecx: 0x564b_4d56, edx: 0x4d };
        assert_eq!(signature(leaf), "KVMKVMKVM");
    }

    #[test]
    fn emulation_is_told_and_warned_of() {
        let seen = Seen {
            signature: Some("TCGTCGTCGTCG".into()),
            product: Some("Standard PC (Q35)".into()),
            ..Seen::default()
        };
        assert!(seen.is_emulated());
        let facts = judge(&seen);
        assert_eq!(fact(&facts, "hypervisor").status, Status::Warn);
        assert_eq!(fact(&facts, "hypervisor").value, "QEMU's emulation (TCG), machine Standard PC (Q35)");
        assert_hints(&facts);
    }

    #[test]
    fn of_the_command_line_only_what_changes_a_figure_is_told() {
        let line = "BOOT_IMAGE=/vmlinuz root=UUID=1-2 ro mitigations=off kvm.nx_huge_pages=never psi=1 -- --addr mem=4";
        assert_eq!(telling(line), "mitigations=off kvm.nx_huge_pages=never psi=1");
        assert_eq!(telling(""), "");
    }

    #[test]
    fn root_without_its_capabilities_is_told_which_it_lacks() {
        let facts = judge(&Seen {
            user: 0,
            capabilities: capabilities("Name:\tx\nCapEff:\t000001ffffdfffff\n"),
            ..Seen::default()
        });
        assert_eq!(fact(&facts, "user").value, "root without CAP_SYS_ADMIN");
        let facts = judge(&Seen { user: 0, capabilities: u64::MAX, ..Seen::default() });
        assert_eq!(fact(&facts, "user").status, Status::Ok);
        let facts = judge(&Seen { user: 1000, ..Seen::default() });
        assert_eq!(fact(&facts, "user").status, Status::Info);
    }

    #[test]
    fn a_distribution_is_called_by_its_name() {
        assert_eq!(
            pretty_name("NAME=x\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"").as_deref(),
            Some("Debian GNU/Linux 12 (bookworm)")
        );
        assert_eq!(pretty_name(""), None);
    }
}
