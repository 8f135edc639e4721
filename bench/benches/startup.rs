//! The same starts as the main job's, under criterion: for who changes an engine and wants to know at once what that did.
//!
//! `cargo bench` compares with the last time by itself; `cargo bench -- container` measures one subject. Only the time from
//! t0 to READY counts: each start is taken down before the next begins, outside the clock. The group `hot` has what is done so
//! often that each of its nanoseconds counts.

use std::cell::Cell;
use std::hint::black_box;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use isolab_bench::host::hybrid;
use isolab_bench::host::roots::Roots;
use isolab_bench::payload::PAYLOAD;
use isolab_bench::siblings;
use isolab_bench::subject::{Catalogue, Choice, Lab, Peers, Subject};
use isolab_runtime::image::Digest;
use isolab_vmm::api::Attendant;
use isolab_vmm::guest::app::App;
use isolab_vmm::guest::bare::long_mode;
use isolab_vmm::guest::{Entry, Flow, Guest, GuestError};
use isolab_vmm::machine::{Config, Machine};
use isolab_vmm::memory::Memory;
use isolab_vmm::snapshot::state::State;
use isolab_vmm::snapshot::{Snapshot, format};
use isolab_vmm::units::Mib;
use isolab_vmm::vcpu::Cpu;
use kvm_bindings::{kvm_cpuid_entry2, kvm_regs, kvm_sregs};
use tracing::info_span;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};
use vm_memory::{Bytes, GuestAddress};

/// Every subject that this host can start, peers included.
fn startup(criterion: &mut Criterion) {
    siblings::build().expect("cargo builds the engines");
    hybrid::hide_for_all();
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
    let layer = vec![7_u8; 1 << 20];
    group.bench_function("layer_hash_1_mib", |bencher| bencher.iter(|| Digest::of(black_box(&layer))));
    match exits(1) {
        Ok(_) => {
            let of = |count| exits(count).expect("a machine");
            group.bench_function("vm_exit", |bencher| bencher.iter_custom(of));
            let state = state();
            group.bench_function("snapshot_encode", |bencher| bencher.iter(|| format::encode(black_box(&state))));
        }
        Err(error) => eprintln!("left out: vm_exit, snapshot_encode: {error}"),
    }
    group.bench_function("span_off", |bencher| bencher.iter(step));
    tracing::subscriber::set_global_default(Listener(AtomicU64::new(1))).expect("the first subscriber");
    group.bench_function("span_on", |bencher| bencher.iter(step));
    group.finish();
}

/// A guest that stores to an address without memory, over and over: each store leaves the machine, and comes back.
struct Exits {
    left: u64,
    begun: Option<Instant>,
    took: Rc<Cell<Duration>>,
}

impl Guest for Exits {
    fn load(&mut self, memory: &Memory, reset: &kvm_sregs, _: &[kvm_cpuid_entry2]) -> Result<Entry, GuestError> {
        // mov $0x2000000, %rax; 1: mov %al, (%rax); jmp 1b
        const NOWHERE: u64 = 0x0200_0000;
        let code: [u8; 14] = [0x48, 0xb8, 0, 0, 0, 2, 0, 0, 0, 0, 0x88, 0x00, 0xeb, 0xfc];
        memory.guest().write_slice(&code, GuestAddress(0x8000))?;
        let sregs = long_mode::enter(memory, reset)?;
        // What is mapped is what there is of memory; and an address that is not mapped would be a fault of the guest's, no exit.
        let table: u64 = (0..2).try_fold(sregs.cr3, |table, _| {
            let entry: u64 = memory.guest().read_obj(GuestAddress(table))?;
            Ok::<_, GuestError>(entry & !0xfff)
        })?;
        memory.guest().write_obj(NOWHERE | 0x83, GuestAddress(table + (NOWHERE >> 21) * 8))?;
        let regs = kvm_regs { rip: 0x8000, rsp: 0x8000, rflags: 2, ..kvm_regs::default() };
        Ok(Entry { regs, sregs, msrs: Vec::new(), xcr0: None })
    }

    fn store(&mut self, _: u64, _: &[u8], _: &mut Cpu<'_>, _: &Memory) -> Result<Flow, GuestError> {
        // The first is where the clock begins.
        let begun = *self.begun.get_or_insert_with(Instant::now);
        if self.left == 0 {
            self.took.set(begun.elapsed());
            return Ok(Flow::Exit(0));
        }
        self.left -= 1;
        Ok(Flow::Continue)
    }
}

/// How long so many exits take.
fn exits(count: u64) -> Result<Duration, Box<dyn std::error::Error>> {
    let took = Rc::new(Cell::new(Duration::ZERO));
    let guest = Exits { left: count, begun: None, took: took.clone() };
    let config = Config { memory: Mib(16), timeout: None };
    Machine::boot(&config, guest, std::io::sink())?.resume()?;
    Ok(took.get())
}

/// What a snapshot of the payload's machine keeps besides its memory.
fn state() -> State {
    let folder = tempfile::tempdir().expect("a folder");
    let (payload, place) = (folder.path().join("payload"), folder.path().join("snapshot"));
    std::fs::write(&payload, PAYLOAD).expect("the payload");
    let guest = App::open(&payload, &["nonce".into()], &[]).expect("a program");
    let config = Config { memory: Mib(64), timeout: None };
    let mut attendant = Attendant::default().saving_when_ready(Some(place.clone()));
    let machine = Machine::boot(&config, guest, std::io::sink()).expect("a machine");
    machine.resume_under(&mut attendant).expect("a snapshot");
    Snapshot::open(&place).expect("that snapshot").state
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
