//! The report in other forms: for a pull request, a spreadsheet, a script.

mod copies;
mod csv;
mod markdown;

pub(crate) use copies::{acts, costs, trends};
pub(crate) use csv::{density, samples, slopes, summary};
pub(crate) use markdown::{answered, benchmarks, comparison, hosts, markdown};
