//! The report in other forms: for a pull request, a spreadsheet, a script.

mod csv;
mod markdown;

pub(crate) use csv::{density, samples, summary};
pub(crate) use markdown::markdown;
