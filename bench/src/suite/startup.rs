//! From nothing to READY, and back to nothing: each subject alone, and several of it at once.

use isolab_reports::model::Role;

use super::{cell, twin};
use crate::runner::Station;
use crate::subject::Subject;

/// The suite's name.
pub const NAME: &str = "startup";

/// A cell for each subject and each number at once, and the A/A twin.
///
/// The twin is the baseline's, since every ratio has the baseline beneath it; without one, the first subject's.
pub fn stations<'a>(subjects: &'a [Box<dyn Subject + 'a>], parallel: &[u32]) -> Vec<Station<'a>> {
    let mut stations: Vec<Station<'a>> = Vec::new();
    for count in parallel {
        let there = subjects.iter().filter(|subject| *count == 1 || !subject.alone());
        stations.extend(there.map(|it| Station { cell: cell(&**it, *count), subject: &**it }));
    }
    let original = stations.iter().position(|station| station.cell.role == Role::Baseline).unwrap_or(0);
    if let Some(station) = stations.get(original) {
        let twin = Station { cell: twin(&station.cell), subject: station.subject };
        stations.insert(original + 1, twin);
    }
    stations
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::subject::{About, Launch, Nonce};

    struct Named(About);

    impl Subject for Named {
        fn about(&self) -> &About {
            &self.0
        }

        fn launch(&self, _: u64, _: &Nonce) -> Result<Launch, String> {
            Err("never started".to_owned())
        }
    }

    fn names(subjects: &[(&'static str, Role)], parallel: &[u32]) -> Vec<String> {
        let named = |(name, role): &(&'static str, Role)| -> Box<dyn Subject> {
            Box::new(Named(About { name, role: *role, about: "", command: Vec::new(), version: None }))
        };
        let subjects: Vec<_> = subjects.iter().map(named).collect();
        stations(&subjects, parallel).into_iter().map(|station| station.cell.name).collect()
    }

    #[test]
    fn every_run_has_an_a_a_twin_of_its_baseline() {
        let both = [("container", Role::Subject), ("process", Role::Baseline)];
        assert_eq!(names(&both, &[1, 4]), ["container", "process", "process.again", "container@4", "process@4"]);
        assert_eq!(names(&both[..1], &[2]), ["container@2", "container@2.again"]);
    }
}
