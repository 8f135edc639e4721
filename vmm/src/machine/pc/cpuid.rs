//! What each processor of a machine says of itself.
//!
//! KVM says what the host's processor and KVM itself can do. That is one answer for all processors of a machine; but each
//! must say which one it is, and how many there are beside it. A kernel that is told nonsense here still runs, and
//! schedules, counts and waits by that nonsense.

use kvm_bindings::{CpuId, kvm_cpuid_entry2};

/// An index of the leaf matters (`KVM_CPUID_FLAG_SIGNIFCANT_INDEX`).
const INDEXED: u32 = 1;

/// Leaf 1, register C: a timer that goes off at a value of the time-stamp counter; the processor is a virtual one.
const TSC_DEADLINE: u32 = 1 << 24;
const HYPERVISOR: u32 = 1 << 31;
/// Leaf 1, register D: there is more than one processor in the package.
const SEVERAL: u32 = 1 << 28;
/// Leaf 6, register A: the local APIC's timer never stops.
const TIMER_ALWAYS_RUNS: u32 = 1 << 2;

/// One package of `cpus` cores, each of one thread.
#[derive(Debug, Clone, Copy)]
pub(super) struct Topology {
    /// How many.
    pub(super) cpus: u8,
    /// Whether KVM has the timer that goes off at a value of the time-stamp counter. It is no part of what KVM lists.
    pub(super) tsc_deadline: bool,
}

impl Topology {
    /// How many bits the number of a core takes.
    fn bits(self) -> u32 {
        u8::BITS - (self.cpus - 1).leading_zeros()
    }

    /// The answers of processor `id`, made from what KVM supports.
    pub(super) fn answers(self, supported: &CpuId, id: u8) -> CpuId {
        let mut entries: Vec<_> = supported
            .as_slice()
            .iter()
            // Two leaves tell the topology in levels: they are the host's, and are told anew below.
            .filter(|entry| !matches!(entry.function, 0xb | 0x1f))
            .map(|entry| self.answer(*entry, u32::from(id)))
            .collect();
        if entries.iter().any(|entry| entry.function == 0 && entry.eax >= 0xb) {
            entries.extend(self.levels(u32::from(id)));
        }
        // KVM tells of a third of what fits; should it ever tell of more than fits with ours, its own answer has to do.
        CpuId::from_entries(&entries).unwrap_or_else(|_| supported.clone())
    }

    fn answer(self, mut entry: kvm_cpuid_entry2, id: u32) -> kvm_cpuid_entry2 {
        let cores = 1_u32 << self.bits();
        match entry.function {
            1 => {
                entry.ebx = entry.ebx & 0xffff | cores << 16 | id << 24;
                entry.ecx |= HYPERVISOR | if self.tsc_deadline { TSC_DEADLINE } else { 0 };
                entry.edx = entry.edx & !SEVERAL | if self.cpus > 1 { SEVERAL } else { 0 };
            }
            // Caches, one a subleaf: bits 14 to 25 say how many share it, bits 26 to 31 (Intel) how many cores there are.
            4 | 0x8000_001d => {
                let sharing = if entry.eax >> 5 & 7 >= 3 { cores - 1 } else { 0 };
                entry.eax = entry.eax & 0x3fff | sharing << 14;
                if entry.function == 4 && entry.eax & 0x1f != 0 {
                    entry.eax |= (cores - 1).min(0x3f) << 26;
                }
            }
            6 => entry.eax |= TIMER_ALWAYS_RUNS,
            // AMD: how many cores, less one, and how many bits their number takes.
            0x8000_0008 => entry.ecx = u32::from(self.cpus - 1) | self.bits() << 12,
            // AMD: the number of this core, one thread on it, the first node.
            0x8000_001e => (entry.eax, entry.ebx, entry.ecx) = (id, id, 0),
            _ => {}
        }
        entry
    }

    /// Leaf 0xb: one thread a core, so many cores a package, and an end.
    fn levels(self, id: u32) -> [kvm_cpuid_entry2; 3] {
        let level = |index, eax, ebx, kind: u32| kvm_cpuid_entry2 {
            function: 0xb,
            index,
            flags: INDEXED,
            eax,
            ebx,
            ecx: index | kind << 8,
            edx: id,
            ..kvm_cpuid_entry2::default()
        };
        [level(0, 0, 1, 1), level(1, self.bits(), u32::from(self.cpus), 2), level(2, 0, 0, 0)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host() -> CpuId {
        let entry = |function, index, eax, ebx, ecx, edx| kvm_cpuid_entry2 {
            function,
            index,
            eax,
            ebx,
            ecx,
            edx,
            ..kvm_cpuid_entry2::default()
        };
        CpuId::from_entries(&[
            entry(0, 0, 0xd, 0, 0, 0),
            entry(1, 0, 0x1234, 0x5540_0800, 0x200_0000, 1),
            entry(4, 0, 0xffff_c121, 0, 0, 0),
            entry(4, 3, 0xffff_c163, 0, 0, 0),
            entry(0xb, 0, 9, 9, 9, 9),
            entry(0x1f, 0, 9, 9, 9, 9),
            entry(0x8000_0008, 0, 0x3030, 0, 0x703f, 0),
            entry(0x8000_001e, 0, 77, 0x101, 3, 0),
        ])
        .unwrap()
    }

    fn leaf(cpuid: &CpuId, function: u32, index: u32) -> kvm_cpuid_entry2 {
        crate::vcpu::leaf(cpuid.as_slice(), function, index)
    }

    #[test]
    fn each_processor_has_its_own_number_and_knows_how_many_there_are() {
        let topology = Topology { cpus: 3, tsc_deadline: true };
        for id in 0..3 {
            let all = topology.answers(&host(), id);
            let one = leaf(&all, 1, 0);
            assert_eq!((one.ebx >> 24, one.ebx >> 16 & 0xff, one.ebx & 0xffff), (id.into(), 4, 0x0800));
            assert_eq!(one.ecx & (HYPERVISOR | TSC_DEADLINE), HYPERVISOR | TSC_DEADLINE);
            assert_ne!(one.edx & SEVERAL, 0);
            let cores = leaf(&all, 0xb, 1);
            assert_eq!((cores.eax, cores.ebx, cores.ecx, cores.edx), (2, 3, 0x201, id.into()));
            assert_eq!(leaf(&all, 0x1f, 0).eax, 0);
            assert_eq!(leaf(&all, 0x8000_0008, 0).ecx, 2 | 2 << 12);
            assert_eq!((leaf(&all, 0x8000_001e, 0).eax, leaf(&all, 0x8000_001e, 0).ebx), (id.into(), id.into()));
            assert_eq!(leaf(&all, 4, 0).eax >> 14 & 0xfff, 0, "a core's own cache");
            assert_eq!(leaf(&all, 4, 3).eax >> 14 & 0xfff, 3, "the package's");
        }
    }

    #[test]
    fn one_processor_is_alone() {
        let all = Topology { cpus: 1, tsc_deadline: false }.answers(&host(), 0);
        assert_eq!((leaf(&all, 1, 0).edx & SEVERAL, leaf(&all, 1, 0).ecx & TSC_DEADLINE), (0, 0));
        assert_eq!((leaf(&all, 0xb, 1).eax, leaf(&all, 0xb, 1).ebx), (0, 1));
        assert_eq!(leaf(&all, 4, 3).eax >> 14, 0);
    }

    #[test]
    fn many_processors_have_room_for_their_numbers() {
        for cpus in [2, 4, 5, super::super::MOST_CPUS] {
            let topology = Topology { cpus, tsc_deadline: true };
            assert!(1 << topology.bits() >= u32::from(cpus), "{cpus}");
            assert!(1 << topology.bits() < 2 * u32::from(cpus), "{cpus}");
        }
    }
}
