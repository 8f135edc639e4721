//! The report as Markdown: for a pull request, a chat, an answer sheet.

use crate::analysis::Analysis;
use crate::answers::{Answer, answers};
use crate::chart::{Chart, Charts};
use crate::compare::{Comparison, sentences};
use crate::criterion::Group;
use crate::hosts::{self, Hosts};
use crate::page::{command, revision};
use crate::tables::{self, Table};
use crate::text::printable;
use crate::words;

/// A question and its answer: what it comes to in one line, the rest in a list beneath.
pub(crate) fn answered(answer: &Answer) -> String {
    let mut sentences = answer.sentences.iter().map(|sentence| escaped(sentence));
    let first = sentences.next().unwrap_or_default();
    let rest: Vec<String> = sentences.map(|sentence| format!("- {sentence}\n")).collect();
    let gap = if rest.is_empty() { "" } else { "\n" };
    format!("**{}** {first}\n{gap}{}", answer.question, rest.concat())
}

/// The whole report.
pub(crate) fn markdown(analysis: &Analysis<'_>, charts: &Charts) -> String {
    let run = analysis.run;
    let mut parts = vec![format!("# isolab, suite {}\n\n", escaped(&run.plan.suite))];
    for answer in answers(analysis) {
        parts.push(format!("{}\n", answered(&answer)));
    }
    if !analysis.cells.is_empty() {
        parts.push("## Start-up beside the baseline\n\n".to_owned());
    }
    for sentence in words::verdict(analysis) {
        parts.push(format!("- {}\n", escaped(&sentence)));
    }
    parts.push("\n## Before you believe it\n\n".to_owned());
    for (_, remark) in words::environment(analysis) {
        parts.push(format!("- {}\n", escaped(&remark)));
    }
    if !analysis.cells.is_empty() {
        parts.push("\n## The figures of start-up\n\n".to_owned());
        parts.push(table(&tables::summary(analysis)));
    }
    if let Some(crowd) = &analysis.density {
        parts.push("\n## The figures of density\n\n".to_owned());
        parts.push(table(&tables::density(crowd)));
    }
    for (name, costs) in analysis.copies() {
        parts.push(format!("\n## The figures of the suite {name}\n\n"));
        parts.push(table(&tables::trends(costs)));
        parts.push(table(&tables::copies(costs, "Every cell.", |_| true)));
    }
    for chart in charts.iter() {
        parts.push(format!("\n## {}\n\n{}", chart.title, picture(chart)));
        for twin in twins(analysis, chart.slug) {
            parts.push(table(&twin));
        }
    }
    parts.push("\n## What did not work\n\n".to_owned());
    parts.push(table(&tables::failures(analysis)));
    let uncopied = tables::uncopied(analysis.copies().map(|(_, costs)| costs));
    parts.extend(Some(uncopied).filter(|it| !it.rows.is_empty()).as_ref().map(table));
    parts.push(table(&tables::left_out(analysis)));
    parts.push("\n## Where it was measured\n\n".to_owned());
    parts.push(table(&tables::environment(analysis)));
    parts.push("\n## Do it again\n\n".to_owned());
    parts.push(format!("    {}\n\n", command(analysis).replace('\n', " ")));
    let tool = &run.tool;
    let made =
        format!("isolab {}, {} build, {}; revision {}.", tool.version, tool.profile, tool.rustc, revision(analysis));
    parts.push(format!("{}\nMeasured {} to {}.\n", escaped(&made), escaped(&run.started), escaped(&run.finished)));
    printable(&parts.concat())
}

/// Two runs, for the pull request that changed something.
pub(crate) fn comparison(comparison: &Comparison<'_>, chart: Option<&Chart>) -> String {
    let mut sentences = sentences(comparison).into_iter();
    let mut parts = vec!["# isolab: what changed from A to B\n\n".to_owned()];
    parts.extend(sentences.next().map(|first| format!("**{}**\n\n", escaped(&first))));
    parts.extend(sentences.map(|sentence| format!("- {}\n", escaped(&sentence))));
    parts.push("\n".to_owned());
    parts.push(table(&tables::runs(comparison)));
    parts.push(table(&tables::comparison(comparison)));
    parts.extend(chart.map(|chart| format!("\n{}", picture(chart))));
    let rest = [
        tables::alone(comparison),
        tables::differences("The hosts are not the same.", &comparison.host),
        tables::differences("Changed in the environment.", &comparison.environment),
    ];
    parts.extend(rest.iter().filter(|it| !it.rows.is_empty()).map(table));
    printable(&parts.concat())
}

/// Several hosts, for a pull request.
pub(crate) fn hosts(hosts: &Hosts<'_>, charts: [Option<&Chart>; 2]) -> String {
    let [startup, memory] = charts.map(|chart| chart.map(|chart| format!("\n{}", picture(chart))).unwrap_or_default());
    let mut parts = vec!["# isolab: what isolation costs, host by host\n\n".to_owned()];
    parts.extend(hosts::sentences(hosts).iter().map(|sentence| format!("- {}\n", escaped(sentence))));
    parts.extend(["\n".to_owned(), table(&tables::hosts(hosts)), startup, table(&tables::hosts_startup(hosts))]);
    if !hosts.memory.is_empty() {
        parts.extend([memory, table(&tables::hosts_memory(hosts))]);
    }
    printable(&parts.concat())
}

/// Criterion's results, for a pull request.
pub(crate) fn benchmarks(groups: &[Group], chart: Option<&Chart>) -> String {
    let mut parts = vec!["# isolab: what the benchmarks say\n\n".to_owned()];
    parts.extend(chart.map(picture));
    parts.extend(groups.iter().map(|group| table(&tables::benchmarks(group))));
    printable(&parts.concat())
}

/// A chart, as a picture beside the report.
fn picture(chart: &Chart) -> String {
    format!("![{}](charts/{}.svg)\n\n", escaped(&chart.desc), chart.slug)
}

fn twins(analysis: &Analysis<'_>, slug: &str) -> Vec<Table> {
    match slug {
        "phases" => tables::phases(analysis),
        "distribution" => vec![tables::distribution(analysis)],
        "sequence" => vec![tables::drift(analysis), tables::noisy(analysis)],
        "forest" => vec![tables::ratios(analysis), tables::pairs(analysis)],
        "parallel" => vec![tables::parallel(analysis)],
        "density" => analysis.density.iter().map(tables::rungs).collect(),
        "residuals" => analysis.density.iter().map(tables::ended).collect(),
        "starts" => analysis.density.iter().map(tables::starts).collect(),
        "memory" => analysis.density.iter().map(tables::memory).collect(),
        // The tables of the figures, above, are theirs.
        _ => Vec::new(),
    }
}

/// A table, figures aligned right; for one without rows a word that says so.
fn table(table: &Table) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let caption = escaped(&table.caption);
    if table.rows.is_empty() {
        return format!("{caption} None.\n\n");
    }
    let head: Vec<String> = table.head.iter().map(|column| column.name.clone()).collect();
    let rule: Vec<String> =
        table.head.iter().map(|column| if column.figures { "---:" } else { "---" }.to_owned()).collect();
    let rows: String =
        table.rows.iter().map(|row| line(&row.iter().map(|cell| escaped(cell)).collect::<Vec<_>>())).collect();
    format!("{caption}\n\n{}{}{rows}\n", line(&head), line(&rule))
}

/// The text with what Markdown would read as markup made plain.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\\' | '`' | '*' | '_' | '[' | ']' | '|' | '#' | '~' => escaped.extend(['\\', character]),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '&' => escaped.push_str("&amp;"),
            '\n' | '\r' | '\t' => escaped.push(' '),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_markdown_reads_as_markup_is_made_plain() {
        assert_eq!(escaped("a|b_c\n<i>&"), "a\\|b\\_c &lt;i&gt;&amp;");
    }
}
