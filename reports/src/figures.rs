//! Figures in a few lines of Markdown, for a README: what anybody asks first, and where it was measured.

use crate::analysis::{Analysis, Summary};
use crate::answers::answers;
use crate::criterion::Group;
use crate::export::answered;
use crate::model::Run;
use crate::text::printable;
use crate::units;

/// The table of all subjects, the answers, and the machine.
pub fn figures(run: &Run) -> String {
    let analysis = Analysis::of(run);
    let head =
        "| subject | starts in | beside a process | 95 % interval | one more costs |\n|---|---:|---:|---:|---:|\n";
    let rows: String = analysis.compared().filter_map(|cell| row(&analysis, cell)).collect();
    let answers: Vec<String> = answers(&analysis).iter().map(answered).collect();
    let answers = answers.iter().flat_map(|answer| ["\n", answer]).collect::<String>();
    let host = &run.host;
    let kvm = host.kvm_driver.as_ref().map_or_else(|| "no KVM".to_owned(), |driver| format!("KVM by {driver}"));
    let made = format!(
        "\n*{} rounds on {} × {}, Linux {}, cgroup {}, {kvm}; {} build. Medians.*\n",
        analysis.measured_rounds(),
        host.cpus,
        host.cpu,
        host.kernel,
        host.cgroup,
        run.tool.profile
    );
    printable(&format!("{head}{rows}{answers}{made}"))
}

fn row(analysis: &Analysis<'_>, cell: &Summary<'_>) -> Option<String> {
    let figures = cell.figures.as_ref()?;
    let verdict = cell.verdict.as_ref();
    let (ratio, interval) = verdict.map_or_else(
        || (units::ratio(1.0), String::new()),
        |it| (units::ratio(it.ratio), units::ratios(it.low, it.high)),
    );
    let crowd = analysis.density.iter().flat_map(|crowd| &crowd.cells);
    let climbed = crowd.into_iter().find(|climbed| climbed.cell.name == cell.cell().name);
    let each = climbed.filter(|climbed| climbed.cost().is_sure()).and_then(|climbed| climbed.cost().each());
    let each = each.map(units::bytes).unwrap_or_default();
    let time = units::time(figures.median.estimate);
    Some(format!("| `{}` | {time} | {ratio} | {interval} | {each} |\n", cell.cell().name))
}

/// What runtimes take for a container's life, side by side, from criterion's results; nothing where the group `container` is not
/// among them.
pub fn runtimes(groups: &[Group]) -> Option<String> {
    const RUNTIMES: [&str; 3] = ["isolab-oci", "crun", "runc"];
    const LIVES: [(&str, &str); 2] =
        [("run", "`run`, from nothing to nothing"), ("create-start-delete", "`create` + `start` + `delete`")];
    let group = groups.iter().find(|group| group.name == "container")?;
    let cell = |life: &str, runtime: &str| {
        let name = format!("{life}/{runtime}");
        let median = group.benchmarks.iter().find(|one| one.name == name)?.median;
        Some(format!(" {} ({}) |", units::time(median.estimate), units::times(median.low, median.high)))
    };
    let row = |(life, told): (&str, &str)| {
        let cells = RUNTIMES.map(|runtime| cell(life, runtime).unwrap_or_else(|| " not measured |".to_owned()));
        format!("| {told} |{}\n", cells.concat())
    };
    let head = RUNTIMES.map(|runtime| format!(" `{runtime}` |")).concat();
    Some(format!("| |{head}\n|---|{}\n{}", "---:|".repeat(RUNTIMES.len()), LIVES.map(row).concat()))
}
