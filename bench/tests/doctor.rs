//! The doctor on this very host: what it says is true here, and what it tries leaves nothing behind.
//!
//! A trial that needs what a host may lack is shown as ignored there, and fails where `ISOLAB_REQUIRE` names the need.

mod needs;

use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, Instant};

use isolab_bench::host::doctor::{self, Examination, Form};
use isolab_bench::host::guest_speed::{self, Mode};
use isolab_bench::host::{AREAS, record};
use isolab_reports::model::Host;
use kvm_ioctls::Kvm;
use libtest_mimic::Arguments;

use needs::{Done, ensure, trial};

fn main() {
    let trials = vec![
        trial("the_doctor_speaks_json_with_every_area_in_it", &[], json_has_every_area),
        trial("the_doctor_is_done_within_two_seconds_and_fits_its_page", &[], in_time_and_in_width),
        trial("an_examination_leaves_no_mount_cgroup_or_process_behind", &[], leaves_nothing),
        trial("guest_code_has_a_finite_measured_speed_in_both_modes", &["kvm"], speed_is_measured),
        trial("root_mounts_overlays", &["root"], root_can),
    ];
    // One at a time: trials look for traces that another trial's examination has for a moment.
    let arguments = Arguments { test_threads: Some(1), ..Arguments::from_args() };
    libtest_mimic::run(&arguments, trials).exit();
}

fn json_has_every_area() -> Done {
    let text = doctor::run(true).to_string();
    let host: Host = serde_json::from_str(&text)?;
    let areas: BTreeSet<_> = host.facts.iter().map(|fact| fact.area.as_str()).collect();
    ensure(areas == BTreeSet::from(AREAS), format!("areas: {areas:?}"))?;
    let names: BTreeSet<_> = host.facts.iter().map(|fact| (&fact.area, &fact.name)).collect();
    ensure(names.len() == host.facts.len(), "a fact's name occurs twice in its area")
}

fn in_time_and_in_width() -> Done {
    let start = Instant::now();
    let host = record();
    let took = start.elapsed();
    ensure(took < Duration::from_secs(2), format!("took {took:?}"))?;
    let form = Form::Text { width: 80, colour: false };
    let page = Examination { host, form }.to_string();
    let wide: Vec<_> = page.lines().filter(|line| line.chars().count() > 80 && line.trim().contains(' ')).collect();
    ensure(wide.is_empty(), format!("wider than 80 columns: {wide:#?}"))
}

fn leaves_nothing() -> Done {
    let before = traces();
    record();
    let after = traces();
    ensure(before == after, format!("before: {before:#?}\nafter: {after:#?}"))
}

/// What an examination could leave: mounts on /tmp, groups of its name, children of this process.
fn traces() -> Vec<String> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let groups = mounts.lines().filter(|line| line.contains(" cgroup")).filter_map(|line| line.split(' ').nth(1));
    let groups = groups.flat_map(|point| fs::read_dir(point).into_iter().flatten().flatten());
    let groups = groups.map(|entry| entry.path().display().to_string()).filter(|path| path.contains("isolab-doctor"));
    let children = fs::read_to_string("/proc/thread-self/children").unwrap_or_default();
    let on_tmp = |line: &&str| line.split(' ').nth(1).is_some_and(|point| point == "/tmp" || point == "/tmp/m");
    mounts.lines().filter(on_tmp).map(str::to_owned).chain(groups).chain([children]).collect()
}

fn speed_is_measured() -> Done {
    let kvm = Kvm::new()?;
    for mode in [Mode::Kernel, Mode::User] {
        let speed = guest_speed::measure(&kvm, mode)?;
        // 2: a measurement may be off on a busy host, but no guest is twice as fast as its host.
        ensure(speed.is_finite() && speed > 0.0 && speed < 2.0, format!("{mode:?}: {speed}"))?;
    }
    let host = record();
    ensure(host.kvm_driver.is_some() && host.guest_kernel_speed.is_some(), "the record has no driver or no speed")
}

fn root_can() -> Done {
    let host = record();
    let value = |area: &str, name: &str| {
        let found = host.facts.iter().find(|fact| fact.area == area && fact.name == name);
        found.map(|fact| fact.value.clone()).unwrap_or_default()
    };
    ensure(value("namespaces", "overlayfs") == "mounted one", value("namespaces", "overlayfs"))
}
