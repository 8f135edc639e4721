//! What a snapshot or a clone costs: the parts of `run.json` that the suites `snapshot` and `clone` write.
//!
//! A *cell* is one act (a snapshot that is taken, a machine that goes on from it, a clone that is made) at one size. Cells that differ
//! in one figure only, their *sweep*, are points of one line in a chart. Every cell is measured once a round, in an order of the
//! round's own, and each copy has proved itself: by the nonce that was told to its original alone.

use serde::{Deserialize, Serialize};

use super::Stop;

/// Everything that one of the two suites saw.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Copies {
    /// Rounds at the start that are kept, and left out of every statistic.
    pub warmup_rounds: u32,
    /// Rounds after those, at the most.
    pub rounds: u32,
    /// Wall-clock budget of the suite, in seconds.
    pub budget_s: u64,
    /// Why measuring stopped.
    pub stopped: Stop,
    /// What was measured; samples name cells by their place in this list.
    pub cells: Vec<CopyCell>,
    /// In the order in which they were made.
    pub samples: Vec<CopySample>,
}

/// One act at one size.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CopyCell {
    /// Unique name in its suite.
    pub name: String,
    /// What is copied, for example `microvm-app` or `container`.
    pub subject: String,
    /// What is done.
    pub act: Act,
    /// Which of the figures below its neighbours differ in.
    pub sweep: Sweep,
    /// How large the original is: a machine's memory, a container's files.
    pub size_bytes: u64,
    /// How much of that the original has written.
    pub dirty_bytes: u64,
    /// How much of that the copy writes again.
    pub touch_bytes: u64,
    /// In how many writes it does so: pages of memory, or files.
    pub writes: u32,
    /// How many times it is a copy of a copy; 1 for a copy of an original.
    pub depth: u32,
    /// How many are made at once.
    pub together: u32,
    /// One sentence for a reader.
    pub about: String,
    /// The commands, with `{}` where what differs between two of them stood.
    pub command: Vec<String>,
}

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Act {
    /// A whole snapshot of a running machine is taken.
    Create,
    /// As many bytes as a snapshot of it has are written to a file and synced, by nothing but write(2).
    Plain,
    /// What has changed in it since another snapshot is saved, on top of that.
    Diff,
    /// A machine goes on from a snapshot whose memory is mapped: a page is found when it is touched.
    Lazy,
    /// A machine goes on from a snapshot whose memory is read first.
    Eager,
    /// A machine goes on after the pages were read that an earlier one touched; others come when they are touched.
    Prefetched,
    /// A machine goes on as the child of a server that has the memory already.
    Served,
    /// A running container's changes become an image.
    Commit,
    /// A running container's processes and memory are written to files (CRIU).
    Checkpoint,
    /// A clone that shares what it does not change.
    Linked,
    /// A clone that shares nothing.
    Full,
}

/// The figure that is varied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sweep {
    /// The size of the original.
    Size,
    /// What the copy writes again.
    Touch,
    /// How many times it is a copy of a copy.
    Depth,
    /// How many are made at once.
    Together,
}

/// One act.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CopySample {
    /// Place of its cell in [`Copies::cells`].
    pub cell: usize,
    /// Number of its round, from 0, warm-up included.
    pub round: u32,
    /// Which of the cell's `together`, from 0.
    pub instance: u32,
    /// What came of it.
    #[serde(flatten)]
    pub outcome: CopyOutcome,
}

/// What came of an act. A failure carries a reason and never a time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum CopyOutcome {
    /// It was done, and the copy proved itself.
    Done(Cost),
    /// It was not.
    Failed {
        /// What went wrong, in words.
        reason: String,
    },
}

/// What an act cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cost {
    /// From its beginning until it was done; for a copy, until it had proved itself.
    pub ready_ns: u64,
    /// How much of that the command took that made the copy, before the one that started it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made_ns: Option<u64>,
    /// Writing again what the cell says, for the first time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub write_ns: Option<u64>,
    /// The same once more, when nothing is shared any longer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rewrite_ns: Option<u64>,
    /// Bytes of disk that it added (`st_blocks`), writes included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_bytes: Option<u64>,
    /// The same by the files' lengths, holes included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub apparent_bytes: Option<u64>,
    /// Memory of the copy's own (anonymous pages), writes included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
}
