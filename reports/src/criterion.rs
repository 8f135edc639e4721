//! What criterion has measured, read from the folder where it keeps its results (`target/criterion`).
//!
//! For each benchmark criterion writes what it is (`new/benchmark.json`) and its raw measurements (`new/sample.json`): how
//! often the code ran in each sample, and how long all of that took. The figures are computed from those anew, by the same
//! statistics as everywhere in this lab.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

use crate::stats::{Interval, Rounds, Sorted, percentile_interval};
use crate::units;

/// No folder of criterion's is nested deeper: group, function, value, `new`.
const DEEPEST: usize = 6;
/// The seed of the resampling: the same results give the same report.
const SEED: u64 = 0x1507_ab02;

/// Benchmarks that belong together.
#[derive(Debug, Clone, PartialEq)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// Its benchmarks, by name.
    pub benchmarks: Vec<Benchmark>,
}

impl Group {
    /// Whether its figures are bytes: criterion keeps numbers without their unit, and this group is measured in those.
    pub fn is_bytes(&self) -> bool {
        self.name == "density"
    }

    /// One of its figures with its unit.
    pub fn figure(&self, figure: f64) -> String {
        if self.is_bytes() { units::bytes(figure) } else { units::time(figure) }
    }

    /// Two of its figures in one unit.
    pub fn range(&self, low: f64, high: f64) -> String {
        if self.is_bytes() { units::byte_range(low, high) } else { units::times(low, high) }
    }
}

/// One benchmark.
#[derive(Debug, Clone, PartialEq)]
pub struct Benchmark {
    /// Its name within the group.
    pub name: String,
    /// How long one iteration took, on average over each sample, in nanoseconds.
    pub times: Sorted,
    /// The median of those with its 95 % interval.
    pub median: Interval,
}

/// Why a folder's results cannot be used.
#[derive(Debug, Error)]
pub enum CriterionError {
    /// The folder, or a file of it, cannot be read.
    #[error("cannot read {path}")]
    Open {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file holds something else than criterion writes.
    #[error("{path} is no result of criterion")]
    Parse {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// A file's figures are none that a measurement gives.
    #[error("{path} was cut short or edited: {problem}")]
    Figures {
        /// Which.
        path: PathBuf,
        /// What is wrong with them.
        problem: &'static str,
    },
    /// There is no benchmark.
    #[error("{0} holds no results of criterion")]
    Empty(PathBuf),
}

impl CriterionError {
    /// What to try next.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Open { .. } | Self::Empty(_) => {
                "make results with `cargo bench`, and give the folder that they are in: target/criterion"
            }
            Self::Parse { .. } | Self::Figures { .. } => {
                "run that benchmark again: `cargo bench` writes its files anew"
            }
        }
    }
}

/// `benchmark.json`, as far as it matters here.
#[derive(Deserialize)]
struct Named {
    group_id: String,
    function_id: Option<String>,
    value_str: Option<String>,
}

/// `sample.json`.
#[derive(Deserialize)]
struct Sampled {
    iters: Vec<f64>,
    times: Vec<f64>,
}

/// Reads all results below a folder: groups by name, and in each the benchmarks by name.
pub fn read(folder: &Path) -> Result<Vec<Group>, CriterionError> {
    let mut found = Vec::new();
    collect(folder, DEEPEST, &mut found)?;
    let mut groups: Vec<Group> = Vec::new();
    for (name, benchmark) in found {
        match groups.iter_mut().find(|group| group.name == name) {
            Some(group) => group.benchmarks.push(benchmark),
            None => groups.push(Group { name, benchmarks: vec![benchmark] }),
        }
    }
    if groups.is_empty() {
        return Err(CriterionError::Empty(folder.to_owned()));
    }
    groups.sort_by(|a, b| a.name.cmp(&b.name));
    for group in &mut groups {
        group.benchmarks.sort_by(|a, b| a.name.cmp(&b.name));
    }
    Ok(groups)
}

fn collect(folder: &Path, deeper: usize, found: &mut Vec<(String, Benchmark)>) -> Result<(), CriterionError> {
    let failed = |source| CriterionError::Open { path: folder.to_owned(), source };
    let newest = folder.join("new");
    if newest.join("benchmark.json").is_file() {
        found.push(benchmark(&newest)?);
    }
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        // A link could lead back up, and the results before the newest are not asked for.
        let deep = path.symlink_metadata().is_ok_and(|it| it.is_dir()) && path != newest;
        if deep && let Some(deeper) = deeper.checked_sub(1) {
            collect(&path, deeper, found)?;
        }
    }
    Ok(())
}

fn benchmark(folder: &Path) -> Result<(String, Benchmark), CriterionError> {
    let named: Named = parse(&folder.join("benchmark.json"))?;
    let path = folder.join("sample.json");
    let sampled: Sampled = parse(&path)?;
    let wrong = |problem| CriterionError::Figures { path: path.clone(), problem };
    if sampled.iters.len() != sampled.times.len() {
        return Err(wrong("it has not as many times as samples"));
    }
    let times: Vec<f64> =
        sampled.times.iter().zip(&sampled.iters).map(|(time, iterations)| time / iterations).collect();
    if times.iter().any(|time| !time.is_finite() || *time < 0.0) {
        return Err(wrong("a sample has no iterations, or a time that no clock shows"));
    }
    let rounds = Rounds::new(times.iter().copied().enumerate());
    let median = percentile_interval(times.len(), SEED, |weights| rounds.median(weights));
    let (Some(sorted), Some(median)) = (Sorted::new(times), median) else { return Err(wrong("it has no samples")) };
    let parts = [named.function_id, named.value_str];
    let name = parts.into_iter().flatten().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/");
    // A benchmark without a group has the name of its own for one.
    let name = if name.is_empty() { named.group_id.clone() } else { name };
    Ok((named.group_id, Benchmark { name, times: sorted, median }))
}

fn parse<T: DeserializeOwned>(path: &Path) -> Result<T, CriterionError> {
    let text = fs::read(path).map_err(|source| CriterionError::Open { path: path.to_owned(), source })?;
    serde_json::from_slice(&text).map_err(|source| CriterionError::Parse { path: path.to_owned(), source })
}
