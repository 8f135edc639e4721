//! Comma-separated values as RFC 4180 has them: quoted where need be, lines ended by CR LF, numbers plain and in base units.

use crate::analysis::{Analysis, Figures, Tail};
use crate::density::Crowd;
use crate::model::{Density, Ladder, Outcome, Role, Rung, Timing, Word};
use crate::stats::{Line, Sorted};
use crate::text::printable;
use crate::words;

/// A line of fields.
pub(super) fn line(fields: &[String]) -> String {
    let fields: Vec<String> = fields.iter().map(|text| field(text)).collect();
    fields.join(",") + "\r\n"
}

/// A field as a reader takes it for what it was.
fn field(text: &str) -> String {
    quoted(&printable(text))
}

/// RFC 4180, 2.5 to 2.7: a field with a comma, a quote or a line's end stands in quotes, and its own quotes are doubled.
fn quoted(field: &str) -> String {
    if field.contains([',', '"', '\r', '\n']) {
        format!("\"{}\"", field.replace('"', "\"\""))
    } else {
        field.to_owned()
    }
}

/// A number with all the digits it has; nothing where there is none, or where it is the end of no interval.
pub(super) fn number(number: Option<f64>) -> String {
    number.filter(|number| number.is_finite()).map(|number| number.to_string()).unwrap_or_default()
}

/// Each cell's figures. Times are nanoseconds, sizes bytes; what is not known is empty.
pub(crate) fn summary(analysis: &Analysis<'_>) -> String {
    let head = [
        "cell",
        "subject",
        "role",
        "parallel",
        "proved",
        "failed",
        "median_ns",
        "median_low_ns",
        "median_high_ns",
        "min_ns",
        "p90_ns",
        "p99_ns",
        "max_ns",
        "teardown_ns",
        "user_ns",
        "system_ns",
        "peak_rss_bytes",
        "against",
        "ratio",
        "ratio_low",
        "ratio_high",
        "verdict",
        "first_half_ns",
        "second_half_ns",
        "drift_p",
    ];
    let rows = analysis.cells.iter().map(|summary| {
        let cell = summary.cell();
        let figure = |of: fn(&Figures) -> f64| number(summary.figures.as_ref().map(of));
        let p99 = summary.figures.as_ref().and_then(|f| if let Tail::P99(p99) = f.tail { Some(p99) } else { None });
        let verdict = summary.verdict.as_ref();
        line(&[
            cell.name.clone(),
            cell.subject.clone(),
            role(cell.role).to_owned(),
            cell.parallel.to_string(),
            summary.series.ready.len().to_string(),
            summary.series.failed.len().to_string(),
            figure(|f| f.median.estimate),
            figure(|f| f.median.low),
            figure(|f| f.median.high),
            figure(|f| f.ready.min()),
            figure(|f| f.p90),
            number(p99),
            figure(|f| f.ready.max()),
            figure(|f| f.teardown),
            figure(|f| f.user),
            figure(|f| f.system),
            figure(|f| f.peak_rss),
            verdict.map(|v| v.against.clone()).unwrap_or_default(),
            number(verdict.map(|v| v.ratio)),
            number(verdict.map(|v| v.low)),
            number(verdict.map(|v| v.high)),
            verdict.map(|v| word(v.word).to_owned()).unwrap_or_default(),
            number(summary.drift.as_ref().map(|drift| drift.first)),
            number(summary.drift.as_ref().map(|drift| drift.second)),
            number(summary.drift.as_ref().map(|drift| drift.p)),
        ])
    });
    line(&head.map(str::to_owned)) + &rows.collect::<String>()
}

/// Every start, failures and warm-up included, in the order of the run.
pub(crate) fn samples(analysis: &Analysis<'_>) -> String {
    let head = [
        "cell",
        "round",
        "warmup",
        "noisy",
        "instance",
        "outcome",
        "ready_ns",
        "teardown_ns",
        "user_ns",
        "system_ns",
        "peak_rss_bytes",
        "reason",
    ];
    let rounds: std::collections::BTreeMap<_, _> =
        analysis.run.rounds.iter().map(|round| (round.index, round)).collect();
    let mut csv = line(&head.map(str::to_owned));
    for sample in &analysis.run.samples {
        let round = rounds.get(&sample.round);
        let cell = analysis.run.cells.get(sample.cell).map_or("", |cell| &cell.name);
        let (warmup, noisy) = (round.is_some_and(|it| it.warmup), round.is_some_and(|it| !it.noisy.is_empty()));
        let outcome = match &sample.outcome {
            Outcome::Ready(timing) => {
                let Timing { ready_ns, teardown_ns, user_ns, system_ns, peak_rss_bytes, .. } = timing;
                format!("ready,{ready_ns},{teardown_ns},{user_ns},{system_ns},{peak_rss_bytes},\r\n")
            }
            Outcome::Failed { reason } => format!("failed,,,,,,{}\r\n", field(reason)),
        };
        let row = format!("{},{},{warmup},{noisy},{},", field(cell), sample.round, sample.instance);
        csv.extend([row, outcome]);
    }
    csv
}

/// Every rung of every ladder, in the order in which they were climbed. Sizes are bytes; what is not known is empty.
pub(crate) fn density(density: &Density) -> String {
    let head = [
        "cell",
        "pass",
        "alive",
        "processes",
        "rss_bytes",
        "pss_bytes",
        "uss_bytes",
        "available_bytes",
        "others_bytes",
        "slab_bytes",
        "page_tables_bytes",
        "kernel_stacks_bytes",
        "percpu_bytes",
        "cgroup_bytes",
        "cgroup_kernel_bytes",
        "ready_median_ns",
    ];
    let rung = |ladder: &Ladder, rung: &Rung| {
        let optional = |bytes: Option<u64>| bytes.map(|bytes| bytes.to_string()).unwrap_or_default();
        let starts = Sorted::new(rung.starts_ns.iter().map(|start| *start as f64));
        line(&[
            density.cells.get(ladder.cell).map(|cell| cell.name.clone()).unwrap_or_default(),
            ladder.pass.to_string(),
            rung.alive.to_string(),
            rung.processes.to_string(),
            rung.rss_bytes.to_string(),
            rung.pss_bytes.to_string(),
            rung.uss_bytes.to_string(),
            rung.available_bytes.to_string(),
            rung.others_bytes.to_string(),
            rung.slab_bytes.to_string(),
            rung.page_tables_bytes.to_string(),
            rung.kernel_stacks_bytes.to_string(),
            rung.percpu_bytes.to_string(),
            optional(rung.cgroup_bytes),
            optional(rung.cgroup_kernel_bytes),
            number(starts.map(|starts| starts.median())),
        ])
    };
    let rows = density.ladders.iter().flat_map(|ladder| ladder.rungs.iter().map(move |it| rung(ladder, it)));
    line(&head.map(str::to_owned)) + &rows.collect::<String>()
}

/// Each cell's slopes, with all their digits. Bytes for one more instance; what is not known is empty.
pub(crate) fn slopes(crowd: &Crowd<'_>) -> String {
    let head = [
        "cell",
        "figure",
        "slope",
        "slope_low",
        "slope_high",
        "intercept",
        "r_squared",
        "compared",
        "ratio",
        "ratio_low",
        "ratio_high",
    ];
    let rows = crowd.cells.iter().flat_map(|climbed| {
        let figures = [
            ("available", &climbed.taken),
            ("rss", &climbed.rss),
            ("pss", &climbed.pss),
            ("uss", &climbed.uss),
            ("kernel", &climbed.kernel),
            ("accounted", &climbed.accounted),
            ("cgroup", &climbed.cgroup),
            ("cgroup_kernel", &climbed.cgroup_kernel),
        ];
        figures.map(|(name, slope)| {
            let of = |of: fn(&Line) -> f64| number(slope.line.as_ref().map(of));
            let compared = std::ptr::eq(slope, climbed.cost());
            let ratio = climbed.against.as_ref().filter(|_| compared).map(|against| against.ratio);
            line(&[
                climbed.cell.name.clone(),
                name.to_owned(),
                of(|line| line.slope.value),
                of(|line| line.slope.low),
                of(|line| line.slope.high),
                of(|line| line.intercept.value),
                of(|line| line.r_squared),
                compared.to_string(),
                number(ratio.map(|ratio| ratio.estimate)),
                number(ratio.map(|ratio| ratio.low)),
                number(ratio.map(|ratio| ratio.high)),
            ])
        })
    });
    line(&head.map(str::to_owned)) + &rows.collect::<String>()
}

fn role(role: Role) -> &'static str {
    match role {
        Role::Baseline => "baseline",
        Role::Subject => "subject",
        Role::Control => "control",
        Role::Peer => "peer",
    }
}

fn word(word: Word) -> &'static str {
    match word {
        Word::NoDifference => "no_difference",
        other => words::of(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_quoted_as_rfc_4180_says() {
        let fields = ["plain", "a,b", "say \"no\"", "two\r\nlines", ""].map(str::to_owned);
        assert_eq!(line(&fields), "plain,\"a,b\",\"say \"\"no\"\"\",\"two\u{fffd}\nlines\",\r\n");
    }
}
