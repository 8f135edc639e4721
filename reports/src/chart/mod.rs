//! The charts, one file a form. Each is an SVG that says in words what it shows; the page adds a table with the same figures.

mod answer;
mod axis;
mod canvas;
mod compare;
mod copies;
mod criterion;
mod curves;
mod density;
mod distribution;
mod forest;
mod hosts;
mod ink;
mod memory;
mod parallel;
mod phases;
mod sequence;

pub(crate) use compare::draw as comparison;
pub(crate) use criterion::draw as benchmarks;
pub(crate) use hosts::draw as hosts;
pub(crate) use ink::{Ink, properties};
pub(crate) use parallel::ladders;

use crate::analysis::{Analysis, Summary};
use crate::density::Climbed;
use crate::model::Sweep;
use crate::text::{escaped, printable};
use answer::Row;
use canvas::{FINE, Point};

/// The width of a chart that has the page to itself, in pixels.
const WIDE: f64 = 1120.0;
/// The width of one of two charts beside each other.
const HALF: f64 = 552.0;
/// So many letters of a subject's name are written beside the smaller charts: as many as our longest has.
const LETTERS: usize = 19;
/// The room for that many, in pixels, in the widest of common faces.
const NAME: f64 = 140.0;

/// A cell that has a bar in the phase chart, and how long its typical start is, in nanoseconds.
pub(crate) type Mapped<'r, 'a> = (&'r Summary<'a>, f64);

/// The cells of the phase chart, for the tables that repeat it.
pub(crate) fn phase_rows<'r, 'a>(analysis: &'r Analysis<'a>) -> Vec<Mapped<'r, 'a>> {
    phases::rows(analysis).into_iter().map(|(cell, _)| (cell, phases::length(cell))).collect()
}

/// One chart.
#[derive(Clone, Debug)]
pub struct Chart {
    /// Its name in file names and links, for example `phases`.
    pub slug: &'static str,
    /// Its title.
    pub title: String,
    /// What it shows, in words, for whoever can't see it.
    pub desc: String,
    /// What plotters wrote, without the outermost tags.
    body: String,
    size: Point,
}

impl Chart {
    /// Draws one.
    fn draw(
        slug: &'static str,
        title: &str,
        desc: String,
        size: Point,
        paint: impl FnOnce(&canvas::Canvas<'_>),
    ) -> Self {
        let svg = canvas::draw(size, paint);
        let body = svg.split_once(">\n").map_or("", |(_, body)| body);
        let body = body.trim_end().strip_suffix("</svg>").unwrap_or(body);
        // A third of a scatter of points is attributes that say what holds without them.
        let body = body.replace(" opacity=\"1\"", "").replace(" stroke=\"none\"", "");
        Self { slug, title: title.to_owned(), desc, body: ink::with_dashes(&printable(&body), FINE), size }
    }

    /// For a page: its colours are the page's custom properties, its size is that of the box around it.
    pub fn inline(&self) -> String {
        self.dressed("", &ink::with_properties(&self.body))
    }

    /// As a file of its own, with its colours in it.
    pub fn standalone(&self) -> String {
        let size = format!(" width=\"{}\" height=\"{}\"", self.size.0, self.size.1);
        format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n{}", self.dressed(&size, &self.body))
    }

    fn dressed(&self, attributes: &str, body: &str) -> String {
        let Self { slug, title, desc, size, .. } = self;
        let (title, desc) = (escaped(title), escaped(desc));
        let (width, height) = (size.0 * FINE, size.1 * FINE);
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" role=\"img\" aria-labelledby=\"{slug}-title {slug}-desc\" \
             viewBox=\"0 0 {width} {height}\"{attributes}>\n\
             <title id=\"{slug}-title\">{title}</title>\n<desc id=\"{slug}-desc\">{desc}</desc>\n{body}</svg>\n"
        )
    }
}

/// The charts of a report, each where there is something to draw.
#[derive(Clone, Debug)]
pub struct Charts {
    /// Where starts spend their time.
    pub phases: Option<Chart>,
    /// How start-up times are distributed.
    pub distribution: Option<Chart>,
    /// Start-up times in the order of the run.
    pub sequence: Option<Chart>,
    /// Each cell against the baseline.
    pub forest: Option<Chart>,
    /// What starting many at once costs.
    pub parallel: Option<Chart>,
    /// What one more instance costs.
    pub density: Option<Chart>,
    /// What the lines of that leave unexplained.
    pub residuals: Option<Chart>,
    /// Start-up times over the number alive.
    pub starts: Option<Chart>,
    /// What an instance's memory is made of.
    pub memory: Option<Chart>,
    /// Which starts faster, at a glance.
    pub fastest: Option<Chart>,
    /// Which is denser, at a glance.
    pub densest: Option<Chart>,
    /// Snapshots over the size of machines.
    pub sizes: Option<Chart>,
    /// Going on from a snapshot over what is touched.
    pub touched: Option<Chart>,
    /// Saving changes beside saving all.
    pub changes: Option<Chart>,
    /// Bytes of snapshots.
    pub disk: Option<Chart>,
    /// A container's commit.
    pub commits: Option<Chart>,
    /// Clones of machines: time over what is written.
    pub machine_times: Option<Chart>,
    /// The same: bytes.
    pub machine_bytes: Option<Chart>,
    /// Clones of containers: time over what is written.
    pub container_times: Option<Chart>,
    /// The same: bytes.
    pub container_bytes: Option<Chart>,
    /// Clones of clones.
    pub depth: Option<Chart>,
    /// Several clones at once.
    pub together: Option<Chart>,
    /// What sharing saves, at a glance.
    pub shared: Option<Chart>,
}

impl Charts {
    /// Draws all of them.
    pub fn of(analysis: &Analysis<'_>) -> Self {
        let (snapshot, clone) = (analysis.snapshot.as_ref(), analysis.clone.as_ref());
        Self {
            phases: phases::draw(analysis),
            distribution: distribution::draw(analysis),
            sequence: sequence::draw(analysis),
            forest: forest::draw(analysis),
            parallel: parallel::draw(analysis),
            density: density::draw(analysis),
            residuals: density::residuals(analysis),
            starts: density::starts(analysis),
            memory: memory::draw(analysis),
            fastest: fastest(analysis),
            densest: densest(analysis),
            sizes: snapshot.and_then(copies::sizes),
            touched: snapshot.and_then(copies::touched),
            changes: snapshot.and_then(copies::changes),
            disk: snapshot.and_then(copies::disk),
            commits: snapshot.and_then(copies::commits),
            machine_times: clone.and_then(|costs| copies::clone_times(costs, "microvm-app")),
            machine_bytes: clone.and_then(|costs| copies::clone_bytes(costs, "microvm-app")),
            container_times: clone.and_then(|costs| copies::clone_times(costs, "container")),
            container_bytes: clone.and_then(|costs| copies::clone_bytes(costs, "container")),
            depth: clone.and_then(|costs| copies::over_number(costs, Sweep::Depth)),
            together: clone.and_then(|costs| copies::over_number(costs, Sweep::Together)),
            shared: copies::shared(snapshot, clone),
        }
    }

    /// Those that there are.
    pub fn iter(&self) -> impl Iterator<Item = &Chart> {
        let startup = [&self.fastest, &self.phases, &self.distribution, &self.sequence, &self.forest, &self.parallel];
        let density = [&self.densest, &self.density, &self.residuals, &self.starts, &self.memory];
        let snapshot = [&self.shared, &self.sizes, &self.touched, &self.changes, &self.disk, &self.commits];
        let machines = [&self.machine_times, &self.machine_bytes];
        let containers = [&self.container_times, &self.container_bytes, &self.depth, &self.together];
        startup.into_iter().chain(density).chain(snapshot).chain(machines).chain(containers).flatten()
    }
}

fn fastest(analysis: &Analysis<'_>) -> Option<Chart> {
    let row = |cell: &Summary<'_>| {
        let ratio = cell.verdict.as_ref()?.interval();
        Some(Row { name: cell.cell().name.clone(), place: analysis.place(cell.cell()), ratio })
    };
    let rows: Vec<Row> = analysis.compared().filter_map(row).collect();
    answer::draw(
        "fastest",
        "Which starts faster?",
        "start-up time beside a process, log scale",
        &rows,
        analysis.floor(),
    )
}

fn densest(analysis: &Analysis<'_>) -> Option<Chart> {
    let crowd = analysis.density.as_ref()?;
    let row = |climbed: &Climbed<'_>| {
        let ratio = climbed.against.as_ref()?.ratio;
        Some(Row { name: climbed.cell.name.clone(), place: analysis.place(climbed.cell), ratio })
    };
    let rows: Vec<Row> = crowd.compared().filter_map(row).collect();
    answer::draw("densest", "Which is denser?", "memory of one more beside a process, log scale", &rows, crowd.floor)
}
