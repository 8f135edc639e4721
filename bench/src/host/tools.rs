//! Other programs: peers to be measured beside the lab's own engines, and tools that parts of the lab call.

use std::env;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use isolab_reports::model::Fact;

use super::finding::Findings;

/// A program that the lab can measure or use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Tool {
    /// Name of its command.
    command: &'static str,
    /// What it is for.
    purpose: &'static str,
    /// How to get it: a Debian package, or else where it comes from.
    source: Source,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Debian(&'static str),
    Elsewhere(&'static str),
}

const fn debian(command: &'static str, package: &'static str, purpose: &'static str) -> Tool {
    Tool { command, purpose, source: Source::Debian(package) }
}

const PEERS: [Tool; 7] = [
    debian("runc", "runc", "the OCI runtime beneath docker"),
    debian("crun", "crun", "the OCI runtime beneath podman"),
    debian("bwrap", "bubblewrap", "namespaces without an image"),
    Tool {
        command: "firecracker",
        purpose: "a microVM monitor",
        source: Source::Elsewhere("its release page; put it on PATH, or pass --peer firecracker=PATH"),
    },
    debian("qemu-system-x86_64", "qemu-system-x86", "a full machine monitor"),
    debian("docker", "docker.io", "a container engine"),
    debian("podman", "podman", "a container engine"),
];

const TOOLS: [Tool; 5] = [
    debian("gcc", "gcc", "compiles the C guests of the tests"),
    debian("git", "git", "names the revision in each report"),
    debian("busybox", "busybox-static", "the unmodified Linux program of the tests"),
    debian("chromium", "chromium", "opens the report in a test"),
    debian("skopeo", "skopeo", "a second opinion on images"),
];

/// How long a peer may take to tell its version.
const PATIENCE: Duration = Duration::from_millis(800);

/// The peers on `PATH`, with their versions. Asks all at once, as some take their time.
pub(crate) fn look_for_peers() -> Vec<Fact> {
    let answers: Vec<_> = thread::scope(|scope| {
        let asked = PEERS.map(|peer| scope.spawn(move || ask(peer)));
        asked.into_iter().map(|answer| answer.join().unwrap_or(Answer::Silent)).collect()
    });
    judge_peers(&answers)
}

/// What a peer said when asked for its version.
enum Answer {
    Version(String),
    Silent,
    Absent,
}

fn ask(peer: Tool) -> Answer {
    match find(peer.command).map(|path| version_of(&path)) {
        Some(Some(version)) => Answer::Version(version),
        Some(None) => Answer::Silent,
        None => Answer::Absent,
    }
}

/// The tools on `PATH`.
pub(crate) fn look_for_tools() -> Vec<Fact> {
    judge_tools(|tool| find(tool.command).is_some())
}

fn judge_peers(answers: &[Answer]) -> Vec<Fact> {
    let mut findings = Findings::on("peers");
    for (peer, answer) in PEERS.iter().zip(answers) {
        match answer {
            Answer::Version(version) => findings.ok(peer.command, version.clone()),
            Answer::Silent => findings.warn(
                peer.command,
                "on PATH, but does not tell its version",
                format!("try: {} --version", peer.command),
            ),
            Answer::Absent => {
                findings.missing(peer.command, format!("not on PATH ({})", peer.purpose), how_to_get(*peer));
            }
        }
    }
    findings.into_facts()
}

fn judge_tools(has: impl Fn(&Tool) -> bool) -> Vec<Fact> {
    let mut findings = Findings::on("tools");
    for tool in &TOOLS {
        if has(tool) {
            findings.ok(tool.command, tool.purpose);
        } else {
            findings.missing(tool.command, format!("not on PATH ({})", tool.purpose), how_to_get(*tool));
        }
    }
    findings.into_facts()
}

fn how_to_get(tool: Tool) -> String {
    match tool.source {
        Source::Debian(package) => format!("sudo apt install {package}"),
        Source::Elsewhere(place) => place.to_owned(),
    }
}

/// The command's file: the first on `PATH` that may be executed.
pub(crate) fn find(command: &str) -> Option<PathBuf> {
    let folders = env::var_os("PATH")?;
    // Administrators' folders are not on every user's PATH, and runc lies there.
    let usual = [PathBuf::from("/usr/sbin"), PathBuf::from("/sbin")];
    env::split_paths(&folders).chain(usual).map(|folder| folder.join(command)).find(|path| is_executable(path))
}

fn is_executable(path: &Path) -> bool {
    path.metadata().is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
}

/// What `path --version` says, as far as it says a version within [`PATIENCE`].
pub(crate) fn version_of(path: &Path) -> Option<String> {
    let said = output_of(Command::new(path).arg("--version"))?;
    version_in(&said).map(str::to_owned)
}

/// What a command prints, where it succeeds within [`PATIENCE`].
fn output_of(command: &mut Command) -> Option<String> {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().ok()?;
    let deadline = Instant::now() + PATIENCE;
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if Instant::now() < deadline => thread::sleep(Duration::from_millis(2)),
            _ => {
                // It hangs, or wants to say more than a pipe holds. Both calls fail only where it has ended meanwhile.
                let _ = child.kill();
                let _ = child.wait();
                return None;
            }
        }
    };
    let mut text = String::new();
    child.stdout.take()?.take(4096).read_to_string(&mut text).ok()?;
    status.success().then_some(text)
}

/// The first word that reads as a version: digits and a dot, perhaps after a `v`.
fn version_in(text: &str) -> Option<&str> {
    let word = |word: &&str| {
        let digits = word.strip_prefix('v').unwrap_or(word);
        digits.starts_with(|first: char| first.is_ascii_digit()) && digits.contains('.')
    };
    text.split_whitespace()
        .map(|word| word.trim_matches([',', ';', '(', ')']))
        .find(word)
        .map(|word| word.strip_prefix('v').unwrap_or(word))
}

#[cfg(test)]
mod tests {
    use isolab_reports::model::Status;

    use super::super::finding::tests::{assert_hints, fact};
    use super::*;

    #[test]
    fn the_version_is_found_in_what_each_peer_prints() {
        for (text, version) in [
            ("runc version 1.1.5+ds1\ncommit: 1.1.5+ds1-1+deb12u1\nspec: 1.0.2-dev\n", "1.1.5+ds1"),
            ("crun version 1.8.1\ncommit: f8a096b\n", "1.8.1"),
            ("bubblewrap 0.8.0\n", "0.8.0"),
            ("Firecracker v1.7.0\n\nSupported snapshot data format versions: v0.23.0\n", "1.7.0"),
            ("QEMU emulator version 7.2.9 (Debian 1:7.2+dfsg-7+deb12u5)\n", "7.2.9"),
            ("Docker version 20.10.24+dfsg1, build 297e128\n", "20.10.24+dfsg1"),
            ("podman version 4.3.1", "4.3.1"),
        ] {
            assert_eq!(version_in(text), Some(version));
        }
        assert_eq!(version_in("usage: thing [options]"), None);
    }

    #[test]
    fn what_is_missing_comes_with_the_package_that_has_it() {
        let version = Answer::Version("1.1.5".into());
        let answers = [version, Answer::Silent, Answer::Absent, Answer::Absent, Answer::Absent];
        let facts = judge_peers(&answers);
        assert_eq!(fact(&facts, "runc").value, "1.1.5");
        assert_eq!(fact(&facts, "crun").status, Status::Warn);
        assert_eq!(fact(&facts, "bwrap").hint.as_deref(), Some("sudo apt install bubblewrap"));
        assert!(fact(&facts, "firecracker").hint.as_ref().unwrap().contains("--peer"));
        assert_hints(&facts);
        assert_hints(&judge_tools(|_| false));
        assert!(judge_tools(|_| true).iter().all(|fact| fact.status == Status::Ok));
    }

    #[test]
    fn a_program_that_is_absent_fails_or_hangs_says_nothing() {
        assert_eq!(version_of(Path::new("/no such program")), None);
        assert_eq!(output_of(Command::new("sh").args(["-c", "echo 1.0; exit 3"])), None);
        assert_eq!(output_of(Command::new("sleep").arg("60")), None);
        assert_eq!(output_of(Command::new("echo").arg("1.0")).as_deref(), Some("1.0\n"));
    }

    #[test]
    fn commands_are_found_where_the_shell_finds_them() {
        assert!(find("sh").is_some());
        assert_eq!(find("no-such-command-anywhere"), None);
        assert_eq!(find("etc"), None, "a folder is no command");
    }
}
