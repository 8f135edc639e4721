//! The same starts as the main job's, under criterion: for who changes an engine and wants to know at once what that did.
//!
//! `cargo bench` compares with the last time by itself; `cargo bench -- container` measures one subject. Only the time from
//! t0 to READY counts: each start is taken down before the next begins, outside the clock.

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use isolab_bench::host::roots::Roots;
use isolab_bench::siblings;
use isolab_bench::subject::{Catalogue, Choice, Lab, Peers, Subject};
use tracing::info_span;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

/// Every subject that this host can start, peers included.
fn startup(criterion: &mut Criterion) {
    siblings::build().expect("cargo builds the engines");
    let lab = Lab::open(Roots::of_user()).expect("a lab");
    let peers = Peers::default();
    let (subjects, left_out) = Catalogue::new(&lab, &peers).select(&Choice::All).expect("subjects");
    for it in &left_out {
        eprintln!("left out: {}: {}; {}", it.name, it.reason, it.hint);
    }
    let mut group = criterion.benchmark_group("startup");
    group.sample_size(20).measurement_time(Duration::from_secs(8));
    for subject in &subjects {
        // A peer that can't run on this host (crun on a hybrid one) is no figure and no reason to stop.
        if let Err(reason) = subject.start() {
            eprintln!("left out: {}: {reason}", subject.about().name);
            continue;
        }
        group.bench_function(subject.about().name, |bencher| {
            bencher.iter_custom(|starts| (0..starts).map(|_| time_to_ready(&**subject)).sum());
        });
    }
    group.finish();
}

fn time_to_ready(subject: &dyn Subject) -> Duration {
    let started = subject.start().unwrap_or_else(|reason| panic!("{}: {reason}", subject.about().name));
    Duration::from_nanos(started.timing.ready_ns)
}

/// What a step costs when nobody listens, and when somebody does: the instrument must not be what it measures.
fn hot(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("hot");
    group.bench_function("span_off", |bencher| bencher.iter(step));
    tracing::subscriber::set_global_default(Listener(AtomicU64::new(1))).expect("the first subscriber");
    group.bench_function("span_on", |bencher| bencher.iter(step));
    group.finish();
}

fn step() {
    let _span = info_span!("bench.step", call = "none", why = "a step that does nothing is all instrument").entered();
    black_box(());
}

/// Takes each span, as the recorders of the engines do, but keeps none: a benchmark makes more than they have room for.
struct Listener(AtomicU64);

impl Subscriber for Listener {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_span()
    }

    fn new_span(&self, attributes: &Attributes<'_>) -> Id {
        black_box(attributes);
        Id::from_u64(self.0.fetch_add(1, Ordering::Relaxed))
    }

    fn enter(&self, _: &Id) {
        black_box(isolab_bench::clock::now());
    }

    fn exit(&self, _: &Id) {
        black_box(isolab_bench::clock::now());
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, _: &Event<'_>) {}
}

criterion_group!(benches, startup, hot);
criterion_main!(benches);
