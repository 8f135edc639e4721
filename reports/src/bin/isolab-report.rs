//! `isolab-report`: makes the report of a run again from its `run.json`.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use isolab_reports::folder::{self, FolderError};
use isolab_reports::read::{self, ReadError};
use isolab_reports::report;
use thiserror::Error;

/// Makes reports from runs of the lab.
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
    },
}

#[derive(Debug, Error)]
enum RenderError {
    #[error("cannot read {path}")]
    Open { path: PathBuf, source: std::io::Error },
    #[error("cannot use {path}")]
    Read { path: PathBuf, source: ReadError },
    #[error("cannot write the report")]
    Folder(#[from] FolderError),
}

impl RenderError {
    fn hint(&self) -> &'static str {
        match self {
            Self::Open { .. } => "give the run.json that `isolab-bench run` wrote",
            Self::Read { source, .. } => source.hint(),
            Self::Folder(source) => source.hint(),
        }
    }
}

fn main() -> ExitCode {
    let Command::Render { run, out } = Arguments::parse().command;
    match render(&run, &out) {
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

fn render(path: &Path, out: &Path) -> Result<(), RenderError> {
    // Not read_to_string: what is no UTF-8 should be called no run, not unreadable.
    let raw = fs::read(path).map_err(|source| RenderError::Open { path: path.to_owned(), source })?;
    let run = read::read(&String::from_utf8_lossy(&raw));
    let run = run.map_err(|source| RenderError::Read { path: path.to_owned(), source })?;
    folder::write(out, &report::render(&run, &raw))?;
    Ok(())
}
