//! KVM: whether there is one, what drives it, what it can do, and how fast guest code runs in it.

use std::fs::{self, OpenOptions};
use std::io;

use isolab_reports::model::Fact;
use kvm_ioctls::{Cap, Kvm};

use super::cpu::CpuInfo;
use super::finding::Findings;
use super::guest_speed::{self, INTERPRETED, Mode};
use super::read;

/// What there is to know about KVM here.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    /// The file `/dev/kvm`, opened as a monitor opens it.
    pub(crate) device: Device,
    /// Modules of KVM that this kernel has, built in or loaded: `/sys/module/kvm_*`.
    pub(crate) modules: Vec<String>,
    /// Modules that hold `kvm` in use: `/sys/module/kvm/holders`; empty where they are built in.
    pub(crate) holders: Vec<String>,
    /// Flags of the CPU, as `/proc/cpuinfo` lists them.
    pub(crate) flags: Vec<String>,
    /// Parameters of the driver and of KVM's core: `ept`, `npt`, `nested`, `nx_huge_pages`.
    pub(crate) parameters: Vec<(&'static str, String)>,
    /// Whether this is Windows' subsystem for Linux.
    pub(crate) wsl: bool,
    /// `KVM_GET_API_VERSION`.
    pub(crate) api: Option<i32>,
    /// Names of the capabilities asked about, and whether they are there.
    pub(crate) capabilities: Vec<(&'static str, bool)>,
    /// Measured speed of guest code, kernel mode and user mode; an error as its text.
    pub(crate) speed: Option<(Measured, Measured)>,
}

/// A speed, or why there is none.
type Measured = Result<f64, String>;

/// What opening `/dev/kvm` gave.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Device {
    /// It can be used.
    Usable,
    /// It is not there.
    #[default]
    Absent,
    /// It is there, and this user may not open it.
    Forbidden,
    /// It is there, and opening it fails in another way.
    Broken(String),
}

impl Seen {
    /// The module behind `/dev/kvm`; none where there is no KVM to use.
    pub(crate) fn driver(&self) -> Option<&str> {
        if self.device == Device::Usable { driver(&self.modules, &self.holders, &self.flags) } else { None }
    }

    /// Speed of guest kernel code, where it could be measured.
    pub(crate) fn kernel_speed(&self) -> Option<f64> {
        self.speed.as_ref().and_then(|(kernel, _)| kernel.as_ref().ok()).copied()
    }

    fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(known, _)| *known == name).map(|(_, value)| value.as_str())
    }
}

/// The capabilities that matter to this lab, each with what is lost where it is absent (KVM API, section 8).
const CAPABILITIES: [(Cap, &str); 8] = [
    (Cap::SplitIrqchip, "split irqchip"),
    (Cap::ImmediateExit, "immediate exit"),
    (Cap::SyncRegs, "sync regs"),
    (Cap::Irqfd, "irqfd"),
    (Cap::Ioeventfd, "ioeventfd"),
    (Cap::Xsave2, "xsave2"),
    (Cap::DirtyLogRing, "dirty ring"),
    (Cap::TscDeadlineTimer, "tsc deadline timer"),
];

/// Looks at this host's KVM, and measures it.
pub(crate) fn look(cpu: &CpuInfo, wsl: bool) -> Seen {
    let mut seen = Seen {
        device: open_device(),
        modules: folder("/sys/module").into_iter().filter(|name| DRIVERS.contains(&name.as_str())).collect(),
        holders: folder("/sys/module/kvm/holders"),
        flags: cpu.flags.clone(),
        wsl,
        ..Seen::default()
    };
    let driver = driver(&seen.modules, &seen.holders, &seen.flags).unwrap_or("kvm").to_owned();
    for (name, module) in [("ept", driver.as_str()), ("npt", &driver), ("nested", &driver), ("nx_huge_pages", "kvm")] {
        let value = read::text(format!("/sys/module/{module}/parameters/{name}"));
        seen.parameters.extend(value.map(|value| (name, value)));
    }
    if let Ok(kvm) = Kvm::new() {
        seen.api = Some(kvm.get_api_version());
        seen.capabilities = CAPABILITIES.map(|(cap, name)| (name, kvm.check_extension(cap))).to_vec();
        seen.speed = Some((measure(&kvm, Mode::Kernel), measure(&kvm, Mode::User)));
    }
    seen
}

/// What it means.
pub(crate) fn judge(seen: &Seen) -> Vec<Fact> {
    let mut findings = Findings::on("kvm");
    device(&mut findings, seen);
    if seen.device != Device::Usable {
        return findings.into_facts();
    }
    match seen.driver() {
        Some(name @ "kvm_pvm") => {
            findings.info("driver", format!("{name}: page tables and traps in software, no virtualization hardware"));
        }
        Some(name) => findings.ok("driver", name),
        None => findings.info("driver", "not shown: no kvm_* module in /sys/module"),
    }
    match seen.api {
        Some(12) | None => {}
        Some(other) => findings.warn("API version", other.to_string(), "12 is the only stable one; update the kernel"),
    }
    speed(&mut findings, seen);
    paging(&mut findings, seen);
    nesting(&mut findings, seen);
    huge_pages(&mut findings, seen);
    capabilities(&mut findings, seen);
    if seen.driver() == Some("kvm_pvm") {
        findings.info(
            "guest CPUID",
            "not enforced for guest user code, nor is XCR0: it tells a guest what to use, and is no wall",
        );
    }
    findings.into_facts()
}

fn device(findings: &mut Findings, seen: &Seen) {
    let microvms = "microVM subjects are left out";
    match &seen.device {
        Device::Usable => findings.ok("/dev/kvm", "can be opened"),
        Device::Absent => findings.missing("/dev/kvm", format!("not there; {microvms}"), how_to_get(seen)),
        Device::Forbidden => findings.missing(
            "/dev/kvm",
            format!("this user may not open it; {microvms}"),
            "run as root, or join its group: sudo usermod -aG kvm \"$USER\", then log in again",
        ),
        Device::Broken(error) => findings.missing(
            "/dev/kvm",
            format!("cannot be opened: {error}; {microvms}"),
            "load the driver that fits this CPU (modprobe kvm_intel or kvm_amd) and read what dmesg says of kvm",
        ),
    }
}

/// What gets a KVM onto a host that has none, by what stands in the way.
fn how_to_get(seen: &Seen) -> String {
    let has = |flag: &str| seen.flags.iter().any(|known| known == flag);
    if seen.wsl {
        return "set nestedVirtualization=true under [wsl2] in .wslconfig, then wsl --shutdown (Windows 11)".into();
    }
    match (has("vmx"), has("svm"), has("hypervisor")) {
        (true, _, _) => "sudo modprobe kvm_intel".into(),
        (_, true, _) => "sudo modprobe kvm_amd".into(),
        (_, _, true) => {
            "this host is a guest whose hypervisor shows it no vmx or svm: switch nested virtualization on there".into()
        }
        _ => "the CPU shows no vmx or svm: switch VT-x or AMD-V on in the firmware's settings".into(),
    }
}

/// From here up, guest code counts as native: measuring is within a few percent, and SMT siblings may share a core.
const NATIVE: f64 = 0.7;

fn speed(findings: &mut Findings, seen: &Seen) {
    let Some((kernel, user)) = &seen.speed else { return };
    for (name, measured, is_kernel) in [("guest kernel code", kernel, true), ("guest user code", user, false)] {
        match measured {
            Ok(speed) if *speed >= NATIVE => findings.ok(name, in_words(*speed)),
            Ok(speed) if is_kernel => findings.warn(
                name,
                in_words(*speed),
                "guests without a kernel run well; what boots one takes long: compare ratios on this host, not \
                 milliseconds with others",
            ),
            Ok(speed) => findings.warn(name, in_words(*speed), "computing guests suffer: no figure travels from here"),
            Err(error) => findings.warn(name, format!("could not be measured: {error}"), "see what dmesg says of kvm"),
        }
    }
}

fn in_words(speed: f64) -> String {
    let factor = if speed < 0.3 {
        format!("1/{:.0} of the host's speed", 1.0 / speed)
    } else {
        format!("{speed:.2} of the host's speed")
    };
    match speed {
        s if s >= NATIVE => format!("native: {factor}"),
        s if s > INTERPRETED => format!("slowed: {factor}"),
        _ => format!("interpreted: {factor}"),
    }
}

fn paging(findings: &mut Findings, seen: &Seen) {
    let (name, value) = match seen.driver() {
        Some("kvm_pvm") => {
            return findings.info("paging", "shadow page tables: the first touch of a guest page is dear");
        }
        Some("kvm_amd") => ("NPT", seen.parameter("npt")),
        _ => ("EPT", seen.parameter("ept")),
    };
    match value.and_then(read::switch) {
        Some(true) => findings.ok("paging", format!("nested in hardware ({name})")),
        Some(false) => findings.warn(
            "paging",
            format!("{name} is off: shadow page tables"),
            format!("reload the module with {}=1, where the CPU has it", name.to_lowercase()),
        ),
        None => {}
    }
}

fn nesting(findings: &mut Findings, seen: &Seen) {
    if seen.flags.iter().any(|flag| flag == "hypervisor") {
        findings.warn(
            "nesting",
            "this host is itself a guest: each exit of a microVM may take two",
            "run on bare metal for figures that others can repeat; ratios on this host hold",
        );
    } else {
        findings.ok("nesting", "none: KVM runs on the hardware");
    }
    match seen.parameter("nested").and_then(read::switch) {
        Some(true) => findings.info("guests as hosts", "yes: a guest may have a KVM of its own"),
        Some(false) => findings.info("guests as hosts", "no (parameter nested of the driver)"),
        None => {}
    }
}

fn huge_pages(findings: &mut Findings, seen: &Seen) {
    match seen.parameter("nx_huge_pages") {
        Some("Y" | "y" | "1" | "force") => findings.warn(
            "nx_huge_pages",
            "on: each new machine starts a kernel thread and moves it into its cgroup, which can take long",
            "boot with kvm.nx_huge_pages=never where the CPU is not affected (itlb_multihit)",
        ),
        Some(value) => findings.ok("nx_huge_pages", format!("off ({value})")),
        None => {}
    }
}

fn capabilities(findings: &mut Findings, seen: &Seen) {
    let named = |wanted: bool| {
        let names: Vec<_> = seen.capabilities.iter().filter(|(_, has)| *has == wanted).map(|(name, _)| *name).collect();
        names.join(", ")
    };
    findings.info("capabilities", named(true));
    let absent = named(false);
    if absent.contains("split irqchip") {
        findings.warn("capabilities lacking", absent, "a machine starts or closes slower; update the kernel");
    } else if !absent.is_empty() {
        findings.info("capabilities lacking", absent);
    }
}

/// The drivers that Linux has had for x86, in the order in which they are asked about.
const DRIVERS: [&str; 3] = ["kvm_intel", "kvm_amd", "kvm_pvm"];

/// Which driver serves `/dev/kvm`.
///
/// Whoever holds `kvm` in use does. Where the drivers are built in nobody holds it, and those that found no hardware are
/// listed all the same: then the one that fits the CPU's flags, and else the one that needs none.
fn driver<'a>(modules: &'a [String], holders: &'a [String], flags: &[String]) -> Option<&'a str> {
    let known = |names: &'a [String]| DRIVERS.into_iter().filter(move |driver| names.iter().any(|name| name == driver));
    let fits = |driver: &&str| match *driver {
        "kvm_intel" => flags.iter().any(|flag| flag == "vmx"),
        "kvm_amd" => flags.iter().any(|flag| flag == "svm"),
        _ => true,
    };
    known(holders).next().or_else(|| known(modules).find(fits))
}

fn open_device() -> Device {
    match OpenOptions::new().read(true).write(true).open("/dev/kvm") {
        Ok(_) => Device::Usable,
        Err(error) => match error.kind() {
            io::ErrorKind::NotFound => Device::Absent,
            io::ErrorKind::PermissionDenied => Device::Forbidden,
            _ => Device::Broken(error.to_string()),
        },
    }
}

fn measure(kvm: &Kvm, mode: Mode) -> Measured {
    guest_speed::measure(kvm, mode).map_err(|error| match std::error::Error::source(&error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    })
}

/// Names in a folder, sorted; none where it can't be read.
fn folder(path: &str) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(path)
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned()))
        .collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use isolab_reports::model::Status;

    use super::super::finding::tests::{assert_hints, fact};
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    fn intel_bare_metal() -> Seen {
        Seen {
            device: Device::Usable,
            modules: words("kvm_intel"),
            holders: words("kvm_intel"),
            flags: words("fpu vmx"),
            parameters: vec![("ept", "Y".into()), ("nested", "Y".into()), ("nx_huge_pages", "Y".into())],
            api: Some(12),
            capabilities: vec![("split irqchip", true), ("dirty ring", true)],
            speed: Some((Ok(0.998), Ok(1.004))),
            ..Seen::default()
        }
    }

    fn pvm_in_a_cloud() -> Seen {
        Seen {
            device: Device::Usable,
            modules: words("kvm_pvm"),
            flags: words("fpu hypervisor"),
            api: Some(12),
            capabilities: vec![("split irqchip", true), ("dirty ring", false)],
            speed: Some((Ok(0.0004), Ok(0.97))),
            ..Seen::default()
        }
    }

    #[test]
    fn bare_metal_is_native_and_told_of_its_huge_page_mitigation() {
        let facts = judge(&intel_bare_metal());
        assert_eq!(fact(&facts, "driver").value, "kvm_intel");
        assert_eq!(fact(&facts, "guest kernel code").value, "native: 1.00 of the host's speed");
        assert_eq!(fact(&facts, "paging").value, "nested in hardware (EPT)");
        assert_eq!(fact(&facts, "nesting").status, Status::Ok);
        assert_eq!(fact(&facts, "nx_huge_pages").status, Status::Warn);
        assert_hints(&facts);
    }

    #[test]
    fn interpreted_kernel_code_beside_native_user_code_is_told_apart() {
        let facts = judge(&pvm_in_a_cloud());
        assert_eq!(fact(&facts, "guest kernel code").value, "interpreted: 1/2500 of the host's speed");
        assert_eq!(fact(&facts, "guest kernel code").status, Status::Warn);
        assert_eq!(fact(&facts, "guest user code").status, Status::Ok);
        assert_eq!(fact(&facts, "nesting").status, Status::Warn);
        assert_eq!(fact(&facts, "capabilities lacking").value, "dirty ring");
        assert!(fact(&facts, "guest CPUID").value.starts_with("not enforced"));
        assert_hints(&facts);
    }

    #[test]
    fn built_in_drivers_without_hardware_are_not_taken_for_the_one_that_serves() {
        let all = words("kvm_amd kvm_intel kvm_pvm");
        assert_eq!(driver(&all, &[], &words("svm")), Some("kvm_amd"));
        assert_eq!(driver(&all, &[], &words("vmx")), Some("kvm_intel"));
        assert_eq!(driver(&all, &[], &words("fpu")), Some("kvm_pvm"));
        assert_eq!(driver(&all, &words("irqbypass kvm_pvm"), &words("vmx")), Some("kvm_pvm"));
        assert_eq!(driver(&[], &[], &words("vmx")), None);
    }

    #[test]
    fn without_kvm_the_hint_names_what_stands_in_the_way() {
        let hint = |flags: &str, wsl: bool| {
            let facts = judge(&Seen { flags: words(flags), wsl, ..Seen::default() });
            assert_eq!(facts.len(), 1);
            assert_eq!(facts[0].status, Status::Missing);
            facts[0].hint.clone().unwrap()
        };
        assert!(hint("vmx", false).contains("modprobe kvm_intel"));
        assert!(hint("svm hypervisor", false).contains("modprobe kvm_amd"));
        assert!(hint("hypervisor", false).contains("nested virtualization"));
        assert!(hint("hypervisor", true).contains(".wslconfig"));
        assert!(hint("", false).contains("firmware"));
    }

    #[test]
    fn a_kvm_that_this_user_may_not_open_is_no_kvm_and_the_group_is_named() {
        let seen = Seen { device: Device::Forbidden, ..intel_bare_metal() };
        assert_eq!(seen.driver(), None);
        assert!(judge(&seen)[0].hint.as_ref().unwrap().contains("usermod -aG kvm"));
    }

    #[test]
    fn a_measurement_that_failed_is_said_to_have_failed() {
        let seen =
            Seen { speed: Some((Err("the guest left its loop by Shutdown".into()), Ok(1.0))), ..intel_bare_metal() };
        assert_eq!(seen.kernel_speed(), None);
        assert!(fact(&judge(&seen), "guest kernel code").value.contains("Shutdown"));
    }
}
