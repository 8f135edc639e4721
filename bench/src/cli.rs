//! The command line of `isolab-bench`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use isolab_bench::host::roots::Roots;
use isolab_bench::job::{self, Request, Suite};
use isolab_bench::plan::Terms;
use isolab_bench::subject::{Choice, PeerPath};
use isolab_bench::suite::{copies, density};
use isolab_bench::testbed::{self, Forward};

/// Processes, containers and microVMs on one clock.
///
/// Without a command it measures this machine and writes the report: `isolab-bench run`.
#[derive(Debug, Parser)]
#[command(name = "isolab-bench", version, args_conflicts_with_subcommands = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    #[command(flatten)]
    pub(crate) run: RunArguments,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Measure every subject: how long it takes to start, what it costs in memory; and write the report
    Run(RunArguments),
    /// Run a command in an emulated Linux machine that has a stock KVM and control groups of version 2
    Testbed(TestbedArguments),
    /// The first process in that machine
    #[command(hide = true)]
    TestbedInit,
    /// Tell what this host can do, and what to do about what it can't
    Doctor(DoctorArguments),
}

#[derive(Debug, Args)]
pub(crate) struct RunArguments {
    /// What to measure, separated by commas
    #[arg(
        long,
        value_enum,
        value_name = "LIST",
        value_delimiter = ',',
        default_value = "startup,density,snapshot,clone"
    )]
    pub(crate) suite: Vec<SuiteName>,
    /// Subjects, separated by commas [default: all that this host can start]
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub(crate) subjects: Option<Vec<String>>,
    /// Rounds after the warm-up, at the most
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) rounds: Option<u32>,
    /// Time for the whole run, at the most: 90s, 3m, 1h; startup, density, snapshot and clone share it as 4, 2, 1 and 1
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub(crate) budget: Option<Duration>,
    /// Seed of the order; the same seed gives the same plan [default: another one each time]
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,
    /// How many to start at once, separated by commas, each behind a barrier
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=256))]
    pub(crate) parallel: Option<Vec<u32>>,
    /// Instances alive at once, at the most, when density is measured
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) max: Option<u32>,
    /// Mebibytes that each of them touches after READY
    #[arg(long, value_name = "MIB", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=1_048_576))]
    pub(crate) touch: u32,
    /// Mebibytes that must stay available; density ends before less is left [default: a tenth of the host's, at least 512]
    #[arg(long, value_name = "MIB")]
    pub(crate) reserve: Option<u32>,
    /// Let the kernel merge equal pages (KSM) while density is measured; afterwards it is as it was
    #[arg(long)]
    pub(crate) ksm: bool,
    /// Where a peer's program lies: runc, crun, youki, bwrap, podman, docker, firecracker, qemu-microvm or cloud-hypervisor; may be repeated
    #[arg(long = "peer", value_name = "NAME=PATH")]
    pub(crate) peers: Vec<PeerPath>,
    /// The report's folder: a new one, an empty one, or that of an earlier report
    #[arg(long, value_name = "DIR", default_value = "isolab-report")]
    pub(crate) out: PathBuf,
    /// Few rounds, few instances, small machines; in less than two minutes
    #[arg(long)]
    pub(crate) quick: bool,
    /// Measure in an emulated machine (see `isolab-bench testbed`): only ratios mean anything there
    #[arg(long, conflicts_with = "root")]
    pub(crate) testbed: bool,
    #[command(flatten)]
    pub(crate) place: Place,
}

#[derive(Debug, Args)]
pub(crate) struct TestbedArguments {
    /// CPUs of the machine; with more than one the emulator now and then breaks a virtual machine in it
    #[arg(long, value_name = "N", default_value_t = testbed::CPUS, value_parser = clap::value_parser!(u32).range(1..=64))]
    cpus: u32,
    /// Features that they shall not have, as QEMU names them: avx2,rdrand
    #[arg(long, value_name = "FEATURE", value_delimiter = ',', value_parser = feature)]
    without: Vec<String>,
    /// Its memory; all its files are in it
    #[arg(long, value_name = "MIB", default_value_t = 3072, value_parser = clap::value_parser!(u32).range(256..=1_048_576))]
    memory: u32,
    /// A file or folder to bring along, into /forward, or HOST=GUEST: to that path; may be repeated
    #[arg(long, value_name = "FILE")]
    forward: Vec<Forward>,
    /// The kernel to boot [default: Debian's for clouds, fetched once and kept]
    #[arg(long, value_name = "FILE")]
    kernel: Option<PathBuf>,
    /// End the machine after this time, boot included: 90s, 3m, 1h
    #[arg(long, value_name = "TIME", value_parser = time)]
    timeout: Option<Duration>,
    /// Where to put the files that the command leaves in $OUT
    #[arg(long, value_name = "DIR", default_value = "testbed-out")]
    out: PathBuf,
    /// The command, which runs as root
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

impl TestbedArguments {
    pub(crate) fn config(&self) -> testbed::Config {
        testbed::Config {
            cpus: self.cpus,
            without: self.without.clone(),
            memory: self.memory,
            forward: self.forward.clone(),
            kernel: self.kernel.clone(),
            timeout: self.timeout,
            out: self.out.clone(),
            ..testbed::Config::new(self.command.clone())
        }
    }
}

/// A name of the emulator's for what a CPU can do: no other of its words.
fn feature(text: &str) -> Result<String, String> {
    let names = |letter: char| letter.is_ascii_alphanumeric() || "-_.".contains(letter);
    if !text.is_empty() && text.chars().all(names) {
        Ok(text.to_owned())
    } else {
        Err("no name of a feature".to_owned())
    }
}

#[derive(Debug, Args)]
pub(crate) struct DoctorArguments {
    /// As JSON: the `host` object of a run.json
    #[arg(long)]
    pub(crate) json: bool,
    /// Remove what killed runs left: processes, containers, control groups, mounts, files
    #[arg(long, conflicts_with = "json")]
    pub(crate) clean: bool,
    #[command(flatten)]
    pub(crate) place: Place,
}

#[derive(Debug, Args)]
pub(crate) struct Place {
    /// Keep state and images below this folder [default: /run/isolab and /var/lib/isolab, for an ordinary user the XDG
    /// folders]
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
}

impl Place {
    pub(crate) fn roots(&self) -> Roots {
        match &self.root {
            Some(root) => Roots { runtime: root.join("run"), data: root.join("data") },
            None => Roots::of_user(),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum SuiteName {
    /// From nothing to READY and back, alone and several at once
    Startup,
    /// What the harness itself adds to a start; alone
    Overhead,
    /// What each of many instances alive at once costs in memory
    Density,
    /// What it costs to save a running machine or container, and to go on from that
    Snapshot,
    /// What a linked clone costs beside a full one
    Clone,
}

/// What a run does unless it is told otherwise.
struct Defaults {
    rounds: u32,
    warmup: u32,
    budget: Duration,
    parallel: &'static [u32],
}

/// How far density goes unless it is told otherwise: instances, passes, seconds.
const DENSITY: (u32, u32, u64) = (256, 3, 130);
const DENSITY_QUICK: (u32, u32, u64) = (16, 2, 25);

/// Rounds of snapshots and of clones, and their seconds, unless it is told otherwise.
const COPIES: (u32, u64, u64) = (30, 90, 60);
const COPIES_QUICK: (u32, u64, u64) = (6, 25, 25);

impl RunArguments {
    fn suites(&self) -> Vec<Suite> {
        let mut suites = Vec::new();
        for name in &self.suite {
            let suite = match name {
                SuiteName::Startup => Suite::Startup,
                SuiteName::Overhead => Suite::Overhead,
                SuiteName::Density => Suite::Density,
                SuiteName::Snapshot => Suite::Snapshot,
                SuiteName::Clone => Suite::Clone,
            };
            if !suites.contains(&suite) {
                suites.push(suite);
            }
        }
        suites
    }

    fn defaults(&self) -> Defaults {
        let seconds = Duration::from_secs;
        match (self.suite.contains(&SuiteName::Overhead), self.quick) {
            (false, false) => Defaults { rounds: 200, warmup: 3, budget: seconds(140), parallel: &[1, 2, 4, 8] },
            (false, true) => Defaults { rounds: 20, warmup: 1, budget: seconds(20), parallel: &[1, 4] },
            (true, false) => Defaults { rounds: 2000, warmup: 20, budget: seconds(60), parallel: &[1] },
            (true, true) => Defaults { rounds: 200, warmup: 5, budget: seconds(20), parallel: &[1] },
        }
    }

    /// How far density goes.
    fn density(&self, seed: u64) -> density::Terms {
        let (most, passes, seconds) = if self.quick { DENSITY_QUICK } else { DENSITY };
        density::Terms {
            seed,
            most: self.max.unwrap_or(most),
            touch_mib: self.touch,
            reserve_mib: self.reserve,
            passes,
            budget: self.share(Suite::Density).unwrap_or(Duration::from_secs(seconds)),
            ksm: self.ksm,
        }
    }

    /// How far the suites of copies go.
    fn copies(&self, suite: Suite, seed: u64) -> copies::Terms {
        let (rounds, snapshot, clone) = if self.quick { COPIES_QUICK } else { COPIES };
        let seconds = if suite == Suite::Snapshot { snapshot } else { clone };
        copies::Terms {
            seed,
            rounds: self.rounds.unwrap_or(rounds),
            budget: self.share(suite).unwrap_or(Duration::from_secs(seconds)),
            quick: self.quick,
        }
    }

    /// A suite's part of the time that was given; none where none was.
    fn share(&self, suite: Suite) -> Option<Duration> {
        let part = |suite: Suite| match suite {
            Suite::Startup | Suite::Overhead => 4,
            Suite::Density => 2,
            Suite::Snapshot | Suite::Clone => 1,
        };
        let all: u32 = self.suites().into_iter().map(part).sum();
        self.budget.map(|budget| budget * part(suite) / all.max(1))
    }

    /// These arguments as words for a run in the testbed, save those that only this host can follow: where the report goes, and
    /// where peers lie. What nobody has chosen is chosen for a machine of one slow processor: each start alone, and more time.
    pub(crate) fn words_for_testbed(&self) -> Vec<String> {
        fn list(items: &[impl ToString]) -> String {
            items.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
        }
        let options = [
            ("--suite", Some(job::names(&self.suites()))),
            ("--subjects", self.subjects.as_deref().map(list)),
            ("--rounds", self.rounds.map(|rounds| rounds.to_string())),
            ("--budget", Some(self.budget.unwrap_or(self.testbed_budget()).as_secs().to_string())),
            ("--seed", self.seed.map(|seed| seed.to_string())),
            ("--parallel", Some(self.parallel.as_deref().map_or_else(|| "1".to_owned(), list))),
            ("--max", self.max.map(|most| most.to_string())),
            ("--touch", (self.touch > 0).then(|| self.touch.to_string())),
            ("--reserve", self.reserve.map(|mib| mib.to_string())),
        ];
        let given = options.into_iter().filter_map(|(name, value)| Some([name.to_owned(), value?]));
        let flags = [(self.ksm, "--ksm"), (self.quick, "--quick")];
        given.flatten().chain(flags.into_iter().filter(|(set, _)| *set).map(|(_, name)| name.to_owned())).collect()
    }

    /// A kernel that boots there takes ten seconds, and twice as long under a monitor with a firmware.
    const fn testbed_budget(&self) -> Duration {
        if self.quick { Duration::from_mins(4) } else { Duration::from_mins(16) }
    }

    /// What the library is asked for. `seed` is used where none was given.
    pub(crate) fn request(&self, seed: u64, command: Vec<String>) -> Request {
        let defaults = self.defaults();
        let mut parallel = self.parallel.clone().unwrap_or_else(|| defaults.parallel.to_vec());
        parallel.sort_unstable();
        parallel.dedup();
        let suites = self.suites();
        let seed = self.seed.unwrap_or(seed);
        let rounds_only = if self.suite.contains(&SuiteName::Overhead) { Suite::Overhead } else { Suite::Startup };
        Request {
            subjects: self.subjects.clone().map_or(Choice::All, Choice::Named),
            peers: self.peers.clone(),
            parallel,
            terms: Terms {
                suite: job::names(&suites),
                seed,
                warmup_rounds: defaults.warmup,
                rounds: self.rounds.unwrap_or(defaults.rounds),
                budget_s: Some(self.share(rounds_only).unwrap_or(defaults.budget).as_secs()),
            },
            density: self.density(seed),
            snapshot: self.copies(Suite::Snapshot, seed),
            clone: self.copies(Suite::Clone, seed),
            suites,
            roots: self.place.roots(),
            out: self.out.clone(),
            command,
        }
    }
}

/// `90s`, `3m`, `1h`; a bare number is seconds.
fn time(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let unit = match text.get(digits.len()..).unwrap_or_default() {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return Err("expected a number of seconds, minutes or hours: 90s, 3m, 1h".to_owned()),
    };
    let number: u64 = digits.parse().map_err(|_| "expected a whole number and a unit: 90s, 3m, 1h".to_owned())?;
    match number.checked_mul(unit) {
        Some(seconds @ 1..=604_800) => Ok(Duration::from_secs(seconds)),
        _ => Err("expected between a second and a week".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn run(words: &[&str]) -> Request {
        let cli = Cli::try_parse_from(std::iter::once(&"isolab-bench").chain(words)).unwrap();
        let arguments = match cli.command {
            Some(Command::Run(arguments)) => arguments,
            _ => cli.run,
        };
        arguments.request(77, Vec::new())
    }

    fn refused(words: &[&str]) -> String {
        Cli::try_parse_from(std::iter::once(&"isolab-bench").chain(words)).unwrap_err().to_string()
    }

    #[test]
    fn the_command_line_holds_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn no_command_is_the_main_job() {
        assert_eq!(run(&[]).terms, run(&["run"]).terms);
        let request = run(&["--quick", "--seed", "9"]);
        assert_eq!((request.terms.seed, request.parallel), (9, vec![1, 4]));
        assert_eq!(run(&[]).subjects, Choice::All);
        assert_eq!(run(&[]).terms.seed, 77);
    }

    #[test]
    fn a_run_in_the_testbed_is_the_run_that_was_asked_for() {
        // And what is chosen where nothing was asked for.
        for (words, more) in [
            (&["run"][..], &["--parallel", "1", "--budget", "16m"][..]),
            (&["run", "--quick", "--seed", "9", "--subjects", "runc,process"], &["--parallel", "1", "--budget", "4m"]),
            (&["run", "--suite", "overhead", "--parallel", "8,1", "--budget", "3m", "--rounds", "5"], &[]),
            (
                &[
                    "run",
                    "--suite",
                    "density",
                    "--max",
                    "7",
                    "--touch",
                    "4",
                    "--reserve",
                    "900",
                    "--budget",
                    "3m",
                    "--ksm",
                ],
                &["--parallel", "1"],
            ),
        ] {
            let cli = Cli::try_parse_from(std::iter::once(&"isolab-bench").chain(words).chain(&["--testbed"])).unwrap();
            let Some(Command::Run(arguments)) = cli.command else { panic!("not a run") };
            let again = arguments.words_for_testbed();
            let inside = run(&[&["run"][..], &again.iter().map(String::as_str).collect::<Vec<_>>()].concat());
            let asked = run(&[words, more].concat());
            assert_eq!((inside.terms, inside.subjects), (asked.terms, asked.subjects), "{again:?}");
            assert_eq!((inside.suites, inside.parallel), (asked.suites, asked.parallel), "{again:?}");
            assert_eq!(inside.density, asked.density, "{again:?}");
            assert_eq!((inside.snapshot, inside.clone), (asked.snapshot, asked.clone), "{again:?}");
        }
    }

    #[test]
    fn suites_share_the_time_that_is_given() {
        let both = run(&["run", "--suite", "startup,density", "--budget", "90s"]);
        assert_eq!((both.terms.budget_s, both.density.budget), (Some(60), Duration::from_secs(30)));
        assert_eq!((both.terms.suite.as_str(), both.suites.len()), ("startup,density", 2));
        let all = run(&["run", "--budget", "80s"]);
        let seconds = [all.density.budget, all.snapshot.budget, all.clone.budget].map(|budget| budget.as_secs());
        assert_eq!((all.terms.budget_s, seconds), (Some(40), [20, 10, 10]));
        let one = run(&["run", "--suite", "density,density", "--budget", "90s", "--seed", "4"]);
        assert_eq!(
            (one.suites, one.density.budget, one.density.seed),
            (vec![Suite::Density], Duration::from_secs(90), 4)
        );
    }

    #[test]
    fn a_command_for_the_testbed_comes_after_two_dashes() {
        let machine = ["--cpus", "1", "--without", "avx2,sse4.1", "--forward", "/etc/passwd"];
        let words = ["isolab-bench", "testbed"].into_iter().chain(machine).chain(["--", "ls", "--all"]);
        let Some(Command::Testbed(arguments)) = Cli::try_parse_from(words).unwrap().command else {
            panic!("not a testbed")
        };
        let config = arguments.config();
        assert_eq!((config.cpus, config.forward.len()), (1, 1));
        assert_eq!(config.without, ["avx2", "sse4.1"]);
        assert_eq!(config.command, ["ls", "--all"]);
        assert!(refused(&["testbed", "--without", "avx2 -monitor", "--", "ls"]).contains("feature"));
        assert!(refused(&["testbed"]).contains("COMMAND"));
        assert!(refused(&["testbed", "--memory", "1", "--", "ls"]).contains("256.."));
    }

    #[test]
    fn lists_and_times_are_read() {
        let request =
            run(&["run", "--subjects", "runc,process", "--parallel", "8,1,8", "--budget", "3m", "--rounds", "5"]);
        assert_eq!(request.subjects, Choice::Named(vec!["runc".into(), "process".into()]));
        assert_eq!(request.parallel, [1, 8]);
        assert_eq!((request.terms.budget_s, request.terms.rounds), (Some(90), 5));
        for (text, seconds) in [("90", 90), ("90s", 90), ("2h", 7200)] {
            assert_eq!(time(text), Ok(Duration::from_secs(seconds)));
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_what_would() {
        for text in ["", "s", "-1s", "1.5m", "3 m", "3x", "0", "99999999h", "18446744073709551615h"] {
            assert!(time(text).is_err(), "{text}");
        }
        assert!(refused(&["run", "--budget", "soon"]).contains("90s, 3m, 1h"));
        assert!(refused(&["run", "--parallel", "0"]).contains("1..=256"));
        assert!(refused(&["run", "--peer", "lxc=/bin/sh"]).contains("docker, firecracker, qemu-microvm"));
        assert!(refused(&["run", "--suite", "speed"]).contains("startup"));
        assert!(refused(&["run", "--max", "0"]).contains("1..=10000"));
    }
}
