//! How quiet the host was while something was measured: steal, other programs' CPU time, and pressure.
//!
//! A benchmark makes noise of its own, so each figure here answers one question: how much of this was *not us*?
//!
//! - **Steal** is CPU time that a hypervisor gave to others although a CPU of ours wanted it. It is never ours.
//! - **Other programs' share** is the CPU time that `/proc/stat` counts, less what this process and the children it
//!   has waited for used (getrusage(2)), less what the kernel's own threads used. Those work for us as well: taking a network
//!   namespace down, a start later, is a tenth of two CPUs' time in a run that starts one container after the other.
//! - **Pressure** (PSI, `/proc/pressure/cpu`) is the share of time in which some task waited for a CPU. The kernel does
//!   not say whose task. Sixteen subjects behind one barrier make pressure without anybody else on the host. But a fair
//!   scheduler lets a task wait about as long as it lets its rivals run: others can be part of a queue no longer
//!   than they had CPU time. So pressure counts up to the CPU time of others, and no further.
//! - **Load** is recorded and never judged: it decays over a minute, so it tells of the rounds before, and it counts us.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use isolab_reports::model::Fact;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;

use super::finding::Findings;
use super::read;

/// Steal above this marks a round. A start of 1 ms that loses a whole CPU for 10 µs is off by 1 %, less than the
/// smallest difference the lab ever calls one (5 %, or the noise floor).
const STEAL_MAX: f64 = 0.01;

/// Other programs' share of all CPUs above this marks a round: on two CPUs a fifth of one, enough for a subject
/// to meet another program on its CPU now and then, and to find its caches cold.
const OTHERS_MAX: f64 = 0.10;

/// ... but only with at least this much CPU time: the kernel charges a whole tick (4 ms at 250 Hz) to whoever it finds
/// running, and in a short round the error of that is a large share of little. This is thrice what it comes to in 40 ms.
const OTHERS_MIN: Duration = Duration::from_millis(25);

/// Pressure of others above this marks a round: one start in twenty met a queue.
const PRESSURE_MAX: f64 = 0.05;

/// What a round met besides the lab itself.
#[derive(Clone, Debug, PartialEq)]
pub struct RoundNoise {
    /// Load average over one minute at the round's start; 0 where the kernel does not tell.
    pub load1: f64,
    /// Share of all CPUs' time that a hypervisor gave to others, 0 to 1.
    pub steal: f64,
    /// Share of all CPUs' time that other programs used, 0 to 1.
    pub others: f64,
    /// Share of the round in which tasks that are not ours may have waited for a CPU, 0 to 1; none without PSI.
    pub cpu_pressure: Option<f64>,
    /// Why the round counts as noisy, in words; empty where it does not.
    pub noisy: Vec<String>,
}

/// The counters at the start of a round. Start it before the first subject, finish it after the last is reaped.
#[derive(Clone, Debug)]
pub struct Probe {
    load1: f64,
    started: Instant,
    before: Counters,
}

impl Probe {
    /// Reads the counters: a small file for each thread of the kernel, and a few more. About a millisecond, outside every
    /// start.
    pub fn start() -> Self {
        let load1 = read::text("/proc/loadavg").and_then(|text| load1(&text)).unwrap_or_default();
        Self { load1, started: Instant::now(), before: Counters::read() }
    }

    /// Reads them again, and judges.
    pub fn finish(self) -> RoundNoise {
        judge(self.load1, &self.before, &Counters::read(), self.started.elapsed())
    }
}

/// What the kernel has counted since boot, and what of it this process used.
#[derive(Clone, Debug, Default)]
struct Counters {
    cpus: Cpus,
    /// CPU time of this process and the children it has waited for.
    own: Duration,
    /// CPU time of each thread of the kernel, by its pid.
    kernel: BTreeMap<u32, Duration>,
    /// Time in which some task waited for a CPU.
    waiting: Option<Duration>,
}

impl Counters {
    fn read() -> Self {
        Self {
            cpus: read::text("/proc/stat").and_then(|text| Cpus::parse(&text)).unwrap_or_default(),
            own: own_time(),
            kernel: kernel_threads(),
            waiting: read::text("/proc/pressure/cpu").and_then(|text| some_total(&text)),
        }
    }
}

/// Time of all CPUs together, by what it went into, in ticks of 10 ms (proc(5), `/proc/stat`, line `cpu`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Cpus {
    /// In programs and in the kernel for them: user, nice, system.
    busy: u64,
    steal: u64,
    /// Everything, idle time included.
    all: u64,
}

impl Cpus {
    fn parse(stat: &str) -> Option<Self> {
        let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
        let field: Vec<u64> = line.split_ascii_whitespace().map(str::parse).collect::<Result<_, _>>().ok()?;
        // user nice system idle iowait irq softirq steal; guest and guest_nice follow, and are within user and nice.
        let [user, nice, system, .., steal] = field.get(..8)? else { return None };
        Some(Self { busy: user + nice + system, steal: *steal, all: field.iter().take(8).sum() })
    }

    fn since(self, before: Self) -> Self {
        Self {
            busy: self.busy.saturating_sub(before.busy),
            // The kernel's own accounting lets steal run backwards by a tick at times.
            steal: self.steal.saturating_sub(before.steal),
            all: self.all.saturating_sub(before.all),
        }
    }
}

/// Length of a tick as `/proc/stat` shows it: `USER_HZ` is 100 on x86-64, whatever the kernel's own rate.
const TICK: Duration = Duration::from_millis(10);

fn judge(load1: f64, before: &Counters, after: &Counters, elapsed: Duration) -> RoundNoise {
    let cpus = after.cpus.since(before.cpus);
    let all = TICK.as_secs_f64() * cpus.all.max(1) as f64;
    let known = after.own.saturating_sub(before.own) + kernel_time(&before.kernel, &after.kernel);
    let others_time = (TICK * cpus.busy as u32).saturating_sub(known);
    let others = (others_time.as_secs_f64() / all).min(1.0);
    let steal = cpus.steal as f64 / cpus.all.max(1) as f64;
    let cpu_pressure = match (before.waiting, after.waiting) {
        (Some(before), Some(after)) => Some(pressure_of_others(after.saturating_sub(before), others_time, elapsed)),
        _ => None,
    };
    let mut noisy = Vec::new();
    if steal > STEAL_MAX {
        noisy.push(format!("a hypervisor took {} of the CPU time (steal)", read::percent(steal)));
    }
    let evident = others_time >= OTHERS_MIN;
    if evident && others > OTHERS_MAX {
        noisy.push(format!("other programs used {} of the CPUs", read::percent(others)));
    }
    if let Some(pressure) = cpu_pressure.filter(|pressure| evident && *pressure > PRESSURE_MAX) {
        noisy.push(format!("others' tasks waited for a CPU up to {} of the time", read::percent(pressure)));
    }
    RoundNoise { load1, steal, others, cpu_pressure, noisy }
}

/// The part of the time in which some task waited that can have been others': see the module's text.
fn pressure_of_others(waiting: Duration, others: Duration, elapsed: Duration) -> f64 {
    let span = elapsed.as_secs_f64();
    if span > 0.0 { (waiting.min(others).as_secs_f64() / span).min(1.0) } else { 0.0 }
}

/// CPU time of this process and its reaped children, and of theirs.
fn own_time() -> Duration {
    [UsageWho::RUSAGE_SELF, UsageWho::RUSAGE_CHILDREN]
        .into_iter()
        .filter_map(|who| getrusage(who).ok())
        .map(|usage| usage.user_time().num_microseconds() + usage.system_time().num_microseconds())
        .map(|micros| Duration::from_micros(micros.max(0) as u64))
        .sum()
}

/// What the kernel's threads used in between. One that was not there before has used all its time since; one that is gone
/// takes its time along, which is rare: an idle worker is kept for minutes.
fn kernel_time(before: &BTreeMap<u32, Duration>, after: &BTreeMap<u32, Duration>) -> Duration {
    after.iter().map(|(pid, time)| time.saturating_sub(before.get(pid).copied().unwrap_or_default())).sum()
}

/// CPU time of each child of `kthreadd`, which is process 2 wherever all processes can be seen. In a pid namespace, and on
/// a kernel without scheduler statistics, none are: then their work stays with the others'.
fn kernel_threads() -> BTreeMap<u32, Duration> {
    if read::text("/proc/2/comm").as_deref() != Some("kthreadd") {
        return BTreeMap::new();
    }
    let children = read::text("/proc/2/task/2/children").unwrap_or_default();
    let time = |pid: u32| {
        let statistics = read::text(format!("/proc/{pid}/schedstat"))?;
        Some((pid, Duration::from_nanos(statistics.split(' ').next()?.parse().ok()?)))
    };
    children.split_whitespace().filter_map(|pid| time(pid.parse().ok()?)).collect()
}

fn load1(loadavg: &str) -> Option<f64> {
    loadavg.split_ascii_whitespace().next()?.parse().ok()
}

/// `some avg10=0.00 avg60=0.00 avg300=0.00 total=13599271`: microseconds (Documentation/accounting/psi.rst).
fn some_total(pressure: &str) -> Option<Duration> {
    let some = pressure.lines().find_map(|line| line.strip_prefix("some "))?;
    let total = some.split(' ').find_map(|field| field.strip_prefix("total="))?;
    total.parse().ok().map(Duration::from_micros)
}

/// How long the doctor listens. Twenty ticks for each CPU: enough to see a busy program, short enough not to annoy.
const LISTEN: Duration = Duration::from_millis(200);

/// What the host is busy with just now, while this process sleeps.
pub(crate) fn look() -> Vec<Fact> {
    let probe = Probe::start();
    std::thread::sleep(LISTEN);
    describe(&probe.finish())
}

fn describe(noise: &RoundNoise) -> Vec<Fact> {
    const QUIET: &str = "stop other work on this host, or expect wider intervals; noisy rounds are marked, not dropped";
    let mut findings = Findings::on("noise");
    findings.info("load", format!("{:.2} over the last minute", noise.load1));
    let steal = format!("{} of the CPU time", read::percent(noise.steal));
    if noise.steal > STEAL_MAX {
        findings.warn(
            "steal",
            steal,
            "the hypervisor is overbooked: run again at another hour, or on a host of your own",
        );
    } else {
        findings.ok("steal", steal);
    }
    let others = format!("{} of the CPUs", read::percent(noise.others));
    if noise.others > OTHERS_MAX {
        findings.warn("other programs", others, QUIET);
    } else {
        findings.ok("other programs", others);
    }
    match noise.cpu_pressure {
        Some(pressure) if pressure > PRESSURE_MAX => {
            findings.warn("pressure", format!("a task waits for a CPU {} of the time", read::percent(pressure)), QUIET);
        }
        Some(pressure) => {
            findings.ok("pressure", format!("a task waits for a CPU {} of the time", read::percent(pressure)));
        }
        None => findings.warn(
            "pressure",
            "this kernel does not tell (no PSI)",
            "boot with psi=1, where the kernel has CONFIG_PSI",
        ),
    }
    findings.into_facts()
}

#[cfg(test)]
mod tests {
    use isolab_reports::model::Status;

    use super::super::finding::tests::{assert_hints, fact};
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn counters(busy: u64, steal: u64, all: u64, own_ms: u64, waiting_ms: u64) -> Counters {
        Counters {
            cpus: Cpus { busy, steal, all },
            own: Duration::from_millis(own_ms),
            kernel: BTreeMap::from([(7, Duration::from_millis(40))]),
            waiting: Some(Duration::from_millis(waiting_ms)),
        }
    }

    /// One second of two CPUs.
    fn second(busy: u64, steal: u64, own_ms: u64, waiting_ms: u64) -> RoundNoise {
        judge(
            0.5,
            &counters(1000, 10, 90_000, 500, 7000),
            &counters(1000 + busy, 10 + steal, 90_200, 500 + own_ms, 7000 + waiting_ms),
            SECOND,
        )
    }

    #[test]
    fn the_kernels_counters_are_read() {
        let stat = "cpu  4220 2718 4597 1165031 441 3 64 10 5 0\ncpu0 1 2 3 4 5 6 7 8 9 10\nintr 297522 0\n";
        assert_eq!(Cpus::parse(stat), Some(Cpus { busy: 11_535, steal: 10, all: 1_177_084 }));
        assert_eq!(Cpus::parse("cpu  1 2 3 4 5 6 7\n"), None);
        assert_eq!(Cpus::parse(""), None);
        let pressure =
            "some avg10=0.00 avg60=0.00 avg300=0.01 total=13599271\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0";
        assert_eq!(some_total(pressure), Some(Duration::from_micros(13_599_271)));
        assert_eq!(some_total("full avg10=0.00 total=1"), None);
        assert_eq!(load1("1.25 0.01 0.00 1/93 10757"), Some(1.25));
    }

    #[test]
    fn what_the_lab_itself_uses_is_not_noise() {
        let noise = second(180, 0, 1800, 900);
        assert_eq!(noise.noisy, Vec::<String>::new());
        assert!(noise.others < 1e-9);
        assert_eq!(noise.cpu_pressure, Some(0.0), "nobody else ran, so nobody else waited");
    }

    #[test]
    fn what_the_kernels_threads_do_is_not_anothers() {
        let before = counters(1000, 0, 90_000, 0, 0);
        let mut after = counters(1060, 0, 90_200, 0, 300);
        after.kernel = BTreeMap::from([(7, Duration::from_millis(440)), (8, Duration::from_millis(200))]);
        let noise = judge(0.0, &before, &after, SECOND);
        assert!(noise.others < 1e-9 && noise.noisy.is_empty(), "{noise:?}");
    }

    #[test]
    fn a_busy_neighbour_is_noise_by_its_cpu_time_and_its_queue() {
        let noise = second(150, 0, 500, 400);
        assert!((noise.others - 0.5).abs() < 1e-9);
        assert_eq!(noise.cpu_pressure, Some(0.4));
        assert_eq!(
            noise.noisy,
            ["other programs used 50 % of the CPUs", "others' tasks waited for a CPU up to 40 % of the time"]
        );
    }

    #[test]
    fn pressure_counts_no_further_than_others_ran() {
        let noise = second(110, 0, 1000, 800);
        assert_eq!(noise.cpu_pressure, Some(0.1));
    }

    #[test]
    fn steal_above_one_percent_is_noise_and_below_is_not() {
        assert_eq!(second(0, 2, 0, 0).noisy, Vec::<String>::new());
        assert_eq!(second(0, 6, 0, 0).noisy, ["a hypervisor took 3.0 % of the CPU time (steal)"]);
    }

    #[test]
    fn a_single_tick_in_a_short_round_is_no_evidence() {
        let noise = judge(0.0, &counters(0, 0, 0, 0, 0), &counters(2, 0, 10, 0, 30), Duration::from_millis(50));
        assert!(noise.others > OTHERS_MAX);
        assert_eq!(noise.noisy, Vec::<String>::new());
    }

    #[test]
    fn counters_that_stand_still_or_run_backwards_are_survived() {
        let same = counters(5, 5, 50, 5, 5);
        assert_eq!(judge(0.0, &same, &same, Duration::ZERO).noisy, Vec::<String>::new());
        let back = judge(0.0, &counters(9, 9, 90, 9, 9), &same, SECOND);
        assert_eq!((back.steal, back.others, back.cpu_pressure), (0.0, 0.0, Some(0.0)));
    }

    #[test]
    fn a_kernel_without_psi_is_told_so() {
        let facts =
            describe(&RoundNoise { load1: 0.1, steal: 0.02, others: 0.3, cpu_pressure: None, noisy: Vec::new() });
        assert_eq!(fact(&facts, "pressure").status, Status::Warn);
        assert_eq!(fact(&facts, "steal").status, Status::Warn);
        assert_hints(&facts);
    }

    #[test]
    fn the_probe_gives_shares_on_this_very_host() {
        let noise = Probe::start().finish();
        assert!((0.0..=1.0).contains(&noise.steal) && (0.0..=1.0).contains(&noise.others));
    }
}
