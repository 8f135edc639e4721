//! Several hosts beside each other: how much dearer a subject is than a bare process, on each of them.
//!
//! A time belongs to the host that it was measured on. What may be carried from one to another is a ratio within a host, because the
//! baseline met the same processor, kernel and neighbours in the same rounds. So each host keeps its own baseline here, and what
//! is held against each other are ratios with their intervals.

use crate::analysis::{Analysis, Summary};
use crate::density::Climbed;
use crate::model::{Role, Run, Verdict};
use crate::stats::Interval;
use crate::units;

/// Runs of several hosts.
#[derive(Clone, Debug)]
pub struct Hosts<'a> {
    /// Each run, in the order given.
    pub runs: Vec<Analysis<'a>>,
    /// Median start-up times, in nanoseconds, of the subjects that start one at a time.
    pub startup: Vec<Across>,
    /// What one more instance costs, in bytes.
    pub memory: Vec<Across>,
}

/// A subject across the hosts.
#[derive(Clone, Debug, PartialEq)]
pub struct Across {
    /// Its name.
    pub subject: String,
    /// For each host what was measured, where it was.
    pub places: Vec<Option<Place>>,
}

/// A subject on one host.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Place {
    /// The figure itself; none on an emulated host, whose clock tells ratios only.
    pub figure: Option<f64>,
    /// Beside the host's own baseline, with its 95 % interval; none for the baseline itself.
    pub ratio: Option<Interval>,
}

impl<'a> Hosts<'a> {
    /// Computes everything.
    pub fn of(runs: &'a [Run]) -> Self {
        let runs: Vec<Analysis<'a>> = runs.iter().map(Analysis::of).collect();
        let startup = across(&runs, |analysis| {
            let place = |cell: &Summary<'_>| Some((cell.cell().name.clone(), started(analysis, cell)?));
            analysis.compared().filter_map(place).collect()
        });
        let memory = across(&runs, |analysis| {
            let place = |climbed: &Climbed<'_>| Some((climbed.cell.name.clone(), alive(climbed)?));
            analysis.density.iter().flat_map(|crowd| crowd.compared().filter_map(place).collect::<Vec<_>>()).collect()
        });
        Self { runs, startup, memory }
    }
}

fn started(analysis: &Analysis<'_>, cell: &Summary<'_>) -> Option<Place> {
    let median = cell.figures.as_ref()?.median.estimate;
    let ratio = cell.verdict.as_ref().map(Verdict::interval);
    Some(Place { figure: (!analysis.run.host.emulated).then_some(median), ratio })
}

fn alive(climbed: &Climbed<'_>) -> Option<Place> {
    let each = climbed.cost().each().filter(|_| climbed.cost().is_sure())?;
    Some(Place { figure: Some(each), ratio: climbed.against.as_ref().map(|it| it.ratio) })
}

/// Subjects in the order in which the hosts name them first.
fn across(runs: &[Analysis<'_>], places: impl Fn(&Analysis<'_>) -> Vec<(String, Place)>) -> Vec<Across> {
    let mut all: Vec<Across> = Vec::new();
    for (host, analysis) in runs.iter().enumerate() {
        for (subject, place) in places(analysis) {
            let known = all.iter().position(|across| across.subject == subject).unwrap_or_else(|| {
                all.push(Across { subject, places: vec![None; runs.len()] });
                all.len() - 1
            });
            if let Some(slot) = all.get_mut(known).and_then(|across| across.places.get_mut(host)) {
                *slot = Some(place);
            }
        }
    }
    all
}

impl Across {
    /// The ratios, each with its host's place.
    pub fn ratios(&self) -> impl Iterator<Item = (usize, Interval)> {
        self.places.iter().enumerate().filter_map(|(host, place)| Some((host, place.as_ref()?.ratio?)))
    }

    /// The hosts with the smallest and the largest ratio, if their intervals don't meet.
    fn parted(&self) -> Option<[(usize, Interval); 2]> {
        let least = self.ratios().min_by(|a, b| a.1.estimate.total_cmp(&b.1.estimate))?;
        let most = self.ratios().max_by(|a, b| a.1.estimate.total_cmp(&b.1.estimate))?;
        (least.1.high < most.1.low).then_some([least, most])
    }
}

/// The letter that a host goes by: A, B, ... and past Z its number.
pub fn letter(host: usize) -> String {
    let letter =
        u32::try_from(host).ok().filter(|host| *host < 26).and_then(|host| char::from_u32(u32::from('A') + host));
    letter.map_or_else(|| (host + 1).to_string(), |letter| letter.to_string())
}

/// What can be said of them.
pub fn sentences(hosts: &Hosts<'_>) -> Vec<String> {
    let mut sentences: Vec<String> = fastest(hosts).into_iter().collect();
    for (lines, what) in [(&hosts.startup, "starts in"), (&hosts.memory, "takes memory of")] {
        let parted = lines.iter().filter_map(|across| Some((across, across.parted()?)));
        sentences.extend(parted.map(|(across, [least, most])| {
            let said = |(host, ratio): (usize, Interval)| {
                format!("{} of a process on {}", units::ratio_within(&ratio), letter(host))
            };
            format!("{} {what} {}, and {}: the intervals do not meet.", across.subject, said(least), said(most))
        }));
    }
    sentences
        .push("Where the intervals of a subject’s ratios meet, no difference between the hosts is shown.".to_owned());
    sentences
}

/// Which of our subjects starts fastest where.
fn fastest(hosts: &Hosts<'_>) -> Option<String> {
    let first = |analysis: &Analysis<'_>| {
        let ours = analysis.compared().filter(|cell| cell.cell().role == Role::Subject);
        let timed = ours.filter_map(|cell| Some((cell.figures.as_ref()?.median.estimate, cell.cell().name.clone())));
        timed.min_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, name)| name)
    };
    let first: Vec<(usize, String)> =
        hosts.runs.iter().enumerate().filter_map(|(host, analysis)| Some((host, first(analysis)?))).collect();
    let (_, name) = first.first()?;
    if first.iter().all(|(_, other)| other == name) {
        return Some(format!("On every host {name} has the shortest median of all subjects of ours."));
    }
    let each: Vec<String> = first.iter().map(|(host, name)| format!("{name} on {}", letter(*host))).collect();
    Some(format!("The shortest median of our subjects is that of {}.", each.join(", of ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(low: f64, high: f64) -> Place {
        let ratio = Interval { estimate: f64::midpoint(low, high), low, high };
        Place { figure: Some(1.0), ratio: Some(ratio) }
    }

    #[test]
    fn hosts_differ_only_where_the_intervals_of_their_ratios_do_not_meet() {
        let parted = |places: Vec<Option<Place>>| {
            Across { subject: "vm".into(), places }.parted().map(|both| both.map(|(host, _)| host))
        };
        assert_eq!(parted(vec![Some(place(2.0, 3.0)), Some(place(2.5, 4.0))]), None);
        assert_eq!(parted(vec![Some(place(9.0, 9.5)), None, Some(place(2.5, 4.0))]), Some([2, 0]));
        assert_eq!(parted(vec![Some(place(9.0, 9.5)), None]), None);
    }

    #[test]
    fn a_host_goes_by_a_letter() {
        assert_eq!([0, 25, 26].map(letter), ["A", "Z", "27"]);
    }
}
