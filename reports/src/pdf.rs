//! The page as a PDF, printed by a headless Chromium where there is one.
//!
//! The style sheet has its own rules for paper, and a browser is what knows them. It gets a profile of its own, asks nothing of
//! the network, and is gone with everything it started when this returns.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::{Pid, geteuid};
use thiserror::Error;

/// What it is called on different systems.
const NAMES: [&str; 5] = ["chromium", "chromium-browser", "google-chrome-stable", "google-chrome", "chrome"];

/// A page of a run takes three seconds.
const PATIENCE: Duration = Duration::from_secs(90);

/// Why there is no PDF.
#[derive(Debug, Error)]
pub enum PdfError {
    /// No browser.
    #[error("no Chromium is on PATH, and it is what prints the page")]
    NoBrowser,
    /// The page's path can't be told.
    #[error("cannot find {path}")]
    Page {
        /// The page.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It could not be started, or asked for its end.
    #[error("cannot run {browser}")]
    Start {
        /// Its program.
        browser: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It ended without a PDF.
    #[error("{browser} printed nothing within {} s: it ended with {end}", PATIENCE.as_secs())]
    Nothing {
        /// Its program.
        browser: PathBuf,
        /// How it ended.
        end: String,
    },
}

impl PdfError {
    /// What to try next.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::NoBrowser => {
                "install it (Debian: apt install chromium), or open index.html in any browser and print it"
            }
            Self::Page { .. } => "is the folder still there?",
            Self::Start { .. } | Self::Nothing { .. } => "open index.html in any browser and print it",
        }
    }
}

/// Prints a page.
pub fn print(page: &Path, pdf: &Path) -> Result<(), PdfError> {
    let browser = find().ok_or(PdfError::NoBrowser)?;
    let absolute =
        |path: &Path| std::path::absolute(path).map_err(|source| PdfError::Page { path: path.to_owned(), source });
    let (page, pdf) = (absolute(page)?, absolute(pdf)?);
    let started = |source| PdfError::Start { browser: browser.clone(), source };
    let profile = Profile::make().map_err(started)?;
    let mut command = Command::new(&browser);
    command.args([
        "--headless=new",
        "--disable-gpu",
        "--no-first-run",
        "--disable-extensions",
        "--no-pdf-header-footer",
    ]);
    command.args(["--disable-background-networking", "--disable-component-update", "--disable-sync"]);
    if geteuid().is_root() {
        command.arg("--no-sandbox"); // its sandbox refuses to be root's
    }
    command
        .arg(option("--user-data-dir=", &profile.0))
        .arg(option("--print-to-pdf=", &pdf))
        .arg(option("file://", &page));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    // A group of its own, so that its helpers end with it.
    let child = command.process_group(0).spawn().map_err(started)?;
    let end = Group(child).wait().map_err(started)?;
    if fs::read(&pdf).is_ok_and(|bytes| bytes.starts_with(b"%PDF")) {
        Ok(())
    } else {
        Err(PdfError::Nothing { browser, end })
    }
}

fn find() -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    let folders: Vec<PathBuf> = env::split_paths(&path).collect();
    NAMES
        .iter()
        .flat_map(|name| folders.iter().map(move |folder| folder.join(name)))
        .find(|candidate| candidate.is_file())
}

fn option(name: &str, value: &Path) -> std::ffi::OsString {
    let mut option = std::ffi::OsString::from(name);
    option.push(OsStr::new(value));
    option
}

/// A browser's profile, removed with this value.
struct Profile(PathBuf);

impl Profile {
    fn make() -> io::Result<Self> {
        let folder = env::temp_dir().join(format!("isolab-report-{}", std::process::id()));
        fs::create_dir(&folder)?;
        Ok(Self(folder))
    }
}

impl Drop for Profile {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A process and those that it started.
struct Group(Child);

impl Group {
    /// Waits for its end, and says how that was; what takes too long is killed.
    fn wait(mut self) -> io::Result<String> {
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            if let Some(status) = self.0.try_wait()? {
                return Ok(status.to_string());
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok("no end".to_owned())
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // No such group any more is what one hopes for.
        let _ = killpg(Pid::from_raw(self.0.id() as i32), Signal::SIGKILL);
        let _ = self.0.wait();
    }
}
