//! `isolab-report`: makes the report of a run again from its `run.json`, holds two runs against each other, and
//! shows what criterion has measured.

use std::error::Error;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use isolab_reports::compare::{self, Comparison};
use isolab_reports::criterion::{self, CriterionError};
use isolab_reports::folder::{self, FolderError, Record};
use isolab_reports::model::Run;
use isolab_reports::pdf::{self, PdfError};
use isolab_reports::read::{self, ReadError};
use isolab_reports::report;
use thiserror::Error;

/// Makes reports from runs of the lab, and from criterion's results.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Renders a run: one offline page, and beside it Markdown, CSV and the charts.
    Render {
        /// The run, as `isolab-bench run` wrote it.
        run: PathBuf,
        /// The folder to write to: new, empty, or with an earlier report.
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        /// Print the page to report.pdf as well, by a Chromium on PATH.
        #[arg(long)]
        pdf: bool,
    },
    /// Tells what changed from one run to another, in the figures and around them.
    Compare {
        /// The run that the other is held against: its run.json or the folder of its report.
        before: PathBuf,
        /// The other run.
        after: PathBuf,
        /// The folder to write to: new, empty, or with an earlier report.
        #[arg(long, value_name = "DIR", default_value = "isolab-comparison")]
        out: PathBuf,
    },
    /// Sets runs of several hosts beside each other: what each subject costs on each, beside the host's own process.
    Hosts {
        /// The runs: their run.json or the folders of their reports.
        #[arg(required = true, num_args = 2.., value_name = "RUN")]
        runs: Vec<PathBuf>,
        /// The folder to write to: new, empty, or with an earlier report.
        #[arg(long, value_name = "DIR", default_value = "isolab-hosts")]
        out: PathBuf,
    },
    /// Renders what `cargo bench` has measured.
    Criterion {
        /// The folder where criterion keeps its results.
        #[arg(default_value = "target/criterion")]
        results: PathBuf,
        /// The folder to write to: new, empty, or with an earlier report.
        #[arg(long, value_name = "DIR", default_value = "isolab-benchmarks")]
        out: PathBuf,
    },
}

#[derive(Debug, Error)]
enum Failure {
    #[error("cannot read {path}")]
    Open { path: PathBuf, source: std::io::Error },
    #[error("cannot use {path}")]
    Read { path: PathBuf, source: ReadError },
    #[error(transparent)]
    Criterion(#[from] CriterionError),
    #[error("cannot write the report")]
    Folder(#[from] FolderError),
    #[error("the report is written, but not as PDF")]
    Pdf(#[from] PdfError),
}

impl Failure {
    fn hint(&self) -> &'static str {
        match self {
            Self::Open { .. } => "give the run.json that `isolab-bench run` wrote",
            Self::Read { source, .. } => source.hint(),
            Self::Criterion(source) => source.hint(),
            Self::Folder(source) => source.hint(),
            Self::Pdf(source) => source.hint(),
        }
    }
}

fn main() -> ExitCode {
    let (made, out) = match Arguments::parse().command {
        Command::Render { run, out, pdf } => (render(&run, &out, pdf), out),
        Command::Compare { before, after, out } => (compare(&before, &after, &out), out),
        Command::Hosts { runs, out } => (hosts(&runs, &out), out),
        Command::Criterion { results, out } => (benchmarks(&results, &out), out),
    };
    match made {
        Ok(()) => {
            println!("{}", out.join("index.html").display());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprint!("error: {error}");
            let mut source = error.source();
            while let Some(cause) = source {
                eprint!(": {cause}");
                source = cause.source();
            }
            eprintln!("\nhint: {}", error.hint());
            ExitCode::FAILURE
        }
    }
}

fn render(path: &Path, out: &Path, pdf: bool) -> Result<(), Failure> {
    let (run, path) = read_run(path)?;
    folder::write_run(out, Record::At(&path), &report::render(&run))?;
    if pdf {
        pdf::print(&out.join("index.html"), &out.join("report.pdf"))?;
    }
    Ok(())
}

fn compare(before: &Path, after: &Path, out: &Path) -> Result<(), Failure> {
    let ((before, _), (after, _)) = (read_run(before)?, read_run(after)?);
    for sentence in compare::sentences(&Comparison::of(&before, &after)) {
        eprintln!("{sentence}");
    }
    folder::write(out, &report::compare(&before, &after))?;
    Ok(())
}

fn hosts(paths: &[PathBuf], out: &Path) -> Result<(), Failure> {
    let runs = paths.iter().map(|path| Ok(read_run(path)?.0)).collect::<Result<Vec<Run>, Failure>>()?;
    Ok(folder::write(out, &report::hosts(&runs))?)
}

fn benchmarks(results: &Path, out: &Path) -> Result<(), Failure> {
    Ok(folder::write(out, &report::criterion(&criterion::read(results)?))?)
}

/// A run and the file that it was read from, which is named or lies in the folder of its report.
fn read_run(path: &Path) -> Result<(Run, PathBuf), Failure> {
    let path = if path.is_dir() { path.join("run.json") } else { path.to_owned() };
    let file = File::open(&path).map_err(|source| Failure::Open { path: path.clone(), source })?;
    match read::read_from(file) {
        Ok(run) => Ok((run, path)),
        Err(source) => Err(Failure::Read { path, source }),
    }
}
