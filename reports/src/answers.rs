//! The questions that the lab exists for, each answered in a few sentences that the intervals bear out.

use crate::analysis::{Analysis, Figures, Summary};
use crate::copies::{Costed, Costs, Crossing, Trend, UNTOUCHED};
use crate::density::{Climbed, Crowd, Measure};
use crate::model::{Act, Role, Sweep, Word};
use crate::stats::Interval;
use crate::text::printable;
use crate::units;
use crate::verdict::word;

/// A question and what a run says to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The question.
    pub question: &'static str,
    /// The answer, the most important sentence first.
    pub sentences: Vec<String>,
    /// The section that it is taken from, and what that is called.
    pub section: (&'static str, &'static str),
}

/// An answer to each question that was measured.
pub fn answers(analysis: &Analysis<'_>) -> Vec<Answer> {
    let startup = (!analysis.run.cells.is_empty()).then(|| Answer {
        question: "Which starts faster?",
        sentences: faster(analysis),
        section: ("startup", "All of start-up"),
    });
    let density = analysis.density.as_ref().map(|crowd| Answer {
        question: "Which is denser?",
        sentences: denser(crowd),
        section: ("crowd", "All of density"),
    });
    let copied: Vec<String> =
        analysis.snapshot.iter().flat_map(snapshots).chain(analysis.clone.iter().flat_map(clones)).collect();
    let measured = !copied.is_empty();
    let mut sentences = if measured { copied } else { again(analysis) };
    if measured && analysis.run.host.emulated {
        sentences.push("The machine is emulated: of these times only the ratios count.".to_owned());
    }
    let section = match (measured, analysis.snapshot.is_some()) {
        (true, true) => ("snapshots", "All of snapshots and clones"),
        (true, false) => ("clones", "All of clones"),
        (false, _) => ("startup", "All of start-up"),
    };
    let question = "What does a snapshot or a clone cost?";
    let again = (!sentences.is_empty()).then_some(Answer { question, sentences, section });
    let plain = |answer: Answer| Answer {
        sentences: answer.sentences.iter().map(|sentence| printable(sentence)).collect(),
        ..answer
    };
    startup.into_iter().chain(density).chain(again).map(plain).collect()
}

/// Names joined as people join them: `a`, `a and b`, `a, b and c`.
fn listed(items: &[String]) -> String {
    match items {
        [] => String::new(),
        [only] => only.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

/// A ratio of two copies, with its interval where the rounds bear one.
fn of_copies(costs: &Costs<'_>, ratio: &Interval) -> String {
    if ratio.is_bounded() {
        return units::ratio_within(ratio);
    }
    format!("{} in {}", units::ratio(ratio.estimate), units::count(costs.rounds(), "round"))
}

fn faster(analysis: &Analysis<'_>) -> Vec<String> {
    let subject = |cell: &&Summary<'_>| cell.cell().role == Role::Subject;
    let started = analysis.compared().filter(subject);
    let mut started: Vec<(&Summary<'_>, &Figures)> =
        started.filter_map(|cell| Some((cell, cell.figures.as_ref()?))).collect();
    started.sort_by(|a, b| a.1.median.estimate.total_cmp(&b.1.median.estimate));
    // Who runs less than the program may be first, and is no answer; but where nobody runs it, that is what there is.
    let (ours, smaller): (Vec<_>, Vec<_>) = started.into_iter().partition(|(cell, _)| cell.cell().payload);
    let (ours, smaller) = if ours.is_empty() { (smaller, ours) } else { (ours, smaller) };
    let Some(((first, figures), rest)) = ours.split_first().map(|(first, rest)| (*first, rest)) else {
        return vec![nobody_of_ours(analysis)];
    };
    let name = &first.cell().name;
    let emulated = analysis.run.host.emulated;
    let time = if emulated { String::new() } else { format!(", in {}", units::time(figures.median.estimate)) };
    let mut sentences = vec![format!("{name}{time}.")];
    if let Some(verdict) = &first.verdict {
        sentences.push(format!("Beside a bare process that is {}.", units::ratio_within(&verdict.interval())));
    }
    let against = |(cell, _): &(&Summary<'_>, &Figures)| {
        let ratio = analysis.ratio(cell, first)?;
        Some((cell.cell().name.clone(), ratio))
    };
    let longer = |(name, ratio): &(String, Interval)| {
        let times = units::digits(ratio.estimate);
        format!("{name} takes {times} times as long ({})", units::ratios(ratio.low, ratio.high))
    };
    let (told, untold): (Vec<_>, Vec<_>) = rest.iter().filter_map(against).partition(|(_, ratio)| ratio.is_bounded());
    let (alike, slower): (Vec<_>, Vec<_>) =
        told.into_iter().partition(|(_, ratio)| word(ratio, analysis.floor()) != Word::Slower);
    if !slower.is_empty() {
        let named: Vec<String> = slower.iter().map(longer).collect();
        sentences.push(format!("{}.", listed(&named)));
    }
    if !alike.is_empty() {
        let named: Vec<String> = alike.into_iter().map(|(name, _)| name).collect();
        sentences.push(format!("No difference to {} can be told from noise.", listed(&named)));
    }
    if !untold.is_empty() {
        let named: Vec<String> = untold.into_iter().map(|(name, _)| name).collect();
        sentences.push(format!("After so few rounds it can’t be told how much longer these take: {}.", listed(&named)));
    }
    sentences.extend(smaller.iter().filter_map(|(cell, _)| {
        let beside = longer(&(name.clone(), analysis.ratio(first, cell)?));
        let smaller = &cell.cell().name;
        Some(format!("{smaller}, which runs less than the program, shows what its mechanism costs at least: {beside}."))
    }));
    sentences
}

/// What is said where no start of ours was proved.
fn nobody_of_ours(analysis: &Analysis<'_>) -> String {
    match analysis.baseline().and_then(|cell| Some((cell, cell.figures.as_ref()?))) {
        Some((cell, figures)) => {
            format!("Only {} was started: {}.", cell.cell().name, units::time(figures.median.estimate))
        }
        None => "No start of ours was proved.".to_owned(),
    }
}

fn denser(crowd: &Crowd<'_>) -> Vec<String> {
    let sure = |climbed: &&Climbed<'_>| climbed.cell.role == Role::Subject && climbed.cost().is_sure();
    let mut ours: Vec<&Climbed<'_>> = crowd.compared().filter(sure).collect();
    let each = |climbed: &Climbed<'_>| climbed.cost().each().unwrap_or(f64::MAX);
    ours.sort_by(|a, b| each(a).total_cmp(&each(b)));
    let Some((first, rest)) = ours.split_first() else {
        return vec!["The host was too busy with other things to tell what an instance of ours costs.".to_owned()];
    };
    let fit = first.per_gib().map_or_else(String::new, |fit| format!(", so one GiB holds {:.0}", fit.estimate));
    let unsure = crowd.compared().filter(|it| it.cell.role == Role::Subject && !it.cost().is_sure());
    let unsure: Vec<String> = unsure.map(|climbed| climbed.cell.name.clone()).collect();
    let among = if unsure.is_empty() { "" } else { ", of those that can be told" };
    let mut sentences = vec![format!("{}{among}: one more costs {}{fit}.", first.cell.name, units::bytes(each(first)))];
    // A single one that is sure has beaten nobody.
    if unsure.len() > ours.len() {
        sentences.insert(0, "It can’t be told: the host was too busy with other things.".to_owned());
    }
    let others: Vec<(&Climbed<'_>, Interval)> =
        rest.iter().filter_map(|climbed| Some((*climbed, Crowd::ratio(climbed, first)?))).collect();
    let (alike, heavier): (Vec<_>, Vec<_>) =
        others.into_iter().partition(|(_, ratio)| word(ratio, crowd.floor) != Word::Slower);
    if !heavier.is_empty() {
        let one = |(climbed, ratio): &(&Climbed<'_>, Interval)| {
            let times = units::digits(ratio.estimate);
            format!("{} costs {times} times as much ({})", climbed.cell.name, units::ratios(ratio.low, ratio.high))
        };
        let named: Vec<String> = heavier.iter().map(one).collect();
        sentences.push(format!("{}.", listed(&named)));
    }
    if !alike.is_empty() {
        let named: Vec<String> = alike.iter().map(|(climbed, _)| climbed.cell.name.clone()).collect();
        sentences.push(format!("No difference to {} can be told from noise.", listed(&named)));
    }
    if !unsure.is_empty() {
        sentences.push(format!("Of {} the host was too busy to tell.", listed(&unsure)));
    }
    if crowd.density.ksm {
        sentences.push("The kernel merged equal pages of different instances meanwhile (KSM on).".to_owned());
    }
    if crowd.measure == Measure::Accounted {
        sentences.push(
            "Other programs moved the host’s memory more than the instances did; so this counts what can be told apart: \
             proportional sets and the kernel’s own memory. What a machine takes of the kernel’s pages beside that is not in it."
                .to_owned(),
        );
    }
    sentences
}

/// What it takes to save a machine, and to go on from that.
fn snapshots(costs: &Costs<'_>) -> Vec<String> {
    let mut sentences = Vec::new();
    let subject = "microvm-app";
    let created = costs.trend(subject, Act::Create, Sweep::Size).and_then(|trend| costs.of_trend(trend).last());
    if let Some((costed, ready)) = created.and_then(|costed| Some((costed, costed.ready?))) {
        let (size, dirty) = (costed.cell.size_bytes as f64, costed.cell.dirty_bytes as f64);
        let disk = costed.disk().map_or_else(String::new, |disk| format!(" and {} of disk", units::bytes(disk)));
        let plain = costs.ratio(costed).map(|ratio| of_copies(costs, &ratio));
        let plain = plain.map_or_else(String::new, |ratio| format!(" (a plain write of as much: ratio {ratio})"));
        sentences.push(format!(
            "A snapshot of a machine with {} that has written {} takes {}{disk}{plain}.",
            units::bytes(size),
            units::bytes(dirty),
            units::time(ready.estimate)
        ));
    }
    sentences.extend(however_large(costs, subject));
    let touch = |act| costs.trend(subject, act, Sweep::Touch).into_iter().flat_map(|trend| costs.of_trend(trend));
    let changed = touch(Act::Diff).next();
    if let Some((costed, ready, ratio)) = changed.and_then(|it| Some((it, it.ready?, costs.ratio(it)?))) {
        let disk = costed.disk().map_or_else(String::new, |disk| format!(" and {} of disk", units::bytes(disk)));
        sentences.push(format!(
            "Saved again after it has written {}, the changes alone take {}{disk} (all of it again: ratio {}).",
            units::bytes(costed.cell.touch_bytes as f64),
            units::time(ready.estimate),
            of_copies(costs, &ratio)
        ));
    }
    if let (Some(lazy), Some(eager)) = (touch(Act::Lazy).next(), touch(Act::Eager).next())
        && let (Some(at), Some(read), Some(ratio)) = (lazy.ready, eager.ready, costs.ratio(lazy))
    {
        let dirty = units::bytes(lazy.cell.dirty_bytes as f64);
        let turn = sooner(costs.crossing(subject, Act::Lazy, Act::Eager), "touches", "reading first is quicker");
        sentences.push(format!(
            "Going on takes {} with its memory mapped, {} with {dirty} read first (ratio {}); {turn}.",
            units::time(at.estimate),
            units::time(read.estimate),
            of_copies(costs, &ratio)
        ));
    }
    sentences
}

/// Going on with the least and with the most memory, where nothing of it was written.
fn however_large(costs: &Costs<'_>, subject: &str) -> Option<String> {
    let of = |act| {
        let untouched = |trend: &&Trend<'_>| {
            let key = &trend.key;
            (key.subject, key.act, key.sweep, key.share) == (subject, act, Sweep::Size, UNTOUCHED)
        };
        let mut cells = costs.of_trend(costs.trends.iter().find(untouched)?);
        let first = cells.next()?;
        let last = cells.last()?;
        let size = |costed: &Costed<'_>| units::bytes(costed.cell.size_bytes as f64);
        let time = |costed: &Costed<'_>| Some(units::time(costed.ready?.estimate));
        Some([(size(first), time(first)?), (size(last), time(last)?)])
    };
    let [small, large] = of(Act::Lazy)?;
    let served = of(Act::Served)
        .map_or_else(String::new, |[small, large]| format!("; asked of a server, {} and {}", small.1, large.1));
    Some(format!(
        "Of memory that was never written it costs nothing: a machine goes on after {} with {} of it and after {} with {}{served}.",
        small.1, small.0, large.1, large.0
    ))
}

/// Until when sharing pays.
fn sooner(crossing: Option<Crossing>, does: &str, otherwise: &str) -> String {
    match crossing {
        Some(Crossing::At(bytes)) => format!("once it {does} more than {}, {otherwise}", units::bytes(bytes)),
        Some(Crossing::Always) => format!("{otherwise} however little it {does}"),
        Some(Crossing::Never) => format!("that stays so however much of it the machine {does}"),
        None => "where that turns was not measured".to_owned(),
    }
}

/// A sentence for each kind of clone.
fn clones(costs: &Costs<'_>) -> Vec<String> {
    let sentence = |subject: &str| {
        let of = |act| costs.trend(subject, act, Sweep::Touch).and_then(|trend| costs.of_trend(trend).next());
        let (linked, full) = (of(Act::Linked)?, of(Act::Full)?);
        let each = |costed: &Costed<'_>| {
            let bytes = costed.bytes().map_or_else(String::new, |bytes| format!(" and adds {}", units::bytes(bytes)));
            Some(format!("{}{bytes}", units::time(costed.ready?.estimate)))
        };
        let turn = sooner(costs.crossing(subject, Act::Linked, Act::Full), "writes", "a full one is quicker");
        let turn = turn.replace("of it the machine writes", "it writes");
        Some(format!(
            "A linked clone of {subject} runs after {}, a full one after {} (ratio {}); {turn}.",
            each(linked)?,
            each(full)?,
            of_copies(costs, &costs.ratio(linked)?)
        ))
    };
    ["microvm-app", "container"].into_iter().filter_map(sentence).collect()
}

/// How the name of a subject ends that goes on from another one's snapshot, and how it does so.
const AGAIN: [(&str, &str); 3] = [
    ("-clone", "handed out by a server that has its memory"),
    ("-restore", "with its memory mapped"),
    ("-eager", "with all of its memory read first"),
];

/// Going on from a snapshot beside starting anew, for each subject that was measured both ways.
fn again(analysis: &Analysis<'_>) -> Vec<String> {
    let named = |name: &str| analysis.compared().find(|cell| cell.cell().name == name);
    let sentence = |cell: &Summary<'_>| {
        let name = &cell.cell().name;
        let (base, how) = AGAIN.iter().find_map(|(end, how)| Some((name.strip_suffix(end)?, how)))?;
        let (anew, figures) = (named(base)?, cell.figures.as_ref()?);
        let time = if analysis.run.host.emulated {
            String::new()
        } else {
            format!(" after {}", units::time(figures.median.estimate))
        };
        let beside = match (analysis.ratio(anew, cell), analysis.ratio(cell, anew)) {
            (Some(ratio), _) => format!("starting it anew takes {} as long", units::ratio_within(&ratio)),
            (None, Some(ratio)) => format!("that is {} as long as starting it anew", units::ratio_within(&ratio)),
            (None, None) => return None,
        };
        Some(format!("{base}, {how}, answers{time}; {beside}."))
    };
    let mut cells: Vec<&Summary<'_>> = analysis.compared().filter(|cell| cell.figures.is_some()).collect();
    let median = |cell: &Summary<'_>| cell.figures.as_ref().map_or(f64::MAX, |figures| figures.median.estimate);
    cells.sort_by(|a, b| median(a).total_cmp(&median(b)));
    let times = cells.into_iter().filter_map(sentence);
    times.chain(analysis.density.iter().flat_map(memory_again)).collect()
}

/// The same for memory.
fn memory_again(crowd: &Crowd<'_>) -> Vec<String> {
    let sure = |climbed: &&Climbed<'_>| climbed.cost().is_sure();
    let sentence = |climbed: &Climbed<'_>| {
        let base = AGAIN.iter().find_map(|(end, _)| climbed.cell.name.strip_suffix(end))?;
        let anew = crowd.compared().filter(sure).find(|other| other.cell.name == base)?;
        let (each, ratio) = (climbed.cost().each()?, Crowd::ratio(climbed, anew)?);
        let times = units::ratio_within(&ratio);
        Some(format!("One more {} costs {}, {times} what {base} does.", climbed.cell.name, units::bytes(each)))
    };
    crowd.compared().filter(sure).filter_map(sentence).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_reads_like_one() {
        let items = ["a", "b", "c"].map(str::to_owned);
        assert_eq!([listed(&items[..1]), listed(&items[..2]), listed(&items)], ["a", "a and b", "a, b and c"]);
    }
}
