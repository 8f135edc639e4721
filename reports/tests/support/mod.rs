//! What the tests of reports share: runs, and checks on pages.

#![allow(dead_code, reason = "each test file uses a part of it")]

use std::fs;
use std::path::PathBuf;

use isolab_reports::model::{
    Act, Cell, CopyOutcome, Density, Ended, Fact, Host, Ladder, Outcome, Phase, Plan, Role, Round, Run, Rung, Sample,
    SpanText, Status, Stop, Sweep, Timing, Tool,
};
use isolab_reports::{read, report};

/// A file in the folder of the tests.
pub(crate) fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests").join(name)
}

/// The fixture: its text, and the run in it.
pub(crate) fn fixture() -> (String, Run) {
    let text = fs::read_to_string(path("fixtures/run.json")).expect("the fixture is there");
    let run = read::read(&text).expect("the fixture is a run");
    (text, run)
}

/// The fixture as if its machines that go on had been saved once more: lazy ones only what they changed, eager ones all.
pub(crate) fn with_changes() -> Run {
    let (_, mut run) = fixture();
    let snapshot = run.snapshot.as_mut().expect("the fixture has snapshots");
    for cell in snapshot.cells.iter_mut().filter(|cell| cell.sweep == Sweep::Touch) {
        cell.act = match cell.act {
            Act::Lazy => Act::Diff,
            Act::Eager => Act::Create,
            act => act,
        };
        cell.name = format!("{} · saved", cell.name);
    }
    run
}

/// The report's file of that name.
pub(crate) fn file(files: &[report::File], name: &str) -> String {
    let file = files.iter().find(|file| file.name == name);
    let file = file.unwrap_or_else(|| panic!("the report has no {name}"));
    String::from_utf8(file.bytes.clone()).expect("the report is UTF-8")
}

/// The page as XML: what HTML leaves open is closed. An error names the place that is not well-formed.
pub(crate) fn as_xml(page: &str) -> String {
    let page = page.strip_prefix("<!DOCTYPE html>").expect("the page begins with its type");
    let mut xml = String::new();
    let mut rest = page;
    while let Some(at) = rest.find("<meta ") {
        let end = at + rest[at..].find('>').expect("a tag ends");
        xml.push_str(&rest[..end]);
        xml.push_str("/>");
        rest = &rest[end + 1..];
    }
    xml + rest
}

/// Checks what holds for every page: that it is well-formed, carries no script, and refers to nothing but the files beside it.
pub(crate) fn assert_sound(page: &str) {
    let xml = as_xml(page);
    let document = roxmltree::Document::parse(&xml).unwrap_or_else(|error| panic!("not well-formed: {error}\n{xml}"));
    let mut ids = std::collections::BTreeSet::new();
    for node in document.descendants().filter(roxmltree::Node::is_element) {
        let name = node.tag_name().name();
        let strange = ["script", "img", "image", "iframe", "link", "object", "embed", "base", "form", "use"];
        assert!(!strange.contains(&name), "the page has a <{name}>");
        for attribute in node.attributes() {
            let (name, value) = (attribute.name(), attribute.value());
            assert!(!name.starts_with("on") && name != "src", "the page has {name}={value:?}");
            if name == "href" {
                let beside = ["run.json", "samples.csv", "summary.csv", "report.md", "density.csv", "slopes.csv"]
                    .contains(&value)
                    || ["copies.csv", "costs.csv", "trends.csv"].contains(&value);
                assert!(beside || value.starts_with('#'), "a link to {value}");
            }
            if name == "id" {
                assert!(ids.insert(value), "the id {value} is there twice");
            }
            if name == "style" || name == "fill" || name == "stroke" {
                assert!(!value.contains("url"), "{name}={value:?}");
            }
        }
        if name == "style" {
            let style = node.text().unwrap_or_default();
            assert!(!style.contains("url(") && !style.contains("@import"), "the style refers to something");
        }
        if name == "svg" {
            assert_eq!(node.attribute("role"), Some("img"));
            let children: Vec<_> = node.children().filter(roxmltree::Node::is_element).take(2).collect();
            let [title, desc] = children.as_slice() else { panic!("a chart without words") };
            assert_eq!((title.tag_name().name(), desc.tag_name().name()), ("title", "desc"));
            assert!(!title.text().unwrap_or_default().is_empty() && !desc.text().unwrap_or_default().is_empty());
        }
    }
    for node in document.descendants().filter(roxmltree::Node::is_element) {
        let link = node.attribute("href").and_then(|target| target.strip_prefix('#'));
        for target in node.attribute("aria-labelledby").unwrap_or_default().split_whitespace().chain(link) {
            assert!(ids.contains(target), "nothing has the id {target}");
        }
    }
}

/// A run without cells, rounds or samples.
pub(crate) fn empty_run() -> Run {
    Run {
        schema_version: 3,
        started: "2026-01-01T00:00:00Z".into(),
        finished: "2026-01-01T00:01:00Z".into(),
        tool: Tool {
            version: "0.1.0".into(),
            revision: None,
            dirty: None,
            rustc: "rustc 1.95.0".into(),
            profile: "release".into(),
            command: vec!["isolab-bench".into()],
        },
        plan: Plan { suite: "startup".into(), seed: 1, warmup_rounds: 0, rounds: 0, budget_s: None, order: Vec::new() },
        stopped: Stop::Complete,
        host: Host {
            cpu: "a CPU".into(),
            cpus: 2,
            memory_bytes: 1 << 34,
            kernel: "6.12".into(),
            hypervisor: None,
            kvm_driver: None,
            guest_kernel_speed: None,
            cgroup: "v2".into(),
            emulated: false,
            facts: Vec::new(),
        },
        cells: Vec::new(),
        rounds: Vec::new(),
        spans: std::collections::BTreeMap::new(),
        samples: Vec::new(),
        verdicts: Vec::new(),
        density: None,
        snapshot: None,
        clone: None,
    }
}

/// A run of so many cells and rounds, in which every start is what `outcome` says of its cell and round. The first cell is
/// the baseline.
pub(crate) fn run_of(cells: usize, rounds: u32, outcome: impl Fn(usize, u32) -> Outcome) -> Run {
    let mut run = empty_run();
    run.plan.rounds = rounds;
    run.plan.order = (0..rounds).map(|_| (0..cells).collect()).collect();
    run.cells = (0..cells)
        .map(|n| cell(&format!("subject-{n}"), if n == 0 { Role::Baseline } else { Role::Subject }))
        .collect();
    run.rounds = (0..rounds).map(round).collect();
    for index in 0..rounds {
        run.samples.extend((0..cells).map(|n| Sample {
            cell: n,
            round: index,
            instance: 0,
            outcome: outcome(n, index),
        }));
    }
    run
}

/// A cell that starts one at a time.
pub(crate) fn cell(name: &str, role: Role) -> Cell {
    Cell {
        name: name.into(),
        subject: name.into(),
        role,
        parallel: 1,
        about: "something to start".into(),
        command: vec!["start".into(), "{}".into()],
        version: None,
        payload: true,
    }
}

/// A run that measured density only: so many cells, each climbed twice to eight, each instance costing what `each` says.
pub(crate) fn density_of(cells: usize, each: impl Fn(usize) -> u64) -> Run {
    let mut run = empty_run();
    run.plan.suite = "density".into();
    let ladder = |cell: usize, pass: u32| Ladder {
        cell,
        pass,
        rungs: [0, 1, 2, 4, 8].map(|alive| rung(alive, each(cell))).into(),
        ended: Ended::Complete,
        reason: None,
        dying_groups: 0,
    };
    run.density = Some(Density {
        most: 8,
        passes: 2,
        budget_s: 60,
        touched_bytes: 0,
        reserve_bytes: 1 << 29,
        ksm: false,
        cells: (0..cells)
            .map(|n| cell(&format!("subject-{n}"), if n == 0 { Role::Baseline } else { Role::Subject }))
            .collect(),
        ladders: (0..2).flat_map(|pass| (0..cells).map(move |n| (n, pass))).map(|(n, pass)| ladder(n, pass)).collect(),
    });
    run
}

/// A rung on which each instance costs so much, half of it pages of its own and a quarter the kernel's.
pub(crate) fn rung(alive: u32, each: u64) -> Rung {
    let all = u64::from(alive) * each;
    let below = if alive < 2 { alive } else { alive / 2 };
    Rung {
        alive,
        starts_ns: vec![1_000_000; (alive - if alive < 2 { 0 } else { below }) as usize],
        processes: alive,
        rss_bytes: 3 * all,
        pss_bytes: all / 2,
        uss_bytes: all / 4,
        available_bytes: (8_u64 << 30).saturating_sub(all),
        slab_bytes: (1 << 20) + all / 4,
        page_tables_bytes: 1 << 20,
        kernel_stacks_bytes: 1 << 20,
        percpu_bytes: 1 << 20,
        others_bytes: 1 << 28,
        cgroup_bytes: None,
        cgroup_kernel_bytes: None,
    }
}

/// A quiet round.
pub(crate) fn round(index: u32) -> Round {
    Round {
        index,
        warmup: false,
        start_ns: u64::from(index) * 1_000_000,
        duration_ns: 900_000,
        load1: 0.5,
        steal: 0.0,
        cpu_pressure: None,
        noisy: Vec::new(),
    }
}

/// A proved start that took so long, half of it in one phase.
pub(crate) fn ready(ready_ns: u64) -> Outcome {
    let phase = Phase { name: "area.step".into(), start_ns: 0, duration_ns: ready_ns / 2, depth: 0, pid: 1 };
    Outcome::Ready(Timing {
        ready_ns,
        teardown_ns: ready_ns / 4,
        phases: vec![phase],
        peak_rss_bytes: 1 << 20,
        user_ns: ready_ns / 8,
        system_ns: ready_ns / 2,
    })
}

/// Puts a text wherever a run can hold one.
pub(crate) fn with_text_everywhere(run: &mut Run, text: &str) {
    let own = |name: &str| format!("{name}{text}");
    for field in [&mut run.started, &mut run.finished, &mut run.plan.suite, &mut run.tool.version, &mut run.tool.rustc]
    {
        *field = own(field);
    }
    run.tool.profile = own("debug");
    run.tool.revision = Some(own("revision"));
    run.tool.command.push(own("argument"));
    for field in [&mut run.host.cpu, &mut run.host.kernel, &mut run.host.cgroup] {
        *field = own(field);
    }
    run.host.hypervisor = Some(own("hypervisor"));
    run.host.kvm_driver = Some(own("driver"));
    for area in ["area", "subject"] {
        let fact = Fact {
            area: area.into(),
            name: own("name"),
            value: own("value"),
            status: Status::Missing,
            hint: Some(own("hint")),
        };
        run.host.facts.push(fact);
    }
    let density = run.density.iter_mut().flat_map(|density| &mut density.cells);
    for cell in run.cells.iter_mut().chain(density) {
        for field in [&mut cell.name, &mut cell.subject, &mut cell.about] {
            *field = own(field);
        }
        cell.command.push(own("word"));
        cell.version = Some(own("version"));
    }
    for round in &mut run.rounds {
        round.noisy.push(own("noisy"));
    }
    run.spans.insert(own("area.step"), SpanText { call: own("call"), why: own("why") });
    for ladder in run.density.iter_mut().flat_map(|density| &mut density.ladders) {
        ladder.reason = Some(own("reason"));
    }
    for copies in [&mut run.snapshot, &mut run.clone].into_iter().flatten() {
        for cell in &mut copies.cells {
            for field in [&mut cell.name, &mut cell.subject, &mut cell.about] {
                *field = own(field);
            }
            cell.command.push(own("word"));
        }
        for sample in &mut copies.samples {
            if let CopyOutcome::Failed { reason } = &mut sample.outcome {
                *reason = own(reason);
            }
        }
    }
    for sample in &mut run.samples {
        match &mut sample.outcome {
            Outcome::Ready(timing) => timing.phases.iter_mut().for_each(|phase| phase.name = own(&phase.name).into()),
            Outcome::Failed { reason } => *reason = own(reason),
        }
    }
}
