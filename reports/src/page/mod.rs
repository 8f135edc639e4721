//! The page: one HTML file that needs nothing else. No script, no font, no picture from elsewhere; what it shows is in the run.
//!
//! maud escapes every text that is put into the markup; the charts, which are markup themselves, were escaped when drawn.

mod compare;
mod copies;
mod criterion;
mod density;
mod hosts;
mod method;
mod parts;

pub(crate) use compare::render_comparison;
pub(crate) use criterion::render_criterion;
pub(crate) use hosts::render_hosts;
pub(crate) use method::{command, revision};

use maud::{Markup, html};

use crate::analysis::Analysis;
use crate::answers::answers;
use crate::chart::{Charts, Ink, properties};
use crate::model::{Role, Status};
use crate::{tables, units, words};
use parts::{chart_section, drawn_from, figure, page, table, twin};

/// What `<meta name="generator">` says, so that a folder with a page of ours can be told from a stranger's.
pub(crate) const GENERATOR: &str = "isolab-report";

/// The whole page.
pub(crate) fn render(analysis: &Analysis<'_>, charts: &Charts) -> String {
    let run = analysis.run;
    let measured_other = run.density.is_some() || run.snapshot.is_some() || run.clone.is_some();
    let title = if run.cells.is_empty() && measured_other {
        format!("isolab {}", run.plan.suite)
    } else {
        format!("isolab {}: {}", run.plan.suite, words::headline(analysis))
    };
    let content = html! {
            (header(analysis))
            (first_screen(analysis, charts))
            @if !analysis.cells.is_empty() {
                section.suite aria-labelledby="startup" {
                    h2 id="startup" { "Start-up: how long until it runs?" }
                    (verdict(analysis))
                    (summary(analysis))
                    (phases(analysis, charts))
                    (distribution(analysis, charts))
                    (forest(analysis, charts))
                    (parallel(analysis, charts))
                }
            }
            @if let Some(crowd) = &analysis.density { (density::section(crowd, charts)) }
            (copies::sections(analysis, charts))
            (failures(analysis))
            (method::method(analysis))
            (environment(analysis))
            (method::reproduce(analysis))
    };
    page(&title, &content)
}

/// The style sheet, with the inks of both pages.
fn style() -> String {
    let (light, dark) = (properties(false), properties(true));
    format!(
        ":root{{{light}}}\n@media screen and (prefers-color-scheme:dark){{:root{{{dark}}}}}\n{}",
        include_str!("style.css")
    )
}

fn header(analysis: &Analysis<'_>) -> Markup {
    let run = analysis.run;
    html! {
        header {
            p.kicker { "isolab · suite " (run.plan.suite.replace(',', ", ")) }
            h1 { "What isolation costs on this machine" }
            p.meta { (readable(&run.started)) " · " (run.host.cpus) " × " (run.host.cpu) " · Linux " (run.host.kernel) }
        }
    }
}

/// An RFC 3339 time as people write it; what is none stays as it is.
fn readable(time: &str) -> String {
    match time.strip_suffix('Z').and_then(|time| time.split_once('T')) {
        Some((date, clock)) => format!("{date}, {} UTC", clock.get(..5).unwrap_or(clock)),
        None => time.to_owned(),
    }
}

/// The answers, and what a reader must know before believing them.
fn first_screen(analysis: &Analysis<'_>, charts: &Charts) -> Markup {
    let chart = |question: &str| match question {
        "Which starts faster?" => charts.fastest.as_ref(),
        "Which is denser?" => charts.densest.as_ref(),
        // Where neither suite was measured its ratios are among the others' in both charts.
        _ => charts.shared.as_ref(),
    };
    html! {
        div.answers {
            @for answer in answers(analysis) {
                section.answer aria-label=(answer.question) {
                    h2 { (answer.question) }
                    @if let Some((first, rest)) = answer.sentences.split_first() {
                        p.lead { (first) }
                        @for sentence in rest { p { (sentence) } }
                    }
                    @if let Some(chart) = chart(answer.question) { (figure(chart)) }
                    p.more { a href={ "#" (answer.section.0) } { (answer.section.1) " ↓" } }
                }
            }
        }
        section aria-labelledby="believe" {
            h2.small id="believe" { "Before you believe it" }
            ul.remarks {
                @for (status, text) in words::environment(analysis) {
                    li class=(parts::class(status)) { span.sign aria-hidden="true" { (sign(status)) } (text) }
                }
            }
        }
    }
}

fn verdict(analysis: &Analysis<'_>) -> Markup {
    let proved = analysis.compared().any(|cell| cell.figures.is_some());
    html! {
        section aria-label="Verdict" {
            @if proved { (cards(analysis)) } @else { p.lead { (words::headline(analysis)) } }
            ul.plain { @for sentence in words::trust(analysis) { li { (sentence) } } }
        }
    }
}

fn sign(status: Status) -> &'static str {
    match status {
        Status::Ok => "✓",
        Status::Info => "i",
        Status::Warn | Status::Missing => "!",
    }
}

/// The medians, large, one box a subject; of peers the table below tells, beside the same baseline.
fn cards(analysis: &Analysis<'_>) -> Markup {
    let emulated = analysis.run.host.emulated;
    html! {
        div.cards {
            @for cell in analysis.compared().filter(|cell| cell.cell().role != Role::Peer) {
                @if let Some(figures) = &cell.figures {
                    @let ratio = cell.verdict.as_ref().map(|verdict| units::ratio(verdict.ratio));
                    div.card style={ "border-top-color:" (Ink::Series(analysis.place(cell.cell())).css()) } {
                        p.name { (cell.cell().name) }
                        @if emulated {
                            p.figure { (ratio.unwrap_or_else(|| "1×".to_owned())) }
                        } @else {
                            p.figure { (units::time(figures.median.estimate)) }
                            @if let Some(ratio) = ratio { p.ratio { (ratio) " the baseline" } } @else { p.ratio { "the baseline" } }
                        }
                        @if let Some(verdict) = cell.verdict.as_ref().filter(|verdict| verdict.interval().is_bounded()) {
                            p.ratio { "(" (units::ratios(verdict.low, verdict.high)) ")" }
                        }
                    }
                }
            }
        }
    }
}

fn summary(analysis: &Analysis<'_>) -> Markup {
    html! {
        section aria-labelledby="figures" {
            h3 id="figures" { "The figures" }
            (table(&tables::summary(analysis)))
            (drawn_from(SAMPLES))
        }
    }
}

/// Where every start is a row.
const SAMPLES: &str = "samples.csv";

fn phases(analysis: &Analysis<'_>, charts: &Charts) -> Markup {
    let Some(chart) = &charts.phases else { return html! {} };
    let drawn = crate::chart::phase_rows(analysis);
    let silent: Vec<&str> = analysis
        .compared()
        .filter(|cell| cell.figures.is_some() && !drawn.iter().any(|(row, _)| row.cell().name == cell.cell().name))
        .map(|cell| cell.cell().name.as_str())
        .collect();
    let guide = html! {
        p {
            "Each bar is a typical start, the mean of the tenth of all starts nearest to the median, cut into the steps that the "
            "engine reports. Where two processes work at the same time, the step that began first has the time. "
            "The strip under a bar shows steps within steps, above all those of the new process, which works while the engine waits for it. "
            "Mechanisms that never meet in one bar may share a colour. "
            "The figure behind a bar is the median, the bracket under its end the median with its 95 % interval."
        }
        @if !silent.is_empty() { p { "Not drawn, because they tell nothing of their steps: " (silent.join(", ")) "." } }
    };
    let twins: Vec<Markup> = tables::phases(analysis).iter().map(table).collect();
    chart_section(chart, &guide, &html! { @for twin in &twins { (twin) } }, SAMPLES)
}

fn distribution(analysis: &Analysis<'_>, charts: &Charts) -> Markup {
    let (Some(distribution), Some(sequence)) = (&charts.distribution, &charts.sequence) else { return html! {} };
    let noisy = tables::noisy(analysis);
    html! {
        section aria-labelledby="distribution" {
            h3 id="distribution" { "Is the median the whole story?" }
            p {
                "Left: a steep curve is a steady subject, a flat end is a long tail; read down from where a curve crosses 50 % to find its median. "
                "Right: the same starts in the order in which they were made. Level rows mean that nothing drifted; "
                "if they slope, or step where the background changes, the machine was not the same throughout."
            }
            div.pair { (figure(distribution)) (figure(sequence)) }
            (twin(&html! {
                (table(&tables::distribution(analysis)))
                (table(&tables::drift(analysis)))
                @if !noisy.rows.is_empty() { (table(&noisy)) }
            }, SAMPLES))
        }
    }
}

fn forest(analysis: &Analysis<'_>, charts: &Charts) -> Markup {
    let Some(chart) = &charts.forest else { return html! {} };
    let pairs = tables::pairs(analysis);
    let guide = html! {
        p {
            "Each row is a ratio of medians with its 95 % interval, from resampling whole rounds. Right of 1 a subject is slower. "
            "Within the shaded band a difference is no larger than between one subject and itself. "
            "Cells named @N start N at once and are held against the baseline’s N at once."
        }
    };
    html! {
        (chart_section(chart, &guide, &table(&tables::ratios(analysis)), SAMPLES))
        @if !pairs.rows.is_empty() {
            section.matrix aria-labelledby="pairs" {
                h3 id="pairs" { "Each subject against each other" }
                (table(&pairs))
            }
        }
    }
}

fn parallel(analysis: &Analysis<'_>, charts: &Charts) -> Markup {
    let Some(chart) = &charts.parallel else { return html! {} };
    let guide = html! {
        p {
            "N starts are released by one barrier; each is timed from the release to its own READY. Up to the number of CPUs a level line "
            "says that starts do not wait for each other; past it they share CPUs, and what rises faster than the process waits for something else."
        }
    };
    chart_section(chart, &guide, &table(&tables::parallel(analysis)), SAMPLES)
}

fn failures(analysis: &Analysis<'_>) -> Markup {
    let (failures, left_out) = (tables::failures(analysis), tables::left_out(analysis));
    let uncopied = tables::uncopied(analysis.copies().map(|(_, costs)| costs));
    html! {
        section aria-labelledby="failures" {
            h2 id="failures" { "What did not work" }
            @if !failures.rows.is_empty() {
                (table(&failures))
            } @else if !analysis.cells.is_empty() {
                p { "No start failed after the warm-up." }
            }
            @if let Some(early) = analysis.density.as_ref().map(tables::ended).filter(|early| !early.rows.is_empty()) {
                (table(&early))
            }
            @if !uncopied.rows.is_empty() { (table(&uncopied)) }
            @if !left_out.rows.is_empty() { (table(&left_out)) }
        }
    }
}

fn environment(analysis: &Analysis<'_>) -> Markup {
    html! {
        section aria-labelledby="environment" {
            h2 id="environment" { "Where it was measured" }
            details {
                summary { "The whole environment record" }
                (table(&tables::environment(analysis)))
            }
        }
    }
}
