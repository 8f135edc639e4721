//! The host: what it is, what it can do, how quiet it is, and what of the lab lies around on it.
//!
//! Each area is a file with the same two halves: a thin reader that asks the kernel (`look`, `Seen::read`), and a pure judge
//! that turns what was seen into facts with a status and a hint. The judges are tested with the texts of other hosts.

pub mod clean;
pub mod doctor;
mod group_cost;
pub mod guest_speed;
pub mod hybrid;
pub mod noise;
pub mod owner;
pub mod roots;

mod cgroup;
mod cpu;
mod finding;
mod kvm;
pub(crate) mod memory;
mod mitigations;
pub(crate) mod mounts;
mod namespaces;
pub(crate) mod read;
mod storage;
mod system;
pub(crate) mod tools;
mod trial;

use isolab_reports::model::Host;

use self::roots::Roots;

/// The areas of the record, in the order of its facts.
pub const AREAS: [&str; 11] =
    ["system", "cpu", "mitigations", "memory", "kvm", "cgroup", "namespaces", "storage", "noise", "peers", "tools"];

/// The environment record: everything that a figure of this host may depend on.
///
/// Takes about a second. It makes and removes a cgroup, namespaces and a small machine, so it is never called while
/// something is measured. Works as any user and without KVM; what can't be had is among the facts.
pub fn record() -> Host {
    let noise = noise::look(); // first, before this very function makes the host busy
    let root = nix::unistd::geteuid().is_root();
    let cpu = cpu::CpuInfo::read();
    let system = system::Seen::read(cpu.flags.iter().any(|flag| flag == "hypervisor"));
    let memory = memory::Seen::read();
    let kvm = kvm::look(&cpu, system.is_wsl());
    let table = mounts::table();
    let cgroup = cgroup::look(&table, root);
    let cpus = cpu::usable();
    let facts = [
        system::judge(&system),
        cpu::judge(&cpu, &cpu::Seen::read(), cpus),
        mitigations::judge(&mitigations::look()),
        memory::judge(&memory),
        kvm::judge(&kvm),
        cgroup::judge(&cgroup),
        namespaces::judge(&namespaces::look(root)),
        storage::judge(&storage::look(&table, &Roots::of_user())),
        noise,
        tools::look_for_peers(),
        tools::look_for_tools(),
    ];
    Host {
        cpu: cpu.model,
        cpus,
        memory_bytes: memory.total(),
        kernel: system.kernel.clone(),
        hypervisor: system.hypervisor(),
        kvm_driver: kvm.driver().map(str::to_owned),
        guest_kernel_speed: kvm.kernel_speed(),
        cgroup: cgroup.flavour().to_owned(),
        emulated: system.is_emulated(),
        facts: facts.into_iter().flatten().collect(),
    }
}
