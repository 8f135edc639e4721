//! What is measured: which cells a suite has, and how many rounds of them.

pub mod copies;
pub mod density;
pub mod overhead;
pub mod startup;

use isolab_reports::model::{Cell, Role};

use crate::subject::Subject;

/// The name of a cell: the subject's, with `@N` where several start at once.
fn name(subject: &str, parallel: u32) -> String {
    if parallel == 1 { subject.to_owned() } else { format!("{subject}@{parallel}") }
}

/// A subject's cell.
fn cell(subject: &dyn Subject, parallel: u32) -> Cell {
    let about = subject.about();
    Cell {
        name: name(about.name, parallel),
        subject: about.name.to_owned(),
        role: about.role,
        parallel,
        about: about.about.to_owned(),
        command: about.command.clone(),
        version: about.version.clone(),
        payload: subject.runs_payload(),
    }
}

/// The A/A twin of a cell: the same subject under another name. What the two differ by is noise.
fn twin(cell: &Cell) -> Cell {
    Cell { name: format!("{}.again", cell.name), role: Role::Control, ..cell.clone() }
}
