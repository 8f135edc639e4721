//! Whether a processor can go on as another one.
//!
//! A guest asks once what its processor can do, and from then on uses it. On a host that lacks one of those things its next
//! use would be an undefined instruction, at any time and with any excuse; so the two are compared before anything is made.

use kvm_bindings::kvm_cpuid_entry2;

use super::raw::Raw;

/// A register of a CPUID leaf whose bits are features, and those of its bits that are none: they tell of the machine's
/// state (OSXSAVE, OSPKE), or of what KVM emulates on every host (x2APIC, the deadline timer, "a hypervisor is here"), or
/// of the machine's other processors.
struct Word {
    function: u32,
    index: u32,
    register: Register,
    not: u32,
}

#[derive(Clone, Copy)]
enum Register {
    Eax,
    Ebx,
    Ecx,
    Edx,
}

const WORDS: [Word; 9] = [
    Word { function: 1, index: 0, register: Register::Ecx, not: 1 << 21 | 1 << 24 | 1 << 27 | 1 << 31 },
    Word { function: 1, index: 0, register: Register::Edx, not: 1 << 28 },
    Word { function: 7, index: 0, register: Register::Ebx, not: 0 },
    Word { function: 7, index: 0, register: Register::Ecx, not: 1 << 4 },
    Word { function: 7, index: 0, register: Register::Edx, not: 0 },
    Word { function: 7, index: 1, register: Register::Eax, not: 0 },
    Word { function: 0xd, index: 0, register: Register::Eax, not: 0 },
    Word { function: 0x8000_0001, index: 0, register: Register::Ecx, not: 0 },
    Word { function: 0x8000_0001, index: 0, register: Register::Edx, not: 0 },
];

/// The features that people know by name, by leaf, register and bit (as in `/proc/cpuinfo`).
const NAMES: [(u32, char, u32, &str); 22] = [
    (1, 'c', 0, "sse3"),
    (1, 'c', 1, "pclmulqdq"),
    (1, 'c', 9, "ssse3"),
    (1, 'c', 12, "fma"),
    (1, 'c', 19, "sse4.1"),
    (1, 'c', 20, "sse4.2"),
    (1, 'c', 22, "movbe"),
    (1, 'c', 23, "popcnt"),
    (1, 'c', 25, "aes"),
    (1, 'c', 26, "xsave"),
    (1, 'c', 28, "avx"),
    (1, 'c', 30, "rdrand"),
    (7, 'b', 3, "bmi1"),
    (7, 'b', 5, "avx2"),
    (7, 'b', 8, "bmi2"),
    (7, 'b', 9, "erms"),
    (7, 'b', 16, "avx512f"),
    (7, 'b', 18, "rdseed"),
    (7, 'b', 29, "sha"),
    (7, 'c', 9, "vaes"),
    (0x8000_0001, 'c', 6, "sse4a"),
    (0x8000_0001, 'd', 27, "rdtscp"),
];

/// Why a processor of this host can't be the one that was saved.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum CpuError {
    /// Another maker.
    #[error("it was made on a processor of {saved}, and this host's is of {host}")]
    Vendor {
        /// The saved one's.
        saved: String,
        /// This host's.
        host: String,
    },
    /// It can less.
    #[error("it was made on a processor with {}, which this host lacks", .0.join(", "))]
    Lacks(Vec<String>),
    /// Its time runs otherwise.
    #[error("its time stamp counter runs at {saved} kHz, this host's at {host}, and KVM can't scale it here")]
    Tsc {
        /// The saved one's.
        saved: u32,
        /// This host's.
        host: u32,
    },
}

/// Compares what a saved processor was told or seen to be with what this host can give.
pub(crate) fn check(saved: &[Raw<kvm_cpuid_entry2>], host: &[kvm_cpuid_entry2]) -> Result<(), CpuError> {
    let saved: Vec<kvm_cpuid_entry2> = saved.iter().map(|entry| entry.0).collect();
    let (from, here) = (vendor(&saved), vendor(host));
    if from != here {
        return Err(CpuError::Vendor { saved: from, host: here });
    }
    let missing: Vec<String> = WORDS
        .iter()
        .flat_map(|word| {
            let lacks = word.of(&saved) & !word.of(host) & !word.not;
            (0..32).filter(move |bit| lacks >> bit & 1 == 1).map(|bit| word.name(bit))
        })
        .collect();
    if missing.is_empty() { Ok(()) } else { Err(CpuError::Lacks(missing)) }
}

/// Whether a counter that ran at `saved` kHz can go on at `host`: within 250 parts in a million, as far as two
/// calibrations of one counter lie apart.
pub(crate) fn check_tsc(saved: u32, host: u32) -> Result<(), CpuError> {
    let apart = u64::from(saved.abs_diff(host)) * 1_000_000;
    if saved == 0 || host == 0 || apart <= u64::from(saved) * 250 { Ok(()) } else { Err(CpuError::Tsc { saved, host }) }
}

impl Word {
    fn of(&self, entries: &[kvm_cpuid_entry2]) -> u32 {
        let leaf = crate::vcpu::leaf(entries, self.function, self.index);
        match self.register {
            Register::Eax => leaf.eax,
            Register::Ebx => leaf.ebx,
            Register::Ecx => leaf.ecx,
            Register::Edx => leaf.edx,
        }
    }

    fn name(&self, bit: u32) -> String {
        let letter = match self.register {
            Register::Eax => 'a',
            Register::Ebx => 'b',
            Register::Ecx => 'c',
            Register::Edx => 'd',
        };
        let known =
            NAMES.iter().find(|name| (name.0, name.1, name.2) == (self.function, letter, bit) && self.index == 0);
        known.map_or_else(
            || format!("CPUID {:#x}.{} e{letter}x bit {bit}", self.function, self.index),
            |(_, _, _, name)| (*name).to_owned(),
        )
    }
}

/// The twelve letters of leaf 0.
fn vendor(entries: &[kvm_cpuid_entry2]) -> String {
    let leaf = crate::vcpu::leaf(entries, 0, 0);
    String::from_utf8_lossy(&[leaf.ebx, leaf.edx, leaf.ecx].map(u32::to_le_bytes).concat()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn processor(vendor: &[u8; 12], features: &[(u32, char, u32)]) -> Vec<kvm_cpuid_entry2> {
        let word = |at: usize| u32::from_le_bytes(*vendor[at..].first_chunk().unwrap());
        let mut entries = vec![kvm_cpuid_entry2 { ebx: word(0), edx: word(4), ecx: word(8), ..Default::default() }];
        for (function, register, bit) in features {
            let mut entry = kvm_cpuid_entry2 { function: *function, ..Default::default() };
            match register {
                'b' => entry.ebx = 1 << bit,
                'c' => entry.ecx = 1 << bit,
                _ => entry.edx = 1 << bit,
            }
            entries.push(entry);
        }
        entries
    }

    fn saved(entries: &[kvm_cpuid_entry2]) -> Vec<Raw<kvm_cpuid_entry2>> {
        entries.iter().copied().map(Raw).collect()
    }

    #[test]
    fn a_host_that_can_the_same_or_more_will_do() {
        let less = processor(b"GenuineIntel", &[(1, 'c', 28)]);
        let more = processor(b"GenuineIntel", &[(1, 'c', 28), (7, 'b', 5)]);
        assert_eq!(check(&saved(&less), &less), Ok(()));
        assert_eq!(check(&saved(&less), &more), Ok(()));
        assert_eq!(check(&saved(&more), &less), Err(CpuError::Lacks(vec!["avx2".to_owned()])));
    }

    #[test]
    fn what_is_no_feature_is_not_missed() {
        let saved = saved(&processor(b"AuthenticAMD", &[(1, 'c', 27)]));
        assert_eq!(check(&saved, &processor(b"AuthenticAMD", &[])), Ok(()));
    }

    #[test]
    fn another_makers_processor_is_refused() {
        let saved = saved(&processor(b"AuthenticAMD", &[]));
        let error = check(&saved, &processor(b"GenuineIntel", &[])).unwrap_err().to_string();
        assert!(error.contains("AuthenticAMD") && error.contains("GenuineIntel"), "{error}");
    }

    #[test]
    fn a_feature_without_a_name_is_told_by_its_place() {
        let saved = saved(&processor(b"GenuineIntel", &[(7, 'd', 4)]));
        let error = check(&saved, &processor(b"GenuineIntel", &[])).unwrap_err().to_string();
        assert!(error.contains("CPUID 0x7.0 edx bit 4"), "{error}");
    }

    #[test]
    fn time_that_runs_otherwise_is_noticed() {
        assert_eq!(check_tsc(2_600_000, 2_600_500), Ok(()));
        assert_eq!(check_tsc(2_600_000, 0), Ok(()), "KVM does not say");
        assert!(check_tsc(2_600_000, 2_700_000).is_err());
    }
}
