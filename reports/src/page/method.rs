//! How it was measured, and how to measure it again.

use maud::{Markup, html};

use super::parts::table;
use crate::analysis::{Analysis, SAMPLES_FOR_P99};
use crate::stats::{FEWEST_ROUNDS, PERMUTATIONS, resamples};
use crate::verdict::EQUIVALENCE;
use crate::{tables, units};

/// The method, as far as a reader needs it to judge the figures.
pub(super) fn method(analysis: &Analysis<'_>) -> Markup {
    let plan = &analysis.run.plan;
    html! {
        section aria-labelledby="method" {
            h2 id="method" { "Method" }
            ul {
                li { "Every subject runs the same static program. Its first act is to write a word and a number drawn for this one start; only "
                    "who writes the right number was started." }
                li { "Start-up: from just before the start until the last byte of that word is read, on " code { "CLOCK_MONOTONIC" }
                    ". Tear-down: from there, by way of the order to exit, until nothing of the subject is left." }
                @if !analysis.cells.is_empty() { li { (units::count(plan.warmup_rounds as usize, "warm-up round")) " kept but left out of all statistics, then "
                    (units::count(analysis.measured_rounds(), "round")) " of " (plan.rounds) " planned. Each round starts every cell once, in an order drawn from seed "
                    (plan.seed) ", so that whatever changes on the machine changes for all." } }
                li { "One subject is measured twice, under two names (A/A). What the two differ by is noise; the farther end of their interval is the noise floor." }
                li { "Ratios are ratios of medians. Their 95 % intervals come from " (resamples(analysis.measured_rounds())) " resamples of whole rounds (percentile bootstrap); of fewer than " (FEWEST_ROUNDS)
                    " rounds there is none, since even the range of five numbers holds the median with a probability of 94 % only." }
                li { "A word is said only where the whole interval bears it out: “slower” and “faster” lie past the noise floor, “no difference” within "
                    (units::percent(EQUIVALENCE)) " or the noise floor. Anything else is inconclusive." }
                li { "A 99th percentile is named only with " (SAMPLES_FOR_P99) " starts or more; of fewer, the maximum is shown under its own name." }
                li { "No start is dropped as an outlier. Drift is tested with " (PERMUTATIONS) " permutations." }
                li { "Peak memory is the largest resident set of one process of the subject; CPU time is that of all its processes." }
            }
            details {
                summary { "What each cell starts" }
                (table(&tables::cells(analysis)))
            }
        }
    }
}

/// The command, the sources, the seed.
pub(super) fn reproduce(analysis: &Analysis<'_>) -> Markup {
    let (tool, plan) = (&analysis.run.tool, &analysis.run.plan);
    html! {
        section aria-labelledby="reproduce" {
            h2 id="reproduce" { "Do it again" }
            p { "The same command with the same seed makes the same plan:" }
            pre tabindex="0" { code { (command(analysis)) } }
            dl {
                dt { "lab" } dd { "isolab " (tool.version) ", " (tool.profile) " build, " (tool.rustc) }
                dt { "revision" } dd { (revision(analysis)) }
                dt { "seed" } dd { (plan.seed) }
                dt { "measured" } dd { (analysis.run.started) " to " (analysis.run.finished) }
                dt { "schema" } dd { "run.json, version " (analysis.run.schema_version) }
            }
            p {
                "Beside this page: " a href="run.json" { "run.json" } " with every sample, " a href="samples.csv" { "samples.csv" } ", "
                a href="summary.csv" { "summary.csv" } ", " a href="report.md" { "report.md" } ", and each chart as an SVG in " code { "charts/" } ". "
                "Every figure here can be computed again from run.json: " code { "isolab-report render run.json --out DIR" } "."
            }
        }
    }
}

/// The run's command line, with its seed where it names none, as a shell takes it.
pub(crate) fn command(analysis: &Analysis<'_>) -> String {
    let mut words: Vec<String> = analysis.run.tool.command.iter().map(|word| quoted(word)).collect();
    let named = analysis.run.tool.command.iter().any(|word| word == "--seed" || word.starts_with("--seed="));
    if !named {
        // Without arguments the lab runs its default suite; an option needs the subcommand that it belongs to.
        if words.len() == 1 {
            words.push("run".to_owned());
        }
        words.extend(["--seed".to_owned(), analysis.run.plan.seed.to_string()]);
    }
    words.join(" ")
}

fn quoted(word: &str) -> String {
    let plain = |character: char| character.is_ascii_alphanumeric() || "-_./=,:@%+".contains(character);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// The revision of the sources, and whether they had changes.
pub(crate) fn revision(analysis: &Analysis<'_>) -> String {
    let tool = &analysis.run.tool;
    match (&tool.revision, tool.dirty) {
        (None, _) => "unknown: not built in a checkout".to_owned(),
        (Some(revision), Some(true)) => format!("{revision}, with changes that no commit holds"),
        (Some(revision), _) => revision.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_quoted_where_a_shell_would_read_more_into_it() {
        assert_eq!(["--seed=4", "a b", "it's", ""].map(quoted), ["--seed=4", "'a b'", r"'it'\''s'", "''"]);
    }
}
