//! What instances, snapshots and clones cost, under criterion: for who changes an engine and wants to know at once what that did.
//!
//! The group `density` is measured in bytes, not in time: criterion takes any number for which it is told how to add and to show it. It counts
//! proportional sets and the kernel's own memory, as the suite does where other programs move the host.

use std::time::Duration;

use criterion::measurement::{Measurement, ValueFormatter};
use criterion::{Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use isolab_bench::host::hybrid;
use isolab_bench::host::roots::Roots;
use isolab_bench::siblings;
use isolab_bench::subject::{Catalogue, Choice, Held, Lab, Peers, Subject};
use isolab_bench::suite::copies::{Single, clone, snapshot};
use isolab_bench::suite::density::{Rest, accounted};
use isolab_reports::units;

/// Bytes of memory.
struct Bytes;

impl Measurement for Bytes {
    type Intermediate = u64;
    type Value = u64;

    // Both are for routines that criterion itself brackets; ours hand in what they have counted.
    fn start(&self) -> u64 {
        0
    }

    fn end(&self, before: u64) -> u64 {
        before
    }

    fn add(&self, one: &u64, other: &u64) -> u64 {
        one + other
    }

    fn zero(&self) -> u64 {
        0
    }

    fn to_f64(&self, value: &u64) -> f64 {
        *value as f64
    }

    fn formatter(&self) -> &dyn ValueFormatter {
        &InKib
    }
}

/// Bytes as a reader wants them.
struct InKib;

impl ValueFormatter for InKib {
    fn format_value(&self, value: f64) -> String {
        units::bytes(value)
    }

    fn format_throughput(&self, _: &Throughput, value: f64) -> String {
        units::bytes(value)
    }

    fn scale_values(&self, _: f64, values: &mut [f64]) -> &'static str {
        for value in values {
            *value /= 1024.0;
        }
        "KiB"
    }

    fn scale_throughputs(&self, typical: f64, _: &Throughput, values: &mut [f64]) -> &'static str {
        self.scale_values(typical, values)
    }

    fn scale_for_machines(&self, _: &mut [f64]) -> &'static str {
        "bytes"
    }
}

/// How long the host may take to come to rest before each sample. A ladder is given more; but here are eleven samples to each of a
/// dozen subjects, and on a busy host each would wait all its time.
const REST: Duration = Duration::from_secs(1);

/// What one more of several costs, each proved and alive.
fn density(criterion: &mut Criterion<Bytes>) {
    siblings::build().expect("cargo builds the engines");
    hybrid::hide_for_all();
    let lab = Lab::open(Roots::of_user()).expect("a lab");
    let peers = Peers::default();
    let (subjects, _) = Catalogue::new(&lab, &peers).select(&Choice::All).expect("subjects");
    let mut rest = Rest::of_now();
    let mut group = criterion.benchmark_group("density");
    group.sample_size(10).sampling_mode(SamplingMode::Flat);
    group.warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    for subject in subjects.iter().filter(|subject| subject.stays()) {
        if let Err(reason) = subject.hold().map(drop) {
            eprintln!("left out: {}: {reason}", subject.about().name);
            continue;
        }
        group.bench_function(subject.about().name, |bencher| {
            bencher.iter_custom(|count| {
                rest.come_within(REST);
                more(&**subject, count)
            });
        });
    }
    group.finish();
}

/// What `count` times eight more cost, over eight that are there already: the first of them pays for what all share. Eight at a time, as
/// the kernel takes its memory in pieces larger than what one needs.
fn more(subject: &dyn Subject, count: u64) -> u64 {
    const EIGHT: u64 = 8;
    let start = |_| subject.hold().unwrap_or_else(|reason| panic!("{}: {reason}", subject.about().name));
    let mut held: Vec<Held> = (0..EIGHT).map(start).collect();
    let before = accounted(&held);
    held.extend((0..EIGHT * count).map(start));
    // Nothing where another program has given back more meanwhile; criterion takes no 0.
    (accounted(&held).saturating_sub(before) / EIGHT).max(1)
}

fn snapshots(criterion: &mut Criterion) {
    let lab = Lab::open(Roots::of_user()).expect("a lab");
    run(criterion, "snapshot", snapshot::benches(&lab));
}

fn clones(criterion: &mut Criterion) {
    let lab = Lab::open(Roots::of_user()).expect("a lab");
    run(criterion, "clone", clone::benches(&lab));
}

fn run(criterion: &mut Criterion, name: &str, singles: Vec<Single<'_>>) {
    siblings::build().expect("cargo builds the engines");
    let mut group = criterion.benchmark_group(name);
    group.sample_size(10).sampling_mode(SamplingMode::Flat);
    group.warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(3));
    for (cell, mut act) in singles {
        if let Err(reason) = act() {
            eprintln!("left out: {cell}: {reason}");
            continue;
        }
        group.bench_function(&cell, |bencher| {
            let mut once = || act().unwrap_or_else(|reason| panic!("{cell}: {reason}"));
            bencher.iter_custom(|count| Duration::from_nanos((0..count).map(|_| once()).sum()));
        });
    }
    group.finish();
}

criterion_group!(name = bytes; config = Criterion::default().with_measurement(Bytes); targets = density);
criterion_group!(times, snapshots, clones);
criterion_main!(bytes, times);
