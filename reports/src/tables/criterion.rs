//! Criterion's results as tables.

use super::{Table, figures, words};
use crate::criterion::{Benchmark, Group};

/// The benchmarks of a group.
pub fn benchmarks(group: &Group) -> Table {
    let head = ["median", "95 % interval", "5 % of samples below", "95 % below", "samples"].map(figures);
    let row = |one: &Benchmark| {
        vec![
            one.name.clone(),
            group.figure(one.median.estimate),
            group.range(one.median.low, one.median.high),
            group.figure(one.times.quantile(0.05)),
            group.figure(one.times.quantile(0.95)),
            one.times.len().to_string(),
        ]
    };
    let head = std::iter::once(words("benchmark")).chain(head).collect();
    Table::new(&group.name, head, group.benchmarks.iter().map(row).collect())
}
