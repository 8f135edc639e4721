//! What a machine is besides its memory: everything that the state file holds.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;

use kvm_bindings::{
    kvm_clock_data, kvm_cpuid_entry2, kvm_debugregs, kvm_lapic_state, kvm_mp_state, kvm_regs, kvm_sregs,
    kvm_vcpu_events, kvm_xcrs, kvm_xsave,
};
use serde::{Deserialize, Serialize};

use super::raw::Raw;
use crate::guest::GuestState;
use crate::memory::{Memory, PAGE, STRETCHES};
use crate::units::Mib;

/// A machine that stood still.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// 32 hexadecimal digits that no other snapshot has.
    pub id: String,
    /// When it was taken: nanoseconds since 1970.
    pub taken: u64,
    /// How many bytes of memory the machine has, which is also the length of the memory file.
    pub memory: u64,
    /// Its processors, in the order of their numbers.
    pub vcpus: Vec<VcpuState>,
    /// The clock that KVM shows to guests which know of it.
    pub clock: Raw<kvm_clock_data>,
    /// Its devices: each one's own state, by its name.
    pub devices: BTreeMap<String, serde_json::Value>,
    /// What runs inside, as far as the monitor serves it.
    pub guest: GuestState,
    /// What it stands on, where the memory file has only what changed since another snapshot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub below: Option<Below>,
}

/// The snapshot that one of changes stands on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Below {
    /// Its id.
    pub id: String,
    /// Its folder; seen from the one that stands on it, where that is in the same folder.
    pub folder: PathBuf,
    /// What the memory file has: first page and number of pages of each stretch, in ascending order.
    pub changed: Vec<(u64, u64)>,
}

impl Below {
    /// The stretches of the memory file, in bytes.
    pub(crate) fn ranges(&self) -> Vec<Range<u64>> {
        self.changed.iter().map(|(first, count)| first * PAGE..(first + count) * PAGE).collect()
    }

    /// The other way.
    pub(crate) fn pages(ranges: &[Range<u64>]) -> Vec<(u64, u64)> {
        ranges.iter().map(|range| (range.start / PAGE, (range.end - range.start) / PAGE)).collect()
    }

    /// Whether the stretches are in order and in a memory of so many bytes.
    fn check(&self, memory: u64) -> Result<(), Impossible> {
        let wrong = |why: &str| Err(Impossible::new("below.changed", why));
        if self.changed.len() > STRETCHES {
            return wrong("there are more stretches than are ever written");
        }
        let mut end = 0;
        for (first, count) in &self.changed {
            if *first < end || *count == 0 {
                return wrong("its stretches are in no order");
            }
            end = first.saturating_add(*count);
        }
        if end > memory / PAGE { wrong("a stretch is outside of the memory") } else { Ok(()) }
    }
}

/// One processor, in the order in which its parts are restored (see [`super::vcpu`]).
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VcpuState {
    /// How fast its time stamp counter runs, in kHz; 0 where KVM does not say.
    pub tsc_khz: u32,
    /// What the guest was told that the processor is.
    pub cpuid: Vec<Raw<kvm_cpuid_entry2>>,
    /// What the guest saw that it is: the same, but for a KVM that can't keep the host's own processor from it.
    pub seen: Vec<Raw<kvm_cpuid_entry2>>,
    /// Whether it runs, halts or waits to be started.
    pub mp_state: Raw<kvm_mp_state>,
    /// The general registers.
    pub regs: Raw<kvm_regs>,
    /// Segments, control registers, descriptor tables.
    pub sregs: Raw<kvm_sregs>,
    /// Which register sets are enabled.
    pub xcrs: Raw<kvm_xcrs>,
    /// The floating point and vector registers.
    pub xsave: Raw<Xsave>,
    /// Breakpoints.
    pub debugregs: Raw<kvm_debugregs>,
    /// Its part of the interrupt controller.
    pub lapic: Raw<kvm_lapic_state>,
    /// Model-specific registers: number and value, in the order in which they are set.
    pub msrs: Vec<(u32, u64)>,
    /// Exceptions and interrupts that are on their way.
    pub events: Raw<kvm_vcpu_events>,
}

/// The bytes of `kvm_xsave`: `KVM_GET_XSAVE` fills no more.
pub type Xsave = [u32; 1024];

/// As KVM wants it.
pub(super) fn xsave(region: &Xsave) -> kvm_xsave {
    kvm_xsave { region: *region, ..kvm_xsave::default() }
}

/// A field that can't be what it says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {why}")]
pub struct Impossible {
    /// Which field.
    pub field: &'static str,
    /// What is wrong with it.
    pub why: String,
}

impl Impossible {
    /// `field` is wrong, and why.
    pub fn new(field: &'static str, why: impl Into<String>) -> Self {
        Self { field, why: why.into() }
    }
}

impl State {
    /// The most processors that a machine may have.
    const VCPUS: usize = 64;
    /// The most entries of a processor's CPUID, and the most of its model-specific registers.
    const ENTRIES: usize = 256;
    const MSRS: usize = 1024;

    /// Whether a machine can be as this says, as far as that can be seen without making it.
    pub(super) fn check(&self) -> Result<(), Impossible> {
        if self.id.len() != 32 || super::raw::unhex(&self.id).is_none() {
            return Err(Impossible::new("id", "it is not of 32 hexadecimal digits"));
        }
        let (least, most) = (Memory::LEAST.bytes(), Memory::MOST.bytes());
        if !(least..=most).contains(&self.memory) || !self.memory.is_multiple_of(Mib(1).bytes()) {
            return Err(Impossible::new("memory", format!("a machine can't have {} bytes", self.memory)));
        }
        if self.vcpus.is_empty() || self.vcpus.len() > Self::VCPUS {
            return Err(Impossible::new("vcpus", format!("a machine can't have {} processors", self.vcpus.len())));
        }
        for vcpu in &self.vcpus {
            for (field, list) in [("vcpus.cpuid", &vcpu.cpuid), ("vcpus.seen", &vcpu.seen)] {
                if list.is_empty() || list.len() > Self::ENTRIES {
                    return Err(Impossible::new(field, format!("a processor can't have {} entries", list.len())));
                }
            }
            if vcpu.msrs.len() > Self::MSRS {
                return Err(Impossible::new("vcpus.msrs", format!("{} registers", vcpu.msrs.len())));
            }
        }
        self.below.as_ref().map_or(Ok(()), |below| below.check(self.memory))?;
        self.guest.check(self.memory)
    }
}
