//! How the kernel treats the process beside its limits: scheduler, I/O priority, memory policy, execution domain (OCI
//! runtime specification, config.md, "Linux Process"; config-linux.md, "Memory Policy", "Personality").
//!
//! All four belong to the process, are kept by fork(2) and execve(2), and need rights that are given up later.

use oci_spec::runtime::{
    IOPriorityClass, Linux, LinuxIOPriority, LinuxMemoryPolicy, LinuxPersonality, LinuxPersonalityDomain,
    LinuxSchedulerFlag, LinuxSchedulerPolicy, MemoryPolicyFlagType, MemoryPolicyModeType, Process, Scheduler,
};
use tracing::info_span;

use super::report::{At, Failure, Step};
use super::sys::scheduling::{
    NodeMask, SchedulerAttributes, set_io_priority, set_memory_policy, set_personality, set_scheduler,
};

/// What is asked for; nothing stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Treatment {
    scheduler: Option<SchedulerAttributes>,
    io_priority: Option<u16>,
    memory: Option<(i32, NodeMask)>,
    personality: Option<u32>,
}

/// The longest list of nodes makes sense up to here.
const NODES: u32 = 1024;

impl Treatment {
    /// Reads the wishes. Fails with the field and what is wrong with it.
    pub(crate) fn plan(process: &Process, linux: &Linux) -> Result<Self, (&'static str, String)> {
        Ok(Self {
            scheduler: process.scheduler().as_ref().map(scheduler),
            io_priority: process.io_priority().as_ref().map(io_priority).transpose()?,
            memory: linux.memory_policy().as_ref().map(memory_policy).transpose()?,
            personality: linux.personality().as_ref().map(personality).transpose()?,
        })
    }

    /// Applies it to the calling process. Before its capabilities go: most of it needs `CAP_SYS_NICE`.
    pub(crate) fn apply(&self) -> Result<(), Failure> {
        if *self == Self::default() {
            return Ok(());
        }
        let _span = info_span!(
            "process.treatment",
            call = "sched_setattr(2), ioprio_set(2), set_mempolicy(2)",
            why = "how often it gets a processor or a disk, and from where its memory comes, can be set while it has the right"
        )
        .entered();
        if let Some(attributes) = &self.scheduler {
            set_scheduler(attributes).at(Step::Scheduler)?;
        }
        if let Some(priority) = self.io_priority {
            set_io_priority(priority).at(Step::IoPriority)?;
        }
        if let Some((mode, nodes)) = &self.memory {
            set_memory_policy(*mode, nodes).at(Step::MemoryPolicy)?;
        }
        if let Some(domain) = self.personality {
            set_personality(domain).at(Step::Personality)?;
        }
        Ok(())
    }
}

/// The numbers are those of linux/sched.h and linux/sched/types.h.
fn scheduler(asked: &Scheduler) -> SchedulerAttributes {
    let policy = match asked.policy() {
        LinuxSchedulerPolicy::SchedOther => 0,
        LinuxSchedulerPolicy::SchedFifo => 1,
        LinuxSchedulerPolicy::SchedRr => 2,
        LinuxSchedulerPolicy::SchedBatch => 3,
        LinuxSchedulerPolicy::SchedIso => 4,
        LinuxSchedulerPolicy::SchedIdle => 5,
        LinuxSchedulerPolicy::SchedDeadline => 6,
    };
    let bit = |flag: &LinuxSchedulerFlag| match flag {
        LinuxSchedulerFlag::SchedResetOnFork => 0x01,
        LinuxSchedulerFlag::SchedFlagReclaim => 0x02,
        LinuxSchedulerFlag::SchedFlagDLOverrun => 0x04,
        LinuxSchedulerFlag::SchedFlagKeepPolicy => 0x08,
        LinuxSchedulerFlag::SchedFlagKeepParams => 0x10,
        LinuxSchedulerFlag::SchedFlagUtilClampMin => 0x20,
        LinuxSchedulerFlag::SchedFlagUtilClampMax => 0x40,
    };
    SchedulerAttributes {
        size: size_of::<SchedulerAttributes>() as u32,
        policy,
        flags: asked.flags().iter().flatten().map(bit).fold(0, |flags, bit| flags | bit),
        nice: asked.nice().unwrap_or(0),
        // A negative one becomes larger than any that exists, and the kernel refuses it.
        priority: asked.priority().unwrap_or(0) as u32,
        runtime: asked.runtime().unwrap_or(0),
        deadline: asked.deadline().unwrap_or(0),
        period: asked.period().unwrap_or(0),
        ..SchedulerAttributes::default()
    }
}

fn io_priority(asked: &LinuxIOPriority) -> Result<u16, (&'static str, String)> {
    let class: u16 = match asked.class() {
        IOPriorityClass::IoprioClassRt => 1,
        IOPriorityClass::IoprioClassBe => 2,
        IOPriorityClass::IoprioClassIdle => 3,
    };
    match u16::try_from(asked.priority()) {
        Ok(level @ 0..=7) => Ok(class << 13 | level),
        _ => Err(("process.ioPriority.priority", format!("{}, but only 0 to 7 exist", asked.priority()))),
    }
}

fn memory_policy(asked: &LinuxMemoryPolicy) -> Result<(i32, NodeMask), (&'static str, String)> {
    let mode = match asked.mode() {
        MemoryPolicyModeType::MpolDefault => 0,
        MemoryPolicyModeType::MpolPreferred => 1,
        MemoryPolicyModeType::MpolBind => 2,
        MemoryPolicyModeType::MpolInterleave => 3,
        MemoryPolicyModeType::MpolLocal => 4,
        MemoryPolicyModeType::MpolPreferredMany => 5,
        MemoryPolicyModeType::MpolWeightedInterleave => 6,
    };
    let bit = |flag: &MemoryPolicyFlagType| match flag {
        MemoryPolicyFlagType::MpolFNumaBalancing => libc::MPOL_F_NUMA_BALANCING,
        MemoryPolicyFlagType::MpolFRelativeNodes => libc::MPOL_F_RELATIVE_NODES,
        MemoryPolicyFlagType::MpolFStaticNodes => libc::MPOL_F_STATIC_NODES,
    };
    let flags = asked.flags().iter().flatten().map(bit).fold(0, |flags, bit| flags | bit);
    let text = asked.nodes().as_deref().unwrap_or_default();
    let nodes =
        nodes(text).ok_or_else(|| ("linux.memoryPolicy.nodes", format!("{text:?} is no list such as 0-3,7")))?;
    Ok((mode | flags, nodes))
}

/// A list of numbers and ranges, of nodes or of processors, as cpuset(7) describes it under "List format".
pub(crate) fn nodes(text: &str) -> Option<NodeMask> {
    let mut mask = NodeMask::default();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (first.parse::<u32>().ok()?, last.parse::<u32>().ok()?);
        if first > last || last >= NODES {
            return None;
        }
        for node in first..=last {
            *mask.get_mut((node / u64::BITS) as usize)? |= 1 << (node % u64::BITS);
        }
    }
    Some(mask)
}

fn personality(asked: &LinuxPersonality) -> Result<u32, (&'static str, String)> {
    if asked.flags().as_ref().is_some_and(|flags| !flags.is_empty()) {
        return Err(("linux.personality.flags", "the specification has none so far".to_owned()));
    }
    Ok(match asked.domain() {
        LinuxPersonalityDomain::PerLinux => 0,
        LinuxPersonalityDomain::PerLinux32 => 8,
    })
}

#[cfg(test)]
mod tests {
    use super::nodes;

    #[test]
    fn a_list_of_nodes_is_read_as_bits() {
        let first = |text: &str| nodes(text).map(|mask| mask[0]);
        assert_eq!(first("0"), Some(1));
        assert_eq!(first("0-2,5"), Some(0b10_0111));
        assert_eq!(first(""), Some(0));
        assert_eq!(nodes("64").map(|mask| mask[1]), Some(1));
        for wrong in ["x", "2-1", "0-", "1024", "-1", "0-99999999999"] {
            assert_eq!(nodes(wrong), None, "{wrong}");
        }
    }
}
