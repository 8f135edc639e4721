//! What a run says, in sentences: the verdict first, then what a reader must know of the machine before believing it.

use crate::analysis::{Analysis, Summary};
use crate::model::{Role, Status, Stop, Verdict, Word};
use crate::stats::FEWEST_ROUNDS;
use crate::text::printable;
use crate::units;
use crate::verdict::EQUIVALENCE;

/// Rounds below which intervals are too wide to lean on.
const FEW_ROUNDS: usize = 20;

/// The word for a word.
pub fn of(word: Word) -> &'static str {
    match word {
        Word::Faster => "faster",
        Word::Slower => "slower",
        Word::NoDifference => "no difference",
        Word::Inconclusive => "inconclusive",
    }
}

/// The word for a cell's verdict. The A/A twin is no subject: that it differs or not says something of the run.
pub(crate) fn of_cell(cell: &Summary<'_>, verdict: &Verdict) -> &'static str {
    if cell.cell().role == Role::Control { "A/A twin" } else { of(verdict.word) }
}

/// The verdict: the headline, a sentence a subject, then how far all that can be trusted.
pub fn verdict(analysis: &Analysis<'_>) -> Vec<String> {
    let mut sentences = vec![headline(analysis)];
    sentences.extend(analysis.compared().filter_map(|cell| cell.verdict.as_ref()).map(sentence));
    sentences.iter().map(|sentence| printable(sentence)).chain(trust(analysis)).collect()
}

/// How far the figures of start-up can be trusted.
pub fn trust(analysis: &Analysis<'_>) -> Vec<String> {
    let mut sentences: Vec<String> = inconclusive(analysis).into_iter().collect();
    sentences.push(noise(analysis));
    sentences.extend(failures(analysis));
    sentences.extend(stopped(analysis));
    sentences.iter().map(|sentence| printable(sentence)).collect()
}

/// All medians in one sentence; on an emulated machine, whose clock is no clock, all ratios.
pub fn headline(analysis: &Analysis<'_>) -> String {
    let subjects = analysis.compared().filter(|cell| cell.cell().role != Role::Peer);
    let shown = |cell: &Summary<'_>| {
        let name = &cell.cell().name;
        if analysis.run.host.emulated {
            return cell.verdict.as_ref().map(|verdict| format!("{name} {}", units::ratio(verdict.ratio)));
        }
        cell.figures.as_ref().map(|figures| format!("{name} {}", units::time(figures.median.estimate)))
    };
    let shown: Vec<String> = subjects.filter_map(shown).collect();
    match (shown.is_empty(), analysis.baseline()) {
        (true, _) => "No start was proved: this run says nothing about time.".to_owned(),
        (false, Some(baseline)) if analysis.run.host.emulated => {
            format!("From start to ready, against {}: {}.", baseline.cell().name, shown.join(", "))
        }
        (false, _) => format!("From start to ready, median: {}.", shown.join(", ")),
    }
}

fn sentence(verdict: &Verdict) -> String {
    let Verdict { cell, against, .. } = verdict;
    let (ratio, interval) = (units::digits(verdict.ratio), units::ratios(verdict.low, verdict.high));
    if !verdict.interval().is_bounded() {
        return format!(
            "{cell} takes {ratio} times as long as {against}, in fewer than {FEWEST_ROUNDS} rounds: too few to tell that from chance."
        );
    }
    match verdict.word {
        Word::Faster => {
            format!("{cell} is faster: it takes {ratio} times as long as {against} (95 % interval {interval}).")
        }
        Word::Slower => {
            format!("{cell} is slower: it takes {ratio} times as long as {against} (95 % interval {interval}).")
        }
        Word::NoDifference => {
            format!("{cell} and {against} do not differ by more than what counts as noise here (ratio {interval}).")
        }
        Word::Inconclusive => {
            format!("{cell} against {against} is inconclusive: the ratio may be anything in {interval}.")
        }
    }
}

fn inconclusive(analysis: &Analysis<'_>) -> Option<String> {
    let verdicts: Vec<&Verdict> = analysis
        .cells
        .iter()
        .filter(|cell| cell.cell().role != Role::Control)
        .filter_map(|cell| cell.verdict.as_ref())
        .collect();
    let open: Vec<&str> = verdicts
        .iter()
        .filter(|verdict| verdict.word == Word::Inconclusive)
        .map(|verdict| verdict.cell.as_str())
        .collect();
    match (verdicts.is_empty(), open.is_empty()) {
        (true, _) => None,
        (false, true) => Some("Nothing is inconclusive.".to_owned()),
        (false, false) => Some(format!("Inconclusive: {}. More rounds would tell.", open.join(", "))),
    }
}

fn noise(analysis: &Analysis<'_>) -> String {
    let Some(noise) = &analysis.noise else {
        return "No noise floor is known: nothing tells a small difference from none.".to_owned();
    };
    let floor = units::percent(noise.floor());
    let interval = units::ratios(noise.interval.low, noise.interval.high);
    let (twin, against) = (&noise.cell, &noise.against);
    if noise.holds_one() {
        format!(
            "The noise floor is {floor}: {twin} is {against} under a second name, and their ratio is {interval}. \
             Smaller differences say nothing."
        )
    } else {
        format!(
            "The noise floor is {floor}, and it is suspicious: {twin} is {against} under a second name, yet their ratio \
             ({interval}) does not hold 1. Something favoured one of the two; trust no difference near it."
        )
    }
}

fn failures(analysis: &Analysis<'_>) -> Option<String> {
    let failed: usize = analysis.cells.iter().map(|cell| cell.series.failed.len()).sum();
    let attempts: usize = analysis.cells.iter().map(Summary::attempts).sum();
    match (attempts, failed) {
        (0, _) => None,
        (_, 0) => Some(format!("All {} were proved by their nonce.", units::count(attempts, "start"))),
        _ => Some(format!(
            "{failed} of {} failed. They are listed below and count in no time.",
            units::count(attempts, "start")
        )),
    }
}

fn stopped(analysis: &Analysis<'_>) -> Option<String> {
    let planned = units::count(analysis.run.plan.rounds as usize, "planned round");
    let made = analysis.measured_rounds();
    match analysis.run.stopped {
        Stop::Complete => None,
        Stop::Budget => Some(format!("The time budget ended the run after {made} of {planned}.")),
        Stop::Interrupted => Some(format!("The user ended the run after {made} of {planned}.")),
    }
}

/// A remark on the machine or the run, and how much it matters.
pub type Remark = (Status, String);

/// What a reader must know of the machine and the run before believing a figure.
pub fn environment(analysis: &Analysis<'_>) -> Vec<Remark> {
    let mut remarks = Vec::new();
    let host = &analysis.run.host;
    if host.emulated {
        let text = "The machine is emulated: its clock is not that of hardware. Only ratios count here, no time does.";
        remarks.push((Status::Warn, text.to_owned()));
    }
    remarks.push(kvm(analysis));
    if let Some(hypervisor) = &host.hypervisor {
        let text = format!("The host is itself a virtual machine, under {hypervisor}: microVMs here are nested.");
        remarks.push((Status::Warn, text));
    }
    if !analysis.cells.is_empty() {
        remarks.push(rounds(analysis));
    }
    remarks.extend(few_copies(analysis));
    if let Some(noise) = &analysis.noise {
        let status = if noise.holds_one() && noise.floor() <= EQUIVALENCE { Status::Ok } else { Status::Warn };
        remarks.push((status, format!("The noise floor is {}.", units::percent(noise.floor()))));
    }
    if analysis.run.tool.profile != "release" {
        let text = format!(
            "The lab was built as {}, not release: its own part of each start is slower.",
            analysis.run.tool.profile
        );
        remarks.push((Status::Warn, text));
    }
    let edited = analysis.disagreements();
    if !edited.is_empty() {
        let text = format!("The verdicts stored in run.json are not those of its samples: {}.", edited.join(", "));
        remarks.push((Status::Warn, text));
    }
    remarks.extend(without_samples(analysis));
    remarks.into_iter().map(|(status, text)| (status, printable(&text))).collect()
}

/// Cells of which the run has nothing, not even a failure: a run that ends early keeps what it has, and an edited one may have less.
fn without_samples(analysis: &Analysis<'_>) -> Option<Remark> {
    let run = analysis.run;
    let bare = |place: usize| !run.samples.iter().any(|sample| sample.cell == place);
    let names: Vec<_> =
        run.cells.iter().enumerate().filter(|(place, _)| bare(*place)).map(|(_, cell)| cell.name.as_str()).collect();
    (!names.is_empty()).then(|| (Status::Warn, format!("There is not one sample of {}.", names.join(", "))))
}

/// Suites of copies whose rounds are too few for an interval.
fn few_copies(analysis: &Analysis<'_>) -> Option<Remark> {
    let suites = [("snapshots", &analysis.snapshot), ("clones", &analysis.clone)];
    let few: Vec<String> = suites
        .into_iter()
        .filter_map(|(name, costs)| Some((name, costs.as_ref()?)))
        .filter(|(_, costs)| !costs.is_bounded())
        .map(|(name, costs)| format!("{} of {name}", units::count(costs.rounds(), "round")))
        .collect();
    let text = format!("Only {}: too few for 95 % intervals, so none is shown there.", few.join(" and "));
    (!few.is_empty()).then_some((Status::Warn, text))
}

fn kvm(analysis: &Analysis<'_>) -> Remark {
    let host = &analysis.run.host;
    let Some(driver) = &host.kvm_driver else {
        return (Status::Missing, "There is no KVM to use: microVMs were left out.".to_owned());
    };
    match host.guest_kernel_speed {
        Some(speed) if 0.0 < speed && speed < 0.8 => {
            let times = units::digits(1.0 / speed);
            (
                Status::Warn,
                format!("KVM is {driver}; kernel code in a guest runs {times} times slower than on the host."),
            )
        }
        Some(speed) if speed >= 0.8 => {
            (Status::Ok, format!("KVM is {driver}; kernel code in a guest runs at the host’s speed."))
        }
        _ => (Status::Info, format!("KVM is {driver}.")),
    }
}

fn rounds(analysis: &Analysis<'_>) -> Remark {
    let (made, noisy) = (analysis.measured_rounds(), analysis.noisy().count());
    let rounds = units::count(made, "round");
    match (made, noisy) {
        (0, _) => (Status::Warn, "No round after the warm-up was made.".to_owned()),
        (..FEWEST_ROUNDS, _) => {
            let text = format!("Only {rounds}: too few for 95 % intervals. Nothing is called faster or slower.");
            (Status::Warn, text)
        }
        (_, 1..) => (
            Status::Warn,
            format!("{noisy} of {rounds} were noisy: the host was busy with something else. They are kept."),
        ),
        (..FEW_ROUNDS, _) => (Status::Info, format!("Only {rounds}: intervals are wide.")),
        _ => (Status::Ok, format!("{rounds}, none of them noisy.")),
    }
}
