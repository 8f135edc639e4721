//! The whole report of a run, as files that need only be written down.

use crate::analysis::Analysis;
use crate::chart::{self, Chart, Charts};
use crate::compare::Comparison;
use crate::criterion::Group;
use crate::hosts::Hosts;
use crate::model::Run;
use crate::{export, page};

/// A file of a report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Its path in the report's folder.
    pub name: String,
    /// What is in it.
    pub bytes: Vec<u8>,
}

impl File {
    fn text(name: &str, text: String) -> Self {
        Self { name: name.to_owned(), bytes: text.into_bytes() }
    }

    fn drawing(chart: &Chart) -> Self {
        Self::text(&format!("charts/{}.svg", chart.slug), chart.standalone())
    }
}

/// Renders a run that [`crate::read::validate`] accepts: all files of its report but the run itself, which
/// [`crate::folder::write_run`] puts beside them.
///
/// The page comes last: whoever writes the files in order has the rest in place when it appears.
pub fn render(run: &Run) -> Vec<File> {
    let analysis = Analysis::of(run);
    let charts = Charts::of(&analysis);
    let mut files = vec![
        File::text("samples.csv", export::samples(&analysis)),
        File::text("summary.csv", export::summary(&analysis)),
        File::text("report.md", export::markdown(&analysis, &charts)),
    ];
    if let Some(density) = &run.density {
        files.push(File::text("density.csv", export::density(density)));
    }
    if let Some(crowd) = &analysis.density {
        files.push(File::text("slopes.csv", export::slopes(crowd)));
    }
    if analysis.copies().next().is_some() {
        let raw = || analysis.copies().map(|(name, costs)| (name, costs.copies));
        files.push(File::text("copies.csv", export::acts(raw())));
        files.push(File::text("costs.csv", export::costs(analysis.copies())));
        files.push(File::text("trends.csv", export::trends(analysis.copies())));
    }
    files.extend(charts.iter().map(File::drawing));
    files.push(File::text("index.html", page::render(&analysis, &charts)));
    files
}

/// Renders two runs, the second held against the first. The page comes last.
pub fn compare(before: &Run, after: &Run) -> Vec<File> {
    let comparison = Comparison::of(before, after);
    let chart = chart::comparison(&comparison);
    let mut files = vec![File::text("report.md", export::comparison(&comparison, chart.as_ref()))];
    files.extend(chart.iter().map(File::drawing));
    files.push(File::text("index.html", page::render_comparison(&comparison, chart.as_ref())));
    files
}

/// Renders runs of several hosts beside each other. The page comes last.
pub fn hosts(runs: &[Run]) -> Vec<File> {
    let hosts = Hosts::of(runs);
    let charts = chart::hosts(&hosts);
    let charts = charts.each_ref().map(Option::as_ref);
    let mut files = vec![File::text("report.md", export::hosts(&hosts, charts))];
    let drawn = charts.into_iter().flatten();
    files.extend(drawn.map(File::drawing));
    files.push(File::text("index.html", page::render_hosts(&hosts, charts)));
    files
}

/// Renders criterion's results. The page comes last.
pub fn criterion(groups: &[Group]) -> Vec<File> {
    let chart = chart::benchmarks(groups);
    let mut files = vec![File::text("report.md", export::benchmarks(groups, chart.as_ref()))];
    files.extend(chart.iter().map(File::drawing));
    files.push(File::text("index.html", page::render_criterion(groups, chart.as_ref())));
    files
}
