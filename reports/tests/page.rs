//! The page in a real browser: it says nothing on the console and asks for nothing.

mod support;

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use isolab_reports::report;
use libtest_mimic::{Arguments, Failed, Trial};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

/// Longer than a browser ever takes for one page.
const PATIENCE: Duration = Duration::from_mins(1);

fn main() {
    let arguments = Arguments::from_args();
    let browser = find("chromium");
    let required = std::env::var("ISOLAB_REQUIRE").is_ok_and(|needs| needs.split(',').any(|need| need == "chromium"));
    let trial = |name: &str, test: fn(&Path) -> Result<(), Failed>| {
        let found = browser.clone();
        let kind = if found.is_some() { "" } else { "needs chromium" };
        Trial::test(name, move || match &found {
            Some(browser) => test(browser),
            None => Err("ISOLAB_REQUIRE names chromium, and it is not on PATH".into()),
        })
        .with_kind(kind)
        .with_ignored_flag(browser.is_none() && !required)
    };
    let trials = vec![
        trial("the_page_opens_without_a_word_on_the_console_or_a_request", opens_quietly),
        trial("the_page_is_printed_as_a_pdf_and_the_browser_is_gone", prints),
        trial("a_page_that_talks_or_asks_would_be_caught", a_loud_page_is_caught),
    ];
    libtest_mimic::run(&arguments, trials).exit();
}

fn find(command: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(command)).find(|candidate| candidate.is_file())
}

fn opens_quietly(browser: &Path) -> Result<(), Failed> {
    let (_, run) = support::fixture();
    let page = support::file(&report::render(&run), "index.html");
    let visit = Visit::to(browser, &page)?;
    if !visit.dom.contains("Where a start spends its time") {
        return Err(format!("the page was not shown: {}", visit.dom).into());
    }
    if visit.console.is_empty() && visit.requests.is_empty() {
        Ok(())
    } else {
        Err(format!("console: {:?}\nrequests: {:?}", visit.console, visit.requests).into())
    }
}

fn prints(_: &Path) -> Result<(), Failed> {
    let scratch = tempfile::tempdir()?;
    let mut command = Command::new(env!("CARGO_BIN_EXE_isolab-report"));
    command.arg("render").arg(support::path("fixtures/run.json")).arg("--pdf").arg("--out").arg(scratch.path());
    // Its profile lies here, so that what it leaves would be found here.
    let output = command.env("TMPDIR", scratch.path().parent().unwrap_or(Path::new("/tmp"))).output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
    }
    let pdf = fs::read(scratch.path().join("report.pdf"))?;
    let whole = pdf.starts_with(b"%PDF") && pdf.len() > 50_000;
    let left = processes_naming(&scratch.path().display().to_string());
    match (whole, left.as_slice()) {
        (true, []) => Ok(()),
        (false, _) => Err(format!("the PDF has {} bytes", pdf.len()).into()),
        (_, left) => Err(format!("the browser left {left:?} running").into()),
    }
}

/// Shows that the other trial could fail: both of its instruments see what they are there for.
fn a_loud_page_is_caught(browser: &Path) -> Result<(), Failed> {
    let loud = "<!DOCTYPE html><title>loud</title><img src=\"http://127.0.0.1:9/pixel.png\"><script>console.log('loud')</script>";
    let visit = Visit::to(browser, loud)?;
    if visit.console.len() == 1 && visit.requests.iter().any(|url| url.contains("pixel.png")) {
        Ok(())
    } else {
        Err(format!("console: {:?}\nrequests: {:?}", visit.console, visit.requests).into())
    }
}

/// What a browser saw of a page.
struct Visit {
    dom: String,
    console: Vec<String>,
    requests: Vec<String>,
}

impl Visit {
    /// Opens a page in a browser with a profile of its own, and closes both.
    fn to(browser: &Path, page: &str) -> Result<Self, Failed> {
        let scratch = tempfile::tempdir()?;
        let file = |name: &str| scratch.path().join(name);
        fs::write(file("index.html"), page)?;
        let (out, error) = (fs::File::create(file("dom"))?, fs::File::create(file("log"))?);
        let browser = Command::new(browser)
            .args(["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-extensions"])
            .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
            .args(["--enable-logging=stderr", "--dump-dom", "--virtual-time-budget=2000"])
            .arg(format!("--user-data-dir={}", file("profile").display()))
            .arg(format!("--log-net-log={}", file("net.json").display()))
            .arg(format!("file://{}", file("index.html").display()))
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(error)
            // A group of its own, so that its helpers end with it, whatever happens.
            .process_group(0)
            .spawn()?;
        Group(browser).wait()?;
        let visit = Self {
            dom: fs::read_to_string(file("dom"))?,
            console: fs::read_to_string(file("log"))?
                .lines()
                .filter(|line| line.contains(":CONSOLE"))
                .map(str::to_owned)
                .collect(),
            requests: requests(&fs::read_to_string(file("net.json"))?)?,
        };
        let profile = scratch.path().display().to_string();
        scratch.close()?;
        match processes_naming(&profile).as_slice() {
            [] => Ok(visit),
            left => Err(format!("the browser left {left:?} running").into()),
        }
    }
}

/// The URLs that the page asked for. What the browser itself asks for (the time, its updates) has no origin.
fn requests(log: &str) -> Result<Vec<String>, Failed> {
    let log: serde_json::Value = serde_json::from_str(log)?;
    let of_a_page = |params: &serde_json::Value| {
        let initiator = params["initiator"].as_str()?;
        (initiator != "not an origin").then(|| params["url"].as_str().unwrap_or_default().to_owned())
    };
    let events = log["events"].as_array().ok_or("the network log has no events")?;
    Ok(events.iter().filter_map(|event| of_a_page(&event["params"])).collect())
}

/// A browser and the processes it started, which end at the latest with this value.
struct Group(Child);

impl Group {
    fn wait(mut self) -> Result<(), Failed> {
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            if let Some(status) = self.0.try_wait()? {
                return if status.success() { Ok(()) } else { Err(format!("the browser ended with {status}").into()) };
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Err("the browser did not end".into())
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // No such group any more is what one hopes for.
        let _ = killpg(Pid::from_raw(self.0.id() as i32), Signal::SIGKILL);
        let _ = self.0.wait();
    }
}

/// Processes whose command line names a folder; those that are just ending get two seconds.
fn processes_naming(folder: &str) -> Vec<String> {
    let naming = || {
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        let lines = entries.filter_map(|entry| fs::read_to_string(entry.path().join("cmdline")).ok());
        lines.filter(|line| line.contains(folder)).collect::<Vec<_>>()
    };
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(2) && !naming().is_empty() {
        std::thread::sleep(Duration::from_millis(20));
    }
    naming()
}
