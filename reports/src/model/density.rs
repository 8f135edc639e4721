//! What many instances alive at once cost in memory: the part of `run.json` that the suite `density` writes.
//!
//! A *ladder* is one subject, climbed once: no instance, then 1, 2, 4 and so on, each having proved itself by its nonce. At each
//! *rung* the harness reads what the kernel says of the whole host and of the instances' processes. Nothing is computed here:
//! slopes and intervals follow from the rungs.

use serde::{Deserialize, Serialize};

use super::Cell;

/// Every ladder of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Density {
    /// Instances alive at once, at the most.
    pub most: u32,
    /// How often each subject's ladder was to be climbed.
    pub passes: u32,
    /// Wall-clock budget of the suite, in seconds.
    pub budget_s: u64,
    /// What each instance touched after READY, in bytes.
    pub touched_bytes: u64,
    /// Memory that had to stay available: a ladder ends before less is left.
    pub reserve_bytes: u64,
    /// Whether the kernel merged equal pages (KSM) while it was measured.
    pub ksm: bool,
    /// What was measured; ladders name cells by their place in this list.
    pub cells: Vec<Cell>,
    /// In the order in which they were climbed.
    pub ladders: Vec<Ladder>,
}

/// One subject, climbed once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ladder {
    /// Place of its cell in [`Density::cells`].
    pub cell: usize,
    /// Which time it is, from 0.
    pub pass: u32,
    /// From no instance upwards.
    pub rungs: Vec<Rung>,
    /// Why it ends where it does.
    pub ended: Ended,
    /// Why it ended before the most, in words.
    pub reason: Option<String>,
    /// Control groups that earlier ladders had removed and the kernel still had, with their memory, when this one began: what it puts back
    /// meanwhile makes instances seem lighter.
    #[serde(default)]
    pub dying_groups: u32,
}

/// Why a ladder ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ended {
    /// The most were alive, and each of them answered with its nonce.
    Complete,
    /// One more might have left the host without memory.
    Memory,
    /// The time was used up.
    Budget,
    /// The user asked for it.
    Interrupted,
    /// An instance was not ready, or didn't answer.
    Failed,
}

/// What was seen while so many were alive.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rung {
    /// Instances alive.
    pub alive: u32,
    /// From start to READY of each instance that was started since the rung below.
    pub starts_ns: Vec<u64>,
    /// Processes of all instances.
    pub processes: u32,
    /// Sum of their resident sets: counts a shared page once for each.
    pub rss_bytes: u64,
    /// Sum of their proportional sets: a page that n share counts for a n-th each.
    pub pss_bytes: u64,
    /// Sum of their unique sets: pages that nobody shares.
    pub uss_bytes: u64,
    /// `MemAvailable` of the host.
    pub available_bytes: u64,
    /// Memory of the kernel's own objects (`Slab`), those that `MemAvailable` counts as free among them.
    pub slab_bytes: u64,
    /// Page tables (`PageTables` and `SecPageTables`, where those of guests are).
    pub page_tables_bytes: u64,
    /// Kernel stacks of all threads.
    pub kernel_stacks_bytes: u64,
    /// What the kernel keeps for each CPU.
    pub percpu_bytes: u64,
    /// Anonymous memory of every other process on the host, the harness included.
    pub others_bytes: u64,
    /// What the instances' control groups are charged with; none where they have no group of their own.
    pub cgroup_bytes: Option<u64>,
    /// The kernel's part of that.
    pub cgroup_kernel_bytes: Option<u64>,
}

impl Rung {
    /// All that the kernel keeps for itself and can tell, on the whole host.
    pub fn kernel_bytes(&self) -> u64 {
        [self.slab_bytes, self.page_tables_bytes, self.kernel_stacks_bytes, self.percpu_bytes]
            .into_iter()
            .fold(0, u64::saturating_add)
    }
}
