//! `isolab-bench`: the lab's main command. Parses, calls one function, prints.

mod cli;

use std::process::ExitCode;
use std::time::Instant;

use clap::Parser as _;
use isolab_bench::host::{clean, doctor};
use isolab_bench::job::{self, JobError, Suite};
use isolab_bench::siblings::{self, SiblingError};
use isolab_bench::suite::overhead;
use isolab_bench::testbed::{self, TestbedError};
use isolab_bench::{clock, interrupt, summary};
use isolab_reports::analysis::Analysis;
use isolab_reports::model::{Run, Stop};
use isolab_reports::units;

use cli::{Cli, Command, DoctorArguments, RunArguments, TestbedArguments};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = match &cli.command {
        None => run(&cli.run),
        Some(Command::Run(arguments)) => run(arguments),
        Some(Command::Testbed(arguments)) => in_testbed(arguments),
        Some(Command::TestbedInit) => testbed::init(),
        Some(Command::Doctor(arguments)) => Ok(examine(arguments)),
    };
    outcome.unwrap_or_else(|failure| {
        eprintln!("error: {}", isolab_bench::chain(&failure));
        if let Some(hint) = failure.hint() {
            eprintln!("hint: {hint}");
        }
        ExitCode::from(failure.status())
    })
}

/// What the command itself can say went wrong.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Siblings(#[from] SiblingError),
    #[error(transparent)]
    Job(#[from] JobError),
    #[error(transparent)]
    Testbed(#[from] TestbedError),
}

impl Failure {
    /// What the command ends with.
    const fn status(&self) -> u8 {
        match self {
            Self::Testbed(error) => error.status(),
            _ => 1,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Siblings(error) => Some(error.hint().to_owned()),
            Self::Job(error) => Some(error.hint()),
            Self::Testbed(error) => error.hint(),
        }
    }
}

fn examine(arguments: &DoctorArguments) -> ExitCode {
    if arguments.clean {
        let cleaned = clean::clean(&arguments.place.roots());
        print!("{cleaned}");
        return if cleaned.left.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    print!("{}", doctor::run(arguments.json));
    ExitCode::SUCCESS
}

/// The exit status is that of the command.
fn in_testbed(arguments: &TestbedArguments) -> Result<ExitCode, Failure> {
    siblings::build()?;
    let status = testbed::run(&arguments.config())?;
    Ok(ExitCode::from(status as u8))
}

fn run(arguments: &RunArguments) -> Result<ExitCode, Failure> {
    if arguments.testbed {
        siblings::build()?;
        let status = testbed::run_lab(arguments.words_for_testbed(), &arguments.peers, &arguments.out)?;
        return Ok(ExitCode::from(status as u8));
    }
    let request = arguments.request(clock::now() & 0xffff_ffff, std::env::args().collect());
    siblings::build()?;
    let run = job::run(&request, Instant::now())?;
    let analysis = Analysis::of(&run);
    print!("{}{}", summary::table(&analysis), summary::density(&analysis));
    if let (true, Some(added)) = (request.suites.contains(&Suite::Overhead), overhead::added(&run)) {
        println!("the harness adds {}", summary::difference(&added));
    }
    println!("seed {}, {} in {}", run.plan.seed, stopped(&run), request.out.join("index.html").display());
    if let Some(signal) = interrupt::received() {
        return Ok(ExitCode::from(128 + signal as u8));
    }
    Ok(if job::any_proved(&run) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// How the run ended, in words.
fn stopped(run: &Run) -> String {
    let rounds = units::count(run.rounds.iter().filter(|round| !round.warmup).count(), "round");
    if run.cells.is_empty() {
        return "the report is".to_owned();
    }
    match run.stopped {
        Stop::Complete => format!("all of {rounds}: the report is"),
        Stop::Budget => format!("{rounds} of {} in the time given: the report is", run.plan.rounds),
        Stop::Interrupted => format!("interrupted after {rounds}: what there is is"),
    }
}
